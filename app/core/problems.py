"""Mistakes in files that people write: each with its file, its line, its cause and a way out, all of them at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import yaml

from schemas.nearest import nearest

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """One mistake."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


class CatalogueError(Exception):
    """The catalogue cannot be used; `problems` holds every mistake found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def suggestion(name: object, allowed: Iterable[str]) -> str:
    """'Did you mean ...?', or what there is."""
    names = sorted(allowed)
    near = nearest(str(name), names)
    return f"Did you mean '{near}'?" if near else f"Known: {', '.join(names)}."


def located(text: str, file: str, problems: list[Problem]) -> tuple[dict[str, Any], dict[Path, int]]:
    """A YAML mapping and the line of each of its values; an empty one, with a problem noted, when it is none."""
    lines: dict[Path, int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problems.append(
            Problem(file, mark.line + 1 if mark else 1, f"This is not YAML: {getattr(error, 'problem', error)}.")
        )
        return {}, lines
    if node is None:
        return {}, lines
    if not isinstance(node, yaml.MappingNode):
        problems.append(Problem(file, 1, "This file must be a mapping, 'name: value' on each line."))
        return {}, lines
    reader = _Values(file, lines, problems)
    value: dict[str, Any] = reader.value(node, ())
    return value, lines


class _Values:
    """Turns YAML nodes into plain values, and notes their lines and what is wrong with them."""

    def __init__(self, file: str, lines: dict[Path, int], problems: list[Problem]) -> None:
        self.file = file
        self.lines = lines
        self.problems = problems

    def value(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self.lines[path] = line
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, position)) for position, item in enumerate(node.value)]
        try:
            return yaml.SafeLoader("").construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError):
            self.problems.append(Problem(self.file, line, f"'{node.value}' cannot be read. Put it in quotes."))
            return None

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in result:
                self.problems.append(Problem(self.file, line, f"'{key}' stands here twice. Take one of them out."))
            result[key] = self.value(value_node, (*path, key))
            self.lines[(*path, key)] = line
        return result
