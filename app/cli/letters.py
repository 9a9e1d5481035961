"""Dead letters as they are kept: what was sent, where it came from, and why it could not be used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console

from app.cli import reading
from app.settings import Settings
from app.topics import physical

LOGICAL: Final = "dead-letters"
_LONGEST_NAME: Final = 128
#: How the reason of an event begins that a person has set aside (`lifecycle quarantine`).
_BY_A_PERSON: Final = "Set aside by a person"


class Letter(NamedTuple):
    """One dead letter; key and value are the original bytes."""

    rejected_at: str
    place: tuple[int, int]
    """Partition and offset of the dead letter itself."""
    code: str
    field: str
    reason: str
    topic: str
    """The input that the message came from, without prefix."""
    partition: int
    """Of that input; -1 when the letter does not say."""
    offset: int
    key: bytes | None
    value: bytes | None
    about: str = ""
    """What `about` has told of the value."""

    @property
    def set_aside(self) -> bool:
        """Whether it was not refused by the worker but set aside by a person."""
        return self.code == "cannot_apply" and self.reason.startswith(_BY_A_PERSON)


async def bounds(settings: Settings, consumer: AIOKafkaConsumer) -> reading.Bounds:
    """From the oldest dead letter that is kept to the newest of now."""
    topic = physical(settings, LOGICAL)
    return await reading.bounds(consumer, [TopicPartition(topic, number) for number in range(settings.partitions)])


async def letters(consumer: AIOKafkaConsumer, where: reading.Bounds) -> AsyncIterator[Sequence[Letter]]:
    """The dead letters within the bounds, in portions of one partition each, in their order."""
    with Console(stderr=True).status("reading") as status:

        def show(done: int, of: int) -> None:
            status.update(f"read {done:,} of about {of:,} dead letters")

        async for _, portion in reading.records(consumer, where, show):
            if portion:
                yield [letter(record) for record in portion]


def letter(record: Any) -> Letter:
    """A record of the topic of dead letters."""
    said = {name: value.decode(errors="replace") for name, value in record.headers}
    return Letter(
        rejected_at=said.get("dlq.rejected_at", ""),
        place=(record.partition, record.offset),
        code=said.get("dlq.reason_code", "?"),
        field=said.get("dlq.field", ""),
        reason=said.get("dlq.reason", ""),
        topic=said.get("dlq.topic", "?"),
        partition=_number(said.get("dlq.partition")),
        offset=_number(said.get("dlq.offset")),
        key=record.key,
        value=record.value,
    )


def about(value: bytes | None) -> str:
    """'UserLoggedIn e-1001': a message's type and its event id, as far as it can be read. Nothing else of it is told:
    what a user did is nobody's business who looks why it could not be used."""
    try:
        body = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(body, dict):
        return ""
    said = [body.get("type"), body.get("event"), body.get("event_id", body.get("messageId"))]
    return " ".join(one[:_LONGEST_NAME] for one in said if isinstance(one, str))


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() else -1
