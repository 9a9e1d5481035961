"""The demo's replay, twice on a real Kafka: with batches of 1 and of 5,000 every output topic must hold the same
records (partition, key, headers, value) in the same order.

`python -m tests.kafka.replay_twice --households 300` starts a Kafka of its own and takes a good while, as a transaction
for each event does; the suite runs three households. The exit code says whether all was the same.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import msgspec
import orjson
from aiokafka import AIOKafkaProducer

from app import embedded, topics
from app.processor import META_KEY
from app.replay.journey import ENDS, Journey, load_journey
from app.replay.publish import publish
from app.settings import Settings, load_settings
from app.topics import CHANGELOG
from schemas.instant import DAY
from tests.faults.outcome import Place, Written, output_topics, read
from tests.kafka.harness import ROOT, Worker

BATCHES = (1, 5_000)
AFTER = ENDS + 60 * DAY
"""What the last purchases call for is due by then."""
_GARBAGE_MS = 1_772_324_130_000
_CATALOGUE = ROOT / "app" / "catalogue"

Content = tuple[object, ...]


class Replayed(NamedTuple):
    """What a replay left on each partition of each output topic, and how long it took."""

    records: dict[Place, list[Content]]
    seconds: float


async def replayed(settings: Settings, journey: Journey, begin: Callable[[], Worker], within: float) -> Replayed:
    """Publish, add a broken message to two inputs, and let a worker read all of it; what the worker wrote."""
    await publish(journey.events(), settings, until=ENDS)
    await _say_the_last_word(settings)
    began = time.monotonic()
    worker = begin()
    try:
        last = time.monotonic() + within
        while not await _has_come_to(AFTER, settings, worker):
            if time.monotonic() > last:
                raise AssertionError(f"not within {within:.0f} s:\n{worker.log()[-3000:]}")
            await asyncio.sleep(1.0)
        seconds = time.monotonic() - began
        code, _ = await asyncio.to_thread(worker.stop)
        assert code == 0, worker.log()[-3000:]
    finally:
        worker.close()
    found = await read(settings, output_topics(settings))
    return Replayed({place: [record.content for record in log] for place, log in found.items()}, seconds)


async def _say_the_last_word(settings: Settings) -> None:
    clock = orjson.dumps({"type": "ClockAdvanced", "occurred_at": AFTER // 1000})
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all") as producer:
        for name in ("orders", "coupons"):
            topic = topics.physical(settings, name)
            await producer.send_and_wait(topic, key=b"u", value=b"{", partition=0, timestamp_ms=_GARBAGE_MS)
        for name in settings.inputs:
            for partition in range(settings.partitions):
                await producer.send_and_wait(topics.physical(settings, name), value=clock, partition=partition)


async def _has_come_to(instant: int, settings: Settings, worker: Worker) -> bool:
    """Whether every shard has committed that its time has come so far: then everything due before is committed, too."""
    seconds = [worker.metric("lifecycle_merged_time_seconds", shard=n) for n in range(settings.partitions)]
    if min(seconds) < instant / 1_000_000:
        return False  # the changelog need not be read yet
    changelogs = await read(settings, [CHANGELOG])
    latest = [_last_note(log) for log in changelogs.values()]
    return min(latest) >= instant


def _last_note(log: Sequence[Written]) -> int:
    notes = [record.value for record in log if record.key == META_KEY and record.value]
    return int(msgspec.msgpack.decode(notes[-1])["merged"]) if notes else 0


def differences(ones: Replayed, thousands: Replayed) -> list[str]:
    """A sentence for each partition of an output topic that is not the same."""
    found = []
    for place, log in ones.records.items():
        other = thousands.records[place]
        if log != other:
            first = next(n for n, (a, b) in enumerate(zip_longest(log, other)) if a != b)
            found.append(f"{place[0]}[{place[1]}]: {len(log)} and {len(other)} records, they differ from {first} on")
    return found


async def _main(households: int, bootstrap: str, directory: Path) -> bool:
    journey = load_journey(households)
    app_id = f"replay-{uuid.uuid4().hex[:8]}"
    found = []
    for batch in BATCHES:
        settings = load_settings({
            "LIFECYCLE_KAFKA_BOOTSTRAP": bootstrap, "LIFECYCLE_APP_ID": app_id, "LIFECYCLE_CLOCK": "events",
            "LIFECYCLE_TOPIC_PREFIX": f"b{batch}.", "LIFECYCLE_DATA_DIR": str(directory),
        })  # fmt: skip
        await topics.create_topics(settings)
        worker = Worker(
            settings, directory, f"worker-{batch}", Worker.REAL, batch_max=batch, rules=_CATALOGUE, start="none"
        )
        found.append(await replayed(settings, journey, worker.start, within=3_600 + households * 30))
        print(f"batches of at most {batch}: {len(journey)} events applied in {found[-1].seconds:.0f} s", flush=True)
    ones, thousands = found
    for topic in output_topics(settings):
        counts = [sum(len(log) for (name, _), log in one.records.items() if name == topic) for one in found]
        same = all(ones.records[place] == thousands.records[place] for place in ones.records if place[0] == topic)
        print(f"{topic:<28}{counts[0]:>9} records  {'the same' if same else 'DIFFERENT'}", flush=True)
    for line in differences(ones, thousands):
        print(line, flush=True)
    return not differences(ones, thousands)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when every output topic is the same."""
    parser = argparse.ArgumentParser(prog="python -m tests.kafka.replay_twice", description=__doc__)
    parser.add_argument("--households", type=int, default=300)
    given = parser.parse_args(arguments)
    directory = Path(tempfile.mkdtemp(prefix="lifecycle-twice-"))
    try:
        cluster = embedded.up(directory)
        same = asyncio.run(_main(given.households, cluster.bootstrap, directory))
    finally:
        embedded.down(directory, erase=True)
    if same:
        shutil.rmtree(directory, ignore_errors=True)
    print("the same bytes in the same order" if same else f"NOT the same; logs in {directory}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
