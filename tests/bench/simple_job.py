"""Our engine beside a plain Faust agent: the same job, the same Kafka, one run.

The job: decode an order event of about 430 bytes, read and write one row a user and its changelog, and write a trigger
on every tenth event of a user. The numbers depend on the machine; the ratio travels.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from app import embedded, topics
from app.processor import partition_of
from app.settings import load_settings
from tests.kafka.harness import ROOT, Expected, Worker
from tests.kafka.simple_job import TOPIC, event

PARTITIONS = 4


class Result(NamedTuple):
    engine: str
    guarantee: str
    events: int
    rate: float
    """Events a second, from the first progress seen to the last event."""
    cpu: float
    """Microseconds of the worker's CPU an event."""
    right: bool
    """Whether exactly the triggers expected were there in the end, each once."""


@contextmanager
def broker() -> Iterator[str]:
    """The Kafka that TEST_KAFKA_BOOTSTRAP names, or an embedded one for this run."""
    given = os.environ.get("TEST_KAFKA_BOOTSTRAP")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory() as directory:
        try:
            yield embedded.up(Path(directory)).bootstrap
        finally:
            embedded.down(Path(directory), erase=True)


async def fill(bootstrap: str, topic: str, events: int) -> Expected:
    """Write the events as upstream services would have: ten a user, each user's far from each other."""
    expected = Expected()
    users = events // 10
    where = [partition_of(f"u-{user}".encode(), PARTITIONS, "murmur2") for user in range(users)]
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=400_000) as producer:
        batches = [producer.create_batch() for _ in range(PARTITIONS)]
        stamp = int(time.time() * 1000)
        for number in range(events):
            user = number * 7919 % users
            partition = where[user]
            key, value = event(user, number)
            expected.events[key] += 1
            while batches[partition].append(key=key, value=value, timestamp=stamp) is None:
                await producer.send_batch(batches[partition], topic, partition=partition)
                batches[partition] = producer.create_batch()
        for partition, batch in enumerate(batches):
            if batch.record_count():
                await producer.send_batch(batch, topic, partition=partition)
        await producer.flush()
    return expected


async def pace(
    done: Callable[[], Awaitable[int]], events: int, process: psutil.Process, within: float
) -> Result | None:
    """Watch `done` grow to `events`; the rate and CPU of it, or None when it does not get there."""
    first: tuple[float, int, float] | None = None
    until = time.monotonic() + within
    while time.monotonic() < until and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        count, now = await done(), time.monotonic()
        cpu = sum(process.cpu_times()[:2])
        if first is None and count:
            first = now, count, cpu
        if first is not None and count >= events:
            rate = (count - first[1]) / (now - first[0]) if now > first[0] else 0.0
            return Result("", "", events, rate, 1e6 * (cpu - first[2]) / max(1, count - first[1]), True)
        await asyncio.sleep(0.1)
    return None


async def ours(bootstrap: str, events: int, directory: Path) -> Result:
    settings = load_settings({
        "LIFECYCLE_KAFKA_BOOTSTRAP": bootstrap,
        "LIFECYCLE_APP_ID": "ours",
        "LIFECYCLE_TOPIC_PREFIX": f"bench{os.getpid()}.",
        "LIFECYCLE_INPUTS": "orders",
        "LIFECYCLE_PARTITIONS": str(PARTITIONS),
        "LIFECYCLE_DATA_DIR": str(directory),
    })  # fmt: skip
    await topics.create_topics(settings)
    expected = await fill(bootstrap, topics.physical(settings, "orders"), events)
    worker = Worker(settings, directory, "ours").start()
    try:

        async def done() -> int:
            return int(worker.metric("lifecycle_events_total"))

        found = await pace(done, events, psutil.Process(worker.process.pid), 120)
        assert found is not None, f"our worker did not finish:\n{worker.log()[-3000:]}"
    finally:
        worker.close()
    triggers = await count_committed(bootstrap, topics.physical(settings, TOPIC))
    right = triggers == sum(expected.triggers().values())
    return found._replace(engine="ours", guarantee="exactly once", right=right)


async def plain_faust(bootstrap: str, guarantee: str, events: int, directory: Path) -> Result | None:
    name = f"bench{os.getpid()}-faust-{guarantee.replace('_', '-')}"
    changelog = f"{name}-rows-changelog"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in (f"{name}.orders", f"{name}.triggers")])
    await admin.close()
    expected = await fill(bootstrap, f"{name}.orders", events)
    log = (directory / f"{name}.log").open("wb")
    process = subprocess.Popen(  # noqa: ASYNC220  # its output is a file; nothing waits for it
        [sys.executable, "-m", "tests.bench.faust_job", bootstrap, name, str(PARTITIONS), guarantee, str(directory)],
        cwd=ROOT,
        stdout=log,
        stderr=log,
    )
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:

        async def done() -> int:
            there = await consumer.topics()
            if changelog not in there:
                return 0
            ends = await consumer.end_offsets([TopicPartition(changelog, p) for p in range(PARTITIONS)])
            return sum(ends.values())

        found = await pace(done, events, psutil.Process(process.pid), 60 + events / 1000)
        await asyncio.sleep(4)  # its buffers and its commit
    finally:
        await consumer.stop()
        process.kill()
        process.wait()
        log.close()
    if found is None:
        return None
    right = await count_committed(bootstrap, f"{name}.triggers") == sum(expected.triggers().values())
    return found._replace(engine="plain Faust agent", guarantee=guarantee.replace("_", " "), right=right)


async def count_committed(bootstrap: str, topic: str) -> int:
    """Records in a topic, read committed."""
    tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        count = 0
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            count += sum(map(len, (await consumer.getmany(timeout_ms=500)).values()))
        return count
    finally:
        await consumer.stop()


def show(results: list[Result]) -> None:
    base = results[0].rate
    print(
        f"\n{'engine':<20} {'guarantee':<15} {'events':>9} {'events/s':>9} {'us CPU/event':>13} {'result':>8}  ours is"
    )
    for r in results:
        ratio = "" if r is results[0] or not r.rate else f"{base / r.rate:.1f} times as fast"
        right = "right" if r.right else "WRONG"
        print(f"{r.engine:<20} {r.guarantee:<15} {r.events:>9,} {r.rate:>9,.0f} {r.cpu:>13.1f} {right:>8}  {ratio}")


async def run(options: argparse.Namespace) -> int:
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{os.cpu_count()} CPUs, load {load}; {PARTITIONS} partitions, ten events a user")
    results: list[Result] = []
    with broker() as bootstrap, tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        print("ours ...", flush=True)
        results.append(await ours(bootstrap, options.events, directory))
        for guarantee in () if options.ours_only else ("at_least_once", "exactly_once"):
            print(f"plain Faust, {guarantee} ...", flush=True)
            found = await plain_faust(bootstrap, guarantee, options.faust_events, directory)
            if found is None:
                print(f"  did not finish {options.faust_events:,} events; left out")
            else:
                results.append(found)
    show(results)
    return 0 if results[0].right else 1
