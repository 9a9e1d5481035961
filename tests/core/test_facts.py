"""Orders, coupons and profile: the same facts whatever the order of arrival, counted once, and bounded."""

from __future__ import annotations

import itertools
from decimal import Decimal
from itertools import permutations

import msgspec
import pytest

from app.core import facts, ids, purchases, row
from app.core.facts import Facts, Refused, summaries
from app.core.row import MAX_MINOR, Row, Sent
from app.core.scope import usable
from schemas import events as ev
from tests.core.shop import (
    Desk,
    at,
    baseline,
    cancelled,
    event,
    issued,
    line,
    locked,
    paid,
    placed,
    received,
    redeemed,
    refunded,
    returned,
    revoked,
    terms,
    whatever_arrives_first,
)


def known(*events: ev.Event) -> Row:
    """The row after these events, applied as facts alone."""
    current = Row("u-1")
    for each in events:
        after = facts.apply(current, each)
        assert isinstance(after, Facts)
        current = after.row
    return current


def agreed(*events: ev.Event) -> Row:
    """The row that every order of arrival leads to."""
    rows = [known(*order) for order in itertools.permutations(events)]
    for other in rows[1:]:
        assert _plain(other) == _plain(rows[0])
    return rows[0]


def _plain(current: Row) -> dict[str, object]:
    plain = msgspec.to_builtins(msgspec.structs.replace(current, ledger=b""))
    return {
        name: sorted(map(repr, value.values())) if isinstance(value, dict) else value
        for name, value in zip(Row.__struct_fields__, plain, strict=True)
    }


# -- orders


def test_an_order_is_counted_once_though_it_is_placed_and_paid_and_paid_again() -> None:
    current = known(placed("o-1", "03-01"), paid("o-1", "03-01 12:05"), paid("o-1", "03-02"))
    assert purchases.paid_orders(current) == 1
    assert purchases.last_order_at(current) == at("03-01 12:05")


def test_placing_an_order_that_is_paid_already_adds_only_when_it_was_placed() -> None:
    current = agreed(placed("o-1", "03-01", total="120.00"), paid("o-1", "03-01 12:05", line(), total="100.00"))
    order = current.orders["o-1"]
    assert (order.placed_at, order.paid_at, order.total_minor) == (at("03-01"), at("03-01 12:05"), 10000)
    assert [each.product_type for each in order.lines] == ["milk_powder"]


def test_an_order_placed_twice_stays_as_it_was_placed_first() -> None:
    current = known(placed("o-1", "03-01", total="120.00"), placed("o-1", "03-02", total="99.00"))
    assert current.orders["o-1"].total_minor == 12000


def test_a_placed_order_is_no_purchase() -> None:
    assert purchases.paid_orders(known(placed("o-1", "03-01"))) == 0


def test_a_cancellation_after_the_payment_takes_the_order_back() -> None:
    assert purchases.paid_orders(agreed(paid("o-1", "03-01"), cancelled("o-1", "03-02"))) == 0


def test_a_cancellation_at_the_instant_of_the_payment_takes_the_order_back() -> None:
    assert purchases.paid_orders(agreed(paid("o-1", "03-01"), cancelled("o-1", "03-01"))) == 0


def test_a_payment_after_a_cancellation_stands() -> None:
    assert purchases.paid_orders(agreed(placed("o-1", "03-01"), cancelled("o-1", "03-02"), paid("o-1", "03-03"))) == 1


def test_the_later_of_two_cancellations_counts() -> None:
    assert (
        purchases.paid_orders(agreed(cancelled("o-1", "03-01"), paid("o-1", "03-02"), cancelled("o-1", "03-03"))) == 0
    )


def test_an_order_that_was_cancelled_and_is_paid_again_is_a_purchase_again() -> None:
    current = known(paid("o-1", "03-01"), cancelled("o-1", "03-02"), paid("o-1", "03-03"))
    assert purchases.paid_orders(current) == 1
    assert purchases.last_order_at(current) == at("03-03")


def test_a_payment_older_than_the_one_that_was_cancelled_does_not_bring_the_order_back() -> None:
    assert purchases.paid_orders(known(paid("o-1", "03-02"), cancelled("o-1", "03-03"), paid("o-1", "03-01"))) == 0


