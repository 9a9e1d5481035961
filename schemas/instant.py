"""An instant is an absolute point in time, counted in microseconds since 1970-01-01T00:00:00Z.

Its zone is therefore always UTC; a local clock only exists where text is read or written, and there the zone is named.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Final

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

if TYPE_CHECKING:

    class Instant(int):
        """Microseconds since 1970-01-01T00:00:00Z."""

else:

    class _PlainInt(type):
        # A built-in method, so that asking costs no Python frame: isinstance(x, Instant) is isinstance(x, int).
        __instancecheck__ = int.__instancecheck__

    class Instant(metaclass=_PlainInt):
        """Microseconds since 1970-01-01T00:00:00Z.

        A name for the codec and for readers; the values are plain ints, so that every serialiser knows them.
        """

        def __new__(cls, at: int) -> int:
            return int(at)


EARLIEST: Final = Instant(946_684_800 * SECOND)
"""2000-01-01T00:00:00Z. Anything older is a mistake of units (seconds sent as milliseconds) or an empty field."""

LATEST: Final = Instant(253_402_300_799 * SECOND + 999_999)
"""The last microsecond of the year 9999, the end of RFC 3339."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = _EPOCH.toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)
_WITHIN_HOUR: Final = {f":{m:02}:{s:02}": m * MINUTE + s * SECOND for m in range(60) for s in range(60)}
_SECONDS: Final = tuple(_WITHIN_HOUR)
_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2})(:[0-5][0-9]:[0-5][0-9])(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-5][0-9])?"
)
_HOUR_AND_OFFSET: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2})(?:Z|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)


class BadInstant(ValueError):
    """Text or number that is no instant of the years 2000 to 9999. Its text is a sentence for the sender."""


def parse_instant(raw: str | int, assume_zone: tzinfo | None = None) -> Instant:
    """Read RFC 3339 text, or epoch milliseconds as an integer.

    Text without an offset is read in `assume_zone`; a local time that a clock change repeats is the earlier one.
    Digits finer than a microsecond are cut off. Raises `BadInstant`, also for anything before 2000.
    """
    if type(raw) is str:
        within = _WITHIN_HOUR.get(raw[13:19])
        if within is not None:
            start = _start_of_hour(raw[:13] + raw[19:])
            if start is not None:
                return start + within  # type: ignore[return-value]  # calling Instant would be half the cost
        return _parse_rare_text(raw, assume_zone)
    if type(raw) is int:
        return _in_range(raw * 1000, str(raw))
    raise BadInstant("An instant is RFC 3339 text with an offset, or epoch milliseconds as an integer.")


