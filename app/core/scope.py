"""The typed view that conditions, timings, reasons and facts of a rule may read: the one list of names.

A name is looked up only when an expression mentions it. Names that do not apply to a run have a value all the same
('' , 0, never), so that an expression cannot fail on a missing one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from app.core import calendar, looks
from app.core.latest import of_the_latest
from app.core.packs import coupons_of
from app.core.policy import Policy
from app.core.purchases import (
    bought_since,
    buying_since,
    is_paid,
    is_split,
    last_order_at,
    paid_orders,
    purchase_before,
    usual_gap,
)
from app.core.row import NEVER, Cart, Coupon, Order, OrderLine, Row, Run, View
from schemas.instant import DAY

Kind = Literal["instant", "duration", "int", "string", "bool", "money"]


class Scope(Struct, frozen=True, gc=False):
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


#: Silence below these is never a sign, microseconds (product.md).
AT_RISK_MIN = 30 * DAY
CHURNED_MIN = 60 * DAY
#: How long a silence is one, by the gap between purchases that is usual; microseconds.
SILENCES: dict[str, Callable[[int], int]] = {
    "at_risk": lambda gap: max(AT_RISK_MIN, gap * 3 // 2),
    "churned": lambda gap: max(CHURNED_MIN, gap * 3),
}

NO_COUPON = Coupon("")
NO_ORDER = Order("")


def usable(coupon: Coupon) -> bool:
    """Whether nothing that ended the coupon has been seen; the passing of time is not asked here."""
    return coupon.issued_at is not None and coupon.redeemed is None and coupon.revoked is None


def coupon_of(scope: Scope) -> Coupon:
    """The coupon a run is about: its own, or of a pack the usable one that expires first, and is not locked if it can
    be helped."""
    row, key = scope.row, scope.run.key
    if scope.run.kind == "coupon":
        return row.coupons.get(key, NO_COUPON)
    pack = [c for c in coupons_of(row, key) if (c.pack_id or c.coupon_id) == key]
    open_ones = [c for c in pack if usable(c)]
    best = [c for c in open_ones if locked_until(c) <= scope.now] or open_ones or pack
    return min(best, key=lambda c: (c.expires_at, c.coupon_id), default=NO_COUPON)


def order_of(scope: Scope) -> Order:
    """The order a run was entered by."""
    return scope.row.orders.get(scope.run.order_id or "", NO_ORDER)


def taken_back(order: Order) -> bool:
    """Whether the order was cancelled or refunded and so does not count, paid or not."""
    return (order.cancelled_at is not None or order.refunded_whole) and not is_paid(order)


#: What takes an order back, and what comes of that: what enters by these is not what the order had started.
AFTERMATH = frozenset({"OrderCancelled", "OrderRefunded", "CouponReturned", "AfterSaleOpened", "AfterSaleClosed"})


def is_open(row: Row, order: Order) -> bool:
    """Whether the order is placed (or its deposit paid) and neither paid nor cancelled, nor split into parts that are
    paid one by one."""
    begun = order.placed_at is not None or order.deposit_at is not None
    return begun and order.paid_at is None and order.cancelled_at is None and not is_split(row, order.order_id)


def locked_until(coupon: Coupon) -> int:
    """From when on a coupon can be used, by its lock alone; NEVER while only a word can end that."""
    return coupon.locked_until if coupon.locked_at is not None else -1


def coupon_in_hand(row: Row, now: int) -> Coupon | None:
    """A coupon that the user could use now: the one that expires first."""
    usable_now = [
        c for c in row.coupons.values() if usable(c) and c.valid_from <= now < c.expires_at and locked_until(c) <= now
    ]
    return min(usable_now, key=lambda c: (c.expires_at, c.coupon_id), default=None)


def category_of(view: View) -> str:
    """What a look counts for: the category, else the product type, else the product."""
    return view.category or view.product_type or view.product_id


def best_view(scope: Scope) -> View | None:
    """Of the products of the run's category that were looked at since the entry, the one with most visits, then the
    longest look, then the latest, as of now. What was looked at before, and looks before it was bought, are past."""
    key, since, now = scope.run.key, scope.run.entered_at, scope.now
    of_late = [v for v in scope.row.views.values() if v.last_at >= since and category_of(v) == key]
    since_first = bought_since(scope.row, key, min(map(looks.first, of_late), default=NEVER))
    last = max([at for at, counts in since_first if counts and at <= now], default=-1)
    seen = [v for view in of_late if (v := looks.as_of(view, now, last)) is not None and v.last_at >= since]
    return max(seen, key=lambda v: (v.visits, v.dwell, v.last_at, v.product_id), default=None)


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


def _usual_gap(scope: Scope, until: int = NEVER) -> int:
    """The user's own gap between purchases (those before an instant), else the shop's."""
    own = usual_gap(scope.row, until)
    return scope.policy.usual_gap if own is None else own


def _of_user(kind: Kind, about: str, read: Callable[[Scope], Any]) -> Variable:
    return Variable(kind, frozenset(), about, read)


def _instant(at: int | None) -> int:
    """An instant that may not have been; the beginning of time then."""
    return -1 if at is None else at


def _since(now: int, at: int | None) -> int:
    return NEVER if at is None else now - at


def _silent_for(scope: Scope) -> int:
    return _since(scope.now, last_order_at(scope.row))


def _was_silent_for(scope: Scope) -> int:
    """Who buys twice in a day was not silent between; nor before, when there was nothing before."""
    since = buying_since(scope.row, scope.run.entered_at)
    before = purchase_before(scope.row, since)
    return _since(since, before) if before is not None or since == scope.run.entered_at else 0


def _has_coupon(scope: Scope) -> bool:
    return coupon_in_hand(scope.row, scope.now) is not None


def _birthday(scope: Scope) -> int:
    return calendar.birthday(scope.row, scope.run, scope.policy)


def _anniversary(scope: Scope) -> int:
    return calendar.anniversary(scope.row, scope.run, scope.policy)


def _days_later(scope: Scope) -> int:
    return calendar.days_between(scope.row, scope.run.entered_at, scope.now, scope.policy)


def _open_orders(scope: Scope) -> int:
    deadlines = (o.deposit_until or o.pay_deadline or NEVER for o in scope.row.orders.values() if is_open(scope.row, o))
    return sum(deadline > scope.now for deadline in deadlines)


USER: dict[str, Variable] = {
    "user.paid_orders": _of_user("int", "paid orders that count", lambda s: paid_orders(s.row)),
    "user.open_orders": _of_user(
        "int", "orders that can still be paid: neither paid nor cancelled, nor past their deadline", _open_orders
    ),
    "user.registered_at": _of_user("instant", "when the account was opened", lambda s: _instant(s.row.registered_at)),
    "user.has_history": _of_user(
        "bool",
        "the registration, or a baseline, tells of the user from before the entry on",
        lambda s: s.row.registered_at is not None and s.row.registered_at <= s.run.entered_at,
    ),
    "user.orders_before": _of_user(
        "int", "orders before our first event (baseline)", lambda s: s.row.baseline.orders if s.row.baseline else 0
    ),
    "user.last_order_at": _of_user("instant", "the latest purchase", lambda s: _instant(last_order_at(s.row))),
    "baseline.last_order_at": _of_user(
        "instant",
        "the latest purchase before our first event",
        lambda s: _instant(s.row.baseline.last_order_at if s.row.baseline else None),
    ),
    "user.silent_for": _of_user("duration", "time since the latest purchase", _silent_for),
    "user.was_silent_for": _of_user(
        "duration",
        "time between the entry (with other purchases of its day) and the purchase before it",
        _was_silent_for,
    ),
    "user.bought_before": _of_user(
        "bool", "there was a purchase before the entry", lambda s: purchase_before(s.row, s.run.entered_at) is not None
    ),
    "user.unseen_for": _of_user(
        "duration", "time since the user was seen", lambda s: _since(s.now, s.row.last_seen_at)
    ),
    "user.came_back": _of_user(
        "bool",
        "the user was seen again, more than half an hour after the entry",
        lambda s: (s.row.last_seen_at or 0) > s.run.entered_at + 1_800_000_000,
    ),
    "user.usual_gap": _of_user("duration", "the user's own gap between purchases; else the shop's", _usual_gap),
    "user.coupon_in_hand": _of_user("bool", "a coupon could be used now", _has_coupon),
    "user.has_birthday": _of_user("bool", "the profile names a birthday", lambda s: s.row.birthday is not None),
    "event.names_birthday": _of_user(
        "bool", "this event named the birthday, or changed it", lambda s: s.row.birthday_at == s.now
    ),
    "user.birthday": _of_user("instant", "09:00 of the next birthday that is a week off", _birthday),
    "user.anniversary": _of_user("instant", "09:00 of the next anniversary", _anniversary),
    "user.stage": _of_user("string", "life stage", lambda s: s.row.stage),
    "silence.at_risk": _of_user(
        "duration", "silence beyond the user's rhythm", lambda s: SILENCES["at_risk"](_usual_gap(s))
    ),
    "silence.churned": _of_user(
        "duration", "silence after which a customer counts as gone", lambda s: SILENCES["churned"](_usual_gap(s))
    ),
    "silence.churned_before": _of_user(
        "duration",
        "as silence.churned, by the rhythm of the purchases before the entry",
        lambda s: SILENCES["churned"](_usual_gap(s, buying_since(s.row, s.run.entered_at))),
    ),
    "policy.magic_number": _of_user("int", "orders after which a next one is likely", lambda s: s.policy.magic_number),
    "event.days_later": _of_user(
        "int",
        "local days between the entry and this event",
        _days_later,
    ),
}

_ORDER = frozenset({"order"})


def _reminder_from(scope: Scope) -> int:
    """A pre-sale's balance can be paid from then on; any other order from when it was placed."""
    order = order_of(scope)
    return max(scope.run.entered_at, order.deposit_from or 0)


