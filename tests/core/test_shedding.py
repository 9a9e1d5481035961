"""What a row lets go of when it has grown too large: in which order, and what it never lets go of."""

from __future__ import annotations

from msgspec.structs import replace

from app.core import engine, facts
from app.core.moment import Moment
from app.core.policy import CHANNELS, FAMILIES
from app.core.purchases import paid_orders
from app.core.row import (
    LEDGER_MAX,
    MAX_CASES,
    MAX_CONSENTS,
    MAX_ENTRIES,
    MAX_MERGED,
    MAX_ORDERS,
    MAX_REFUNDS,
    MAX_SENT,
    Baseline,
    Consent,
    Mark,
    Order,
    Row,
    Sent,
    encode,
)
from app.processor import MAX_ROW_BYTES
from schemas import events as ev
from tests.core.giant import wide_id, wide_text
from tests.core.shop import (
    DAY,
    Desk,
    at,
    catalogue,
    event,
    issued,
    line,
    locked,
    paid,
    redeemed,
    refunded,
    rule_text,
)

LONG = "x" * 1_000
COUPONS = rule_text(enter="{on: CouponIssued, key: coupon}", ends="[{on: CouponRedeemed}]", reentry="every_key")


def lean(desk: Desk, less: int | None, when: str = "06-01") -> Row:
    """The row after it has let go of at least so many bytes; of all that it can for None."""
    moment = Moment(at(when), at(when), desk.catalogue, {}, {}, desk.trace)
    most = 0 if less is None else len(encode(desk.row)) - less
    desk.row = engine.lean(desk.row, most, moment)
    assert less is None or len(encode(desk.row)) <= most
    return desk.row


def test_looks_go_before_carts_and_the_oldest_first() -> None:
    desk = Desk().say(
        *(event(ev.ProductViewed, at("03-01") + n, product_id=f"p-{n}", title=LONG) for n in range(3)),
        *(event(ev.CartUpdated, at("03-01") + n, cart_id=f"k-{n}", lines=(line(title=LONG),)) for n in range(3)),
    )
    assert [set(lean(desk, 10).views), len(desk.row.carts)] == [{"p-1", "p-2"}, 3]
    assert [set(lean(desk, 1_500).views), len(desk.row.carts)] == [set(), 3]
    assert [set(lean(desk, 1_500).views), set(desk.row.carts)] == [set(), {"k-2"}]


def test_of_orders_the_lines_go_first_then_the_orders_and_never_their_count_or_sum() -> None:
    desk = Desk().say(*(paid(f"o-{n}", at("03-01") + n * DAY, line(title=LONG), total="90.00") for n in range(3)))
    desk.say(refunded("o-0", "03-10", "30.00", refund_id="r-1"))
    assert [bool(order.lines) for order in lean(desk, 10).orders.values()] == [False, True, True]
    row = lean(desk, None)
    assert (row.orders, paid_orders(row), row.old_spend_minor) == ({}, 3, {"CNY": 24_000})
    desk.say(refunded("o-0", "03-10", "30.00", refund_id="r-1"), paid("o-1", "03-02"))
    assert (paid_orders(desk.row), desk.row.old_spend_minor) == (3, {"CNY": 24_000})


def test_an_open_after_sale_case_goes_on_holding_messages() -> None:
    opened = event(ev.AfterSaleOpened, "03-03", order_id="o-1", case_id="a")
    desk = Desk().say(paid("o-1", "03-01", line()), paid("o-2", "03-02"), refunded("o-1", "03-02", "1", refund_id="r"))
    (order,) = lean(desk.say(opened), None).orders.values()
    assert (order.order_id, order.cases, order.refunds, order.lines) == ("o-1", ("a",), (), ())


def test_runs_that_are_over_go_before_coupons_that_are_spent_and_those_before_usable_ones() -> None:
    desk = Desk(catalogue(COUPONS))
    desk.say(*(issued(f"c-{n}", at("03-01") + n, batch=LONG) for n in range(4)))
    desk.say(redeemed("c-1", "03-02"), redeemed("c-2", "03-02", order_id="o-9"))
    row = lean(desk, 10)
    assert ([key for key in row.runs if row.runs[key][0].ends], len(row.coupons)) == (["a_rule\x1fc-2"], 4)
    assert set(lean(desk, 1_000).coupons) == {"c-0", "c-2", "c-3"}
    assert set(lean(desk, 1_000).coupons) == {"c-0", "c-3"}
    assert [key for _, key, *_ in desk.timers] == ["c-0", "c-3"]
    lean(desk, 900, when="03-03")  # usable: its run exits with it, for nobody would hear that it is used
    assert ([key for _, key, *_ in desk.timers], set(desk.row.coupons)) == (["c-3"], {"c-3"})
    assert desk.tallies["runs", "exited", "a_rule"] == 1
    assert not desk.say(redeemed("c-0", "03-04")).wait("03-31").triggers[1:]


