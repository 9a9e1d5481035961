"""Conditions and timings: what they mean, and that nothing wrong in them reaches the stream."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from app.core import expressions
from app.core.expressions import ExpressionError
from app.core.policy import Policy
from app.core.row import NEVER, Baseline, Coupon, Order, Row, Run
from app.core.scope import VARIABLES, Scope
from tests.core.shop import DAY, HOUR, MINUTE, SECOND, at

NOW = at("03-08")


def scope(key: str = "coupon", now: int = NOW, **coupon: object) -> Scope:
    held = Coupon("c-1", **{"issued_at": at("03-01"), "valid_from": at("03-02"), **coupon})
    order = Order("o-1", paid_at=at("03-01"))
    run = Run("r", 1, key, "c-1" if key == "coupon" else "milk", "e-1", at("03-01"), "o-1", data={"units": 3})
    row = Row("u-1", orders={"o-1": order}, coupons={"c-1": held}, baseline=Baseline(0, 2, None, at("02-01")))
    return Scope(row, run, Policy(intervals={"milk": 20 * DAY}), now)


def refusal(make: object, *args: str) -> str:
    with pytest.raises(ExpressionError) as caught:
        make(*args)
    return str(caught.value)


# -- durations


@pytest.mark.parametrize(
    ("text", "value"), [("7d", 7 * DAY), ("36h", 36 * HOUR), ("15min", 15 * MINUTE), (" 30s ", 30 * SECOND), ("0s", 0)]
)
def test_a_duration_is_a_whole_number_and_a_unit(text: str, value: int) -> None:
    assert expressions.duration(text) == value


@pytest.mark.parametrize("text", ["7", "7 days", "d", "-1d", "1.5d", "7D", "", "1d2h", "1w"])
def test_anything_else_is_no_duration(text: str) -> None:
    assert refusal(expressions.duration, text) == (
        f"'{text}' is not a duration: write a whole number and a unit, such as 7d, 36h, 15min or 30s."
    )


# -- conditions


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("coupon.value_minor >= 500", True),
        ("coupon.value_minor > 2000", False),
        ("coupon.expires_in > duration('72h')", True),
        ("coupon.expires_at - coupon.valid_from == duration('192h')", True),
        ("entered_at < coupon.valid_from", True),
        ("coupon.kind == 'amount' && coupon.currency in ['CNY', 'EUR']", True),
        ("coupon.worth == 'coupon.kind'", False),
        ("user.paid_orders == 3 || waited < duration('1h')", True),
        ("user.silent_for == duration('168h')", True),
        ("baseline.last_order_at < user.last_order_at", True),
    ],
)
def test_a_condition_reads_the_view(text: str, holds: bool) -> None:
    one = scope(value="20.00", currency="CNY", value_minor=2000, expires_at=at("03-02") + 192 * HOUR, now=at("03-06"))
    if "silent_for" in text:
        one = replace(one, now=NOW)
    assert expressions.condition(text, "coupon")(one) is holds


def test_a_bare_name_is_a_condition() -> None:
    replenishable = expressions.condition("line.replenishable", "product_type")
    assert replenishable(scope("product_type")) is True
    assert replenishable(replace(scope("product_type"), policy=Policy())) is False
    assert "true or false" in refusal(expressions.condition, "user.paid_orders", "user")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("10 / user.paid_orders > 1", True),
        ("1 / (user.paid_orders - 3) > 0", False),
        ("int(coupon.value) > 5", False),
        ("coupon.value_minor * 9000000000000000000 > 0", False),
    ],
)
def test_a_condition_that_cannot_be_worked_out_does_not_hold_and_harms_nobody(text: str, holds: bool) -> None:
    assert expressions.condition(text, "coupon")(scope(value_minor=5)) is holds


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_every_name_can_be_read_in_a_condition_though_it_says_nothing(name: str) -> None:
    variable = VARIABLES[name]
    literal = {
        "instant": "timestamp('1970-01-01T00:00:00Z')",
        "duration": "duration('0s')",
        "int": "0",
        "bool": "false",
    }
    key = min(variable.keys) if variable.keys else "user"
    compares = expressions.condition(f"{name} == {literal.get(variable.kind, repr('x'))} || true", key)
    nothing = Scope(Row("u-1"), Run("r", 1, key, "", "e-1", 0), Policy(), 0)
    assert compares(nothing) is True


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ("cupon.value_minor > 5", "coupon", "There is no 'cupon.value_minor'. Did you mean 'coupon.value_minor'?"),
        ("coupon.valu == '5'", "coupon", "There is no 'coupon.valu'. Did you mean 'coupon.value'?"),
        ("coupon.value == '5'", "user", "'coupon.value' has no value in a rule keyed by user."),
        ("xyzzy > 5", "user", "There is no 'xyzzy'. Known: entered_at, waited, user.paid_orders"),
        ("'cupon' == xyzzy", "user", "There is no 'xyzzy'."),
        ("user.paid_orders > '5'", "user", "a whole number and a text cannot be put together by >."),
        ("waited > 5", "user", "a duration (written duration('72h')) and a whole number cannot be put together by >."),
        ("!waited", "user", "no matching overload for '!_'"),
        ("user.paid_orders == 5u", "user", "a whole number and uint cannot be put together by ==."),
        ("user.paid_orders + 1", "user", "is int, not true or false"),
        (
            "user.paid_orders >",
            "user",
            "'user.paid_orders >' is not a condition: Syntax error: mismatched input '<EOF>'",
        ),
        ("", "user", "'' is not a condition: Syntax error: mismatched input '<EOF>'"),
        ("1 == '1'", "user", "is not a condition: a whole number and a text cannot be put together by ==."),
    ],
)
def test_a_wrong_condition_is_refused_with_its_cause(text: str, key: str, why: str) -> None:
    assert why in refusal(expressions.condition, text, key)


# -- timings


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        ("10d", "duration", 10 * DAY),
        ("min(7d, coupon.validity / 2)", "duration", 5 * DAY),
        ("max(7d, coupon.validity / 2, 1h)", "duration", 7 * DAY),
        ("coupon.validity * 2 - 1d", "duration", 19 * DAY),
        ("coupon.expires_at - coupon.valid_from + 0s", "duration", 10 * DAY),
        ("coupon.validity / user.paid_orders", "duration", 10 * DAY // 3),
        ("coupon.valid_from + min(7d, coupon.validity / 2)", "instant", at("03-07")),
        ("coupon.expires_at - 3d", "instant", at("03-09")),
        ("max(entered_at, coupon.valid_from)", "instant", at("03-02")),
        (" coupon.valid_from ", "instant", at("03-02")),
        ("coupon.validity / (1)", "duration", 10 * DAY),
    ],
)
def test_a_timing_adds_up(text: str, wanted: str, value: int) -> None:
    assert expressions.timing(text, "coupon", wanted)(scope(expires_at=at("03-12"))) == value


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("coupon.expires_at + 1d", "instant"),
        ("coupon.expires_at - 3d", "instant"),
        ("coupon.validity * 2", "duration"),
        ("coupon.validity + 1d", "duration"),
    ],
)
def test_what_never_comes_stays_so(text: str, wanted: str) -> None:
    assert expressions.timing(text, "coupon", wanted)(scope()) == NEVER


def test_dividing_by_nothing_divides_by_one() -> None:
    empty = replace(scope(), row=Row("u-1"))
    assert expressions.timing("10d / user.paid_orders", "user", "duration")(empty) == 10 * DAY


@pytest.mark.parametrize(
    ("text", "wanted", "why"),
    [
        ("7 days", "duration", "it cannot be read"),
        ("\0", "duration", "it cannot be read"),
        ("7d +", "duration", "it cannot be read"),
        ("7", "duration", "it is a number, and a duration is needed here"),
        ("7d", "instant", "it is a duration, and an instant is needed here"),
        ("coupon.expires_at", "duration", "it is an instant, and a duration is needed here"),
        ("2 * 7d", "duration", "number and duration cannot be combined like this"),
        ("coupon.expires_at + coupon.valid_from", "instant", "instant and instant cannot be combined"),
        ("7d - coupon.expires_at", "instant", "duration and instant cannot be combined"),
        ("7d / 2d", "duration", "duration and duration cannot be combined"),
        ("7d ** 2", "duration", "duration and number cannot be combined"),
        ("min(7d)", "duration", "min and max take two or more values of one kind"),
        ("min(7d, coupon.expires_at)", "duration", "min and max take two or more values of one kind"),
        ("abs(7d, 8d)", "duration", "min and max take two or more values of one kind"),
        ("min(7d, key=2)", "duration", "use names, durations such as 7d"),
        ("coupon.expires_at.day(1)", "duration", "use names, durations such as 7d"),
        ("1.5", "duration", "use names, durations such as 7d"),
        ("True", "duration", "use names, durations such as 7d"),
        ("-coupon.validity", "duration", "use names, durations such as 7d"),
        ("[7d]", "duration", "use names, durations such as 7d"),
        ("coupon.validiti / 2", "duration", "There is no 'coupon.validiti'. Did you mean 'coupon.validity'?"),
        ("supply.interval", "duration", "'supply.interval' has no value in a rule keyed by coupon."),
        ("coupon.kind", "duration", "'coupon.kind' is a string."),
        ("min(1d, 2d).x", "duration", "There is no"),
    ],
)
def test_a_wrong_timing_is_refused_with_its_cause(text: str, wanted: str, why: str) -> None:
    message = refusal(expressions.timing, text, "coupon", wanted)
    assert message.startswith(f"'{text}' is not a timing: ")
    assert why in message


def test_a_rule_may_use_what_is_said_of_its_kind_of_thing() -> None:
    assert "coupon.id" not in expressions.names_for("user")
    assert "coupon.id" in expressions.names_for("pack")
    assert "supply.interval" in expressions.names_for("product_type")
