"""Mistakes in files that people write: each with its file, its line, its cause and a way out, all of them at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import yaml

from app.core import ill_formed, plain_yaml
from schemas.instant import BadInstant
from schemas.nearest import nearest

Path = tuple[str | int, ...]
#: Characters of what somebody wrote, in a sentence about it.
_SHOWN = 100


class Problem(NamedTuple):
    """One mistake."""

    file: str
    line: int
    """0 = of the file, or directory, as such."""
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


class CatalogueError(Exception):
    """The catalogue cannot be used; `problems` holds every mistake found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def suggestion(name: object, allowed: Iterable[str]) -> str:
    """'Did you mean ...?', or what there is."""
    names = sorted(allowed)
    near = nearest(str(name), names)
    return f"Did you mean '{near}'?" if near else f"Known: {', '.join(names)}." if names else "There is none yet."


def shortened(text: str, to: int = _SHOWN) -> str:
    """The beginning of a text that somebody wrote: as much as tells which one is meant."""
    return text if len(text) <= to else f"{text[: to - 1]}…"


def shown(value: object) -> str:
    """A value as its writer knows it: YAML's true, not Python's True."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return shortened(f"{{{', '.join(f'{name}: {shown(item)}' for name, item in value.items())}}}")
    if isinstance(value, list):
        return shortened(f"[{', '.join(map(shown, value))}]")
    return str(value).lower() if isinstance(value, bool) else shortened(str(value))


def not_an_instant(problem: BadInstant, text: str) -> str:
    """A sentence for who writes a file, not for who sends events."""
    if "RFC 3339" in str(problem) or "offset" in str(problem):
        return f"'{text}' is no instant: write day, time and offset, such as 2026-03-01T08:00:00+08:00."
    return str(problem)


def located(text: str, file: str, problems: list[Problem]) -> tuple[dict[str, Any], dict[Path, int]]:
    """A YAML mapping and the line of each of its values; an empty one, with a problem noted, when it is none."""
    lines: dict[Path, int] = {}
    if len(text) > plain_yaml.LARGEST:
        problems.append(Problem(file, 1, f"This file has more than {plain_yaml.LARGEST} characters. No rule has."))
        return {}, lines
    try:
        node = plain_yaml.compose(text)
    except yaml.YAMLError as error:
        problems.append(Problem(file, *ill_formed.told(error, text)))
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
            why = f"'{shortened(node.value)}' cannot be read. Put it in quotes."
            self.problems.append(Problem(self.file, line, why))
            return None

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(self.file, line, "Before a colon stands a name, and no list or mapping."))
                continue
            slip = _in_braces(key, value_node)
            if slip:
                self.problems.append(Problem(self.file, line, slip))
                continue
            if key in result:
                self.problems.append(Problem(self.file, line, f"'{key}' stands here twice. Take one of them out."))
            result[key] = self.value(value_node, (*path, key))
            self.lines[(*path, key)] = line
        return result


def _in_braces(key: str, value: yaml.Node) -> str | None:
    """What YAML takes between braces for a name without a value, though somebody meant it otherwise."""
    if value.value != "" or value.start_mark.index != value.end_mark.index:
        return None
    if re.match(r"\d", key):
        return "A comma separates what is between braces. Write a decimal number with a point, or put it in quotes."
    name, colon, rest = key.partition(":")
    return f"A colon is followed by a space: '{name}: {rest}'." if colon and rest else None
