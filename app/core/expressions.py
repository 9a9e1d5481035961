"""The two small languages of a rule file, compiled once: conditions (CEL) and timings.

Both are checked when the catalogue is read: unknown names, wrong types and impossible comparisons never reach the
stream. Conditions are parsed and typed by the CEL library. Timings are sums of instants and durations ("2 x validity"
is not an instant), with the literals `7d`, `36h`, `15min`, `30s`, and `min`, `max`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cel_expr_python import cel

from app.core import fast_conditions, slips
from app.core.problems import shortened
from app.core.row import NEVER
from app.core.scope import VARIABLES, Scope
from schemas.nearest import nearest

_UNITS = {"d": 86_400_000_000, "h": 3_600_000_000, "min": 60_000_000, "s": 1_000_000}
_LITERAL = re.compile(r"(?<![\w.])(\d+)(d|h|min|s)\b")
_DURATION = re.compile(r"\s*(\d+)(d|h|min|s)\s*")
_CALL = re.compile(r"\b(duration|timestamp)\(\s*(?:'([^']*)'|\"([^\"]*)\")\s*\)")
_NAME = re.compile(r"\b[a-z_]+(?:\.[a-z_]+)*\b")
_EXAMPLES = {
    "duration": "a duration, such as 7d, 36h, 15min or 30s, or a sum of them",
    "instant": "an instant, such as entered_at + 7d or user.last_order_at",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: What is longer is no time that anybody waits: a hundred years.
_LONGEST = 36_500 * _UNITS["d"]
#: Characters of a condition, and of a timing.
_LONGEST_TEXT = 1000
_IN_QUOTES = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
#: Nothing here goes through a list: only that could take longer than the text is long, and no value is one.
_NO_LOOPS = cel.NewEnvConfigFromYaml("stdlib: {disable_macros: true}")
_LOOP = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(")
_BY_ZERO = re.compile(r"[/%]\s*0+(?![\w.])")
_PATTERN = re.compile(r"\.\s*matches(\(\s*r?(?:'[^']*'|\"[^\"]*\")\s*\))")
#: What may be known of somebody, one of each kind at a time: a condition that fails for all fails for everybody.
_SAMPLES: tuple[dict[str, Any], ...] = tuple(
    {"int": number, "string": text, "money": text, "bool": number > 0, "instant": number * span, "duration": span}
    for number, text, span in (
        (0, "", 0),
        (1, "1", 1),
        (2, "a", _UNITS["h"]),
        (7, "2026-03-01T08:00:00Z", _UNITS["d"]),
        (100, "36h", _LONGEST),
    )
)

_CEL_TYPES = {
    "instant": cel.Type.TIMESTAMP,
    "duration": cel.Type.DURATION,
    "int": cel.Type.INT,
    "string": cel.Type.STRING,
    "money": cel.Type.STRING,
    "bool": cel.Type.BOOL,
}


class ExpressionError(Exception):
    """An expression that cannot be used; the message says why and what to write instead."""


def names_for(key: str) -> list[str]:
    """The names that a rule with this key kind may use."""
    return [name for name, variable in VARIABLES.items() if not variable.keys or key in variable.keys]


def unknown_name(name: str, key: str) -> str:
    """A sentence about a name that is not there, with the nearest one that is."""
    allowed = names_for(key)
    if name in VARIABLES:
        return f"'{name}' has no value in a rule keyed by {key}."
    near = nearest(name, allowed)
    return f"There is no '{name}'." + (f" Did you mean '{near}'?" if near else f" Known: {', '.join(allowed)}.")


def duration(text: str) -> int:
    """'7d', '36h', '15min', '30s' -> microseconds. Raises ExpressionError."""
    match = _DURATION.fullmatch(text)
    if not match:
        mended = slips.timing(text)
        how = mended if _DURATION.fullmatch(mended) else "a whole number and a unit, such as 7d, 36h, 15min or 30s"
        raise ExpressionError(f"'{shortened(text)}' is not a duration: write {how}.")
    span = _span(match[1], match[2])
    if span is None:
        raise ExpressionError(f"'{shortened(text)}' is longer than a hundred years: write a shorter one.")
    return span


def _span(number: str, unit: str) -> int | None:
    """Microseconds; None for what is longer than anybody waits."""
    span = int(number) * _UNITS[unit] if len(number) < 16 else NEVER
    return span if span <= _LONGEST else None


def _cel_value(kind: str, value: Any) -> Any:
    if kind == "instant":
        return _EPOCH + timedelta(microseconds=min(value, NEVER))
    if kind == "duration":
        return timedelta(microseconds=min(value, NEVER))
    return value


def condition(text: str, key: str) -> Callable[[Scope], bool]:
    """A compiled CEL condition over the names of `VARIABLES`. Raises ExpressionError."""
    allowed = names_for(key)
    if text in allowed and VARIABLES[text].kind == "bool":  # a bare name needs no interpreter
        return VARIABLES[text].read
    if len(text) > _LONGEST_TEXT:
        raise ExpressionError(f"'{shortened(text)}' is longer than {_LONGEST_TEXT} characters: no condition is.")
    env = cel.NewEnv(config=_NO_LOOPS, variables={name: _CEL_TYPES[VARIABLES[name].kind] for name in allowed})
    try:
        expression = env.compile(text)
    except Exception as error:
        raise ExpressionError(_cel_problem(text, key, str(error))) from error
    if expression.return_type() != cel.Type.BOOL:
        kind = _what(expression.return_type().name())
        raise ExpressionError(f"'{shortened(text)}' is {kind}, not true or false: compare it with something.")
    _check_literals(text)
    bare = _IN_QUOTES.sub("''", text)
    used = [
        (n, VARIABLES[n].kind, VARIABLES[n].read)
        for n in allowed
        if re.search(rf"(?<![\w.]){re.escape(n)}(?!\w)", text)
    ]
    if not any(n in bare for n, _, _ in used):
        how = "Compare a name, as in user.paid_orders > 0, or leave it out."
        raise ExpressionError(f"'{shortened(text)}' is the same for everybody. {how}")
    quick = fast_conditions.translate(text)
    if quick is not None:
        return quick
    _check_samples(text, expression, {name: kind for name, kind, _ in used})

    def holds(scope: Scope) -> bool:
        data = {name: _cel_value(kind, read(scope)) for name, kind, read in used}
        return expression.eval(data=data).value() is True

    return holds


def _check_samples(text: str, expression: Any, kinds: dict[str, str]) -> None:
    """What cannot be told of anybody is no error of CEL's compiler: the condition would never hold. Which words a map
    of the condition's own has keys for is not known here."""
    samples = ({name: _cel_value(kind, sample[kind]) for name, kind in kinds.items()} for sample in _SAMPLES)
    found = [expression.eval(data=data) for data in samples]
    if all(value.type() == cel.Type.ERROR and "not found in map" not in str(value.value()) for value in found):
        why = str(found[-1].value()).partition(": ")[2]
        raise ExpressionError(f"'{shortened(text)}' can be told of nobody: {why}.")


