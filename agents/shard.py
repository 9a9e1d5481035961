"""A shard: partition number p of every input, the rows of its users, their timers, and one transactional producer.

One task drives it: take in what was read, let the processor decide, write everything of the batch in one transaction.
After any error nothing in memory is trusted: all of it is dropped and the shard opens anew from its changelog. An error
of the processor, or a place to read on that is gone, is not retried: the shard stops and says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, OffsetOutOfRangeError

from agents.catalogues import CatalogueLost, Catalogues, Offers
from agents.fetching import Chunk
from agents.producing import Fenced, Line, ShardProducer
from agents.protocol import BatchLike, ProcessorFailed, ShardProcessor
from agents.recovery import Past, Place, PositionLost
from agents.wiring import Wiring
from app import clock
from app.logs import describe
from app.metrics import Metrics

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_START_SECONDS: Final = 60.0
_STEADY_SECONDS: Final = 30.0
"""A shard that worked for so long retries quickly again after its next error."""
_GRACE_SECONDS: Final = 2.0
_GRANT_STEP: Final = 500
_NO_HEADERS: Final[list[tuple[str, bytes]]] = []
_HANDLED: Final = frozenset({"events", "ignored", "rejects", "triggers", "retractions", "decisions"})

_openings = itertools.count(1)


class Reader(Protocol):
    """The consumer, as a shard uses it."""

    async def open(
        self, positions: Mapping[TopicPartition, int], seek: int, allowed: Mapping[TopicPartition, int]
    ) -> None: ...
    async def shut(self, tps: Iterable[TopicPartition]) -> None: ...
    def grant(self, tp: TopicPartition, seek: int, allowed: int) -> None: ...


class ChunkLost(Exception):
    """What an agent handed over does not begin where the last chunk ended, or never came."""

    safe_to_log = True


class Shard:
    """One shard on this worker, from its assignment until it is closed."""

    def __init__(
        self,
        number: int,
        generation: int,
        wiring: Wiring,
        reader: Reader,
        metrics: Metrics,
        catalogues: Catalogues | None = None,
    ) -> None:
        self.number = number
        self.generation = generation
        """The group's generation in which it was last assigned to us."""
        self.kept = True
        """False when it was somebody else's in between: it must open anew."""
        self.state: Literal["opening", "open", "waiting", "stopped"] = "opening"
        self.reason = ""
        self._wiring, self._reader, self._metrics = wiring, reader, metrics
        self._offers = Offers(catalogues, number, self._ask, metrics) if catalogues is not None else None
        self._tps = wiring.partitions(number)
        self._producer: ShardProducer | None = None
        self._processor: ShardProcessor | None = None
        self._permitted = asyncio.Event()
        self._between = asyncio.Event()  # set while no transaction is under way
        self._between.set()
        self._wake = asyncio.Event()
        self._assignments = 0
        self._sought_for = -1
        self._seek = 0
        self._inbox: list[tuple[str, Chunk]] = []
        self._next: dict[str, int] = {}
        self._committed: dict[str, int] = {}
        self._fed: dict[str, int] = {}
        self._granted: dict[str, int] = {}
        self._look: tuple[int, Mapping[str, int]] | None = None
        self._looked_at = 0.0
        self._idle = False
        self._doubt = ""
        self._alarmed = False
        self._task: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------- what the supervisor, agents and the watch do

    def start(self) -> None:
        """Begin; it opens once it is permitted to."""
        self._task = asyncio.create_task(self._run(), name=f"shard-{self.number}")

    def permit(self) -> None:
        """The partitions are ours (again): work."""
        self._assignments += 1
        self._permitted.set()
        self._wake.set()

    def forbid(self) -> None:
        """Begin no further transaction until permitted again."""
        self._permitted.clear()
        self._wake.set()

    async def settled(self) -> None:
        """Return once no transaction is under way."""
        await self._between.wait()

    async def close(self) -> None:
        """Give everything up; a transaction under way is left to the next owner, who ends it."""
        self.forbid()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    @property
    def alive(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def processor(self) -> ShardProcessor | None:
        """The processor while the shard is open."""
        return self._processor if self.state == "open" else None

    def position(self, name: str) -> int | None:
        """The offset of an input that comes next."""
        return self._next.get(name)

    def deliver(self, name: str, chunk: Chunk) -> None:
        """What an agent received for this shard. Chunks of an earlier opening are dropped."""
        if chunk.seek == self._seek:
            self._inbox.append((name, chunk))
            self._wake.set()

    @property
    def seek(self) -> int:
        """The number of its opening; 0 while it reads nothing."""
        return self._seek

    def suspect(self, sentence: str) -> None:
        """Something it should have received is missing: trust nothing and open anew."""
        self._doubt = sentence
        self._wake.set()

    def wake(self) -> None:
        """Something was published: see whether it concerns this shard."""
        self._wake.set()

    def wants_look(self, now: float) -> bool:
        """Whether it should be told the time, `now` being seconds of the monotonic clock."""
        rest = self._wiring.look_idle if self._idle else self._wiring.look_busy
        return self.state == "open" and now - self._looked_at >= rest * 0.9

    def look(self, now: int, ends: Mapping[str, int]) -> None:
        """The wall clock (µs), and the ends of all inputs asked after it."""
        self._look = now, ends
        self._looked_at = clock.monotonic()
        self._wake.set()

    # ------------------------------------------------------------------------------------------------- its own task

    async def _run(self) -> None:
        retry = pause = self._wiring.first_retry
        while True:
            began = clock.monotonic()
            try:
                await self._open()
                began = clock.monotonic()
                await self._work()
            except (ProcessorFailed, PositionLost, CatalogueLost, MessageSizeTooLargeError) as exc:
                self._stop(exc)
                return
            except Fenced as exc:
                self._wait_because(exc)
                # The other side may be a zombie that comes back to life: who retries at once is fenced by it in turns.
                pause = self._wiring.session_timeout
            except Exception as exc:
                if self._permitted.is_set():
                    self._wait_because(exc)
                retry = self._wiring.first_retry if clock.monotonic() - began > _STEADY_SECONDS else retry
                pause, retry = retry, min(retry * 2, self._wiring.last_retry)
            finally:
                await self._drop()
            await asyncio.sleep(pause)

    async def _open(self) -> None:
        """Fence, restore, find the committed offsets, seek: in this order (each is only settled by the one before)."""
        self.state = "opening"
        await self._permitted.wait()
        wiring, number = self._wiring, self.number
        started = clock.monotonic()
        self._producer = ShardProducer(
            wiring.client,
            wiring.transactional_id(number),
            transaction_timeout_ms=int(wiring.transaction_timeout * 1000),
        )
        await self._producer.start([wiring.changelog, *wiring.outputs.values()], _START_SECONDS)
        processor = self._ask("starting", wiring.make, number)
        async with Past(wiring.client, wiring.group) as past:
            restored = self._metrics.recovery_records.labels(str(number))
            found = await past.restore(TopicPartition(wiring.changelog, number), processor, restored.set)
            places, applied = processor.read_up_to, processor.applied
            own = {tp: Place(places[name], applied.get(name)) for name, tp in self._tps.items() if name in places}
            positions = await past.positions(list(self._tps.values()), own, processor.rows_held > 0)
            published = await past.end(self._offers.topic) if self._offers is not None else 0
        self._ask("after restoring the rows", processor.restored)
        if self._offers is not None:
            await self._offers.begin(processor, published)
        self._processor = processor
        self._next = {name: positions[tp] for name, tp in self._tps.items()}
        for name, position in self._next.items():  # an input without traffic is known to be read up to here
            self._ask("taking up its place", processor.feed, name, (), position)
        self._committed = dict(self._next)
        self._look, self._looked_at, self._sought_for = None, 0.0, -1
        seconds = clock.monotonic() - started
        self._metrics.recovery_seconds.labels(str(number)).set(seconds)
        log.info(
            "Shard %d is open after %.1f s: %d rows from %d changelog records (%.0f/s).",
            number,
            seconds,
            processor.rows_held,
            found.records,
            found.records / found.seconds if found.seconds else 0.0,
            extra={"shard": number, "records": found.records, "seconds": round(seconds, 3)},
        )

    async def _work(self) -> None:
        processor = self._opened
        limit = self._wiring.batch_max
        while True:
            if not self._permitted.is_set() or self._sought_for != self._assignments:
                await self._permitted.wait()
                await self._seek_on()
                self.state = "open"
                continue
            self._wake.clear()
            if self._doubt:
                raise ChunkLost(self._doubt)
            self._absorb(processor)
            if self._offers is not None:
                self._offers.go_on(processor)
            batch = None
            if self._looked_at or not self._wiring.wall:
                batch = self._ask("applying events", processor.take, limit)
            self._grant(processor)
            self._idle = batch is None
            if batch is None:
                await self._wake.wait()
            else:
                await self._write(batch)

    @property
    def _opened(self) -> ShardProcessor:
        assert self._processor is not None
        return self._processor

    async def _seek_on(self) -> None:
        """Read every input on from what was taken in last: at opening, and after every rebalance."""
        assignment = self._assignments
        self._inbox.clear()
        self._seek = next(_openings)
        self._fed = dict.fromkeys(self._tps, 0)
        self._granted = {name: max(0, self._opened.room(name)) for name in self._tps}
        await self._reader.open(
            {tp: self._next[name] for name, tp in self._tps.items()},
            self._seek,
            {tp: self._granted[name] for name, tp in self._tps.items()},
        )
        self._sought_for = assignment

    def _absorb(self, processor: ShardProcessor) -> None:
        inbox, self._inbox = self._inbox, []
        for name, chunk in inbox:
            if isinstance(chunk.error, OffsetOutOfRangeError):
                raise PositionLost(
                    f"{chunk.tp.topic}[{chunk.tp.partition}]: offset {chunk.position} is out of range: retention "
                    "deleted events before they were read, or the topic was made anew. Set the group's offset to "
                    "where it should go on, and restart.",
                    chunk.tp,
                )
            if chunk.error is not None:
                raise chunk.error
            if chunk.start != self._next[name]:
                raise ChunkLost(f"{name}[{self.number}]: got offset {chunk.start}, expected {self._next[name]}")
            self._ask("taking events in", processor.feed, name, chunk.records, chunk.position)
            self._next[name] = chunk.position
            self._fed[name] += len(chunk.records)
        look, self._look = self._look, None
        if look is not None:
            self._ask("looking at the clock", processor.look, *look)

    def _grant(self, processor: ShardProcessor) -> None:
        """Let the consumer hand out as many records as the processor has room for, beyond those it got."""
        for name, tp in self._tps.items():
            fed, granted = self._fed[name], self._granted[name]
            allowed = fed + max(0, processor.room(name))
            if allowed - granted >= _GRANT_STEP or (allowed > granted and granted <= fed):
                self._granted[name] = allowed
                self._reader.grant(tp, self._seek, allowed)

    async def _write(self, batch: BatchLike) -> None:
        """The batch, its changelog and its input offsets in one transaction."""
        assert self._producer is not None
        started = clock.monotonic()
        wiring = self._wiring
        lines = self._lines(batch)
        offsets = {self._tps[name]: offset for name, offset in batch.offsets.items()}
        self._between.clear()
        try:
            await self._producer.commit(
                lines,
                offsets,
                wiring.group,
                timestamp_ms=clock.now() // 1000,
                limit=wiring.transaction_timeout * 2,
            )
        except BaseException:
            self._metrics.transaction_aborts.inc()
            raise
        finally:
            self._between.set()
        self._committed.update(batch.offsets)
        self._count(batch, clock.monotonic() - started)
        if self._offers is not None:
            self._offers.note(self._opened)

    def _lines(self, batch: BatchLike) -> dict[TopicPartition, list[Line]]:
        """What is to be written, by partition: this shard's own, but for what goes to another shard."""
        topics, own = self._wiring.outputs, self.number
        lines: dict[TopicPartition, list[Line]] = {
            TopicPartition(self._wiring.changelog, own): [(key, value, _NO_HEADERS) for key, value in batch.rows]
        }
        for output in batch.outputs:
            if output.topic not in topics:
                raise ProcessorFailed(f"there is no topic for {output.topic} ({self._in_hand()})")
            place = TopicPartition(topics[output.topic], own if output.partition is None else output.partition)
            lines.setdefault(place, []).append((output.key, output.value, list(output.headers)))
        return lines

    def _count(self, batch: BatchLike, seconds: float) -> None:
        kinds = Counter[str]()
        for (kind, *_), times in batch.counts.items():
            kinds[kind] += times
        self._metrics.count(Counter(batch.counts))
        self._metrics.consecutive_rejects.labels(str(self.number)).set(batch.consecutive_rejects)
        self._watch_rejects(batch.consecutive_rejects)
        self._metrics.batch_events.observe(sum(kinds[kind] for kind in _HANDLED))
        self._metrics.batch_seconds.observe(seconds)

    def _watch_rejects(self, in_a_row: int) -> None:
        """The alarm, once for each run of rejects."""
        if in_a_row < self._wiring.reject_ceiling:
            self._alarmed = False
        elif not self._alarmed:
            self._alarmed = True
            log.error(
                "In shard %d %d messages in a row could not be used: an upstream service has most likely broken the "
                "contract. `lifecycle dead-letters list` says why.",
                self.number,
                in_a_row,
                extra={"shard": self.number, "count": in_a_row, "limit": self._wiring.reject_ceiling},
            )

    # --------------------------------------------------------------------------------------------- when it goes wrong

    def _ask(self, doing: str, call: Callable[..., _T], *args: object) -> _T:
        """The processor's answer. Raises ProcessorFailed, which names the records it had in hand."""
        try:
            return call(*args)
        except Exception as exc:
            raise ProcessorFailed(f"{doing} failed with {describe(exc)} ({self._in_hand()})") from exc

    def _in_hand(self) -> str:
        spans = [
            f"{tp.topic}[{tp.partition}] offsets {self._committed[name]} to {self._next[name] - 1}"
            for name, tp in self._tps.items()
            if self._next.get(name, 0) > self._committed.get(name, 0)
        ]
        return "among " + ", ".join(spans) if spans else "no events in hand"

    def _stop(self, exc: Exception) -> None:
        """Stay down until the worker restarts or the group rebalances; the other shards go on."""
        if isinstance(exc, MessageSizeTooLargeError):
            exc = PositionLost(
                "a record is larger than its topic allows: raise max.message.bytes of the changelog and output topics"
            )
        self.state, self.reason = "stopped", str(exc)
        for name, tp in self._tps.items():
            if isinstance(exc, PositionLost) and exc.tp == tp:
                self._metrics.offsets_out_of_range.labels(name).inc()
        log.error(
            "Shard %d is STOPPED: %s. Nothing of this batch was written; the other shards go on.",
            self.number,
            self.reason.rstrip("."),
            exc_info=exc,
            extra={"shard": self.number, "state": "stopped"},
        )

    def _wait_because(self, exc: Exception) -> None:
        self.state, self.reason = "waiting", describe(exc)
        # KafkaError and the like happen when brokers come and go; anything else is worth its traceback.
        expected = isinstance(exc, (KafkaError, OSError, ChunkLost))
        log.warning(
            "Shard %d drops what it holds and opens again: %s.",
            self.number,
            self.reason,
            exc_info=None if expected else exc,
            extra={"shard": self.number, "state": "waiting"},
        )

    async def _drop(self) -> None:
        """Forget everything; stop reading; cut the producer off."""
        self._metrics.forget(self.number)
        self._inbox.clear()
        self._seek, self._processor, self._look, self._looked_at, self._doubt = 0, None, None, 0.0, ""
        producer, self._producer = self._producer, None
        with contextlib.suppress(KafkaError, RuntimeError, TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._reader.shut(self._tps.values())
        if producer is not None:
            await producer.abandon(_GRACE_SECONDS)
