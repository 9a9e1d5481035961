"""The order of arrival: within LATENESS it changes nothing that is timed, for any rule of the whole catalogue.

Two things are not a matter of the order alone. What fires at once does so when it is heard of. And an end that is seen
before release cancels, however much later than the due instant it happened: so what is known when a timer fires is the
same in both orders here, and only how it came to be known differs. Where nothing happens within LATENESS after an
instant at which something was decided, the arrival is free.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import groupby
from random import Random
from typing import Any

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.core.rules import index
from app.rulebook import load
from schemas import events as ev
from schemas.events import INPUT_TOPICS
from schemas.instant import parse_instant
from tests.core.shard import Shard
from tests.core.shop import DAY, HOUR, MINUTE
from tests.properties.histories import START

CATALOGUE = load()
TIMED = index({n: r for n, r in CATALOGUE.rules.items() if not r.steps[0].at_once}, CATALOGUE.policy)
LATENESS, SHORT = 3 * DAY, 2 * HOUR
END = START + 500 * DAY
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

_refunded = st.sampled_from(["o-1", "o-2", "o-3", "o-4", "h-1", "h-2"])
_orders, _coupons = st.sampled_from(["o-1", "o-2", "o-3", "o-4"]), st.sampled_from(["c-1", "c-2", "c-3"])
_channels = st.sampled_from(["push", "sms", "email", "wechat_service", "in_app"])
_products = st.sampled_from([("p-1", "milk_powder", "baby"), ("p-2", "diapers", "baby"), ("p-3", "soap", "bath")])
_kinds = st.sampled_from([{}, {}, {}, {"gift": True}, {"subscription": True}])


def _line(product: tuple[str, str, str], quantity: int, kind: dict[str, bool]) -> ev.Line:
    return ev.Line(product_id=product[0], product_type=product[1], category=product[2], quantity=quantity, **kind)


_lines = st.lists(st.builds(_line, _products, st.integers(1, 3), _kinds), max_size=3).map(tuple)
_back = st.lists(
    st.builds(lambda of, n: ev.LineQuantity(product_id=of[0], quantity=n), _products, st.integers(1, 3)), max_size=2
).map(tuple)


def _of(kind: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, dict[str, Any]]]:
    return st.tuples(st.just(kind), st.fixed_dictionaries(fields))


def _day(first: int, last: int) -> st.SearchStrategy[int]:
    return st.integers(first, last).map(lambda day: START + day * DAY)


_bought = {"order_id": _orders, "currency": st.just("CNY"), "total": st.just(Decimal(100)), "lines": _lines}
_refund = {"order_id": _refunded, "goods_returned": st.booleans()}
_look = {"dwell_seconds": st.sampled_from([None, 5.0, 50.0])}
_happening = st.one_of(
    _of(ev.UserRegistered),
    _of(
        ev.CustomerBaseline,
        registered_at=_day(-300, 20),
        orders=st.integers(0, 6),
        last_order_at=st.none() | _day(-200, 0),
    ),
    _of(ev.UserLoggedIn),
    _of(ev.OrderPlaced, **_bought, pay_deadline=st.none() | _day(1, 30)),
    _of(ev.OrderPaid, **_bought, coupons_used=st.lists(_coupons, max_size=1).map(tuple)),
    _of(ev.OrderPaid, **_bought),
    _of(ev.DepositPaid, order_id=_orders, currency=st.just("CNY"), amount=st.just(Decimal(10))),
    _of(ev.OrderReceived, order_id=_orders),
    _of(ev.OrderCancelled, order_id=_orders),
    _of(ev.OrderRefunded, **_refund),
    _of(ev.OrderRefunded, **_refund, lines=_back),
    _of(ev.OrderRefunded, **_refund, amount=st.sampled_from([Decimal(40), Decimal(100)]), currency=st.just("CNY")),
    _of(ev.AfterSaleOpened, order_id=_orders, case_id=st.sampled_from(["a", "b"])),
    _of(ev.AfterSaleClosed, order_id=_orders, case_id=st.sampled_from(["a", "b"])),
    _of(ev.CouponIssued, coupon_id=_coupons, expires_at=_day(10, 60), pack_id=st.sampled_from([None, "k"])),
    _of(ev.CouponLocked, coupon_id=_coupons),
    _of(ev.CouponReturned, coupon_id=_coupons),
    _of(ev.CouponRedeemed, coupon_id=_coupons),
    _of(ev.CouponRevoked, coupon_id=_coupons),
    st.builds(
        lambda of, look: (ev.ProductViewed, {"product_id": of[0], "category": of[2], **look}),
        _products,
        st.fixed_dictionaries(_look),
    ),
    _of(ev.CartUpdated, lines=_lines, cart_id=st.sampled_from([None, "b"])),
    _of(ev.CheckoutStarted, lines=_lines, order_id=st.none() | _orders, checkout_id=st.sampled_from([None, "x", "y"])),
    _of(
        ev.ProfileUpdated,
        time_zone=st.sampled_from([None, "Asia/Shanghai", "Europe/Berlin", "America/New_York"]),
        birthday=st.sampled_from([None, "--05-04", "1990-02-28"]),
    ),
    _of(ev.ConsentChanged, channel=_channels, granted=st.booleans()),
    _of(ev.Unsubscribed, channel=_channels),
    _of(ev.MessageSent, channel=_channels),
)


@st.composite
def lives(draw: st.DrawFn, days: int, most: int, bursts: int | None = None) -> list[ev.Event]:
    """Up to so many events of one user on so many days (or in so many bursts of two hours), in the order in which they
    happened, at instants of their own; before them, purchases that make a rhythm."""
    minutes = st.integers(0, days * DAY // MINUTE)
    if bursts is not None:
        begun = draw(st.lists(minutes, min_size=bursts, max_size=bursts))
        minutes = st.builds(int.__add__, st.sampled_from(begun), st.integers(0, SHORT // MINUTE - 1))
    found = draw(st.lists(st.tuples(minutes, _happening), max_size=most))
    found.sort(key=lambda moment: moment[0])
    old, gap = draw(st.integers(0, 5)), draw(st.integers(10, 80))
    history: list[ev.Event] = [
        ev.OrderPaid(
            event_id=f"h-{n}",
            user_id="u-1",
            occurred_at=START - n * gap * DAY,
            order_id=f"h-{n}",
            currency="CNY",
            total=Decimal(50),
            lines=(),
        )
        for n in range(old, 0, -1)
    ]
    return history + _without_doubt(
        [
            kind(event_id=f"e-{n:03}", user_id="u-1", occurred_at=START + minute * MINUTE + n, **fields)
            for n, (minute, (kind, fields)) in enumerate(found)
        ]
    )


def _without_doubt(life: list[ev.Event]) -> list[ev.Event]:
    """Without what contradicts itself, where only the order of arrival could decide: a checkout that is begun, an order
    that is placed or paid, a coupon that is issued or used, twice; an order that is taken back before it was begun; a
    birthday that is another one and then the first again."""
    begun: dict[str, int] = {}
    for each in life:
        if isinstance(each, ev.OrderPlaced | ev.OrderPaid):
            begun[each.order_id] = each.occurred_at
    seen: set[tuple[str, str | None]] = set()
    birthdays: list[str] = []
    kept: list[ev.Event] = []
    for each in life:
        if isinstance(each, ev.OrderCancelled | ev.OrderRefunded) and each.occurred_at < begun.get(each.order_id, 0):
            continue
        if isinstance(each, ev.ProfileUpdated) and each.birthday is not None:
            if each.birthday in birthdays[:-1]:
                continue
            birthdays += [each.birthday] if each.birthday not in birthdays else []
        if isinstance(each, ev.OrderPaid):  # a coupon that another order has used, or a till
            fresh = tuple(name for name in each.coupons_used if ("used", name) not in seen)
            each = replace(each, coupons_used=fresh)
            seen.update(("used", name) for name in fresh)
        once = {
            ev.UserRegistered: ("registered", ""),
            ev.CustomerBaseline: ("past", ""),
            ev.OrderPlaced: ("placed", getattr(each, "order_id", None)),
            ev.OrderPaid: ("paid", getattr(each, "order_id", None)),
            ev.CheckoutStarted: ("begun", getattr(each, "order_id", None) or getattr(each, "checkout_id", None)),
            ev.CouponIssued: ("issued", getattr(each, "coupon_id", None)),
            ev.CouponRedeemed: ("used", getattr(each, "coupon_id", None)),
        }.get(type(each))
        if once is None or once[1] is None or once not in seen:
            kept.append(each)
            seen.update([once] if once is not None else [])
    return kept


def _timed(shard: Shard) -> list[tuple[Any, ...]]:
    said = shard.sent(lambda t: "retracts" not in t and (t["trigger_id"], t["decided_at"], str(t["channel"])))
    return sorted(one for one in said if one)  # a retraction is said when it is heard of


def _in_spans(arriving: list[ev.Event]) -> list[tuple[Any, ...]]:
    """What is sent when time stands still for all that happened within a span of LATENESS."""
    shard = Shard(TIMED, inputs=INPUT_TOPICS, lateness=LATENESS)
    for span, those in groupby(arriving, key=_span):
        shard.clock(START + (span + 1) * LATENESS).run(*those)
    return _timed(shard.clock(END).run())


def _span(each: ev.Event) -> int:
    return (each.occurred_at - START) // LATENESS


@MANY
@given(lives(days=30, most=40), st.integers(0, 1 << 32))
def test_a_shuffle_within_the_lateness_gives_the_same_timed_triggers(life: list[ev.Event], seed: int) -> None:
    dice = Random(seed)
    arrival = sorted(life, key=lambda each: (_span(each), dice.random()))
    sent = _in_spans(life)
    event(f"shuffled: {arrival != life}, sent: {min(len(sent), 3)}")
    assert _in_spans(arrival) == sent


@MANY
@given(lives(days=30, most=40, bursts=4), st.integers(0, 1 << 32))
def test_where_nothing_follows_a_decision_at_once_the_arrival_is_free(life: list[ev.Event], seed: int) -> None:
    dice = Random(seed)
    late = {each.event_id: each.occurred_at + dice.randrange(SHORT) for each in life}
    arrival = sorted(life, key=lambda each: late[each.event_id])
    ordered, shuffled = (
        Shard(TIMED, inputs=INPUT_TOPICS, lateness=SHORT).write(*arriving).clock(END).run()
        for arriving in (life, arrival)
    )
    decided = {parse_instant(d["decided_at"]) for shard in (ordered, shuffled) for d in shard.decisions()}
    assume(not any(at < each.occurred_at <= at + SHORT for at in decided for each in life))
    event(f"shuffled: {arrival != life}, sent: {min(len(decided), 3)}")
    assert _timed(shuffled) == _timed(ordered)