def test_parts_of_an_order_that_the_shop_split_count_as_one() -> None:
    parts = [paid(f"o-1{part}", "03-01", parent_order_id="o-1") for part in "ab"]
    assert purchases.paid_orders(agreed(*parts, paid("o-2", "03-02"))) == 2


def test_a_split_order_counts_until_all_its_parts_are_refunded() -> None:
    parts = [paid(f"o-1{part}", "03-01", parent_order_id="o-1") for part in "ab"]
    assert purchases.paid_orders(agreed(*parts, refunded("o-1a", "03-02"))) == 1
    assert purchases.paid_orders(agreed(*parts, refunded("o-1a", "03-02"), refunded("o-1b", "03-02"))) == 0


def test_the_earliest_receipt_of_an_order_counts() -> None:
    current = agreed(paid("o-1", "03-01"), received("o-1", "03-03"), received("o-1", "03-05"))
    assert current.orders["o-1"].received_at == at("03-03")


# -- refunds


def test_a_refund_of_nothing_in_particular_is_one_of_the_whole_order() -> None:
    order = agreed(paid("o-1", "03-01", line()), refunded("o-1", "03-02")).orders["o-1"]
    assert order.refunded_whole
    assert order.returned_whole
    assert not purchases.is_paid(order)


def test_money_without_goods_takes_the_purchase_back_and_leaves_the_goods() -> None:
    order = agreed(paid("o-1", "03-01", line()), refunded("o-1", "03-02", goods_returned=False)).orders["o-1"]
    assert not purchases.is_paid(order)
    assert facts.groups_of(order)["milk_powder"].units == 1


def test_the_whole_sum_in_parts_is_a_refund_of_the_order_and_its_goods() -> None:
    parts = refunded("o-1", "03-02", "60.00"), refunded("o-1", "03-03", "40.00")
    order = agreed(paid("o-1", "03-01", line()), *parts).orders["o-1"]
    assert not purchases.is_paid(order)
    assert facts.groups_of(order)["milk_powder"].units == 0


def test_the_whole_sum_for_goods_that_stay_leaves_the_goods() -> None:
    order = agreed(paid("o-1", "03-01", line()), refunded("o-1", "03-02", "100.00", goods_returned=False)).orders["o-1"]
    assert not purchases.is_paid(order)
    assert facts.groups_of(order)["milk_powder"].units == 1


def test_a_part_of_the_sum_changes_neither_the_purchase_nor_the_goods() -> None:
    order = agreed(paid("o-1", "03-01", line()), refunded("o-1", "03-02", "99.99")).orders["o-1"]
    assert purchases.is_paid(order)
    assert facts.groups_of(order)["milk_powder"].units == 1


@pytest.mark.parametrize(
    ("currency", "whole", "part"), [("CNY", "100.00", "99.99"), ("JPY", "100", "99"), ("KWD", "1.005", "1.004")]
)
def test_a_refund_that_names_no_currency_is_in_the_orders_whichever_is_heard_of_first(
    currency: str, whole: str, part: str
) -> None:
    bought = paid("o-1", "03-01", line(), total=whole, currency=currency)
    for amount, undone in ((whole, True), (part, False)):
        order = agreed(bought, refunded("o-1", "03-02", amount, currency=None)).orders["o-1"]
        assert (order.refunded_whole, order.refunded_unnamed) == (undone, 0)
        assert (order.refunded_minor == order.total_minor) == undone
    cents = agreed(bought, *(refunded("o-1", "03-02", part, currency=None) for _ in range(2))).orders["o-1"]
    assert cents.refunded_whole
    early = refunded("o-1", "03-02", "999999999999999", currency=None)
    assert agreed(early).orders["o-1"].refunded_unnamed == MAX_MINOR


def test_every_piece_back_is_a_refund_of_the_order_whatever_the_sum() -> None:
    back = refunded("o-1", "03-02", "90.00", lines={"milk_powder": 2, "daily_goods": 1})
    order = agreed(placed("o-1", "03-01"), paid("o-1", "03-01", line(quantity=2), line("daily_goods")), back).orders[
        "o-1"
    ]
    assert not purchases.is_paid(order)
    assert {name: group.units for name, group in facts.groups_of(order).items()} == {"milk_powder": 0, "daily_goods": 0}


