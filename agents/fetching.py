"""Fetching as the shards need it: raw records, nothing before it was asked for, every partition on its own credit.

aiokafka has one budget for all partitions, drained in order, and positions partitions by itself. Here a partition is
silent until it is opened at an offset, then gives at most what its reader has room for, and says where it stands even
when it passed nothing but transaction markers. An offset out of range is an error that reaches the reader: no jump.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CorruptRecordException

from agents.clients import named, require_alive, steady
from app.processor import Record

LONG_WAIT_MS: Final = 250
"""How long the broker may hold a fetch for which it has nothing."""
SHORT_WAIT_MS: Final = 50
"""The same while some partition's records still wait for room: aiokafka has one fetch a broker in flight, so a long one
for the idle partitions would keep the busy one waiting once its room comes back."""


class Chunk(NamedTuple):
    """What one partition gave in one go: `records` from `start` on, and `position`, the offset to read next."""

    tp: TopicPartition
    seek: int
    """The number of the opening it was fetched under; a reader that has opened anew drops older ones."""
    start: int
    records: list[Record]
    position: int
    error: Exception | None = None


class Flow:
    """How much of one opened partition may still be handed out, in records counted since the opening."""

    __slots__ = ("allowed", "delivered", "seek")

    def __init__(self, seek: int, allowed: int) -> None:
        self.seek = seek
        self.allowed = allowed
        self.delivered = 0


def unpack(found: PartitionRecords, limit: int) -> list[Record]:
    """Records of `found` up to `limit`, whole batches only (so the last may exceed it); moves its next offset on.

    The same steps as aiokafka's own (checksum, aborted transactions, control batches), without an object per record.
    """
    records: list[Record] = []
    pages = found._records
    make = Record._make
    while len(records) < limit and pages.has_next():
        page = pages.next_batch()
        if found._check_crcs and not page.validate_crc():
            raise CorruptRecordException(f"the checksum of a batch in {found._tp} is wrong")
        if found._isolation_level == READ_COMMITTED and page.producer_id is not None:
            found._consume_aborted_up_to(page.base_offset)
            if page.is_control_batch and found._contains_abort_marker(page):
                found._aborted_producers.discard(page.producer_id)
            if page.is_transactional and page.producer_id in found._aborted_producers:
                found.next_fetch_offset = page.next_offset
                continue
        if not page.is_control_batch:
            rows = [make((r.offset, r.timestamp, r.key, r.value)) for r in page]
            if rows and rows[0].offset < found.next_fetch_offset:  # the fetch began in the middle of a batch
                rows = [row for row in rows if row.offset >= found.next_fetch_offset]
            records += rows
        found.next_fetch_offset = page.next_offset
    return records


class SilentSubscription(SubscriptionState):
    """A subscription whose partitions start paused, so that nothing is fetched before a reader has opened them."""

    def assign_from_subscribed(self, assignment: set[TopicPartition]) -> None:
        super().assign_from_subscribed(assignment)
        current = self.subscription.assignment
        for tp in current.tps:
            state = current.state_value(tp)
            state.pause()
            state.seek(0)  # any position: without one aiokafka would look for the committed offset by itself


class FairFetcher(Fetcher):
    """aiokafka's fetcher with a credit for each partition instead of one budget for all."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.flows: dict[TopicPartition, Flow] = {}
        super().__init__(*args, **kwargs)

    def _get_actions_per_node(self, assignment: Any) -> Any:
        self._fetch_max_wait_ms = SHORT_WAIT_MS if self._records else LONG_WAIT_MS
        return super()._get_actions_per_node(assignment)

    def poke(self) -> None:
        """Wake a `take` that waits: some partition has new credit."""
        for waiter in self._fetch_waiters:
            self._notify(waiter)

    async def take(self, patience: float) -> list[Chunk]:
        """One chunk for each partition that has something and credit; empty after `patience` seconds without any."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        with self._subscriptions.fetch_context():
            while not self._closed:
                chunks = [] if self._subscriptions.reassignment_in_progress else self._drain()
                left = until - loop.time()
                if chunks or left <= 0:
                    return chunks
                waiter = self._create_fetch_waiter()
                await asyncio.wait([waiter], timeout=left)
                if waiter.done():
                    waiter.result()
                else:
                    waiter.cancel()
        return []

    def _drain(self) -> list[Chunk]:
        chunks = []
        for tp, flow in list(self.flows.items()):
            found = self._records.get(tp)
            if found is None:
                continue
            if not self._subscriptions.is_assigned(tp):
                self.shut([tp])
            elif not isinstance(found, FetchResult):
                chunks.append(self._failed(tp, flow, found._error))
            elif not found.check_assignment(tp):
                self._drop(tp)
            elif flow.delivered < flow.allowed:
                chunks.append(self._next_chunk(tp, flow, found))
        return chunks

    def _next_chunk(self, tp: TopicPartition, flow: Flow, found: FetchResult) -> Chunk:
        pages: PartitionRecords = found._partition_records
        start = pages.next_fetch_offset
        try:
            records = unpack(pages, flow.allowed - flow.delivered)
        except Exception as exc:
            return self._failed(tp, flow, exc)
        found._update_position()
        flow.delivered += len(records)
        if not pages._records.has_next():
            self._drop(tp)
        return Chunk(tp, flow.seek, start, records, pages.next_fetch_offset)

    def _failed(self, tp: TopicPartition, flow: Flow, error: Exception) -> Chunk:
        """The partition is closed: its reader must open it again, if it can go on at all."""
        state = self._subscriptions.subscription.assignment.state_value(tp)
        state.pause()
        self.flows.pop(tp, None)
        self._drop(tp)
        return Chunk(tp, flow.seek, state.position, [], state.position, error)

    def _drop(self, tp: TopicPartition) -> None:
        self._records.pop(tp, None)
        self._notify(self._wait_consume_future)

    def open(self, positions: Mapping[TopicPartition, int], seek: int, allowed: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets on. Raises IllegalStateError when one is not assigned (any more)."""
        for tp, position in positions.items():
            self.seek_to(tp, position)
            self.flows[tp] = Flow(seek, allowed[tp])
            self._subscriptions.resume(tp)

    def shut(self, tps: Iterable[TopicPartition]) -> None:
        """Stop reading these partitions. Those no longer assigned are forgotten."""
        for tp in tps:
            self.flows.pop(tp, None)
            self._records.pop(tp, None)
            if self._subscriptions.is_assigned(tp):
                self._subscriptions.pause(tp)
        self._notify(self._wait_consume_future)

    def grant(self, tp: TopicPartition, seek: int, allowed: int) -> None:
        """Hand out records of this opening until `allowed` in all were given."""
        flow = self.flows.get(tp)
        if flow is not None and flow.seek == seek and allowed > flow.allowed:
            blocked = flow.delivered >= flow.allowed
            flow.allowed = allowed
            if blocked and tp in self._records:
                self.poke()


