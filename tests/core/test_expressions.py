"""Conditions and timings: what they mean, and that nothing wrong in them reaches the stream."""

from __future__ import annotations

import re

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


@pytest.mark.parametrize("text", ["7", "seven days", "d", "-1d", "", "1 month", "0.1s"])
def test_anything_else_is_no_duration(text: str) -> None:
    assert refusal(expressions.duration, text) == (
        f"'{text}' is not a duration: write a whole number and a unit, such as 7d, 36h, 15min or 30s."
    )


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10 days", "10d"), ("10days", "10d"), ("7D", "7d"), ("2 weeks", "14d"), ("1w", "7d"), ("15m", "15min"),
        ("15 Minutes", "15min"), ("90 secs", "90s"), ("1.5d", "36h"), ("1,5d", "36h"), ("0.5h", "30min"),
        ("1d2h", "26h"), ("1 day 12 hours", "36h"),
    ],
)  # fmt: skip
def test_what_is_meant_for_a_duration_is_said_as_it_is_written(text: str, meant: str) -> None:
    assert refusal(expressions.duration, text) == f"'{text}' is not a duration: write {meant}."
    assert refusal(expressions.timing, text, "user", "duration") == f"'{text}' is not a timing: write {meant}."


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
        ("!waited", "user", "! cannot be used on a duration (written duration('72h'))."),
        ("size(waited) > 1", "user", "size cannot be used on a duration"),
        ("user.paid_orders in 5", "user", "a whole number and a whole number cannot be put together by in."),
        ("[user.stage] == user.stage", "user", "== cannot be used on a list."),
        ("user.paid_orders == 5u", "user", "a whole number and uint cannot be put together by ==."),
        ("user.paid_orders + 1", "user", "is a whole number, not true or false: compare it with something."),
        ("['a']", "user", "is a list, not true or false"),
        ("user.paid_orders >", "user", "'user.paid_orders >' is not a condition: something is missing at its end."),
        ("", "user", "'' is not a condition: write one, or leave it out."),
        ("waited.x > 1", "user", "is not a condition: what stands before a . has no parts."),
        ("user.paid_orders > 99999999999999999999", "user", "is not a condition: invalid int literal."),
        ("user.paid_orders @ 1", "user", "'user.paid_orders @ 1' is not a condition: @ cannot stand where it stands."),
        ("user.paid_orders > 5 apples", "user", "is not a condition: apples cannot stand where it stands."),
        ("user.stage == growth", "user", "There is no 'growth'. A text stands in quotes: 'growth'."),
        ("user.stage in ['a', growth]", "user", "There is no 'growth'. A text stands in quotes: 'growth'."),
        ("user.stage == growth()", "user", "There is no 'growth'. Known: entered_at"),
        ("1 == '1'", "user", "is not a condition: a whole number and a text cannot be put together by ==."),
    ],
)
def test_a_wrong_condition_is_refused_with_its_cause(text: str, key: str, why: str) -> None:
    said = refusal(expressions.condition, text, key)
    assert why in said
    assert not re.search("EOF|input '|token|overload|IDENTIFIER|INVALID_ARGUMENT", said)


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("waited > 72h", "write duration('72h') for 72h"),
        ("waited > 3 days && user.paid_orders == 1", "write duration('72h') for 3 days"),
        ("waited > 15min", "write duration('15m') for 15min"),
        ("waited > duration(90s)", "write duration('90s') for 90s"),
        ("user.paid_orders = 1", "compare with ==, not with a single ="),
        ("user.stage = '='", "compare with ==, not with a single ="),
        ("user.paid_orders => 1", "write >= for =>"),
        ("user.paid_orders =< 1", "write <= for =<"),
        ("user.paid_orders <> 1", "write != for <>"),
        ("user.paid_orders == 1 AND user.has_birthday", "write && for AND"),
        ("user.paid_orders == 1 or user.has_birthday", "write || for or"),
        ("not user.has_birthday", "write ! for not, as in !user.has_birthday"),
        ("user.has_birthday & user.has_history", "write && for a single &"),
        ("user.has_birthday | user.has_history", "write || for a single |"),
        ("user.has_birthday == True", "yes and no are written true and false"),
        ("user.paid_orders between 1 and 3", "write user.paid_orders >= 1 && user.paid_orders <= 3"),
        ("1 < user.paid_orders <= 3", "write 1 < user.paid_orders && user.paid_orders <= 3"),
        ("user.stage in ('a', 'b')", "the values after 'in' stand in square brackets, as in ['push', 'sms']"),
        ("user.paid_orders > 0,5", "a decimal number is written with a point, and amounts in cents"),
        ("user.stage == ‘growth’", "write straight quotes (') for ‘"),
        ("user.stage == 'growth", "a quote that opens in it is not closed"),
        ("(user.paid_orders == 1", "there is a ( without its )"),
        ("user.stage in ['a', 'b']]", "there is a ] without its ["),
        ("user.stage = 'a and b' and 1 == 1", "compare with ==, not with a single =; write && for and"),
    ],
)  # fmt: skip
def test_what_people_are_used_to_write_in_a_condition_is_told_as_it_is_written_here(text: str, how: str) -> None:
    assert refusal(expressions.condition, text, "user") == f"'{text}' is not a condition: {how}."