def test_pieces_that_come_back_are_taken_off_the_lines_of_their_product() -> None:
    order = agreed(
        paid("o-1", "03-01", line(quantity=2, units=3), line("daily_goods"), line(quantity=1)),
        refunded("o-1", "03-02", lines={"milk_powder": 1}),
        refunded("o-1", "03-03", lines={"milk_powder": 1}),
    ).orders["o-1"]
    assert facts.groups_of(order)["milk_powder"] == facts.Group(1, False, 1, "p-milk_powder", None, None)
    assert purchases.is_paid(order)


def test_a_refund_of_lines_that_comes_before_the_payment_waits_for_it_though_the_order_was_placed() -> None:
    order = agreed(
        placed("o-1", "03-01", line(quantity=2)),
        refunded("o-1", "03-03", lines={"milk_powder": 1}),
        paid("o-1", "03-02", line(quantity=2)),
    ).orders["o-1"]
    assert facts.groups_of(order)["milk_powder"].units == 1
    assert not order.pending_returns


def test_pieces_whose_money_went_back_but_that_stayed_are_still_there() -> None:
    back = refunded("o-1", "03-02", lines={"milk_powder": 1}, goods_returned=False)
    order = agreed(paid("o-1", "03-01", line(quantity=2)), back).orders["o-1"]
    assert facts.groups_of(order)["milk_powder"].units == 2


def test_a_refund_is_counted_once_by_its_own_id() -> None:
    first, again = (refunded("o-1", day, "60.00", refund_id="r-1") for day in ("03-02", "03-03"))
    order = agreed(paid("o-1", "03-01"), first, again).orders["o-1"]
    assert order.refunded_minor == 6000
    assert purchases.is_paid(order)


def test_a_refund_in_another_currency_than_the_order_is_refused() -> None:
    after = facts.apply(known(paid("o-1", "03-01")), refunded("o-1", "03-02", "5.00", currency="EUR"))
    assert after == Refused("Order o-1 was paid in CNY; a refund in EUR cannot be it.", "currency")


def test_a_refund_that_comes_before_its_order_says_its_own_currency() -> None:
    yen = {"currency": "JPY"}
    refund = refunded("o-1", "03-02", "5000", **yen)
    assert agreed(paid("o-1", "03-01", total="9000", **yen), refund).orders["o-1"].refunded_minor == 5000


def test_ids_of_refunds_and_lines_that_wait_are_bounded() -> None:
    many = [refunded("o-1", "03-02", "0.01", refund_id=f"r-{n}") for n in range(row.MAX_REFUNDS + 5)]
    lines = [refunded("o-1", "03-02", lines={f"t{n}": 1}) for n in range(row.MAX_REFUNDS + 5)]
    order = known(*many, *lines).orders["o-1"]
    assert len(order.refunds) == len(order.pending_returns) == row.MAX_REFUNDS


def test_no_sum_grows_beyond_what_a_row_can_hold() -> None:
    much = Decimal("9" * 15)
    refunds = [refunded("o-1", "03-02", str(much), currency="CLF", refund_id=f"r-{n}") for n in range(5)]
    current = known(paid("o-1", "03-01", total=str(much), currency="CLF"), *refunds)
    assert current.orders["o-1"].refunded_minor == row.MAX_MINOR
    assert row.decode(row.encode(current)) == current


# -- what an order has of a product type


def test_gifts_are_no_purchase_of_their_type_and_subscriptions_have_no_units() -> None:
    order = known(
        paid("o-1", "03-01", line(gift=True), line("daily_goods", 3, subscription=True), line("", category=""))
    ).orders["o-1"]
    assert {n: (g.units, g.subscription) for n, g in facts.groups_of(order).items()} == {"daily_goods": (0, True)}


def test_lines_of_one_type_are_one_purchase_of_it() -> None:
    order = known(
        paid("o-1", "03-01", line(quantity=2, units=3, title="Can"), line(units=1), line(subscription=True))
    ).orders["o-1"]
    assert facts.groups_of(order) == {"milk_powder": facts.Group(7, True, 3, "p-milk_powder", "Can", None)}


