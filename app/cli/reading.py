"""Reads partitions of this deployment's topics once, read committed, from an offset to the end that they have now.

For commands that look back. It joins no group and commits nothing by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from app import clock, committed
from app.settings import Settings
from app.topics import check_topics

_STALLED_S: Final = 30.0
_FETCH_BYTES: Final = 4 * 1024 * 1024

Bounds = Mapping[TopicPartition, tuple[int, int]]
"""From which offset on to read, and the offset before which to stop."""
Report = Callable[[int, int], None]
"""Called with how many offsets have been passed, and of how many."""


class ReadProblem(Exception):
    """Kafka has stopped answering. The text is a sentence with the fix."""


def stopped_answering(settings: Settings, problem: Exception) -> ReadProblem:
    """The sentence for an error of the client after a good start."""
    return ReadProblem(
        f"Kafka at {settings.kafka_bootstrap} has stopped answering ({type(problem).__name__}). See that it runs, then "
        "run the command again."
    )


@asynccontextmanager
async def reader(settings: Settings, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer, once the topics are known to be as they should. Raises TopicProblem, or ReadProblem later on."""
    await check_topics(settings)
    consumer = committed.consumer(settings, max_partition_fetch_bytes=_FETCH_BYTES, **options)
    try:
        await consumer.start()
        yield consumer
    except (KafkaError, OSError, TimeoutError) as problem:
        raise stopped_answering(settings, problem) from problem
    finally:
        await consumer.stop()


async def bounds(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], since: int | None = None
) -> dict[TopicPartition, tuple[int, int]]:
    """Where the partitions begin and end now; with `since` (microseconds UTC) from the first record written then."""
    ends = await consumer.end_offsets(partitions)
    begins = await consumer.beginning_offsets(partitions)
    if since is not None:
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, since // 1000))
        begins = {tp: found[tp].offset if found.get(tp) else ends[tp] for tp in partitions}
    return {tp: (begins[tp], ends[tp]) for tp in partitions}


async def records(
    consumer: AIOKafkaConsumer, where: Bounds, report: Report = lambda *_: None
) -> AsyncIterator[tuple[TopicPartition, Sequence[Any]]]:
    """Every committed record within the bounds, in portions of one partition each. Raises ReadProblem when nothing
    comes for half a minute."""
    left = {tp: bound for tp, bound in where.items() if bound[0] < bound[1]}
    if not left:
        return
    whole = sum(end - begin for begin, end in left.values())
    consumer.assign([*left])
    for tp, (begin, _) in left.items():
        consumer.seek(tp, begin)
    heard, passed = clock.monotonic(), 0
    while left:
        for tp, portion in (await consumer.getmany(*left, timeout_ms=200)).items():
            yield tp, [record for record in portion if record.offset < left[tp][1]]
        positions = {tp: await consumer.position(tp) for tp in left}
        ahead = whole - sum(max(0, end - positions[tp]) for tp, (_, end) in left.items())
        if ahead > passed:
            passed, heard = ahead, clock.monotonic()
            report(passed, whole)
        elif clock.monotonic() - heard > _STALLED_S:
            told = ", ".join(f"{tp.topic}[{tp.partition}]" for tp in left)
            raise ReadProblem(
                f"{told} gave nothing for {_STALLED_S:.0f} s, and has more: see that all brokers are well, then try "
                "again."
            )
        left = {tp: (begin, end) for tp, (begin, end) in left.items() if positions[tp] < end}
