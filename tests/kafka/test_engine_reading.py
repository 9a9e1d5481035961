"""How the engine reads: what is fetched, how much of it, and what never reaches a shard."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalStateError, OffsetOutOfRangeError

from agents.fetching import Chunk, RawConsumer
from app.settings import Settings
from app.topics import physical
from tests.kafka.harness import PATIENCE, until

pytestmark = pytest.mark.kafka


async def opened(settings: Settings, positions: dict[TopicPartition, int], allowed: int) -> RawConsumer:
    consumer = RawConsumer(bootstrap_servers=settings.kafka_bootstrap, isolation_level="read_committed")
    await consumer.start()
    consumer.assign(list(positions))
    consumer.fetcher.open(positions, 1, dict.fromkeys(positions, allowed))
    return consumer


async def read(consumer: RawConsumer, until: int, tp: TopicPartition) -> list[Chunk]:
    """Chunks of a partition up to an offset."""
    chunks: list[Chunk] = []
    async with asyncio.timeout(20 * PATIENCE):
        while not chunks or chunks[-1].position < until:
            chunks += [chunk for chunk in await consumer.fetcher.take(1.0) if chunk.tp == tp]
    return chunks


async def test_reading_begins_in_the_middle_of_a_batch_and_chunks_join_without_gap(
    make_settings: Any, produce: Any
) -> None:
    settings = await make_settings(inputs="orders", partitions=1)
    await produce(settings, "orders", [(b"k", b"%d" % n) for n in range(100)], linger_ms=100)
    tp = TopicPartition(physical(settings, "orders"), 0)
    consumer = await opened(settings, {tp: 37}, 1000)
    try:
        chunks = await read(consumer, 100, tp)
    finally:
        await consumer.abandon(1)
    assert [r.value for chunk in chunks for r in chunk.records] == [b"%d" % n for n in range(37, 100)]
    assert [chunk.start for chunk in chunks] == [37, *(chunk.position for chunk in chunks[:-1])]


async def test_aborted_and_open_transactions_are_not_read_and_their_markers_are_passed(
    make_settings: Any, produce: Any
) -> None:
    settings = await make_settings(inputs="orders", partitions=1)
    topic = physical(settings, "orders")
    tp = TopicPartition(topic, 0)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, transactional_id=topic) as upstream:
        for value, commit in ((b"a", True), (b"b", False), (b"c", True), (b"d", False)):
            await upstream.begin_transaction()
            await upstream.send_and_wait(topic, key=b"k", value=value)
            await (upstream.commit_transaction if commit else upstream.abort_transaction)()
        await upstream.begin_transaction()
        await upstream.send_and_wait(topic, key=b"k", value=b"still open")
        consumer = await opened(settings, {tp: 0}, 1000)
        try:
            ends = await consumer.end_offsets([tp])
            chunks = await read(consumer, ends[tp], tp)
            assert await consumer.fetcher.take(0.5) == []
        finally:
            await consumer.abandon(1)
        await upstream.abort_transaction()
    assert [r.value for chunk in chunks for r in chunk.records] == [b"a", b"c"]
    assert chunks[-1].position == ends[tp] == 8


async def test_a_partition_gives_no_more_than_its_reader_has_room_for_and_holds_up_no_other(
    make_settings: Any, produce: Any
) -> None:
    settings = await make_settings(inputs="orders", partitions=2)
    for part in range(20):
        await produce(settings, "orders", [(b"k", b"%d" % n, 0) for n in range(part * 10, part * 10 + 10)])
        await produce(settings, "orders", [(b"k", b"%d" % n, 1) for n in range(part * 10, part * 10 + 10)])
    full, free = (TopicPartition(physical(settings, "orders"), n) for n in (0, 1))
    consumer = await opened(settings, {full: 0, free: 0}, 15)
    try:
        consumer.fetcher.grant(free, 1, 1000)
        assert len(await read(consumer, 200, free)) >= 1
        state = consumer.fetcher.flows[full]
        assert 15 <= state.delivered <= 24  # whole batches of at most ten
        assert await consumer.fetcher.take(0.3) == []
        consumer.fetcher.grant(full, 1, 1000)
        rest = await read(consumer, 200, full)
    finally:
        await consumer.abandon(1)
    assert rest[0].start == state.delivered - sum(len(chunk.records) for chunk in rest)


async def test_an_offset_out_of_range_reaches_the_reader_as_an_error_not_as_a_jump(
    make_settings: Any, produce: Any
) -> None:
    settings = await make_settings(inputs="orders", partitions=1)
    await produce(settings, "orders", [(b"k", b"v")])
    tp = TopicPartition(physical(settings, "orders"), 0)
    consumer = await opened(settings, {tp: 77}, 1000)
    try:
        chunks: list[Chunk] = []
        async with asyncio.timeout(20 * PATIENCE):
            while not chunks:
                chunks = await consumer.fetcher.take(1.0)
    finally:
        await consumer.abandon(1)
    assert isinstance(chunks[0].error, OffsetOutOfRangeError)
    assert chunks[0].position == 77


async def test_nothing_is_read_before_it_is_opened_and_only_what_is_assigned_can_be(
    make_settings: Any, produce: Any
) -> None:
    settings = await make_settings(inputs="orders", partitions=1)
    await produce(settings, "orders", [(b"k", b"v")])
    topic = physical(settings, "orders")
    consumer = RawConsumer(bootstrap_servers=settings.kafka_bootstrap, group_id=topic, isolation_level="read_committed")
    await consumer.start()
    try:
        consumer.subscribe([topic])
        await until(lambda: bool(consumer.assignment()), 20)
        assert await consumer.fetcher.take(1.0) == []
        with pytest.raises(IllegalStateError):
            consumer.fetcher.open({TopicPartition(topic, 5): 0}, 1, {TopicPartition(topic, 5): 10})
        tp = TopicPartition(topic, 0)
        consumer.fetcher.open({tp: 0}, 1, {tp: 10})
        assert [r.value for chunk in await read(consumer, 1, tp) for r in chunk.records] == [b"v"]
    finally:
        await consumer.abandon(1)
