"""Small readers of the settings of a rule file: each gives a value, and notes what is wrong with it in its line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from app.core import expressions
from app.core.expressions import ExpressionError
from app.core.problems import Path, Problem, located, shown, suggestion

T = TypeVar("T")


class Fields:
    """One file. Methods note problems and go on, so that a person sees all of them in one run."""

    def __init__(self, file: str, text: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        before = len(problems)
        self.data, self.lines = located(text, file, problems)
        self.unreadable = not self.data and len(problems) > before
        self.key = "user"

    def fail(self, path: Path, text: str) -> None:
        while path and path not in self.lines:
            path = path[:-1]
        self.problems.append(Problem(self.file, self.lines.get(path, 1), text))

    def known(self, data: Mapping[str, Any], allowed: set[str], path: Path) -> None:
        for name in data:
            if name not in allowed:
                self.fail((*path, name), f"There is no setting '{name}' here. {suggestion(name, allowed)}")

    def choice(self, value: Any, allowed: tuple[str, ...], path: Path, what: str) -> str:
        if value not in allowed:
            said = f"No {what} is named here." if value is None else f"'{shown(value)}' is no {what}."
            self.fail(path, f"{said} {suggestion(value, allowed)}")
            return allowed[0]
        return str(value)

    def compiled(self, make: Callable[[], T], path: Path) -> T | None:
        try:
            return make()
        except ExpressionError as error:
            self.fail(path, str(error))
            return None

    def condition(self, text: Any, path: Path) -> Any:
        if text is None or isinstance(text, str):
            return None if text is None else self.compiled(lambda: expressions.condition(text, self.key), path)
        self.fail(path, f"'{shown(text)}' is no condition: write one in quotes, such as \"user.paid_orders > 0\".")
        return None

    def text(self, data: Mapping[str, Any], name: str, path: Path) -> str:
        """A setting for people to read."""
        value = data.get(name, "")
        if not isinstance(value, str):
            self.fail(path, f"'{name}' is a text: write it in quotes.")
            return ""
        return value

    def timing(self, text: Any, wanted: str, path: Path) -> Any:
        return None if text is None else self.compiled(lambda: expressions.timing(str(text), self.key, wanted), path)

    def span(self, value: Any, path: tuple[str | int, ...], default: int) -> int:
        if value is None:
            return default
        span = self.compiled(lambda: expressions.duration(str(value)), path)
        if span == 0:
            self.fail(path, f"'{value}' is no time at all: write a duration above zero.")
        return span or default

    def listed(self, data: Mapping[str, Any], name: str, path: tuple[str | int, ...]) -> list[Any]:
        """A setting that is a list of names."""
        value = data.get(name) or []
        if isinstance(value, list):
            return value
        self.fail(path, f"'{name}' is a list, such as [{shown(value)}].")
        return []
