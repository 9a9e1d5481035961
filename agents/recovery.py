"""A shard's past, read back before it works: its rows from the changelog, and where its inputs were committed.

Runs after the shard's producer has started, so nothing can be added meanwhile: the changelog's end is final and the
committed offsets are settled. Rows come at the speed of the client, without an object a record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agents.fetching import RawConsumer
from agents.protocol import ProcessorFailed, ShardProcessor
from app import clock
from app.logs import describe
from app.processor import Fingerprint

log = logging.getLogger(__name__)

_FETCH_BYTES: Final = 4 * 1024 * 1024
_STALLED_SECONDS: Final = 30.0
_PROGRESS_SECONDS: Final = 5.0


class PositionLost(Exception):
    """Where the shard should read on is gone; going on would lose or repeat events, so a person must decide."""

    safe_to_log = True

    def __init__(self, sentence: str, tp: TopicPartition | None = None) -> None:
        super().__init__(sentence)
        self.tp = tp


class RecoveryStalled(KafkaError):
    """The changelog gave nothing for a while although its end was not reached."""

    safe_to_log = True


class Restored(NamedTuple):
    records: int
    seconds: float


class Place(NamedTuple):
    """Where a shard stands in an input by its own record."""

    offset: int
    """What comes next."""
    applied: Fingerprint | None
    """The last record before it, if the shard knows it; markers of transactions may lie between."""


class Past:
    """A client that reads one shard's changelog and committed offsets; use it with `async with`."""

    def __init__(self, client: Mapping[str, Any], group: str) -> None:
        self._consumer = RawConsumer(
            **client, group_id=group, isolation_level="read_committed", max_partition_fetch_bytes=_FETCH_BYTES
        )

    async def __aenter__(self) -> Past:
        try:
            await self._consumer.start()
        except BaseException:
            await self._consumer.abandon(grace=1.0)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.abandon(grace=1.0)

    async def restore(
        self, changelog: TopicPartition, processor: ShardProcessor, progress: Callable[[int], None]
    ) -> Restored:
        """Give every record of `changelog`, oldest first, to `processor.restore`; tell `progress` how many so far.

        Raises KafkaError, or ProcessorFailed.
        """
        started = told = heard = clock.monotonic()
        begin, end = await self._bounds([changelog])
        position, last, count = begin[changelog], end[changelog], 0
        if position >= last:
            return Restored(0, clock.monotonic() - started)
        self._consumer.assign([changelog])
        fetcher = self._consumer.fetcher
        fetcher.open({changelog: position}, seek=0, allowed={changelog: last})
        restore = processor.restore  # looked up once: this is the innermost loop of a recovery
        while position < last:
            chunks = await fetcher.take(1.0)
            now = clock.monotonic()
            for chunk in chunks:
                if chunk.error is not None:
                    raise chunk.error
                try:
                    for record in chunk.records:
                        if record.key is not None:
                            restore(record.key, record.value)
                except Exception as exc:
                    raise ProcessorFailed(
                        f"restoring rows from {changelog.topic}[{changelog.partition}], offsets {chunk.start} to "
                        f"{chunk.position - 1}: {describe(exc)}"
                    ) from exc
                await asyncio.sleep(0)  # a chunk is a few milliseconds' work
                position, count, heard = chunk.position, count + len(chunk.records), now
                progress(count)
            if now - heard > _STALLED_SECONDS:
                raise RecoveryStalled(f"{changelog.topic}[{changelog.partition}] stands at {position} of {last}")
            if now - told > _PROGRESS_SECONDS:
                told = now
                _progress(changelog.partition, count, last - position, now - started)
        return Restored(count, clock.monotonic() - started)

    async def positions(
        self, inputs: Sequence[TopicPartition], own: Mapping[TopicPartition, Place], rows_restored: bool
    ) -> dict[TopicPartition, int]:
        """Where to read each input on: at its committed offset, which a person may have set; if that has expired, where
        the shard's `own` record in the changelog stands; at its beginning if it was never read.

        Raises PositionLost when that place is gone (retention, a topic made anew), KafkaError else.
        """
        committed = await self._consumer.committed_offsets(inputs)
        begin, end = await self._bounds(inputs)
        if rows_restored and not committed and not own:
            raise PositionLost(
                f"shard {inputs[0].partition} has rows in its changelog but its group has no committed offsets: they "
                "have expired (broker setting offsets.retention.minutes) or were deleted. Reading on from the oldest "
                "events would count them twice: reset the group's offsets to where the shard stood, then restart."
            )
        found = {tp: _place(tp, committed, own, begin) for tp in inputs}
        for tp, offset in found.items():
            if offset < begin[tp]:
                raise PositionLost(
                    f"{tp.topic}[{tp.partition}]: the events from offset {offset} to {begin[tp] - 1} were deleted by "
                    "the topic's retention before they were read. To go on without them, set the group's offset to "
                    f"{begin[tp]} and restart; to prevent it, lengthen retention.ms.",
                    tp,
                )
            if offset > end[tp]:
                await self._confirm_beyond(tp, offset)
        # Where the shard's own word counts, the record before that place must still be the one it applied. Retention
        # may have taken that one: a topic made anew hardly begins just behind it.
        places = {tp: own[tp] for tp, at in found.items() if tp in own and own[tp].offset == at}
        left = {tp: place for tp, place in places.items() if begin[tp] <= _last_before(place)}
        await self._confirm_same(left, committed)
        return found

    async def end(self, topic: str) -> int:
        """Where the first partition of another topic ends. Raises KafkaError."""
        tp = TopicPartition(topic, 0)
        return int((await self._consumer.end_offsets([tp]))[tp])

    async def _confirm_beyond(self, tp: TopicPartition, offset: int, tries: int = 20) -> None:
        """A committed offset beyond the end is final only if it stays: just after a leader moves, ends lag behind."""
        last = -1
        for _ in range(tries):
            await asyncio.sleep(0.5)
            last = (await self._consumer.end_offsets([tp]))[tp]
            if last >= offset:
                return
        raise PositionLost(
            f"{tp.topic}[{tp.partition}] ends at offset {last}, but {offset} comes next: the topic was made anew, or "
            "its brokers lost data. If it was made anew on purpose, set the group's offset to 0 and restart.",
            tp,
        )

    async def _confirm_same(
        self, places: Mapping[TopicPartition, Place], committed: Mapping[TopicPartition, int]
    ) -> None:
        """The topics are those that the shard has read. One made anew may have grown past where it stood.

        A committed offset is believed unless the record before it is another one; where it is missing, only if it is
        the same one.
        """
        there = await self._fingerprints({tp: at.applied.offset for tp, at in places.items() if at.applied})
        for tp, place in places.items():
            before = there.get(tp)
            if before is None:
                if tp in committed:
                    continue
                why = "gone, or the shard never knew it: nothing tells whether the topic was made anew"
            elif before != place.applied:
                why = "not the one that the shard applied: the topic was made anew, or its brokers lost data"
            else:
                continue
            raise PositionLost(
                f"{tp.topic}[{tp.partition}]: the record before offset {place.offset} is {why}. Going on there could "
                "pass over events that were never read. Set the group's offset to where the shard should go on (0 for "
                "a topic made anew) and restart; events that it knows change nothing.",
                tp,
            )

    async def _fingerprints(self, of: Mapping[TopicPartition, int]) -> dict[TopicPartition, Fingerprint]:
        """Of the record at each of these offsets; nothing of one that is not there. Raises RecoveryStalled."""
        left = dict(of)
        if not left:
            return {}
        self._consumer.assign(list(left))
        fetcher = self._consumer.fetcher
        fetcher.open(dict(left), seek=0, allowed=dict.fromkeys(left, 1))
        found: dict[TopicPartition, Fingerprint] = {}
        until = clock.monotonic() + _STALLED_SECONDS
        while left:
            for chunk in await fetcher.take(1.0):
                if chunk.error is not None:
                    raise chunk.error
                wanted = left.get(chunk.tp)
                if wanted is None:
                    continue
                for record in chunk.records:
                    if record.offset == wanted:
                        found[chunk.tp] = Fingerprint.of(record)
                if chunk.tp in found or chunk.position > wanted:
                    del left[chunk.tp]
                    fetcher.shut([chunk.tp])
            if left and clock.monotonic() > until:
                raise RecoveryStalled(f"{', '.join(sorted(f'{t.topic}[{t.partition}]' for t in left))} gave no record")
        return found

    async def _bounds(
        self, tps: Sequence[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        begin, end = await asyncio.gather(self._consumer.beginning_offsets(tps), self._consumer.end_offsets(tps))
        return begin, end


def _last_before(place: Place) -> int:
    return place.offset - 1 if place.applied is None else place.applied.offset


def _place(
    tp: TopicPartition,
    committed: Mapping[TopicPartition, int],
    own: Mapping[TopicPartition, Place],
    begin: Mapping[TopicPartition, int],
) -> int:
    """Where to read one input on, and a line in the log when the two records of it are not the same."""
    place = own[tp].offset if tp in own else None
    if tp not in committed:
        if place is None or place == begin[tp]:  # never read, or it has never given anything
            return begin[tp]
        log.warning(
            "The group's offset of %s[%d] has expired or was deleted: the shard goes on at %d, as its own record says.",
            tp.topic,
            tp.partition,
            place,
            extra={"partition": tp.partition},
        )
        return place
    if place is not None and place != committed[tp]:
        log.warning(
            "The group's offset of %s[%d] was set to %d, and that counts; the shard itself had come to %d.",
            tp.topic,
            tp.partition,
            committed[tp],
            place,
            extra={"partition": tp.partition},
        )
    return committed[tp]


def _progress(shard: int, count: int, left: int, seconds: float) -> None:
    log.info(
        "Restoring shard %d: %d records read, about %d to go, %.0f records/s.",
        shard,
        count,
        left,
        count / seconds if seconds else 0.0,
        extra={"shard": shard, "records": count, "seconds": round(seconds, 1)},
    )
