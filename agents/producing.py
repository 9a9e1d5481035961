"""One shard's transactional producer: a batch is written whole, with its input offsets, or not at all.

Starting it fences whoever held the same transactional id before and ends what they had begun. After any error it is
thrown away (`abandon`), never repaired: a failed send leaves a hole in its sequence, and after fencing aiokafka can
neither commit nor abort.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import CoordinationType
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    KafkaError,
    ProducerFenced,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.sender import AddPartitionsToTxnHandler, Sender

from agents.clients import steady

Line = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
"""Key, value and headers of one record to write."""

MAX_BATCH_BYTES: Final = 900_000
"""Of one Kafka record batch; brokers refuse more than 1,048,588 (message.max.bytes) unless told otherwise."""

_QUICK_RETRY_SECONDS: Final = 0.005
_SLOW_RETRY_SECONDS: Final = 0.1
_QUICK_RETRIES: Final = 20


class Fenced(KafkaError):
    """Another producer has the same transactional id: this worker no longer owns the shard, or did not for a while."""

    safe_to_log = True


class CommitTimedOut(KafkaError):
    """The transaction did not end in time; whether it was committed is for the next opening to find out."""

    safe_to_log = True


class _QuickAdd(AddPartitionsToTxnHandler):
    """aiokafka waits 20 ms when the last transaction's markers are still being written; they take one or two."""

    def handle_response(self, resp: Any) -> float | None:
        backoff = super().handle_response(resp)
        return None if backoff is None else min(backoff, self._default_backoff)


