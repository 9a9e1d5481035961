"""Tells the shards the time: the wall clock is read first, then the ends of all inputs are asked, all shards at once.

What was in Kafka before the look is then known to be applied before anything that is due by it. On the way it measures
lag, and sees upstream transactions that hang and so hold the ends back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agents.fetching import RawConsumer
from agents.shard import Shard
from agents.wiring import Wiring
from app import clock
from app.logs import describe
from app.metrics import Metrics

log = logging.getLogger(__name__)

_ASK_SECONDS: Final = 10.0
_SURVEY_SECONDS: Final = 1.0
_REMIND_SECONDS: Final = 60.0


class Consumer(Protocol):
    """What is asked of the consumer."""

    def marks(self, tp: TopicPartition) -> tuple[int, int] | None: ...
    def handed(self, tp: TopicPartition) -> tuple[int, int] | None: ...


class Watch:
    """One for each worker. `shards` gives the shards of the moment."""

    def __init__(
        self,
        wiring: Wiring,
        metrics: Metrics,
        shards: Callable[[], Iterable[Shard]],
        consumer: Callable[[], Consumer],
    ) -> None:
        self._wiring, self._metrics, self._shards, self._consumer = wiring, metrics, shards, consumer
        self._surveyed = 0.0
        self._complained = -_REMIND_SECONDS
        self._stuck: dict[TopicPartition, tuple[int, float]] = {}
        self._reminded: dict[TopicPartition, float] = {}
        self._late: dict[TopicPartition, tuple[int, float]] = {}
        self._asked: float | None = None
        """When the brokers were first asked without an answer since; None when they have answered."""

    def silent_seconds(self) -> float:
        """For how long the brokers have owed an answer."""
        return 0.0 if self._asked is None else clock.monotonic() - self._asked

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            consumer = RawConsumer(**self._wiring.client, isolation_level="read_committed")
            try:
                await consumer.start()
                while True:
                    await self._round(consumer)
                    self._complained = -_REMIND_SECONDS
                    await asyncio.sleep(self._wiring.look_idle)
            except Exception as exc:
                # Without looks nothing that is due fires; that is safe, and no reason to end the worker.
                expected = isinstance(exc, (KafkaError, OSError, TimeoutError))
                if not expected or clock.monotonic() - self._complained >= _REMIND_SECONDS:
                    self._complained = clock.monotonic()
                    log.warning(
                        "The ends of the inputs cannot be asked now; trying again: %s",
                        describe(exc),
                        exc_info=None if expected else exc,
                    )
            finally:
                await consumer.abandon(grace=1.0)
            await asyncio.sleep(1.0)

    async def _round(self, consumer: RawConsumer) -> None:
        now = clock.monotonic()
        survey = now - self._surveyed >= _SURVEY_SECONDS
        wall = self._wiring.wall
        asking = [shard for shard in self._shards() if shard.processor and (survey or (wall and shard.wants_look(now)))]
        if not asking:
            if survey:
                self._asked = None  # no shard is open, so nobody asks
            return
        if self._asked is None:
            self._asked = now
        instant = clock.now()
        async with asyncio.timeout(_ASK_SECONDS):
            tps = [tp for shard in asking for tp in self._wiring.partitions(shard.number).values()]
            ends: Mapping[TopicPartition, int] = await consumer.end_offsets(tps)
        self._asked = None
        for shard in asking:
            named = {name: ends[tp] for name, tp in self._wiring.partitions(shard.number).items()}
            if wall and shard.processor:
                shard.look(instant, named)
            if survey:
                self._measure(shard, named)
        if survey:
            self._surveyed = now

    def _measure(self, shard: Shard, ends: Mapping[str, int]) -> None:
        processor, metrics, label = shard.processor, self._metrics, str(shard.number)
        if processor is None:
            return
        metrics.merged_time.labels(label).set(processor.merged / 1_000_000)
        metrics.timers_pending.labels(label).set(processor.pending_timers)
        metrics.rows_held.labels(label).set(processor.rows_held)
        for name, tp in self._wiring.partitions(shard.number).items():
            position = shard.position(name)
            if position is None:
                continue
            metrics.consumer_lag.labels(label, name).set(max(0, ends[name] - position))
            metrics.hanging_transaction.labels(label, name).set(self._hanging(name, tp, position))
            self._expect(shard, tp, position)

    def _expect(self, shard: Shard, tp: TopicPartition, position: int) -> None:
        """See to it that what was handed on arrives. The next chunk would show a gap, but there may be none."""
        handed = self._consumer().handed(tp)
        now = clock.monotonic()
        if handed is None or handed[0] != shard.seek or handed[1] <= position:
            self._late.pop(tp, None)
            return
        stood, since = self._late.get(tp, (position, now))
        since = since if stood == position else now
        self._late[tp] = position, since
        if now - since >= self._wiring.lost_after:
            del self._late[tp]
            shard.suspect(f"{tp.topic}[{tp.partition}] was read up to {handed[1]}, but {position} never came")

    def _hanging(self, name: str, tp: TopicPartition, position: int) -> float:
        """Seconds since when an open transaction has kept us from `tp`'s newest records, once that is too long."""
        marks = self._consumer().marks(tp)
        now = clock.monotonic()
        if marks is None or marks[0] >= marks[1] or position < marks[0]:
            self._stuck.pop(tp, None)
            return 0.0
        stable, since = self._stuck.get(tp, (-1, now))
        if stable != marks[0]:
            since = now
        self._stuck[tp] = marks[0], since
        if now - since < self._wiring.hanging_after:
            return 0.0
        if now - self._reminded.get(tp, -_REMIND_SECONDS) >= _REMIND_SECONDS:
            self._reminded[tp] = now
            log.warning(
                "An upstream transaction on %s[%d] has been open for %.0f s: %d records behind it cannot be read. Find "
                "its producer, or end it with kafka-transactions.sh --abort.",
                tp.topic,
                tp.partition,
                now - since,
                marks[1] - marks[0],
                extra={"input": name, "partition": tp.partition, "seconds": round(now - since)},
            )
        return now - since
