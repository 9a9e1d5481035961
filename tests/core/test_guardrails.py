"""The gates before a message: eligibility and staleness (quiet hours have a file of their own), and their order."""

from __future__ import annotations

import pytest

from app.core import engine, guardrails
from app.core.guardrails import caps, consent, eligibility, quiet_hours, staleness
from tests.core.shop import HOUR, OPEN, Desk, at, catalogue, issued, locked, paid, returned, rule_text


def test_gates_are_asked_in_the_published_order_and_a_grant_meets_fewer() -> None:
    assert (consent.ask, eligibility.ask, staleness.ask, quiet_hours.ask, caps.ask) == guardrails.CONTACT
    assert (eligibility.ask, staleness.ask) == guardrails.GRANT


@pytest.mark.parametrize(("tick", "outcome"), [(1, "fired"), (0, "dropped"), (-1, "dropped")])
def test_a_coupon_that_expires_within_three_days_is_not_spoken_of(tick: int, outcome: str) -> None:
    # After half of its time, at noon, exactly 72 hours (and a tick) are left.
    expires = at("03-07") + 2 * tick
    desk = Desk(catalogue("coupon_unused")).say(issued("c-1", "03-01", expires_at=expires)).wait("03-05")
    (decision,) = desk.decisions
    assert decision.outcome == outcome
    if outcome == "dropped":
        assert decision.gate == "eligibility"
        assert decision.reason == "The rule's condition did not hold: coupon.expires_in > duration('72h')"
        assert desk.triggers == []


def test_a_condition_is_asked_again_at_release() -> None:
    rules = catalogue(rule_text(check="user.paid_orders == 1", ends=None))
    assert Desk(rules).say(paid("o-1", "03-01")).wait("04-01").sent == [("a_rule", 1, "03-11 12:00")]
    (decision,) = Desk(rules).say(paid("o-1", "03-01"), paid("o-2", "03-02")).wait("04-01").decisions
    assert (decision.outcome, decision.gate) == ("dropped", "eligibility")


def test_what_has_ended_by_the_time_it_could_be_sent_is_dropped() -> None:
    rules = catalogue(
        rule_text(
            enter="{on: CouponIssued, key: coupon}",
            ends="[{at: coupon.expires_at}]",
            steps='[{at: "coupon.expires_at - 1h"}]',
        ),
        shop="quiet_hours: {jitter: 0s}\n",
    )
    desk = Desk(rules).say(issued("c-1", "03-01", expires_at="03-05 22:30")).wait("03-07")
    assert [(d.outcome, d.gate) for d in desk.decisions] == [("deferred", "quiet_hours"), ("dropped", "eligibility")]
    assert desk.decisions[1].reason == "What it is about had ended by the time it could be sent."


@pytest.mark.parametrize(("late", "outcome"), [(0, "fired"), (36 * HOUR, "fired"), (36 * HOUR + 1, "expired")])
def test_what_is_later_than_it_is_worth_is_expired(late: int, outcome: str) -> None:
    desk = Desk(catalogue("winback")).say(paid("o-1", "03-01"))
    desk.wait(at("04-30") - 1)
    due = at("04-30")
    desk.row = engine.tick(desk.row, due, desk._moment(due + late, due))
    (decision,) = desk.decisions
    assert decision.outcome == outcome
    if outcome == "expired":
        assert decision.gate == "staleness"
        assert decision.reason == "It was due 1 day ago and is worth sending for 1 day."


@pytest.mark.parametrize(("left", "outcome"), [(1, "fired"), (0, "expired"), (-1, "expired")])
@pytest.mark.parametrize("action", ["contact, channels: [push]", "grant"])
@pytest.mark.parametrize("key", ["coupon", "pack"])
def test_what_comes_when_its_coupon_is_over_is_expired_though_no_end_says_so(
    left: int, outcome: str, action: str, key: str
) -> None:
    rules = catalogue(
        rule_text(
            enter=f"{{on: CouponIssued, key: {key}}}",
            ends=None,
            send=f"{{action: {action}, expires_after: 36h, discount_every: 30d}}",
            steps="[{after: 10d, offer: winback_small}]",
        ),
        gates=OPEN.replace("caps: []", "caps: [{limit: 1, rolling: 1d}]"),
    )
    desk = Desk(rules).say(issued("c-1", "03-01", expires_at=at("03-11") + left)).wait("04-01")
    assert [(d.outcome, d.final) for d in desk.decisions] == [(outcome, True)]
    if left > 0:
        (trigger,) = desk.triggers
        assert trigger.not_before == "2026-03-11T12:00:00+08:00"
        assert trigger.expires_at == "2026-03-11T12:00:00.000001+08:00"
    else:
        assert desk.decisions[0].gate == "staleness"
        assert desk.decisions[0].reason == "Its coupon had expired by the time it could be sent."
        assert (desk.triggers, desk.row.sent, desk.row.last_fired) == ([], (), {})


def test_a_coupon_that_the_night_outlasts_is_not_spoken_of_in_the_morning() -> None:
    rules = catalogue(
        rule_text(enter="{on: CouponIssued, key: coupon}", ends=None, steps="[{after: 10h}]"),
        shop="quiet_hours: {jitter: 0s}\n",
    )
    for expires_at, outcome in (("03-02 09:00", "expired"), ("03-02 09:00:01", "fired")):
        desk = Desk(rules).say(issued("c-1", "03-01", expires_at=expires_at)).wait("03-05")
        assert [d.outcome for d in desk.decisions] == ["deferred", outcome]


def test_a_night_that_outlasts_what_it_holds_lets_it_expire() -> None:
    rules = catalogue(
        rule_text(send="{channels: [push], expires_after: 2h}", ends=None, steps="[{after: 10h}]"),
        shop="quiet_hours: {jitter: 0s}\n",
    )
    desk = Desk(rules).say(paid("o-1", "03-01")).wait("03-05")
    assert [(d.outcome, d.final) for d in desk.decisions] == [("deferred", False), ("expired", True)]
    assert desk.decisions[1].reason == "It was due 11 hours ago and is worth sending for 2 hours."


def test_what_became_due_with_the_return_of_its_coupon_is_not_stale() -> None:
    desk = Desk(catalogue("coupon_unused")).say(issued("c-1", "03-01"), locked("c-1", "03-02")).wait("04-01")
    desk.say(returned("c-1", "04-01")).wait("04-02")
    assert [d.outcome for d in desk.decisions] == ["fired"]
