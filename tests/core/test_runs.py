"""How a user enters a rule, what ends it, what is given back: by what is sent, when, in every order of arrival."""

from __future__ import annotations

from itertools import permutations

import pytest

from app.core import row, runs
from app.core.row import MAX_COUPONS, NEVER, run_key
from app.core.scope import coupon_in_hand
from schemas import events as ev
from schemas.instant import parse_instant
from tests.core.shop import (
    DAY,
    HOUR,
    SECOND,
    SHOP,
    Desk,
    at,
    baseline,
    cancelled,
    catalogue,
    event,
    issued,
    line,
    locked,
    paid,
    placed,
    received,
    redeemed,
    refunded,
    returned,
    rule_text,
    terms,
    whatever_arrives_first,
)

CATALOGUES = {name: catalogue(name) for name in ("coupon_unused", "replenishment", "winback")}
COUPON, REPLENISHMENT, WINBACK = (CATALOGUES[name] for name in ("coupon_unused", "replenishment", "winback"))


def sends(of, *events: ev.Event, until: str = "12-31") -> list[tuple[str, int, str]]:
    """(key, step, when) of all that is sent, in every order of arrival."""
    found = whatever_arrives_first(*events, until=until, catalogue=of)
    return sorted((key, step, due[5:16].replace("T", " ")) for _, key, step, due, _ in found)


# -- entering


def test_an_order_starts_a_reminder_for_each_type_of_goods_that_runs_out() -> None:
    order = paid("o-1", "03-01", line(), line("daily_goods"), line("shoes"), line("daily_goods"))
    assert sends(REPLENISHMENT, order) == [("daily_goods", 1, "04-27 12:00"), ("milk_powder", 1, "03-18 12:00")]


def test_a_gift_and_a_subscription_start_nothing() -> None:
    assert sends(REPLENISHMENT, paid("o-1", "03-01", line(gift=True), line("daily_goods", subscription=True))) == []


def test_a_placed_order_starts_nothing() -> None:
    assert sends(REPLENISHMENT, placed("o-1", "03-01", line())) == []


def test_a_late_entry_starts_no_timer_in_the_past() -> None:
    desk = Desk(WINBACK).wait("06-01").say(paid("o-1", "03-01"))
    assert desk.timers == []
    assert desk.tallies["steps", "passed", "winback"] == 2
    assert desk.row.runs == {}


def test_steps_of_an_entry_that_had_ended_are_not_counted_as_passed_over() -> None:
    desk = Desk(WINBACK).say(paid("o-2", "05-20")).wait("06-01").say(paid("o-1", "03-01"))
    assert [timer[3] for timer in desk.timers] == [at("07-19")]
    assert desk.tallies["steps", "passed", "winback"] == 0


def test_a_late_entry_goes_on_with_the_step_that_is_still_to_come() -> None:
    desk = Desk(WINBACK).wait("05-15").say(paid("o-1", "03-01"))
    assert desk.timers == [("winback", "", 2, at("05-30"))]
    assert desk.tallies["steps", "passed", "winback"] == 1


def test_what_is_due_at_the_very_instant_of_merged_time_is_not_past() -> None:
    on_time, late = (Desk(WINBACK).wait(at("04-30") + tick).say(paid("o-1", "03-01")) for tick in (0, 1))
    assert [step for _, _, step, _ in on_time.timers] == [1]
    assert [step for _, _, step, _ in late.timers] == [2]


def test_what_was_due_before_the_rule_may_send_is_passed_over() -> None:
    desk = Desk(WINBACK, sends_from={"winback": at("05-15")}).say(paid("o-1", "03-01")).wait("12-31")
    assert desk.sent == [("winback", 2, "05-30 12:00")]


def test_an_entry_before_the_rule_lets_users_in_starts_no_run() -> None:
    desk = Desk(WINBACK, enters_from={"winback": at("03-01 12:00:01")}).say(paid("o-1", "03-01"))
    assert desk.row.runs == {}
    assert desk.say(paid("o-2", "03-01 12:00:01")).timers != []


def test_old_customers_enter_with_their_baseline_and_new_ones_do_not() -> None:
    assert sends(WINBACK, baseline("03-05", "2020-01-01", 3, "2026-03-01")) == [
        ("u-1", 1, "04-30 12:00"),
        ("u-1", 2, "05-30 12:00"),
    ]
    assert sends(WINBACK, baseline("03-05", "2020-01-01", 0)) == []


def test_a_condition_at_entry_keeps_others_out() -> None:
    rules = catalogue(rule_text(enter='{on: OrderPaid, key: user, when: "user.paid_orders >= 2"}', ends=None))
    desk = Desk(rules).say(paid("o-1", "03-01"))
    assert desk.row.runs == {}
    assert len(desk.say(paid("o-2", "03-02")).timers) == 1


def test_a_checkout_is_known_by_its_order_if_it_has_one() -> None:
    rules = catalogue(rule_text(enter="{on: CheckoutStarted, key: order}", ends="[{on: CouponRedeemed}]"))
    nameless = Desk(rules).say(event(ev.CheckoutStarted, "03-01", lines=()), redeemed("c-1", "03-02"))
    assert [key for _, key, *_ in nameless.timers] == ["checkout:"]
    named = Desk(rules).say(event(ev.CheckoutStarted, "03-01", lines=(), order_id="o-1"))
    assert [(rule, key) for rule, key, *_ in named.timers] == [("a_rule", "o-1")]


# -- re-entry


def test_once_is_once() -> None:
    rules = catalogue(rule_text(reentry="once", ends=None))
    desk = Desk(rules).say(paid("o-1", "03-01")).wait("04-01").say(paid("o-2", "04-01")).wait("06-01")
    assert desk.sent == [("a_rule", 1, "03-11 12:00")]


