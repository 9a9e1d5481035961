"""Values of the view in words, for reasons that a person reads. Plain English; instants in the user's zone."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from app.core.calendar import local_day
from app.core.row import NEVER, Coupon
from app.core.scope import VARIABLES, Scope
from schemas.instant import format_instant

_EPOCH = date(1970, 1, 1)
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_PLACEHOLDER = re.compile(r"\{([a-z_.]+)\}")
_UNITS = (("day", 86_400_000_000), ("hour", 3_600_000_000), ("minute", 60_000_000), ("second", 1_000_000))


def day(at: int, zone: ZoneInfo, now: int) -> str:
    """'1 March'; '1 March 2025' when that is not the year it is now."""
    text, year = _day(local_day(at, zone))
    return text if year == _day(local_day(now, zone))[1] else f"{text} {year}"


@lru_cache(maxsize=1024)
def _day(number: int) -> tuple[str, int]:
    day = _EPOCH + timedelta(days=number)
    return f"{day.day} {_MONTHS[day.month - 1]}", day.year


def length(span: int) -> str:
    """The largest whole unit: '7 days', '1 hour'."""
    for name, size in _UNITS:
        count = span // size
        if count:
            return counted(count, name)
    return "a moment"


def counted(count: int, noun: str) -> str:
    """'1 order', '2 orders'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def worth(coupon: Coupon) -> str:
    """'20.00 CNY off', '15 % off', 'free shipping', 'a gift'."""
    if coupon.kind == "percent":
        return f"{coupon.value} % off" if coupon.value else "a percentage off"
    if coupon.kind == "amount":
        return f"{coupon.value} {coupon.currency} off" if coupon.value else "an amount off"
    return "free shipping" if coupon.kind == "shipping" else "a gift"


def value(name: str, scope: Scope, zone: ZoneInfo) -> str:
    """A variable in words."""
    variable = VARIABLES[name]
    found = variable.read(scope)
    if variable.kind == "instant":
        return day(found, zone, scope.now) if 0 <= found < NEVER else "never"
    if variable.kind == "duration":
        return length(found) if found < NEVER else "an unlimited time"
    if variable.kind == "money":
        return worth(found)
    return str(found)


def facts(names: tuple[str, ...], scope: Scope, zone: ZoneInfo) -> dict[str, object]:
    """The variables of these names as they stand in `facts`, by the last part of their names."""
    return {short: _fact(kind, read(scope), zone) for short, kind, read in _readers(names)}


@lru_cache(maxsize=1024)
def _readers(names: tuple[str, ...]) -> list[tuple[str, str, Callable[[Scope], Any]]]:
    return [(name.rpartition(".")[2], VARIABLES[name].kind, VARIABLES[name].read) for name in names]


def fact(name: str, scope: Scope, zone: ZoneInfo) -> object:
    """A variable as it stands in `facts`: instants as RFC 3339, durations as ISO 8601, None for never."""
    variable = VARIABLES[name]
    return _fact(variable.kind, variable.read(scope), zone)


def _fact(kind: str, found: Any, zone: ZoneInfo) -> object:
    if kind == "instant":
        return format_instant(found, zone) if 0 <= found < NEVER else None
    if kind == "duration":
        return None if found >= NEVER else _iso(found)
    if kind == "money":
        return worth(found)
    return found


def _iso(span: int) -> str:
    days, rest = divmod(span // 1_000_000, 86_400)
    return f"P{days}D" if not rest else f"P{days}DT{rest}S"


def names_in(template: str) -> list[str]:
    """The names that a reason mentions."""
    return _PLACEHOLDER.findall(template)


def without_names(template: str) -> str:
    """What a reason says besides its values."""
    return _PLACEHOLDER.sub("", template)


def fill(template: str, scope: Scope, zone: ZoneInfo) -> str:
    """A reason with its values."""
    parts = _parts(template)
    return "".join([value(part, scope, zone) if number % 2 else part for number, part in enumerate(parts)])


@lru_cache(maxsize=1024)
def _parts(template: str) -> list[str]:
    """Text and names in turn; the first and the last are text."""
    return _PLACEHOLDER.split(template)
