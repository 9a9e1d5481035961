"""The one door: an event once, refusals without a trace, counts for the metrics, and nothing edited in place."""

from __future__ import annotations

import copy

import msgspec

from app.core import engine, rules
from app.core.facts import Refused
from app.core.moment import Moment
from app.core.policy import Policy
from app.core.row import Row, encode
from schemas import events as ev
from tests.core.shop import SHOP, Desk, at, catalogue, event, issued, line, paid, redeemed, refunded, rule_text, terms


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