def test_a_line_without_a_type_runs_out_by_its_category() -> None:
    order = known(paid("o-1", "03-01", line(None, product_id="p-1", category="baby"))).orders["o-1"]
    assert list(facts.groups_of(order)) == ["baby"]


# -- what an order does to coupons


def test_a_coupon_used_in_an_order_is_free_again_when_the_order_is_taken_back() -> None:
    events = issued("c-1", "03-01"), paid("o-1", "03-02", coupons_used=("c-1",)), refunded("o-1", "03-03")
    assert usable(agreed(*events).coupons["c-1"])


def test_a_coupon_redeemed_in_an_order_is_free_again_though_the_cancellation_came_before_the_payment() -> None:
    current = agreed(
        issued("c-1", "03-01"),
        redeemed("c-1", "03-02", order_id="o-1"),
        paid("o-1", "03-02"),
        cancelled("o-1", "03-03"),
    )
    assert usable(current.coupons["c-1"])


def test_a_coupon_that_an_order_gave_is_gone_with_the_order() -> None:
    for events in itertools.permutations(
        (paid("o-1", "03-01", coupons_issued=(terms("c-1"),)), refunded("o-1", "03-02"), redeemed("c-1", "03-05"))
    ):
        current = known(*events)
        assert not usable(current.coupons["c-1"])


def test_a_refund_of_a_part_leaves_the_coupons_as_they_are() -> None:
    current = known(
        issued("c-1", "03-01"),
        paid("o-1", "03-02", coupons_used=("c-1",), coupons_issued=(terms("c-2"),)),
        refunded("o-1", "03-03", "10.00"),
    )
    assert [name for name, coupon in current.coupons.items() if usable(coupon)] == ["c-2"]


def test_a_lock_does_not_outlive_the_order_that_the_coupon_was_used_in() -> None:
    current = agreed(
        issued("c-1", "03-01"),
        locked("c-1", "03-02", order_id="o-1"),
        paid("o-1", "03-02 13:00", coupons_used=("c-1",)),
    )
    freed = facts.apply(current, refunded("o-1", "03-03"))
    assert isinstance(freed, Facts)
    assert freed.row.coupons["c-1"].locked_at is None


def test_a_lock_for_another_order_outlives_the_one_that_was_taken_back() -> None:
    current = known(
        issued("c-1", "03-01"),
        paid("o-1", "03-02", coupons_used=("c-1",)),
        locked("c-1", "03-03", order_id="o-2"),
        refunded("o-1", "03-04"),
    )
    coupon = current.coupons["c-1"]
    assert usable(coupon)
    assert (coupon.locked_at, coupon.locked_by) == (at("03-03"), "o-2")


# -- coupons


def test_a_coupon_is_issued_once() -> None:
    current = known(issued("c-1", "03-01", "20.00"), issued("c-1", "03-02", "99.00"))
    coupon = current.coupons["c-1"]
    assert (coupon.value, coupon.value_minor, coupon.issued_at) == ("20.00", 2000, at("03-01"))


def test_a_coupon_in_an_order_is_issued_by_it() -> None:
    coupon = known(paid("o-1", "03-01", coupons_issued=(terms("c-1", None, kind="gift"),))).coupons["c-1"]
    assert (coupon.order_id, coupon.kind, coupon.value, coupon.value_minor) == ("o-1", "gift", None, 0)
    assert coupon.valid_from == at("03-01")
    assert coupon.expires_at == row.NEVER


def test_the_life_of_a_coupon_is_the_same_whatever_arrives_first() -> None:
    assert not usable(agreed(issued("c-1", "03-01"), redeemed("c-1", "03-02")).coupons["c-1"])
    assert not usable(agreed(issued("c-1", "03-01"), revoked("c-1", "03-02")).coupons["c-1"])
    assert usable(agreed(issued("c-1", "03-01"), redeemed("c-1", "03-02"), returned("c-1", "03-03")).coupons["c-1"])
    locking = issued("c-1", "03-01"), locked("c-1", "03-02"), returned("c-1", "03-03")
    assert agreed(*locking).coupons["c-1"].locked_at is None
    assert agreed(*locking, locked("c-1", "03-04")).coupons["c-1"].locked_at == at("03-04")
    assert not usable(agreed(*locking, redeemed("c-1", "03-04")).coupons["c-1"])


