"""Expressions in plain words: what is said means what is written, and what cannot be said is quoted as it stands."""

from __future__ import annotations

import pytest

from app.core.scope import VARIABLES
from app.explain import language


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7d", "7 days"),
        ("1d", "1 day"),
        ("36h", "36 hours"),
        ("15min", "15 minutes"),
        ("entered_at + 1h", "1 hour after the entry"),
        ("coupon.expires_at - 3d", "3 days before the coupon's expiry"),
        (
            "coupon.valid_from + min(7d, coupon.validity / 2)",
            "the coupon's first valid moment plus the shorter of 7 days and half of the coupon's validity",
        ),
        ("min(coupon.expires_at, entered_at)", "the earlier of the coupon's expiry and the entry"),
        ("max(30d, 2d, 1d)", "the longer of 30 days, 2 days and 1 day"),
        ("(7d + 2d) / 2", "half of (7 days plus 2 days)"),
        ("supply.interval * line.units", "the time that one unit lasts times the number of units bought"),
        ("coupon.expires_at - entered_at", "the time from the entry to the coupon's expiry"),
        ("7d - 2d", "7 days less 2 days"),
        ("coupon.validity / 3", "a third of the coupon's validity"),
        ("coupon.validity / 10", "1/10 of the coupon's validity"),
    ],
)
def test_timings_are_said_as_they_are_computed(text: str, words: str) -> None:
    assert language.timing(text) == words


@pytest.mark.parametrize(
    "text", ["no.such_name + 3d", "7d if True else 3d", "min(7d)", "min(a=1)", "entered_at + coupon.id", "7 +", ""]
)
def test_a_timing_without_words_is_quoted(text: str) -> None:
    assert language.timing(text) == f"`{text}`"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("coupon.expires_at", "at the coupon's expiry"),
        ("coupon.expires_at - 3d", "3 days before the coupon's expiry"),
        ("somewhen", "at `somewhen`"),
    ],
)
def test_an_instant_answers_the_question_when(text: str, words: str) -> None:
    assert language.moment(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("coupon.expires_in > duration('72h')", "the time left until the coupon expires is more than 72 hours"),
        ("user.paid_orders >= 2", "the number of paid orders is at least 2"),
        ("user.last_order_at < entered_at", "the latest purchase is before the entry"),
        (
            "user.paid_orders < 2 && !(coupon.kind == 'gift')",
            "the number of paid orders is less than 2 and it is not so that (the coupon's kind is 'gift')",
        ),
        ("cart.size > 0", "the number of pieces in the cart is more than 0"),
        ("!order.is_open", "the order is not open"),
        ("! user.came_back && true", "the user was not seen again more than half an hour after the entry and true"),
        ("!cart.size", "`!cart.size`"),
        ("order.companion != ''", "the product type that goes with what was bought is named"),
        ("(order.category == '') || true", "(the category of most of the order is not named) or true"),
        ("coupon.kind == 'gift'", "the coupon's kind is 'gift'"),
        ("waited <= duration('90m') || waited != duration('1h')", None),
        ("coupon.id in ['a', 'b']", "`coupon.id in ['a', 'b']`"),
        ("coupon.batch.startsWith('vip')", "`coupon.batch.startsWith('vip')`"),
    ],
)
def test_conditions_are_said_or_quoted_whole(text: str, words: str | None) -> None:
    wanted = words or (
        "the time since the entry is at most 90 minutes or the time since the entry is not 1 hour"
    )  # fmt: skip
    assert language.condition(text) == wanted


def test_every_name_of_the_view_has_a_phrase() -> None:
    assert language.PHRASES.keys() == VARIABLES.keys()
    assert language.DENIED.keys() == {name for name, variable in VARIABLES.items() if variable.kind == "bool"}
    assert not any(words.startswith(("when ", "from when ", "until ")) for words in language.PHRASES.values())
    assert language.phrase("no.such_name") == "no.such_name"


def test_names_are_found_in_their_order_and_not_inside_of_texts() -> None:
    assert language.names_in("coupon.kind == 'waited' && waited > coupon.validity") == [
        "coupon.kind", "waited", "coupon.validity",
    ]  # fmt: skip
    asked = "coupon.batch.startsWith('XM-') || coupon.id.contains('vip')"
    assert language.names_in(asked) == ["coupon.batch", "coupon.id"], "and not with what is asked of them"


def test_lists_read_as_a_person_writes_them() -> None:
    assert [language.listed(items) for items in (["a"], ["a", "b"], ["a", "b", "c"], [])] == [
        "a", "a or b", "a, b or c", "",
    ]  # fmt: skip