def test_a_cooldown_counts_from_the_entry_before_to_both_sides() -> None:
    rules = catalogue(rule_text(reentry="{cooldown: 30d}", steps="[{after: 1d}]", ends=None))
    desk = Desk(rules).say(paid("o-1", "03-01")).wait("03-15")
    desk.say(paid("o-2", at("03-31") - 1)).wait("05-01")
    assert desk.sent == [("a_rule", 1, "03-02 12:00")]
    desk.say(paid("o-3", "05-02"), paid("o-4", "04-20")).wait("06-01")
    assert desk.sent[1:] == [("a_rule", 1, "05-03 12:00")]


def test_nobody_is_twice_in_a_rule_for_one_thing_and_the_earlier_entry_has_it() -> None:
    rules = catalogue(rule_text(ends="[{on: UserLoggedIn}]"))
    assert sends(rules, paid("o-1", "03-01"), paid("o-2", "03-05")) == [("u-1", 1, "03-11 12:00")]


def test_an_earlier_entry_that_comes_late_leaves_alone_what_has_led_to_something() -> None:
    rules = catalogue(rule_text(ends="[{on: UserLoggedIn}]", steps="[{after: 10d}, {after: 10d}]"))
    desk = Desk(rules).say(paid("o-2", "03-05")).wait("03-16").say(paid("o-1", "03-04")).wait("06-01")
    assert desk.sent == [("a_rule", 1, "03-15 12:00"), ("a_rule", 2, "03-25 12:00")]


def test_a_user_enters_again_once_the_last_step_is_over() -> None:
    rules = catalogue(rule_text(ends="[{on: UserLoggedIn}]"))
    desk = Desk(rules).say(paid("o-1", "03-01")).wait("03-11").say(paid("o-2", "03-12")).wait("06-01")
    assert desk.sent == [("a_rule", 1, "03-11 12:00"), ("a_rule", 1, "03-22 12:00")]


# -- steps at once


def test_a_step_at_once_goes_out_with_its_event() -> None:
    rules = catalogue(rule_text(steps="[{at_once: true}, {after: 1d}]", ends="[{on: UserLoggedIn}]"))
    desk = Desk(rules).say(paid("o-1", "03-01"))
    assert desk.sent == [("a_rule", 1, "03-01 12:00")]
    assert desk.wait("03-05").sent[1:] == [("a_rule", 2, "03-02 12:00")]


def test_a_step_at_once_goes_out_a_little_late_and_not_once_it_would_have_expired() -> None:
    rules = catalogue(rule_text(steps="[{at_once: true}]", ends=None))
    assert Desk(rules).wait("03-02").say(paid("o-1", "03-01")).sent == [("a_rule", 1, "03-02 12:00")]
    assert Desk(rules).wait("03-03").say(paid("o-1", "03-01")).sent == []


def test_a_step_at_once_of_an_entry_that_had_ended_already_does_not_go_out() -> None:
    rules = catalogue(rule_text(steps="[{at_once: true}]", ends="[{on: UserLoggedIn}]"))
    assert Desk(rules).say(event(ev.UserLoggedIn, "03-02"), paid("o-1", "03-01")).sent == []


# -- ends


def test_buying_the_same_type_ends_the_reminder_and_starts_the_next() -> None:
    orders = paid("o-1", "03-01", line()), paid("o-2", "03-10", line()), paid("o-3", "03-11", line("daily_goods"))
    assert sends(REPLENISHMENT, *orders) == [("daily_goods", 1, "04-07 12:00"), ("milk_powder", 1, "03-27 12:00")]


def test_a_gift_of_the_type_ends_nothing_and_a_subscription_to_it_does() -> None:
    assert sends(REPLENISHMENT, paid("o-1", "03-01", line()), paid("o-2", "03-10", line(gift=True))) != []
    assert sends(REPLENISHMENT, paid("o-1", "03-01", line()), paid("o-2", "03-10", line(subscription=True))) == []


@pytest.mark.parametrize(("tick", "sent"), [(-1, 0), (0, 0), (1, 1)])
def test_a_purchase_up_to_the_instant_a_step_is_due_ends_the_run(tick: int, sent: int) -> None:
    second = paid("o-2", at("04-30") + tick)
    desk = Desk(WINBACK).say(paid("o-1", "03-01")).wait(second.occurred_at - 1).say(second).wait("05-01")
    assert desk.sent == [("winback", 1, "04-30 12:00")] * sent


def test_of_two_orders_at_one_instant_one_starts_the_silence() -> None:
    assert sends(WINBACK, paid("o-1", "03-01"), paid("o-2", "03-01"), until="05-01") == [("u-1", 1, "04-30 12:00")]


def test_an_end_that_asks_for_more_than_the_event_is_asked_whatever_arrives_first() -> None:
    ends = '[{on: UserLoggedIn, when: "user.paid_orders > 1"}]'
    rules = catalogue(rule_text(ends=ends, reentry="after_exit"))
    visit = event(ev.UserLoggedIn, "03-02")
    assert sends(rules, paid("o-1", "03-01"), visit) == [("u-1", 1, "03-11 12:00")]
    assert Desk(rules).say(paid("o-1", "03-01"), paid("o-2", "03-01 13:00"), visit).wait("05-01").sent == []


def test_the_latest_event_of_a_kind_ends_what_began_before_it() -> None:
    rules = catalogue(rule_text(ends="[{on: UserLoggedIn}]"))
    visits = event(ev.UserLoggedIn, "03-02"), event(ev.UserLoggedIn, "03-05")
    assert sends(rules, paid("o-1", "03-03"), *visits) == []
    assert sends(rules, paid("o-1", "03-06"), *visits) == [("u-1", 1, "03-16 12:00")]


def test_a_rule_by_type_may_end_by_an_event_that_names_no_type() -> None:
    rules = catalogue(
        rule_text(
            enter='{on: OrderPaid, each: line, key: product_type, when: "line.replenishable"}',
            ends="[{on: UserLoggedIn}]",
        ),
        "winback",
    )
    orders = paid("o-1", "03-01", line(), line("daily_goods"))
    assert Desk(rules).say(orders, event(ev.UserLoggedIn, "03-02")).wait("04-01").sent == []


