"""One shard at work: partition p of all inputs, merged by event time, through the pure core, into one batch.

Synchronous and deterministic: no Kafka, no asyncio, no clock. Records and looks at the clock come in, batches go out;
whoever owns the shard commits a batch as one transaction or throws the processor away. Rows hold a user each; one more
record of the changelog holds how far time has come. Instants are microseconds UTC.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from typing import Literal, NamedTuple
from zlib import crc32

import msgspec
from aiokafka.partitioner import murmur2
from msgspec.structs import replace

from app.accounts import Accounts, ErasureKeys, Keyed
from app.core import engine, transfers
from app.core.facts import Refused
from app.core.guardrails import rate
from app.core.guardrails.rate import Budget, SlotTaken
from app.core.moment import Moment
from app.core.row import NEVER, ROW_VERSION, Row, decode, encode, encoded_timer, next_timer, require_readable, run_key
from app.core.rules import Catalogue
from app.core.transfers import Forget, History, NotATransfer, PassedOn
from schemas import codec
from schemas.codec import DecodeOptions, Ignored, RejectedMessage
from schemas.events import ClockAdvanced, Event, UserErased, UserMerged, UserRegistered
from schemas.instant import LATEST, format_instant
from schemas.triggers import Decision, Retraction, StageChange, Trigger

#: The changelog record of the shard itself. No user id holds a control character, so none can be this.
META_KEY = b"\x00shard"
#: A person's decision to set one event aside: this, the input, a NUL, the offset; the value says why.
QUARANTINE_PREFIX = b"\x00quarantine\x00"
#: What shards tell each other of merged accounts: an output, and one more input, of which nobody can say how far it is.
TRANSFERS = "transfers"
#: In an input's place among those decisions: what is due at an instant (its offset), for whom the rules fail on it.
TIMER = "timer"
#: Records an input may have buffered before it is paused.
BUFFER = 20_000
#: So many timers of one look are a storm: from then on they share each batch with events.
STORM = 1_000
#: Decoded rows kept beside their encoded form; the rest is decoded when touched.
HOT_ROWS = 100_000
#: Entries of the timer heap that may be out of date (cancelled or moved) before it is built anew.
STALE_TIMERS = 100_000
#: The largest row, encoded: one that an event makes larger lets go of its oldest detail first, down to three quarters
#: of it, or to the least if that is not enough. A record of the changelog may have twice that, which leaves room for
#: what timers add.
MAX_ROW_BYTES = 4 << 20
#: Accounts are merged only in rows of this version or later: what a merge leaves behind, older workers take for a row.
MERGES_SINCE = 2
NOT_FINALISED = RejectedMessage(
    "cannot_apply",
    "Accounts are not merged before the state is finalised, for older workers could not read it. Set "
    f"LIFECYCLE_STATE_VERSION={MERGES_SINCE}, restart all workers, then send it again: lifecycle dead-letters redrive",
    "",
)
TOO_LARGE = Refused(
    f"With it the row of this user would have more than {MAX_ROW_BYTES} bytes, though all detail made room for it. "
    "Nothing of it was kept; smaller events are taken."
)
"""An event that is itself too large."""
#: No byte of an event makes more than so many bytes of a row: less is known to fit without encoding it.
ROW_BYTES_A_BYTE = 64
#: The largest value that the dead letters take; the topic allows 8 MiB with headers.
MAX_LETTER_BYTES = 8_000_000
#: How many users a change-over looks at for each one that a batch may adapt: most need nothing.
LOOKED_AT = 20
#: In `_Meta.unsettled`: nobody knows under which catalogue the runs were last looked after.
EVERY_RULE = "*"
BEGINNING = 0
"""Merged time before anything was seen."""
#: CLOCK=wall: merged time is written at least this often while nothing else is, microseconds: a crash sets it back by
#: no more.
IDLE_NOTE = 60_000_000


class Record(NamedTuple):
    """A record of an input partition."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class Fingerprint(NamedTuple):
    """By what a record is known again, should its topic have been deleted and made anew meanwhile."""

    offset: int
    timestamp_ms: int
    crc: int

    @classmethod
    def of(cls, record: Record) -> Fingerprint:
        return cls(record.offset, record.timestamp_ms, crc32(record.value or b"", crc32(record.key or b"")))


