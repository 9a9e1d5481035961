"""The topic of publications: read whole, written by one publisher at a time.

Every publisher has the same transactional id, so whoever starts last fences the others; it then reads the topic to its
end, and writes in one transaction what follows from what it read. So no number is given twice, and none is taken back:
of a number the first record counts, for whoever reads, and what no release can read is replaced by what follows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
)

from app import committed
from app.publications.record import NoPublication, Publication, decode, encode, key, number_of
from app.settings import Settings
from app.topics import RULES, physical

#: As the topic's max.message.bytes.
MOST_BYTES: Final = 8_388_608
_PATIENCE_S: Final = 30.0
_CLOSING_S: Final = 5.0
_PAUSE_S: Final = 1.0
_LOOK_S: Final = 0.02
_TRIES: Final = 20
_FENCING = (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping, InvalidTxnState)


class PublishingProblem(Exception):
    """What was to be read or published was not, as far as is known. The text is a sentence with what to do; it says so
    where something was published all the same."""

    safe_to_log = True


class Overtaken(PublishingProblem):
    """Somebody else published at the same moment."""

    def __init__(self) -> None:
        super().__init__(
            "Somebody else published at the same moment, so nothing of this was written: look at what is published now "
            "(`lifecycle rules published`), then try again."
        )


class NotShown(PublishingProblem):
    """It is written, and the brokers have not come to showing it to those who look."""

    def __init__(self, problem: Exception) -> None:
        super().__init__(
            f"It is published, but the brokers have not shown it yet ({type(problem).__name__}): "
            "`lifecycle rules published` tells when they do."
        )


class Unanswered(PublishingProblem):
    """Kafka says nothing more: of what was to be written, nobody knows whether it is."""

    def __init__(self, settings: Settings, problem: Exception) -> None:
        super().__init__(
            f"Kafka at {settings.kafka_bootstrap} has stopped answering ({type(problem).__name__}). See that it runs, "
            "then look at what is published (`lifecycle rules published`) before you try again."
        )


class Found(NamedTuple):
    """What the topic holds."""

    published: list[Publication]
    """By number."""
    unreadable: dict[int, str]
    """By number: why this release cannot read it."""
    latest: int
    """The highest number that was ever given, be its record gone."""


async def read(settings: Settings) -> list[Publication]:
    """Everything that is published, by number. Raises PublishingProblem."""
    return (await read_all(settings)).published


async def read_all(settings: Settings) -> Found:
    """Everything there is. Raises PublishingProblem."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return found(await _read(settings))
    except (KafkaError, OSError, TimeoutError) as problem:
        raise Unanswered(settings, problem) from problem


def found(records: Iterable[tuple[bytes | None, bytes | None]]) -> Found:
    """What these records (keys and values, in their order) hold."""
    published, unreadable, latest, known = [], {}, 0, set()
    for name, value in records:
        number = number_of(name)
        if number is None:
            continue  # something else's
        latest = max(latest, number)
        if number in known or value is None:
            continue
        known.add(number)
        try:
            published.append(decode(value))
        except NoPublication as problem:
            unreadable[number] = str(problem)
    return Found(sorted(published, key=lambda p: p.number), unreadable, latest)


async def _read(settings: Settings) -> list[tuple[bytes | None, bytes | None]]:
    tp = TopicPartition(physical(settings, RULES), 0)
    records: list[tuple[bytes | None, bytes | None]] = []
    consumer = committed.consumer(settings, max_partition_fetch_bytes=MOST_BYTES)
    try:
        await consumer.start()
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        await consumer.seek_to_beginning(tp)
        while await consumer.position(tp) < end:
            for some in (await consumer.getmany(timeout_ms=200)).values():
                records += [(record.key, record.value) for record in some]
    finally:
        await consumer.stop()
    return records


