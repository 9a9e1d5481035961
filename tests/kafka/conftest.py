"""One real broker for the whole session; every test has its own topics on it.

TEST_KAFKA_BOOTSTRAP=host:port uses a Kafka that runs already. `make_settings` gives a test its own app id and topic
prefix, so that tests neither see nor wait for each other.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app import embedded, topics
from app.settings import Settings, load_settings
from tests.kafka.harness import Worker, ends


class Consumed(NamedTuple):
    """A record as a consumer sees it."""

    partition: int
    offset: int
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes | None
    timestamp_ms: int


class ToSend(NamedTuple):
    """A record for `produce`; without a partition the key decides (murmur2), without a timestamp the clock."""

    key: bytes | None
    value: bytes | None
    partition: int | None = None
    timestamp_ms: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class Kafka(NamedTuple):
    """The session's Kafka; `cluster` is None when it isn't ours."""

    bootstrap: str
    cluster: embedded.Cluster | None


MakeSettings = Callable[..., Awaitable[Settings]]
Produce = Callable[..., Awaitable[list[tuple[int, int]]]]
ConsumeAll = Callable[..., Awaitable[list[Consumed]]]
Start = Callable[..., Worker]

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    given = os.environ.get("TEST_KAFKA_BOOTSTRAP")
    if given:
        yield Kafka(given, None)
        return
    data_dir = tmp_path_factory.mktemp("kafka")
    try:
        cluster = embedded.up(data_dir)
        yield Kafka(cluster.bootstrap, cluster)
    finally:
        embedded.down(data_dir, erase=True)


@pytest.fixture
def make_settings(kafka: Kafka, tmp_path: Path) -> MakeSettings:
    """`await make_settings(partitions=2, clock="events")`: settings of a new app whose topics exist.

    Keywords are the settings' names in lower case, values as they would be in the environment; `create=False` leaves
    the topics to the test.
    """

    async def make(create: bool = True, **overrides: object) -> Settings:
        name = f"t{os.getpid()}-{next(_numbers)}"
        given = {
            "kafka_bootstrap": kafka.bootstrap,
            "app_id": f"app-{name}",
            "topic_prefix": f"{name}.",
            "data_dir": tmp_path,
            "http_port": 0,
            **overrides,
        }
        settings = load_settings({f"LIFECYCLE_{key.upper()}": str(value) for key, value in given.items()})
        if create:
            await topics.create_topics(settings)
        return settings

    return make


@pytest.fixture
def produce() -> Produce:
    """`await produce(settings, "orders", records)`: sends, waits for all acks, returns (partition, offset) of each.

    A record is a ToSend, or a (key, value) pair of bytes. `topic` is a logical name.
    """

    async def send(
        settings: Settings,
        topic: str,
        records: Iterable[ToSend | tuple[bytes | None, bytes | None]],
        **producer: object,
    ) -> list[tuple[int, int]]:
        physical = topics.physical(settings, topic)
        async with AIOKafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap, **{"acks": "all", "linger_ms": 5, **producer}
        ) as client:
            waiting = []
            for record in records:
                r = ToSend(*record)
                waiting.append(
                    await client.send(
                        physical,
                        key=r.key,
                        value=r.value,
                        partition=r.partition,
                        timestamp_ms=r.timestamp_ms,
                        headers=list(r.headers),
                    )
                )
            sent = await asyncio.gather(*waiting)
        return [(one.partition, one.offset) for one in sent]

    return send


@pytest.fixture
def consume_all() -> ConsumeAll:
    """`await consume_all(settings, "triggers.coupon")`: all records up to now, by partition and offset.

    `isolation` is "read_committed" (default: what a careful reader sees) or "read_uncommitted".
    """

    async def read(settings: Settings, topic: str, isolation: str = "read_committed") -> list[Consumed]:
        physical = topics.physical(settings, topic)
        # A consumer with a topic and no group gets all partitions of it.
        async with AIOKafkaConsumer(
            physical,
            bootstrap_servers=settings.kafka_bootstrap,
            isolation_level=isolation,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        ) as client:
            partitions = sorted(client.assignment())
            await client.seek_to_beginning(*partitions)
            if isolation == "read_committed":
                up_to = await ends(client, settings, partitions)
            else:
                up_to = await client.end_offsets(partitions)
            found: list[Consumed] = []
            while any([await client.position(p) < up_to[p] for p in partitions]):
                fetched = await client.getmany(timeout_ms=200)
                for records in fetched.values():
                    found += [
                        Consumed(r.partition, r.offset, r.key, tuple(r.headers), r.value, r.timestamp)
                        for r in records
                        if r.offset < up_to[TopicPartition(r.topic, r.partition)]
                    ]
        return sorted(found, key=lambda r: (r.partition, r.offset))

    return read


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(settings, "a", reject_ceiling=10)`: a real worker, ended with the test.

    Keywords are settings in lower case, or `command`, for another worker than the real one. Without a name each has its
    own; workers of one name share a log.
    """
    workers: list[Worker] = []

    def begin(settings: Settings, name: str | None = None, **more: Any) -> Worker:
        worker = Worker(settings, tmp_path, name or f"worker-{len(workers)}", **{"command": Worker.REAL, **more})
        workers.append(worker)
        return worker.start()

    yield begin
    for worker in workers:
        worker.close()
