"""The order of arrival changes nothing that is timed: the cases that the property over random lives has found."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from app.core import engine, facts, looks
from app.core.facts import Facts
from app.core.row import NAMELESS_CHECKOUT, Row, View
from app.core.rules import Catalogue, index
from app.rulebook import load
from schemas import events as ev
from tests.core.shop import (
    DAY,
    HOUR,
    Desk,
    at,
    cancelled,
    catalogue,
    event,
    line,
    paid,
    placed,
    refunded,
    returned,
    rule_text,
)

SHIPPED = load()


def only(*names: str) -> Catalogue:
    return index({name: SHIPPED.rules[name] for name in names}, SHIPPED.policy)


def look(when: str | int, dwell: float | None = None, product: str = "p-1", **fields: Any) -> ev.ProductViewed:
    return event(ev.ProductViewed, when, product_id=product, category="baby", dwell_seconds=dwell, **fields)


def checkout(when: str, order: str | None = None, name: str | None = None) -> ev.CheckoutStarted:
    return event(ev.CheckoutStarted, when, lines=(line(),), order_id=order, checkout_id=name)


def zone(when: str, zone: str, **fields: Any) -> ev.ProfileUpdated:
    return event(ev.ProfileUpdated, when, time_zone=zone, **fields)


# -- looks


def seen(*events: ev.ProductViewed, floor: int = 0) -> View:
    row = Row("u-1")
    for each in events:
        after = facts.apply(row, each, floor)
        assert isinstance(after, Facts)
        row = after.row
    return row.views["p-1"]


def test_looks_come_to_the_same_whatever_arrives_first() -> None:
    four = [look("03-01 12:00", 5), look("03-01 12:29", 50), look("03-01 12:58", 2), look("03-01 14:00")]
    views = {seen(*order) for order in permutations(four)}
    assert [(v.last_at, v.visits, v.dwell) for v in views] == [(at("03-01 14:00"), 2, 50)]


@pytest.mark.parametrize(
    ("when", "visits", "dwell"),
    [("12:00", 1, 5), ("12:44:59.999999", 1, 5), ("12:45", 2, 50), ("13:59:59.999999", 2, 50), ("14:00", 3, 50)],
)
def test_what_looks_had_come_to_at_an_instant(when: str, visits: int, dwell: int) -> None:
    view = seen(look("03-01 14:00", 1), look("03-01 12:45", 50), look("03-01 12:00", 5))
    then = looks.as_of(view, at(f"03-01 {when}"))
    assert then is not None
    assert (then.visits, then.dwell) == (visits, dwell)


def test_before_the_first_look_there_was_none() -> None:
    assert looks.as_of(seen(look("03-01 12:00")), at("03-01 12:00") - 1) is None
    settled = seen(look("03-01 12:00"), look("03-01 14:00"), floor=at("03-01 14:00"))
    assert looks.as_of(settled, at("03-01 13:00")) is not None  # what is settled is of the past, whenever one asks


def test_looks_that_nothing_earlier_can_join_are_only_counted() -> None:
    three = look("03-01 12:00", 5), look("03-01 12:45", 50), look("03-01 14:00", 1)
    assert [each[0] for each in seen(*three, floor=at("03-01 14:00")).looks] == [at("03-01 14:00")]
    assert [each[0] for each in seen(*three, floor=at("03-01 12:45")).looks] == [at("03-01 12:45"), at("03-01 14:00")]
    assert seen(*three, floor=at("03-01 14:00")).summed == (at("03-01 12:45"), 2, 50)


def test_of_many_looks_the_oldest_are_only_counted() -> None:
    view = seen(*[look(at("03-01") + n * HOUR) for n in range(looks.MAX_LOOKS + 5)])
    assert (view.visits, len(view.looks), view.summed[1]) == (looks.MAX_LOOKS + 5, looks.MAX_LOOKS, 5)


def test_what_the_latest_look_says_of_a_product_holds() -> None:
    first, second = look("03-01", title="Milk"), look("03-02", title="Better milk", image_url="https://shop/p.png")
    titles = {(view.title, view.image_url) for order in permutations([first, second]) if (view := seen(*order))}
    assert titles == {("Better milk", "https://shop/p.png")}


def test_visits_of_two_accounts_add_up_and_a_look_counts_once() -> None:
    mine, both = look("03-01 12:00", 5), look("03-01 14:00", 9)
    together = looks.together(seen(mine, both), seen(both))
    assert (together.visits, together.dwell, len(together.looks)) == (2, 9, 2)
    old = looks.together(View("p-1", 50, 2, 7), View("p-1", 70, 3, 4))
    assert (old.last_at, old.visits, old.dwell, old.summed, old.looks) == (70, 5, 7, (-1, 0, 0), ())


def test_who_looks_on_two_visits_enters_by_the_second_whichever_arrives_first() -> None:
    visits = [look("03-01 12:00"), look("03-01 12:40"), look("03-01 16:00")]
    for order in permutations(visits):
        desk = Desk(only("browse_abandoned")).say(*order)
        assert desk.timers == [("browse_abandoned", "baby", 1, at("03-02 12:40"))]
        assert [t.evidence[0].event_id for t in desk.wait("04-01").triggers] == [visits[1].event_id]


def test_of_two_long_looks_the_earlier_is_the_entry_whichever_arrives_first() -> None:
    first, second = look("03-01 12:00", 50), look("03-01 12:17", 50)
    ids = {
        tuple(
            (t.trigger_id, t.evidence[0].event_id)
            for t in Desk(only("browse_abandoned")).say(*two).wait("04-01").triggers
        )
        for two in permutations([first, second])
    }
    ((one,),) = ids
    assert one[1] == first.event_id


def test_a_late_look_lets_no_later_one_in_that_was_an_entry_without_it() -> None:
    desk = Desk(only("browse_abandoned")).say(look("03-02 12:00", 50), look("03-01 11:00", 1))
    assert desk.tallies["runs", "entered", "browse_abandoned"] == 1
    assert desk.timers == [("browse_abandoned", "baby", 1, at("03-03 12:00"))]


# -- carts, checkouts and orders


def cart(when: str, name: str, *lines: ev.Line) -> ev.CartUpdated:
    return event(ev.CartUpdated, when, cart_id=name, lines=lines)


def test_what_happens_to_one_cart_says_nothing_of_another() -> None:
    events = cart("03-01 12:00", "a", line()), cart("03-01 12:10", "b", line()), cart("03-01 12:20", "b")
    for order in permutations(events):
        desk = Desk(only("cart_abandoned")).say(*order)
        assert desk.timers == [("cart_abandoned", "a", 1, at("03-01 16:00"))]


def test_a_look_at_something_else_ends_nothing() -> None:
    rules = catalogue(
        rule_text(
            enter="{on: OrderPaid, each: line, key: category}", ends="[{on: ProductViewed}]", steps="[{after: 5d}]"
        )
    )
    bought = paid("o-1", "03-01", ev.Line(product_id="p-1", category="baby", quantity=1))
    other = event(ev.ProductViewed, "03-02", product_id="p-9", category="toys")
    for order in permutations([bought, other]):
        assert Desk(rules).say(*order).timers == [("a_rule", "baby", 1, at("03-06"))]
    for order in permutations([bought, look("03-02"), other]):
        assert Desk(rules).say(*order).timers == []


def test_a_look_that_was_only_counted_ends_what_it_is_after() -> None:
    rules = catalogue(
        rule_text(
            enter="{on: OrderPaid, each: line, key: product_type}", ends="[{on: ProductViewed}]", steps="[{after: 5d}]"
        )
    )
    row = Row("u-1", views={"p-1": View("p-1", at("03-02"), 1, product_type="milk_powder")})
    desk = Desk(rules)
    desk.row = row
    assert desk.say(paid("o-1", "03-01", line())).timers == []


@pytest.mark.parametrize("end", ["OrderPlaced", "OrderPaid"])
def test_an_order_that_was_taken_back_before_it_was_heard_of_ends_nothing(end: str) -> None:
    rules = catalogue(rule_text(enter="{on: CartUpdated, key: cart}", ends=f"[{{on: {end}, same: user}}]"))
    order = placed("o-1", "03-02", line()) if end == "OrderPlaced" else paid("o-1", "03-02", line())
    back = cancelled("o-1", "03-03") if end == "OrderPlaced" else refunded("o-1", "03-03")
    filled = cart("03-01", "a", line())
    timers = {tuple(Desk(rules).say(*arriving).timers) for arriving in permutations([filled, order, back])}
    assert len(timers) == 1
    assert timers != {()}
    ended = {tuple(Desk(rules).say(*arriving).timers) for arriving in permutations([filled, order])}
    assert ended == {()}


def test_an_order_that_was_taken_back_before_it_was_heard_of_starts_nothing() -> None:
    rules = only("checkout_reminder")
    two = placed("o-1", "03-01 12:00", line()), refunded("o-1", "03-01 12:05")
    assert {tuple(Desk(rules).say(*order).timers) for order in permutations(two)} == {()}


def test_what_comes_of_a_refund_is_not_taken_back_by_it() -> None:
    rules = catalogue(
        rule_text(enter="{on: AfterSaleClosed, key: order}", ends=None, steps="[{after: 1d}]"),
        rule_text(rule="other", enter="{on: OrderPaid, key: order}", ends=None, steps="[{after: 1d}]"),
    )
    events = [
        paid("o-1", "03-01", line()),
        refunded("o-1", "03-02"),
        event(ev.AfterSaleClosed, "03-03", order_id="o-1", case_id="a"),
    ]
    for order in permutations(events):
        assert Desk(rules).say(*order).timers == [("a_rule", "o-1", 1, at("03-04"))]


def test_a_coupon_that_is_back_is_told_of_whether_its_order_was_refunded_before_or_after() -> None:
    rules = catalogue(rule_text(enter="{on: CouponReturned, key: coupon}", ends=None, steps="[{after: 1d}]"))
    back = returned("c-1", "03-02", order_id="o-1")
    for order in permutations([paid("o-1", "03-01", line()), cancelled("o-1", "03-02 11:00"), back]):
        assert Desk(rules).say(*order).timers == [("a_rule", "c-1", 1, at("03-03"))]


def test_a_checkout_that_another_order_seemed_to_be_goes_on_once_it_is_an_order_itself() -> None:
    began, other = checkout("03-01 12:00", "o-2"), paid("o-1", "03-01 14:00")
    own = placed("o-2", "03-01 13:00", line())
    for order in permutations([began, other, own]):
        assert [key for _, key, *_ in Desk(only("checkout_reminder")).say(*order).timers] == ["o-2"]
    assert Desk(only("checkout_reminder")).say(began, other).timers == []
    assert Desk(only("checkout_reminder")).say(began, other, paid("o-2", "03-01 15:00"), own).timers == []


def test_another_order_that_is_paid_back_does_not_end_a_checkout() -> None:
    events = [checkout("03-01 12:00", "o-2"), paid("o-1", "03-01 12:05"), refunded("o-1", "03-01 12:10")]
    for order in permutations(events):
        assert [key for _, key, *_ in Desk(only("checkout_reminder")).say(*order).timers] == ["o-2"]


def test_a_checkout_of_which_all_was_said_is_not_begun_again_as_an_order() -> None:
    desk = Desk(only("checkout_reminder")).say(checkout("03-01 12:00", "o-2")).wait("03-05")
    assert len(desk.triggers) == 2
    assert desk.say(paid("o-1", "03-05 12:00"), placed("o-2", "03-05 13:00")).timers == []


@pytest.mark.parametrize("name", [None, "x"])
def test_a_checkout_without_any_name_is_another_one_each_time(name: str | None) -> None:
    desk = Desk(only("checkout_reminder")).say(checkout("03-01 12:00", name=name), placed("o-1", "03-01 12:10"))
    desk.say(paid("o-1", "03-01 12:11")).wait("03-20").say(checkout("03-20 12:00", name=name))
    assert len(desk.timers) == (1 if name is None else 0)
    desk.say(checkout("03-20 12:05", name=name))
    assert len(desk.timers) == (1 if name is None else 0)


def test_a_checkout_without_any_name_that_was_completed_already_leaves_the_present_one_alone() -> None:
    desk = Desk(only("checkout_reminder")).say(placed("o-1", "03-01 12:10"), paid("o-1", "03-01 12:11"))
    desk.say(checkout("03-01 12:20"), checkout("03-01 12:00"))
    assert desk.timers == [("checkout_reminder", NAMELESS_CHECKOUT, 1, at("03-01 12:35"))]
    desk.wait("03-03").say(checkout("03-03 12:00"))
    assert [when for *_, when in desk.timers] == [at("03-03 12:15")]


# -- zones


@pytest.mark.parametrize("rule", ["birthday", "anniversary"])
def test_the_morning_is_that_of_wherever_the_user_turns_out_to_be(rule: str) -> None:
    began = (
        zone("01-19", "America/New_York", birthday="--05-04")
        if rule == "birthday"
        else event(ev.UserRegistered, "01-19")
    )
    moved = zone("01-21", "Europe/Berlin")
    for order in permutations([began, moved]):
        ((_, _, _, due),) = Desk(only(rule)).say(*order).timers
        assert due == (at("2026-04-27T09:00:00+02:00") if rule == "birthday" else at("2027-01-12T09:00:00+01:00"))


def test_who_moves_to_where_the_morning_is_over_is_greeted_now() -> None:
    desk = Desk(only("birthday")).say(zone("01-19", "America/New_York", birthday="--05-04")).wait("04-27 10:30")
    assert desk.triggers == []
    desk.say(zone("04-27 10:30", "Asia/Shanghai")).wait("04-27 12:00")
    assert [t.rule for t in desk.triggers] == ["birthday"]


def test_a_profile_without_another_zone_times_nothing_anew() -> None:
    desk = Desk(only("birthday")).say(zone("01-19", "Europe/Berlin", birthday="--05-04"))
    before = desk.row
    assert before is not None
    desk.say(zone("01-20", "Europe/Berlin"))
    assert desk.row is not None
    assert desk.row.runs == before.runs


# -- looks before a purchase are of the past


def baby(order: str, when: str) -> ev.OrderPaid:
    return paid(order, when, ev.Line(product_id="p-9", product_type="diapers", category="baby", quantity=1))


def test_what_was_bought_is_looked_at_anew() -> None:
    events = [look("03-01 12:00"), look("03-01 13:00"), baby("o-1", "03-01 14:00"), look("03-03 12:00", 5)]
    for order in permutations(events):
        desk = Desk(only("browse_abandoned")).say(*order)
        assert desk.timers == []
    desk = Desk(only("browse_abandoned")).say(*events, look("03-03 13:00", 5))
    assert desk.timers == [("browse_abandoned", "baby", 1, at("03-04 13:00"))]
    (trigger,) = desk.wait("04-01").triggers
    assert trigger.facts["visits"] == 2


@pytest.mark.parametrize("back", [refunded("o-1", "03-01 15:00"), cancelled("o-1", "03-01 15:00")])
def test_and_if_it_goes_back_the_looks_before_it_count_again(back: ev.Event) -> None:
    events = [look("03-01 12:00"), baby("o-1", "03-01 14:00"), back, look("03-03 12:00", 5)]
    for order in permutations(events):
        assert len(Desk(only("browse_abandoned")).say(*order).timers) == 1


def test_a_gift_is_no_purchase_of_what_was_looked_at() -> None:
    gift = ev.Line(product_id="p-9", category="baby", quantity=1, gift=True)
    desk = Desk(only("browse_abandoned")).say(
        look("03-01 12:00"), paid("o-1", "03-01 13:00", gift), look("03-01 14:00")
    )
    assert len(desk.timers) == 1


def test_what_is_only_counted_is_counted_anew_after_each_purchase() -> None:
    desk = Desk(only("browse_abandoned")).say(look("03-01 12:00"), look("03-01 13:00")).wait("03-01 13:30")
    desk.say(baby("o-1", "03-01 14:00")).wait("03-05").say(look("03-05 13:00")).wait("03-06").say(look("03-06 13:00"))
    assert desk.row is not None
    view = desk.row.views["p-1"]
    assert (view.summed, len(view.looks)) == ((at("03-05 13:00"), 1, 0), 1)
    assert desk.timers == [("browse_abandoned", "baby", 1, at("03-07 13:00"))]


# -- purchases that are heard of late, or taken back


def test_a_purchase_heard_of_late_times_by_the_rhythm_that_it_makes() -> None:
    orders = [paid(f"o-{n}", at("2026-01-01T12:00:00+08:00") + n * 60 * DAY, line()) for n in range(4)]
    dues = set()
    for late in range(4):
        arriving = [*orders[:late], *orders[late + 1 :], orders[late]]
        desk = Desk(only("at_risk")).say(*arriving)
        dues.add(desk.timers[0][3])
    assert dues == {orders[3].occurred_at + 90 * DAY}


def test_a_purchase_taken_back_times_by_the_rhythm_that_is_left() -> None:
    orders = [paid(f"o-{n}", at("2026-01-01T12:00:00+08:00") + n * 60 * DAY, line()) for n in range(5)]
    back = refunded("o-2", orders[4].occurred_at + HOUR)
    desk = Desk(only("at_risk")).say(*orders, back)
    assert desk.timers[0][3] == orders[4].occurred_at + 120 * DAY
    assert desk.timers == Desk(only("at_risk")).say(*orders[:4], back, orders[4]).timers


def test_who_bought_a_week_ago_is_not_back_and_it_is_taken_back() -> None:
    desk = Desk(only("reactivated")).say(paid("o-1", "2026-01-01", line()), paid("o-3", "2026-06-01", line()))
    assert [t.rule for t in desk.triggers] == ["reactivated"]
    desk.say(paid("o-2", "2026-05-25", line()))
    assert [r.retracts for r in desk.retractions] == [desk.triggers[0].trigger_id]
    assert desk.retractions[0].reason == "A purchase before it was entered was only heard of afterwards."
    assert [d.outcome for d in desk.decisions][:2] == ["fired", "retracted"]


def test_what_waits_and_should_not_have_begun_is_dropped_with_its_record() -> None:
    rules = catalogue(
        rule_text(
            enter='{on: OrderPaid, key: user, when: "user.paid_orders == 1"}',
            ends=None,
            steps="[{after: 10h}]",
            reentry="once",
        ),
        shop="locale: en\n",
    )
    desk = Desk(rules).say(paid("o-2", "03-02 12:00", line())).wait("03-02 22:30")
    assert [d.outcome for d in desk.decisions] == ["deferred"]
    desk.say(paid("o-1", "03-01", line()))
    assert [d.outcome for d in desk.decisions] == ["deferred", "dropped"]
    assert "heard of late" in desk.decisions[-1].reason
    assert desk.timers == []
    assert desk.row is not None
    assert desk.row.entries == {}


def test_who_bought_before_registering_is_not_nudged_to_a_first_order() -> None:
    registered = event(ev.UserRegistered, "03-02")
    for order in permutations([registered, paid("o-1", "03-01", line())]):
        assert Desk(only("first_order_nudge")).say(*order).timers == []


def test_a_grant_stays_given() -> None:
    desk = Desk(only("first_order_gift")).say(event(ev.UserRegistered, "02-01"), paid("o-2", "03-02", line()))
    desk.say(paid("o-1", "03-01", line()))
    assert [d.outcome for d in desk.decisions] == ["fired"]


def test_what_had_ended_is_dropped_in_silence_when_it_should_not_have_begun() -> None:
    rules = catalogue(
        rule_text(enter='{on: OrderPaid, key: user, when: "user.paid_orders == 1"}', ends="[{on: UserLoggedIn}]")
    )
    desk = Desk(rules).say(paid("o-2", "03-02", line()), event(ev.UserLoggedIn, "03-03"))
    assert desk.row is not None
    assert desk.row.runs != {}
    desk.say(paid("o-1", "03-01", line()))
    assert desk.row.runs == {}
    assert desk.decisions == []


@pytest.mark.parametrize(("orders", "back", "waits"), [(6, "o-2", True), (7, "o-2", False), (6, None, False)])
def test_one_less_than_the_magic_number_is_nudged_whenever_the_refund_comes(
    orders: int, back: str | None, waits: bool
) -> None:
    bought = [paid(f"o-{n}", at("01-01") + n * DAY, line()) for n in range(orders)]
    refund = [refunded(back, at("01-01") + 10 * DAY)] if back else []
    desk = Desk(only("second_order_nudge")).say(*bought, *refund)
    assert desk.row is not None
    entered = [run.event_id for runs in desk.row.runs.values() for run in runs if not run.ends]
    assert entered == ([bought[-1].event_id] if waits else [])
    other = Desk(only("second_order_nudge")).say(*bought[:-1], *refund, bought[-1])
    assert desk.timers == other.timers


def test_the_only_purchase_taken_back_lets_nobody_in() -> None:
    desk = Desk(only("second_order_nudge")).say(paid("o-1", "03-01", line()), refunded("o-1", "03-02"))
    assert desk.timers == []


def test_a_checkout_of_an_order_that_was_taken_back_is_not_reminded_of() -> None:
    for order in permutations([checkout("03-01 12:00", "o-1"), cancelled("o-1", "03-01 12:05")]):
        assert Desk(only("checkout_reminder")).say(*order).timers == []


def test_of_an_entry_by_a_look_that_is_only_counted_by_now_nobody_knows_better() -> None:
    desk = Desk(only("browse_abandoned")).say(look("03-01 12:00", 50)).wait("03-01 18:00").say(look("03-01 18:00"))
    assert desk.row is not None
    assert len(desk.row.views["p-1"].looks) == 1
    desk.say(baby("o-1", "03-01 11:00"))
    assert desk.timers == [("browse_abandoned", "baby", 1, at("03-02 12:00"))]


def test_the_greeting_of_a_year_is_taken_back_by_its_own_name_when_the_next_is_timed_already() -> None:
    desk = Desk(only("birthday")).say(zone("01-19", "Asia/Shanghai", birthday="--05-04")).wait("04-27 12:00")
    (sent,) = desk.triggers
    assert desk.timers != []
    assert desk.row is not None
    engine.leave(desk.row, event(ev.UserMerged, "04-27 12:30", into="u-2"), desk._moment(desk.now, desk.floor))
    fired, back = (d for d in desk.decisions if d.trigger_id == sent.trigger_id and d.outcome != "deferred")
    assert (fired.outcome, back.outcome, back.run_id) == ("fired", "retracted", fired.run_id)
    assert back.sequence == fired.sequence + 1
