"""Frequency caps: nobody hears from us more often than the shop decided, whoever sends.

Windows are rolling (the last N x 24 hours; a contact exactly that old is out) or calendar (days of the user's zone).
Contacts are charged when they are released; those of others count when they are heard of. A message that went out on
another channel than the one charged is charged to both, and is one contact all the same. What is transactional
passes. A ghost counts the contacts that ghosts would have made, too; what is sent does not.
"""

from __future__ import annotations

from zoneinfo import ZoneInfo

from msgspec.structs import replace

from app.core import calendar, words
from app.core.guardrails.verdict import Candidate, Verdict
from app.core.ids import run_id
from app.core.policy import Cap
from app.core.row import Sent
from schemas.instant import DAY


def ask(candidate: Candidate) -> Candidate | Verdict:
    """Takes away the channels whose caps are full; then defers to when one frees, or drops, as the rule says."""
    if not candidate.marketing:
        return candidate
    scope = candidate.scope
    row, run, now = scope.row, scope.run, scope.now
    send = candidate.rule.send
    if send.once_in and (last := last_of(candidate, candidate.rule.name)) is not None:
        other, at = last
        if (
            other != run_id(run.rule, row.user_id, run.kind, run.key, run.event_id, run.ordinal)
            and now - at < send.once_in
        ):
            ago, every = words.length(now - at), words.length(send.once_in)
            return Verdict("dropped", "cap", f"This rule wrote {ago} ago, and writes once in {every}.")
    free, full, frees_at = [], "", 0
    for channel in candidate.channels:
        at, why = blocked_until(candidate, channel, scope.policy.caps)
        if not why:
            free.append(channel)
        elif not full or at < frees_at:
            full, frees_at = why, at
    if len(free) == len(candidate.channels):
        return candidate
    if free:
        return replace(candidate, channels=tuple(free))
    if send.on_cap == "defer" and frees_at <= run.due_at + send.expires_after:
        return Verdict("deferred", "cap", full, frees_at)
    return Verdict("dropped", "cap", full)


def last_key(what: str, ghost: bool) -> str:
    """Where `Row.last_fired` keeps the latest run of a rule, or discount; what only would have been is kept apart."""
    return f"{what}/ghost" if ghost else what


def last_of(candidate: Candidate, what: str) -> tuple[str, int] | None:
    """The latest run that sent this, and when; for a ghost also one that would have."""
    fired = candidate.scope.row.last_fired
    known = [fired.get(last_key(what, ghost)) for ghost in {False, candidate.ghost}]
    return max((one for one in known if one is not None), key=lambda one: (one[1], one[0]), default=None)


def blocked_until(candidate: Candidate, channel: str, caps: tuple[Cap, ...]) -> tuple[int, str]:
    """When the last full cap of this channel frees, and what it says; (0, '') when none is full."""
    latest, why = 0, ""
    sent, now = candidate.scope.row.sent, candidate.scope.now
    for cap in caps:
        if len(sent) < cap.limit or not _concerns(cap, channel, candidate.rule.family):
            continue
        since = _window_start(now, cap, candidate.zone)
        counted = _once_each([s for s in sent if s.at >= since and _counts(s, cap, candidate)])
        if len(counted) < cap.limit:
            continue
        frees_at = _leaves(counted[len(counted) - cap.limit], cap, candidate.zone)
        if frees_at > latest:
            latest, why = frees_at, _sentence(cap)
    return latest, why


def _once_each(contacts: list[Sent]) -> list[int]:
    """Their instants; of a message that is there with two channels the first."""
    seen: set[str] = set()
    instants = []
    for contact in contacts:
        if contact.trigger_id not in seen:
            instants.append(contact.at)
        if contact.trigger_id:
            seen.add(contact.trigger_id)
    return instants


def _concerns(cap: Cap, channel: str, family: str) -> bool:
    return cap.channel in (None, channel) and cap.family in (None, family)


def _counts(sent: Sent, cap: Cap, candidate: Candidate) -> bool:
    return (candidate.ghost or not sent.shadow) and _concerns(cap, sent.channel, sent.family)


def _window_start(now: int, cap: Cap, zone: ZoneInfo) -> int:
    """The first instant that counts."""
    if not cap.calendar:
        return now - cap.days * DAY + 1
    return calendar.midnight(now, zone, 1 - cap.days)


def _leaves(at: int, cap: Cap, zone: ZoneInfo) -> int:
    """When a contact of that instant has left the window."""
    if not cap.calendar:
        return at + cap.days * DAY
    return calendar.midnight(at, zone, cap.days)


def _sentence(cap: Cap) -> str:
    what = f"{cap.channel} contact" if cap.channel else "contact"
    what = f"{what} of {cap.family}" if cap.family else what
    kind = "calendar " if cap.calendar else ""
    span = f"a {kind}day" if cap.days == 1 else f"{cap.days} {kind}days"
    return f"The user had {cap.limit} {what}{'s' if cap.limit != 1 else ''} in {span}, and no more are allowed."
