"""Orders that the shop split: what belongs to the whole goes on while a part of it counts, and is there once."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.purchases import paid_orders
from schemas import events as ev
from tests.core.shop import (
    DAY,
    MINUTE,
    Desk,
    at,
    cancelled,
    catalogue,
    event,
    line,
    paid,
    placed,
    refunded,
    rule_text,
    whatever_arrives_first,
)

#: Says something of each purchase, a day after the first of its parts was paid.
OF_A_PURCHASE = rule_text(
    enter="{on: OrderPaid, key: order}", steps="[{after: 1d}]", ends="[{on: OrderCancelled}]", reentry="every_purchase"
)
AT_ONCE = {"steps": "[{at_once: true}]", "ends": None}


def part(name: str, when: str | int, *lines: ev.Line) -> ev.OrderPaid:
    return paid(f"o-1{name}", when, *lines, parent_order_id="o-1")


def test_the_earliest_part_is_the_entry_whichever_is_heard_of_first() -> None:
    parts = [part(name, at("03-01") + n * MINUTE) for n, name in enumerate("abc")]
    sent = whatever_arrives_first(*parts, until="03-10", catalogue=catalogue(OF_A_PURCHASE))
    assert [(key, due) for _, key, _, due, _ in sent] == [("o-1", "2026-03-02T12:00:00+08:00")]


def test_a_part_that_is_cancelled_ends_nothing_of_the_whole_until_all_are() -> None:
    parts = part("a", "03-01"), part("b", "03-01"), cancelled("o-1a", "03-01 13:00")
    assert len(whatever_arrives_first(*parts, until="03-10", catalogue=catalogue(OF_A_PURCHASE))) == 1
    both = *parts, cancelled("o-1b", "03-01 13:00")
    assert whatever_arrives_first(*both, until="03-10", catalogue=catalogue(OF_A_PURCHASE)) == set()


def test_what_was_given_for_good_is_not_given_again_for_another_part() -> None:
    rules = catalogue(
        rule_text(
            **AT_ONCE, enter="{on: OrderPaid, key: order}", reentry="every_purchase",
            send="{action: grant, expires_after: 1h}",
        )
    )  # fmt: skip
    desk = Desk(rules).say(part("a", "03-01")).wait("03-01 13:00").say(refunded("o-1a", "03-01 13:00"))
    assert desk.say(part("b", "03-02"), paid("o-2", "03-02")).sent == [
        ("a_rule", 1, "03-01 12:00"), ("a_rule", 1, "03-02 12:00")
    ]  # fmt: skip
    assert [trigger.entry.key for trigger in desk.triggers] == ["o-1", "o-2"]
    assert desk.retractions == []


def test_a_parent_that_only_the_placing_names_is_known_whichever_is_heard_of_first() -> None:
    words = [placed("o-1a", "03-01", parent_order_id="o-1"), paid("o-1a", "03-01 12:05"), part("b", "03-01")]
    for arriving in (words, words[::-1]):
        assert paid_orders(Desk(catalogue(rule_text())).say(*arriving).row) == 1


def test_an_order_that_names_itself_as_its_parent_is_no_part() -> None:
    rules = catalogue(rule_text(enter="{on: OrderPlaced, key: order, when: order.is_open}", ends="[{on: OrderPaid}]"))
    alone = placed("o-1", "03-01", parent_order_id="o-1")
    assert [key for _, key, *_ in Desk(rules).say(alone).timers] == ["o-1"]
    assert Desk(rules).say(alone, paid("o-1", "03-02", parent_order_id="o-1")).timers == []


def test_a_checkout_of_an_order_that_was_cancelled_before_begins_nothing() -> None:
    rules = catalogue(rule_text(enter="{on: CheckoutStarted, key: order}", ends=None))
    begun = event(ev.CheckoutStarted, "03-01", order_id="o-1", lines=(line(),))
    assert len(Desk(rules).say(begun).timers) == 1
    assert Desk(rules).say(cancelled("o-1", "03-01 12:05"), begun).timers == []


def test_what_begins_with_a_cancellation_of_the_whole_is_not_what_its_parts_take_back() -> None:
    rules = catalogue(rule_text(enter="{on: OrderCancelled, key: order}", ends=None))
    desk = Desk(rules).say(placed("o-1", "03-01"), part("a", "03-01"), cancelled("o-1", "03-02"))
    assert [key for _, key, *_ in desk.say(cancelled("o-1a", "03-02")).timers] == ["o-1", "o-1a"]


@pytest.mark.parametrize(("tick", "stays"), [(-1, True), (0, False), (1, False)])
def test_what_the_cooldown_refused_carries_on_when_the_other_is_taken_back(tick: int, stays: bool) -> None:
    send = "{action: grant, expires_after: 90d}"
    rules = catalogue(rule_text(**AT_ONCE, reentry="{cooldown: 30d}", send=send))
    first, again = paid("o-1", "03-01"), paid("o-2", at("03-01") + 30 * DAY + tick)
    desk = Desk(rules).say(first, again).say(refunded("o-1", "04-05"))
    assert len(desk.triggers) == (1 if stays else 2)
    assert (desk.retractions == []) is stays


@pytest.mark.parametrize(
    ("changes", "stays"),
    [
        ({}, True),
        (
            {"enter": "{on: OrderPaid, key: user, when: 'user.paid_orders == 1 && user.last_order_at == entered_at'}"},
            True,
        ),
        ({"enter": "{on: OrderPaid, key: user, when: '!user.bought_before && user.open_orders == 1'}"}, False),
        ({"enter": "[{on: UserCheckedIn, key: user}, {on: OrderPaid, key: user}]"}, True),
        ({"enter": "{on: OrderPaid, key: user, at: entered_at}"}, False),
        ({"reentry": "after_exit", "steps": "[{at_once: true}, {after: 9d}]"}, False),
        ({"steps": "[{after: 1h}]"}, False),
    ],
)
def test_whom_reentry_refused_carries_on_with_what_was_said_at_once(changes: dict[str, Any], stays: bool) -> None:
    settings = {**AT_ONCE, "reentry": "once", "send": "{action: grant, expires_after: 9d}", **changes}
    desk = Desk(catalogue(rule_text(**settings))).say(placed("o-0", "02-01"), paid("o-1", "03-01")).wait("03-01 14:00")
    desk.say(paid("o-2", "03-02"), cancelled("o-0", "03-02")).say(refunded("o-1", "03-02 15:00"))
    assert len(desk.triggers) == 1
    assert (desk.retractions == []) is stays
