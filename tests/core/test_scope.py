"""The view of a user that rules read: every name has a value, also when there is nothing to say."""

from __future__ import annotations

import pytest

from app.core.policy import Policy
from app.core.purchases import is_paid, last_order_at, paid_orders
from app.core.row import NEVER, Baseline, Coupon, Mark, Order, OrderLine, Row, Run
from app.core.scope import VARIABLES, Scope, coupon_of, runs_out_at, taken_back
from tests.core.shop import DAY, at

BOUGHT = at("03-01")


def view(row: Row, kind: str, key: str = "", **run: object) -> Scope:
    return Scope(row, Run("r", 1, kind, key, "e-1", BOUGHT, **run), Policy(intervals={"milk": 20 * DAY}), at("03-08"))


def read(name: str, scope: Scope) -> object:
    return VARIABLES[name].read(scope)


@pytest.mark.parametrize("kind", ["user", "order", "coupon", "pack", "product_type"])
def test_every_name_has_a_value_for_a_user_of_whom_nothing_is_known(kind: str) -> None:
    nothing = view(Row("u-1"), kind)
    kinds = {"instant": int, "duration": int, "int": int, "string": str, "bool": bool, "money": Coupon}
    for name, variable in VARIABLES.items():
        if not variable.keys or kind in variable.keys:
            assert isinstance(read(name, nothing), kinds[variable.kind]), name


def test_every_name_says_what_it_means() -> None:
    assert all(variable.about for variable in VARIABLES.values())


def test_of_a_pack_the_usable_coupon_that_expires_first_is_spoken_of() -> None:
    coupons = {
        "c-1": Coupon("c-1", 1, pack_id="p", expires_at=30, redeemed=Mark(2, "e", "CouponRedeemed")),
        "c-2": Coupon("c-2", 1, pack_id="p", expires_at=60),
        "c-3": Coupon("c-3", 1, pack_id="p", expires_at=50),
        "c-4": Coupon("c-4", None, pack_id="p", expires_at=40),
        "c-5": Coupon("c-5", 1, expires_at=10),
    }
    assert coupon_of(view(Row("u-1", coupons=coupons), "pack", "p")).coupon_id == "c-3"
    used = {name: coupons[name] for name in ("c-1", "c-4")}
    assert coupon_of(view(Row("u-1", coupons=used), "pack", "p")).coupon_id == "c-1"
    assert coupon_of(view(Row("u-1", coupons=coupons), "pack", "c-5")).coupon_id == "c-5"
    assert coupon_of(view(Row("u-1", coupons=coupons), "coupon", "c-2")).coupon_id == "c-2"


@pytest.mark.parametrize(
    ("order", "paid", "back"),
    [
        (Order("o"), False, False),
        (Order("o", placed_at=5), False, False),
        (Order("o", paid_at=5), True, False),
        (Order("o", paid_at=5, cancelled_at=4), True, False),
        (Order("o", paid_at=5, cancelled_at=5), False, True),
        (Order("o", paid_at=5, cancelled_at=6), False, True),
        (Order("o", cancelled_at=6), False, True),
        (Order("o", paid_at=5, refunded_whole=True), False, True),
        (Order("o", refunded_whole=True), False, True),
    ],
)
def test_an_order_counts_while_it_is_paid_and_not_taken_back(order: Order, paid: bool, back: bool) -> None:
    assert (is_paid(order), taken_back(order)) == (paid, back)


def test_purchases_are_those_kept_those_summarised_and_those_before_our_time() -> None:
    row = Row("u-1", orders={"o-1": Order("o-1", paid_at=50)}, old_orders=3, old_last_order_at=70)
    assert (paid_orders(row), last_order_at(row)) == (4, 70)
    row.baseline = Baseline(0, 2, None, 90)
    assert (paid_orders(row), last_order_at(row)) == (6, 90)
    assert last_order_at(Row("u-1", baseline=Baseline(0, 0))) is None


def test_goods_run_out_an_interval_a_unit_after_they_were_there() -> None:
    def out(received: int | None, units: int = 2) -> int:
        row = Row("u-1", orders={"o-1": Order("o-1", paid_at=BOUGHT, received_at=received)})
        return runs_out_at(view(row, "product_type", "milk", order_id="o-1", data={"units": units}))

    assert out(None) == BOUGHT + 40 * DAY
    assert out(BOUGHT + 2 * DAY) == BOUGHT + 42 * DAY
    assert out(BOUGHT - 2 * DAY) == BOUGHT + 40 * DAY
    assert out(None, units=10**15) == NEVER
    assert runs_out_at(view(Row("u-1"), "product_type", "shoes", data={"units": 1})) == NEVER


def test_goods_are_replenishable_when_their_interval_is_known_and_there_are_some() -> None:
    for key, units, wanted in (("milk", 1, True), ("milk", 0, False), ("shoes", 1, False)):
        assert read("line.replenishable", view(Row("u-1"), "product_type", key, data={"units": units})) is wanted


def test_the_baseline_has_its_own_last_order() -> None:
    assert read("baseline.last_order_at", view(Row("u-1"), "user")) == -1
    assert read("baseline.last_order_at", view(Row("u-1", baseline=Baseline(0, 3)), "user")) == -1
    later = Row("u-1", baseline=Baseline(0, 3, None, 90), orders={"o": Order("o", paid_at=100)})
    assert read("baseline.last_order_at", view(later, "user")) == 90
    assert read("user.last_order_at", view(later, "user")) == 100


def test_the_category_of_an_order_is_what_most_of_it_is_gifts_left_aside() -> None:
    lines = (
        OrderLine("p-1", "milk", 5, 1, "gift", category="baby"),
        OrderLine("p-2", "tea", 1, 1, category="drinks"),
        OrderLine("p-3", "soap", 2, 1),
    )
    row = Row("u-1", orders={"o-1": Order("o-1", lines=lines)})
    assert read("order.category", view(row, "order", "o-1", order_id="o-1")) == "soap"
    only = Row("u-1", orders={"o-1": Order("o-1", lines=lines[:1])})
    assert read("order.category", view(only, "order", "o-1", order_id="o-1")) == ""
