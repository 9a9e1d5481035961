"""Accounts that are gone stay gone, and what comes for one that is part of another goes on to that one.

The shards tell each other so by transfers; what is for an account of this shard is done at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from app.core import engine, transfers
from app.core.moment import Moment
from app.core.row import Row, decode
from app.core.transfers import Forget, History, PassedOn
from app.processor.bounds import Bounds
from app.processor.input import Input
from app.processor.inputs import Inputs
from app.processor.meta import BEGINNING
from app.processor.outputs import Outputs
from app.processor.records import TRANSFERS, Output, Record
from schemas.codec import RejectedMessage
from schemas.events import Event, UserErased, UserMerged, UserRegistered


class GoneAccounts(Inputs, Bounds, Outputs, ABC):
    """Accounts that were erased or merged."""

    @abstractmethod
    def _step(self, source: Input, record: Record, event: Event, passed_on: PassedOn | None = None) -> None:
        """Applies an event, here one that was passed on."""

    def _stays_gone(
        self, source: Input, record: Record, event: Event, user: str, row: Row | None, passed_on: PassedOn | None
    ) -> bool:
        """After an erasure only a new registration begins a new life; whatever else trickles in stays unknown, and what
        is of the old life stays so when the new one has begun."""
        erased_at = self._accounts.erased_at(user)
        if erased_at is None:
            return False
        if row is not None:
            gone = event.occurred_at <= erased_at and not isinstance(event, UserErased)
        else:
            gone = passed_on is not None or not (isinstance(event, UserRegistered) and event.occurred_at > erased_at)
        if gone:
            self._counts["ignored", "erased", event.TYPE] += 1
            if row is None and passed_on is not None:  # nothing may go on naming who is gone
                self._forget(source, record, passed_on.path, erased_at)
        return gone

    def _erase(
        self,
        source: Input,
        record: Record,
        event: UserErased,
        user: str,
        row: Row | None,
        passed_on: PassedOn | None,
        moment: Moment,
    ) -> None:
        """Row, timers and traces go, of the accounts that became part of this one as well, and of those through which
        the word came; keyed hashes stay, so that nothing late brings the user back."""
        known = row.merged if row is not None else {}
        through = passed_on.path if passed_on is not None else ()
        if (self._accounts.erased_at(user) or BEGINNING) >= event.occurred_at:
            self._counts["duplicates", event.TYPE] += 1  # who registered anew since then stays
            self._forget(source, record, (each for each in through if each not in known), event.occurred_at)
            return
        if row is not None:
            try:
                engine.erase(row, event, moment)
            except Exception as error:
                raise self._broken(source, record, error) from error
        self._accounts.erase(user, event.occurred_at)
        self._counts["events", event.TYPE] += 1
        self._leave(user, row)
        self._forget(source, record, dict.fromkeys((*known, *through)), event.occurred_at)

    def _forget(self, source: Input, record: Record, accounts: Iterable[str], erased_at: int) -> None:
        for account in accounts:
            self._send(source, record, Forget(account, erased_at))

    def _leave(self, user: str, row: Row | None) -> None:
        """The user's row and timers are there no more, nor its stage."""
        for held in (self._hot, self._dirty, self._cold, self._timers):
            held.pop(user, None)
        self._collect(user)
        if row is not None:
            self._outputs.append(Output("lifecycle.stages", user.encode(), None, ()))

    def _merge(self, source: Input, record: Record, event: UserMerged, row: Row | None) -> None:
        """The row goes to the account that this one is part of from now on; a marker stays, which names it."""
        self._accounts.merge(event.user_id, event.into, event.occurred_at)
        self._leave(event.user_id, row)
        data = self._encoded(row) if row is not None else None
        self._receive(source, record, History(event.user_id, (), event.event_id, event.occurred_at, data))

    def _pass_on(self, source: Input, record: Record, event: Event) -> None:
        """What is said of an account that is part of another one counts for that one."""
        user = event.user_id
        if isinstance(event, UserMerged) and event.into == self._accounts.merged[user].into:
            self._counts["duplicates", event.TYPE] += 1
            return
        self.consecutive_rejects = 0
        self._receive(source, record, PassedOn(user, (), event.occurred_at, source.name, self.shard, *record))

    def _merge_again(
        self, source: Input, record: Record, event: UserMerged, row: Row | None, passed_on: PassedOn
    ) -> None:
        """An account that is part of this one already is to be merged: into this person, or another."""
        if event.into == passed_on.user or (row is not None and event.into in row.merged):
            self._counts["duplicates", event.TYPE] += 1
            return
        reason = "The account is part of another one already. Merge that one, if it is meant."
        self._reject(source, record, RejectedMessage("cannot_apply", reason, "into"), passed_on)

    def _send(self, source: Input, record: Record, message: transfers.Message) -> None:
        """Into the hands of the shard of the account that it is for: this one's are nearer than Kafka."""
        shard = self._partition_of(message.user)
        if shard == self.shard:
            self._receive(source, record, message)
        else:
            self._counts["transfers", "sent"] += 1
            data = transfers.encode(message)
            self._outputs.append(Output(TRANSFERS, message.user.encode(), data, (), shard))

    def _receive(self, source: Input, record: Record, message: transfers.Message) -> None:
        if isinstance(message, Forget):
            if message.user in self._accounts.merged:
                self._accounts.erase(message.user, message.erased_at)
                self._counts["transfers", "forgotten"] += 1
            return
        onward = self._accounts.onward(message)
        if onward is not None:
            self._send(source, record, onward)
        elif isinstance(message, History):
            self._absorb(source, record, message)
        else:
            self._counts["transfers", "passed_on"] += 1
            event = self._read(message.topic, Record(message.offset, message.timestamp_ms, message.key, message.value))
            if isinstance(event, Event):
                self._step(source, record, event, message)
            elif isinstance(event, RejectedMessage):  # by stricter settings than those it was passed on under
                self._reject(source, record, event, message)

    def _absorb(self, source: Input, record: Record, history: History) -> None:
        """The history of an account that is part of this one from now on. Whoever was erased stays gone."""
        user = history.user
        other = decode(history.row) if history.row is not None else None
        row = self._dirty.get(user) or self.row(user)
        erased_at = self._accounts.erased_at(user)
        if erased_at is not None and (row is None or history.occurred_at <= erased_at):
            self._counts["transfers", "dropped"] += 1
            parts = other.merged if other is not None else ()
            self._forget(source, record, dict.fromkeys((*history.path, *parts)), erased_at)
            return
        try:
            after = self._together(row, history, other, self._moment(self.now))
        except Exception as error:
            raise self._broken(source, record, error) from error
        self._counts["transfers", "absorbed"] += 1
        if after is not row:
            self._sizes[user] = self._size(after), 0
            self._keep(user, after)
        self._collect(user)
        known = {user, *after.merged}
        for account in (*(row.merged if row else ()), *(other.merged if other else ()), *history.path):
            if account not in known:  # of too many the oldest are let go: nothing may be left that names them
                known.add(account)
                self._send(source, record, Forget(account, history.occurred_at))
