"""Scenario files: what cannot be read is said in a sentence, and a scenario that does not hold shows both timelines."""

from __future__ import annotations

import pytest

from app.backtest import scenario
from app.backtest.scenario import ScenarioError
from app.core.rules import Catalogue
from app.rulebook import load
from tests.catalogues import THREE
from tests.core.shard import ECHO


@pytest.fixture(scope="module")
def rules() -> Catalogue:
    return load(THREE)


def text(given: str, rest: str = "") -> str:
    return f"scenarios:\n  - name: one\n    given: [{given}]\n    the clock says: 2026-03-09\n{rest}"


ISSUED = "{2026-03-01 12:15: {CouponIssued: u-1, coupon: c-4, value: 20 CNY}}"


def problem(given: str, rest: str, rules: Catalogue) -> str | None:
    [read] = scenario.read(text(given, rest), "my.yaml")
    return scenario.check(read, rules)


@pytest.mark.parametrize(
    ("given", "rest", "sentence"),
    [
        ("{2026-03-01: {CouponIssue: u-1}}", "", "Did you mean CouponIssued?"),
        (
            "{2026-03-01: {CouponIssued: u-1, coupn: c}}",
            "",
            "There is no 'coupn' in CouponIssued. Did you mean coupon_id?",
        ),
        ("{1 March: {UserLoggedIn: u-1}}", "", "'1 March' is no instant"),
        ("{2026-03-01: {OrderPaid: u-1, order: o-1, lines: [2 cans]}}", "", "'2 cans' is no line"),
        (ISSUED, "    trigers: []\n", "There is no 'trigers' here."),
        (ISSUED, "    triggers: [{2026-03-08: {coupon_unused: u-1, stp: 1}}]\n", "There is no 'stp' in an outcome."),
        (ISSUED, "    triggers: [{2026-03-08: coupon_unused}]\n", "is no outcome"),
        (ISSUED, "    lateness: soon\n", "'soon' is not a duration"),
        ("{2026-03-01: {UserLoggedIn: u-1}, 2026-03-02: {UserLoggedIn: u-1}}", "", "Entry 1 of 'given' is one instant"),
    ],
)
def test_a_mistake_is_named_with_its_scenario_and_a_way_out(given: str, rest: str, sentence: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario.read(text(given, rest), "my.yaml")
    assert str(caught.value).startswith("my.yaml, scenario 'one': ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize("broken", ["scenarios", "a: [", "[]"])
def test_a_file_without_scenarios_says_so(broken: str) -> None:
    with pytest.raises(ScenarioError, match=r"my\.yaml (is no YAML|holds no scenarios)"):
        scenario.read(broken, "my.yaml")


def test_a_scenario_that_holds_has_no_problem(rules: Catalogue) -> None:
    assert problem(ISSUED, "    triggers: [{2026-03-08 12:15: {coupon_unused: u-1}}]\n    timers: 1\n", rules) is None


def test_what_did_not_come_and_what_came_instead_stand_on_one_timeline(rules: Catalogue) -> None:
    told = problem(ISSUED, "    triggers: [{2026-03-08 12:16: {coupon_unused: u-1}}]\n    timers: 2\n", rules)
    assert told is not None
    assert told.splitlines() == [
        "my.yaml: one",
        "order of arrival 1: e-1",
        "triggers:",
        "  + 2026-03-08 12:15:00: {coupon_unused: u-1, step: 1, key: c-4}   <- came, was not expected",
        "  - 2026-03-08 12:16: {coupon_unused: u-1, step: 1}   <- expected, did not come",
        "timers: expected 2, there are 1: coupon_unused u-1 step 2",
    ]


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("2026-03-08", True),
        ("2026-03-08 12:15", True),
        ("2026-03-08 12:15:00", True),
        ("2026-03-08 12:15:00.000000", True),
        ("2026-03-08 12:14", False),
        ("2026-03-08 12:15:01", False),
        ("2026-03-08 12:15:00.000001", False),
    ],
)
def test_an_instant_counts_as_exactly_as_it_is_written(wanted: str, fits: bool, rules: Catalogue) -> None:
    told = problem(ISSUED, f"    triggers: [{{'{wanted}': {{coupon_unused: u-1}}}}]\n", rules)
    assert (told is None) is fits


@pytest.mark.parametrize(
    "field", ["step: 2", "key: c-5", "entry: e-9", "channel: sms", "reason: not so", "coupon: c-5", "due: 2026-03-07"]
)
def test_a_field_that_is_written_must_be_so(field: str, rules: Catalogue) -> None:
    told = problem(ISSUED, f"    triggers: [{{2026-03-08: {{coupon_unused: u-1, {field}}}}}]\n", rules)
    assert told is not None


def test_a_dead_letter_that_is_not_expected_is_a_problem(rules: Catalogue) -> None:
    told = problem("{2026-03-01: {CouponIssued: u-1, coupon: c-4, value: 20 cny}}", "", rules)
    assert told is not None
    assert "dead letters: expected none; there are bad_value" in told


def test_every_order_of_arrival_is_tried_between_two_other_entries(rules: Catalogue) -> None:
    login = "{2026-03-02: {UserLoggedIn: u-1}}"
    given = f"{ISSUED}, {login}, {login}, {{the clock says: 2026-03-05}}, {login}, {login}"
    [read] = scenario.read(text(given, "    orders: both\n"), "my.yaml")
    assert len(list(scenario.arrivals(read))) == 6 * 2
    [many] = scenario.read(text(", ".join([login] * 6), "    orders: both\n"), "my.yaml")
    assert len(list(scenario.arrivals(many))) == 12


@pytest.mark.parametrize(
    ("given", "rest"),
    [
        (ISSUED, ""),
        (f"{ISSUED}, {{the clock says: 2026-03-02}}, {{2026-03-02: {{UserLoggedIn: u-1}}}}", ""),
        (f"{ISSUED}, {{2026-03-02: {{UserLoggedIn: u-2}}}}", ""),
        (f"{ISSUED}, {{2026-03-02: {{UserLoggedIn: u-1}}}}", "    clock: wall\n"),
    ],
)
def test_where_nothing_is_reordered_nobody_may_say_so(given: str, rest: str) -> None:
    with pytest.raises(ScenarioError, match="'orders: both' reorders nothing here"):
        scenario.read(text(given, f"    orders: both\n{rest}"), "my.yaml")


def test_one_by_one_the_row_hears_of_events_in_their_order_of_arrival_and_time_stands_still() -> None:
    order, login = "{2026-03-02: {OrderPaid: u-1, order: o-1}}", "{2026-03-05: {UserLoggedIn: u-1}}"
    [read] = scenario.read(text(f"{ISSUED}, {order}, {login}", "    orders: both\n"), "my.yaml")
    heard = set()
    for given in scenario.arrivals(read):
        merged, exactly = (scenario.play(read, given, ECHO, one_by_one=one_by_one) for one_by_one in (False, True))
        assert [trigger.evidence[0].event_id for trigger in merged.triggers] == ["e-1", "e-2", "e-3"]
        assert [trigger.evidence[0].event_id for trigger in exactly.triggers] == [
            e.event.get("event_id") for e in given[:3]
        ]
        heard.add(tuple(trigger.decided_at[5:10] for trigger in exactly.triggers))
    assert ("03-05", "03-05", "03-05") in heard, "what is heard of late is decided late"
    assert ("03-01", "03-02", "03-05") in heard


def test_one_by_one_what_comes_due_between_two_events_waits_for_both(rules: Catalogue) -> None:
    redeemed = "{2026-03-08 12:15:00.000001: {CouponRedeemed: u-1, coupon: c-4}}"
    sent = "    triggers: [{2026-03-08 12:15: {coupon_unused: u-1}}]\n"
    assert problem(f"{ISSUED}, {redeemed}", sent, rules) is None
    told = problem(f"{ISSUED}, {redeemed}", sent + "    orders: both\n", rules)
    assert told is not None
    assert "order of arrival 1, one by one: e-1, e-2" in told


def test_a_rule_or_an_event_that_is_not_there_is_named(rules: Catalogue) -> None:
    with pytest.raises(ScenarioError, match="there is no rule 'cupon_unused'"):
        problem(ISSUED, "    rules: [cupon_unused]\n", rules)
    with pytest.raises(ScenarioError, match="No event 'e-7' was given"):
        problem(f"{ISSUED}, {{redelivered: e-7}}", "", rules)
