"""A user about whom everything is said at the greatest length, in so many events that every collection is full."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Any

import orjson

from app.core.row import MAX_CARTS, MAX_CASES, MAX_COUPONS, MAX_ORDERS, MAX_REFUNDS, MAX_SENT, MAX_VIEWS
from schemas.events import EVENT_TYPES
from schemas.instant import MINUTE, format_instant
from tests.core.shop import at

USER = "u-1"
_START = at("03-01")
_WIDE = "\U0001f476"  # four bytes in UTF-8


def wide_id(number: int) -> str:
    """The longest id there is, and no other is like it."""
    return f"{number:08}" + _WIDE * 248


def wide_text(number: int) -> str:
    """The longest text."""
    return f"{number:08}" + _WIDE * 2040


def giant_events() -> Iterator[tuple[str, bytes]]:
    """(topic, value), in the order of time; each value within what the worker accepts."""
    for number, body in enumerate(_bodies()):
        told = {
            "event_id": wide_id(number),
            "user_id": USER,
            "occurred_at": format_instant(_START + number * MINUTE, UTC),
        }
        yield EVENT_TYPES[body["type"]].TOPIC, orjson.dumps(told | body)


def _line(number: int, wide: bool) -> dict[str, Any]:
    if not wide:
        return {"product_id": f"p{number}", "product_type": f"t{number}", "category": f"c{number}", "quantity": 1}
    return {
        "product_id": wide_id(number), "product_type": wide_text(number), "category": wide_text(-number),
        "title": wide_text(number), "image_url": wide_text(number), "quantity": 1_000_000, "units": 1_000_000,
    }  # fmt: skip


def _order(number: int, wide: bool) -> dict[str, Any]:
    lines = [_line(number * 1_000 + n, wide) for n in range(25 if wide else 1_000)]
    return {
        "type": "OrderPaid", "order_id": wide_id(number), "parent_order_id": wide_id(number), "currency": "CNY",
        "total": "999999999.99", "lines": lines, "pay_url": wide_text(number),
        "coupons_used": [wide_id(n) for n in range(100)] if wide else [],
    }  # fmt: skip


def _bodies() -> Iterator[dict[str, Any]]:
    yield {"type": "UserRegistered"}
    for number in range(MAX_ORDERS):
        yield _order(number, wide=number % 2 == 0)
        for n in range(MAX_REFUNDS if number < 8 else 2):
            yield {
                "type": "OrderRefunded",
                "order_id": wide_id(number),
                "refund_id": wide_id(n),
                "amount": "1",
                "currency": "CNY",
            }
        for n in range(MAX_CASES if number < 8 else 2):
            yield {"type": "AfterSaleOpened", "order_id": wide_id(number), "case_id": wide_id(n)}
    for number in range(MAX_COUPONS):
        yield {
            "type": "CouponIssued", "coupon_id": wide_id(number), "pack_id": wide_id(number),
            "batch": wide_text(number), "value": "999999999.99", "min_spend": "999999999.99", "currency": "CNY",
            "categories": [wide_id(7)],
        }  # fmt: skip
        yield {"type": "CouponLocked", "coupon_id": wide_id(number), "order_id": wide_id(number)}
    for number in range(MAX_CARTS):
        lines = [_line(number * 100 + n, wide=True) for n in range(28)]
        yield {"type": "CartUpdated", "cart_id": wide_id(number), "lines": lines}
    for number in range(MAX_VIEWS):
        line = {name: value for name, value in _line(number, wide=True).items() if name not in ("quantity", "units")}
        yield {"type": "ProductViewed", **line, "dwell_seconds": 100}
    for number in range(MAX_SENT):
        yield {"type": "ConsentChanged", "channel": wide_id(number), "category": wide_text(number), "granted": True}
        yield {"type": "MessageSent", "channel": wide_id(number), "campaign": wide_text(number)}
