"""Sends dead letters back to the input they came from, byte for byte, each at most once a redrive.

How far a redrive got is remembered by a consumer group: for each partition of `dead-letters` it commits, as metadata,
the next offset for each code and input. So a second run sends nothing again, also after one that chose some codes only.
What is sent twice all the same (a run that was killed before it could commit) is recognised by its event ids.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import OffsetAndMetadata

from app import clock
from app.cli import letters, reading
from app.cli.letters import Letter
from app.core import transfers
from app.core.transfers import NewerTransfer, NotATransfer
from app.processor import TRANSFERS, partition_of
from app.settings import Settings
from app.topics import physical
from schemas import codec
from schemas.codec import DecodeOptions, RejectedMessage
from schemas.rejects import CODES

_LARGEST: Final = 9 * 1024 * 1024
"""Bytes of a request: a dead letter may be as large as 8 MiB."""

Fate = Literal["send", "other", "done", "set aside", "refused", "nowhere"]


class Choice(NamedTuple):
    """Which dead letters are meant."""

    code: str | None = None
    topic: str | None = None
    again: bool = False
    """Whether to forget what an earlier redrive has dealt with."""


class Plan(NamedTuple):
    """What a redrive would do."""

    where: reading.Bounds
    send: Counter[tuple[str, str]]
    """How many, by (code, input)."""
    fates: Counter[Fate]
    refused: Counter[str]
    """Why messages would be refused again: reasons, with how many."""
    oldest: str
    """When the oldest of those to be sent was rejected; RFC 3339."""


class Sent(NamedTuple):
    """What a redrive did."""

    messages: int
    too_large: int
    """Messages that their topic takes no longer."""


def group(settings: Settings) -> str:
    """The consumer group that remembers how far redrives have come."""
    return f"{settings.topic_prefix}{settings.app_id}-redrive"


# -- what becomes of a letter


class _Judge:
    """Says what becomes of each letter, and remembers which have been dealt with."""

    def __init__(self, settings: Settings, choice: Choice, dealt: Mapping[int, Mapping[str, int]]) -> None:
        self.settings = settings
        self.choice = choice
        self.dealt = {partition: dict(positions) for partition, positions in dealt.items()}
        self._options = DecodeOptions(
            clock_skew=settings.clock_skew, assume_zone=settings.assume_zone, unknown_types=settings.unknown_types
        )
        self._now_ms = clock.now() // 1000

    def fate(self, letter: Letter) -> tuple[Fate, str]:
        """What becomes of it, and why it would be refused again."""
        code, topic, again = self.choice
        if code not in (None, letter.code) or topic not in (None, letter.topic):
            return "other", ""
        if letter.set_aside and code is None:
            return "set aside", ""
        inputs = (*self.settings.inputs, TRANSFERS)
        if letter.topic not in inputs or letter.code not in CODES or self.target(letter) is None:
            return "nowhere", ""
        if not again and letter.place[1] < self.dealt.get(letter.place[0], {}).get(_bucket(letter), 0):
            return "done", ""
        if letter.topic == TRANSFERS:
            return _judged_transfer(letter.value)
        read = codec.decode(letter.topic, letter.key, letter.value, self._now_ms, self._options)
        return ("refused", f"{read.code}: {read.reason}") if isinstance(read, RejectedMessage) else ("send", "")

    def target(self, letter: Letter) -> int | None:
        """The partition to send to: the one it came from, or, for `wrong_partition`, the one where it belongs."""
        if letter.code == "wrong_partition" and letter.key is not None:
            return partition_of(letter.key, self.settings.partitions, self.settings.partitioner)
        return letter.partition if 0 <= letter.partition < self.settings.partitions else None

    def deal(self, letter: Letter) -> None:
        """Notes that nothing more is to be done about it."""
        positions = self.dealt.setdefault(letter.place[0], {})
        positions[_bucket(letter)] = max(letter.place[1] + 1, positions.get(_bucket(letter), 0))


def _judged_transfer(value: bytes | None) -> tuple[Fate, str]:
    """What a shard told another one of a merged account may be told again; it is known by the id of its event."""
    try:
        transfers.decode(value)
    except (NotATransfer, NewerTransfer) as problem:
        return "refused", f"cannot_apply: {str(problem) or 'no shard wrote this'}"
    return "send", ""


def _bucket(letter: Letter) -> str:
    return f"{'set_aside' if letter.set_aside else letter.code}/{letter.topic}"


# -- what the group remembers


async def _remembered(settings: Settings) -> dict[int, dict[str, int]]:
    """For each partition of the dead letters: the next offset by code and input."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap, **settings.kafka_security)
    topic = physical(settings, letters.LOGICAL)
    try:
        await admin.start()
        found = await admin.list_consumer_group_offsets(group(settings))
    except (KafkaError, OSError, TimeoutError) as problem:
        raise reading.stopped_answering(settings, problem) from problem
    finally:
        await admin.close()
    return {tp.partition: _positions(committed.metadata) for tp, committed in found.items() if tp.topic == topic}