class _PatientSender(Sender):
    """Retries fast, because a new broker often says "retry" as a transaction starts; slowly once that doesn't help.

    Remembers its tasks, so that they can be cancelled: aiokafka waits for them, and they wait for a broker.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.retries = 0
        self.tasks: set[asyncio.Task[Any]] = set()
        super().__init__(*args, **kwargs)

    @property
    def _retry_backoff(self) -> float:
        # Every request's handler asks once, so a batch's own requests count too; each commit starts anew.
        self.retries += 1
        return _QUICK_RETRY_SECONDS if self.retries <= _QUICK_RETRIES else _SLOW_RETRY_SECONDS

    @_retry_backoff.setter
    def _retry_backoff(self, seconds: float) -> None:
        """aiokafka's constructor sets one value; here it depends."""

    async def _do_add_partitions_to_txn(self, tps: Any) -> bool:
        node_id = await self._find_coordinator(CoordinationType.TRANSACTION, self._txn_manager.transactional_id)
        return bool(await _QuickAdd(self, tps).do(node_id))

    def _maybe_do_transactional_request(self) -> asyncio.Task[Any] | None:
        task: asyncio.Task[Any] | None = super()._maybe_do_transactional_request()
        if task is not None:
            self._remember(task)
        return task

    async def _send_produce_req(self, node_id: int, batches: Any) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._remember(task)
        await super()._send_produce_req(node_id, batches)

    def _remember(self, task: asyncio.Task[Any]) -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class ShardProducer:
    """The producer of one shard. `client` are aiokafka's connection arguments."""

    def __init__(self, client: Mapping[str, Any], transactional_id: str, *, transaction_timeout_ms: int) -> None:
        self._producer = AIOKafkaProducer(
            **client,
            transactional_id=transactional_id,
            transaction_timeout_ms=transaction_timeout_ms,
            max_batch_size=MAX_BATCH_BYTES,
            linger_ms=0,
        )
        steady(self._producer.client)
        self._sender = _PatientSender(
            self._producer.client,
            acks=-1,
            txn_manager=self._producer._txn_manager,
            retry_backoff_ms=0,
            message_accumulator=self._producer._message_accumulator,
            request_timeout_ms=self._producer._request_timeout_ms,
        )
        self._producer._sender = self._sender

    async def start(self, topics: Sequence[str], limit: float) -> None:
        """Fence others, and know `topics` beforehand. Raises KafkaError or TimeoutError after `limit` seconds."""
        async with asyncio.timeout(limit):
            await self._producer.start()
            await self._producer.client.set_topics(topics)

    async def commit(
        self,
        lines: Mapping[TopicPartition, Sequence[Line]],
        offsets: Mapping[TopicPartition, int],
        group: str,
        *,
        timestamp_ms: int,
        limit: float,
    ) -> None:
        """Write `lines` (by partition, in order) and the group's `offsets` in one transaction.

        Raises Fenced, CommitTimedOut after `limit` seconds, or another KafkaError; then the producer is of no more use.
        """
        try:
            async with asyncio.timeout(limit):
                await self._commit(lines, offsets, group, timestamp_ms)
        except TimeoutError:
            raise CommitTimedOut(f"a transaction did not end within {limit:.0f} s") from None
        except (KafkaError, AssertionError) as exc:
            raise self._explained(exc) from exc

    async def _commit(
        self,
        lines: Mapping[TopicPartition, Sequence[Line]],
        offsets: Mapping[TopicPartition, int],
        group: str,
        timestamp_ms: int,
    ) -> None:
        self._sender.retries = 0
        producer = self._producer
        await producer.begin_transaction()
        producer._txn_manager._transaction_waiter.add_done_callback(_heard)
        waiting: list[asyncio.Future[Any]] = []
        try:
            if offsets:
                waiting.append(asyncio.ensure_future(producer.send_offsets_to_transaction(dict(offsets), group)))
            pages = {tp: self._pages(some, timestamp_ms) for tp, some in lines.items() if some}
            # Every partition's first page before anyone's second: one request then adds all partitions.
            for number in range(max(map(len, pages.values()), default=0)):
                for tp, builders in pages.items():
                    if number < len(builders):
                        sent = await producer.send_batch(builders[number], tp.topic, partition=tp.partition)
                        waiting.append(sent)
            # commit_transaction() succeeds even when a batch failed: every send is awaited first.
            if waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
                for future in done:
                    future.result()
        finally:
            for future in waiting:
                future.add_done_callback(_heard)
                future.cancel()  # none is pending unless another failed
        await producer.commit_transaction()

    def _pages(self, lines: Sequence[Line], timestamp_ms: int) -> list[BatchBuilder]:
        """Record batches of at most MAX_BATCH_BYTES (a record larger than that gets one of its own)."""
        builders: list[BatchBuilder] = []
        append = None
        count = 0
        for key, value, headers in lines:
            # The builder's own append() does a dozen things a record that a shard doesn't need.
            if append is None or append(count, timestamp_ms, key, value, headers) is None:
                if builders:
                    _seal(builders[-1], count)
                builders.append(self._producer.create_batch())
                append = builders[-1]._builder.append
                append(0, timestamp_ms, key, value, headers)
                count = 0
            count += 1
        if builders:
            _seal(builders[-1], count)
        return builders

    def _explained(self, exc: Exception) -> Exception:
        """The error behind `exc`: aiokafka's sender dies of the first one, and later calls only trip over its state."""
        task = self._sender.sender_task
        first = task.exception() if task is not None and task.done() and not task.cancelled() else None
        for found in (exc, first):
            if isinstance(found, (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping, InvalidTxnState)):
                return Fenced(f"another worker has taken this shard over ({type(found).__name__})")
        for found in (first, exc):
            if isinstance(found, KafkaError):
                return cast(Exception, found)
        return cast(Exception, KafkaError(f"the producer is broken: {exc}"))

    async def abandon(self, grace: float) -> None:
        """Close without finishing anything, in at most about `grace` seconds, brokers or no brokers."""
        producer, sender = self._producer, self._sender
        if producer._closed:
            return
        producer._closed = True
        tasks = [task for task in (sender.sender_task, *sender.tasks) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        closing = asyncio.ensure_future(producer.client.close())
        await asyncio.wait([closing, *tasks], timeout=grace)
        for task in (closing, *tasks):
            task.cancel()
            task.add_done_callback(_heard)
        accumulator = producer._message_accumulator
        with contextlib.suppress(Exception):
            accumulator.fail_all(KafkaError("the shard was closed"))
        for batch in (batch for batches in accumulator._batches.values() for batch in batches):
            batch._drain_waiter.add_done_callback(_heard)


def _seal(builder: BatchBuilder, count: int) -> None:
    builder._relative_offset = count
    builder.close()


def _heard(future: asyncio.Future[Any]) -> None:
    """Take note of a result nobody waits for, so that asyncio does not complain about it."""
    if not future.cancelled():
        future.exception()