class Output(NamedTuple):
    """A record to write, to this shard's partition of the logical topic unless another one is named."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    partition: int | None = None


class Batch(NamedTuple):
    """Everything of one transaction."""

    rows: list[tuple[bytes, bytes | None]]
    outputs: list[Output]
    offsets: dict[str, int]
    counts: Counter[tuple[str, ...]]
    consecutive_rejects: int = 0
    """So many messages in a row could not be used when it was taken."""


class Plan(NamedTuple):
    """What all shards of a deployment share."""

    inputs: tuple[str, ...]
    partitions: int
    partitioner: Literal["murmur2", "crc32"]
    clock: Literal["wall", "events"]
    lateness: int
    decode: DecodeOptions
    catalogue: Catalogue
    app_id: str
    erasure: ErasureKeys
    start: str
    """'none', 'state-only', 'since:<instant in microseconds>', or '' for each rule's own."""
    reject_ceiling: int = 1000
    """So many rejects in a row are an alarm: an upstream service is broken."""
    stop_at_ceiling: bool = False
    """Whether the shard then stops, too."""
    state_version: int | None = None
    """The row version that this deployment has finalised; None keeps what the state already has."""


class InvariantBroken(Exception):
    """The core failed on an event: a bug. The shard stops before anything of the batch is committed."""

    #: Its words name a place, never data: logs may show them.
    safe_to_log = True


class RulesNotLoaded(Exception):
    """Published rules are in effect that this worker cannot load; a person must act. Nothing of the batch was kept."""

    safe_to_log = True


class RejectCeiling(Exception):
    """So many messages were rejected in a row that the shop wants a person to look. Nothing of the batch was kept."""

    safe_to_log = True


def quarantine_key(input: str, offset: int) -> bytes:
    """The changelog key of a person's decision to set this event aside."""
    return QUARANTINE_PREFIX + f"{input}\x00{offset}".encode()


class _Meta(msgspec.Struct):
    """How far a shard has come, as kept in the changelog."""

    merged: int = BEGINNING
    clocks: dict[str, int] = {}
    """By input: the instant that the input itself said it has reached (ClockAdvanced)."""
    active_since: dict[str, int] = {}
    """By rule: merged time when it first ran here."""
    catalogue: int = 0
    """Number of the published catalogue in effect; 0 = the one the worker came with."""
    row_version: int = ROW_VERSION
    """The version in which rows are written: raised only when the deployment is finalised."""
    slots: dict[str, int] = {}
    """By rule with a maximum rate: when its next slot is free here."""
    read_up_to: dict[str, int] = {}
    """By input: the offset that comes next; committed with the group's own, but it does not expire as that does."""
    applied: dict[str, Fingerprint] = {}
    """By input: the record that was applied last."""
    keyed: Keyed = Keyed()
    """The keys of the hashes that erased users left here."""
    unsettled: list[str] = []
    """Rules whose runs the last change-over has to look after before anything else happens; EVERY_RULE for all."""
    settled: str = ""
    """The users up to this one, in the order of their ids, have been looked after."""


class _Input:
    """One input partition: what is buffered, and what is known of what is not."""

    __slots__ = ("applied", "clock", "head", "index", "name", "opened", "pending", "position", "unread_until")

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index
        self.pending: deque[Record] = deque()
        self.head: tuple[int, Record, object] | None = None
        self.applied: Record | None = None  # the last one since the opening
        self.clock = BEGINNING
        self.opened = False
        self.position = 0  # offset of the next record to be fetched
        self.unread_until = 0  # end offset of the latest look

    def unread_from(self) -> int:
        """The offset of the next record to be applied."""
        if self.head is not None:
            return self.head[1].offset
        return self.pending[0].offset if self.pending else self.position


