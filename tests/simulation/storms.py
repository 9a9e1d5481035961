"""Storms on one shard, without Kafka: a user with a million events, a bot, a million timers due at the same instant.

`python -m tests.simulation.storms` plays them whole (`--size 0.1`: a tenth) and prints what it cost in CPU time; the
suite plays small ones. Whatever is not as it must be is an AssertionError.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import orjson

from app.backtest.driver import IN_MEMORY
from app.core.row import MAX_VIEWS
from app.core.rules import Catalogue
from app.processor import STORM, Batch, Output, Plan, Processor, Record
from app.rulebook import load
from schemas.codec import DecodeOptions
from schemas.events import EVENT_TYPES
from schemas.instant import DAY, MINUTE, SECOND
from tests.catalogues import THREE

INPUTS = ("orders", "logins", "browse", "coupons")
NOON = 1_772_337_600 * SECOND
"""2026-03-01, noon in Shanghai, where everybody is."""
CHUNK = 5_000

Event = dict[str, Any]


class Shard:
    """A processor with a log of which nothing is kept once it has been read; of what it writes only the counts are."""

    def __init__(self, rules: Catalogue | None = None, keep: bool = False) -> None:
        plan = Plan(INPUTS, 1, "murmur2", "wall", 5 * SECOND, DecodeOptions(), rules or load(), "storm", IN_MEMORY, "")
        self.processor = Processor(plan, 0)
        self.processor.restored()
        self.ends = dict.fromkeys(INPUTS, 0)
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.largest: Counter[bytes] = Counter()
        """By user: bytes of the largest row."""
        self.sent: Counter[str] = Counter()
        """By id of a trigger: how often."""
        self.kept: list[Output] = []
        """All that it put out, in order, if that is to be kept."""
        self._keep = keep
        self.cpu_seconds = 0.0
        for name in INPUTS:
            self.processor.feed(name, (), 0)
        self.look(NOON - SECOND)
        self.run()  # the rules are active from now on

    def write(self, *events: Event) -> None:
        """To the ends of the inputs, and at once into the processor."""
        records: dict[str, list[Record]] = {}
        for event in events:
            name = EVENT_TYPES[event["type"]].TOPIC
            record = Record(self.ends[name], event["occurred_at"], event["user_id"].encode(), orjson.dumps(event))
            records.setdefault(name, []).append(record)
            self.ends[name] += 1
        for name, some in records.items():
            self.processor.feed(name, some, self.ends[name])

    def look(self, now: int) -> None:
        self.processor.look(now, dict(self.ends))

    def take(self, limit: int = CHUNK) -> Batch | None:
        """One batch, kept in mind by its figures."""
        began = time.process_time()
        batch = self.processor.take(limit)
        self.cpu_seconds += time.process_time() - began
        if batch is not None:
            self.counts.update(batch.counts)
            if self._keep:
                self.kept += batch.outputs
            for key, row in batch.rows:
                self.largest[key] = max(self.largest[key], len(row or b""))
            for output in batch.outputs:
                if output.topic.startswith("triggers."):
                    self.sent[dict(output.headers)["ce_id"].decode()] += 1
        return batch

    def run(self) -> None:
        while self.take() is not None:
            pass


def event(kind: str, name: str, user: str, at: int, fields: Mapping[str, Any]) -> Event:
    return {"event_id": name, "type": kind, "user_id": user, "occurred_at": at // 1000, **fields}


class Told(NamedTuple):
    """What a storm cost."""

    what: str
    count: int
    largest_row: int
    cost: Cost

    def __str__(self) -> str:
        first, last = self.cost.microseconds()
        return (
            f"{self.what:<33}{self.count:>9}, largest row {self.largest_row:>7} bytes, {self.cost.seconds:>5.0f} s "
            f"of CPU; each at first {first:.0f} us, in the end {last:.0f} us"
        )


class Cost:
    """CPU time, noted now and then."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._notes = [(0, shard.cpu_seconds)]

    def note(self, number: int) -> None:
        """So many are done."""
        self._notes.append((number, self._shard.cpu_seconds))

    @property
    def seconds(self) -> float:
        return self._notes[-1][1] - self._notes[0][1]

    def microseconds(self) -> tuple[float, float]:
        """For each, in the first tenth and in the last one."""
        some = max(1, len(self._notes) // 10)
        spans = (self._notes[0], self._notes[some]), (self._notes[-1 - some], self._notes[-1])
        first, last = ((then[1] - now[1]) / max(1, then[0] - now[0]) * 1e6 for now, then in spans)
        return first, last


# -- one user


def _deeds(user: str, count: int) -> Iterator[Event]:
    """Orders, looks, logins and coupons, one a second; every fiftieth event comes once more."""
    for n in range(count):
        at, name = NOON + n * SECOND, f"e{n}"
        if n % 10 == 0:
            lines = [{"product_id": f"p{n % 70}", "product_type": f"t{n % 30}", "quantity": 1}]
            order = {"order_id": f"o{n}", "currency": "CNY", "total": "1.00", "lines": lines}
            deed = event("OrderPaid", name, user, at, order)
        elif n % 10 == 1:
            deed = event("CouponIssued", name, user, at, {"coupon_id": f"c{n}", "value": "2.00", "currency": "CNY"})
        elif n % 10 == 2:
            deed = event("CouponRedeemed", name, user, at, {"coupon_id": f"c{n - 1}"})
        elif n % 2:
            deed = event("ProductViewed", name, user, at, {"product_id": f"p{n % 1000}", "category": f"c{n % 40}"})
        else:
            deed = event("UserLoggedIn", name, user, at, {})
        yield deed
        if n % 50 == 0:
            yield deed


def busy_user(count: int) -> Told:
    """So many events of one user: the row stays within its bounds, and every sum in it is right."""
    shard = Shard()
    cost, done = Cost(shard), 0
    for some in batched(_deeds("u", count), 1_000):
        shard.write(*some)
        shard.look(some[-1]["occurred_at"] * 1000 + SECOND)
        shard.run()
        cost.note(done := done + len(some))
    row = shard.processor.row("u")
    assert row is not None
    paid = len(range(0, count, 10))
    again = len(range(0, count, 50))
    assert shard.counts["duplicates", "OrderPaid"] == again
    assert sum(n for (kind, *_), n in shard.counts.items() if kind == "events") == count + again
    assert shard.counts["rejects", "cannot_apply"] == 0
    assert row.old_orders + len(row.orders) == paid
    assert row.old_spend_minor["CNY"] + sum(order.total_minor for order in row.orders.values()) == 100 * paid
    assert all(coupon.redeemed is not None for coupon in row.coupons.values())
    return Told("events of one user", count, shard.largest[b"u"], cost)


def batched(events: Iterable[Event], size: int) -> Iterator[list[Event]]:
    """The events, so many at a time."""
    rest = iter(events)
    while some := list(islice(rest, size)):
        yield some


# -- a bot

BUYERS = 20
"""In each minute."""


def bot(minutes: int, a_minute: int = 10_000) -> Told:
    """So many looks at products a minute by one user, while others buy: a small row, no messages, all of theirs."""
    shard = Shard(keep=True)
    cost = Cost(shard)
    _shop(shard, cost, minutes, a_minute)
    assert shard.counts["events", "ProductViewed"] == minutes * a_minute
    assert shard.counts["decisions", "repurchase_coupon", "fired"] == minutes * BUYERS
    row = shard.processor.row("bot")
    assert row is not None
    # of each minute's products, looked at once, the last ones are known; those of the minute before were let go
    assert [(view.product_id, view.visits) for view in row.views.values()] == [
        (f"p{n}", 1) for n in range(a_minute - MAX_VIEWS, a_minute)
    ]
    assert row.last_seen_at == NOON + (minutes - 1) * MINUTE + (a_minute - 1) * MINUTE // a_minute
    assert row.sent == ()
    alone = Shard(keep=True)
    _shop(alone, Cost(alone), minutes, 0)
    assert [output for output in shard.kept if output.key != b"bot"] == alone.kept
    assert len(alone.kept) >= minutes * BUYERS
    return Told(f"looks by a bot, {a_minute} a minute", minutes * a_minute, shard.largest[b"bot"], cost)


def _shop(shard: Shard, cost: Cost, minutes: int, a_minute: int) -> None:
    """So many minutes with buyers in each, and so many looks by a bot; and two days after them."""
    for minute in range(minutes):
        start = NOON + minute * MINUTE
        looks = [
            event(
                "ProductViewed",
                f"b{minute}-{n}",
                "bot",
                start + n * MINUTE // a_minute,
                {"product_id": f"p{n}", "category": f"c{n % 50}"},
            )
            for n in range(a_minute)
        ]
        buys = [_purchase(f"u{minute}-{n}", start + n * SECOND) for n in range(BUYERS)]
        shard.write(*looks, *buys)
        shard.look(start + MINUTE)
        shard.run()
        cost.note((minute + 1) * a_minute)
    shard.look(NOON + 2 * DAY)
    shard.run()


def _purchase(user: str, at: int) -> Event:
    lines = [{"product_id": "p", "quantity": 1, "category": "tea"}]
    return event(
        "OrderPaid", f"o-{user}", user, at, {"order_id": user, "currency": "CNY", "total": "5.00", "lines": lines}
    )


# -- timers


def timers(count: int, limit: int = CHUNK) -> Told:
    """So many timers due at the same instant: bounded batches, each once, and what comes meanwhile does not wait."""
    shard = Shard(load(THREE))  # nothing competes, so that each fires at once
    for some in batched(map(_coupon, range(count)), CHUNK):
        shard.write(*some)
        shard.look(NOON + SECOND)
        shard.run()
    assert shard.processor.pending_timers == count
    cost, due = Cost(shard), NOON + 7 * DAY
    shard.look(due + 6 * SECOND)
    came = waited = 0
    while len(shard.sent) < count:
        shard.write(event("UserLoggedIn", f"l{came}", "visitor", due, {}))
        came += 1
        shard.look(due + 6 * SECOND + came * SECOND)
        batch = shard.take(limit)
        assert batch is not None
        assert len(batch.rows) <= limit + 1  # and the shard's own record
        waited = max(waited, came - shard.counts["events", "UserLoggedIn"])
        cost.note(len(shard.sent))
    assert set(shard.sent.values()) == {1}
    # until it is known to be a storm its timers fill whole batches; from then on every batch takes events as well
    assert waited <= 1 + -(-STORM // limit)
    assert came > count // limit
    largest = max(size for key, size in shard.largest.items() if key.startswith(b"t"))
    return Told(f"timers at one instant, {limit} a batch", count, largest, cost)


def _coupon(number: int) -> Event:
    fields = {"coupon_id": f"c{number}", "value": "2.00", "currency": "CNY", "expires_at": (NOON + 60 * DAY) // 1000}
    return event("CouponIssued", f"e{number}", f"t{number}", NOON, fields)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.storms", description=__doc__)
    parser.add_argument("--size", type=float, default=1.0, help="a part of a million, such as 0.1")
    size = parser.parse_args().size
    print(busy_user(int(1_000_000 * size)), flush=True)
    print(bot(max(2, int(100 * size))), flush=True)
    print(timers(int(1_000_000 * size)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
