"""The published catalogues as this worker knows them: the topic read from its beginning, then followed, by one client.

A shard is offered what was in effect when it was last written, and everything after; when each takes effect is the
processor's to decide. What cannot be loaded is offered as the reason why, and is no secret.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agents.fetching import RawConsumer
from agents.protocol import ShardProcessor
from app import clock
from app.logs import describe
from app.metrics import Metrics
from app.processor import Record
from app.publications.record import Loaded, Loader, NoPublication, Publication, decode, number_of

log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 5.0
_FETCH_BYTES: Final = 8 * 1024 * 1024
_ALL: Final = 1 << 62
_REMIND_SECONDS: Final = 60.0


class CatalogueLost(Exception):
    """A shard needs a published catalogue that is not there; a person must act."""

    safe_to_log = True


class Catalogues:
    """One for each worker. `changed` is called whenever something was published."""

    def __init__(self, client: Mapping[str, Any], topic: str, metrics: Metrics, changed: Callable[[], None]) -> None:
        self._client, self._tp, self._metrics, self._changed = client, TopicPartition(topic, 0), metrics, changed
        self._loader = Loader()
        self._loaded: dict[int, Loaded] = {}
        self._position: int | None = None  # of the next record; None = not yet known
        self._read = asyncio.Condition()
        self._reminded = -_REMIND_SECONDS

    @property
    def topic(self) -> str:
        """Where the publications are."""
        return str(self._tp.topic)

    @property
    def latest(self) -> int:
        """The highest number that is known."""
        return max(self._loaded, default=0)

    async def reached(self, offset: int) -> None:
        """Return once everything before this offset is known, however long that takes."""
        async with self._read:
            await self._read.wait_for(lambda: self._position is not None and self._position >= offset)

    def needed(self, applied: int) -> list[Loaded]:
        """What a shard is offered in whose state this number is in effect: that one and all later ones, by number.

        Raises CatalogueLost.
        """
        found = [loaded for number, loaded in sorted(self._loaded.items()) if number >= applied]
        anew = any(loaded.publication.effective_at is None for loaded in found)
        if applied and applied not in self._loaded and not anew:
            raise CatalogueLost(
                f"its rules were published as number {applied}, which {self._tp.topic} does not have (its latest is "
                f"{self.latest}): the topic was made anew, or lost records. Bring it back from a copy; if there is "
                "none, publish the rules with `lifecycle rules publish DIR --number N`, N being above that of every "
                "shard, and restart"
            )
        return found

    # -- reading

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            consumer = RawConsumer(
                **self._client, isolation_level="read_committed", max_partition_fetch_bytes=_FETCH_BYTES
            )
            try:
                await consumer.start()
                await self._follow(consumer)
            except Exception as exc:
                self._complain(exc)
            finally:
                await consumer.abandon(grace=1.0)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow(self, consumer: RawConsumer) -> None:
        tp = self._tp
        if self._position is None:
            self._position = (await consumer.beginning_offsets([tp]))[tp]
        consumer.assign([tp])
        consumer.fetcher.open({tp: self._position}, seek=0, allowed={tp: _ALL})
        while True:
            async with self._read:
                self._read.notify_all()
            for chunk in await consumer.fetcher.take(_POLL_SECONDS):
                if chunk.error is not None:
                    raise chunk.error
                for record in chunk.records:
                    self._add(record)
                    await asyncio.sleep(0)  # a catalogue takes a good while to compile
                self._position = chunk.position
                self._metrics.published.set(self.latest)
                self._changed()
            consumer.require_alive()

    def _add(self, record: Record) -> None:
        number = number_of(record.key)
        if number is None:
            return  # something else's
        if number in self._loaded or record.value is None:
            return  # none is ever taken back
        try:
            loaded = self._loader.add(decode(record.value))
        except NoPublication as problem:  # from when on it is in effect, nobody knows
            loaded = Loaded(Publication(number, 0, {}, {}, 0), None, str(problem))
        self._loaded[number] = loaded
        if loaded.catalogue is None:
            self._metrics.publications_refused.inc()
            log.error(
                "The rules published as number %d cannot be loaded by this worker, whose shards stop when they take "
                "effect: %s.",
                number,
                loaded.problem.rstrip("."),
                extra={"version": number},
            )

    def _complain(self, exc: Exception) -> None:
        now = clock.monotonic()
        if now - self._reminded < _REMIND_SECONDS:
            return
        self._reminded = now
        expected = isinstance(exc, (KafkaError, OSError, TimeoutError))
        log.warning(
            "The published rules cannot be read now; the shards go on under those they know: %s",
            describe(exc),
            exc_info=None if expected else exc,
        )


class Ask(Protocol):
    """Calls the processor, and says which records it had in hand when that fails."""

    def __call__(self, doing: str, call: Callable[..., None], *args: object) -> None: ...


class Offers:
    """What one shard has been offered. `begin` at each opening, `go_on` before each batch, `note` after it."""

    def __init__(self, catalogues: Catalogues, shard: int, ask: Ask, metrics: Metrics) -> None:
        self._catalogues, self._shard, self._ask = catalogues, shard, ask
        self._gauge = metrics.catalogue
        self._offered = self._in_effect = 0

    @property
    def topic(self) -> str:
        """Where the publications are."""
        return self._catalogues.topic

    async def begin(self, processor: ShardProcessor, published: int) -> None:
        """Once everything before the offset `published` is known, offer what the shard needs. Raises CatalogueLost."""
        await self._catalogues.reached(published)
        self._offered, self._in_effect = 0, processor.catalogue_number
        self.go_on(processor)
        self.note(processor)

    def go_on(self, processor: ShardProcessor) -> None:
        """Offer what was published since the last time. Raises CatalogueLost."""
        if self._offered and self._catalogues.latest <= self._offered:
            return
        for publication, catalogue, problem in self._catalogues.needed(self._offered or self._in_effect):
            if publication.number > self._offered:
                rules = problem if catalogue is None else catalogue
                self._ask("taking up rules", processor.offer, publication.number, publication.since, rules)
                self._offered = publication.number

    def note(self, processor: ShardProcessor) -> None:
        """Say which one is in effect, once the batch that changed it is committed."""
        number = processor.catalogue_number
        if number != self._in_effect:
            self._in_effect = number
            log.info(
                "Shard %d has changed over to the rules published as number %d.",
                self._shard,
                number,
                extra={"shard": self._shard, "version": number},
            )
        self._gauge.labels(str(self._shard)).set(number)