def _check_literals(text: str) -> None:
    """What is wrong whatever is known of somebody is no error of CEL's compiler: the condition would never hold."""
    bare = _IN_QUOTES.sub("''", text)
    if _BY_ZERO.search(bare):
        raise ExpressionError(f"In '{shortened(text)}': nothing can be divided by 0.")
    if re.search(r"\]\s*\[", bare):
        raise ExpressionError(f"In '{shortened(text)}': write the value itself, not a list and a place in it.")
    for found in _PATTERN.finditer(text):
        if cel.NewEnv(variables={}).compile(f"''.matches{found[1]}").eval(data={}).type() == cel.Type.ERROR:
            raise ExpressionError(f"In '{shortened(text)}': {found[1][1:-1]} is no pattern.")
    for found in _CALL.finditer(text):
        if cel.NewEnv(variables={}).compile(found[0]).eval(data={}).type() != cel.Type.ERROR:
            continue
        if found[1] == "duration":
            meant = slips.duration_of_a_condition(found[2] or found[3] or "")
            how = meant or "hours, minutes or seconds, such as duration('72h'), '15m' or '30s'"
        else:
            how = "day, time and offset, such as timestamp('2026-03-01T08:00:00+08:00')"
        raise ExpressionError(f"In '{shortened(text)}': {found[0]} cannot be read; write {how}.")


