"""After an outage: timers came due while no worker ran, and what cancels them waits in the backlog, on any topic, in
any order of arrival. Under CLOCK=wall, with all that is shipped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache

import pytest

from app.core.rules import Catalogue
from app.rulebook import load
from schemas import events as ev
from schemas.instant import DAY, HOUR, MINUTE, SECOND, parse_instant
from tests.core.shard import Shard, named
from tests.core.shop import at, cancelled, event, issued, line, paid, placed, redeemed

INPUTS = ("orders", "logins", "browse", "coupons")
LEFT = at("05-01 12:00")
"""When the worker went down."""
BACK = at("05-04 15:00")
"""When it is back, in the afternoon where everybody is."""
DUE = BACK - 3 * HOUR
"""When everything came due; what it was entered by happened so much earlier."""
SOON = DUE - 20 * MINUTE
"""When it was cancelled, if it was."""


@lru_cache(maxsize=1)
def shipped() -> Catalogue:
    return load()


def lives() -> Iterator[tuple[str, str, list[ev.Event], list[ev.Event]]]:
    """(user, rule, what enters it, what cancels it), for each pair of an entry and an end that are told apart."""
    coupon, week = "coupon_unused", DUE - 7 * DAY
    yield "coupon-order", coupon, [issued("c1", week)], [paid("o1", SOON, line("shoes"), coupons_used=("c1",))]
    bought = paid("o2", week, line("shoes"), coupons_issued=(ev.IssuedCoupon(coupon_id="c2"),))
    yield "order-coupon", coupon, [bought], [redeemed("c2", SOON)]
    yield "coupon-coupon", coupon, [issued("c3", week)], [event(ev.CouponRevoked, SOON, coupon_id="c3")]
    cart = event(ev.CartUpdated, DUE - 4 * HOUR, cart_id="k", lines=(line("shoes"),))
    yield "cart-order", "cart_abandoned", [cart], [placed("o4", SOON, line("shoes"))]
    yield "cart-cart", "cart_abandoned", [cart], [event(ev.CartUpdated, SOON, cart_id="k", lines=())]
    ordered = placed("o5", DUE - 15 * MINUTE, line("shoes"))
    yield "checkout-paid", "checkout_reminder", [ordered], [paid("o5", DUE - MINUTE, line("shoes"))]
    yield "checkout-cancelled", "checkout_reminder", [ordered], [cancelled("o5", DUE - MINUTE)]
    looks = [event(ev.ProductViewed, DUE - DAY - n * HOUR, product_id="p", category="tea") for n in (1, 0)]
    yield "look-order", "browse_abandoned", looks, [paid("o7", SOON, line("tea", category="tea"))]
    came = [event(ev.UserRegistered, DUE - DAY), event(ev.UserLoggedIn, DUE - DAY + HOUR)]
    yield "registered-order", "first_order_nudge", came, [paid("o8", SOON, line("shoes"))]
    milk = paid("o9", DUE - 17 * DAY, line("milk_powder"))
    yield "goods-order", "replenishment", [milk], [paid("o10", SOON, line("milk_powder"))]


def everybody() -> tuple[dict[str, str], list[ev.Event], list[ev.Event]]:
    """(the rule of each user, what happened before the outage, what is in the backlog). Of each life there are four
    users: cancelled or not, entered in time to be seen or in the backlog itself."""
    rules: dict[str, str] = {}
    before, backlog = [], []
    for name, rule, enter, cancel in lives():
        for ends, seen in itertools.product((True, False), repeat=2):
            user = f"{name}-{'ended' if ends else 'open'}-{'seen' if seen else 'unseen'}"
            rules[user] = rule
            for number, one in enumerate([*enter, *(cancel if ends else ())]):
                told = named(one, f"{user}-{number}", user)
                (before if seen and one in enter and one.occurred_at < LEFT else backlog).append(told)
    return rules, before, backlog


def outage(order: tuple[str, ...], chunk: int, turned: bool) -> Shard:
    """The backlog is fetched input by input in this order, so many records at a time, the shard working in between."""
    _, before, backlog = everybody()
    shard = Shard(shipped(), inputs=INPUTS, clock="wall", lateness=5 * SECOND, start="since:0")
    before.sort(key=lambda one: one.occurred_at)
    for one in before:  # with a worker that looked all the time
        shard.write(one).look(one.occurred_at + SECOND).run()
    shard.look(LEFT).run()
    sent = len(shard.outputs)
    shard.write(*(reversed(backlog) if turned else backlog))
    shard.reopen().look(BACK)
    while any(shard.fetched[name] < len(shard.log[name]) for name in INPUTS):
        for name in order:
            shard.fetch(name, most=chunk)
            shard.take(limit=3)
    shard.run()
    shard.look(BACK + 2 * HOUR).run()  # the windows in which candidates compete have closed
    shard.outputs = shard.outputs[sent:]
    return shard


@pytest.mark.parametrize("turned", [False, True], ids=["as_it_happened", "last_first"])
@pytest.mark.parametrize("chunk", [1, 5, 1_000])
def test_what_was_cancelled_during_an_outage_is_not_sent_whatever_arrives_first(chunk: int, turned: bool) -> None:
    rules, *_ = everybody()
    first: list[tuple[str, str]] = []
    for order in itertools.permutations(INPUTS):
        shard = outage(order, chunk, turned)
        fired = sorted({(d["user_id"], d["rule"]) for d in shard.decisions() if d["outcome"] == "fired"})
        early = [(user, rule) for user, rule in fired if "-ended-" in user and rules[user] == rule]
        assert early == [], order
        still_open = [user for user in rules if "-open-" in user]
        assert [user for user in still_open if (user, rules[user]) not in fired] == [], order
        for said in shard.sent(lambda trigger: (trigger["decided_at"], trigger["due_at"], trigger["expires_at"])):
            decided, due, expires = map(parse_instant, said)
            assert BACK <= decided < expires
            assert due <= decided
        first = first or fired
        assert fired == first, order


def test_one_input_that_lags_far_behind_another_cancels_all_the_same() -> None:
    shard = Shard(shipped(), inputs=INPUTS, clock="wall", lateness=5 * SECOND, start="since:0")
    shard.look(DUE - 7 * DAY - SECOND).run(issued("c", DUE - 7 * DAY)).look(LEFT).run()
    shard.reopen()
    others = [named(event(ev.UserLoggedIn, LEFT + n * SECOND), f"l{n}", f"u-{n % 97}") for n in range(30_000)]
    shard.write(named(redeemed("c", SOON), "r"))  # on coupons, read at once; the logins before it lag
    shard.write(*others).look(BACK).fetch("coupons", "orders", "browse")
    turns = 0
    while shard.fetched["logins"] < len(shard.log["logins"]):
        shard.fetch("logins", most=500).take(limit=700)
        turns += 1
        if shard.fetched["logins"] < len(shard.log["logins"]):
            assert shard.processor.merged < DUE
    assert turns == 60
    assert shard.run().sent() == []
    assert shard.processor.merged == BACK


def test_a_cancelling_event_at_the_very_end_of_the_input_that_lags_is_waited_for() -> None:
    shard = Shard(shipped(), inputs=INPUTS, clock="wall", lateness=5 * SECOND, start="since:0")
    shard.look(DUE - 7 * DAY - SECOND).run(issued("c", DUE - 7 * DAY)).look(LEFT).run()
    shard.reopen()
    lag = [named(placed(f"o-{n}", LEFT + n * SECOND), f"o{n}", f"u-{n % 97}") for n in range(2_000)]
    shard.write(*lag, named(paid("o", SOON, coupons_used=("c",)), "p")).look(BACK)
    shard.fetch("coupons", "logins", "browse")
    while shard.fetched["orders"] < len(shard.log["orders"]):
        shard.fetch("orders", most=100).take(limit=150)
        assert [d for d in shard.decisions() if d["rule"] == "coupon_unused"] == []
    shard.run()
    assert [d["outcome"] for d in shard.decisions() if d["rule"] == "coupon_unused"] == []


def test_back_at_night_nothing_goes_out_before_the_morning() -> None:
    shard = Shard(shipped(), inputs=INPUTS, clock="wall", lateness=5 * SECOND, start="since:0")
    due = at("05-04 20:00")
    shard.look(due - 7 * DAY - SECOND).run(issued("c", due - 7 * DAY)).look(LEFT).run()
    shard.reopen().look("05-04 23:00").run()
    assert [(d["outcome"], d["gate"]) for d in shard.decisions()] == [("deferred", "quiet_hours")]
    shard.write(named(redeemed("c", "05-04 23:30"), "r")).look("05-05 12:00").run()  # used in the night
    assert [d["outcome"] for d in shard.decisions()] == ["deferred", "dropped"]
    assert shard.sent() == []


def test_a_clock_that_ran_ahead_and_was_set_back_loses_no_event_and_repeats_nothing() -> None:
    shard = Shard(shipped(), inputs=INPUTS, clock="wall", lateness=5 * SECOND, start="since:0")
    early, late = at("05-01 13:00"), at("05-01 16:00")  # due while the clock is wrong, and after
    shard.look(LEFT - 8 * DAY)
    for name, due in (("early", early), ("late", late), ("used", late)):
        shard.write(named(issued(name, due - 7 * DAY), name, name))
    shard.look(late - 7 * DAY + SECOND).run()
    shard.look(LEFT).run()
    shard.look("05-01 14:30").run()  # two hours and a half too far
    for minute in range(0, 6 * 60, 10):  # set back, it goes on from where it should have been
        now = LEFT + minute * MINUTE
        if minute == 60:
            shard.write(named(redeemed("used", now), "r", "used"))
        shard.look(now).run()
        if minute == 120:
            shard.reopen().look(now).run()  # the new worker never saw the wrong time
    assert shard.counts["events", "CouponRedeemed"] == 1
    assert shard.sent(lambda t: t["user_id"]) == ["early", "late"]
    decided = [parse_instant(text) for text in shard.sent(lambda t: t["decided_at"])]
    assert decided[1] >= late
