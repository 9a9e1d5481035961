"""Quiet hours: no contact is delivered at night in the user's zone. Delivery is held, evaluation never is.

The window is local wall-clock time on both ends, so the two nights of a clock change are an hour shorter or longer,
and a boundary that the clock skips lies at the moment of the skip.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from app.core import calendar, ids
from app.core.guardrails.verdict import Candidate, Verdict
from app.core.policy import Policy, QuietHours
from app.core.rules import Rule
from schemas.instant import DAY, MINUTE

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def ask(candidate: Candidate) -> Candidate | Verdict:
    """Defers a contact to the end of the window, spread a little by user so that 09:00 is no storm."""
    policy, scope = candidate.scope.policy, candidate.scope
    if policy.quiet_exempt.issuperset(candidate.channels):
        return candidate
    end = window_end(scope.now, candidate.zone, policy.quiet)
    if end is None:
        return candidate
    until = end + int(policy.quiet.jitter * ids.share_of("jitter", scope.row.user_id))
    return Verdict("deferred", "quiet_hours", f"It is night where the user is ({candidate.zone.key}).", until)


def applies(rule: Rule, policy: Policy) -> bool:
    """Whether the rule has quiet hours: a grant says nothing, and some channels wait until the user looks."""
    return rule.send.action == "contact" and not policy.quiet_exempt.issuperset(rule.send.channels)


def _instant(day: datetime, minute: int, zone: ZoneInfo, last: bool = False) -> int:
    """The instant of a local minute of a local day; of one that a clock change repeats, the first (or last) time; of
    one that it skips, the moment of the change."""
    hour, minute = divmod(minute, 60)
    wall = day.replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=zone, fold=0)
    instant = wall.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) != wall.replace(tzinfo=None):
        instant = _change(instant, zone)
    elif last:
        instant = wall.replace(fold=1).astimezone(UTC)
    return (instant - _EPOCH) // _MICROSECOND


def _change(after: datetime, zone: ZoneInfo) -> datetime:
    """The clock change that made a wall time not exist. Read with the offset before the change (fold=0), such a time
    lies after it by less than the gap, which is at most a day."""
    before = after - timedelta(days=1)
    offset = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after


def window_end(at: int, zone: ZoneInfo, quiet: QuietHours) -> int | None:
    """The end of the quiet window that `at` lies in; None when it lies in none. The start belongs to the window, the
    end does not."""
    if quiet.start_minute == quiet.end_minute:
        return None
    if (offset := calendar.steady_offset(at // DAY, zone)) is not None:
        window = _steady_window(at, offset, quiet)
        return None if window is None else window[1]
    today = calendar.local(at, zone)
    for days in (-1, 0):
        day = today + timedelta(days=days)
        last = day if quiet.end_minute > quiet.start_minute else day + timedelta(days=1)
        end = _instant(last, quiet.end_minute, zone, last=True)
        if _instant(day, quiet.start_minute, zone) <= at < end:
            return end
    return None


def _steady_window(at: int, offset: int, quiet: QuietHours) -> tuple[int, int] | None:
    """The window that `at` lies in by arithmetic, on days of 24 hours."""
    into_day = (at + offset) % DAY
    since_start = (into_day - quiet.start_minute * MINUTE) % DAY
    length = (quiet.end_minute - quiet.start_minute) * MINUTE % DAY
    return (at - since_start, at - since_start + length) if since_start < length else None


def clip(expires_at: int, zone: ZoneInfo, quiet: QuietHours) -> int:
    """The end of a send window, moved out of the night to the evening before it."""
    if quiet.start_minute == quiet.end_minute:
        return expires_at
    if (offset := calendar.steady_offset(expires_at // DAY, zone)) is not None:
        window = _steady_window(expires_at, offset, quiet)
        return expires_at if window is None else window[0]
    if window_end(expires_at, zone, quiet) is None:
        return expires_at
    today = calendar.local(expires_at, zone)
    starts = (_instant(today + timedelta(days=offset), quiet.start_minute, zone) for offset in (-1, 0))
    return max(start for start in starts if start <= expires_at)