def _positions(metadata: str | None) -> dict[str, int]:
    """What somebody else has committed there (kafka-consumer-groups.sh --reset-offsets) counts as nothing."""
    try:
        found = orjson.loads(metadata or "{}")
    except orjson.JSONDecodeError:
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, int)} if isinstance(found, dict) else {}


async def _remember(
    settings: Settings, consumer: AIOKafkaConsumer, partition: int, positions: Mapping[str, int]
) -> None:
    metadata = orjson.dumps(dict(sorted(positions.items()))).decode()
    tp = TopicPartition(physical(settings, letters.LOGICAL), partition)
    await consumer.commit({tp: OffsetAndMetadata(max(positions.values()), metadata)})


# -- the two passes


async def plan(settings: Settings, choice: Choice) -> Plan:
    """Looks at every dead letter; sends nothing. Raises TopicProblem, ReadProblem."""
    send: Counter[tuple[str, str]] = Counter()
    fates: Counter[Fate] = Counter()
    refused: Counter[str] = Counter()
    oldest = ""
    async with reading.reader(settings) as consumer:
        judge = _Judge(settings, choice, await _remembered(settings))
        where = await letters.bounds(settings, consumer)
        async for portion in letters.letters(consumer, where):
            for letter in portion:
                fate, why = judge.fate(letter)
                fates[fate] += 1
                if fate == "refused":
                    refused[why] += 1
                if fate == "send":
                    send[letter.code, letter.topic] += 1
                    oldest = min(oldest or letter.rejected_at, letter.rejected_at)
    return Plan(where, send, fates, refused, oldest)


async def carry_out(settings: Settings, choice: Choice, where: reading.Bounds) -> Sent:
    """Sends what `plan` found within the same bounds, and remembers it portion by portion.

    Raises TopicProblem, ReadProblem: then what has been remembered is not sent again by the next run."""
    count = too_large = 0
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        enable_idempotence=True,
        acks="all",
        compression_type="zstd",
        max_request_size=_LARGEST,
        **settings.kafka_security,
    )
    async with reading.reader(settings, group_id=group(settings)) as consumer:
        judge = _Judge(settings, choice, await _remembered(settings))
        await producer.start()
        try:
            async for portion in letters.letters(consumer, where):
                failed = await _send(settings, producer, judge, portion)
                count, too_large = count + failed[0], too_large + failed[1]
                if positions := judge.dealt.get(portion[0].place[0]):
                    await _remember(settings, consumer, portion[0].place[0], positions)
        finally:
            await producer.stop()
    return Sent(count, too_large)


async def _send(
    settings: Settings, producer: AIOKafkaProducer, judge: _Judge, portion: Iterable[Letter]
) -> tuple[int, int]:
    """How many of a portion have arrived, and how many were too large."""
    waiting: list[Any] = []
    too_large = 0
    for letter in portion:
        fate, _ = judge.fate(letter)
        if fate in ("send", "refused"):
            judge.deal(letter)
        if fate == "send":
            topic = physical(settings, letter.topic)
            try:
                waiting.append(
                    await producer.send(topic, key=letter.key, value=letter.value, partition=judge.target(letter))
                )
            except MessageSizeTooLargeError:
                too_large += 1
    results = await asyncio.gather(*waiting, return_exceptions=True)
    for result in results:
        if isinstance(result, MessageSizeTooLargeError):
            too_large += 1
        elif isinstance(result, BaseException):
            raise result
    return len(waiting) - sum(isinstance(result, BaseException) for result in results), too_large
