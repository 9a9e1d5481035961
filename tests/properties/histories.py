"""Histories of a few users for Hypothesis: orders, refunds, coupons and visits on a few days, in no good order.

Events happen in the first hour after noon in Shanghai; the catalogue of these tests makes everything due half a day
(and whole days) later, at night. So events of one day may arrive in any order without a timer coming between them.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from schemas import events as ev
from tests.catalogues import THREE
from tests.core.shop import DAY, INTERVALS, MINUTE, NO_NIGHT, at, catalogue

USERS = ("u-1", "u-2", "用户")
START = at("01-01")
LATENESS = 2 * 60 * MINUTE

_HALF_A_DAY_LATER = {
    "min(7d, coupon.validity / 2)": "min(180h, coupon.validity / 2)",
    "{after: 60d": "{after: 1452h",
    "policy.lead": "84h",
}


def _shipped(name: str) -> str:
    text = (THREE / f"{name}.yaml").read_text()
    for old, new in _HALF_A_DAY_LATER.items():
        text = text.replace(old, new)
    return text


_RULES = [_shipped(name) for name in ("coupon_unused", "replenishment", "winback")]
#: The shipped rules, due half a day after the hour in which things happen.
RULES = catalogue(*_RULES, shop=NO_NIGHT, intervals=INTERVALS)
#: The same in a shop with quiet hours.
NIGHTLY = catalogue(*_RULES, shop="locale: en\n", intervals=INTERVALS)


def _line(product_type: str, quantity: int, kind: str) -> ev.Line:
    return ev.Line(
        product_id=f"p-{product_type}",
        product_type=product_type,
        quantity=quantity,
        gift=kind == "gift",
        subscription=kind == "subscription",
    )


_types = st.sampled_from(["milk_powder", "daily_goods"])
_lines = st.lists(
    st.builds(_line, _types, st.integers(1, 3), st.sampled_from(["", "", "gift", "subscription"])),
    min_size=1,
    max_size=2,
).map(tuple)
_orders = st.sampled_from(["o-1", "o-2", "o-3", "o-4"])
_coupons = st.sampled_from(["c-1", "c-2", "c-3"])


def _order(kind: Any, order_id: str, lines: tuple[ev.Line, ...], used: str | None, gives: bool) -> Callable[..., Any]:
    fields: dict[str, Any] = {"order_id": order_id, "currency": "CNY", "total": Decimal(100), "lines": lines}
    fields["coupons_used"] = (used,) if used else ()
    if kind is ev.OrderPaid and gives:
        fields["coupons_issued"] = (ev.IssuedCoupon(coupon_id=f"c-of-{order_id}", expires_at=_day(100)),)
    return lambda **who: kind(**fields, **who)


def _day(day: int, minute: int = 0) -> int:
    return START + day * DAY + minute * MINUTE


def _plain(kind: Any, **fields: Any) -> Callable[..., Any]:
    return lambda **who: kind(**fields, **who)


def _refund(order_id: str, what: Any, goods: bool) -> Callable[..., Any]:
    fields: dict[str, Any] = {"order_id": order_id, "goods_returned": goods}
    if isinstance(what, tuple):
        fields["lines"] = (ev.LineQuantity(product_id=f"p-{what[0]}", quantity=what[1]),)
    elif what is not None:
        fields |= {"amount": Decimal(what), "currency": "CNY"}
    return lambda **who: ev.OrderRefunded(**fields, **who)


def _issue(coupon_id: str, pack: str | None, validity: int | None) -> Callable[..., Any]:
    def make(occurred_at: int, **who: Any) -> ev.CouponIssued:
        expires = None if validity is None else occurred_at + validity * DAY
        return ev.CouponIssued(coupon_id=coupon_id, pack_id=pack, expires_at=expires, occurred_at=occurred_at, **who)

    return make


_refunds = st.one_of(st.none(), st.sampled_from(["40", "100"]), st.tuples(_types, st.integers(1, 2)))
_happenings = st.one_of(
    st.builds(_order, st.just(ev.OrderPaid), _orders, _lines, st.none() | _coupons, st.booleans()),
    st.builds(_order, st.sampled_from([ev.OrderPlaced, ev.OrderPaid]), _orders, _lines, st.none(), st.just(False)),
    st.builds(_plain, st.just(ev.OrderCancelled), order_id=_orders),
    st.builds(_refund, _orders, _refunds, st.booleans()),
    st.builds(_plain, st.just(ev.OrderReceived), order_id=_orders),
    st.builds(_issue, _coupons, st.sampled_from([None, None, "p-1"]), st.sampled_from([None, 9, 15, 61])),
    st.builds(_plain, st.sampled_from([ev.CouponRedeemed, ev.CouponLocked, ev.CouponReturned]), coupon_id=_coupons),
    st.builds(_plain, st.sampled_from([ev.CouponRedeemed, ev.CouponLocked]), coupon_id=_coupons, order_id=_orders),
    st.builds(_plain, st.just(ev.CouponRevoked), coupon_id=_coupons),
    st.builds(_plain, st.just(ev.UserLoggedIn)),
    st.builds(
        _plain,
        st.just(ev.ProfileUpdated),
        time_zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Tokyo"]),
    ),
    st.builds(
        _plain,
        st.just(ev.CustomerBaseline),
        registered_at=st.just(_day(-400)),
        orders=st.just(2),
        last_order_at=st.integers(-100, 0).map(_day),
    ),
)


@st.composite
def histories(draw: st.DrawFn, users: int = 1, most: int = 14, days: int = 60) -> list[ev.Event]:
    """Events in the order in which they happened; an order is paid once, a coupon is issued once."""
    moments = st.tuples(st.integers(0, days), st.integers(0, 59), st.sampled_from(USERS[:users]), _happenings)
    count = draw(st.integers(0, most))
    found = draw(st.lists(moments, min_size=count, max_size=count))
    found.sort(key=lambda item: item[:3])
    history: list[ev.Event] = []
    once: set[tuple[Any, ...]] = set()
    for number, (day, minute, user, make) in enumerate(found):
        event = make(event_id=f"e-{number:03}", user_id=user, occurred_at=_day(day, minute))
        if isinstance(event, ev.OrderPlaced | ev.CouponIssued | ev.CustomerBaseline):
            which = getattr(event, "order_id", None) or getattr(event, "coupon_id", None)
            if (user, event.TYPE, which) in once:
                continue
            once.add((user, event.TYPE, which))
        history.append(event)
    return _without_doubt(history)


def _without_doubt(history: list[ev.Event]) -> list[ev.Event]:
    """Without what contradicts itself, where only the order of arrival could decide: a coupon that is said to be used
    twice, or held for another order than it is used in, or in an order that is cancelled and paid for afterwards."""
    cancelled: set[tuple[str, str]] = set()
    doubtful: set[tuple[str, str]] = set()
    uses: dict[tuple[str, str], set[str | None]] = {}
    for event in history:
        order = (event.user_id, getattr(event, "order_id", ""))
        if isinstance(event, ev.OrderCancelled):
            cancelled.add(order)
        elif isinstance(event, ev.OrderPaid):
            doubtful |= {order} & cancelled
            for name in event.coupons_used:
                uses.setdefault((event.user_id, name), set()).add(event.order_id)
    for event in history:
        if isinstance(event, ev.CouponRedeemed):
            uses.setdefault((event.user_id, event.coupon_id), {event.order_id})
    return [
        event
        for event in history
        if not isinstance(event, ev.CouponRedeemed | ev.CouponLocked)
        or (
            (event.user_id, event.order_id) not in doubtful
            and uses.get((event.user_id, event.coupon_id), {event.order_id}) == {event.order_id}
        )
    ]


def shuffled_days(draw: Callable[[Any], Any], history: list[ev.Event]) -> list[ev.Event]:
    """The same events, those of each day in any order."""
    days: dict[int, list[ev.Event]] = {}
    for event in history:
        days.setdefault((event.occurred_at - START) // DAY, []).append(event)
    return [event for day in sorted(days) for event in draw(st.permutations(days[day]))]