def test_what_waited_in_a_run_that_is_let_go_gets_its_final_record() -> None:
    night = 'quiet_hours: {from: "21:00", until: "09:00"}\n'
    desk = Desk(catalogue(COUPONS, shop=night)).say(issued("c-1", "03-01 22:00")).wait("03-11 23:00")
    assert [decision.outcome for decision in desk.decisions] == ["deferred"]
    row = lean(desk, None, when="03-11 23:00")
    assert (row.runs, row.coupons) == ({}, {})
    last = desk.decisions[-1]
    assert (last.outcome, last.final, last.reason) == (
        "dropped", True, "While it waited, the run was let go, as there was no more room for it.",
    )  # fmt: skip


def test_names_of_products_go_before_the_runs_that_would_tell_them() -> None:
    rules = catalogue(rule_text(enter="{on: OrderPaid, each: line, key: product_type}", ends=None, reentry="every_key"))
    desk = Desk(rules).say(paid("o-1", "03-01", *(line(f"t-{n}", title=LONG) for n in range(3))))
    desk.row = replace(desk.row, orders={})
    row = lean(desk, 500)
    assert [run.data for (run,) in row.runs.values()] == [
        {"units": 1, "quantity": 1, "product_id": f"p-t-{n}"} for n in range(3)
    ]
    assert row.entries == {}
    assert lean(desk, None).runs == {}


def test_no_no_is_let_go_that_a_rule_could_ask_for() -> None:
    desk = Desk().say(
        *(event(ev.ConsentChanged, at("03-01") + n, channel=c, granted=False) for n, c in enumerate(CHANNELS)),
        *(event(ev.ConsentChanged, "03-02", channel=c, category=f, granted=False) for c in CHANNELS for f in FAMILIES),
        *(event(ev.Unsubscribed, "03-03", channel=channel) for channel in CHANNELS),
        *(event(ev.ConsentChanged, "03-04", channel=c, category=f, granted=False) for c in CHANNELS for f in FAMILIES),
    )
    asked = set(desk.row.consents)
    assert len(asked) == len(CHANNELS) * (len(FAMILIES) + 2) < MAX_CONSENTS
    for n in range(2 * MAX_CONSENTS):
        said = {"channel": f"pager-{n}"} if n % 2 else {"channel": "push", "category": f"weather-{n}"}
        desk.say(event(ev.ConsentChanged, at("03-05") + n, granted=n % 3 == 0, **said))
        assert len(desk.row.consents) <= MAX_CONSENTS
    left = set(desk.row.consents) - asked
    assert asked < set(desk.row.consents)
    assert not any(desk.row.consents[key].granted for key in sorted(left)[:-1])  # but the latest word, if it is a yes
    assert set(lean(desk, None).consents) == asked


def widest(user: str) -> Row:
    """Everything that a row keeps at the least, at its longest."""
    order = Order(
        "", wide_id(1), paid_at=1, placed_at=1, cases=tuple(wide_id(n) for n in range(MAX_CASES)),
        case_words=tuple((wide_id(n), 1, True) for n in range(MAX_CASES)), currency="CNY", pay_url=wide_text(1),
        refunds=tuple(wide_id(n) for n in range(MAX_REFUNDS)),
    )  # fmt: skip
    who = int(user[2:]) * 1_000_000
    return Row(
        user,
        ledger=bytes(12 * LEDGER_MAX),
        orders={wide_id(who + n): replace(order, order_id=wide_id(who + n)) for n in range(MAX_ORDERS)},
        forgotten=bytes(8 * facts.MAX_FORGOTTEN),
        old_spend_minor={f"{n:03}": 1 << 61 for n in range(180)},
        marks={kind.TYPE: Mark(1, wide_id(1), kind.TYPE, wide_id(1)) for kind in ev.EVENT_TYPES.values()},
        entries={f"rule\x1f{wide_text(who + n)}": n for n in range(MAX_ENTRIES)} | {"rule": 1},
        consents={f"{wide_id(n)}/{wide_text(n)}": Consent(n % 2 == 0, n) for n in range(MAX_CONSENTS)},
        sent=tuple(Sent(n, wide_id(n), wide_text(n), "") for n in range(MAX_SENT)),
        merged={wide_id(who + n): Baseline(1, 1, 1, 1, 1 << 61, "CNY") for n in range(MAX_MERGED)},
    )


def test_the_least_of_the_widest_row_leaves_an_event_half_of_the_bound() -> None:
    desk = Desk()
    desk.row = widest("u-1")
    assert len(encode(desk.row)) > 1.5 * MAX_ROW_BYTES
    assert len(encode(lean(desk, None))) < MAX_ROW_BYTES / 2
    assert [len(contact.family) for contact in desk.row.sent] == [64] * MAX_SENT
    assert (desk.row.consents, desk.row.entries) == ({}, {"rule": 1})


def test_a_coupon_that_waits_is_let_go_with_its_run() -> None:
    rules = catalogue(COUPONS + "holds: {from: CouponLocked, until: CouponReturned}\n")
    desk = Desk(rules).say(issued("c-1", "03-01"), locked("c-1", "03-02"))
    assert (lean(desk, None).runs, desk.row.coupons) == ({}, {})
