"""Values in words for a person, and in facts for a machine."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from app.core import calendar, words
from app.core.policy import Policy
from app.core.row import NEVER, Coupon, Row, Run
from app.core.scope import Scope
from tests.core.shop import DAY, HOUR, MINUTE, SECOND, at

SHANGHAI = ZoneInfo("Asia/Shanghai")
NEW_YORK = ZoneInfo("America/New_York")


def scope(**coupon: object) -> Scope:
    held = Coupon("c-1", **{"issued_at": at("03-01"), "valid_from": at("03-01"), **coupon})
    run = Run("r", 1, "coupon", "c-1", "e-1", at("03-01"))
    return Scope(Row("u-1", coupons={"c-1": held}), run, Policy(), at("03-08"))


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (7 * DAY, "7 days"),
        (7 * DAY - 1, "6 days"),
        (DAY, "1 day"),
        (DAY - 1, "23 hours"),
        (HOUR, "1 hour"),
        (90 * MINUTE, "1 hour"),
        (59 * MINUTE, "59 minutes"),
        (MINUTE, "1 minute"),
        (2 * SECOND, "2 seconds"),
        (SECOND - 1, "a moment"),
        (0, "a moment"),
    ],
)
def test_a_length_of_time_is_said_in_its_largest_whole_unit(span: int, text: str) -> None:
    assert words.length(span) == text


@pytest.mark.parametrize(
    ("coupon", "text"),
    [
        (Coupon("c", kind="amount", value="20.00", currency="CNY"), "20.00 CNY off"),
        (Coupon("c", kind="amount"), "an amount off"),
        (Coupon("c", kind="percent", value="15"), "15 % off"),
        (Coupon("c", kind="percent"), "a percentage off"),
        (Coupon("c", kind="shipping"), "free shipping"),
        (Coupon("c", kind="gift"), "a gift"),
    ],
)
def test_a_coupon_is_worth_what_it_says(coupon: Coupon, text: str) -> None:
    assert words.worth(coupon) == text


def test_a_day_is_the_one_on_the_users_own_calendar() -> None:
    late = at("2026-03-01T23:30:00-05:00")
    assert words.day(late, NEW_YORK, late) == "1 March"
    assert words.day(late, SHANGHAI, late) == "2 March"


def test_a_day_of_another_year_than_it_is_for_the_user_has_its_year() -> None:
    eve = at("2025-12-31T23:30:00-05:00")
    assert words.day(eve, NEW_YORK, eve + 10 * MINUTE) == "31 December"
    assert words.day(eve, NEW_YORK, eve + 40 * MINUTE) == "31 December 2025"
    assert words.day(eve, SHANGHAI, eve + 40 * MINUTE) == "1 January"
    assert words.day(eve + 40 * MINUTE, NEW_YORK, eve) == "1 January 2026"
    year_end = scope(expires_at=at("2027-01-05T08:00:00+08:00"))
    assert words.value("coupon.expires_at", year_end, SHANGHAI) == "5 January 2027"
    assert words.value("coupon.issued_at", year_end, SHANGHAI) == "1 March"


def test_the_users_zone_is_that_of_the_profile_else_the_shops() -> None:
    assert calendar.zone_of(Row("u-1"), SHANGHAI) is SHANGHAI
    assert calendar.zone_of(Row("u-1", zone="America/New_York"), SHANGHAI).key == "America/New_York"


def test_a_reason_is_filled_with_values_in_words() -> None:
    text = "{coupon.id} ({coupon.worth}) of {coupon.issued_at} to {coupon.expires_at}, {waited}, {user.paid_orders}."
    filled = words.fill(text, scope(value="20.00", currency="CNY"), SHANGHAI)
    assert filled == "c-1 (20.00 CNY off) of 1 March to never, 7 days, 0."
    assert words.names_in(text) == [
        "coupon.id",
        "coupon.worth",
        "coupon.issued_at",
        "coupon.expires_at",
        "waited",
        "user.paid_orders",
    ]
    assert words.without_names(text) == " () of  to , , ."


def test_facts_are_for_machines() -> None:
    one = scope(value="20.00", currency="CNY", expires_at=at("03-10 14:30"))

    def fact(name: str) -> object:
        return words.fact(name, one, SHANGHAI)

    assert fact("coupon.issued_at") == "2026-03-01T12:00:00+08:00"
    assert fact("waited") == "P7D"
    assert fact("coupon.expires_in") == "P2DT9000S"
    assert fact("coupon.worth") == "20.00 CNY off"
    assert fact("coupon.value") == "20.00"
    assert fact("user.paid_orders") == 0


def test_what_never_comes_is_no_fact() -> None:
    open_ended = scope(expires_at=NEVER)
    assert words.fact("coupon.expires_at", open_ended, SHANGHAI) is None
    assert words.fact("coupon.validity", open_ended, SHANGHAI) is None
    assert words.value("coupon.expires_at", open_ended, SHANGHAI) == "never"
    assert words.fact("user.last_order_at", open_ended, SHANGHAI) is None
    assert words.value("user.last_order_at", open_ended, SHANGHAI) == "never"
    assert words.value("user.silent_for", open_ended, SHANGHAI) == "an unlimited time"