class RawConsumer(AIOKafkaConsumer):
    """An aiokafka consumer that reads through a FairFetcher (`fetcher`); subscribe or assign after `start`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(enable_auto_commit=False, auto_offset_reset="none", **kwargs)
        self._subscription = SilentSubscription(loop=self._loop)
        steady(self._client)

    async def start(self) -> None:
        await super().start()
        named(self._coordinator)
        # aiokafka names its Fetcher in the middle of start(); nothing has been subscribed yet, so it can be exchanged.
        await self._fetcher.close()
        self._fetcher: Any = FairFetcher(
            self._client,
            self._subscription,
            fetch_min_bytes=self._fetch_min_bytes,
            fetch_max_bytes=self._fetch_max_bytes,
            max_partition_fetch_bytes=self._max_partition_fetch_bytes,
            check_crcs=self._check_crcs,
            fetcher_timeout=self._consumer_timeout,
            retry_backoff_ms=self._retry_backoff_ms,
            auto_offset_reset="none",
            isolation_level=self._isolation_level,
            client_rack=self._client_rack,
        )

    @property
    def fetcher(self) -> FairFetcher:
        """The fetcher, once started."""
        found = self._fetcher
        assert isinstance(found, FairFetcher)
        return found

    def require_alive(self) -> None:
        """Raises ClientBroken when fetching, metadata or the group's coordination have died: nothing restarts them."""
        require_alive(
            fetching=self._fetcher._fetch_task,
            metadata=self._client._sync_task,
            coordination=getattr(self._coordinator, "_coordination_task", None),
        )

    async def committed_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's committed offsets; partitions without one are left out. One request for all."""
        found = await self._coordinator.fetch_committed_offsets(list(tps))
        return {tp: meta.offset for tp, meta in found.items()}

    async def abandon(self, grace: float) -> None:
        """Stop, in at most about `grace` seconds: with the brokers gone aiokafka's own stop can wait for minutes."""
        stopping = asyncio.ensure_future(self.stop())
        await asyncio.wait([stopping], timeout=grace)
        if stopping.done() and not stopping.cancelled() and stopping.exception() is None:
            return
        for task in (
            stopping,
            getattr(self._coordinator, "_coordination_task", None),
            getattr(self._coordinator, "_heartbeat_task", None),
            getattr(self._fetcher, "_fetch_task", None),
            getattr(self._client, "_sync_task", None),
        ):
            if task is not None:
                task.cancel()
        for conn in list(self._client._conns.values()):
            conn.close()
