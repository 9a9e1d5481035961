"""Answers are kept for the latest object, by identity: an equal one is asked about anew."""

from __future__ import annotations

import pytest

from app.core import purchases
from app.core.latest import of_the_latest
from app.core.row import Order, Row
from schemas.instant import DAY


def test_the_same_object_is_worked_out_once_and_an_equal_one_anew() -> None:
    asked: list[list[int]] = []

    @of_the_latest
    def total(numbers: list[int]) -> int:
        asked.append(numbers)
        return sum(numbers)

    one, equal = [1, 2], [1, 2]
    assert [total(one), total(one), total(equal), total(one)] == [3, 3, 3, 3]
    assert [id(numbers) for numbers in asked] == [id(one), id(equal), id(one)]


def test_what_could_not_be_worked_out_is_asked_anew_and_the_answer_before_it_stays() -> None:
    asked: list[list[int]] = []

    @of_the_latest
    def first(numbers: list[int]) -> int:
        asked.append(numbers)
        return numbers[0]

    some, none = [7], []
    assert first(some) == 7
    for _ in range(2):
        with pytest.raises(IndexError):
            first(none)
    assert first(some) == 7
    assert asked == [some, none, none]


def test_two_users_are_told_apart() -> None:
    buyer = Row("u-1", orders={"o-1": Order("o-1", paid_at=5), "o-2": Order("o-2", paid_at=3)})
    other = Row("u-2")
    assert [purchases.paid_orders(row) for row in (buyer, other, buyer)] == [2, 0, 2]
    assert [order.order_id for order in purchases.paid_since(buyer, 4)] == ["o-1"]
    assert purchases.purchase_before(buyer, 5) == 3


def test_the_rhythm_before_an_instant_is_of_the_purchases_before_it() -> None:
    days = (0, 10, 10, 20, 30, 130)  # two of them on one day
    row = Row("u-1", orders={f"o-{n}": Order(f"o-{n}", paid_at=day * DAY) for n, day in enumerate(days)})
    gaps = [purchases.usual_gap(row, until * DAY) for until in (30, 31, 130, 131)]
    assert gaps == [None, 10 * DAY, 10 * DAY, 130 * DAY // 4]
