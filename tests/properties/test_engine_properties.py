"""What holds of every history of a user, by the engine alone."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st

from app.core import engine, row
from app.core.row import NEVER, decode, encode, next_timer
from schemas import events as ev
from tests.core.shop import DAY, Desk
from tests.properties.histories import NIGHTLY, RULES, START, histories

FEW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
END = START + 1200 * DAY


def sent(desk: Desk) -> set[tuple[Any, ...]]:
    """What went out and was not taken back."""
    back = {retraction.retracts for retraction in desk.retractions}
    return {
        (t.trigger_id, t.rule, t.entry.key, t.step, t.due_at, t.reason)
        for t in desk.triggers
        if t.trigger_id not in back
    }


def lived(history: list[ev.Event], of: Any = RULES) -> Desk:
    """A user to whom time passes between the events."""
    desk = Desk(of)
    for each in history:
        desk.wait(each.occurred_at - 1).say(each)
    return desk


@FEW
@given(st.data())
def test_before_anything_is_due_the_order_of_arrival_does_not_matter(data: st.DataObject) -> None:
    history = data.draw(histories(most=9))
    arrival = data.draw(st.permutations(history))
    note(str(arrival))
    wanted = sent(Desk(RULES).say(*history).wait(END))
    event(f"messages: {min(len(wanted), 3)}")
    assert sent(Desk(RULES).say(*arrival).wait(END)) == wanted


@FEW
@given(histories(), st.data())
def test_a_duplicate_changes_nothing_however_late_it_comes(history: list[ev.Event], data: st.DataObject) -> None:
    desk, plain = Desk(NIGHTLY), lived(history, NIGHTLY)
    for position, each in enumerate(history):
        desk.wait(each.occurred_at - 1).say(each)
        again = data.draw(st.sampled_from(history[: position + 1]))
        before = desk.row
        desk.say(again)
        assert desk.row is before
    assert [each for each in desk.trace if not (isinstance(each, tuple) and each[0] == "duplicates")] == plain.trace
    assert encode(desk.row) == encode(plain.row)


@FEW
@given(histories())
def test_a_row_that_is_written_and_read_between_any_two_steps_goes_on_the_same(history: list[ev.Event]) -> None:
    desk = Desk(NIGHTLY)
    for each in history:
        desk.wait(each.occurred_at - 1)
        desk.row = decode(encode(desk.row))
        desk.say(each)
        desk.row = decode(encode(desk.row))
    while (due := next_timer(desk.row)) < NEVER:
        desk.wait(due)
        desk.row = decode(encode(desk.row))
    plain = lived(history, NIGHTLY).wait(END)
    assert desk.trace == plain.trace
    assert encode(desk.row) == encode(plain.row)


@FEW
@given(histories())
def test_a_user_with_nothing_to_come_has_no_timer_and_no_run_but_what_waits_for_word(history: list[ev.Event]) -> None:
    desk = lived(history).wait(END)
    assert next_timer(desk.row) == NEVER
    alive = [run for runs in desk.row.runs.values() for run in runs if not run.ends and not run.fired]
    assert all(run.held for run in alive)


@FEW
@given(histories())
def test_every_candidate_has_exactly_one_final_decision(history: list[ev.Event]) -> None:
    desk = lived(history, NIGHTLY).wait(END)
    by_candidate: dict[str | None, list[Any]] = {}
    for decision in desk.decisions:
        by_candidate.setdefault(decision.trigger_id, []).append(decision)
    for records in by_candidate.values():
        assert [record.sequence for record in records] == list(range(len(records)))
        outcomes = [record.outcome for record in records]
        assert [record.final for record in records] == [o not in ("deferred", "retracted") for o in outcomes]
        assert sum(record.final for record in records) == 1
        assert "retracted" not in outcomes or outcomes[-2:] == ["fired", "retracted"]
    fired = {decision.trigger_id for decision in desk.decisions if decision.outcome == "fired"}
    assert fired == {trigger.trigger_id for trigger in desk.triggers}
    assert {back.retracts for back in desk.retractions} <= fired


@FEW
@given(histories())
def test_no_id_is_given_twice(history: list[ev.Event]) -> None:
    desk = lived(history, NIGHTLY).wait(END)
    ids = [trigger.trigger_id for trigger in desk.triggers]
    ids += [back.retraction_id for back in desk.retractions]
    ids += [decision.decision_id for decision in desk.decisions]
    assert [name for name, times in Counter(ids).items() if times > 1] == []


@FEW
@given(histories())
def test_nobody_is_written_to_at_night_by_the_clock_on_their_wall(history: list[ev.Event]) -> None:
    desk = lived(history, NIGHTLY).wait(END)
    for trigger in desk.triggers:
        zone = {each.time_zone for each in history if isinstance(each, ev.ProfileUpdated)} | {"Asia/Shanghai"}
        event(f"zones: {len(zone)}")
        assert "09:00:00" <= trigger.not_before[11:19] < "21:00:00"
        assert trigger.not_before == trigger.decided_at < trigger.expires_at
        assert "09:00:00" <= trigger.expires_at[11:19] <= "21:00:00"


@FEW
@given(histories(most=8), st.integers(0, 60), st.sampled_from(["cancel", "whole", "sum"]))
def test_an_order_that_was_taken_back_before_anything_was_due_might_as_well_not_have_been(
    history: list[ev.Event], day: int, how: str
) -> None:
    at, who = START + day * DAY + 59 * 60_000_000 + 7, {"user_id": "u-1", "order_id": "o-x"}
    lines = tuple(ev.Line(product_id=f"p-{t}", product_type=t, quantity=2) for t in ("milk_powder", "daily_goods"))
    money = {"currency": "CNY", "total": Decimal(50)}
    bought = ev.OrderPaid(event_id="x-1", occurred_at=at, lines=lines, coupons_used=("c-1",), **money, **who)
    if how == "cancel":
        back: ev.Event = ev.OrderCancelled(event_id="x-2", occurred_at=at + 1, **who)
    else:
        amount = {"amount": Decimal(50), "currency": "CNY"} if how == "sum" else {}
        back = ev.OrderRefunded(event_id="x-2", occurred_at=at + 1, **amount, **who)
    without = [each for each in history if getattr(each, "coupon_id", "") != "c-1"]
    without = [each for each in without if "c-1" not in getattr(each, "coupons_used", ())]
    before = [each for each in without if each.occurred_at <= at]
    after = [each for each in without if each.occurred_at > at]
    with_order = Desk(RULES).say(*before, bought, back, *after).wait(END)
    assert sent(with_order) == sent(Desk(RULES).say(*without).wait(END))


@FEW
@given(histories())
def test_a_step_edits_nothing_and_keeps_the_row_within_its_bounds(history: list[ev.Event]) -> None:
    desk = Desk(RULES)
    for each in history:
        before, given_bytes = desk.row, encode(desk.row)
        desk.say(each)
        assert encode(before) == given_bytes
        for runs in desk.row.runs.values():
            assert sum(not run.ends and run.timer_at < NEVER for run in runs) <= 1
            assert len(runs) <= row.MAX_ENDED_RUNS + 2
        assert engine.step(desk.row, each, desk._moment(desk.now, desk.floor)) is desk.row