@pytest.mark.parametrize(
    ("call", "how"),
    [
        ("duration('7d')", "duration('168h')"),
        ('duration( "1.5 days" )', "duration('36h')"),
        ("duration('')", "hours, minutes or seconds, such as duration('72h'), '15m' or '30s'"),
        ("duration('1 month')", "hours, minutes or seconds, such as duration('72h'), '15m' or '30s'"),
    ],
)
def test_a_duration_that_would_never_be_one_is_refused_when_the_catalogue_is_read(call: str, how: str) -> None:
    text = f"waited > {call} || waited > duration('72h')"
    assert refusal(expressions.condition, text, "user") == f"In '{text}': {call} cannot be read; write {how}."


def test_an_instant_that_would_never_be_one_is_refused_when_the_catalogue_is_read() -> None:
    said = refusal(expressions.condition, "entered_at > timestamp('2026-03-01')", "user")
    assert "write day, time and offset, such as timestamp('2026-03-01T08:00:00+08:00')." in said
    assert expressions.condition("entered_at >= timestamp('2026-03-01T12:00:00+08:00')", "user")(scope())


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
        ("1 month", "duration", "write a duration, such as 7d, 36h, 15min or 30s, or a sum of them"),
        ("\0", "duration", "write a duration, such as 7d"),
        ("7d +", "duration", "write a duration, such as 7d"),
        ("soon", "instant", "There is no 'soon'"),
        ("very soon", "instant", "write an instant, such as entered_at + 7d or user.last_order_at."),
        ("7", "duration", "a number has a unit here, such as 7d, 36h, 15min or 30s."),
        ("7d", "instant", "it is a duration, and an instant is needed here: write an instant, such as entered_at"),
        ("3 days before coupon.expires_at", "instant", "write coupon.expires_at - 3d."),
        ("1 week after entered_at", "instant", "write entered_at + 7d."),
        ("min(7 days, coupon.validity / 2)", "duration", "write min(7d, coupon.validity / 2)."),
        ("entered_at + 30 days", "instant", "write entered_at + 30d."),
        ("coupon.issued_at + 1,5d", "instant", "write coupon.issued_at + 36h."),
        ("7 days after breakfast", "instant", "write an instant, such as entered_at + 7d"),
        ("-3d", "duration", "nothing has a sign of its own here; write what it is before, as in user.birthday - 3d."),
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
        ("-coupon.validity", "duration", "nothing has a sign of its own here"),
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


# -- what would never come to anything, or to no end


@pytest.mark.parametrize("loop", ["all", "exists", "exists_one", "map", "filter"])
def test_no_condition_goes_through_a_list(loop: str) -> None:
    text = f"[1, 2].{loop}(x, x > user.paid_orders)"
    why = "a condition goes through no list. Write the comparisons one by one, with && or ||."
    assert refusal(expressions.condition, text, "user") == f"In '{text}': {why}"
    assert expressions.condition(f"coupon.id != '.{loop}('", "coupon")(scope())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("user.paid_orders > 0 && 1 / 0 > 2", "nothing can be divided by 0."),
        ("user.paid_orders % 00 == 2", "nothing can be divided by 0."),
        ("user.paid_orders > [1, 2][5]", "write the value itself, not a list and a place in it."),
        ("coupon.id.matches('(')", "'(' is no pattern."),
        ('user.paid_orders > 3 && coupon.id.matches(r"[")', 'r"[" is no pattern.'),
    ],
)
def test_what_fails_whatever_is_known_is_refused(text: str, why: str) -> None:
    assert refusal(expressions.condition, text, "coupon") == f"In '{text}': {why}"