def _pay_deadline(scope: Scope) -> int:
    """Of a pre-sale whose deposit is paid, the balance's; else the order's own."""
    order = order_of(scope)
    return order.deposit_until or order.pay_deadline or NEVER


def _pay_within(scope: Scope) -> int:
    """The deadline; where none is named, a day."""
    deadline = _pay_deadline(scope)
    return deadline if deadline < NEVER else _reminder_from(scope) + DAY


def _companion(scope: Scope) -> str:
    """Who bought both needs neither."""
    bought = [line.product_type for line in order_of(scope).lines]
    companions = (scope.policy.companions.get(product_type, "") for product_type in bought)
    return next((name for name in companions if name and name not in bought), "")


def _main_category(scope: Scope) -> str:
    """The category (or product type, of a line without one) of most pieces; of equals, the one named first."""
    return _most_of(order_of(scope).lines)


@of_the_latest
def _most_of(lines: tuple[OrderLine, ...]) -> str:
    pieces: dict[str, int] = {}
    for line in lines:
        if line.kind != "gift":
            name = line.category or line.product_type
            pieces[name] = pieces.get(name, 0) + line.quantity
    return max(pieces, key=pieces.__getitem__, default="")


THINGS: dict[str, Variable] = {
    "order.id": Variable("string", _ORDER, "the order's id", lambda s: s.run.key),
    "order.total_minor": Variable("int", _ORDER, "what is to be paid, minor units", lambda s: order_of(s).total_minor),
    "order.is_open": Variable(
        "bool",
        _ORDER,
        "placed, and neither paid nor cancelled, nor split into parts",
        lambda s: is_open(s.row, order_of(s)),
    ),
    "order.payable_from": Variable("instant", _ORDER, "from when it can be paid", _reminder_from),
    "order.pay_deadline": Variable(
        "instant",
        _ORDER,
        "until when it must be paid",
        _pay_deadline,
    ),
    "order.pay_within": Variable(
        "instant", _ORDER, "until when it must be paid; a day, when nothing says so", _pay_within
    ),
    "order.pay_url": Variable("string", _ORDER, "where it is paid", lambda s: order_of(s).pay_url or ""),
    "order.companion": Variable(
        "string",
        _ORDER,
        "the product type that goes with what was bought; '' when the shop names none",
        _companion,
    ),
    "order.category": Variable(
        "string",
        _ORDER,
        "what most of it is",
        _main_category,
    ),
    "cart.size": Variable(
        "int",
        frozenset({"cart"}),
        "pieces in it",
        lambda s: sum(x.quantity for x in s.row.carts.get(s.run.key, Cart("", 0)).lines),
    ),
    "category": Variable("string", frozenset({"category"}), "the category looked at", lambda s: s.run.key),
    "view.visits": Variable(
        "int",
        frozenset({"category"}),
        "visits to the best product: looks at it half an hour apart, or more",
        lambda s: v.visits if (v := best_view(s)) else 0,
    ),
    "view.dwell": Variable(
        "duration", frozenset({"category"}), "longest look", lambda s: v.dwell * 1_000_000 if (v := best_view(s)) else 0
    ),
    "view.last_at": Variable(
        "instant", frozenset({"category"}), "the latest look at it", lambda s: v.last_at if (v := best_view(s)) else -1
    ),
    "view.title": Variable(
        "string",
        frozenset({"category"}),
        "the best product",
        lambda s: (v.title or v.product_id) if (v := best_view(s)) else "",
    ),
}

VARIABLES: dict[str, Variable] = {
    "entered_at": Variable("instant", frozenset(), "when the run was entered", lambda s: s.run.entered_at),
    "waited": Variable("duration", frozenset(), "time since the entry", lambda s: s.now - s.run.entered_at),
    **USER,
    **THINGS,
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
