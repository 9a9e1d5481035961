"""What an event costs of a user who has done very much already, beside one who has not: a bot, a shop's test account.

One user does the same thing again and again, a second apart, in the real processor and without Kafka. CPU time counts.
The numbers depend on the machine; the ratio travels.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from decimal import Decimal

from app.backtest.driver import IN_MEMORY
from app.core.row import encode
from app.main import GC_THRESHOLDS
from app.processor import Plan, Processor, Record
from app.rulebook import load
from schemas import events as ev
from schemas.codec import DecodeOptions, encode_event
from schemas.events import Event
from schemas.instant import DAY, SECOND, parse_instant

START = parse_instant("2026-03-01T12:00:00+08:00")
#: How many of each come before the events that are timed.
BEFORE = (10, 100, 1_000, 8_000)
TIMED = 100
_USER = "u-1"


def _said(kind: type[Event], number: int, at: int, **what: object) -> Event:
    return kind(event_id=f"e-{number}", user_id=_USER, occurred_at=at, **what)


def _lines(number: int) -> tuple[ev.Line, ...]:
    name = f"{number}"
    return (ev.Line(product_id=name, category=name, product_type=name, quantity=1, unit_price=Decimal(10)),)


def _order(kind: type[Event], n: int, at: int) -> Event:
    return _said(kind, n, at, order_id=f"o-{n}", currency="CNY", total=Decimal(10), lines=_lines(n))


#: Each number is another thing.
THINGS: dict[str, Callable[[int, int], Event]] = {
    "coupons": lambda n, at: _said(ev.CouponIssued, n, at, coupon_id=f"c-{n}", expires_at=at + 30 * DAY),
    "checkouts": lambda n, at: _said(ev.CheckoutStarted, n, at, checkout_id=f"c-{n}", lines=_lines(n)),
    "carts": lambda n, at: _said(ev.CartUpdated, n, at, cart_id=f"c-{n}", lines=_lines(n)),
    "products viewed": lambda n, at: _said(
        ev.ProductViewed, n, at, product_id=f"p-{n}", category=f"c-{n}", dwell_seconds=60
    ),
    "orders placed": lambda n, at: _order(ev.OrderPlaced, n, at),
    "orders paid": lambda n, at: _order(ev.OrderPaid, n, at),
}


def cost(thing: Callable[[int, int], Event], before: int) -> tuple[float, int]:
    """Seconds of CPU of an event after so many, and the bytes of the row."""
    topic, spent = thing(0, START).TOPIC, 0.0
    processor = Processor(
        Plan(
            inputs=(topic,),
            partitions=1,
            partitioner="murmur2",
            clock="events",
            lateness=0,
            decode=DecodeOptions(),
            catalogue=load(),
            app_id="bench",
            erasure=IN_MEMORY,
            start="none",
        ),
        0,
    )
    processor.restored()
    for first, end in ((0, before), (before, before + TIMED)):
        events = (thing(number, START + number * SECOND) for number in range(first, end))
        records = [
            Record(number, e.occurred_at // 1000, _USER.encode(), encode_event(e))
            for number, e in enumerate(events, first)
        ]
        gc.collect()
        begun = time.process_time()
        processor.feed(topic, records, end)
        while processor.take(TIMED) is not None:
            pass
        spent = time.process_time() - begun
    row = processor.row(_USER)
    assert row is not None
    return spent / TIMED, len(encode(row))


def main(options: argparse.Namespace) -> int:
    before = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)  # as a worker has it
    print(f"{'one user has':<16} {'so many':>8} {'us CPU/event':>13} {'times the first':>16} {'bytes of the row':>17}")
    for name, thing in THINGS.items():
        least = 0.0
        for number in BEFORE:
            seconds, size = min(cost(thing, number) for _ in range(options.turns))
            least = least or seconds
            print(f"{name:<16} {number:>8,} {1e6 * seconds:>13.0f} {seconds / least:>16.1f} {size:>17,}", flush=True)
    gc.set_threshold(*before)
    return 0