def test_an_order_ends_what_is_about_it_however_late_its_beginning_arrives() -> None:
    rules = catalogue(
        rule_text(enter="{on: OrderPlaced, key: order}", ends="[{on: OrderPaid}, {on: OrderCancelled}]"),
    )
    assert sends(rules, placed("o-1", "03-01")) == [("o-1", 1, "03-11 12:00")]
    assert sends(rules, placed("o-1", "03-01"), paid("o-1", "03-02")) == []
    assert sends(rules, placed("o-1", "03-01"), cancelled("o-1", "03-02")) == []
    assert sends(rules, placed("o-1", "03-01"), paid("o-2", "03-02")) == [("o-1", 1, "03-11 12:00")]


def test_a_checkout_that_became_an_order_is_over_whatever_arrives_first() -> None:
    rules = catalogue(
        rule_text(
            enter="[{on: CheckoutStarted, key: order}, {on: OrderPlaced, key: order}]",
            ends='[{on: OrderPaid}, {on: OrderPlaced, same: user, when: "!order.is_open"}, '
            '{on: OrderPaid, same: user, when: "!order.is_open"}, '
            '{on: OrderCancelled, same: user, when: "!order.is_open"}]',
            steps="[{after: 1d}]",
            reentry="every_key",
        )
    )
    checkout = event(ev.CheckoutStarted, "03-01 10:00", lines=(), checkout_id="k-1")
    earlier, later = placed("o-1", "03-01 09:00"), placed("o-2", "03-01 11:00")
    assert sends(rules, checkout, earlier) == [("checkout:k-1", 1, "03-02 10:00"), ("o-1", 1, "03-02 09:00")]
    assert sends(rules, checkout, later) == [("o-2", 1, "03-02 11:00")]
    assert sends(rules, checkout, paid("o-3", "03-01 11:00")) == []


def test_ended_runs_of_one_thing_are_bounded() -> None:
    desk = Desk(WINBACK)
    for number in range(9):
        desk.say(paid(f"o-{number}", f"03-{number + 1:02}"))
    kept = desk.row.runs[run_key("winback", "")]
    assert [run.order_id for run in kept if not run.ends] == ["o-8"]
    assert all(len(run.ends) <= runs.MAX_ENDS for run in kept)
    rules = catalogue(rule_text(enter="{on: UserLoggedIn, key: user}", ends="[{on: UserCheckedIn}]"))
    late = [event(ev.UserLoggedIn, f"03-{number:02}") for number in range(1, 10)]
    desk = Desk(rules).say(event(ev.UserCheckedIn, "03-20"), *late)
    assert [run.event_id for run in desk.row.runs[run_key("a_rule", "")]] == [e.event_id for e in late[-4:]]
    assert row.MAX_ENDED_RUNS == 4


def test_users_who_use_their_coupons_leave_no_heap_of_old_runs() -> None:
    desk = Desk(COUPON)
    start = at("2020-01-01")
    for number in range(400):
        issue = issued(f"c-{number}", start + number * DAY)
        desk.wait(start + number * DAY).say(issue, redeemed(f"c-{number}", start + number * DAY + HOUR))
    assert len(desk.row.runs) <= 91 + row.MANY_RUN_KEYS  # so many have ended within the last 90 days, or since a look
    assert desk.timers == []


def test_a_run_that_waits_for_word_of_a_forgotten_coupon_goes() -> None:
    desk = Desk(COUPON).say(issued("c-0", "01-01", expires_at="01-02"), locked("c-0", "01-01 13:00"))
    desk.wait("02-01")
    many = [issued(f"c-{n}", "02-01", expires_at="12-01") for n in range(1, row.MAX_COUPONS + 1)]
    desk.say(*many)
    assert run_key("coupon_unused", "c-0") not in desk.row.runs


# -- late facts and retractions


def test_a_purchase_that_is_heard_of_too_late_retracts_what_went_out() -> None:
    desk = Desk(WINBACK).say(paid("o-1", "03-01")).wait("04-30")
    late = paid("o-2", "04-30 12:00")
    desk.say(late)
    (out,), (back,) = desk.triggers, desk.retractions
    assert back.retracts == out.trigger_id
    assert back.reason == "OrderPaid had happened before it went out, and was only heard of afterwards."
    assert [each.event_id for each in back.evidence] == [late.event_id]
    assert [(d.outcome, d.sequence, d.final) for d in desk.decisions] == [("fired", 0, True), ("retracted", 1, False)]
    assert [d.trigger_id for d in desk.decisions] == [out.trigger_id] * 2


def test_a_purchase_after_the_message_is_no_reason_to_take_it_back() -> None:
    desk = Desk(WINBACK).say(paid("o-1", "03-01")).wait("04-30")
    assert desk.say(paid("o-2", at("04-30") + 1)).retractions == []


def test_nothing_is_retracted_that_has_expired_or_that_was_retracted_before() -> None:
    desk = Desk(WINBACK).say(paid("o-1", "03-01")).wait(at("04-30") + 36 * HOUR)
    assert desk.say(paid("o-2", "04-29")).retractions == []
    desk = Desk(WINBACK).say(paid("o-1", "03-01")).wait("04-30")
    desk.say(paid("o-2", "04-29"), paid("o-3", "04-28"), refunded("o-1", "04-30 13:00"))
    assert len(desk.retractions) == 1


def test_a_refund_retracts_what_its_order_had_led_to() -> None:
    desk = Desk(REPLENISHMENT).say(paid("o-1", "03-01", line())).wait("03-18 13:00").say(refunded("o-1", "03-18 13:00"))
    (back,) = desk.retractions
    assert back.reason == "Order o-1 was taken back."
    assert desk.row.runs == {}


# -- reversals


def test_a_refund_takes_back_what_the_order_started_and_ended() -> None:
    orders = paid("o-1", "03-01", line()), paid("o-2", "03-10", line()), refunded("o-2", "03-12")
    assert sends(REPLENISHMENT, *orders) == [("milk_powder", 1, "03-18 12:00")]
    assert sends(WINBACK, *orders, until="05-01") == [("u-1", 1, "04-30 12:00")]