def _cel_problem(text: str, key: str, message: str) -> str:
    said, bare = shortened(text), _IN_QUOTES.sub("", text)
    if _LOOP.search(bare):
        return f"In '{said}': a condition goes through no list. Write the comparisons one by one, with && or ||."
    habit = slips.condition(text)
    if habit:
        return f"'{said}' is not a condition: {habit}."
    undeclared = re.search(r"undeclared reference to '([^']+)'", message)
    if undeclared:
        head = undeclared[1]
        mentioned = [n for n in _NAME.findall(bare) if n.split(".")[0] == head]
        name = next((n for n in mentioned if n not in names_for(key)), head)
        if re.fullmatch(r"\w+", name) and re.search(rf"(?:[!=]=\s*|\bin\s*\[[^\]]*){name}(?!\()", text):
            return f"In '{said}': There is no '{name}'. A text stands in quotes: '{name}'."
        return f"In '{said}': {unknown_name(name, key)}"
    return f"'{said}' is not a condition: {_why(message)}."


def _why(message: str) -> str:
    """What CEL's compiler complains of, without the words of its parser."""
    unlike = re.search(r"no matching overload for '(\S+)' applied to '\(([^)]*)", message)
    if unlike:
        sign, kinds = unlike[1].strip("_@"), [_what(kind) for kind in unlike[2].split(", ")]
        if len(kinds) > 1 and unlike[1].startswith(("_", "@")):
            return f"{' and '.join(kinds[:2])} cannot be put together by {sign}"
        return f"{sign} cannot be used on {' and '.join(kinds)}"
    if "select operation" in message:
        return "what stands before a . has no parts"
    if "recursion depth" in message:
        return "more is put together in it than can be told; make two of it"
    if "<EOF>'" in message:
        return "something is missing at its end"
    stray = re.search(r"(?:input|recognition error at:) '(.+?)'(?: expecting|$|\s\|)", message, re.M)
    if stray:
        return f"{stray[1].strip()} cannot stand where it stands"
    first = next((line for line in message.splitlines() if "ERROR" in line), message.splitlines()[0])
    return re.sub(r"^.*<input>:\d+:\d+: | \[INVALID_ARGUMENT\]$", "", first).strip()


def _what(kind: str) -> str:
    """A kind of value of CEL's, for somebody who does not know CEL."""
    kinds = {
        "int": "a whole number",
        "string": "a text",
        "bool": "yes or no",
        "double": "a decimal number (write a whole one)",
        "duration": "a duration (written duration('72h'))",
        "timestamp": "an instant (written timestamp('2026-03-01T08:00:00+08:00'))",
    }
    name = kind.rpartition(".")[2].lower()
    return "a list" if name.startswith("list") else kinds.get(name, name)