@lru_cache(maxsize=16384)
def format_instant(at: int, zone: tzinfo) -> str:
    """RFC 3339 in the given zone, "2026-03-08T08:15:30+08:00"; a fraction only if there is one.

    The zone's year 10000 cannot be written: there it falls back to UTC.
    """
    steady = _steady(at // DAY, zone)
    if steady is None:
        return _format_rare_instant(at, zone)
    offset, suffix = steady
    hour, within = divmod(at + offset, HOUR)
    second, fraction = divmod(within, SECOND)
    text = _hour(hour) + _SECONDS[second]
    return f"{text}.{fraction:06}{suffix}" if fraction else text + suffix


@lru_cache(maxsize=4096)
def _steady(day: int, zone: tzinfo) -> tuple[int, str] | None:
    """The offset of a zone on a day of UTC (counted from 1970), in microseconds and as it is written; cached, because
    triggers come in bunches. None where a closer look is needed."""
    try:
        first = (_EPOCH + timedelta(days=day)).astimezone(zone)
        last = (_EPOCH + timedelta(days=day + 1) - _MICROSECOND).astimezone(zone)
    except OverflowError:
        return None
    offset = first.utcoffset()
    if offset is None or offset != last.utcoffset() or offset.total_seconds() % 60:
        return None
    return offset // _MICROSECOND, first.isoformat()[19:]


@lru_cache(maxsize=8192)
def _hour(number: int) -> str:
    """An hour counted from 1970: "2026-03-08T08"; cached, because what goes out comes in bunches."""
    day, hour = divmod(number, 24)
    return f"{date.fromordinal(_EPOCH_DAY + day).isoformat()}T{hour:02}"


def _format_rare_instant(at: int, zone: tzinfo) -> str:
    """On the day of a clock change, at the end of the range, or in a zone that is seconds off."""
    moment = _EPOCH + at * _MICROSECOND
    try:
        local = moment.astimezone(zone)
    except OverflowError:
        local = moment
    offset = local.utcoffset()
    if offset is not None and offset.total_seconds() % 60:
        local = moment  # local mean time of the 19th century: RFC 3339 has no seconds in an offset
    return local.isoformat()


@lru_cache(maxsize=8192)
def _start_of_hour(text: str) -> int | None:
    """Microseconds of "2026-03-01T08+08:00"; cached, because events come in bunches.

    None for everything that needs a closer look: other spellings, no such day, an hour at the end of the range.
    """
    match = _HOUR_AND_OFFSET.fullmatch(text) if len(text) <= 19 else None
    if match is None:
        return None
    at = _from_parts(*match.groups())
    return at if at is not None and EARLIEST <= at <= LATEST - HOUR else None


def _parse_rare_text(raw: str, assume_zone: tzinfo | None) -> Instant:
    """Everything but "2026-03-01T08:15:30+08:00" and "2026-03-01T00:15:30Z": fractions, small letters, no offset."""
    match = _RFC3339.fullmatch(raw) if len(raw) <= 64 else None
    if match is None:
        raise BadInstant(_unreadable(raw))
    day, hour, within, fraction, offset = match.groups()
    text = f"{day}T{hour}{offset.upper() if offset else 'Z'}"
    start = _start_of_hour(text)
    if start is None:
        start = _exact_start(raw, text)
    at = start + _WITHIN_HOUR[within] + (int(fraction[:6].ljust(6, "0")) if fraction else 0)
    if offset is not None:
        return _in_range(at, raw)
    if assume_zone is None:
        raise BadInstant(f"{raw} has no offset from UTC, so it names no instant. Add one, such as +08:00 or Z.")
    try:
        local = (_EPOCH + at * _MICROSECOND).replace(tzinfo=assume_zone)
        return _in_range((local.astimezone(UTC) - _EPOCH) // _MICROSECOND, raw)
    except OverflowError:
        raise BadInstant(_out_of_range(raw)) from None


def _exact_start(raw: str, text: str) -> int:
    match = _HOUR_AND_OFFSET.fullmatch(text)
    if match is None:
        raise BadInstant(_unreadable(raw))
    at = _from_parts(*match.groups())
    if at is None:
        raise BadInstant(f"{raw} names a day or an hour that does not exist.")
    return at


def _from_parts(year: str, month: str, day: str, hour: str, sign: str | None, hours: str, minutes: str) -> int | None:
    try:
        day_number = date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    if int(hour) > 23:
        return None
    at = day_number * DAY + int(hour) * HOUR
    if sign is None:
        return at
    offset = int(hours) * HOUR + int(minutes) * MINUTE
    return at - offset if sign == "+" else at + offset


def _in_range(at: int, text: str) -> Instant:
    if EARLIEST <= at <= LATEST:
        return Instant(at)
    raise BadInstant(_out_of_range(text))


def _out_of_range(text: str) -> str:
    hint = " It looks like seconds: send milliseconds." if re.fullmatch("[0-9]{9,10}", text) else ""
    return f"{text[:40]} is not between the years 2000 and 9999.{hint}"


def _unreadable(text: str) -> str:
    return (
        f"{text[:40]!r} is not RFC 3339. Send 2026-03-01T08:15:30+08:00 or the like, or epoch milliseconds as integer."
    )