class Publisher:
    """Alone at the topic since it was read; see the module's law."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer | None, found: Found) -> None:
        self._settings, self._producer = settings, producer
        self.published, self.unreadable, self._latest = found

    @property
    def next_number(self) -> int:
        """The number of the next publication."""
        return self._latest + 1

    async def write(self, *publications: Publication) -> None:
        """All of them or none, for everybody to see. Raises Overtaken, NotShown once they are written but not seen, or
        another PublishingProblem."""
        topic, producer = physical(self._settings, RULES), self._producer
        assert producer is not None  # a dry run writes nothing
        records = [(key(p.number), encode(p)) for p in publications]
        if max(len(value) for _, value in records) > MOST_BYTES * 9 // 10:
            raise PublishingProblem(f"The catalogue is larger than a record may be ({MOST_BYTES // 1_000_000} MB).")
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await producer.begin_transaction()
                producer._txn_manager._transaction_waiter.add_done_callback(_heard)
                offset = -1
                for name, value in records:
                    offset = (await producer.send_and_wait(topic, key=name, value=value, partition=0)).offset
                await producer.commit_transaction()
        except MessageSizeTooLargeError as problem:
            raise PublishingProblem(
                f"The catalogue is larger than {topic} allows: raise its max.message.bytes to {MOST_BYTES}."
            ) from problem
        except (KafkaError, AssertionError, OSError, TimeoutError) as problem:
            # Once fenced, aiokafka's sender dies of it, and later calls only trip over its state.
            sender = producer._sender.sender_task
            first = sender.exception() if sender and sender.done() and not sender.cancelled() else None
            if isinstance(problem, _FENCING) or isinstance(first, _FENCING):
                raise Overtaken from problem
            raise Unanswered(self._settings, problem) from problem
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await _until_seen(self._settings, offset)
        except (KafkaError, OSError, TimeoutError) as problem:
            raise NotShown(problem) from problem


@asynccontextmanager
async def publisher(settings: Settings, dry_run: bool = False) -> AsyncIterator[Publisher]:
    """The one who may publish, until the next one comes; in a dry run one who only looks. Raises PublishingProblem."""
    if dry_run:
        yield Publisher(settings, None, await read_all(settings))
        return
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        transactional_id=f"{settings.topic_prefix}{settings.app_id}-rules",
        max_request_size=MOST_BYTES,
        **settings.kafka_security,
    )
    try:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await producer.start()
        except (KafkaError, OSError, TimeoutError) as problem:
            raise Unanswered(settings, problem) from problem
        yield Publisher(settings, producer, await read_all(settings))
    finally:
        await _close(producer)


async def _close(producer: AIOKafkaProducer) -> None:
    """A producer that was fenced cannot end well; it must end."""
    waiting = [batch for batches in producer._message_accumulator._batches.values() for batch in batches]
    stopping = asyncio.ensure_future(producer.stop())
    stopping.add_done_callback(_heard)
    await asyncio.wait([stopping], timeout=_CLOSING_S)
    stopping.cancel()
    for batch in waiting:
        batch._drain_waiter.add_done_callback(_heard)


async def _until_seen(settings: Settings, offset: int) -> None:
    """The brokers answer a commit before they have marked it in the topic, and until then nobody sees what was written:
    whoever looks once this has returned does, a person's next command too."""
    tp = TopicPartition(physical(settings, RULES), 0)
    consumer = committed.consumer(settings)
    try:
        await consumer.start()
        while True:
            if (await consumer.end_offsets([tp]))[tp] > offset:
                return
            await asyncio.sleep(_LOOK_S)
    finally:
        await consumer.stop()


def _heard(future: asyncio.Future[Any]) -> None:
    """What a fenced producer's futures end with is told by the call that was waiting; asyncio need not say it too."""
    if not future.cancelled():
        future.exception()


async def seed(settings: Settings, files: Mapping[str, str], now: int) -> list[Publication]:
    """What is published; if nothing is, `files`, in effect from the beginning. Raises PublishingProblem."""
    problem: PublishingProblem = Overtaken()
    for _ in range(_TRIES):
        published = await read(settings)
        if published:
            return published
        if not isinstance(problem, NotShown):  # what is written is only waited for
            try:
                async with publisher(settings) as alone:
                    if not alone.published:
                        await alone.write(Publication(alone.next_number, None, files, {}, now))
                continue
            except (Overtaken, NotShown, Unanswered) as caught:
                # What another worker that starts is about to write counts as well; a broker between two that want to
                # write may have no answer for one of them. Who comes back fences what is left of that, then looks.
                problem = caught
        await asyncio.sleep(_PAUSE_S)
    raise problem