def test_a_cancellation_of_a_subscription_gives_the_reminder_back() -> None:
    orders = paid("o-1", "03-01", line()), paid("o-2", "03-10", line(subscription=True)), cancelled("o-2", "03-12")
    assert sends(REPLENISHMENT, *orders) == [("milk_powder", 1, "03-18 12:00")]
    back = refunded("o-2", "03-12", lines={"milk_powder": 1})
    assert sends(REPLENISHMENT, *orders[:2], back) == [("milk_powder", 1, "03-18 12:00")]


def test_goods_that_went_back_are_not_replenished_and_the_others_are() -> None:
    order = paid("o-1", "03-01", line(), line("daily_goods"))
    back = refunded("o-1", "03-02", lines={"milk_powder": 1})
    assert sends(REPLENISHMENT, order, back) == [("daily_goods", 1, "03-28 12:00")]
    assert sends(WINBACK, order, back, until="05-01") == [("u-1", 1, "04-30 12:00")]


def test_money_back_for_goods_that_stay_is_no_purchase_but_runs_out() -> None:
    order, back = paid("o-1", "03-01", line()), refunded("o-1", "03-02", goods_returned=False)
    assert sends(WINBACK, order, back) == []
    assert sends(REPLENISHMENT, order, back) == [("milk_powder", 1, "03-18 12:00")]


def test_a_cancellation_takes_back_all_goods_though_the_lines_are_no_longer_kept() -> None:
    desk = Desk(REPLENISHMENT).say(paid("o-1", "03-01", line(units=10)))
    desk.say(*[paid(f"o-{n}", f"03-{n:02}", line("shoes")) for n in range(2, 20)])
    assert desk.row.orders["o-1"].lines == ()
    assert desk.say(cancelled("o-1", "03-20")).timers == []


def test_an_entry_ended_by_two_orders_comes_back_when_both_are_taken_back() -> None:
    orders = paid("o-1", "03-01"), paid("o-2", "03-10"), paid("o-3", "03-12")
    assert sends(WINBACK, *orders, refunded("o-3", "03-13"), until="05-15") == [("u-1", 1, "05-09 12:00")]
    both = Desk(WINBACK).say(*orders, refunded("o-3", "03-13"), refunded("o-2", "03-14")).wait("05-15")
    assert both.sent == [("winback", 1, "04-30 12:00")]


def test_an_order_of_other_goods_neither_takes_nor_gives_back() -> None:
    desk = Desk(REPLENISHMENT).say(paid("o-1", "03-01", line()), paid("o-2", "03-02", line("daily_goods")))
    desk.say(refunded("o-2", "03-03")).wait("12-31")
    assert desk.sent == [("replenishment", 1, "03-18 12:00")]


def test_a_run_that_comes_back_after_its_step_was_due_goes_on_with_the_next() -> None:
    desk = Desk(WINBACK).say(paid("o-1", "03-01"), paid("o-2", "04-20")).wait("05-15")
    desk.say(refunded("o-2", "05-15")).wait("12-31")
    assert desk.sent == [("winback", 2, "05-30 12:00")]
    assert desk.tallies["runs", "revived", "winback"] == 1


def test_a_run_that_was_closed_in_the_night_comes_back_with_its_next_step_in_its_time() -> None:
    night = catalogue("winback", shop='quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n')
    desk = Desk(night).say(paid("o-1", "03-01 22:00")).wait("04-30 23:00")
    assert [d.outcome for d in desk.decisions] == ["deferred"]
    desk.say(paid("o-2", "04-30 23:00"))
    assert [(d.outcome, d.final) for d in desk.decisions[1:]] == [("dropped", True)]
    assert desk.decisions[1].reason == "While it waited, the run was ended by OrderPaid."
    desk.say(refunded("o-2", "05-01 12:00")).wait("12-31")
    assert desk.sent == [("winback", 2, "05-31 09:00")]


def test_a_candidate_in_the_night_whose_order_is_taken_back_is_dropped() -> None:
    night = catalogue("replenishment", shop='quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n')
    desk = Desk(night).say(paid("o-1", "03-01 22:00", line())).wait("03-18 23:00").say(refunded("o-1", "03-18 23:00"))
    assert [(d.outcome, d.sequence, d.final) for d in desk.decisions] == [("deferred", 0, False), ("dropped", 1, True)]
    assert desk.retractions == []
    assert desk.timers == []


def test_a_run_with_all_its_steps_behind_it_is_not_done_again() -> None:
    rules = catalogue(rule_text(steps="[{after: 1d}]"))
    desk = Desk(rules).say(paid("o-1", "03-01")).wait("03-02 13:00").say(paid("o-2", "03-02 14:00"))
    desk.say(refunded("o-2", "03-02 15:00")).wait("12-31")
    assert desk.sent == [("a_rule", 1, "03-02 12:00")]


@pytest.mark.parametrize(("tick", "timers"), [(0, ["o-1"]), (1, [])])
def test_a_long_time_after_an_order_nothing_comes_back(tick: int, timers: list[str]) -> None:
    desk = Desk(REPLENISHMENT).say(paid("o-1", "01-01", line(units=20)), paid("o-2", "01-02", line(units=20)))
    desk.wait(at("01-02") + runs.REVERSAL_WINDOW + tick).say(refunded("o-2", "06-01"))
    pending = desk.row.runs.get(run_key("replenishment", "milk_powder"), ())
    assert [run.order_id for run in pending if not run.ends] == timers


def test_an_order_whose_rule_is_gone_is_taken_back_without_it() -> None:
    desk = Desk(catalogue("winback", "replenishment")).say(paid("o-1", "03-01", line()))
    desk.catalogue = WINBACK
    desk.say(received("o-1", "03-02"), refunded("o-1", "03-03"))
    assert desk.timers == []
    assert desk.wait("12-31").sent == []
    assert desk.row.runs == {}


# -- timing anew


