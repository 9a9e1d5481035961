"""The one door: an event once, refusals without a trace, counts for the metrics, and nothing edited in place."""

from __future__ import annotations

import copy

import msgspec
import pytest

from app.core import engine, rules
from app.core.facts import Refused
from app.core.moment import Moment
from app.core.policy import Policy
from app.core.row import NEVER, Row, encode
from schemas import events as ev
from tests.core.shop import (
    SHOP,
    Desk,
    at,
    catalogue,
    event,
    issued,
    line,
    locked,
    paid,
    redeemed,
    refunded,
    rule_text,
    terms,
)


def moment(floor: int = 0) -> Moment:
    return Moment(at("03-01"), floor, SHOP, {}, {}, [])


def test_the_first_event_of_a_user_makes_the_row() -> None:
    row = engine.step(None, event(ev.UserLoggedIn, "03-01"), moment())
    assert isinstance(row, Row)
    assert (row.user_id, row.last_login_at) == ("u-1", at("03-01"))


def test_an_event_that_is_known_gives_the_very_same_row_and_is_counted() -> None:
    now, order = moment(), paid("o-1", "03-01", line())
    row = engine.step(None, order, now)
    now.trace.clear()
    assert engine.step(row, order, now) is row
    assert now.trace == [("duplicates", "OrderPaid")]


def test_the_same_event_id_is_one_event_whatever_it_says() -> None:
    first = paid("o-1", "03-01")
    other = msgspec.structs.replace(paid("o-2", "03-02"), event_id=first.event_id)
    assert list(Desk().say(first, other).row.orders) == ["o-1"]


def test_a_refused_event_leaves_neither_row_nor_trace() -> None:
    now = moment()
    row = engine.step(None, paid("o-1", "03-01"), now)
    now.trace.clear()
    assert isinstance(engine.step(row, refunded("o-1", "03-02", "1.00", currency="EUR"), now), Refused)
    assert now.trace == []


def test_an_event_older_than_what_has_been_fired_is_counted_as_late_and_applied() -> None:
    now = moment(floor=at("03-01"))
    row = engine.step(None, event(ev.UserLoggedIn, "02-28"), now)
    assert now.trace == [("late", "UserLoggedIn")]
    assert row.last_login_at == at("02-28")
    now.trace.clear()
    engine.step(row, event(ev.UserLoggedIn, "03-01"), now)
    assert now.trace == []


def test_a_late_event_is_remembered_for_as_long_as_one_on_time() -> None:
    late = event(ev.UserLoggedIn, "01-01")
    row = engine.step(None, late, moment(floor=at("03-01")))
    others = [event(ev.UserLoggedIn, "03-07") for _ in range(600)]
    now = moment()
    for other in others:
        row = engine.step(row, other, now)
    assert engine.step(row, late, now) is row


def test_a_step_edits_nothing_of_the_row_it_was_given() -> None:
    desk = Desk(SHOP)
    history = [
        paid("o-1", "03-01", line(), coupons_issued=(terms("c-1"),)),
        issued("c-2", "03-02"),
        redeemed("c-2", "03-03"),
        *[paid(f"o-{n}", f"03-{n:02}", line()) for n in range(4, 30)],
        *[paid(f"o-{n}x", f"04-{n:02}", line()) for n in range(4, 30)],
        refunded("o-9x", "04-30"),
    ]
    for each in history:
        before, bytes_before = desk.row, encode(desk.row)
        kept = copy.deepcopy(before)
        desk.say(each)
        assert encode(before) == bytes_before
        assert before == kept
    before = encode(old := desk.row)
    desk.wait("12-31")
    assert encode(old) == before


def test_the_same_step_gives_the_same_row_and_the_same_outputs() -> None:
    events = paid("o-1", "03-01", line(), coupons_issued=(terms("c-1"),)), refunded("o-1", "05-01")
    one, two = (Desk(SHOP).say(events[0]).wait("05-01").say(events[1]).wait("12-31") for _ in range(2))
    assert encode(one.row) == encode(two.row)
    assert one.trace == two.trace


def test_events_without_a_rule_change_nothing_but_the_memory_of_them() -> None:
    desk = Desk(SHOP).say(event(ev.SearchPerformed, "03-01", query="milk"))
    plain = Row("u-1", last_seen_at=at("03-01"), catalogue=SHOP.fingerprint)
    assert msgspec.structs.replace(desk.row, ledger=b"") == plain
    assert len(desk.row.ledger) == 12
    assert desk.trace == []


def test_a_catalogue_is_in_the_order_of_its_names_whatever_order_it_was_given_in() -> None:
    names = ("c_rule", "a_rule", "b_rule")
    texts = catalogue(*[rule_text(rule=name, retime_on="[OrderReceived]") for name in names])
    backwards = rules.index(dict(reversed(texts.rules.items())), Policy())
    assert list(backwards.rules) == [rule.name for rule, _ in backwards.entered_by["OrderPaid"]] == sorted(names)
    assert [rule.name for rule, _ in backwards.ended_by["OrderPaid"]] == sorted(names)


HELD_TILL_NINE = 'quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n'


def let_go(desk: Desk, due_at: int) -> Desk:
    desk.row = engine.let_go(desk.row, due_at, desk._moment(due_at, due_at))
    return desk


@pytest.mark.parametrize(("tick", "kept"), [(-1, True), (0, False), (1, False)])
@pytest.mark.parametrize("waited", [True, False], ids=["deferred", "due"])
def test_what_is_set_aside_gets_its_final_record_whether_it_had_waited_or_not(
    waited: bool, tick: int, kept: bool
) -> None:
    night = catalogue(*(rule_text(rule=name, ends=None) for name in ("b", "a")), shop=HELD_TILL_NINE)
    desk = Desk(night).say(paid("o-1", "03-01 22:00")).wait("03-11 22:00" if waited else "03-11 21:59")
    due_at = at("03-12 09:00" if waited else "03-11 22:00") + tick
    before = len(desk.decisions)
    let_go(desk, due_at)
    said = [(d.rule, d.sequence, d.outcome, d.gate, d.final, d.reason) for d in desk.decisions[before:]]
    why = "The rules failed on it, and it was set aside."
    assert said == ([] if kept else [(name, int(waited), "dropped", "eligibility", True, why) for name in "ab"])
    assert desk.tallies["runs", "exited", "a"] == (not kept)
    finals = [d.rule for d in desk.wait("05-01").decisions if d.final]
    assert sorted(finals) == ["a", "b"]


def test_what_waits_for_its_coupon_without_a_record_was_no_candidate_and_gets_none() -> None:
    desk = Desk(SHOP).say(issued("c-1", "03-01"), locked("c-1", "03-02"))
    assert let_go(desk, at("03-08")).decisions == []
    assert desk.tallies["runs", "exited", "coupon_unused"] == 1
    assert desk.timers == []


def test_what_has_ended_or_is_due_later_stays_when_something_is_set_aside() -> None:
    desk = Desk(SHOP).say(issued("c-1", "03-01"), issued("c-2", "03-01"), issued("c-3", "03-02"))
    desk.say(redeemed("c-1", "03-02"))
    let_go(desk, at("03-08"))
    assert sorted(run.key for some in desk.row.runs.values() for run in some) == ["c-1", "c-3"]
    assert [d.entry.key for d in desk.decisions] == ["c-2"]
    assert desk.row.stage_due == NEVER