def test_a_coupon_is_revoked_and_redeemed_once() -> None:
    current = known(
        revoked("c-1", "03-02"), revoked("c-1", "03-03"), redeemed("c-1", "03-04"), redeemed("c-1", "03-05")
    )
    assert current.coupons["c-1"].revoked.at == at("03-02")
    assert current.coupons["c-1"].redeemed.at == at("03-04")


# -- bounds


def orders(count: int, first_day: int = 0) -> list[ev.OrderPaid]:
    start = at("01-01")
    return [paid(f"o-{n}", start + (first_day + n) * 86_400_000_000, line()) for n in range(count)]


def test_orders_that_are_summarised_still_count() -> None:
    current = known(*orders(100))
    assert len(current.orders) == row.MAX_ORDERS
    assert purchases.paid_orders(current) == 100
    assert purchases.last_order_at(current) == at("01-01") + 99 * 86_400_000_000
    assert current.old_spend_minor == {"CNY": (100 - row.MAX_ORDERS) * 10000}


def test_an_order_that_was_summarised_changes_nothing_any_more() -> None:
    many = orders(100)
    oldest = paid("o-0", "01-01"), placed("o-0", "01-01"), cancelled("o-0", "06-01"), refunded("o-0", "06-01")
    others = received("o-0", "01-05"), event(ev.DepositPaid, "01-01", order_id="o-0", currency="CNY", amount=Decimal(1))
    assert known(*many, *oldest, *others) == known(*many)


def case(kind: type[ev.Event], when: str, order: str = "o-0") -> ev.Event:
    return event(kind, when, order_id=order, case_id="k-1")


def opened(current: row.Row) -> list[str]:
    """The orders with an open case."""
    return [order.order_id for order in current.orders.values() if order.cases]


@pytest.mark.parametrize("more", [row.MAX_ORDERS - 1, row.MAX_ORDERS, row.MAX_ORDERS + 1, 100])
def test_an_order_with_an_open_case_is_kept_while_others_can_make_room(more: int) -> None:
    first, *others = orders(more + 1)
    current = known(first, case(ev.AfterSaleOpened, "01-01"), *others)
    assert opened(current) == ["o-0"]
    assert current.orders["o-0"].paid_at is not None
    assert len(current.orders) == min(more + 1, row.MAX_ORDERS)
    assert ("o-1" in current.orders) == (more < row.MAX_ORDERS)
    assert purchases.paid_orders(current) == more + 1
    closed = known(first, case(ev.AfterSaleOpened, "01-01"), *others, case(ev.AfterSaleClosed, "12-01"))
    assert opened(closed) == []
    after = facts.apply(closed, paid("o-new", "12-02"))
    assert isinstance(after, Facts)
    assert ("o-0" in after.row.orders) == (more < row.MAX_ORDERS - 1)  # now it is the oldest


def test_where_every_order_has_an_open_case_the_oldest_makes_room() -> None:
    many = orders(row.MAX_ORDERS + 1)
    current = known(*(each for order in many for each in (order, case(ev.AfterSaleOpened, "12-01", order.order_id))))
    assert opened(current) == [order.order_id for order in many[1:]]
    assert purchases.paid_orders(current) == len(many)


@pytest.mark.parametrize("words", list(permutations(["opened", "closed", "again"])))
def test_a_case_of_an_order_that_was_summarised_is_kept_whichever_word_is_heard_of_first(
    words: tuple[str, ...],
) -> None:
    said = {
        "opened": case(ev.AfterSaleOpened, "12-01"),
        "closed": case(ev.AfterSaleClosed, "12-02"),
        "again": case(ev.AfterSaleOpened, "12-03"),
    }
    before = known(*orders(100))
    current = known(*orders(100), *(said[word] for word in words))
    assert opened(current) == ["o-0"]
    assert opened(known(*orders(100), *(said[word] for word in words if word != "again"))) == []
    assert len(current.orders) == row.MAX_ORDERS
    assert purchases.paid_orders(current) == purchases.paid_orders(before) == 100
    assert purchases.last_order_at(current) == purchases.last_order_at(before)