def test_goods_are_counted_from_their_receipt() -> None:
    assert sends(REPLENISHMENT, paid("o-1", "03-01", line()), received("o-1", "03-05")) == [
        ("milk_powder", 1, "03-22 12:00")
    ]


def test_a_receipt_before_the_payment_counts_from_the_payment() -> None:
    assert sends(REPLENISHMENT, received("o-1", "02-20"), paid("o-1", "03-01", line())) == [
        ("milk_powder", 1, "03-18 12:00")
    ]


def test_fewer_units_run_out_sooner() -> None:
    order, back = paid("o-1", "03-01", line(quantity=2)), refunded("o-1", "03-02", lines={"milk_powder": 1})
    assert sends(REPLENISHMENT, order, back) == [("milk_powder", 1, "03-18 12:00")]
    (trigger,) = Desk(REPLENISHMENT).say(order, back).wait("04-01").triggers
    assert trigger.reason.startswith("1 x milk_powder")


def test_what_runs_out_sooner_than_now_goes_out_now_unless_it_is_stale() -> None:
    order, back = paid("o-1", "03-01", line(quantity=2)), refunded("o-1", "03-19", lines={"milk_powder": 1})
    soon = Desk(REPLENISHMENT).say(order).wait("03-19").say(back).wait("04-01")
    assert [t.due_at[5:10] for t in soon.triggers] == ["03-18"]
    assert [t.decided_at[5:10] for t in soon.triggers] == ["03-19"]
    late = Desk(REPLENISHMENT).say(order).wait("03-29").say(back).wait("06-01")
    assert [d.outcome for d in late.decisions] == ["expired"]


def test_timing_anew_does_not_send_what_was_due_before_the_rule_may_send() -> None:
    order, back = paid("o-1", "03-01", line(quantity=9)), refunded("o-1", "03-02", lines={"milk_powder": 8})
    desk = Desk(REPLENISHMENT, sends_from={"replenishment": at("05-01")}).say(order)
    assert len(desk.timers) == 1
    assert desk.say(back).wait("12-31").decisions == []


def test_what_a_purchase_ended_is_timed_anew_without_being_counted_as_passed_over() -> None:
    desk = Desk(REPLENISHMENT, sends_from={"replenishment": at("03-30")})
    desk.say(paid("o-1", "03-01", line(quantity=9)), paid("o-2", "03-09", line(quantity=9)))
    desk.say(refunded("o-1", "03-10", lines={"milk_powder": 8}))
    assert desk.timers == [("replenishment", "milk_powder", 1, at("09-02"))]
    assert ("steps", "passed", "replenishment") not in desk.tallies


def test_timing_anew_leaves_alone_what_counts_from_a_step() -> None:
    rules = catalogue(
        rule_text(
            enter='{on: OrderPaid, each: line, key: product_type, when: "line.replenishable"}',
            steps="[{after: 5d}]",
            ends=None,
            retime_on="[OrderReceived]",
        )
    )
    desk = Desk(rules).say(paid("o-1", "03-01", line()), received("o-1", "03-03"))
    assert desk.timers == [("a_rule", "milk_powder", 1, at("03-06"))]
    desk.wait("03-06").say(received("o-1", "03-02"))
    assert desk.timers == []


def test_a_user_keyed_rule_may_be_timed_anew_too() -> None:
    rules = catalogue(rule_text(steps='[{at: "user.last_order_at + 1d"}]', retime_on="[OrderReceived]", ends=None))
    desk = Desk(rules).say(paid("o-1", "03-01"), paid("o-2", "03-02"), received("o-1", "03-02 13:00"))
    assert desk.timers == [("a_rule", "", 1, at("03-03"))]


# -- waiting


def test_a_locked_coupon_waits_and_is_due_when_it_is_usable_again() -> None:
    lock, free = locked("c-1", "03-05"), returned("c-1", "03-12")
    assert sends(COUPON, issued("c-1", "03-01"), lock) == []
    desk = Desk(COUPON).say(issued("c-1", "03-01"), lock).wait("03-12").say(free).wait("12-31")
    assert desk.sent == [("coupon_unused", 1, "03-12 12:00"), ("coupon_unused", 2, "03-22 12:00")]


def test_a_lock_that_is_over_before_the_step_is_due_changes_nothing() -> None:
    lock, free = locked("c-1", "03-05"), returned("c-1", "03-06")
    assert sends(COUPON, issued("c-1", "03-01"), lock, free, until="03-10") == [("c-1", 1, "03-08 12:00")]


def test_a_return_that_comes_late_starts_no_timer_in_the_past() -> None:
    desk = Desk(COUPON).say(issued("c-1", "03-01"), locked("c-1", "03-05")).wait("03-20")
    desk.say(returned("c-1", "03-12"))
    assert desk.timers == [("coupon_unused", "c-1", 1, at("03-20"))]


def test_a_redemption_that_is_taken_back_gives_the_reminder_back() -> None:
    events = issued("c-1", "03-01"), redeemed("c-1", "03-02"), returned("c-1", "03-03")
    assert sends(COUPON, *events, until="03-10") == [("c-1", 1, "03-08 12:00")]


@pytest.mark.parametrize(("back", "steps"), [("03-03", [1, 2]), ("03-16", [2]), ("03-18", [])])
def test_a_rule_of_single_coupons_goes_on_when_a_use_of_one_is_taken_back(back: str, steps: list[int]) -> None:
    rules = catalogue(
        rule_text(
            enter="{on: CouponIssued, key: coupon}",
            ends="[{on: CouponRedeemed}]",
            holds="{from: CouponLocked, until: CouponReturned}",
            steps="[{at: coupon.expires_at - 5d}, {at: coupon.expires_at - 3d}]",
            reentry="every_key",
        )
    )
    desk = Desk(rules).say(issued("c-1", "03-01", expires_at="03-20"), redeemed("c-1", "03-02")).wait(back)
    desk.say(returned("c-1", back), locked("c-1", back), returned("c-1", at(back) + 1))
    assert [t.step for t in desk.wait("12-31").triggers] == steps
    used = Desk(rules).say(issued("c-1", "03-01", expires_at="03-20"), redeemed("c-1", "03-04"), returned("c-1", back))
    assert [t.step for t in used.wait("12-31").triggers] == ([] if back == "03-03" else [1, 2])