def test_a_map_may_have_words_that_nobody_here_knows() -> None:
    holds = expressions.condition("{'growth': 9, 'decline': 1}[user.stage] <= user.paid_orders", "user")
    known = scope("user")
    staged = [replace(known, row=replace(known.row, stage=stage)) for stage in ("growth", "decline", "vip")]
    assert [holds(each) for each in staged] == [False, True, False]


def test_what_fails_for_everybody_is_refused() -> None:
    text = "user.paid_orders / (user.paid_orders - user.paid_orders) > 2"
    assert refusal(expressions.condition, text, "user") == f"'{text}' can be told of nobody: divide by zero."


def test_a_sum_of_sums_without_end_is_refused() -> None:
    text = "user.paid_orders > " + "+".join(["1"] * 490)
    why = "more is put together in it than can be told; make two of it"
    assert refusal(expressions.condition, text[:999], "user") == f"'{text[:99]}…' is not a condition: {why}."


@pytest.mark.parametrize("text", ["coupon.id.startsWith('c')", "coupon.id.size() == 3", "!coupon.id.contains('x')"])
def test_a_name_may_be_asked_by_what_follows_it(text: str) -> None:
    assert expressions.condition(text, "coupon")(scope())


@pytest.mark.parametrize("text", ["true", "1 < 2", "'user.paid_orders' != ''", "1 / 2 > 3"])
def test_a_condition_without_a_name_is_refused(text: str) -> None:
    how = "Compare a name, as in user.paid_orders > 0, or leave it out."
    assert refusal(expressions.condition, text, "user") == f"'{text}' is the same for everybody. {how}"


@pytest.mark.parametrize(
    "text",
    [
        "10 / user.paid_orders >= 1",
        "10 % (user.paid_orders + 2) == 0",
        "user.paid_orders / 10 == 0",
        "coupon.id.matches('c-[0-9]+')",
        "coupon.id.matches(coupon.id)",
        "coupon.id != '1 / 0 ]['",
        "user.paid_orders in [2, 3]",
    ],
)
def test_what_holds_for_some_is_right(text: str) -> None:
    assert expressions.condition(text, "coupon")(scope())


@pytest.mark.parametrize(
    "text", ["int(coupon.id) > 0", "timestamp(coupon.id) > entered_at", "duration(coupon.id) > waited"]
)
def test_what_cannot_be_told_of_some_does_not_hold_for_them(text: str) -> None:
    assert not expressions.condition(text, "coupon")(scope())


def test_a_condition_and_a_timing_end_somewhere_and_are_said_shortly() -> None:
    longest = "user.paid_orders > 0 " + "&& user.paid_orders>0 " * 44
    assert len(longest) < 1000
    assert expressions.condition(longest, "user")(scope("user"))
    longer = longest + "&& true" * 5
    start = f"'{longer[:99]}…'"
    assert refusal(expressions.condition, longer, "user") == (
        f"{start} is longer than 1000 characters: no condition is."
    )
    assert refusal(expressions.timing, longer, "user", "instant") == (
        f"{start} is longer than 1000 characters: no timing is."
    )
    assert refusal(expressions.condition, longest[:990] + " = 1", "user").startswith(
        f"'{longest[:99]}…' is not a condition"
    )
    assert refusal(expressions.timing, "x" * 200, "user", "instant").startswith(f"'{'x' * 99}…' is not a timing")


@pytest.mark.parametrize("text", ["36501d", "99999999999999999999d", "9" * 500 + "s"])
def test_nobody_waits_for_longer_than_a_hundred_years(text: str) -> None:
    assert expressions.duration("36500d") == 36500 * DAY
    said = text if len(text) < 100 else text[:99] + "…"
    assert refusal(expressions.duration, text) == f"'{said}' is longer than a hundred years: write a shorter one."
    assert expressions.timing("36500d", "user", "duration")(scope("user")) == 36500 * DAY
    assert refusal(expressions.timing, f"7d + {text}", "user", "duration").endswith(" is longer than a hundred years.")
