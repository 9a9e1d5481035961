"""A synchronous driver for the engine: send events, let time pass, break things, look at what came out.

It drives the real `Processor`, which drives the real core; only Kafka (`broker.Broker`) and the clock are played. There
are no threads and no waiting, so a year takes milliseconds, and the same calls always give the same result::

    driver = Driver(at="2026-03-01T00:00:00+08:00")
    driver.send({"event_id": "e-1", "type": "CouponIssued", "user_id": "u-1",
                 "occurred_at": "2026-03-01T08:15:00+08:00", "coupon_id": "c-4", "value": "20.00", "currency": "CNY"})
    driver.advance_time("2026-03-08T12:00:00+08:00")
    driver.crash("inside")
    assert [trigger.rule for trigger in driver.triggers] == ["coupon_unused"]
    assert driver.timers("u-1")[0].step == 2

Both clocks of the product are there. Under "events" (the default) time is what events and `advance_time` say, and
results are exact to the microsecond; under "wall" the driver plays the machine's clock. Instants are microseconds UTC,
or RFC 3339 text with an offset wherever one is passed in. With several partitions, what shards tell each other (of
merged accounts) is a log as the inputs are: `run` works until all of it has arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec
import orjson

from app.accounts import ErasureKeys
from app.backtest.broker import Broker, Place
from app.core.row import NEVER, Row, decode, encoded_timer
from app.core.rules import Catalogue
from app.processor import TRANSFERS, Batch, Output, Plan, Processor, Record, partition_of
from app.rulebook import load
from schemas.codec import DecodeOptions, encode_event
from schemas.envelope import TRIGGER_RETRACTED
from schemas.events import EVENT_TYPES, INPUT_TOPICS, ClockAdvanced, Event
from schemas.instant import SECOND, Instant, parse_instant
from schemas.triggers import Decision, Retraction, Trigger

Message = Event | Mapping[str, Any]
When = Literal["before", "inside", "after"]

#: Where nothing is written to, nothing needs a secret, and the same calls give the same bytes.
IN_MEMORY = ErasureKeys(None, bytes(32))
#: Changelog keys of the shard itself start with it; no user id does.
_NOT_A_USER = b"\x00"
_RETRACTED = ("ce_type", TRIGGER_RETRACTED.encode())


class Timer(NamedTuple):
    """A step that will be looked at."""

    at: int
    """When, microseconds: its due instant, or the one to which it was deferred."""
    user: str
    rule: str
    key: str
    step: int
    """1 is the first."""


class DeadLetter(NamedTuple):
    """A record that could not be used."""

    code: str
    reason: str
    field: str
    topic: str
    key: bytes | None
    value: bytes | None


class Driver:
    """One deployment with its Kafka and its clock. See the module for an example.

    catalogue: the rules (default: the shipped ones). clock, lateness (microseconds; default as in production: 0 under
    "events", 5 s under "wall"), partitions, inputs, start: as the settings of those names. at: the first instant of the
    virtual clock.
    """

    def __init__(
        self,
        catalogue: Catalogue | None = None,
        *,
        clock: Literal["events", "wall"] = "events",
        at: int | str = "2026-01-01T00:00:00Z",
        lateness: int | None = None,
        partitions: int = 1,
        inputs: tuple[str, ...] = INPUT_TOPICS,
        start: str = "",
        options: DecodeOptions | None = None,
    ) -> None:
        if lateness is None:
            lateness = 5 * SECOND if clock == "wall" else 0
        self.plan = Plan(
            inputs=inputs,
            partitions=partitions,
            partitioner="murmur2",
            clock=clock,
            lateness=lateness,
            decode=options or DecodeOptions(),
            catalogue=catalogue or load(),
            app_id="backtest",
            erasure=IN_MEMORY,
            start=start,
        )
        self.broker = Broker(inputs, partitions)
        self.now: int = _instant(at)
        self._paused: set[str] = set()
        self._batch_limit = 5_000
        self._fetch_limit = 5_000
        self._workers: dict[int, _Worker] = {}

    # -- sending

    def send(self, *messages: Message) -> None:
        """Puts events into Kafka, as their upstream service would: keyed by user, on the topic of their type. Nothing
        is processed before `run`, `advance_time` or a fault. Events are `schemas.events` values or plain mappings as
        in the contract; a mapping may name another "topic"."""
        for message in messages:
            if isinstance(message, Event):
                self.send_record(message.TOPIC, message.user_id.encode(), encode_event(message))
                continue
            fields = dict(message)
            kind = EVENT_TYPES.get(str(fields.get("type")))
            topic = fields.pop("topic", None) or (kind.TOPIC if kind else self.plan.inputs[0])
            self.send_record(topic, str(fields.get("user_id", "")).encode(), orjson.dumps(fields))

    def send_record(
        self, topic: str, key: bytes | None, value: bytes | None, *, partition: int | None = None
    ) -> tuple[Place, Record]:
        """Puts raw bytes into Kafka, whatever they are. The record's timestamp is the driver's clock under "wall";
        under "events" it has none, as nothing is ahead of a clock that only events move."""
        if partition is None:
            partition = partition_of(key or b"", self.plan.partitions, self.plan.partitioner)
        place = (topic, partition)
        timestamp_ms = self.now // 1000 if self.plan.clock == "wall" else -1
        return place, self.broker.append(place, timestamp_ms, key, value)

    def redeliver(self, place: Place, offset: int) -> None:
        """Upstream sends the record at that offset again: the same bytes, the same event id, later in the log."""
        record = next(record for record in self.broker.log(place) if record.offset == offset)
        self.broker.append(place, record.timestamp_ms, record.key, record.value)

    # -- time

    def advance_time(self, to: int | str | None = None, *, by: int | None = None, working: bool = True) -> None:
        """Lets time pass until `to` (or for `by` microseconds) while the worker works.

        Under "events" every input says that nothing at or before that instant follows, so that what is due by then
        (less the lateness) fires. Under "wall" the clock goes there and stops at each timer on the way, as if the
        worker had looked all the time; with working=False it jumps, as if there had been no worker.
        """
        if (to is None) == (by is None):
            raise ValueError("advance_time takes exactly one of `to` and `by`.")
        until = self.now + by if by is not None else _instant(to)  # type: ignore[arg-type]  # one of them is there
        if self.plan.clock == "events":
            self.now = max(self.now, until)
            self.announce(until + 1)
            if working:
                self.run()
            return
        if working:
            self.run()
            while (stop := self._next_stop()) <= until:
                self.now = stop
                self.run()
        self.now = max(self.now, until)
        if working:
            self.run()

    def announce(self, at: int, topics: Iterable[str] | None = None) -> None:
        """ClockAdvanced on every partition of these inputs (default: all): nothing older than `at` follows there."""
        value = encode_event(ClockAdvanced(occurred_at=Instant(at)))
        for topic in topics or self.plan.inputs:
            for partition in range(self.plan.partitions):
                self.send_record(topic, None, value, partition=partition)

    def _next_stop(self) -> int:
        """The next instant after now at which a timer fires under the wall clock."""
        stops = (encoded_timer(v) + self.plan.lateness for _, _, v in self._encoded_rows())
        return min((stop for stop in stops if stop > self.now), default=NEVER)

    # -- working

    def run(self) -> None:
        """Works until there is nothing left to do: what one shard tells another is work, too."""
        working = True
        while working:
            working = False
            for shard in range(self.plan.partitions):
                while self.work(shard):
                    working = True

    def work(self, shard: int = 0) -> bool:
        """One turn of a shard: look at the clock, fetch, take a batch, commit it. False: there was nothing to do."""
        before = self.merged(shard)
        fetched, batch = self._worker(shard).turn(self._fetch_limit, self._batch_limit)
        if batch is not None:
            self._commit(shard, batch)
        return fetched or batch is not None or self.merged(shard) > before

    def cut(self, batch: int | None = None, fetch: int | None = None) -> None:
        """From now on at most so many events and timers a transaction, and so many records a fetch and input."""
        self._batch_limit = batch or self._batch_limit
        self._fetch_limit = fetch or self._fetch_limit

    def pause(self, *topics: str) -> None:
        """These inputs are not fetched until `resume`: they lag behind the others."""
        self._paused.update(topics)

    def resume(self, *topics: str) -> None:
        """These inputs (default: all) are fetched again."""
        self._paused.difference_update(topics or tuple(self._paused))

    def lagging(self, shard: int = 0) -> bool:
        """Whether a paused input keeps the shard from getting to the ends of its inputs."""
        positions = self._worker(shard).positions
        return any(positions[topic] < self.broker.end((topic, shard)) for topic in self._paused)

    # -- faults

    def crash(self, when: When = "before", shard: int | None = None) -> None:
        """A worker dies and another opens the shard (default: all shards) from the changelog.

        "before": nothing was at work. "inside": a batch was taken and its transaction open; it is aborted and nothing
        of it is visible. "after": the batch was committed, but the worker died before it knew.
        """
        for each in range(self.plan.partitions) if shard is None else (shard,):
            if when != "before":
                _, batch = self._worker(each).turn(self._fetch_limit, self._batch_limit)
                if batch is not None:
                    (self._commit if when == "after" else self._abort)(each, batch)
            self._workers.pop(each, None)

    def rebalance(self, *shards: int) -> None:
        """Other workers take these shards (default: all) over and read their changelogs."""
        for shard in shards or range(self.plan.partitions):
            self._workers.pop(shard, None)

    def restart(self, plan: Plan) -> None:
        """All workers are started again, with other settings (LATENESS, CLOCK)."""
        self.plan = plan
        self.rebalance()

    def _commit(self, shard: int, batch: Batch) -> None:
        self.broker.commit(shard, batch)

    def _abort(self, shard: int, batch: Batch) -> None:
        """The transaction coordinator ends it: nothing of the batch was ever there."""

    # -- looking

    def merged(self, shard: int = 0) -> int:
        """The instant up to which a shard has applied all its inputs."""
        return self._worker(shard).processor.merged

    def row(self, user: str) -> Row | None:
        """What is known of a user, as the changelog has it."""
        shard = partition_of(user.encode(), self.plan.partitions, self.plan.partitioner)
        data = self.broker.rows[shard].get(user.encode())
        return None if data is None else decode(data)

    def timers(self, user: str | None = None) -> list[Timer]:
        """The steps still to come (of a user), earliest first. What waits for an event of its own has no timer."""
        found = []
        for _, name, data in self._encoded_rows():
            if user not in (None, name) or encoded_timer(data) >= NEVER:
                continue
            for runs in decode(data).runs.values():
                for run in runs:
                    if not run.ends and run.timer_at < NEVER:
                        found.append(Timer(run.timer_at, name, run.rule, run.key, run.step + 1))
        return sorted(found)

    @property
    def triggers(self) -> list[Trigger]:
        """All triggers, in the order of their commits."""
        return [
            msgspec.json.decode(output.value or b"", type=Trigger)
            for _, output in self.broker.outputs
            if output.topic.startswith("triggers.") and _RETRACTED not in output.headers
        ]

    @property
    def retractions(self) -> list[Retraction]:
        """All retractions, in the order of their commits."""
        return [
            msgspec.json.decode(output.value or b"", type=Retraction)
            for _, output in self.broker.outputs
            if output.topic.startswith("triggers.") and _RETRACTED in output.headers
        ]

    @property
    def decisions(self) -> list[Decision]:
        """All decision records, in the order of their commits."""
        return [msgspec.json.decode(o.value or b"", type=Decision) for _, o in self.outputs("decisions")]

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """What could not be used, and why."""
        letters = []
        for _, output in self.outputs("dead-letters"):
            said = {name: text.decode() for name, text in output.headers}
            letters.append(
                DeadLetter(
                    said["dlq.reason_code"],
                    said["dlq.reason"],
                    said["dlq.field"],
                    said["dlq.topic"],
                    output.key,
                    output.value,
                )
            )
        return letters

    def outputs(self, topic: str) -> list[tuple[int, Output]]:
        """Everything on a logical output topic: (partition, record)."""
        return [(partition, output) for partition, output in self.broker.outputs if output.topic == topic]

    @property
    def counts(self) -> Counter[tuple[str, ...]]:
        """What was counted, by the labels of the metrics, such as ("events", "OrderPaid")."""
        return self.broker.counts

    # -- inside

    def _encoded_rows(self) -> list[tuple[int, str, bytes]]:
        return [
            (shard, key.decode(), data)
            for shard, rows in enumerate(self.broker.rows)
            for key, data in rows.items()
            if not key.startswith(_NOT_A_USER)
        ]

    def _worker(self, shard: int) -> _Worker:
        worker = self._workers.get(shard)
        if worker is None:
            worker = self._workers[shard] = _Worker(self, shard)
        return worker


class _Worker:
    """Whoever holds a shard: opened from its changelog and its committed offsets, thrown away after a fault."""

    def __init__(self, driver: Driver, shard: int) -> None:
        self.driver = driver
        self.shard = shard
        broker = driver.broker
        self.processor = Processor(driver.plan, shard)
        for key, value in broker.changelog[shard]:
            self.processor.restore(key, value)
        self.processor.restored()
        self.positions = {name: broker.committed[name, shard] for name in (*driver.plan.inputs, TRANSFERS)}
        for name, position in self.positions.items():
            self.processor.feed(name, (), position)

    def turn(self, fetch: int, limit: int) -> tuple[bool, Batch | None]:
        """Whether anything was fetched, and what was taken."""
        driver, processor = self.driver, self.processor
        if driver.plan.clock == "wall":
            ends = {name: driver.broker.end((name, self.shard)) for name in self.positions}
            processor.look(driver.now, ends)
        fetched = False
        for name, position in self.positions.items():
            if name in driver._paused or processor.room(name) <= 0:
                continue
            records, after = driver.broker.read((name, self.shard), position, fetch)
            if after != position:
                processor.feed(name, records, after)
                self.positions[name] = after
                fetched = True
        return fetched, processor.take(limit)


def _instant(at: int | str) -> int:
    return at if isinstance(at, int) else parse_instant(at)