def test_another_coupon_of_the_pack_coming_back_does_not_undo_a_redemption() -> None:
    coupons = [issued(f"c-{n}", "03-01", pack_id="p-1") for n in (1, 2)]
    assert sends(COUPON, *coupons, redeemed("c-1", "03-02"), returned("c-2", "03-03")) == []


def test_a_coupon_that_comes_back_from_an_order_does_not_stay_locked() -> None:
    events = [
        issued("c-1", "03-01"),
        locked("c-1", "03-02", order_id="o-1"),
        paid("o-1", "03-02 12:30", coupons_used=("c-1",)),
        refunded("o-1", "03-03"),
    ]
    assert sends(COUPON, *events, until="03-10") == [("c-1", 1, "03-08 12:00")]


def test_a_lock_of_an_unknown_coupon_is_no_run() -> None:
    assert Desk(COUPON).say(locked("c-9", "03-01"), returned("c-9", "03-02")).row.runs == {}


def test_a_coupon_whose_runs_are_over_is_not_brought_back_by_a_return() -> None:
    desk = Desk(COUPON).say(issued("c-1", "03-01")).wait("03-18 13:00")
    desk.say(locked("c-1", "03-18 14:00"), returned("c-1", "03-18 15:00")).wait("12-31")
    assert [step for _, step, _ in desk.sent] == [1, 2]


def test_a_candidate_that_was_locked_in_the_night_is_asked_in_the_morning() -> None:
    night = catalogue("coupon_unused", shop='quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n')
    desk = Desk(night).say(issued("c-1", "03-01 22:00")).wait("03-08 22:30")
    desk.say(locked("c-1", "03-08 22:30"), returned("c-1", "03-08 23:00")).wait("03-09 10:00")
    assert desk.sent == [("coupon_unused", 1, "03-09 09:00")]
    assert [d.outcome for d in desk.decisions] == ["deferred", "fired"]


def test_a_candidate_locked_in_the_night_waits_until_it_is_free_or_stale() -> None:
    night = catalogue("coupon_unused", shop='quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n')

    def told(freed: int) -> tuple[list[tuple[str, bool, str]], list[tuple[str, int, str]]]:
        desk = Desk(night).say(issued("c-1", "03-01 22:00")).wait("03-08 22:30")
        desk.say(locked("c-1", "03-08 22:30")).wait(freed).say(returned("c-1", freed)).wait("03-18 12:00")
        return [(d.outcome, d.final, d.due_at[5:16]) for d in desk.decisions], desk.sent

    due, stale = at("03-08 22:00"), at("03-10 10:00")
    deferred = ("deferred", False, "03-08T22:00")
    fired, expired = ("fired", True, "03-08T22:00"), ("expired", True, "03-08T22:00")
    assert told(at("03-09 15:00")) == ([deferred, fired], [("coupon_unused", 1, "03-09 15:00")])
    assert told(stale - 1)[0] == [deferred, fired]
    assert told(stale) == told(stale + 1) == told(due + 8 * DAY) == ([deferred, expired], [])


def test_what_waits_in_a_lock_ends_without_timers_and_without_its_coupon_too() -> None:
    night = catalogue("coupon_unused", shop='quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n')
    desk = Desk(night).say(issued("c-1", "03-01 22:00", expires_at="04-30")).wait("03-08 22:30")
    desk.say(locked("c-1", "03-08 22:30"))
    desk.say(*(issued(f"d-{n}", "03-08 22:31", expires_at="05-30") for n in range(MAX_COUPONS))).wait("03-10 12:00")
    assert "c-1" not in desk.row.coupons
    assert [(d.outcome, d.entry.key) for d in desk.decisions] == [("deferred", "c-1"), ("expired", "c-1")]
    assert not [key for _, key, *_ in desk.wait("12-31").timers]


def test_a_candidate_that_waits_in_a_lock_until_its_coupon_expires_gets_its_record() -> None:
    night = catalogue("coupon_unused", shop='quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n')
    desk = Desk(night).say(issued("c-1", "03-01 22:00", expires_at="03-20")).wait("03-08 22:30")
    desk.say(locked("c-1", "03-08 22:30")).wait("03-25").say(returned("c-1", "03-25")).wait("12-31")
    assert [(d.outcome, d.final) for d in desk.decisions] == [("deferred", False), ("expired", True)]


@pytest.mark.parametrize(
    ("until", "due"),
    [
        (at("03-08") - 1, "03-08 12:00"),  # it has lapsed before the step is due
        (at("03-08"), "03-08 12:00"),
        (at("03-08") + SECOND, "03-08 12:00"),
        (at("03-10"), "03-10 12:00"),
    ],
)
def test_a_lock_that_lapses_holds_until_then_and_what_came_due_meanwhile_is_due_then(until: int, due: str) -> None:
    given = issued("c-1", "03-01", expires_at="05-01"), locked("c-1", "03-03", order_id="o-9", until=until)
    for order in permutations(given):
        desk = Desk().say(*order).wait("03-25")
        assert [when for _, _, when in desk.sent] == [due, f"03-{int(due[3:5]) + 10} 12:00"]
        assert parse_instant(desk.triggers[0].due_at) == max(until, at("03-08"))
        assert desk.wait("12-31").timers == []


def test_a_word_ends_a_lock_before_it_lapses_and_a_later_lock_holds_on() -> None:
    given = [issued("c-1", "03-01", expires_at="05-01"), locked("c-1", "03-03", until=at("03-20"))]
    desk = Desk().say(*given).wait("03-10").say(returned("c-1", "03-10"))
    assert desk.wait("03-11").sent == [("coupon_unused", 1, "03-10 12:00")]
    late = Desk().say(*given).wait("03-20").say(returned("c-1", "03-20 13:00"))
    assert late.wait("03-21").sent == [("coupon_unused", 1, "03-20 12:00")]
    again = Desk().say(*given).wait("03-10").say(locked("c-1", "03-10")).wait("04-20")
    assert again.sent == []
    assert again.say(returned("c-1", "04-20")).wait("04-21").sent == [("coupon_unused", 1, "04-20 12:00")]


