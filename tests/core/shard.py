"""A shard without Kafka for tests: records with offsets go in, batches come out, and everything of them is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import orjson

from app.backtest.driver import IN_MEMORY
from app.core.rules import Catalogue
from app.processor import Batch, Output, Plan, Processor, Record
from schemas.codec import DecodeOptions, encode_event
from schemas.events import ClockAdvanced, Event
from tests.core.shop import at, catalogue, rule_text

INPUTS = ("orders", "logins", "coupons")
LATER_MS = at("2030-01-01") // 1000

#: Says of each event at once that it came: what came first is then seen in the order of the outputs.
ECHO = catalogue(
    rule_text(
        rule="echo",
        family="order",
        enter="[{on: OrderPaid}, {on: UserLoggedIn}, {on: CouponIssued}]",
        ends=None,
        steps="[{at_once: true}]",
        send="{action: grant, expires_after: 365d}",
    )
)


def plan(catalogue: Catalogue = ECHO, **changes: Any) -> Plan:
    settings = {
        "inputs": INPUTS,
        "partitions": 1,
        "partitioner": "murmur2",
        "clock": "events",
        "lateness": 0,
        "decode": DecodeOptions(),
        "catalogue": catalogue,
        "app_id": "shop",
        "erasure": IN_MEMORY,
        "start": "",
    }
    return Plan(**(settings | changes))


class Shard:
    """One shard with its log, its changelog and its committed offsets."""

    def __init__(self, catalogue: Catalogue = ECHO, shard: int = 0, **changes: Any) -> None:
        self.plan = plan(catalogue, **changes)
        self.shard = shard
        self.log: dict[str, list[Record]] = {name: [] for name in self.plan.inputs}
        self.fetched = dict.fromkeys(self.plan.inputs, 0)
        self.committed = dict.fromkeys(self.plan.inputs, 0)
        self.changelog: dict[bytes, bytes | None] = {}
        self.outputs: list[Output] = []
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.batches: list[Batch] = []
        self.processor = self._open()

    def _open(self) -> Processor:
        processor = Processor(self.plan, self.shard)
        for key, value in self.changelog.items():
            processor.restore(key, value)
        processor.restored()
        self.fetched = dict(self.committed)
        for name in self.plan.inputs:
            processor.feed(name, (), self.committed[name])
        return processor

    def reopen(self, **changes: Any) -> Shard:
        """Another worker takes over: nothing is left but the changelog and the committed offsets."""
        self.plan = self.plan._replace(**changes)
        self.processor = self._open()
        return self

    # -- what goes in

    def write(self, *messages: Event | tuple[str, Any], timestamp_ms: int = LATER_MS) -> Shard:
        """Into the log: events on their topics, or (input, clock / bytes / (key, value))."""
        for message in messages:
            if isinstance(message, Event):
                name, key, value = message.TOPIC, message.user_id.encode(), encode_event(message)
            else:
                name, said = message
                key, value = said if isinstance(said, tuple) else (None, said)
                if isinstance(value, int):
                    value = encode_event(ClockAdvanced(occurred_at=value))
            self.log[name].append(Record(len(self.log[name]), timestamp_ms, key, value))
        return self

    def clock(self, when: str | int, *inputs: str) -> Shard:
        """These inputs (default: all) say that they have come so far."""
        instant = when if isinstance(when, int) else at(when)
        return self.write(*[(name, instant) for name in inputs or self.plan.inputs])

    def fetch(self, *inputs: str, most: int = 1_000_000) -> Shard:
        """Hands at most so many records of each of these inputs (default: all) to the processor."""
        for name in inputs or self.plan.inputs:
            records = self.log[name][self.fetched[name] : self.fetched[name] + most]
            self.fetched[name] += len(records)
            self.processor.feed(name, records, self.fetched[name])
        return self

    def look(self, when: str | int) -> Shard:
        """The wall clock, then the ends of the inputs."""
        instant = when if isinstance(when, int) else at(when)
        self.processor.look(instant, {name: len(records) for name, records in self.log.items()})
        return self

    # -- what comes out

    def take(self, limit: int = 5_000) -> Batch | None:
        """One batch, committed."""
        batch = self.processor.take(limit)
        if batch is not None:
            self.batches.append(batch)
            self.changelog.update(batch.rows)
            self.committed.update(batch.offsets)
            self.outputs += batch.outputs
            self.counts.update(batch.counts)
        return batch

    def run(self, *messages: Any, limit: int = 5_000, fetch: int = 1_000_000) -> Shard:
        """Writes, fetches and takes until there is nothing left."""
        self.write(*messages)
        while True:
            before = dict(self.fetched)
            self.fetch(most=fetch)
            if self.take(limit) is None and self.fetched == before:
                return self

    def sent(self, part: Callable[[dict[str, Any]], Any] | None = None) -> list[Any]:
        """The triggers in order: the ids of the events that caused them, or a part of each."""
        read = part or (lambda trigger: trigger["evidence"][0]["event_id"])
        return [read(orjson.loads(o.value)) for o in self.outputs if o.topic.startswith("triggers.")]

    def decisions(self) -> list[dict[str, Any]]:
        return [orjson.loads(output.value) for output in self.outputs if output.topic == "decisions"]

    def letters(self) -> list[dict[str, str]]:
        """The headers of the dead letters."""
        return [
            {name: value.decode() for name, value in output.headers}
            for output in self.outputs
            if output.topic == "dead-letters"
        ]

    def state(self) -> dict[bytes, Any]:
        """Rows as they are in the changelog, without the shard's own record."""
        return {key: value for key, value in self.changelog.items() if not key.startswith(b"\0")}


def named(event: Event, name: str, user: str | None = None) -> Any:
    """The event with an id of its own choosing."""
    return msgspec.structs.replace(event, event_id=name, user_id=user or event.user_id)
