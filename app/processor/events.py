"""One event at a time, to its user's row: kept whole, or refused whole with a sentence that says why."""

from __future__ import annotations

from app.core import engine
from app.core.facts import Refused
from app.core.row import Row
from app.core.transfers import Forget, History, PassedOn
from app.processor.accounts import GoneAccounts
from app.processor.bounds import TOO_LARGE
from app.processor.input import Input
from app.processor.records import Record
from schemas.codec import Ignored, RejectedMessage
from schemas.events import Event, UserErased, UserMerged

#: Accounts are merged only in rows of this version or later: what a merge leaves behind, older workers take for a row.
MERGES_SINCE = 2
NOT_FINALISED = RejectedMessage(
    "cannot_apply",
    "Accounts are not merged before the state is finalised, for older workers could not read it. Set "
    f"LIFECYCLE_STATE_VERSION={MERGES_SINCE}, restart all workers, then send it again: lifecycle dead-letters redrive",
    "",
)


class Events(GoneAccounts):
    """Events and transfers as they are applied."""

    def _apply(self, source: Input) -> None:
        at, record, message = source.head  # type: ignore[misc]  # _next_input fills it
        source.head = None
        self._taken(source, record)
        if self.plan.clock == "events" and at > self._meta.merged:
            self._meta.merged = at
            self._meta_dirty = True
        if isinstance(message, Event):
            self._step(source, record, message)
        elif isinstance(message, RejectedMessage):
            self._reject(source, record, message)
        elif isinstance(message, Ignored):
            self._counts["ignored", message.kind, message.name] += 1
        elif isinstance(message, History | PassedOn | Forget):
            if self._meta.row_version < MERGES_SINCE:  # where it comes from, the state is finalised: it is for all
                self._meta.row_version, self._fresh = MERGES_SINCE, False
            self._receive(source, record, message)

    def _step(self, source: Input, record: Record, event: Event, passed_on: PassedOn | None = None) -> None:
        user = event.user_id if passed_on is None else passed_on.user
        if passed_on is None and user in self._accounts.merged:
            self._pass_on(source, record, event)
            return
        row = self._dirty.get(user) or self.row(user)
        if row is None and passed_on is None and self._partition_of(user) != self.shard:
            name = self.plan.partitioner
            reason = (
                f"Keyed by this user it belongs to partition {self._partition_of(user)} ({name}), and it came to "
                f"{self.shard}. Set the producer's partitioner to {name}, as for all other inputs."
            )
            self._reject(source, record, RejectedMessage("wrong_partition", reason, ""))
            return
        if (row is None or event.occurred_at <= self._accounts.erased_until) and self._stays_gone(
            source, record, event, user, row, passed_on
        ):
            return
        if passed_on is not None and isinstance(event, UserMerged):
            self._merge_again(source, record, event, row, passed_on)
            return
        if isinstance(event, UserMerged) and self._meta.row_version < MERGES_SINCE:
            self._reject(source, record, NOT_FINALISED, passed_on)
            return
        moment = self._moment(self.now)
        if isinstance(event, UserErased):
            self._erase(source, record, event, user, row, passed_on, moment)
            return
        after: Row | Refused | None
        try:
            if isinstance(event, UserMerged):
                after = engine.leave(row, event, moment) if row is not None else None
            else:
                known = Row(user) if row is None and passed_on is not None else row
                after = self._fitting(user, known, event, record, moment)
        except Exception as error:
            raise self._broken(source, record, error) from error
        if isinstance(after, Refused):
            self._trace.clear()
            rejected = RejectedMessage("cannot_apply", after.reason, after.field)
            self._reject(source, record, rejected, passed_on, counts=after is not TOO_LARGE)
            return
        self._counts["events", event.TYPE] += 1
        self.consecutive_rejects = 0
        if isinstance(event, UserMerged):
            self._merge(source, record, event, row)
            return
        assert after is not None
        if after is not row:
            self._keep(user, after)
        self._collect(user)
