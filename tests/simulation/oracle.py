"""What should have come out, worked out the slow way: everything seen so far is looked at again after every event.

Written from the prose (the trigger table and the three rule files), not from the engine: no run, mark or timer is kept
up to date here. After each event of a user all entries, ends and due instants are worked out anew from the list of all
events seen; the only memory is what has been decided already. Nothing of app.core's engine, runs or release is used.
Instants are microseconds UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from app.core.ids import share_of
from tests.simulation.facts import DAY, HOUR, NEVER, RunNow, is_quiet, morning_after, runs_now, zone_of
from tests.simulation.facts import evening_before as evening

#: By rule: how long after the first step the further ones come.
FURTHER = {"winback": (30 * DAY,), "coupon_unused": (10 * DAY,), "replenishment": ()}
WORTH_SENDING = 36 * HOUR
LAST_DAYS = 72 * HOUR
JITTER = 900_000_000
#: A run that more purchases than this have ended does not come back (a documented bound).
MAX_ENDS = 2
#: Nor does one that was ended longer ago than this when the reversal is heard of (a documented bound).
REVERSIBLE = 90 * DAY

RunId = tuple[str, str, str]
"""(rule, key, id of the event of entry; of a coupon or pack the key again)."""


class Decided(NamedTuple):
    """A decision record; a trigger is one with the outcome 'fired'."""

    user: str
    rule: str
    key: str
    entry: str
    step: int
    sequence: int
    outcome: str
    gate: str
    due: int
    at: int
    expires: int = 0
    """Of a trigger: until when it may be sent."""


class Retracted(NamedTuple):
    """A trigger taken back."""

    user: str
    rule: str
    key: str
    entry: str
    step: int
    at: int


@dataclass
class Pending:
    """A step that is to come."""

    step: int
    by_rule: int
    """When its first step was due by what was known."""
    due: int
    timer: int | None
    """When to look at it; None while it waits for a lock to go."""
    sequence: int = 0
    waits: bool = False
    """Looked at before, it waits for a lock to go, until `timer` at the latest."""


class Person:
    """One user: what was seen, and what has been decided about it."""

    def __init__(self, user: str, sends_from: int = 0) -> None:
        self.user = user
        self.sends_from = sends_from
        self.seen: list[dict[str, Any]] = []
        self.ids: set[str] = set()
        self.steps: dict[RunId, int] = {}
        self.base: dict[RunId, int] = {}
        self.entry: dict[RunId, str] = {}
        self.pending: dict[RunId, Pending] = {}
        self.gone: set[RunId] = set()
        self.sent: list[tuple[RunId, Decided]] = []
        self.decided: list[Decided] = []
        self.retracted: list[Retracted] = []

    # -- an event

    def apply(self, event: dict[str, Any], now: int, floor: int) -> None:
        """An event is seen. What is due before `floor` is past: it starts no timer any more."""
        if event["event_id"] in self.ids:
            return
        self.ids.add(event["event_id"])
        if event["type"] in ("OrderCancelled", "OrderRefunded"):
            self._forget(floor - REVERSIBLE)
        self.seen.append(event)
        runs = runs_now(self.user, self.seen)
        self._take_back(runs, now)
        for name in list(self.pending):
            if name not in runs or not runs[name].alive:
                waiting = self.pending.pop(name)
                if waiting.sequence:  # it had been deferred, so it has a record, which needs a last one
                    self._decide(name, waiting, "dropped", "eligibility", now)
                    self._finish(name, waiting)
        self.gone |= {name for name, run in runs.items() if len(run.ends) > MAX_ENDS}
        for name, run in runs.items():
            if not self.steps.get(name) and not (name in self.pending and self.pending[name].sequence):
                self.entry[name] = run.entry  # of a pack, the earliest coupon, until something has come of it
            if run.alive and name not in self.gone:
                self._consider(name, run, event, now, floor)

    def _forget(self, before: int) -> None:
        """Runs that were ended longer ago than this: what ended them may be taken back, they stay ended."""
        runs = runs_now(self.user, self.seen)
        self.gone |= {name for name, run in runs.items() if run.ends and max(run.ends) < before}

    def _take_back(self, runs: dict[RunId, RunNow], now: int) -> None:
        """What went out, may still be sent, and is wrong by what is known now."""
        for name, sent in list(self.sent):
            run = runs.get(name)
            wrong = run is None or run.taken_back or any(end <= sent.at for end in run.ends)
            if wrong and sent.expires > now:
                self.retracted.append(Retracted(self.user, *name[:2], self.entry[name], sent.step, now))
                self.sent.remove((name, sent))

    def _consider(self, name: RunId, run: RunNow, event: dict[str, Any], now: int, floor: int) -> None:
        pending = self.pending.get(name)
        if pending is None:
            self._appear(name, run, max(floor, self.sends_from))
        elif pending.timer is None and not run.locked:
            pending.due = pending.timer = max(pending.due, event["at"], floor)
            pending.by_rule = run.due
        elif pending.waits and not run.locked:
            pending.waits, pending.timer = False, max(event["at"], floor)
        elif pending.step or run.due == pending.by_rule:
            return
        elif run.rule == "coupon_unused" and run.due >= floor:
            pending.by_rule = pending.due = pending.timer = run.due  # others of the pack can be used now
        elif run.rule == "replenishment":
            pending.by_rule = pending.due = run.due
            pending.timer = max(run.due, floor)
            if run.due < self.sends_from:
                del self.pending[name]
                if pending.sequence:  # it had been deferred, so it has a record, which needs a last one
                    self._decide(name, pending, "dropped", "eligibility", now)
                self._finish(name, pending)

    def _appear(self, name: RunId, run: RunNow, floor: int) -> None:
        """A run is there that was not: its steps that are past by now are passed over."""
        while (step := self.steps.get(name, 0)) <= len(FURTHER[run.rule]):
            due = run.due if step == 0 else self.base[name] + FURTHER[run.rule][step - 1]
            pending = Pending(step, run.due, due, due if due >= floor else None)
            waited = run.locked_at is not None and run.locked_at <= due  # it came due while it waited
            if due >= floor or (waited and due >= self.sends_from):
                self.pending[name] = pending
                return
            self._finish(name, pending)

    # -- time

    def fire(self, until: int, inclusive: bool, now: int | None) -> None:
        """Everything that is due by `until` is decided: at its own instant (now None), or at `now`."""
        runs: dict[RunId, RunNow] = {}
        while True:
            due = [
                (p.timer, *name[:2], p.step, name)
                for name, p in self.pending.items()
                if p.timer is not None and (p.timer < until or (inclusive and p.timer == until))
            ]
            if not due:
                return
            runs = runs or runs_now(self.user, self.seen)
            at, *_, name = min(due)
            self._ask(name, runs[name], self.pending[name], at if now is None else now)

    def _ask(self, name: RunId, run: RunNow, pending: Pending, now: int) -> None:
        if run.locked:
            stale = pending.due + WORTH_SENDING
            if not pending.sequence or now < stale:
                pending.waits, pending.timer = pending.sequence > 0, stale if pending.sequence else None
                return
        if not pending.sequence and run.expires <= pending.due:
            del self.pending[name]
            self.steps[name] = len(FURTHER[run.rule]) + 1
            return
        zone = zone_of(self.seen)
        if run.locked:
            self._decide(name, pending, "expired", "staleness", now)
        elif run.expires <= now or (run.expires < NEVER and run.expires - now <= LAST_DAYS):
            self._decide(name, pending, "dropped", "eligibility", now)
        elif now - pending.due > WORTH_SENDING:
            self._decide(name, pending, "expired", "staleness", now)
        elif is_quiet(now, zone):
            self._decide(name, pending, "deferred", "quiet_hours", now)
            pending.timer = morning_after(now, zone) + int(JITTER * share_of("jitter", self.user))
            pending.sequence += 1
            return
        else:
            until = now + WORTH_SENDING
            if is_quiet(until, zone):
                until = evening(until, zone)
            self._decide(name, pending, "fired", "", now, min(until, run.expires))
            self.sent.append((name, self.decided[-1]))
        del self.pending[name]
        self._finish(name, pending)
        if pending.step < len(FURTHER[run.rule]):
            due = pending.due + FURTHER[run.rule][pending.step]
            self.pending[name] = Pending(pending.step + 1, run.due, due, due)

    def _decide(self, name: RunId, pending: Pending, outcome: str, gate: str, now: int, expires: int = 0) -> None:
        step, entry = pending.step + 1, self.entry[name]
        self.decided.append(
            Decided(self.user, *name[:2], entry, step, pending.sequence, outcome, gate, pending.due, now, expires)
        )

    def _finish(self, name: RunId, pending: Pending) -> None:
        self.steps[name] = pending.step + 1
        self.base[name] = pending.due

    def timers(self) -> list[tuple[int, str, str, str, int]]:
        """(at, user, rule, key, step) of all that is to come."""
        return [
            (p.timer, self.user, name[0], name[1], p.step + 1)
            for name, p in self.pending.items()
            if p.timer is not None
        ]


class Result(NamedTuple):
    """Everything that should have come out, sorted."""

    decided: list[Decided]
    retracted: list[Retracted]
    timers: list[tuple[int, str, str, str, int]]


def result_of(people: Iterable[Person]) -> Result:
    """All users' results together."""
    everybody = list(people)
    return Result(
        sorted(d for person in everybody for d in person.decided),
        sorted(r for person in everybody for r in person.retracted),
        sorted(t for person in everybody for t in person.timers()),
    )
