"""What waits for the morning, its window or the end of a pause is timed anew like all that is still to come."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from app.backtest.driver import Driver
from app.core import engine
from app.core.rules import index
from app.core.transfers import History
from app.rulebook import load
from schemas import events as ev
from tests.catalogues import THREE
from tests.core.shop import OPEN, Desk, at, catalogue, event, line, paid, placed, received, refunded, rule_text

NIGHT = 'quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n'


def waiting_for_the_morning(**moment: Any) -> Desk:
    """Two cans of milk powder, whose reminder came due at night: 04-07 22:00."""
    night = catalogue("replenishment", shop=NIGHT)
    return Desk(night, **moment).say(paid("o-1", "03-01 22:00", line(quantity=2))).wait("04-07 22:30")


def said(desk: Desk) -> list[tuple[str, str, str]]:
    """The decisions: (outcome, when it was due, when it was decided)."""
    return [(d.outcome, d.due_at[5:16], d.decided_at[5:16]) for d in desk.decisions]


def test_what_waits_for_the_morning_is_timed_anew_and_asked_when_it_is_due() -> None:
    desk = waiting_for_the_morning().say(received("o-1", "04-07 22:30")).wait("12-31")
    assert said(desk) == [
        ("deferred", "04-07T22:00", "04-07T22:00"),
        ("deferred", "05-14T22:30", "05-14T22:30"),
        ("fired", "05-14T22:30", "05-15T09:00"),
    ]
    assert [d.sequence for d in desk.decisions] == [0, 1, 2]


def test_what_waits_and_should_have_come_long_ago_is_over_at_once() -> None:
    desk = waiting_for_the_morning().say(refunded("o-1", "04-07 22:30", lines={"milk_powder": 1})).wait("12-31")
    assert said(desk)[1:] == [("expired", "03-18T22:00", "04-07T22:30")]


def test_what_waits_and_turns_out_to_be_due_before_the_rule_may_send_has_its_final_record() -> None:
    desk = waiting_for_the_morning(sends_from={"replenishment": at("04-01")})
    desk.say(refunded("o-1", "04-07 22:30", lines={"milk_powder": 1})).wait("12-31")
    assert [(d.outcome, d.gate, d.final) for d in desk.decisions] == [
        ("deferred", "quiet_hours", False), ("dropped", "eligibility", True)
    ]  # fmt: skip
    assert desk.decisions[-1].due_at.startswith("2026-03-18")
    assert desk.row.runs == {}


def test_what_waits_in_its_window_leaves_it_when_it_is_due_later() -> None:
    rules = catalogue("replenishment", gates=OPEN.replace("arbitration: 0s", "arbitration: 1h"))
    desk = Desk(rules).say(paid("o-1", "03-01", line(quantity=2))).wait("04-07 12:30")
    assert desk.timers == [("replenishment", "milk_powder", 1, at("04-07 13:00"))]
    desk.say(received("o-1", "03-03")).wait("12-31")
    assert said(desk) == [
        ("deferred", "04-07T12:00", "04-07T12:00"),
        ("deferred", "04-09T12:00", "04-09T12:00"),
        ("fired", "04-09T12:00", "04-09T13:00"),
    ]


def test_what_a_pause_holds_is_timed_anew_and_worth_sending_from_then() -> None:
    running = (THREE / "replenishment.yaml").read_text()
    on, paused = catalogue(running), catalogue(running + "paused: hold\n")
    desk = Desk(paused).say(paid("o-1", "03-01", line(quantity=2))).wait("04-08").say(received("o-1", "03-03"))
    desk.wait("04-10").catalogue = on
    desk.row = engine.settle(desk.row, desk._moment(desk.now, desk.floor))
    desk.wait("12-31")
    assert said(desk)[:2] == [("deferred", f"04-0{day}T12:00", f"04-0{day}T12:00") for day in (7, 9)]
    assert [(t.due_at[5:10], t.decided_at[5:13]) for t in desk.triggers] == [("04-09", "04-10T12")]


def test_what_waits_and_is_due_when_it_was_goes_on_waiting() -> None:
    desk = waiting_for_the_morning()
    before = desk.timers
    assert desk.say(received("o-1", "02-20")).timers == before
    assert said(desk.wait("12-31"))[1:] == [("fired", "04-07T22:00", "04-08T09:00")]


@pytest.mark.parametrize("clock", ["events", "wall"])
def test_a_balance_that_is_not_due_is_not_asked_for_whatever_the_clock(clock: Literal["events", "wall"]) -> None:
    shipped = load()
    rules = index({"checkout_reminder": shipped.rules["checkout_reminder"]}, shipped.policy)
    balance = {"balance_due_from": at("03-11 20:00"), "balance_due_until": at("03-12 20:00")}
    deposit = event(ev.DepositPaid, "03-01 22:00", order_id="o-1", currency="CNY", amount=Decimal(10), **balance)
    driver = Driver(rules, clock=clock, at=at("03-01 21:00"))
    driver.run()
    for one in (placed("o-1", "03-01 21:30"), deposit):
        driver.advance_time(one.occurred_at)
        driver.send(one)
    driver.advance_time(at("03-20"))
    assert [(t.step, t.decided_at[5:16]) for t in driver.triggers] == [(1, "03-11T20:15"), (2, "03-12T19:00")]
    finals = [(d.step, d.due_at[5:16]) for d in driver.decisions if d.final]
    assert finals == [(1, "03-11T20:15"), (2, "03-12T18:00")]


# -- the rhythm


RHYTHM = rule_text(steps="[{after: user.usual_gap}]", send="{channels: [push], expires_after: 36h}")
OLD = [paid(f"o-{day}", f"{day} 22:00") for day in ("02-09", "03-01", "03-21", "04-10")]
"""One every 20 days: what waits is due on 04-30 at 22:00."""
BETWEEN, LONG_AGO = paid("o-between", "03-10 22:00"), paid("o-long-ago", "2025-12-11 22:00")
"""One more between them makes it 15 days, until 04-25; one long ago, 30 days, until 05-10."""


def late_or_merged(desk: Desk, how: str, order: ev.OrderPaid) -> Desk:
    """This purchase is heard of now: it was this account's, or that of one that becomes part of it."""
    if how == "late":
        return desk.say(order)
    other, told = Desk(desk.catalogue).say(order).row, History("u-1", ("u-2",), "merge", desk.now, None)
    desk.row = engine.absorb(desk.row, told, replace(other, user_id="u-2"), desk._moment(desk.now, desk.floor))
    return desk


