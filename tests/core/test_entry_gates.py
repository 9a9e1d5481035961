"""The gates at entry, re-entry and start policy: whom they refuse is no candidate, and is counted, not recorded."""

from __future__ import annotations

import pytest

from app.core.guardrails import start
from schemas import events as ev
from tests.core.shop import DAY, Desk, at, catalogue, event, issued, line, paid, rule_text
from tests.core.test_merging import absorb, lived

STAYS = {"ends": "[{on: UserLoggedIn}]"}


def refused(desk: Desk, gate: str = "reentry") -> int:
    """So many entries by this gate, with no record of any."""
    assert desk.decisions == []
    assert (
        sum(times for (kind, *_), times in desk.tallies.items() if kind == "refused_entries")
        == (desk.tallies["refused_entries", gate, "a_rule"])
    )
    return desk.tallies["refused_entries", gate, "a_rule"]


def test_whoever_was_in_once_is_refused_each_time() -> None:
    desk = Desk(catalogue(rule_text(reentry="once", **STAYS))).say(paid("o-1", "03-01"))
    assert refused(desk) == 0
    assert refused(desk.say(paid("o-2", "03-02"), paid("o-3", "03-03"))) == 2
    assert desk.tallies["runs", "entered", "a_rule"] == 1


def test_an_earlier_entry_that_is_heard_of_late_is_not_refused() -> None:
    desk = Desk(catalogue(rule_text(reentry="once", **STAYS))).say(paid("o-2", "03-02"), paid("o-1", "03-01"))
    assert refused(desk) == 0
    assert [timer[3] for timer in desk.timers] == [at("03-11")]


def test_a_key_is_refused_when_it_was_in_before_and_others_are_not() -> None:
    enter = "{on: OrderPaid, each: line, key: product_type}"
    desk = Desk(catalogue(rule_text(reentry="every_key", enter=enter, **STAYS))).say(paid("o-1", "03-01", line()))
    assert refused(desk.say(paid("o-2", "03-02", line("daily_goods")))) == 0
    assert refused(desk.say(paid("o-3", "03-03", line()))) == 1


@pytest.mark.parametrize(("tick", "times"), [(-1, 1), (0, 0), (1, 0)])
def test_an_entry_within_the_cooldown_is_refused(tick: int, times: int) -> None:
    rules = catalogue(rule_text(reentry="{cooldown: 30d}", steps="[{after: 40d}]", ends="[{on: OrderPaid}]"))
    assert refused(Desk(rules).say(paid("o-1", "03-01"), paid("o-2", at("03-31") + tick))) == times


def test_whoever_is_in_a_run_that_has_led_to_nothing_is_refused_a_later_one() -> None:
    desk = Desk(catalogue(rule_text(**STAYS))).say(paid("o-1", "03-01"))
    assert refused(desk.say(paid("o-0", "02-28"))) == 0
    assert refused(desk.say(paid("o-2", "03-02"))) == 1


def test_a_coupon_that_joins_the_run_of_its_pack_is_not_refused() -> None:
    enter, ends = "{on: CouponIssued, key: pack}", "[{on: CouponRedeemed}]"
    desk = Desk(catalogue(rule_text(reentry="every_key", enter=enter, ends=ends)))
    assert refused(desk.say(issued("c-1", "03-01", pack_id="p-1"), issued("c-2", "03-02", pack_id="p-1"))) == 0
    desk.wait("05-01").trace.clear()
    assert refused(desk.say(issued("c-3", "05-01", pack_id="p-1"))) == 1  # the pack's run is over


@pytest.mark.parametrize(("tick", "times"), [(-1, 1), (0, 0), (1, 0)])
def test_what_happened_before_the_rule_lets_users_in_is_refused(tick: int, times: int) -> None:
    desk = Desk(catalogue(rule_text(**STAYS)), enters_from={"a_rule": at("03-01")})
    assert refused(desk.say(paid("o-1", at("03-01") + tick)), "start") == times


def test_what_another_account_had_every_year_is_refused_where_the_rule_began_later() -> None:
    yearly = rule_text(steps="[{at: user.anniversary - 7d}]", repeat="yearly", enter="{on: UserRegistered, key: user}")
    rules = catalogue(yearly)
    other = lived(rules, event(ev.UserRegistered, "02-01"))
    assert refused(absorb(Desk(rules, enters_from={"a_rule": at("02-01")}), other, "03-05"), "start") == 0
    assert refused(absorb(Desk(rules, enters_from={"a_rule": at("02-01") + 1}), other, "03-05"), "start") == 1


@pytest.mark.parametrize(("tick", "what"), [(-1, None), (0, None), (1, "before_start")])
def test_steps_due_before_the_rule_may_send_are_counted_by_themselves(tick: int, what: str | None) -> None:
    desk = Desk(catalogue(rule_text(**STAYS)), sends_from={"a_rule": at("03-11") + tick}).say(paid("o-1", "03-01"))
    passed = {key for key in desk.tallies if key[0] == "steps"}
    assert passed == ({("steps", what, "a_rule")} if what else set())


def test_steps_that_are_past_when_they_are_heard_of_are_passed_over_and_those_before_the_start_are_not_late() -> None:
    desk = Desk(catalogue(rule_text(steps="[{after: 1d}, {after: 1d}]", **STAYS)), sends_from={"a_rule": at("03-03")})
    desk.wait("04-01").say(paid("o-1", "03-01"))
    assert desk.tallies["steps", "before_start", "a_rule"] == 1
    assert desk.tallies["steps", "passed", "a_rule"] == 1


@pytest.mark.parametrize(
    ("policy", "sends", "enters"),
    [("state-only", DAY, None), ("none", DAY, DAY), (f"since:{DAY // 2}", DAY // 2, None)],
)
def test_a_start_policy_says_from_when_on_a_rule_sends_and_lets_in(policy: str, sends: int, enters: int | None) -> None:
    assert (start.sends_from(policy, DAY), start.enters_from(policy, DAY)) == (sends, enters)
