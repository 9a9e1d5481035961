"""`lifecycle quarantine`: a person's decision to go on without one event that stops a shard.

The decision is a record in the shard's changelog, where the shard finds it when it opens. Nothing is deleted: the event
then goes to the dead letters, from where it can be sent again once the defect is mended.
"""

from __future__ import annotations

import asyncio
import logging
from difflib import get_close_matches
from typing import Any, NamedTuple

import click
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from app.cli import reading
from app.core import transfers
from app.core.ids import event_hash
from app.core.transfers import History, NewerTransfer, NotATransfer, PassedOn
from app.explain.timeline import named
from app.processor import TIMER, TRANSFERS, quarantine_key
from app.settings import Settings, SettingsError, load_settings
from app.topics import TopicProblem, changelog, physical
from schemas import codec
from schemas.codec import DecodeOptions, Ignored, RejectedMessage
from schemas.events import Event
from schemas.instant import LATEST


class QuarantineProblem(Exception):
    """There is no such event to set aside. The text is a sentence."""


class Place(NamedTuple):
    """Where an event is: input (without prefix), partition, offset."""

    input: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.input}[{self.partition}] {'instant' if self.input == TIMER else 'offset'} {self.offset}"


@click.command()
@click.argument("name", metavar="INPUT")
@click.argument("partition", type=click.IntRange(min=0))
@click.argument("offset", type=click.IntRange(min=0))
@click.option("--because", required=True, metavar="WORDS", help="Why, for whoever finds it among the dead letters.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def command(name: str, partition: int, offset: int, because: str, yes: bool) -> None:
    """Set the event at OFFSET of PARTITION of INPUT aside, so that the shard that it stops can go on without it.

    For an event on which the rules fail: the worker's log and /ready name it. It goes to the dead letters, unapplied.
    INPUT may be "timer": then OFFSET is the instant of a timer on which they fail, and its steps are not taken.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what goes wrong is said in a sentence
    why = " ".join(because.split())
    if not why:
        raise click.BadParameter("Say why in a few words.", param_hint="--because")
    try:
        settings = load_settings()
        place = Place(_input(settings, name), partition, offset)
        for line in described_timer(settings, place) if place.input == TIMER else asyncio.run(look(settings, place)):
            click.echo(line)
        if not yes:
            click.confirm("Go on without it?", abort=True)
        asyncio.run(set_aside(settings, place, why))
    except (SettingsError, TopicProblem, reading.ReadProblem, QuarantineProblem) as problem:
        raise click.ClickException(str(problem)) from problem
    click.echo(
        f"Set aside: {place}. Shard {partition} takes this up when it opens: restart its worker, or let another worker "
        "join or leave."
    )
    if place.input != TIMER:
        click.echo(
            "The event then goes to the dead letters (cannot_apply); once the defect is mended, `lifecycle "
            "dead-letters redrive --code cannot_apply` sends it again."
        )


def _input(settings: Settings, name: str) -> str:
    """The input's logical name; the log may have named the topic."""
    logical = name.removeprefix(settings.topic_prefix)
    inputs = (*settings.inputs, TRANSFERS)
    if logical in (*inputs, TIMER):
        return logical
    near = get_close_matches(logical, inputs, 1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(inputs)}."
    raise QuarantineProblem(f"There is no input '{name}'. {hint}")


# -- looking


async def look(settings: Settings, place: Place) -> list[str]:
    """What is at a place, in words. Raises QuarantineProblem when no event is there that is still to be applied."""
    _require_partition(settings, place)
    tp = TopicPartition(physical(settings, place.input), place.partition)
    async with reading.reader(settings) as consumer:
        begin, end = (await reading.bounds(consumer, [tp]))[tp]
        if place.offset < begin:
            raise QuarantineProblem(
                f"{place} is there no more: the topic's retention has deleted everything before {begin}."
            )
        if place.offset >= end:
            raise QuarantineProblem(f"{place} does not exist: the partition ends before offset {end}.")
        record = await _record(consumer, tp, place.offset, end)
    if record is None or record.offset != place.offset:
        instead = f"the next event is at {record.offset}" if record else "and none follows"
        raise QuarantineProblem(f"{place} holds no event, only a mark of Kafka's own; {instead}.")
    applied = await _applied(settings, tp)
    if place.offset < applied:
        raise QuarantineProblem(
            f"{place} has been applied already (the shard is at {applied}); there is nothing to set aside."
        )
    return described(settings, place, record)


def _require_partition(settings: Settings, place: Place) -> None:
    if place.partition >= settings.partitions:
        raise QuarantineProblem(
            f"There is no partition {place.partition}: {place.input} has {settings.partitions}, from 0 on."
        )


def described_timer(settings: Settings, place: Place) -> list[str]:
    """What setting a timer aside means. Raises QuarantineProblem when there can be no such timer."""
    _require_partition(settings, place)
    if place.offset > LATEST:
        raise QuarantineProblem(f"{place.offset} is no instant: take the number that the worker's log names.")
    due = named(place.offset)
    return [f"What is due in shard {place.partition} at {due}: where the rules fail on it, these steps are not taken."]


async def _record(consumer: Any, tp: TopicPartition, offset: int, end: int) -> Any:
    """The first record at this offset or after it."""
    async for _, portion in reading.records(consumer, {tp: (offset, end)}):
        if portion:
            return portion[0]
    return None


async def _applied(settings: Settings, tp: TopicPartition) -> int:
    """The offset before which the workers have applied everything."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap, **settings.kafka_security)
    try:
        await admin.start()
        committed = await admin.list_consumer_group_offsets(settings.topic_prefix + settings.app_id, partitions=[tp])
    except (KafkaError, OSError, TimeoutError) as problem:
        raise reading.stopped_answering(settings, problem) from problem
    finally:
        await admin.close()
    return int(committed[tp].offset) if tp in committed else 0


def described(settings: Settings, place: Place, record: Any) -> list[str]:
    """The event at a place, without a word about whose it is: ids as hashes."""
    options = DecodeOptions(
        clock_skew=settings.clock_skew, assume_zone=settings.assume_zone, unknown_types=settings.unknown_types
    )
    lines = [f"{place}, received {named(max(record.timestamp, 0) * 1000)}:"]
    if place.input == TRANSFERS:
        return [*lines, f"  {_transferred(record.value)}"]
    message = codec.decode(place.input, record.key, record.value, record.timestamp, options)
    if isinstance(message, Event):
        happened = named(message.occurred_at)
        return [*lines, f"  {message.TYPE}, happened {happened}, hash of its id {event_hash(message.event_id).hex()}"]
    if isinstance(message, RejectedMessage):
        return [*lines, f"  cannot be used anyway ({message.code}): it would go to the dead letters by itself"]
    if isinstance(message, Ignored):
        return [*lines, f"  {message.name}, which is ignored anyway: it stops no shard"]
    return [*lines, f"  {message.TYPE} {named(message.occurred_at)}, which belongs to no user"]


def _transferred(value: bytes | None) -> str:
    """What a shard told another one of a merged account."""
    try:
        message = transfers.decode(value)
    except (NotATransfer, NewerTransfer) as problem:
        return f"nothing that this version reads ({problem})" if str(problem) else "nothing that a shard wrote"
    if isinstance(message, History):
        when, event = named(message.occurred_at), event_hash(message.event_id).hex()
        return (
            f"the history of an account that was merged {when}, hash of that event's id {event}: until it is sent "
            "again, none of it counts"
        )
    if isinstance(message, PassedOn):
        return f"an event of a merged account, from {message.topic}[{message.partition}] offset {message.offset}"
    return "an account that is to be forgotten: without it, something is left that names it"


# -- deciding


async def set_aside(settings: Settings, place: Place, why: str) -> None:
    """Writes the decision into the shard's changelog, outside of the shard's own transactions. Raises ReadProblem."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, enable_idempotence=True, acks="all", **settings.kafka_security
    )
    key = quarantine_key(place.input, place.offset)
    try:
        await producer.start()
        await producer.send_and_wait(changelog(settings), key=key, value=why.encode(), partition=place.partition)
    except (KafkaError, OSError, TimeoutError) as problem:
        raise reading.stopped_answering(settings, problem) from problem
    finally:
        await producer.stop()