@pytest.mark.parametrize("how", ["late", "merged"])
def test_a_step_that_moves_into_the_past_is_asked_now_and_is_stale_when_it_should_have_come_long_ago(how: str) -> None:
    for now, outcome in (("04-25 22:00", "fired"), ("04-27 10:00", "fired"), ("04-27 10:00:01", "expired")):
        desk = Desk(catalogue(RHYTHM)).say(*OLD).wait(now)
        late_or_merged(desk, how, BETWEEN).wait(now)
        assert said(desk) == [(outcome, "04-25T22:00", now.replace(" ", "T")[:11])], now


@pytest.mark.parametrize("how", ["late", "merged"])
@pytest.mark.parametrize(("tick", "outcomes"), [(0, ["fired"]), (1, [])])
def test_a_step_that_turns_out_to_be_due_before_the_rule_may_send_is_passed_over(
    how: str, tick: int, outcomes: list[str]
) -> None:
    desk = Desk(catalogue(RHYTHM), sends_from={"a_rule": at("04-25 22:00") + tick}).say(*OLD).wait("04-26 22:00")
    passed_over = desk.tallies["steps", "before_start", "a_rule"]
    late_or_merged(desk, how, BETWEEN).wait("12-31")
    assert [d.outcome for d in desk.decisions] == outcomes
    assert desk.tallies["steps", "before_start", "a_rule"] - passed_over == tick


@pytest.mark.parametrize("how", ["late", "merged"])
def test_a_silence_that_waits_for_the_morning_is_measured_anew(how: str) -> None:
    desk = Desk(catalogue(RHYTHM, shop=NIGHT)).say(*OLD).wait("04-30 23:00")
    late_or_merged(desk, how, LONG_AGO).wait("12-31")
    assert said(desk) == [
        ("deferred", "04-30T22:00", "04-30T22:00"),
        ("deferred", "05-10T22:00", "05-10T22:00"),
        ("fired", "05-10T22:00", "05-11T09:00"),
    ]
