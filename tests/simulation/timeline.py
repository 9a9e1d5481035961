"""When each event counts as seen, and when time has passed: the merge of the inputs, done naively. Part of the oracle.

It knows the logs as a whole, so it need not wait for an input, as the engine must: it takes the earliest head, always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.simulation.oracle import Person, Result, result_of

Entry = tuple[int, dict[str, Any] | int | None]
"""(offset, an event, or the instant of a ClockAdvanced, or None for what cannot be used)."""
Logs = Mapping[str, Sequence[Entry]]
"""By input, the log of one partition."""


def by_events(shards: Sequence[Logs], lateness: int) -> Result:
    """CLOCK=events. Every log ends with the same ClockAdvanced."""
    people: dict[str, Person] = {}
    for logs in shards:
        merged = 0
        left = {name: list(log) for name, log in logs.items()}
        clocks = dict.fromkeys(left, 0)
        while True:
            heads = []
            for rank, (name, log) in enumerate(left.items()):
                while log and isinstance(log[0][1], int):
                    clocks[name] = max(clocks[name], log.pop(0)[1])  # type: ignore[call-overload]
                if log:
                    event = log[0][1]
                    at = event["at"] if isinstance(event, dict) else 0
                    heads.append((max(at, clocks[name]), rank, name))
            if not heads:
                break
            at, _, name = min(heads)
            _, event = left[name].pop(0)
            merged = max(merged, at)
            if isinstance(event, dict):
                person = people.setdefault(event["user_id"], Person(event["user_id"]))
                person.fire(merged - lateness, inclusive=False, now=None)
                person.apply(event, merged, merged - lateness)
        for person in people.values():
            if any(
                person.user == entry[1]["user_id"]
                for log in logs.values()
                for entry in log
                if isinstance(entry[1], dict)
            ):
                person.fire(min(clocks.values()) - lateness, inclusive=False, now=None)
    return result_of(people.values())


class Phase(NamedTuple):
    """CLOCK=wall: a stretch in which the clock stood still and the shard worked as far as it could."""

    now: int
    ends: Mapping[str, int]
    """By input: where its log ended."""
    applied: Mapping[str, int]
    """By input: the offset before which everything had been applied when the phase was over."""
    partial: bool
    """Whether the shard did not get to the ends: an input was paused, or the worker died."""
    reopened_at: int | None
    """Merged time as a fresh worker found it, when the shard was opened anew before the work."""


class Shard:
    """One shard under CLOCK=wall."""

    def __init__(self, logs: Logs, lateness: int, start: int) -> None:
        self.left = {name: list(log) for name, log in logs.items()}
        self.lateness = lateness
        self.start = start
        self.merged = start
        self.look: tuple[int, Mapping[str, int]] | None = None
        self.people: dict[str, Person] = {}
        self.problems: list[str] = []

    def play(self, phase: Phase) -> None:
        """Everything that happens in a phase."""
        if phase.reopened_at is not None:
            if phase.reopened_at > self.merged:
                self.problems.append(f"a fresh worker found merged time {phase.reopened_at}, beyond {self.merged}")
            self.merged, self.look = phase.reopened_at, None
        self.look = self.look or (phase.now, phase.ends)
        while True:
            if self.look is not None and all(self._next(n, phase) >= end for n, end in self.look[1].items()):
                for person in self.people.values():
                    person.fire(self.look[0] - self.lateness, inclusive=True, now=phase.now)
                self.merged = max(self.merged, self.look[0])
                self.look = None
            if not self._apply(phase):
                break
        if self.look is None and (phase.partial or self.merged < phase.now):
            self.look = (phase.now, phase.ends)
            if not phase.partial:
                self.play(phase._replace(reopened_at=None))

    def _next(self, name: str, phase: Phase) -> int:
        log = self.left[name]
        return min(log[0][0] if log else phase.ends[name], phase.ends[name])

    def _apply(self, phase: Phase) -> bool:
        heads = [
            (entry[1]["at"] if isinstance(entry[1], dict) else 0, rank, name)
            for rank, (name, log) in enumerate(self.left.items())
            if log and (entry := log[0])[0] < phase.ends[name]
        ]
        if not heads or (phase.partial and all(self._next(n, phase) >= at for n, at in phase.applied.items())):
            return False
        _, _, name = min(heads)
        offset, event = self.left[name].pop(0)
        if phase.partial and offset >= phase.applied[name]:
            self.problems.append(f"{name} offset {offset} was not applied, but something later was")
        if isinstance(event, dict):
            person = self.people.setdefault(event["user_id"], Person(event["user_id"], self.start))
            person.apply(event, phase.now, self.merged - self.lateness)
        return True
