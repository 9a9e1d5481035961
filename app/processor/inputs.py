"""Events of all inputs in one order, that of their instants: the earliest head is next, once no input may yet bring
an earlier one. What cannot be used stands where it is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.core import transfers
from app.core.transfers import NotATransfer
from app.processor.input import Input
from app.processor.meta import BEGINNING
from app.processor.records import TRANSFERS, Record
from app.processor.state import State
from schemas import codec
from schemas.codec import RejectedMessage
from schemas.events import ClockAdvanced

#: Records an input may have buffered before it is paused.
BUFFER = 20_000


class Inputs(State):
    """The merge of the inputs."""

    def feed(self, input: str, records: Sequence[Record], position: int) -> None:
        """Adds what was fetched; `position` is the offset of the next record to fetch after it, markers passed."""
        source = self._inputs[input]
        if not source.opened:  # where it is read on, if it never gives anything, too
            source.opened = True
            place = records[0].offset if records else position
            if self._meta.read_up_to.get(input) != place:
                self._meta.applied.pop(input, None)
            self._meta.read_up_to[input] = place
        elif not records and position > source.position and self.plan.clock == "events":
            self._meta_dirty = True  # where no look notes it in time
        source.pending.extend(records)
        source.position = position
        self._reached(source)

    def room(self, input: str) -> int:
        """How many more records this input wants."""
        return BUFFER - len(self._inputs[input].pending)

    def look(self, now: int, ends: Mapping[str, int]) -> None:
        """CLOCK=wall: what the wall clock said, and then where the inputs ended. When everything below those ends has
        been applied, merged time becomes this look."""
        self._now = max(self._now, now)
        for name, end in ends.items():
            self._inputs[name].unread_until = end
        if self._look is None:  # an unreached look stands: a newer one under load would never be reached
            self._look = self._now
            self._look_ends = dict(ends)
            for source in self._inputs.values():
                self._reached(source)

    def _reached(self, source: Input) -> None:
        """Strikes an input off the look when everything below its end has been applied."""
        end = self._look_ends.get(source.name)
        if end is not None and source.unread_from() >= end:
            del self._look_ends[source.name]

    def _next_input(self) -> Input | None:
        """The input whose head is the earliest; None while an input that may yet bring an earlier one shows nothing."""
        best: Input | None = None
        wall = self.plan.clock == "wall"
        blocked: list[Input] = []
        for source in self._inputs.values():
            if source.head is None and source.pending:
                self._open_head(source)
            if source.head is None:
                if source.position < source.unread_until if wall else source.name != TRANSFERS:
                    blocked.append(source)
            elif best is None or source.head[0] < best.head[0]:  # type: ignore[index]  # best has a head
                best = source
        if best is None or best.head is None:
            return None
        at = best.head[0]
        for source in blocked:
            if wall or (at, best.index) >= (source.clock, source.index):
                return None
        return best

    def _open_head(self, source: Input) -> None:
        """Decodes the next record. Its place in the merge is the event's time, but never before what the input itself
        said it had reached; what cannot be used stands where it is found. What an input says of its own time holds at
        once: it orders nothing between inputs."""
        while source.pending:
            record = source.pending.popleft()
            message: object = self._read(source.name, record)
            if self._quarantined and (why := self._quarantined.get((source.name, record.offset))) is not None:
                message = RejectedMessage("cannot_apply", f"Set aside by a person: {why}", "")
            if isinstance(message, ClockAdvanced):
                self._counts["events", message.TYPE] += 1
                if self.plan.clock == "events" and message.occurred_at > source.clock:
                    source.clock = self._meta.clocks[source.name] = message.occurred_at
                self._taken(source, record)
                continue
            at = getattr(message, "occurred_at", BEGINNING)
            source.head = (max(at, source.clock), record, message)
            return

    def _read(self, name: str, record: Record) -> object:
        """The message in a record; of an event that was passed on, both."""
        if name != TRANSFERS:
            return codec.decode(name, record.key, record.value, record.timestamp_ms, self.plan.decode)
        try:
            return transfers.decode(record.value)
        except NotATransfer:
            return RejectedMessage("cannot_apply", "Only the shards write to this topic, and none wrote this.", "")

    def _taken(self, source: Input, record: Record) -> None:
        self._offsets[source.name] = record.offset + 1
        source.applied = record
        if self._look_ends:
            self._reached(source)
