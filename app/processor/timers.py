"""Timers fire in the order of their instants, then of their users.

A timer is in its user's row; the heap only finds it.
"""

from __future__ import annotations

import heapq
from datetime import UTC

from app.core import engine
from app.processor.outputs import Outputs
from app.processor.records import TIMER, InvariantBroken
from schemas.instant import format_instant


class Timers(Outputs):
    """The timers of one shard."""

    def _fire_due(self, until: int, limit: int, inclusive: bool) -> int:
        """Fires timers up to an instant in the order (due, user, rule, key, step), at most `limit` users."""
        fired = 0
        while self._heap and fired < limit:
            due, user = self._heap[0]
            if due > until or (due == until and not inclusive):
                break
            heapq.heappop(self._heap)
            if self._timers.get(user) != due:
                continue  # cancelled or moved: the row decides
            row = self._dirty.get(user) or self.row(user)
            assert row is not None
            now = due if self.plan.clock == "events" else self._now
            moment = self._moment(now, floor=due)
            try:
                after = engine.tick(row, due, moment)
            except Exception as error:
                self._trace.clear()
                if (TIMER, due) not in self._quarantined:
                    raise InvariantBroken(
                        f"The rules failed on a timer due at {format_instant(due, UTC)} in shard {self.shard} "
                        f"({type(error).__name__}). Nothing of it was kept. To go on without what is due for this user "
                        f"then, set it aside: lifecycle quarantine {TIMER} {self.shard} {due}"
                    ) from error
                after = engine.let_go(row, due, moment)
            self._keep(user, after, anew=True)
            self._collect(user)
            fired += 1
        return fired

    def _fire_before(self, at: int, limit: int) -> int:
        """CLOCK=events: before an event at this instant, the timers that were due earlier (and LATENESS passed)."""
        if self.plan.clock == "wall" or at <= self._meta.merged:
            return 0
        return self._fire_due(at - self.plan.lateness, limit, inclusive=False)
