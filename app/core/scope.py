"""The typed view that conditions, timings, reasons and facts of a rule may read: the one list of names.

A name is looked up only when an expression mentions it. Names that do not apply to a run have a value all the same
('' , 0, never), so that an expression cannot fail on a missing one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from app.core.policy import Policy
from app.core.row import NEVER, Coupon, Order, Row, Run

Kind = Literal["instant", "duration", "int", "string", "bool", "money"]


class Scope(NamedTuple):
    """What an expression is evaluated against: the row, the run (or the draft of one at entry), the moment."""

    row: Row
    run: Run
    policy: Policy
    now: int


class Variable(NamedTuple):
    """A name of the view."""

    kind: Kind
    keys: frozenset[str]
    """The key kinds of rules that may use it; empty = all."""
    about: str
    read: Callable[[Scope], Any]


NO_COUPON = Coupon("")
NO_ORDER = Order("")


def usable(coupon: Coupon) -> bool:
    """Whether nothing that ended the coupon has been seen; the passing of time is not asked here."""
    return coupon.issued_at is not None and coupon.redeemed is None and coupon.revoked is None


def coupon_of(scope: Scope) -> Coupon:
    """The coupon a run is about: its own, or of a pack the usable one that expires first."""
    coupons = scope.row.coupons
    if scope.run.kind == "coupon":
        return coupons.get(scope.run.key, NO_COUPON)
    pack = [c for c in coupons.values() if (c.pack_id or c.coupon_id) == scope.run.key]
    open_ones = [c for c in pack if usable(c)] or pack
    return min(open_ones, key=lambda c: (c.expires_at, c.coupon_id), default=NO_COUPON)


def order_of(scope: Scope) -> Order:
    """The order a run was entered by."""
    return scope.row.orders.get(scope.run.order_id or "", NO_ORDER)


def is_paid(order: Order) -> bool:
    """Whether the order counts as a purchase now."""
    return (
        order.paid_at is not None
        and (order.cancelled_at is None or order.cancelled_at < order.paid_at)
        and not order.refunded_whole
    )


def taken_back(order: Order) -> bool:
    """Whether the order was cancelled or refunded and so does not count, paid or not."""
    return (order.cancelled_at is not None or order.refunded_whole) and not is_paid(order)


def paid_orders(row: Row) -> int:
    """Orders that count, split orders once."""
    known = {o.parent_id or o.order_id for o in row.orders.values() if is_paid(o)}
    return len(known) + row.old_orders + (row.baseline.orders if row.baseline else 0)


def last_order_at(row: Row) -> int | None:
    """The latest purchase that still counts."""
    instants = [o.paid_at for o in row.orders.values() if is_paid(o) and o.paid_at is not None]
    if row.old_last_order_at is not None:
        instants.append(row.old_last_order_at)
    if row.baseline and row.baseline.last_order_at is not None:
        instants.append(row.baseline.last_order_at)
    return max(instants, default=None)


def interval_of(scope: Scope) -> int:
    """How long one unit of the run's product type lasts."""
    return scope.policy.intervals.get(scope.run.key, NEVER)


def runs_out_at(scope: Scope) -> int:
    """Bought (or received, once that is known) + interval x units."""
    interval = interval_of(scope)
    if interval >= NEVER:
        return NEVER
    received = order_of(scope).received_at
    start = scope.run.entered_at if received is None else max(received, scope.run.entered_at)
    return min(start + interval * int(scope.run.data.get("units", 0)), NEVER)


def _coupon(kind: Kind, about: str, read: Callable[[Coupon], Any]) -> Variable:
    return Variable(kind, frozenset({"coupon", "pack"}), about, lambda scope: read(coupon_of(scope)))


def _validity(coupon: Coupon) -> int:
    return NEVER if coupon.expires_at >= NEVER else coupon.expires_at - coupon.valid_from


VARIABLES: dict[str, Variable] = {
    "entered_at": Variable("instant", frozenset(), "when the run was entered", lambda s: s.run.entered_at),
    "waited": Variable("duration", frozenset(), "time since the entry", lambda s: s.now - s.run.entered_at),
    "user.paid_orders": Variable("int", frozenset(), "paid orders that count", lambda s: paid_orders(s.row)),
    "user.last_order_at": Variable(
        "instant", frozenset(), "the latest purchase", lambda s: -1 if (at := last_order_at(s.row)) is None else at
    ),
    "baseline.last_order_at": Variable(
        "instant",
        frozenset(),
        "the latest purchase before our first event",
        lambda s: -1 if s.row.baseline is None or (at := s.row.baseline.last_order_at) is None else at,
    ),
    "user.silent_for": Variable(
        "duration",
        frozenset(),
        "time since the latest purchase",
        lambda s: NEVER if (at := last_order_at(s.row)) is None else s.now - at,
    ),
    "coupon.id": _coupon("string", "the coupon's id", lambda c: c.coupon_id),
    "coupon.kind": _coupon("string", "amount, percent, shipping or gift", lambda c: c.kind),
    "coupon.value": _coupon("string", "its value as issued", lambda c: c.value or ""),
    "coupon.value_minor": _coupon("int", "its value in minor units (cents)", lambda c: c.value_minor),
    "coupon.currency": _coupon("string", "ISO 4217 code", lambda c: c.currency or ""),
    "coupon.worth": _coupon("money", "its value in words", lambda c: c),
    "coupon.batch": _coupon("string", "the batch it belongs to", lambda c: c.batch or ""),
    "coupon.issued_at": _coupon("instant", "when it was issued", lambda c: c.issued_at or 0),
    "coupon.valid_from": _coupon("instant", "from when it can be used", lambda c: c.valid_from),
    "coupon.expires_at": _coupon("instant", "until when it can be used", lambda c: c.expires_at),
    "coupon.validity": _coupon("duration", "how long it can be used in all", _validity),
    "coupon.expires_in": Variable(
        "duration",
        frozenset({"coupon", "pack"}),
        "time left until it expires",
        lambda s: coupon_of(s).expires_at - s.now,
    ),
    "product_type": Variable("string", frozenset({"product_type"}), "what runs out", lambda s: s.run.key),
    "line.units": Variable(
        "int", frozenset({"product_type"}), "units bought", lambda s: int(s.run.data.get("units", 0))
    ),
    "line.replenishable": Variable(
        "bool",
        frozenset({"product_type"}),
        "its interval is known, and it is neither a gift nor a subscription",
        lambda s: interval_of(s) < NEVER and int(s.run.data.get("units", 0)) > 0,
    ),
    "supply.interval": Variable("duration", frozenset({"product_type"}), "how long one unit lasts", interval_of),
    "supply.runs_out_at": Variable(
        "instant", frozenset({"product_type"}), "bought (or received) + interval x units", runs_out_at
    ),
    "policy.lead": Variable(
        "duration", frozenset({"product_type"}), "how long before the run-out to remind", lambda s: s.policy.lead
    ),
}