def test_an_order_that_is_kept_for_its_case_alone_changes_nothing_else_and_goes_first_when_it_is_closed() -> None:
    kept = known(*orders(100), case(ev.AfterSaleOpened, "12-01"))
    told = paid("o-0", "01-01"), placed("o-0", "01-01"), cancelled("o-0", "06-01"), refunded("o-0", "06-01")
    others = received("o-0", "01-05"), event(ev.DepositPaid, "01-01", order_id="o-0", currency="CNY", amount=Decimal(1))
    current = kept
    for each in (*told, *others):
        after = facts.apply(current, each)
        assert isinstance(after, Facts)
        assert after.happenings == ()
        current = after.row
    assert current == kept
    for each in (case(ev.AfterSaleClosed, "12-02"), paid("o-new", "12-03")):
        after = facts.apply(current, each)
        assert isinstance(after, Facts)
        current = after.row
    assert "o-0" not in current.orders
    assert len(current.orders) == row.MAX_ORDERS
    assert purchases.paid_orders(current) == 101
    assert sum(current.old_spend_minor.values()) == (101 - row.MAX_ORDERS) * 10000


def test_an_order_of_which_a_case_was_heard_first_can_still_be_paid() -> None:
    current = known(case(ev.AfterSaleOpened, "01-02"), paid("o-0", "01-01"))
    assert purchases.paid_orders(current) == 1
    assert opened(current) == ["o-0"]


def test_the_later_word_about_a_balance_counts_whichever_arrives_first() -> None:
    def deposit(when: str, due_from: str, until: str) -> ev.DepositPaid:
        due = {"balance_due_from": at(due_from), "balance_due_until": at(until)}
        return event(ev.DepositPaid, when, order_id="o-1", currency="CNY", amount=Decimal(1), **due)

    later = deposit("03-03", "03-08", "03-12")
    order = agreed(deposit("03-01", "03-10", "03-14"), later, deposit("03-03", "03-08", "03-11")).orders["o-1"]
    assert (order.deposit_at, order.deposit_from, order.deposit_until) == (at("03-03"), at("03-08"), at("03-12"))


def test_a_late_order_older_than_all_that_are_kept_is_not_lost() -> None:
    current = known(*orders(row.MAX_ORDERS, first_day=10), paid("o-late", "01-02"))
    assert "o-late" in current.orders
    assert purchases.paid_orders(current) == row.MAX_ORDERS + 1


def test_an_open_order_that_made_room_can_still_be_paid() -> None:
    current = known(placed("o-open", "01-01 11:00"), *orders(row.MAX_ORDERS))
    assert "o-open" not in current.orders
    after = facts.apply(current, paid("o-open", "12-01"))
    assert isinstance(after, Facts)
    assert purchases.paid_orders(after.row) == row.MAX_ORDERS + 1


def test_a_cancelled_order_that_made_room_cannot_be_paid_by_an_older_event() -> None:
    current = known(placed("o-open", "01-01 11:00"), cancelled("o-open", "01-01 11:30"), *orders(row.MAX_ORDERS))
    after = facts.apply(current, paid("o-open", "01-01 11:15"))
    assert isinstance(after, Facts)
    assert after.row == current


def test_a_refund_that_comes_before_its_order_is_kept_though_there_are_many_orders() -> None:
    current = known(*orders(row.MAX_ORDERS), refunded("o-new", "12-02"), paid("o-new", "12-01"))
    assert purchases.paid_orders(current) == row.MAX_ORDERS


def test_a_part_of_a_split_order_that_made_room_is_not_counted_beside_the_other_part() -> None:
    parts = [paid(f"o-s{part}", f"01-01 1{part}:00", parent_order_id="o-s") for part in (0, 1)]
    current = known(*parts, *orders(row.MAX_ORDERS - 1))
    assert "o-s0" not in current.orders
    assert purchases.paid_orders(current) == row.MAX_ORDERS
    assert purchases.paid_orders(known(*parts, *orders(row.MAX_ORDERS))) == row.MAX_ORDERS + 1


def test_an_unpaid_order_leaves_no_sum_behind() -> None:
    current = known(cancelled("o-c", "01-01 11:00"), *orders(row.MAX_ORDERS))
    assert "o-c" not in current.orders
    assert purchases.paid_orders(current) == row.MAX_ORDERS
    assert current.old_spend_minor == {}


