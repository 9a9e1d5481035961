"""Does the simulation find bugs? Five are planted, one after another; each must be found, and with how many seeds.

`python -m tests.simulation.planted` prints the table. A plant changes the running code, not a copy of it.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from msgspec.structs import replace

from app.backtest.driver import Driver
from app.core.row import decode, encode
from app.processor import Batch, Processor
from tests.simulation.history import story_of
from tests.simulation.simulate import problems_with

#: So many seeds are tried before a bug counts as not found.
PATIENCE = 300


class Plant(NamedTuple):
    """A bug: whose methods are replaced, each by a function of the original."""

    about: str
    owner: type
    changes: Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]]


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """The bug is there within the block, and gone after it."""
    originals = {name: getattr(plant.owner, name) for name in plant.changes}
    try:
        for name, change in plant.changes.items():
            setattr(plant.owner, name, change(originals[name]))
        yield
    finally:
        for name, original in originals.items():
            setattr(plant.owner, name, original)


# -- the watermark gate


def _take_any_head(_: Callable[..., Any]) -> Callable[..., Any]:
    def next_input(self: Processor) -> Any:
        best: Any = None
        for source in self._inputs.values():
            if source.head is None and source.pending:
                self._open_head(source)
            if source.head is not None and (best is None or source.head[0] < best.head[0]):
                best = source
        return best

    return next_input


def _look_reached_at_once(original: Callable[..., Any]) -> Callable[..., Any]:
    def look(self: Processor, now: int, ends: Mapping[str, int]) -> None:
        original(self, now, ends)
        self._look_ends.clear()

    return look


# -- offsets outside the transaction


def _offsets_survive(_: Callable[..., Any]) -> Callable[..., Any]:
    def abort(self: Driver, shard: int, batch: Batch) -> None:
        for name, offset in batch.offsets.items():
            self.broker.committed[name, shard] = offset

    return abort


# -- twice after recovery


def _remember_timers(original: Callable[..., Any]) -> Callable[..., Any]:
    def restored(self: Any) -> None:
        original(self)
        self.again = set(self._timers)

    return restored


def _keep_the_old_row_once(original: Callable[..., Any]) -> Callable[..., Any]:
    def keep(self: Any, user: str, row: Any, anew: bool = False) -> None:
        if anew and user in self.again:
            self.again.discard(user)
            heapq.heappush(self._heap, (self._timers[user], user))
            return
        original(self, user, row, anew)

    return keep


# -- event ids


def _forget_the_ledger(original: Callable[..., Any]) -> Callable[..., Any]:
    def restore(self: Processor, key: bytes, value: bytes | None) -> None:
        if value is not None and not key.startswith(b"\x00"):
            value = encode(replace(decode(value), ledger=b""))
        original(self, key, value)

    return restore


# -- events before timers


def _nothing_before(_: Callable[..., Any]) -> Callable[..., Any]:
    def fire_before(self: Processor, at: int, limit: int) -> int:
        return 0

    return fire_before


PLANTS = {
    "gate": Plant("skip the watermark gate", Processor, {"_next_input": _take_any_head, "look": _look_reached_at_once}),
    "offsets": Plant("commit offsets outside the transaction", Driver, {"_abort": _offsets_survive}),
    "twice": Plant(
        "fire a timer twice after recovery",
        Processor,
        {"restored": _remember_timers, "_keep": _keep_the_old_row_once},
    ),
    "ids": Plant("forget the event ids at a rebalance", Processor, {"restore": _forget_the_ledger}),
    "order": Plant("apply an event before a timer due earlier", Processor, {"_fire_before": _nothing_before}),
}


class Found(NamedTuple):
    """With how many seeds a bug was found; None = not at all."""

    by_any: int | None
    """By any check: also by rows or bytes that differ from those of an undisturbed run."""
    by_oracle: int | None
    """By what came out alone: a trigger, a decision or a timer that the oracle did not expect, or missed."""


def seeds_needed(plant: Plant, first: int = 1) -> Found:
    """Plays seeds with the bug until both kinds of check have found it."""
    by_any: int | None = None
    with planted(plant):
        for number in range(PATIENCE):
            problems = problems_with(story_of(first + number))
            if problems and by_any is None:
                by_any = number + 1
            if any(problem.startswith(("missing", "too much")) for problem in problems):
                return Found(by_any, number + 1)
    return Found(by_any, None)


def main() -> int:
    found = {plant.about: seeds_needed(plant) for plant in PLANTS.values()}
    print(f"{'planted bug':45} seeds until found, until the oracle alone has found it")
    for about, seeds in found.items():
        print(f"{about:45} {seeds.by_any or 'not found'}, {seeds.by_oracle or 'not found'}")
    return 1 if any(None in seeds for seeds in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
