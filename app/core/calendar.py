"""Days as people live them: birthdays, anniversaries and the days between two instants, in the user's zone.

29 February is kept on 28 February in years that have none.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from app.core.policy import Policy
from app.core.row import NEVER, Row, Run
from schemas.instant import DAY

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: A greeting is prepared so long ahead.
AHEAD = 7 * DAY
_MORNING = 9


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def zone_of(row: Row, default: ZoneInfo) -> ZoneInfo:
    """The user's zone; the shop's when the profile has none. (Invalid zones are refused at the door.)"""
    return default if row.zone is None else _zone(row.zone)


def local(at: int, zone: ZoneInfo) -> datetime:
    """An instant as the user's wall clock shows it."""
    return (_EPOCH + timedelta(microseconds=at)).astimezone(zone)


@lru_cache(maxsize=4096)
def steady_offset(day: int, zone: ZoneInfo) -> int | None:
    """The zone's offset in microseconds, all through a day of UTC (counted from 1970) and two days before and after it;
    None when a clock change is so near. Most days are steady, and arithmetic is quick."""
    try:
        offsets = {local((day + days) * DAY, zone).utcoffset() for days in range(-2, 4)}
    except OverflowError:  # the last days of the calendar
        return None
    offset = offsets.pop()
    return None if offsets or offset is None else offset // timedelta(microseconds=1)


def local_day(at: int, zone: ZoneInfo) -> int:
    """The user's day, counted from 1970."""
    offset = steady_offset(at // DAY, zone)
    return local(at, zone).toordinal() - _EPOCH.toordinal() if offset is None else (at + offset) // DAY


def midnight(at: int, zone: ZoneInfo, days: int) -> int:
    """The first instant of the user's day that lies so many days after the one that `at` lies in, as the wall clock
    reads it."""
    offset = steady_offset(at // DAY, zone)
    if offset is not None and -1 <= days <= 1:
        return ((at + offset) // DAY + days) * DAY - offset
    day = local(at, zone) + timedelta(days=days)
    start = day.replace(hour=0, minute=0, second=0, microsecond=0, fold=0, tzinfo=zone)
    return (start.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def days_between(row: Row, first: int, second: int, policy: Policy) -> int:
    """Local days from one instant to another: 0 on the same day."""
    zone = zone_of(row, policy.zone)
    return local_day(second, zone) - local_day(first, zone)


def _morning(year: int, month: int, day: int, zone: ZoneInfo) -> int:
    if (month, day) == (2, 29) and not (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)):
        day = 28
    return (datetime(year, month, day, _MORNING, tzinfo=zone).astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def _yearly(month: int, day: int, since: int, ordinal: int, zone: ZoneInfo) -> int:
    """The morning of that day in the `ordinal`-th year (from 0) in which it is a week and more after `since`."""
    year = local(since, zone).year
    if _morning(year, month, day, zone) - AHEAD < since:
        year += 1
    return _morning(year + ordinal, month, day, zone) if year + ordinal < 9999 else NEVER


def birthday(row: Row, run: Run, policy: Policy) -> int:
    """The next birthday, and in later rounds of the run the ones after it."""
    if row.birthday is None:
        return NEVER
    month, day = row.birthday[-5:].split("-")
    return _yearly(int(month), int(day), run.entered_at, run.ordinal, zone_of(row, policy.zone))


def anniversary(row: Row, run: Run, policy: Policy) -> int:
    """The day of registration, from the first year on; none for whom "no date" is the end of the calendar."""
    if run.entered_at + 8 * DAY >= NEVER:
        return NEVER
    zone = zone_of(row, policy.zone)
    began = local(run.entered_at, zone)
    return _yearly(began.month, began.day, run.entered_at + 8 * DAY, run.ordinal, zone)
