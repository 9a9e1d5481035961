"""What the engine is told besides the row and the message: the moment, the rules, and from when on each may send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from app.core.guardrails.rate import Budget
from app.core.rules import Catalogue


class Moment(NamedTuple):
    """Time as data. All instants in microseconds UTC."""

    now: int
    """Processing time: merged time under CLOCK=events, the wall clock under CLOCK=wall."""
    floor: int
    """Timers due before this instant have been fired; nothing may be started before it."""
    catalogue: Catalogue
    sends_from: Mapping[str, int]
    """By rule: what is due earlier is not sent (start policy)."""
    enters_from: Mapping[str, int]
    """By rule: entries that happened earlier start no run (start policy `none`)."""
    trace: list[object]
    """Where the engine puts its outputs and counts, in order. Emptied by the caller after each step."""
    budgets: Mapping[str, Budget] = {}
    """By rule with a maximum rate: what was left of it before this step; what it takes is in the trace (SlotTaken)."""

    def tally(self, *what: str) -> None:
        """One more of something, for the metrics."""
        self.trace.append(what)
