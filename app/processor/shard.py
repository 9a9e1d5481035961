"""The order in which a shard works: the catalogue first, then what is due, then the next event; and its batch.

A batch is everything that was done since the last one, or nothing: it is committed whole.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from app.processor.change_over import ChangeOver
from app.processor.events import Events
from app.processor.meta import BEGINNING
from app.processor.records import META_KEY, TRANSFERS, Batch, Fingerprint, RulesNotLoaded

#: So many timers of one look are a storm: from then on they share each batch with events.
STORM = 1_000
#: Decoded rows kept beside their encoded form; the rest is decoded when touched.
HOT_ROWS = 100_000
#: Entries of the timer heap that may be out of date (cancelled or moved) before it is built anew.
STALE_TIMERS = 100_000
#: CLOCK=wall: merged time is written at least this often while nothing else is, microseconds: a crash sets it back by
#: no more.
IDLE_NOTE = 60_000_000


class Processor(Events, ChangeOver):
    """One shard. Feed it, take batches from it; see the module's law."""

    def take(self, limit: int) -> Batch | None:
        """Merges, applies and fires about `limit` events and timers. None when there is nothing to do now."""
        if self.plan.clock == "wall" and self._now == BEGINNING:
            return None
        try:
            self._go_on(limit)
        except RulesNotLoaded:
            if not self._has_news():  # what was before is kept first
                raise
        return self._batch() if self._has_news() else None

    def _has_news(self) -> bool:
        return bool(self._offsets or self._dirty or self._outputs or self._meta_dirty)

    def _go_on(self, limit: int) -> None:
        done, fired, wall = 0, 0, self.plan.clock == "wall"
        while done < limit:
            if self._offers and not self._meta.unsettled and (late := self._next_change(self._meta.merged)) is not None:
                self._change_over(late)  # it was in effect before this shard heard of it
                continue
            self._activate()
            if self._meta.unsettled:
                done += self._settle(limit - done)
                continue
            if self._look is not None and not self._look_ends and (left := self._timers_turn(limit, fired, done)):
                looked_after = self._fire_look(left)
                fired, done = fired + looked_after, done + looked_after
                continue
            source = self._next_input()
            if source is not None:
                assert source.head is not None  # _next_input fills it
                if (used := self._change_before(max(source.head[0], self.merged), limit - done, not wall)) is not None:
                    done += used
                    continue
                done += self._fire_before(source.head[0], limit - done)
                if done >= limit:
                    break
                self._apply(source)
                done += 1
                continue
            if wall or not (used := self._said(limit - done)):
                break
            done += used

    # -- time

    def _timers_turn(self, limit: int, fired: int, done: int) -> int:
        """How many more of the look's timers this batch may fire: all it has room for, but in a storm half of it, so
        that events keep flowing while the storm is worked off."""
        return limit - done if self._stormed < STORM else max(0, min(limit - done, max(1, limit // 2) - fired))

    def _fire_look(self, limit: int) -> int:
        """CLOCK=wall: everything up to the look has been applied, so merged time becomes it and its timers fire."""
        assert self._look is not None
        if (used := self._change_before(self._look, limit)) is not None:
            return used
        fired = self._fire_due(self._look - self.plan.lateness, limit, inclusive=True)
        self._stormed += fired
        if fired < limit:
            self._meta.merged = max(self._meta.merged, self._look)
            self._look, self._stormed = None, 0
            if self._meta.merged - self._noted >= IDLE_NOTE:
                self._meta_dirty = True
        return fired

    def _said(self, limit: int) -> int:
        """CLOCK=events without a next event: all inputs have at least said (or shown) how far they are."""
        told = [source for source in self._inputs.values() if source.head or source.name != TRANSFERS]
        reached = min(source.head[0] if source.head else source.clock for source in told)
        if reached <= self._meta.merged:
            return 0
        if (used := self._change_before(reached, limit)) is not None:
            return used
        fired = self._fire_due(reached - self.plan.lateness, limit, inclusive=False)
        if fired < limit:
            self._meta.merged = reached
            self._meta_dirty = True
        return fired

    # -- the batch

    def _pass_markers(self) -> None:
        """What is applied to its end is read up to behind the markers of transactions, too: retention takes them with
        the events, and to go on at one that is gone would look as if an event had been."""
        for source in self._inputs.values():
            if source.opened and source.unread_from() > self._meta.read_up_to[source.name]:
                self._offsets[source.name] = source.unread_from()

    def _batch(self) -> Batch:
        rows = self._accounts.taken()
        for user, row in self._dirty.items():
            data = self._encoded(row)
            self._cold[user] = data
            rows.append((user.encode(), data))
        self._meta.keyed = self._accounts.keyed
        self._pass_markers()
        self._meta.read_up_to.update(self._offsets)
        for name in self._offsets:  # once a batch, not for each record
            if (record := self._inputs[name].applied) is not None:
                self._meta.applied[name] = Fingerprint.of(record)
        rows.append((META_KEY, msgspec.msgpack.encode(self._meta)))
        self._noted = self._meta.merged
        batch = Batch(rows, self._outputs, self._offsets, self._counts, self.consecutive_rejects)
        self._dirty, self._outputs, self._offsets, self._counts = {}, [], {}, Counter()
        self._meta_dirty = False
        self._sizes.clear()
        while len(self._hot) > HOT_ROWS:
            del self._hot[next(iter(self._hot))]
        if len(self._heap) > len(self._timers) + STALE_TIMERS:
            self._build_heap()
        return batch
