"""Faust's transport with our own reading: what a partition gave in one go is one message, and Faust moves no offset.

Faust keeps the group, the assignment and the consumer thread. It neither commits, nor seeks, nor counts acks: the
shards do, inside their transactions. Chunks are tagged with the number of the opening they were fetched under, so that
nothing fetched before a seek passes for what comes after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from typing import Any, ClassVar, Final, cast

from aiokafka import TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from agents.clients import ClientBroken, NameTaken
from agents.fetching import Chunk, RawConsumer
from app.logs import describe

log = logging.getLogger(__name__)

_FORBIDDEN: Final = (ClusterAuthorizationFailedError, GroupAuthorizationFailedError, TopicAuthorizationFailedError)

_STOP_SECONDS: Final = 5.0
"""How long leaving the group may take before the connections are cut."""
_CHECK_SECONDS: Final = 1.0


class _NoOffsets(dict[Any, Any]):
    """Faust drops records below its own notion of what was read, which knows nothing of our seeks: it has none."""

    def __getitem__(self, _: Any) -> None:
        return None

    def __setitem__(self, _: Any, __: Any) -> None:
        return None

    def update(self, *_: Any, **__: Any) -> None:
        return None


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Runs the consumer on a loop of its own, so that heartbeats go on whatever the shards are computing."""

    mundane_level = "debug"
    _consumer: RawConsumer | None

    def _create_worker_consumer(self, transport: Any) -> RawConsumer:
        self._assignor = self.app.assignor  # named: without Faust tables Faust would fall back to round robin
        conf = self.app.conf
        options: Mapping[str, Any] = transport.consumer_options
        return RawConsumer(
            **options,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            partition_assignment_strategy=[self._assignor],
            isolation_level="read_committed",
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
        )

    async def on_thread_stop(self) -> None:
        """Leave the group if that is quick; else just cut the connections."""
        await super(driver.AIOKafkaConsumerThread, self).on_thread_stop()
        if self._consumer is not None:
            await self._consumer.abandon(_STOP_SECONDS)

    def close(self) -> None:
        """Called when a rebalance meets a worker that stops; stopping closes the consumer in any case."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's watch over its own commits and streams; neither exists here."""

    async def take(self, patience: float) -> list[Chunk]:
        """Chunks of all opened partitions that have some, within `patience` seconds.

        Raises KafkaError when the group cannot go on.
        """
        chunks: list[Chunk] = await self._inside(self._take(patience))
        return chunks

    async def _take(self, patience: float) -> list[Chunk]:
        try:
            self._check()
            chunks: list[Chunk] = await self._ensure_consumer().fetcher.take(patience)
            return chunks
        except (ClientBroken, *_FORBIDDEN):
            raise
        except KafkaError as exc:
            log.warning("The consumer group had an error and goes on: %s", describe(exc))
            await asyncio.sleep(0.5)
            return []

    def _check(self) -> None:
        consumer = self._ensure_consumer()
        consumer.require_alive()
        coordinator = consumer._coordinator
        taken: NameTaken | None = getattr(coordinator, "taken", None)
        if taken is not None:
            raise taken
        coordinator.check_errors()

    async def check(self) -> None:
        """Raises what the group cannot go on after: ClientBroken, NameTaken, a missing permission. Other errors are
        logged; aiokafka's coordination rests until somebody has heard of them."""
        await self._inside(self._checked())

    async def _checked(self) -> None:
        try:
            self._check()
        except (ClientBroken, *_FORBIDDEN):
            raise
        except KafkaError as exc:
            log.warning("The consumer group had an error and goes on: %s", describe(exc))

    async def open(
        self, positions: Mapping[TopicPartition, int], seek: int, allowed: Mapping[TopicPartition, int]
    ) -> None:
        """Read from these offsets on, under this opening's number. Raises IllegalStateError when one is not ours."""
        await self._inside(self._call("open", positions, seek, allowed))

    async def shut(self, tps: Iterable[TopicPartition]) -> None:
        """Stop reading these partitions."""
        await self._inside(self._call("shut", list(tps)))

    async def _call(self, name: str, *args: Any) -> None:
        getattr(self._ensure_consumer().fetcher, name)(*args)

    def grant(self, tp: TopicPartition, seek: int, allowed: int) -> None:
        """Let a partition give on, up to `allowed` records since its opening. Returns at once."""
        if self._consumer is not None and not self.thread_loop.is_closed():
            self.thread_loop.call_soon_threadsafe(self._consumer.fetcher.grant, tp, seek, allowed)

    def marks(self, tp: TopicPartition) -> tuple[int, int] | None:
        """The last stable offset and the end of a partition, as its last fetch saw them; None before the first."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription and subscription.assignment
        state = assignment and assignment.state_value(tp)
        if not state or state.lso is None or state.highwater is None:
            return None
        return state.lso, state.highwater

    def handed(self, tp: TopicPartition) -> tuple[int, int] | None:
        """The opening under which a partition is read, and up to where it was handed on; None when it is not open."""
        fetcher = self._ensure_consumer().fetcher
        flow, subscription = fetcher.flows.get(tp), fetcher._subscriptions.subscription
        assignment = subscription and subscription.assignment
        state = assignment and assignment.state_value(tp)
        if flow is None or not state or not state.has_valid_position:
            return None
        return flow.seek, state.position

    async def _inside(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run in the consumer's thread. Not through Faust's queue: its two workers may both be waiting for records."""
        if self.thread_loop.is_closed():
            coroutine.close()
            raise KafkaError("the consumer has stopped")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.thread_loop))


