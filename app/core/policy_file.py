"""Reads the shop policy and the intervals: YAML text in, a checked `Policy` out, or every mistake at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from app.core import expressions
from app.core.expressions import ExpressionError
from app.core.policy import CHANNELS, Policy, QuietHours
from app.core.problems import CatalogueError, Problem, located, suggestion

_DAY = 86_400_000_000
_TOP = ("zone", "locale", "quiet_hours", "replenishment_lead")
_QUIET = ("from", "until", "jitter", "exempt")


def read(shop: str, intervals: str, shop_name: str = "shop.yaml", intervals_name: str = "intervals.yaml") -> Policy:
    """The policy of these two texts; what a text leaves out has the default. Raises CatalogueError."""
    problems: list[Problem] = []
    policy = _shop(shop, shop_name, problems)._replace(intervals=_intervals(intervals, intervals_name, problems))
    if problems:
        raise CatalogueError(problems)
    return policy


def _shop(text: str, file: str, problems: list[Problem]) -> Policy:
    data, lines = located(text, file, problems)
    default = Policy()

    def fail(path: tuple[str | int, ...], why: str) -> None:
        problems.append(Problem(file, lines.get(path, 1), why))

    def reading(path: tuple[str | int, ...], make: Callable[[Any], Any], missing: Any) -> Any:
        value: Any = data
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return missing
        try:
            return make(value)
        except (ExpressionError, ValueError) as error:
            fail(path, str(error))
            return missing

    for name in data:
        if name not in _TOP:
            fail((name,), f"There is no setting '{name}' here. {suggestion(name, _TOP)}")
    quiet = data.get("quiet_hours") or {}
    if not isinstance(quiet, dict):
        fail(("quiet_hours",), f"'quiet_hours' is a mapping with {', '.join(_QUIET)}, not '{quiet}'.")
        quiet = {}
    for name in quiet:
        if name not in _QUIET:
            fail(("quiet_hours", name), f"There is no setting '{name}' here. {suggestion(name, _QUIET)}")
    return Policy(
        zone=reading(("zone",), _zone, default.zone),
        locale=reading(("locale",), str, default.locale),
        quiet=QuietHours(
            reading(("quiet_hours", "from"), _minute, default.quiet.start_minute),
            reading(("quiet_hours", "until"), _minute, default.quiet.end_minute),
            reading(("quiet_hours", "jitter"), lambda v: expressions.duration(str(v)), default.quiet.jitter),
        ),
        quiet_exempt=reading(("quiet_hours", "exempt"), _channels, default.quiet_exempt),
        lead=reading(("replenishment_lead",), lambda v: expressions.duration(str(v)), default.lead),
    )


def _zone(value: Any) -> ZoneInfo:
    try:
        return ZoneInfo(str(value))
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"'{value}' is no time zone. Write an IANA name such as Asia/Shanghai.") from error


def _channels(value: Any) -> frozenset[str]:
    if not isinstance(value, list):
        raise ValueError(f"'exempt' is a list of channels such as [page, in_app], not '{value}'.")
    for name in value:
        if name not in CHANNELS:
            raise ValueError(f"'{name}' is no channel. {suggestion(name, CHANNELS)}")
    return frozenset(value)


def _minute(value: Any) -> int:
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", str(value))
    if not match:
        raise ValueError(f"'{value}' is no time of day. Write it in quotes, such as \"21:00\".")
    return int(match[1]) * 60 + int(match[2])


def _intervals(text: str, file: str, problems: list[Problem]) -> dict[str, int]:
    data, lines = located(text, file, problems)
    result = {}
    for name, days in data.items():
        if isinstance(days, int | float) and not isinstance(days, bool) and 0 < days <= 3650:
            result[name] = round(days * _DAY)
        else:
            why = f"The interval of '{name}' is '{days}': write how many days one unit lasts, such as 20."
            problems.append(Problem(file, lines.get((name,), 1), why))
    return result