def test_what_waits_comes_back_when_the_lock_that_holds_it_by_now_lapses() -> None:
    given = issued("c-1", "03-01", expires_at="05-01"), locked("c-1", "03-03")
    desk = Desk().say(*given).wait("03-10").say(locked("c-1", "03-10", until=at("03-12")))
    assert [when for _, step, when in desk.wait("03-20").sent if step == 1] == ["03-12 12:00"]
    past = Desk().say(*given).wait("03-10").say(locked("c-1", "03-04", until=at("03-05")))
    assert [when for _, step, when in past.wait("03-12").sent if step == 1] == ["03-10 12:00"]


def test_a_pack_comes_back_when_the_first_of_its_coupons_can_be_used_and_names_that_one() -> None:
    pack = [issued(name, "03-01", expires_at=end, pack_id="p") for name, end in (("c-1", "04-20"), ("c-2", "05-01"))]
    locks = locked("c-1", "03-03"), locked("c-2", "03-03", until=at("03-12"))
    for order in permutations([*pack, *locks]):
        desk = Desk().say(*order).wait("03-16")
        assert [(when, t.coupons) for (_, _, when), t in zip(desk.sent, desk.triggers, strict=True)] == [
            ("03-12 12:00", ("c-2",))
        ]
    first, *later = locks
    desk = Desk().say(*pack, locked("c-2", "03-03"), first).wait("03-10").say(*later).wait("03-16")
    assert [when for _, _, when in desk.sent] == ["03-12 12:00"]
    early = Desk().say(*pack, *locks).wait("03-10").say(returned("c-1", "03-10"))
    assert [(when, t.coupons) for (_, _, when), t in zip(early.wait("03-11").sent, early.triggers, strict=True)] == [
        ("03-10 12:00", ("c-1",))
    ]


def test_a_return_that_is_heard_of_after_the_lock_has_lapsed_but_before_its_timer_postpones_nothing() -> None:
    desk = (
        Desk().say(issued("c-1", "03-01", expires_at="05-01"), locked("c-1", "03-03", until=at("03-10"))).wait("03-09")
    )
    desk.say(returned("c-1", "03-10 15:00")).wait("03-11")
    assert desk.sent == [("coupon_unused", 1, "03-10 12:00")]


@pytest.mark.parametrize(
    ("heard", "sent"), [("03-09", ["03-10 12:00"]), ("03-10 12:00", ["03-10 12:00"]), ("03-11", [])]
)
def test_what_came_due_in_a_lock_before_all_was_heard_of_is_due_when_it_lapses_unless_that_is_past(
    heard: str, sent: list[str]
) -> None:
    desk = Desk().wait(heard).say(locked("c-1", "03-03", until=at("03-10")), issued("c-1", "03-01", expires_at="05-01"))
    assert [when for _, step, when in desk.wait("03-12").sent if step == 1] == sent


def test_a_candidate_locked_in_the_night_for_a_time_is_asked_while_it_is_worth_sending() -> None:
    night = catalogue("coupon_unused", shop='quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n')
    given = issued("c-1", "03-01 22:00", expires_at="05-01")
    for until, sent in (("03-09 08:00", ["03-09 09:00"]), ("03-09 12:00", ["03-10 10:00"]), ("03-12", [])):
        desk = Desk(night).say(given).wait("03-08 22:30").say(locked("c-1", "03-08 22:30", until=at(until)))
        assert [when for _, step, when in desk.wait("03-17").sent if step == 1] == sent, until


def test_a_coupon_whose_lock_has_lapsed_is_in_hand() -> None:
    row = Desk().say(issued("c-1", "03-01", expires_at="05-01"), locked("c-1", "03-03", until=at("03-04"))).row
    held = [coupon_in_hand(row, at("03-04") + tick) for tick in (-1, 0, 1)]
    assert [coupon is not None for coupon in held] == [False, True, True]


def test_a_rule_of_a_user_may_wait_too() -> None:
    rules = catalogue(
        rule_text(ends=None, holds="{from: AfterSaleOpened, until: AfterSaleClosed}", steps="[{after: 10d}]")
    )
    case = {"order_id": "o-1"}
    opened, closed = event(ev.AfterSaleOpened, "03-02", **case), event(ev.AfterSaleClosed, "03-20", **case)
    desk = Desk(rules).say(paid("o-1", "03-01"), opened).wait("03-20")
    assert desk.sent == []
    assert desk.say(closed).wait("04-01").sent == [("a_rule", 1, "03-20 12:00")]


def test_a_rule_of_an_order_hears_nothing_of_a_coupon_without_one() -> None:
    rules = catalogue(
        rule_text(enter="{on: OrderPlaced, key: order}", ends=None, holds="{from: CouponLocked, until: CouponReturned}")
    )
    desk = Desk(rules).say(placed("o-1", "03-01"), locked("c-1", "03-02"))
    assert not desk.row.runs[run_key("a_rule", "o-1")][0].held
    desk.say(locked("c-1", "03-03", order_id="o-1"))
    assert desk.row.runs[run_key("a_rule", "o-1")][0].held


# -- coupons


def test_a_coupon_is_reminded_of_after_a_week_or_half_of_its_time_and_ten_days_later() -> None:
    assert sends(COUPON, issued("c-1", "03-01")) == [("c-1", 1, "03-08 12:00"), ("c-1", 2, "03-18 12:00")]
    assert sends(COUPON, issued("c-1", "03-01", expires_at="03-11")) == [("c-1", 1, "03-06 12:00")]
    assert sends(COUPON, issued("c-1", "03-01", valid_from="03-05")) == [
        ("c-1", 1, "03-12 12:00"),
        ("c-1", 2, "03-22 12:00"),
    ]