class Processor:
    """One shard. Feed it, take batches from it; see the module's law."""

    def __init__(self, plan: Plan, shard: int) -> None:
        self.plan = plan
        self.shard = shard
        self._inputs = {name: _Input(name, index) for index, name in enumerate((*plan.inputs, TRANSFERS))}
        self._cold: dict[str, bytes] = {}
        self._hot: dict[str, Row] = {}
        self._dirty: dict[str, Row] = {}
        self._heap: list[tuple[int, str]] = []
        self._timers: dict[str, int] = {}
        self._meta = _Meta()
        self._fresh = True  # nothing was ever written here
        self._meta_dirty = False
        self._noted = BEGINNING  # merged time as the changelog has it
        self._now = BEGINNING
        self._look: int | None = None  # the look that merged time is on its way to
        self._stormed = 0  # timers of this look that have fired
        self._look_ends: dict[str, int] = {}  # its inputs that have not been applied up to their ends
        self._trace: list[object] = []
        self._outputs: list[Output] = []
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._offsets: dict[str, int] = {}
        self._source = f"/lifecycle-triggers/{plan.app_id}"
        self._catalogue = plan.catalogue
        self._offers: dict[int, tuple[int, Catalogue | str]] = {}
        self._unknown = True  # under which catalogue the rows were written
        self._to_settle: list[str] | None = None  # users, the next one last; None = not listed yet
        self._accounts = Accounts(plan.erasure)
        self._sizes: dict[str, tuple[int, int]] = {}
        """Of users touched since the last batch: bytes of the row when it was last encoded, bytes of events since."""
        self._quarantined: dict[tuple[str, int], str] = {}
        self.consecutive_rejects = 0
        """Since the last message that could be used; ignored ones count for nothing."""
        self._sends_from: dict[str, int] | None = None
        self._enters_from: dict[str, int] = {}
        self._budgets: dict[str, Budget] = {}

    # -- opening

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Takes a changelog record; the last one of a key counts."""
        if key == META_KEY:
            self._meta = msgspec.msgpack.decode(value, type=_Meta) if value else _Meta()
            self._fresh = value is None
            require_readable(self._meta.row_version)
        elif key.startswith(QUARANTINE_PREFIX):
            name, _, offset = key[len(QUARANTINE_PREFIX) :].decode().partition("\x00")
            self._quarantined.pop((name, int(offset)), None)
            if value is not None:
                self._quarantined[name, int(offset)] = value.decode()
        elif self._accounts.restore(key, value):
            pass
        elif value is None:
            self._cold.pop(key.decode(), None)
        else:
            self._cold[key.decode()] = value

    def restored(self) -> None:
        """The changelog was read to its end: timers and the inputs' clocks come back. Raises WrongErasureKey."""
        self._accounts.restored(self._meta.keyed)
        for user, value in self._cold.items():
            due = encoded_timer(value)
            if due < NEVER:
                self._timers[user] = due
        self._build_heap()
        for name, at in self._meta.clocks.items():
            if name in self._inputs:
                self._inputs[name].clock = at

    def _build_heap(self) -> None:
        self._heap = [(due, user) for user, due in self._timers.items()]
        heapq.heapify(self._heap)

    # -- feeding

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

    def _reached(self, source: _Input) -> None:
        """Strikes an input off the look when everything below its end has been applied."""
        end = self._look_ends.get(source.name)
        if end is not None and source.unread_from() >= end:
            del self._look_ends[source.name]

    # -- what is shown

    @property
    def merged(self) -> int:
        """The instant up to which all inputs have been applied."""
        return self._meta.merged

    @property
    def read_up_to(self) -> Mapping[str, int]:
        """By input, the offset that comes next by the shard's own changelog; nothing of an input it never had."""
        return self._meta.read_up_to

    @property
    def applied(self) -> Mapping[str, Fingerprint]:
        """By input, the last record before that place; nothing of an input that gave none, or was set elsewhere."""
        return self._meta.applied

    @property
    def catalogue_number(self) -> int:
        """Number of the published catalogue in effect; 0 = none was offered yet."""
        return self._meta.catalogue

    @property
    def pending_timers(self) -> int:
        """Users with a timer."""
        return len(self._timers)

    @property
    def rows_held(self) -> int:
        """Users known."""
        return len(self._cold) + sum(user not in self._cold for user in self._dirty)

    def row(self, user: str) -> Row | None:
        """The row of a user, for whoever wants to look at it."""
        found = self._hot.get(user)
        if found is None and (data := self._cold.get(user)) is not None:
            found = self._hot[user] = decode(data)
        return found

    # -- work

    def take(self, limit: int) -> Batch | None:
        """Merges, applies and fires about `limit` events and timers. None when there is nothing to do now."""
        if self.plan.clock == "wall" and self._now == BEGINNING:
            return None
        try:
            self._go_on(limit)
        except RulesNotLoaded:
            if not self._has_news():  # what was before is kept first
                raise
        return self._batch() if self._has_news() else None

    def _has_news(self) -> bool:
        return bool(self._offsets or self._dirty or self._outputs or self._meta_dirty)

    def _go_on(self, limit: int) -> None:
        done, fired, wall = 0, 0, self.plan.clock == "wall"
        while done < limit:
            if self._offers and not self._meta.unsettled and (late := self._next_change(self._meta.merged)) is not None:
                self._change_over(late)  # it was in effect before this shard heard of it
                continue
            self._activate()
            if self._meta.unsettled:
                done += self._settle(limit - done)
                continue
            if self._look is not None and not self._look_ends and (left := self._timers_turn(limit, fired, done)):
                looked_after = self._fire_look(left)
                fired, done = fired + looked_after, done + looked_after
                continue
            source = self._next_input()
            if source is not None:
                assert source.head is not None  # _next_input fills it
                if (used := self._change_before(max(source.head[0], self.merged), limit - done, not wall)) is not None:
                    done += used
                    continue
                done += self._fire_before(source.head[0], limit - done)
                if done >= limit:
                    break
                self._apply(source)
                done += 1
                continue
            if wall or not (used := self._said(limit - done)):
                break
            done += used

    def _activate(self) -> None:
        """A rule that first runs here is active from now on: its start policy counts from this instant."""
        if self._sends_from is not None:
            return
        version = self.plan.state_version
        if version is not None and (version > self._meta.row_version or self._fresh):
            self._meta.row_version = version
            self._meta_dirty = True
        sends: dict[str, int] = {}
        self._enters_from = {}
        now = self._meta.merged if self.plan.clock == "events" else self._now
        for name, rule in self._catalogue.rules.items():
            if name not in self._meta.active_since:
                self._meta.active_since[name] = now
                self._meta_dirty = True
            active = self._meta.active_since[name]
            start = self.plan.start or rule.start or "state-only"
            since = int(start.removeprefix("since:")) if start.startswith("since:") else active
            sends[name] = since
            if start == "none":
                self._enters_from[name] = active
        self._sends_from = sends
        self._share_rates()

    def _share_rates(self) -> None:
        """Each shard has an equal share of each rule's maximum rate, and its own state of it. Under CLOCK=wall a timer
        fires LATENESS and a look after its instant: its slot is good for longer, and slots lie further apart."""
        self._budgets = {}
        for name, rule in self._catalogue.rules.items():
            if (limit := rule.send.max_rate) is not None:
                late = self.plan.lateness + limit.window // 20 if self.plan.clock == "wall" else 0
                free_from = self._meta.slots.get(name, BEGINNING)
                self._budgets[name] = rate.budget(limit, self.plan.partitions, late)._replace(free_from=free_from)
        self._meta.slots = {name: at for name, at in self._meta.slots.items() if name in self._budgets}

    def offer(self, number: int, effective_at: int, catalogue: Catalogue | str) -> None:
        """A published catalogue: every shard changes over to it when merged time reaches `effective_at`. In place of
        one that this worker cannot load, the reason."""
        if number > self._meta.catalogue:
            self._offers[number] = (effective_at, catalogue)
        elif number < self._meta.catalogue:
            return
        elif isinstance(catalogue, str):  # under it nothing can go on, unless a later one is in effect by now
            self._offers[number] = (BEGINNING, catalogue)
            self._meta.unsettled = []
        else:  # the one that was in effect when the shard was last written
            self._catalogue, self._sends_from, self._unknown = catalogue, None, False

    def _next_change(self, by: int) -> int | None:
        """The next instant up to `by` at which a catalogue takes effect. One that cannot be loaded is passed over when
        a later one that can is in effect by then, or by the wall clock."""
        if not any(at <= by for at, _ in self._offers.values()):
            return None
        wall = max(by, self._now)
        best = max((n for n, (at, new) in self._offers.items() if at <= wall and isinstance(new, Catalogue)), default=0)
        for number in [n for n, (_, new) in self._offers.items() if n < best and isinstance(new, str)]:
            del self._offers[number]
        change = min(at for at, _ in self._offers.values())
        return change if change <= by else None

    def _change_before(self, at: int, limit: int, reached: bool = True) -> int | None:
        """Before time goes on to `at`: a catalogue that takes effect by then. Its predecessor's timers fire first,
        unless what may yet cancel them has not been applied (`reached`). None when there is none; else how much of the
        limit was used."""
        if not self._offers or (change := self._next_change(at)) is None:
            return None
        fired = self._fire_due(change - self.plan.lateness, limit, inclusive=False) if reached else 0
        if fired < limit:
            self._change_over(change)
        return max(fired, 1)

    def _change_over(self, until: int) -> None:
        """Takes up the catalogue that is in effect from this instant on; of several that are due, one instant after the
        other, so that what each says of runs in flight is done. Runs that exit or begin anew are looked after before
        anything else happens (`_settle`), the others when they are touched. Raises RulesNotLoaded."""
        number = max(n for n, (at, _) in self._offers.items() if at <= until)
        _, after = self._offers[number]
        if isinstance(after, str):
            raise RulesNotLoaded(
                f"the rules published as number {number}, which are in effect, cannot be loaded by this worker "
                f"({after.rstrip('.')}). Start workers of the release that published them, or a later one; or publish "
                "rules that this one can load (under CLOCK=events, in effect from the same instant) and restart it "
                "once they are in effect"
            )
        if self.plan.clock == "events" and until > self._meta.merged:
            self._meta.merged = until  # the change is at one instant, whatever the batches cut
        before, self._catalogue, self._meta.catalogue = self._catalogue, after, number
        self._offers = {n: offer for n, offer in self._offers.items() if n > number}
        self._meta.unsettled = [EVERY_RULE] if self._unknown else list(before.unsettled_by(after))
        self._meta.settled, self._to_settle, self._unknown = "", None, False
        self._meta_dirty = True
        for name in self._meta.active_since.keys() - after.rules.keys():
            del self._meta.active_since[name]  # should it come back, it begins anew
        self._sends_from = None
        self._activate()

    def _settle(self, limit: int) -> int:
        """Adapts runs to the catalogue that took over, in the order of their users' ids, at most `limit` users at a
        time; a user is decoded only if one of these rules is named in the row. Runs without a timer too: when they are
        touched a third catalogue may be in effect, which knows nothing of this one."""
        if self._to_settle is None:
            users = self._cold.keys() | self._dirty.keys()
            self._to_settle = sorted((user for user in users if user > self._meta.settled), reverse=True)
        every = EVERY_RULE in self._meta.unsettled
        names = [run_key("" if every else name, "").encode() for name in self._meta.unsettled]
        adapted = looked = 0
        while self._to_settle and adapted < limit and looked < limit * LOOKED_AT:
            user = self._to_settle.pop()
            looked += 1
            row = self._hot.get(user)
            if row is None:
                data = self._cold[user]
                if not any(name in data for name in names):
                    continue
                row = decode(data)
            after = engine.settle(row, self._moment(self.now))
            if after.runs is not row.runs:
                self._keep(user, after)
                self._collect(user)
                adapted += 1
            self._meta.settled = user
        self._meta_dirty = True
        if not self._to_settle:
            self._meta.unsettled, self._meta.settled, self._to_settle = [], "", None
        return max(adapted, looked // LOOKED_AT, 1)

    # -- the merge

    def _next_input(self) -> _Input | None:
        """The input whose head is the earliest; None while an input that may yet bring an earlier one shows nothing."""
        best: _Input | None = None
        wall = self.plan.clock == "wall"
        blocked: list[_Input] = []
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

    def _open_head(self, source: _Input) -> None:
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

    def _taken(self, source: _Input, record: Record) -> None:
        self._offsets[source.name] = record.offset + 1
        source.applied = record
        if self._look_ends:
            self._reached(source)

    def _apply(self, source: _Input) -> None:
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

    def _step(self, source: _Input, record: Record, event: Event, passed_on: PassedOn | None = None) -> None:
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

    def _size(self, row: Row) -> int:
        return len(encode(row, self._meta.row_version))

    def _broken(self, source: _Input, record: Record, error: Exception) -> InvariantBroken:
        where = f"{source.name}[{self.shard}] offset {record.offset}"
        return InvariantBroken(
            f"The rules failed on the event at {where} ({type(error).__name__}). Nothing of it was kept. To go on "
            f"without this event, set it aside: lifecycle quarantine {source.name} {self.shard} {record.offset}"
        )

    # -- accounts that are gone, or part of another one

    def _stays_gone(
        self, source: _Input, record: Record, event: Event, user: str, row: Row | None, passed_on: PassedOn | None
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
        source: _Input,
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

    def _forget(self, source: _Input, record: Record, accounts: Iterable[str], erased_at: int) -> None:
        for account in accounts:
            self._send(source, record, Forget(account, erased_at))

    def _leave(self, user: str, row: Row | None) -> None:
        """The user's row and timers are there no more, nor its stage."""
        for held in (self._hot, self._dirty, self._cold, self._timers):
            held.pop(user, None)
        self._collect(user)
        if row is not None:
            self._outputs.append(Output("lifecycle.stages", user.encode(), None, ()))

    def _merge(self, source: _Input, record: Record, event: UserMerged, row: Row | None) -> None:
        """The row goes to the account that this one is part of from now on; a marker stays, which names it."""
        self._accounts.merge(event.user_id, event.into, event.occurred_at)
        self._leave(event.user_id, row)
        data = encode(row, self._meta.row_version) if row is not None else None
        self._receive(source, record, History(event.user_id, (), event.event_id, event.occurred_at, data))

    def _pass_on(self, source: _Input, record: Record, event: Event) -> None:
        """What is said of an account that is part of another one counts for that one."""
        user = event.user_id
        if isinstance(event, UserMerged) and event.into == self._accounts.merged[user].into:
            self._counts["duplicates", event.TYPE] += 1
            return
        self.consecutive_rejects = 0
        self._receive(source, record, PassedOn(user, (), event.occurred_at, source.name, self.shard, *record))

    def _merge_again(
        self, source: _Input, record: Record, event: UserMerged, row: Row | None, passed_on: PassedOn
    ) -> None:
        """An account that is part of this one already is to be merged: into this person, or another."""
        if event.into == passed_on.user or (row is not None and event.into in row.merged):
            self._counts["duplicates", event.TYPE] += 1
            return
        reason = "The account is part of another one already. Merge that one, if it is meant."
        self._reject(source, record, RejectedMessage("cannot_apply", reason, "into"), passed_on)

    def _send(self, source: _Input, record: Record, message: transfers.Message) -> None:
        """Into the hands of the shard of the account that it is for: this one's are nearer than Kafka."""
        shard = self._partition_of(message.user)
        if shard == self.shard:
            self._receive(source, record, message)
        else:
            self._counts["transfers", "sent"] += 1
            data = transfers.encode(message)
            self._outputs.append(Output(TRANSFERS, message.user.encode(), data, (), shard))

    def _receive(self, source: _Input, record: Record, message: transfers.Message) -> None:
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

    def _absorb(self, source: _Input, record: Record, history: History) -> None:
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

    def _partition_of(self, user: str) -> int:
        return partition_of(user.encode(), self.plan.partitions, self.plan.partitioner)

    def _reject(
        self,
        source: _Input,
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

    # -- time

    @property
    def now(self) -> int:
        """Processing time: the latest look, or merged time under CLOCK=events."""
        return self._now if self.plan.clock == "wall" else self._meta.merged

    def _moment(self, now: int, floor: int | None = None) -> Moment:
        assert self._sends_from is not None
        return Moment(
            now=now,
            floor=self._meta.merged - self.plan.lateness if floor is None else floor,
            catalogue=self._catalogue,
            sends_from=self._sends_from,
            enters_from=self._enters_from,
            trace=self._trace,
            budgets=self._budgets,
        )

    def _fire_before(self, at: int, limit: int) -> int:
        """CLOCK=events: before an event at this instant, the timers that were due earlier (and LATENESS passed)."""
        if self.plan.clock == "wall" or at <= self._meta.merged:
            return 0
        return self._fire_due(at - self.plan.lateness, limit, inclusive=False)

    def _timers_turn(self, limit: int, fired: int, done: int) -> int:
        """How many more of the look's timers this batch may fire: all it has room for, but in a storm half of it, so
        that events keep flowing while the storm is worked off."""
        return limit - done if self._stormed < STORM else max(0, min(limit - done, max(1, limit // 2) - fired))

    def _fire_look(self, limit: int) -> int:
        """CLOCK=wall: everything up to the look has been applied, so merged time becomes it and its timers fire."""
        assert self._look is not None
        if (used := self._change_before(self._look, limit)) is not None:
            return used
        fired = self._fire_due(self._look - self.plan.lateness, limit, inclusive=True)
        self._stormed += fired
        if fired < limit:
            self._meta.merged = max(self._meta.merged, self._look)
            self._look, self._stormed = None, 0
            if self._meta.merged - self._noted >= IDLE_NOTE:
                self._meta_dirty = True
        return fired

    def _said(self, limit: int) -> int:
        """CLOCK=events without a next event: all inputs have at least said (or shown) how far they are."""
        told = [source for source in self._inputs.values() if source.head or source.name != TRANSFERS]
        reached = min(source.head[0] if source.head else source.clock for source in told)
        if reached <= self._meta.merged:
            return 0
        if (used := self._change_before(reached, limit)) is not None:
            return used
        fired = self._fire_due(reached - self.plan.lateness, limit, inclusive=False)
        if fired < limit:
            self._meta.merged = reached
            self._meta_dirty = True
        return fired

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

    def _keep(self, user: str, row: Row, anew: bool = False) -> None:
        before = self._hot.get(user)
        self._dirty[user] = self._hot[user] = row
        if before is not None and before.runs is row.runs and before.stage_due == row.stage_due and not anew:
            return  # its timers are what they were
        due = next_timer(row)
        if due >= NEVER:
            self._timers.pop(user, None)
        elif anew or self._timers.get(user) != due:
            self._timers[user] = due
            heapq.heappush(self._heap, (due, user))

    # -- the batch

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

    def _pass_markers(self) -> None:
        """What is applied to its end is read up to behind the markers of transactions, too: retention takes them with
        the events, and to go on at one that is gone would look as if an event had been."""
        for source in self._inputs.values():
            if source.opened and source.unread_from() > self._meta.read_up_to[source.name]:
                self._offsets[source.name] = source.unread_from()

    def _batch(self) -> Batch:
        rows = self._accounts.taken()
        for user, row in self._dirty.items():
            data = encode(row, self._meta.row_version)
            self._cold[user] = data
            rows.append((user.encode(), data))
        self._meta.keyed = self._accounts.keyed
        self._pass_markers()
        self._meta.read_up_to.update(self._offsets)
        for name in self._offsets:  # once a batch, not for each record
            if (record := self._inputs[name].applied) is not None:
                self._meta.applied[name] = Fingerprint.of(record)
        rows.append((META_KEY, msgspec.msgpack.encode(self._meta)))
        self._noted = self._meta.merged
        batch = Batch(rows, self._outputs, self._offsets, self._counts, self.consecutive_rejects)
        self._dirty, self._outputs, self._offsets, self._counts = {}, [], {}, Counter()
        self._meta_dirty = False
        self._sizes.clear()
        while len(self._hot) > HOT_ROWS:
            del self._hot[next(iter(self._hot))]
        if len(self._heap) > len(self._timers) + STALE_TIMERS:
            self._build_heap()
        return batch


def active_since(meta: bytes) -> dict[str, int]:
    """By rule, of a shard's own changelog record: merged time when the rule first ran there."""
    return msgspec.msgpack.decode(meta, type=_Meta).active_since


def partition_of(key: bytes, partitions: int, partitioner: str) -> int:
    """Where a Kafka client with this partitioner puts a key: murmur2 as Java and aiokafka, crc32 as librdkafka."""
    return PARTITIONERS[partitioner](key) % partitions


def _murmur2(key: bytes) -> int:
    hashed: int = murmur2(key)
    return hashed & 0x7FFFFFFF


PARTITIONERS: dict[str, Callable[[bytes], int]] = {"murmur2": _murmur2, "crc32": crc32}
