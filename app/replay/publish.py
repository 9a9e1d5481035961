"""Publishes a stream of events in time order: keyed, each user in the partition where every producer would put it.

Once per event-day (in UTC), and at the end, every partition of every input is told with ClockAdvanced that nothing
older follows; without that a reader under `CLOCK=events` would wait for ever at the end of a topic. A record's own
timestamp is the present, not the event's time: Kafka deletes records by it, and would delete history as it arrives.
Workers refuse what lies in the future of its record. Such events are published as they are, for that is what their file
says; a ClockAdvanced never lies there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from app import clock
from app.replay.outgoing import EVERY_INPUT, Outgoing
from app.replay.partition import partitioner
from app.settings import Settings
from app.topics import check_inputs, physical
from schemas.instant import DAY, EARLIEST, format_instant

_TURN: Final = 4_000
"""Messages handed over at a time. While one turn is on its way, the next is made."""
_BREATH: Final = 250
"""Messages made between two looks at the network."""
_BATCH_BYTES: Final = 256 * 1024
_PATIENCE_S: Final = 60.0
"""How long a turn may take before we say that the broker has gone."""


class PublishProblem(Exception):
    """Publishing could not begin or go on. The text is a sentence that says why and what to do."""


@dataclass
class Progress:
    """How far publishing has come. `reached` is the event time so far, microseconds since 1970 (None: nothing yet)."""

    events: int = 0
    bytes: int = 0
    reached: int | None = None
    seconds: float = 0.0
    left_out: Counter[str] = field(default_factory=Counter)
    """Events for inputs that this deployment does not have, by input."""
    ahead: int = 0
    """Events further ahead of the present than the workers allow: they will be refused."""

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds if self.seconds else 0.0


async def publish(
    events: Iterable[Outgoing],
    settings: Settings,
    *,
    until: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Publish `events`, which must be in time order, and wait until the brokers have all of them (acks=all).

    Afterwards time stands at `until` (microseconds since 1970), or a millisecond after the last event when that is
    later or `until` is None; what lies in the future does not count. `progress` is called after each few thousand
    events.
    Raises TopicProblem when the brokers cannot be reached, or an input is missing or has another number of partitions:
    then nothing has been published. Raises PublishProblem when the brokers stop answering.
    """
    await check_inputs(settings)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        enable_idempotence=True,
        acks="all",
        compression_type="zstd",  # seven times as fast as aiokafka's lz4, which compresses at its highest level
        max_batch_size=_BATCH_BYTES,
        **settings.kafka_security,
    )
    try:
        await producer.start()
        return await _Publisher(producer, settings, progress).run(events, until)
    except (KafkaError, TimeoutError) as problem:
        raise PublishProblem(
            f"Kafka at {settings.kafka_bootstrap} has stopped answering ({type(problem).__name__}). See that it runs, "
            "then start the replay again: what has arrived already is recognised by its event ids."
        ) from problem
    finally:
        await _stop(producer)


async def _stop(producer: AIOKafkaProducer) -> None:
    """Close the producer. It waits for what is unsent, without end when the brokers are gone: then leave it."""
    try:
        await asyncio.wait_for(producer.stop(), 5)
    except (TimeoutError, KafkaError):
        with contextlib.suppress(Exception):
            await producer.client.close()


