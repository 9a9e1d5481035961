"""Conditions as plain Python: the part of CEL that rules use, ten times as fast as its interpreter.

Only what means the same in both languages is translated (comparisons, and, or, not, sums, literals); whatever else a
condition holds stays with the interpreter, which has also parsed and typed every condition before it comes here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from app.core.scope import VARIABLES, Scope

_SECONDS = re.compile(r"([0-9]+)(h|m|s)")
_UNITS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}
_STRING = re.compile(r"'[^'\\]*'|\"[^\"\\]*\"")
#: Money has no value in CEL, only words.
_READERS = {name: index for index, (name, variable) in enumerate(VARIABLES.items()) if variable.kind != "money"}
_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Invert, ast.Compare, ast.Eq, ast.NotEq, ast.Lt,
    ast.LtE, ast.Gt, ast.GtE, ast.BinOp, ast.Add, ast.Sub, ast.Constant, ast.Name, ast.Attribute, ast.Load,
)  # fmt: skip


def translate(text: str) -> Callable[[Scope], bool] | None:
    """The condition as a Python function; None when it holds anything that may mean something else in Python."""
    tree = _parse(text)
    if tree is None:
        return None
    try:
        tree = ast.fix_missing_locations(_Names().visit(_durations(tree)))
    except KeyError:  # a name of CEL's own, such as null
        return None
    # Only our own names, literals and the operators above are left in the tree.
    code = compile(tree, "<condition>", "eval")
    names = {f"v{index}": variable.read for index, variable in enumerate(VARIABLES.values())}
    made: Callable[[Scope], bool] = eval(code, {"__builtins__": {}, **names})  # noqa: S307
    return made


def _parse(text: str) -> ast.Expression | None:
    strings = _STRING.findall(text)
    bare = _STRING.sub("\0", text)
    if any(sign in bare for sign in "?[]{}%*/\\") or "\n" in bare or re.search(r"!\s*!", bare):
        return None  # two ! in a row are none to CEL, whatever they stand before
    # CEL's ! binds as tightly as Python's ~; its `not` would take in a whole comparison.
    bare = re.sub(r"!(?!=)", "~", bare).replace("&&", " and ").replace("||", " or ")
    bare = re.sub(r"\btrue\b", "True", re.sub(r"\bfalse\b", "False", bare))
    for string in strings:
        bare = bare.replace("\0", string, 1)
    try:
        tree = ast.parse(f"lambda s: {bare.strip()}", mode="eval")
    except SyntaxError:
        return None
    body = tree.body
    assert isinstance(body, ast.Lambda)
    for node in ast.walk(body.body):
        if isinstance(node, ast.Call):
            if not _is_duration(node):
                return None
        elif (isinstance(node, ast.Compare) and len(node.ops) > 1) or not isinstance(node, _ALLOWED):
            return None
    return tree


def _is_duration(node: ast.Call) -> bool:
    return (
        isinstance(node.func, ast.Name)
        and node.func.id == "duration"
        and len(node.args) == 1
        and not node.keywords
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
        and re.fullmatch(r"([0-9]+(h|m|s))+", node.args[0].value) is not None
    )


class _Literals(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.expr:
        argument = node.args[0]
        assert isinstance(argument, ast.Constant)
        span = sum(int(n) * _UNITS[unit] for n, unit in _SECONDS.findall(str(argument.value)))
        return ast.Constant(span)


def _durations(tree: ast.Expression) -> ast.Expression:
    """`duration('40s')` is a number of microseconds, as the view's durations are."""
    made = _Literals().visit(tree)
    assert isinstance(made, ast.Expression)
    return made


class _Names(ast.NodeTransformer):
    """`coupon.id` becomes a call of its reader. Raises KeyError for what is no name of the view."""

    def visit_Invert(self, node: ast.Invert) -> ast.Not:
        return ast.Not()

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self._read(ast.unparse(node))

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._read(node.id)

    @staticmethod
    def _read(name: str) -> ast.expr:
        index = _READERS[name]
        return ast.Call(ast.Name(f"v{index}", ast.Load()), [ast.Name("s", ast.Load())], [])
