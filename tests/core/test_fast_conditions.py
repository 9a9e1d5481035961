"""Conditions in plain Python mean what CEL's own interpreter says they mean, or are left to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cel_expr_python import cel
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.core import expressions, facts, fast_conditions
from app.core.policy import Policy
from app.core.row import NEVER, Row, Run
from app.core.scope import VARIABLES, Scope
from tests.core.shop import at, issued

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ENV = cel.NewEnv(
    variables={name: expressions._CEL_TYPES[VARIABLES[name].kind] for name in expressions.names_for("coupon")}
)
INSTANTS = ["entered_at", "user.registered_at", "user.last_order_at", "coupon.issued_at", "coupon.expires_at"]
DURATIONS = [
    "waited",
    "user.silent_for",
    "coupon.expires_in",
    "coupon.validity",
    "duration('72h')",
    "duration('1h30m')",
]
INTS = ["user.paid_orders", "user.open_orders", "coupon.value_minor", "0", "1", "500", "2000"]
STRINGS = ["coupon.id", "coupon.kind", "user.stage", "'amount'", '"growth"', "''", "'a && !b || true'"]
BOOLS = ["user.coupon_in_hand", "user.has_birthday", "user.has_history", "true", "false"]
ORDERS = ["==", "!=", "<", "<=", ">", ">="]


def _sum(names: list[str]) -> st.SearchStrategy[str]:
    atom = st.sampled_from(names)
    return atom | st.builds("{} {} {}".format, atom, st.sampled_from("+-"), st.sampled_from(names))


def _comparison() -> st.SearchStrategy[str]:
    later = st.builds("{} {} {}".format, st.sampled_from(INSTANTS), st.sampled_from("+-"), st.sampled_from(DURATIONS))
    sides = [_sum(INTS), _sum(DURATIONS), st.sampled_from(INSTANTS) | later, st.sampled_from(STRINGS)]
    return st.one_of(*(st.builds("{} {} {}".format, side, st.sampled_from(ORDERS), side) for side in sides))


def _deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from(["&&", "||"]), inner),
        st.builds("!{}".format, inner),
        st.builds("({})".format, inner),
        st.builds("!({})".format, inner),
        st.builds("{} {} {}".format, inner, st.sampled_from(ORDERS), inner),
    )


CONDITIONS = st.recursive(_comparison() | st.sampled_from(BOOLS), _deeper, max_leaves=6)


@st.composite
def scopes(draw: st.DrawFn) -> Scope:
    # No duration here is NEVER: the interpreter's sums overflow beyond 292 years, plain Python's do not.
    base = at("03-01")
    coupon = issued("c-1", base, draw(st.sampled_from(["5.00", "20.00"])), expires_at=draw(_instants()))
    found = facts.apply(Row("u-1", birthday=draw(st.none() | st.just("--05-04"))), coupon)
    assert isinstance(found, facts.Facts)
    found.row.stage = draw(st.sampled_from(["", "growth"]))
    found.row.registered_at = draw(st.none() | _instants())
    found.row.old_last_order_at = draw(_instants())
    found.row.old_orders = draw(st.integers(0, 3))
    run = Run("r", 1, "coupon", "c-1", "e", base)
    return Scope(found.row, run, Policy(), draw(_instants()))


def _instants() -> st.SearchStrategy[int]:
    base = at("03-01")
    return st.sampled_from(
        [base, base + 1, base + 72 * 3_600_000_000, base + 5_400_000_000, base + 90 * 86_400_000_000]
    )


def interpreted(text: str, scope: Scope) -> Any:
    data = {}
    for name in expressions.names_for("coupon"):
        kind, value = VARIABLES[name].kind, VARIABLES[name].read(scope) if VARIABLES[name].kind != "money" else ""
        if kind == "instant":
            value = EPOCH + timedelta(microseconds=min(value, NEVER))
        elif kind == "duration":
            value = timedelta(microseconds=min(value, NEVER))
        data[name] = value
    return ENV.compile(text).eval(data=data).value()


@given(text=CONDITIONS, scope=scopes())
@settings(max_examples=300, deadline=None)
def test_a_translated_condition_means_what_the_interpreter_says(text: str, scope: Scope) -> None:
    try:
        ENV.compile(text)
    except Exception:  # not every sentence of the grammar is one of CEL's
        assume(False)
    assume(any(name in text for name in VARIABLES))  # what is the same for everybody is refused
    quick = fast_conditions.translate(text)
    expected = interpreted(text, scope)
    assume(isinstance(expected, bool))
    assert quick is None or quick(scope) is expected
    assert expressions.condition(text, "coupon")(scope) is expected


@pytest.mark.parametrize(
    "text",
    [
        "user.paid_orders > 1",
        "!user.coupon_in_hand && user.paid_orders == 0",
        "waited >= duration('1h30m')",
        "coupon.id != ''",
        "!(user.paid_orders > 1 || user.has_birthday)",
        "!user.coupon_in_hand < user.has_birthday",
        "coupon.expires_at - entered_at > duration('40s')",
    ],
)
def test_what_the_shipped_rules_speak_is_translated(text: str) -> None:
    assert fast_conditions.translate(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "user.paid_orders > 1 ? true : false",
        "coupon.kind in ['amount', 'gift']",
        "coupon.id.startsWith('c')",
        "size(coupon.id) > 1",
        "user.paid_orders % 2 == 0",
        "user.paid_orders * 2 > 3",
        "user.paid_orders / 2 > 3",
        "-user.paid_orders < 0",
        "coupon.id == 'a\\'b'",
        "waited > duration('1.5h')",
        "waited > duration('1ms')",
        "waited > duration('1h').x",
        "waited.getHours() > 3",
        "user.paid_orders > 1u",
        "entered_at > timestamp('2026-01-01T00:00:00Z')",
        "true &&\nfalse",
        "!!user.has_birthday",
        "! !user.has_birthday",
        "entered_at == null",
        "int == int",
        "coupon.worth == 'x'",
        "1 < 2 < 3",
        "a b",
        "",
    ],
)
def test_what_may_mean_something_else_is_left_to_the_interpreter(text: str) -> None:
    assert fast_conditions.translate(text) is None


def test_what_is_left_to_the_interpreter_holds_all_the_same() -> None:
    scope = Scope(Row("u-1", old_orders=3), Run("r", 1, "user", "", "e", at("03-01")), Policy(), at("03-02"))
    assert expressions.condition("user.paid_orders % 2 == 1", "user")(scope) is True
    assert expressions.condition("waited > duration('86399.5s') && waited < duration('25h')", "user")(scope) is True
    assert expressions.condition("entered_at == null", "user")(scope) is False
