"""The triggers as their consumers see them: read committed, from all trigger topics, also those that appear later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from app import clock, committed
from app.settings import Settings
from app.topics import physical
from schemas.envelope import TRIGGER_RETRACTED

_LOOK_AGAIN_S: Final = 2.0
"""How often new topics and partitions are looked for."""


class FeedProblem(Exception):
    """The triggers cannot be read. The text is a sentence with the fix."""


@dataclass(frozen=True, slots=True)
class Told:
    """A message of a trigger topic: a trigger, or the retraction of one."""

    id: str
    """Its CloudEvents id."""
    retracted: bool
    body: dict[str, Any]

    @property
    def rule(self) -> str:
        return str(self.body.get("rule"))

    @property
    def user_id(self) -> str:
        return str(self.body.get("user_id"))

    @property
    def reason(self) -> str:
        return str(self.body.get("reason"))


async def triggers(settings: Settings, *, from_start: bool) -> AsyncIterator[Told | None]:
    """Triggers and retractions as they are committed; None whenever there is nothing for a moment.

    `from_start` begins with the oldest that is still kept, else with what comes from now on. Topics and partitions that
    appear later are read from their start. Raises FeedProblem when the brokers cannot be reached.
    """
    consumer = committed.consumer(settings)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap, **settings.kafka_security)
    try:
        await consumer.start()
        await admin.start()
    except KafkaError as problem:
        await consumer.stop()
        await admin.close()
        fix = "start it, or correct" if settings.bootstrap_given else "start one with `lifecycle kafka up`, or set"
        raise FeedProblem(
            f"No Kafka answers at {settings.kafka_bootstrap}: {fix} LIFECYCLE_KAFKA_BOOTSTRAP (host:port)."
        ) from problem
    try:
        reader = _Reader(consumer, admin, physical(settings, "triggers."))
        await reader.find_partitions(from_start=from_start)
        while True:
            for told in await reader.read():
                yield told
            yield None
    except KafkaError as problem:
        raise FeedProblem(
            f"Kafka at {settings.kafka_bootstrap} has gone away. Once it is back, start again."
        ) from problem
    finally:
        with contextlib.suppress(KafkaError, asyncio.CancelledError):
            await consumer.stop()
            await admin.close()


class _Reader:
    """Reads every partition of the topics that begin with `prefix`, and keeps looking for more of them."""

    def __init__(self, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient, prefix: str) -> None:
        self._consumer = consumer
        self._admin = admin
        self._prefix = prefix
        self._next: dict[TopicPartition, int] = {}
        """Where to read on, for each partition."""
        self._looked = 0.0

    async def find_partitions(self, *, from_start: bool) -> None:
        """Add the partitions that are not read yet, from their start or from their end."""
        self._looked = clock.monotonic()
        topics = [topic for topic in await self._admin.describe_topics() if topic["topic"].startswith(self._prefix)]
        found = {TopicPartition(topic["topic"], p["partition"]) for topic in topics for p in topic["partitions"]}
        fresh = sorted(found - self._next.keys())
        if not fresh:
            return
        offsets = await (self._consumer.beginning_offsets if from_start else self._consumer.end_offsets)(fresh)
        self._next |= offsets
        self._consumer.assign(list(self._next))
        for partition, offset in self._next.items():
            self._consumer.seek(partition, offset)

    async def read(self) -> list[Told]:
        """What has come within a moment; looks for new partitions now and then."""
        if clock.monotonic() - self._looked >= _LOOK_AGAIN_S:
            await self.find_partitions(from_start=True)
        if not self._next:
            await asyncio.sleep(0.2)
            return []
        found = await self._consumer.getmany(timeout_ms=200)
        told: list[Told] = []
        for partition, records in found.items():
            for record in records:
                self._next[partition] = record.offset + 1
                told.append(_told(record))
        return told


def _told(record: Any) -> Told:
    headers = dict(record.headers)
    try:
        body = orjson.loads(record.value or b"null")
    except orjson.JSONDecodeError:
        body = None
    name = headers.get("ce_id", b"").decode(errors="replace")
    retracted = headers.get("ce_type") == TRIGGER_RETRACTED.encode()
    return Told(id=name, retracted=retracted, body=body if isinstance(body, dict) else {})