def test_only_the_latest_orders_keep_their_lines() -> None:
    current = known(*orders(20))
    assert [o.order_id for o in current.orders.values() if o.lines] == [f"o-{n}" for n in range(4, 20)]


def test_long_orders_leave_fewer_with_their_lines() -> None:
    long = [paid(f"o-{n}", f"01-{n + 1:02}", *[line(f"t{k}") for k in range(400)]) for n in range(4)]
    current = known(*long)
    assert [o.order_id for o in current.orders.values() if o.lines] == ["o-2", "o-3"]
    endless = known(*long, paid("o-9", "02-01", *[line(f"t{k}") for k in range(1000)]))
    assert [o.order_id for o in endless.orders.values() if o.lines] == ["o-9"]


def test_coupons_beyond_the_bound_leave_those_first_that_are_done() -> None:
    many = [issued(f"c-{n}", "01-01", expires_at=at("02-01") + n) for n in range(row.MAX_COUPONS)]
    current = known(*many, redeemed("c-200", "01-02"), issued("c-new", "01-03", expires_at=at("03-01")))
    assert "c-200" not in current.coupons
    assert len(current.coupons) == row.MAX_COUPONS
    current = known(*many, issued("c-new", "01-03", expires_at=at("03-01")))
    assert "c-0" not in current.coupons


def test_a_coupon_that_was_summarised_changes_nothing_any_more() -> None:
    many = [issued(f"c-{n}", "01-01", expires_at=at("02-01") + n) for n in range(row.MAX_COUPONS + 1)]
    current = known(*many)
    late = redeemed("c-0", "01-02"), revoked("c-0", "01-02"), locked("c-0", "01-02"), issued("c-0", "01-01")
    assert known(*many, *late) == current


def test_what_was_forgotten_is_itself_bounded() -> None:
    current = Row("u-1")
    for number in range(facts.MAX_FORGOTTEN + 10):
        summaries.forget(current, "order", f"o-{number}")
    assert len(current.forgotten) == facts.MAX_FORGOTTEN * 8
    assert not facts.is_forgotten(current, "order", "o-9")
    assert facts.is_forgotten(current, "order", "o-10")


def test_a_hash_found_across_the_border_of_two_hashes_is_not_a_memory() -> None:
    wanted = ids.event_hash("order:o-1")
    current = Row("u-1", forgotten=b"xxxx" + wanted + b"yyyy")
    assert not facts.is_forgotten(current, "order", "o-1")
    current = Row("u-1", forgotten=current.forgotten + wanted)
    assert facts.is_forgotten(current, "order", "o-1")


# -- profile, visits, cases


def test_the_latest_word_on_zone_and_language_counts_each_by_itself() -> None:
    current = agreed(
        event(ev.ProfileUpdated, "03-01", time_zone="Europe/Berlin", locale="de"),
        event(ev.ProfileUpdated, "03-02", time_zone="America/New_York"),
        event(ev.ProfileUpdated, "03-03", locale="en"),
        event(ev.ProfileUpdated, "03-04", birthday="--05-04"),
    )
    assert (current.zone, current.locale) == ("America/New_York", "en")


def test_the_earliest_registration_and_the_latest_login_count() -> None:
    current = agreed(
        event(ev.UserRegistered, "03-01"),
        event(ev.UserRegistered, "03-02"),
        event(ev.UserLoggedIn, "03-05"),
        event(ev.UserLoggedIn, "03-03"),
    )
    assert (current.registered_at, current.last_login_at) == (at("03-01"), at("03-05"))


def test_a_baseline_brings_what_was_before_our_first_event() -> None:
    before = baseline("03-05", "2020-01-01", 7, "2026-02-01", spend=Decimal("700.00"), currency="CNY")
    current = agreed(before, event(ev.UserRegistered, "03-01"), paid("o-1", "03-02"))
    assert purchases.paid_orders(current) == 8
    assert purchases.last_order_at(current) == at("03-02")
    assert current.registered_at == at("2020-01-01")
    assert current.baseline.spend_minor == 70000


def test_a_baseline_alone_knows_the_last_order_and_may_know_no_spend() -> None:
    current = known(baseline("03-05", "2020-01-01", 7, "2026-02-01"))
    assert purchases.last_order_at(current) == at("2026-02-01")
    assert current.baseline.spend_minor == 0


