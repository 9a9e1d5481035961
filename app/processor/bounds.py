"""No row grows beyond what a record of the changelog can carry: what comes last makes room by letting go of the
oldest detail. An event for which there is no room is refused, a history cannot be.
"""

from __future__ import annotations

from msgspec.structs import replace

from app.core import engine
from app.core.facts import Refused
from app.core.moment import Moment
from app.core.row import Row
from app.core.transfers import History
from app.processor.records import Record
from app.processor.state import State
from schemas.events import Event

#: The largest row, encoded: one that an event makes larger lets go of its oldest detail first, down to three quarters
#: of it, or to the least if that is not enough. A record of the changelog may have twice that, which leaves room for
#: what timers add.
MAX_ROW_BYTES = 4 << 20
TOO_LARGE = Refused(
    f"With it the row of this user would have more than {MAX_ROW_BYTES} bytes, though all detail made room for it. "
    "Nothing of it was kept; smaller events are taken."
)
"""An event that is itself too large."""
#: No byte of an event makes more than so many bytes of a row: less is known to fit without encoding it.
ROW_BYTES_A_BYTE = 64


class Bounds(State):
    """The rows of one shard within their bounds."""

    def _fitting(self, user: str, row: Row | None, event: Event, record: Record, moment: Moment) -> Row | Refused:
        """The row after the event. One that would be too large makes room first; an event for which even the least
        leaves no room is refused."""
        after = engine.step(row, event, moment)
        if isinstance(after, Refused) or after is row or not self._outgrows(user, after, record):
            return after
        for most in (MAX_ROW_BYTES * 3 // 4, 0) if row is not None else ():
            assert row is not None
            self._trace.clear()
            after = engine.step(engine.lean(row, most, moment), event, moment)
            if isinstance(after, Refused):
                return after
            if (size := self._size(after)) <= MAX_ROW_BYTES:
                self._sizes[user] = size, 0
                self._counts["shed", "event"] += 1
                return after
        return TOO_LARGE

    def _outgrows(self, user: str, after: Row, record: Record) -> bool:
        """Whether a row gets too large. Only one that may be is encoded to find out."""
        size, came = self._sizes.get(user) or (len(self._cold.get(user, b"")), 0)
        came += len(record.value or b"")
        if size + came * ROW_BYTES_A_BYTE > MAX_ROW_BYTES:
            size, came = self._size(after), 0
            if size > MAX_ROW_BYTES:
                return True
        self._sizes[user] = size, came
        return False

    def _together(self, row: Row | None, history: History, other: Row | None, moment: Moment) -> Row:
        """The row with the history of another account. When both have too much detail for one, both make room, until
        it fits: a history cannot be refused."""
        after = engine.absorb(row, history, other, moment)
        for most in (MAX_ROW_BYTES * 3 // 8, 0):
            if after is row or self._size(after) <= MAX_ROW_BYTES:
                break
            self._counts["shed", "merge"] += 1
            self._trace.clear()
            theirs = None if other is None else engine.lean(replace(other, runs={}), most, moment)
            after = engine.absorb(None if row is None else engine.lean(row, most, moment), history, theirs, moment)
        return after
