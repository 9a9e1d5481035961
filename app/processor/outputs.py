"""What goes out, encoded in the order in which it was decided; what cannot be used goes to the dead letters."""

from __future__ import annotations

from datetime import UTC

from app.core.guardrails.rate import SlotTaken
from app.core.transfers import PassedOn
from app.processor.input import Input
from app.processor.records import InvariantBroken, Output, Record, RejectCeiling
from app.processor.state import State
from schemas import codec
from schemas.codec import RejectedMessage
from schemas.instant import LATEST, format_instant
from schemas.triggers import Decision, Retraction, StageChange, Trigger

#: The largest value that the dead letters take; the topic allows 8 MiB with headers.
MAX_LETTER_BYTES = 8_000_000


class Outputs(State):
    """The records of the next batch, one after another."""

    def _collect(self, user: str) -> None:
        """Outputs of the core, encoded in their order."""
        if not self._trace:
            return
        key = user.encode()
        for item in self._trace:
            if type(item) is tuple:
                self._counts[item] += 1
            elif isinstance(item, Trigger):
                value, headers = codec.encode_trigger(item, self._source)
                self._outputs.append(Output(f"triggers.{item.family}", key, value, headers))
            elif isinstance(item, Decision):
                value, headers = codec.encode_decision(item)
                self._outputs.append(Output("decisions", key, value, headers))
            elif isinstance(item, StageChange):
                value, headers = codec.encode_stage_change(item)
                self._outputs.append(Output("lifecycle.stages", key, value, headers))
            elif isinstance(item, Retraction):
                value, headers = codec.encode_retraction(item, self._source)
                self._outputs.append(Output(f"triggers.{item.family}", key, value, headers))
            elif isinstance(item, SlotTaken):
                self._meta.slots[item.rule] = item.free_from
                self._budgets[item.rule] = self._budgets[item.rule]._replace(free_from=item.free_from)
        self._trace.clear()

    def _reject(
        self,
        source: Input,
        record: Record,
        rejected: RejectedMessage,
        passed_on: PassedOn | None = None,
        counts: bool = True,
    ) -> None:
        """To the dead letters. One that is too large for its user's row does not count towards the ceiling: it says
        nothing of what else the sender sends."""
        topic, partition = source.name, self.shard
        if passed_on is not None:
            topic, partition = passed_on.topic, passed_on.partition
            record = Record(passed_on.offset, passed_on.timestamp_ms, passed_on.key, passed_on.value)
        at = format_instant(self._rejected_at(record), UTC)
        headers = codec.dead_letter_headers(rejected, topic, partition, record.offset, at)
        fits = len(record.value or b"") <= MAX_LETTER_BYTES  # else it stays where the headers say that it is
        self._outputs.append(Output("dead-letters", record.key, record.value if fits else None, headers))
        self._counts["rejects", rejected.code] += 1
        self.consecutive_rejects += counts
        if self.plan.stop_at_ceiling and self.consecutive_rejects >= self.plan.reject_ceiling:
            raise RejectCeiling(
                f"{self.consecutive_rejects} messages in a row could not be used; the last one, at {topic}"
                f"[{partition}] offset {record.offset}: {rejected.reason} Mend the sender. To go on "
                "past those that are there, start with LIFECYCLE_ON_REJECT_CEILING=alarm."
            )

    def _rejected_at(self, record: Record) -> int:
        """Under CLOCK=events the record's own timestamp: the same whenever it is read."""
        if self.plan.clock == "wall":
            return self._now
        return min(max(record.timestamp_ms, 0) * 1000, LATEST)  # a client may have sent any number

    def _broken(self, source: Input, record: Record, error: Exception) -> InvariantBroken:
        where = f"{source.name}[{self.shard}] offset {record.offset}"
        return InvariantBroken(
            f"The rules failed on the event at {where} ({type(error).__name__}). Nothing of it was kept. To go on "
            f"without this event, set it aside: lifecycle quarantine {source.name} {self.shard} {record.offset}"
        )