class _Timing(ast.NodeVisitor):
    """Checks the types of a timing and compiles it: 'instant' + 'duration' and the like."""

    def __init__(self, text: str, key: str) -> None:
        self.text = text
        self.key = key

    def fail(self, why: str) -> ExpressionError:
        return ExpressionError(f"'{shortened(self.text)}' is not a timing: {why}")

    def compile(self, node: ast.expr) -> tuple[str, Callable[[Scope], int]]:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            value = node.value
            return "number", lambda _: value
        if isinstance(node, ast.Name | ast.Attribute):
            return self.name(ast.unparse(node))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self.call(node.func.id, [self.compile(arg) for arg in node.args])
        if isinstance(node, ast.BinOp):
            return self.operation(node.op, self.compile(node.left), self.compile(node.right))
        if isinstance(node, ast.UnaryOp):
            raise self.fail("nothing has a sign of its own here; write what it is before, as in user.birthday - 3d.")
        raise self.fail("use names, durations such as 7d, + - * /, min and max.")

    def name(self, name: str) -> tuple[str, Callable[[Scope], int]]:
        literal = re.fullmatch(r"_t(\d+)(d|h|min|s)", name)
        if literal:
            value = _span(literal[1], literal[2])
            if value is None:
                raise self.fail(f"{shortened(name[2:])} is longer than a hundred years.")
            return "duration", lambda _: value
        if name not in names_for(self.key):
            raise self.fail(unknown_name(name, self.key))
        variable = VARIABLES[name]
        if variable.kind not in ("instant", "duration", "int"):
            raise self.fail(f"'{name}' is a {variable.kind}.")
        return ("number" if variable.kind == "int" else variable.kind), variable.read

    def call(self, name: str, args: list[tuple[str, Callable[[Scope], int]]]) -> tuple[str, Callable[[Scope], int]]:
        if name not in ("min", "max") or len(args) < 2 or len({kind for kind, _ in args}) != 1:
            raise self.fail("min and max take two or more values of one kind.")
        pick = min if name == "min" else max
        reads = [read for _, read in args]
        return args[0][0], lambda scope: pick(read(scope) for read in reads)

    def operation(
        self, op: ast.operator, left: tuple[str, Callable[[Scope], int]], right: tuple[str, Callable[[Scope], int]]
    ) -> tuple[str, Callable[[Scope], int]]:
        (a, read_a), (b, read_b) = left, right
        match (a, type(op), b):
            case ("instant" | "duration", ast.Add, "duration"):
                return a, lambda scope: min(read_a(scope) + read_b(scope), NEVER)
            case ("instant" | "duration", ast.Sub, "duration"):
                return a, lambda scope: NEVER if (value := read_a(scope)) >= NEVER else value - read_b(scope)
            case ("instant", ast.Sub, "instant"):
                return "duration", lambda scope: read_a(scope) - read_b(scope)
            case ("duration", ast.Mult, "number"):
                return a, lambda scope: min(read_a(scope) * read_b(scope), NEVER)
            case ("duration", ast.Div, "number"):
                return a, lambda scope: read_a(scope) // max(read_b(scope), 1)
        raise self.fail(f"{a} and {b} cannot be combined like this.")


def timing(text: str, key: str, wanted: str) -> Callable[[Scope], int]:
    """A compiled timing that gives an 'instant' or a 'duration' in microseconds. Raises ExpressionError."""
    if len(text) > _LONGEST_TEXT:
        raise ExpressionError(f"'{shortened(text)}' is longer than {_LONGEST_TEXT} characters: no timing is.")
    try:
        return _timing(str(text), key, wanted)
    except ExpressionError:
        mended = slips.timing(str(text))
        if mended == text or not _is_timing(mended, key, wanted):
            raise
    raise ExpressionError(f"'{shortened(text)}' is not a timing: write {shortened(mended)}.")


def _is_timing(text: str, key: str, wanted: str) -> bool:
    try:
        _timing(text, key, wanted)
    except ExpressionError:
        return False
    return True


def _timing(text: str, key: str, wanted: str) -> Callable[[Scope], int]:
    prepared = _LITERAL.sub(r"_t\1\2", text)
    compiler = _Timing(text, key)
    try:
        tree = ast.parse(prepared.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise compiler.fail(f"write {_EXAMPLES[wanted]}.") from error
    kind, read = compiler.compile(tree.body)
    if kind == "number" and wanted == "duration":
        raise compiler.fail("a number has a unit here, such as 7d, 36h, 15min or 30s.")
    if kind != wanted:
        raise compiler.fail(f"it is {_a(kind)}, and {_a(wanted)} is needed here: write {_EXAMPLES[wanted]}.")
    return read


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "instant" else f"a {kind}"
