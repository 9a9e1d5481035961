"""The short hand in which scenarios say what happened: `{OrderPaid: u-1, order: o-1, lines: [milk_powder x 2]}`.

It is the contract with short names and sensible defaults, nothing else: the result is a plain event of the contract,
which then goes through the same door as any other. Everything is text here; YAML decides no types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from msgspec.structs import fields

from schemas.events import EVENT_TYPES, IssuedCoupon
from schemas.instant import format_instant, parse_instant
from schemas.nearest import nearest

SHORT = {
    "id": "event_id", "order": "order_id", "coupon": "coupon_id", "pack": "pack_id", "refund": "refund_id",
    "case": "case_id", "parent": "parent_order_id", "zone": "time_zone", "used": "coupons_used",
    "issues": "coupons_issued", "expires": "expires_at", "trigger": "trigger_id", "product": "product_id",
    "type": "product_type", "cart": "cart_id", "checkout": "checkout_id", "dwell": "dwell_seconds",
    "deadline": "pay_deadline", "balance_from": "balance_due_from", "balance_until": "balance_due_until",
}  # fmt: skip
_MONEY = ("total", "amount", "value", "spend", "min_spend")
_NUMBERS = ("orders", "points", "quota", "dwell_seconds")
FEEDBACK = ("MessageSent", "MessageFailed", "MessageOpened", "MessageClicked", "Unsubscribed")
_SWITCHES = ("goods_returned", "granted")
_LINE = re.compile(r"(?:(gift|subscription) )?([\w-]+)(?: x (\d+))?(?: of (\d+) units)?(?: in ([\w-]+))?")
_WHEN = re.compile(r"\d{4}-\d\d-\d\d(?: \d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)?")


class NotationError(ValueError):
    """Something in a scenario cannot be read; the message says what to write instead."""


def instant(text: str, zone: ZoneInfo) -> int:
    """'2026-03-01', '2026-03-01 08:15', '... 08:15:30', '... 08:15:30.000001' on the zone's wall clock, or RFC 3339
    with an offset -> microseconds UTC. Raises NotationError."""
    text = str(text)
    try:
        if not _WHEN.fullmatch(text):
            return parse_instant(text)
        wall = datetime.fromisoformat(text if len(text) < 20 else text.ljust(26, "0"))
    except ValueError as error:
        raise NotationError(f"'{text}' is no instant: write 2026-03-01 08:15, with seconds if they matter.") from error
    return parse_instant(wall.replace(tzinfo=zone).isoformat())


def event(values: Mapping[str, Any], at: int, number: int, zone: ZoneInfo) -> dict[str, Any]:
    """The event of the contract that an entry stands for; `number` names it (e-1, e-2...) when it has no id of its own.

    Raises NotationError."""
    kinds = [name for name in values if name in EVENT_TYPES]
    if len(kinds) != 1:
        near = nearest(next(iter(values), ""), EVENT_TYPES)
        hint = f" Did you mean {near}?" if near else ""
        raise NotationError(f"An event names its type and its user, such as {{UserLoggedIn: u-1}}.{hint}")
    kind = kinds[0]
    allowed = {field.name for field in fields(EVENT_TYPES[kind])}
    result: dict[str, Any] = {
        "event_id": f"e-{number}",
        "type": kind,
        "user_id": values[kind],
        "occurred_at": format_instant(at, zone),
    }
    for name, value in values.items():
        if name != kind:
            _put(result, name, value, allowed, zone)
    return _with_defaults(result, allowed)


def _put(result: dict[str, Any], name: str, value: Any, allowed: set[str], zone: ZoneInfo) -> None:
    full = SHORT.get(name, name)
    if full not in allowed:
        near = nearest(full, allowed)
        hint = f"Did you mean {near}?" if near else f"It knows: {', '.join(sorted(allowed))}."
        raise NotationError(f"There is no '{name}' in {result.get('type', 'a coupon')}. {hint}")
    if full == "lines":
        result[full] = [_line(text) for text in value]
    elif full == "coupons_issued":
        result[full] = [_issued(coupon, zone) for coupon in value]
    elif full in _MONEY:
        _money(result, full, value)
    elif full in _NUMBERS:
        result[full] = int(value)
    elif full in _SWITCHES:
        result[full] = value in ("yes", "true")
    elif full in ("valid_from", "pay_deadline") or full.endswith("_at") or full.startswith("balance_due"):
        result[full] = format_instant(instant(value, zone), zone)
    else:
        result[full] = value


def _money(result: dict[str, Any], name: str, value: str) -> None:
    """'20 CNY', or '15 %' of a percent coupon."""
    number, _, unit = value.partition(" ")
    result[name] = number
    if unit == "%":
        result["kind"] = "percent"
    else:
        result["currency"] = unit or "CNY"


def _line(text: str) -> dict[str, Any]:
    """'milk_powder x 2', 'gift diapers', 'subscription milk_powder x 1', 'diapers x 1 of 3 units', 'diapers in baby'
    (its category). The product is named after its type, so that a refund or a receipt can be written alike."""
    match = _LINE.fullmatch(str(text))
    if match is None:
        raise NotationError(
            f"'{text}' is no line: write milk_powder x 2, gift diapers x 1, diapers x 1 of 3 units, or diapers in baby."
        )
    special, product_type, quantity, units, category = match.groups()
    line: dict[str, Any] = {
        "product_id": f"p-{product_type}",
        "product_type": product_type,
        "quantity": int(quantity or 1),
        "units": int(units or 1),
    }
    return line | ({special: True} if special else {}) | ({"category": category} if category else {})


def _issued(values: Mapping[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    result: dict[str, Any] = {}
    allowed = {field.name for field in fields(IssuedCoupon)}
    for name, value in values.items():
        _put(result, name, value, allowed, zone)
    return result


def _with_defaults(event: dict[str, Any], allowed: set[str]) -> dict[str, Any]:
    """What the contract asks for and a scenario seldom cares about."""
    kind = event["type"]
    if kind in ("OrderPlaced", "OrderPaid"):
        event.setdefault("total", "100.00")
        event.setdefault("currency", "CNY")
        event.setdefault("lines", [_line("something_else")])
    elif kind == "CustomerBaseline":
        event.setdefault("orders", 1)
        event.setdefault("registered_at", event.get("last_order_at", event["occurred_at"]))
    elif kind in ("OrderReceived", "OrderRefunded"):
        plain = {"product_id", "quantity"}
        event["lines"] = [{k: line[k] for k in plain} for line in event.get("lines", [])]
    elif "lines" in allowed:
        event.setdefault("lines", [])
    elif kind == "DepositPaid":
        event.setdefault("amount", "10.00")
        event.setdefault("currency", "CNY")
    elif kind in FEEDBACK:
        event.setdefault("channel", "push")
    return event