def test_a_case_is_open_until_it_is_closed() -> None:
    opened = [event(ev.AfterSaleOpened, "03-01", order_id="o-1", case_id=case) for case in ("k-1", "k-2")]
    current = known(*opened, event(ev.AfterSaleClosed, "03-02", order_id="o-1", case_id="k-1"))
    assert current.orders["o-1"].cases == ("k-2",)


def test_a_case_is_closed_whichever_is_heard_of_first_and_open_when_it_is_opened_again() -> None:
    def case(kind: type[ev.Event], when: str) -> ev.Event:
        return event(kind, when, order_id="o-1", case_id="k-1")

    opened, closed, again = (
        case(ev.AfterSaleOpened, "03-01"),
        case(ev.AfterSaleClosed, "03-02"),
        case(ev.AfterSaleOpened, "03-03"),
    )
    for order in permutations([opened, closed]):
        assert known(*order).orders["o-1"].cases == ()
    for order in permutations([opened, closed, again]):
        assert known(*order).orders["o-1"].cases == ("k-1",)
    at_once = case(ev.AfterSaleOpened, "03-02")  # of two words of one instant the closing is the last
    for order in permutations([at_once, closed]):
        assert known(*order).orders["o-1"].cases == ()


def test_so_many_cases_of_an_order_are_remembered() -> None:
    names = [f"k-{n}" for n in range(row.MAX_CASES + 5)]
    cases = [event(ev.AfterSaleOpened, at("03-01") + n, order_id="o-1", case_id=name) for n, name in enumerate(names)]
    order = known(*cases).orders["o-1"]
    assert len(order.cases) == len(order.case_words) == row.MAX_CASES
    assert order.cases[-1] == names[-1]


def test_a_deposit_says_when_the_balance_is_due() -> None:
    deposit = event(
        ev.DepositPaid,
        "03-01",
        order_id="o-1",
        currency="CNY",
        amount=Decimal(10),
        balance_due_from=at("03-10"),
        balance_due_until=at("03-12"),
    )
    order = agreed(deposit, placed("o-1", "03-01")).orders["o-1"]
    assert (order.deposit_from, order.deposit_until) == (at("03-10"), at("03-12"))


@pytest.mark.parametrize("kind", [ev.UserCheckedIn, ev.SearchPerformed, ev.OrderShipped, ev.MessageSent])
def test_an_event_that_changes_no_fact_still_happened(kind: type[ev.Event]) -> None:
    extra = {"query": "milk"} if kind is ev.SearchPerformed else {}
    extra |= {"order_id": "o-1"} if kind is ev.OrderShipped else {}
    extra |= {"channel": "push"} if kind is ev.MessageSent else {}
    said = event(kind, "03-01", **extra)
    after = facts.apply(Row("u-1"), said)
    assert isinstance(after, Facts)
    seen = {"last_seen_at": at("03-01")} if kind.TOPIC in ("logins", "browse") else {}  # shipping is the shop's
    sent = {"sent": (Sent(at("03-01"), "push", ""),)} if kind is ev.MessageSent else {}
    assert after.row == Row("u-1", **seen, **sent)
    assert [(h.kind, h.at, h.order_id) for h in after.happenings] == [(kind.TYPE, at("03-01"), extra.get("order_id"))]


def test_a_refused_event_may_be_sent_again_once_it_is_mended() -> None:
    desk = Desk().say(paid("o-1", "03-01"))
    wrong = refunded("o-1", "03-02", "100.00", currency="EUR")
    desk.say(wrong, msgspec.structs.replace(wrong, currency="CNY"))
    assert len(desk.refused) == 1
    assert purchases.paid_orders(desk.row) == 0


def test_orders_and_coupons_lead_to_the_same_messages_whatever_arrives_first() -> None:
    whatever_arrives_first(
        paid("o-1", "03-01", line(), coupons_issued=(terms("c-1"),)),
        paid("o-2", "03-05", line(quantity=2), coupons_used=("c-1",)),
        refunded("o-2", "03-06"),
        received("o-1", "03-03"),
        returned("c-1", "03-06 12:01"),
        until="12-01",
    )