class Consumer(driver.Consumer):
    """Hands chunks to the agents, and leaves offsets alone."""

    mundane_level = "debug"
    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NoOffsets()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def thread(self) -> ConsumerThread:
        """Where the fetching happens."""
        return self._thread

    @Service.task
    async def _check_thread(self) -> None:
        """While a rebalance stops the flow nobody fetches, so nobody would hear what goes wrong."""
        while not self.should_stop:
            await self.sleep(_CHECK_SECONDS)
            if not self.should_stop:
                await self._thread.check()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109  # Faust's
        """One message for each chunk."""
        if not self.flow_active:
            await self.wait(cast(Any, self.can_resume_flow))
        if self.should_stop:
            return
        for chunk in await self._thread.take(timeout):
            # Flow stops for a rebalance, after which every shard seeks again: what is left out here is fetched anew.
            if not self.flow_active:
                return
            tp = TP(*chunk.tp)
            value = cast(Any, chunk)
            # Faust's streams skip what came under another generation. Ours may have waited through a rebalance, and
            # hold what was fetched after it; whether it is too old is for its seek number to say.
            generation = self.app.consumer_generation_id
            yield (
                tp,
                ConsumerMessage(
                    *tp, chunk.position - 1, 0.0, 0, [], None, value, None, tp=tp, generation_id=generation
                ),
            )

    def track_message(self, message: Any) -> None:
        """Nothing to keep: a chunk is done with when its shard's transaction is."""

    def ack(self, message: Any) -> bool:
        """Offsets are committed inside the shards' transactions."""
        return True

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Offsets are committed inside the shards' transactions."""
        return False

    async def perform_seek(self) -> None:
        """Every shard seeks by itself, once it is open."""

    async def wait_empty(self) -> None:
        """Wait until every shard stands between two transactions."""
        await cast(Any, self.app.tables).suspend()

    async def on_stop(self) -> None:
        """The shards were closed before; there is nothing to commit."""
        cast(Any, self.transport)._topic_waiters.clear()


class Transport(driver.Transport):
    """Faust's aiokafka transport with our Consumer. `consumer_options`: aiokafka's connection arguments."""

    Consumer: ClassVar[type[Consumer]] = Consumer
    consumer_options: Mapping[str, Any] = {}