def test_a_coupon_that_an_order_gave_counts_and_goes_with_its_order() -> None:
    order = paid("o-1", "03-01", coupons_issued=(terms("c-1"),))
    assert len(sends(COUPON, order)) == 2
    assert sends(COUPON, order, refunded("o-1", "03-02")) == []
    assert sends(COUPON, order, paid("o-2", "03-03", coupons_used=("c-1",))) == []
    assert len(sends(COUPON, order, paid("o-2", "03-03", coupons_used=("c-1",)), refunded("o-2", "03-04"))) == 2


def test_a_pack_is_reminded_of_once_and_ends_with_the_first_that_is_used() -> None:
    coupons = [issued(f"c-{n}", "03-01", pack_id="p-1", expires_at=f"05-0{n}") for n in (1, 2, 3)]
    assert [key for key, *_ in sends(COUPON, *coupons)] == ["p-1", "p-1"]
    assert sends(COUPON, *coupons, redeemed("c-2", "03-02")) == []


def test_when_a_pack_is_spoken_of_depends_on_all_that_are_in_it_unless_that_is_past() -> None:
    first = issued("c-1", "03-01", pack_id="p-1", expires_at="05-01")
    sooner = issued("c-2", "03-02", pack_id="p-1", expires_at="03-12")
    assert sends(COUPON, first, sooner, until="03-15") == [("p-1", 1, "03-07 12:00")]
    desk = Desk(COUPON).say(first).wait("03-07 13:00").say(sooner)
    assert desk.timers == [("coupon_unused", "p-1", 1, at("03-08"))]
    assert len(desk.wait("03-08").say(issued("c-3", "03-08", pack_id="p-1")).timers) == 1
    assert desk.timers == [("coupon_unused", "p-1", 2, at("03-18"))]


def test_a_coupon_that_expires_before_its_step_is_due_has_ended() -> None:
    desk = Desk(COUPON).say(issued("c-1", "03-01", expires_at="03-14")).wait("12-31")
    assert desk.sent == [("coupon_unused", 1, "03-08 00:00")]
    assert desk.tallies["runs", "expired", "coupon_unused"] == 1
    assert len(desk.decisions) == 1


def test_a_coupon_that_is_no_longer_kept_is_not_spoken_of() -> None:
    desk = Desk(COUPON).say(issued("c-0", "03-01", expires_at="05-01"))
    desk.say(*[issued(f"c-{n}", "03-02", expires_at="06-01") for n in range(1, row.MAX_COUPONS + 1)])
    desk.wait("03-08 12:00")
    assert desk.triggers == []
    (decision,) = desk.decisions
    assert (decision.outcome, decision.gate, decision.entry.key) == ("dropped", "eligibility", "c-0")


# -- timers


def test_timers_due_at_one_instant_fire_in_the_order_rule_key_step() -> None:
    other = rule_text(rule="b_rule", enter="{on: CouponIssued, key: coupon}", steps="[{after: 7d}]", ends=None)
    desk = Desk(catalogue("coupon_unused", other)).say(issued("c-2", "03-01"), issued("c-1", "03-01")).wait("03-08")
    assert [(t.rule, t.entry.key) for t in desk.triggers] == [
        ("b_rule", "c-1"),
        ("b_rule", "c-2"),
        ("coupon_unused", "c-1"),
        ("coupon_unused", "c-2"),
    ]


def test_steps_without_time_between_them_fire_at_one_instant() -> None:
    rules = catalogue(rule_text(steps="[{after: 1d}, {after: 0s}]", ends=None))
    assert Desk(rules).say(paid("o-1", "03-01")).wait("12-31").sent == [
        ("a_rule", 1, "03-02 12:00"),
        ("a_rule", 2, "03-02 12:00"),
    ]


def test_a_user_with_nothing_pending_has_neither_timers_nor_runs() -> None:
    desk = Desk(SHOP).say(paid("o-1", "03-01", line(), coupons_issued=(terms("c-1", expires_at="04-01"),)))
    desk.wait("12-31")
    assert row.next_timer(desk.row) == NEVER
    assert {run.rule for kept in desk.row.runs.values() for run in kept} <= {"winback", "replenishment"}


# -- a catalogue that changed


def test_a_rule_that_left_the_catalogue_ends_its_runs_and_closes_its_candidates() -> None:
    night = 'quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n'
    desk = Desk(catalogue("winback", "coupon_unused", shop=night)).say(issued("c-1", "03-01 22:00"))
    desk.say(issued("c-2", "03-05 22:00")).wait("03-08 23:00")
    desk.catalogue = catalogue("winback", shop=night)
    desk.wait("12-31")
    assert [(d.outcome, d.sequence, d.final) for d in desk.decisions] == [("deferred", 0, False), ("dropped", 1, True)]
    assert desk.decisions[1].reason == "While it waited, it was taken out of the catalogue."
    assert desk.sent == []
    assert desk.row.runs == {}


def test_a_step_that_left_its_rule_is_not_fired() -> None:
    two, one = (
        catalogue(rule_text(steps=steps, ends=None)) for steps in ("[{after: 1d}, {after: 1d}]", "[{after: 1d}]")
    )
    desk = Desk(two).say(paid("o-1", "03-01")).wait("03-02 13:00")
    desk.catalogue = one
    assert desk.wait("12-31").sent == [("a_rule", 1, "03-02 12:00")]
    assert row.next_timer(desk.row) == NEVER, "the run stays as long as what is out may be taken back"


def test_runs_of_a_rule_that_is_gone_exit_when_the_user_is_next_heard_of() -> None:
    desk = Desk(COUPON).say(*[issued(f"c-{n}", "03-01", expires_at="12-01") for n in range(row.MANY_RUN_KEYS)])
    desk.catalogue = WINBACK
    desk.say(paid("o-1", "03-02"))
    assert [rule for rule, *_ in desk.timers] == ["winback"]
    assert desk.tallies["runs", "exited", "coupon_unused"] == row.MANY_RUN_KEYS