class _Publisher:
    """One run: gathers messages in turns of batches, at most one turn on its way while the next is gathered."""

    def __init__(self, producer: AIOKafkaProducer, settings: Settings, report: Callable[[Progress], None]) -> None:
        self._producer = producer
        self._settings = settings
        self._report = report
        self._partition = partitioner(settings.partitioner, settings.partitions)
        self._known = frozenset(settings.inputs)
        self._turn: dict[tuple[str, int], list[tuple[str, Any]]] = {}
        self._pending = 0
        self._on_its_way: asyncio.Task[None] | None = None
        self._timestamp_ms = clock.now() // 1_000
        self._started = clock.monotonic()
        self._progress = Progress()
        self._last = self._tomorrow = 0
        """The last event that is not ahead of the present, and when the day after it begins."""

    async def run(self, events: Iterable[Outgoing], until: int | None) -> Progress:
        progress, last = self._progress, 0
        try:
            for event in events:
                if event.occurred_at < last:
                    raise ValueError("The events to publish are not in time order.")
                last = event.occurred_at
                self._put(event)
                if self._pending >= _TURN:
                    await self._hand_over()
                elif self._pending % _BREATH == 0:
                    await asyncio.sleep(0)
            ends = [at for at in (self._last + 1_000, until or 0) if at > EARLIEST and not self._is_ahead(at)]
            if ends:
                self._advance_clock(max(ends))
            await self._hand_over()
            await self._arrived()
            progress.seconds = clock.monotonic() - self._started
            self._report(progress)
        finally:
            if self._on_its_way:
                self._on_its_way.cancel()
        return progress

    def _put(self, event: Outgoing) -> None:
        """An event, after the clock of its day."""
        progress, at = self._progress, event.occurred_at
        ahead = self._is_ahead(at)
        if not ahead:
            self._pass(at)
        if event.input == EVERY_INPUT:
            self._everywhere(event.value)
        elif event.input in self._known:
            self._add(event.input, self._partition(event.key or b""), event.key, event.value)
            progress.events += 1
            progress.bytes += len(event.value or b"")
            progress.reached = at
            progress.ahead += ahead
        else:
            progress.left_out[event.input] += 1

    def _pass(self, at: int) -> None:
        self._last = at
        if at >= self._tomorrow:
            today = at // DAY * DAY
            if self._tomorrow:
                self._advance_clock(today)
            self._tomorrow = today + DAY

    def _is_ahead(self, at: int) -> bool:
        """Whether an instant is further ahead of the records of this turn than the workers allow."""
        return at > self._timestamp_ms * 1_000 + self._settings.clock_skew

    def _advance_clock(self, to: int) -> None:
        self._everywhere(orjson.dumps({"type": "ClockAdvanced", "occurred_at": format_instant(to, UTC)}))

    def _everywhere(self, value: bytes | None) -> None:
        for name in self._settings.inputs:
            for partition in range(self._settings.partitions):
                self._add(name, partition, None, value)

    def _add(self, name: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        # Under CLOCK=wall a worker applies what it finds: what a user did first must be there first, in whatever topic.
        # Under CLOCK=events it merges the topics by time, and they may be sent side by side.
        batches = self._turn.setdefault(("" if self._settings.clock == "wall" else name, partition), [])
        message = {"key": key, "value": value, "timestamp": self._timestamp_ms}
        if not batches or batches[-1][0] != name or batches[-1][1].append(**message) is None:
            batches.append((name, self._producer.create_batch()))  # an empty batch takes any one message
            batches[-1][1].append(**message)
        self._pending += 1

    async def _hand_over(self) -> None:
        """Send this turn on its way once the one before has arrived, so that each partition keeps its order."""
        await self._arrived()
        self._timestamp_ms = clock.now() // 1_000
        self._on_its_way = asyncio.create_task(self._send(self._turn))
        self._turn, self._pending = {}, 0
        self._progress.seconds = clock.monotonic() - self._started
        self._report(self._progress)
        await asyncio.sleep(0)

    async def _arrived(self) -> None:
        if self._on_its_way:
            await asyncio.wait_for(self._on_its_way, _PATIENCE_S)
            self._on_its_way = None

    async def _send(self, turn: dict[tuple[str, int], list[tuple[str, Any]]]) -> None:
        async def one(partition: int, batches: list[tuple[str, Any]]) -> None:
            for name, batch in batches:
                await (await self._producer.send_batch(batch, physical(self._settings, name), partition=partition))

        await asyncio.gather(*(one(partition, batches) for (_, partition), batches in turn.items()))
