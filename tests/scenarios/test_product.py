"""Everything that the product promises, by name: each trigger with what it must have been tried on, and each guardrail.

A trigger, a scenario or a guardrail that is dropped fails here, each setting of a rule in test_mutants. The scenarios
themselves are files beside this one; the guardrails are tried here, one each, and in depth in tests/core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from app.backtest import scenario
from app.backtest.scenario import Scenario
from app.core import engine
from app.core.guardrails.rate import Budget
from app.core.rules import Catalogue
from app.rulebook import load
from schemas import events as ev
from tests.core.shop import (
    DAY,
    HOUR,
    NO_NIGHT,
    OPEN,
    Desk,
    at,
    baseline,
    catalogue,
    event,
    issued,
    line,
    paid,
    rule_text,
)
from tests.scenarios.test_scenarios import CATALOGUES, SCENARIOS

_BY_NAME = {(one.rules, one.name): one for on, one in SCENARIOS if on == "shipped"}


class Tried(NamedTuple):
    """The scenarios of a trigger, by their names."""

    action: str
    priority: int
    normal: str
    before: str
    """One tick before the instant that decides (due, ended, expired), at it, and one after."""
    at: str
    after: str
    arrival: str
    """Both orders of arrival, one outcome."""
    again: str
    """Who comes a second time."""
    back: str | None = None
    """A refund or a cancellation; None where no purchase has to do with it."""


BEFORE = "A microsecond before it is due nothing goes out"
PAID = ("Paid a microsecond before it is due", "Paid at the instant itself")
BOUGHT = ("Bought a microsecond before it is due", "Bought at the instant itself")
FIRST = " (at the same instant events go first)"

TRIGGERS = {
    "welcome_pack": Tried(
        "grant", 10, "Registration brings the pack at once, also at night (a grant wakes nobody)",
        "Who bought a microsecond before registering is no new customer",
        "Who buys at the very instant of registering is a new customer",
        "Who buys a microsecond after registering is one",
        "Who buys a microsecond after registering is one",
        "Registered twice, and the same event again, and there is one pack",
        "The order of before was cancelled, so it is a new customer after all",
    ),
    "first_order_nudge": Tried(
        "contact", 45, "Came back the same evening, and hears on days one, three and seven",
        *PAID, "Paid a microsecond after, and the rest is not sent", PAID[0],
        "A second registration starts nothing anew",
        "The first order is cancelled, so what is left of the nudges comes",
    ),
    "activation_nudge": Tried(
        "contact", 10, "Never seen again, days two, six and twenty-nine",
        "Seen a microsecond before it is due", "Seen at the instant itself",
        "Seen a microsecond after, and the rest is not sent", "A login at midnight is one",
        "A second registration starts nothing anew", "That order is refunded, and the user has not been seen since",
    ),
    "first_order_gift": Tried(
        "grant", 10, "The first order brings the gift at once",
        "Refunded a microsecond before the gift expires, it is retracted",
        "Refunded when it has expired, the gift was given, and there is no second one",
        "Refunded a microsecond after it has expired, the gift was given, too",
        "Two orders that arrive the wrong way round bring one gift", "The second order brings none",
        "Refunded while the gift could still be taken back, so the next order is the first",
    ),
    "post_purchase_offer": Tried(
        "contact", 10, "Milk powder was bought, diapers go with it, and on the page it may be night",
        "Cancelled a microsecond before the hour is over",
        "Cancelled when the hour is over, there is nothing to take back",
        "Cancelled a microsecond after the hour is over",
        "Each order has an offer of its own, whatever arrives first", "The same order again is no new entry",
        "Refunded at once",
    ),
    "repurchase_coupon": Tried(
        "grant", 10, "An order of baby goods brings a coupon for baby goods, at once and at any hour",
        "Refunded a microsecond before the grant expires, it is retracted",
        "Cancelled when it has expired, it was given",
        "Refunded a microsecond after the grant has expired", "Each order, whatever arrives first",
        "The same order again is no new entry", "Part of it goes back, and it was an order all the same",
    ),
    "checkout_reminder": Tried(
        "contact", 90, "Ordered and not paid, a quarter of an hour and 22 hours later",
        *PAID, "Paid a microsecond after", "A checkout that became an order, and only that is reminded of",
        "Placed twice, it is one entry; another order is another", "Cancelled",
    ),
    "cart_abandoned": Tried(
        "contact", 80, "Left with two things in it", "Emptied a microsecond before it is due",
        "Emptied at the instant itself", "Emptied a microsecond after",
        "A change starts anew, whatever arrives first", "Exactly seven days after the last one it may write again",
        "The order is paid and refunded, and the cart is still there",
    ),
    "browse_abandoned": Tried(
        "contact", 70, "Looked at for forty seconds", "Bought in the category a microsecond before it is due",
        "Bought at the instant itself", "Bought a microsecond after",
        "On two visits, whatever arrives first; it counts from the second",
        "And exactly 72 hours after the last one it may",
        "The purchase is refunded, and the interest is still there",
    ),
    "replenishment": Tried(
        "contact", 60, "Two cans of milk powder last for forty days, and three days before that it is time",
        "Bought again a microsecond before it is due", f"Bought again at the instant itself{FIRST}",
        "Bought again a microsecond after", "Bought twice at the same instant, one reminder",
        "After a reminder the next purchase starts anew", "All of it goes back before it runs out",
    ),
    "coupon_unused": Tried(
        "contact", 50, "After a week without use, and once more ten days later",
        "Redeemed a microsecond before it is due", f"Redeemed at the instant itself{FIRST}",
        "Redeemed a microsecond after", "A lock that is heard of before the issue holds all the same",
        "The same coupon issued again (an upstream retry with a new id) is no new entry",
        "The order in which it was used is refunded, so it is unused again",
    ),
    "coupon_expiring": Tried(
        "contact", 55, "Three days before, and one day before",
        "Redeemed a microsecond before it is due", "Redeemed at the instant itself", "Redeemed a microsecond after",
        "Redeemed at the instant itself", "Each coupon for itself, and once",
        "Used by an order that is refunded, it is unused again",
    ),
    "second_order_nudge": Tried(
        "contact", 40, "One order, and the median of 20 days is over",
        *BOUGHT, "Bought a microsecond after", BOUGHT[0],
        "Four orders, a week apart, and the user's own rhythm counts", "The only order is refunded",
    ),
    "at_risk": Tried(
        "contact", 30, "Thirty days of silence",
        *BOUGHT, "Bought a microsecond after, and then silent again", BOUGHT[0],
        "Bought a microsecond after, and then silent again", "The only order is refunded",
    ),
    "winback": Tried(
        "contact", 20, "After sixty days of silence, and thirty days later once more",
        BOUGHT[0], f"{BOUGHT[1]}{FIRST}", "Bought a microsecond after", "Each order starts the silence anew",
        "Bought between the two", "The last order is refunded, so the silence has lasted since the one before",
    ),
    "reactivated": Tried(
        "contact", 10, "Back after exactly sixty days", "A microsecond earlier the customer was not gone",
        "Back after exactly sixty days", "A microsecond later it was",
        "The order between was refunded, so the customer was gone", "Gone, and back again, twice",
        "The order that brought the customer back is cancelled",
    ),
    "birthday": Tried(
        "contact", 10, "A week before, at nine, this year and the next", BEFORE,
        "Told at the instant itself, it is still this year", "Told a microsecond later, it is next year",
        "Mended, whichever is heard of first", "Told again after the greeting, there is no second one",
    ),
    "anniversary": Tried(
        "contact", 10, "A year on, less a week, and every year",
        "Heard of a microsecond before this year's greeting is due", "Heard of at the instant itself",
        "Heard of a microsecond after, it is the next year's", "The day is the user's own",
        "Registered twice, it is the first day that counts", "Orders and their refunds change nothing",
    ),
}  # fmt: skip


def _named(rule: str, name: str) -> Scenario:
    assert ((rule,), name) in _BY_NAME, f"{rule} is no longer tried on: {name}"
    return _BY_NAME[(rule,), name]


def test_the_product_has_these_triggers_and_no_others() -> None:
    assert load().rules.keys() == TRIGGERS.keys()


@pytest.mark.parametrize("rule", TRIGGERS)
def test_a_trigger_is_as_promised_and_was_tried_on_what_can_become_of_it(rule: str) -> None:
    tried, shipped = TRIGGERS[rule], load().rules[rule]
    assert (shipped.send.action, shipped.send.priority) == (tried.action, tried.priority)
    assert shipped.mode == "live"
    for name in tried[2:]:
        if name is not None:
            one = _named(rule, name)
            assert scenario.check(one, CATALOGUES["shipped"]()) is None
    assert any(expected.rule == rule for expected in _named(rule, tried.normal).triggers)
    assert _named(rule, tried.arrival).any_order
    sides = [_named(rule, name) for name in (tried.before, tried.at, tried.after)]
    outcomes = {str((side.triggers, side.retractions)) for side in sides}
    assert len(outcomes) > 1, "the boundary decides nothing"


# -- the guardrails


def rules(shop: str = "", gates: str = OPEN, *, other: str = "", **changes: Any) -> Catalogue:
    """One contact by push or in_app, ten days after an order, in a shop that holds nothing back but what is tried."""
    settings = {"ends": None, "send": "{channels: [push, in_app], priority: 10, expires_after: 36h}"} | changes
    texts = [rule_text(**settings)] + ([other] if other else [])
    return catalogue(*texts, shop=(shop if "quiet_hours" in shop else NO_NIGHT + shop), gates=gates)


def without(*settings: str) -> str:
    """The open shop without a word about these."""
    return "".join(f"{each}\n" for each in OPEN.splitlines() if not each.startswith(settings))


BUY = paid("o-1", "03-01")
"""Due ten days later, on 03-11 at noon."""
HELD = "quiet_hours: {from: '10:00', until: '14:00', jitter: 0s}\n"
NO_CAPS, NO_WINDOW = without("caps"), without("arbitration")
BETTER_SETTINGS: dict[str, Any] = {
    "rule": "better",
    "ends": None,
    "steps": "[{after: 14430min}]",
    "send": "{channels: [push], priority: 90, expires_after: 36h}",
}
BETTER = rule_text(**BETTER_SETTINGS)
"""More important, and due half an hour later."""
LIMITED = "consent: {push: quota, in_app: denied}\n"
PUSH_OFF = event(ev.Unsubscribed, "03-02", channel="push")
SALE = "calendar: [{name: 11.11, from: 2026-03-10T00:00:00+08:00, until: 2026-03-12T00:00:00+08:00, %s: all}]\n"
GRANT = "{action: grant, expires_after: 36h}"
SHADOW = {"mode": "shadow"}
NOTHING_GOES = HELD + "caps: [{limit: 1, rolling: 1d}]\narbitration: 1h\nconsent: {push: denied}\n" + SALE % "mute"
"""A shop in which no contact of marketing gets through on 03-11."""


def sent_by_others(when: str, channel: str = "push", **fields: Any) -> ev.Event:
    return event(ev.MessageSent, when, channel=channel, **fields)


class Guard(NamedTuple):
    """What is given, and what becomes of the candidate: (outcome, gate) of each record of the rule, in order."""

    rules: Catalogue
    given: tuple[ev.Event, ...]
    outcomes: list[tuple[str, str | None]]
    channel: str | None = None
    moment: Mapping[str, Any] = MappingProxyType({})
    better: Sequence[tuple[str, str | None]] = ()
    """What becomes of the other rule's candidate, where there is one."""


FIRED = ("fired", None)
GUARDRAILS = {
    # at entry
    "re-entry: once": Guard(rules(reentry="once"), (BUY, paid("o-2", "03-20")), [FIRED]),
    "re-entry: every key": Guard(
        rules(enter="{on: CouponIssued, key: coupon}", reentry="every_key"),
        (issued("c-1", "03-01"), issued("c-2", "03-01"), issued("c-1", "03-20")),
        [FIRED, FIRED],
    ),
    "re-entry: after exit": Guard(
        rules(reentry="after_exit"), (BUY, paid("o-2", "03-05"), paid("o-3", "03-20")), [FIRED, FIRED]
    ),
    "re-entry: cooldown": Guard(
        rules(reentry="{cooldown: 20d}"), (BUY, paid("o-2", "03-20"), paid("o-3", "03-21")), [FIRED, FIRED]
    ),
    "start policy: what was due before the rule was switched on is not sent": Guard(
        rules(), (BUY,), [], None, {"sends_from": {"a_rule": at("03-11") + 1}}
    ),
    "start policy: what happened before it was switched on starts nothing": Guard(
        rules(), (BUY,), [], None, {"enters_from": {"a_rule": at("03-01") + 1}}
    ),
    # at release, in the order in which they are asked
    "consent: a channel that was closed is not used": Guard(rules(), (BUY, PUSH_OFF), [FIRED], "in_app"),
    "consent: with no channel left it is dropped": Guard(
        rules("consent: {push: allowed}\n", without("consent")),
        (BUY, PUSH_OFF),
        [("dropped", "consent")],
    ),
    "consent: a quota is counted down": Guard(
        rules(LIMITED, without("consent"), steps="[{after: 10d}, {after: 1d}]"),
        (event(ev.ConsentChanged, "02-01", channel="push", granted=True, quota=1), BUY),
        [FIRED, ("dropped", "consent")],
    ),
    "eligibility: the rule's condition is asked again": Guard(
        rules(check="user.paid_orders == 1"), (BUY, paid("o-2", "03-05")), [("dropped", "eligibility")]
    ),
    "eligibility: an open after-sale case holds marketing": Guard(
        rules(),
        (
            BUY,
            event(ev.AfterSaleOpened, "03-02", order_id="o-1"),
            event(ev.AfterSaleClosed, "03-11 13:00", order_id="o-1"),
        ),
        [("deferred", "eligibility"), FIRED],
    ),
    "eligibility: the shop's calendar mutes": Guard(rules(SALE % "mute"), (BUY,), [("dropped", "eligibility")]),
    "eligibility: the shop's calendar postpones": Guard(
        rules(SALE % "postpone"), (BUY,), [("deferred", "eligibility"), FIRED]
    ),
    "eligibility: a paused rule skips": Guard(rules(paused="skip"), (BUY,), [("dropped", "eligibility")]),
    "staleness: a paused rule lets expire": Guard(rules(paused="expire"), (BUY,), [("expired", "staleness")]),
    "staleness: nothing is sent later than it is worth": Guard(
        rules(HELD, send="{channels: [push], expires_after: 1h}"),
        (BUY,),
        [("deferred", "quiet_hours"), ("expired", "staleness")],
    ),
    "quiet hours: delivery is held to their end": Guard(
        rules(HELD, send="{channels: [push], expires_after: 36h}"), (BUY,), [("deferred", "quiet_hours"), FIRED]
    ),
    "quiet hours: channels that wait for the user have none": Guard(
        rules(HELD, send="{channels: [page, in_app], expires_after: 36h}"), (BUY,), [FIRED], "page"
    ),
    "caps: rolling, deferred to when it frees": Guard(
        rules("caps: [{limit: 1, rolling: 1d}]\n", NO_CAPS),
        (BUY, sent_by_others("03-11 09:00")),
        [("deferred", "cap"), FIRED],
    ),
    "caps: calendar days of the user's zone": Guard(
        rules("caps: [{limit: 1, calendar: 1d}]\n", NO_CAPS), (BUY, sent_by_others("03-10 23:59")), [FIRED]
    ),
    "caps: per channel, and the next channel is used": Guard(
        rules("caps: [{limit: 1, rolling: 3d, channel: push}]\n", NO_CAPS),
        (BUY, sent_by_others("03-10")),
        [FIRED],
        "in_app",
    ),
    "caps: per category, which counts its own contacts": Guard(
        rules("caps: [{limit: 1, rolling: 3d, family: winback}]\n", NO_CAPS),
        (BUY, sent_by_others("03-09", campaign="winback")),
        [("deferred", "cap"), FIRED],
    ),
    "caps: per category, which counts no contacts of others": Guard(
        rules("caps: [{limit: 1, rolling: 3d, family: winback}]\n", NO_CAPS),
        (BUY, sent_by_others("03-09", campaign="coupon")),
        [FIRED],
    ),
    "caps: per category, which is none of the others": Guard(
        rules("caps: [{limit: 1, rolling: 3d, family: coupon}]\n", NO_CAPS),
        (BUY, sent_by_others("03-09", campaign="coupon")),
        [FIRED],
    ),
    "caps: a rule may drop instead": Guard(
        rules(
            "caps: [{limit: 1, rolling: 1d}]\n", NO_CAPS, send="{channels: [push], expires_after: 36h, on_cap: drop}"
        ),
        (BUY, sent_by_others("03-11 09:00")),
        [("dropped", "cap")],
    ),
    "caps: what is transactional passes": Guard(
        rules(
            "caps: [{limit: 1, rolling: 1d}]\n",
            NO_CAPS,
            send="{channels: [push], class: transactional, expires_after: 36h}",
        ),
        (BUY, sent_by_others("03-11 09:00")),
        [FIRED],
    ),
    "arbitration: the more important wins, not the first to arrive": Guard(
        rules("arbitration: 1h\n", NO_WINDOW, other=BETTER),
        (BUY,),
        [("deferred", "arbitration"), ("dropped", "arbitration")],
        better=[("deferred", "arbitration"), FIRED],
    ),
    "arbitration: who is alone goes out when the window closes": Guard(
        rules("arbitration: 1h\n", NO_WINDOW), (BUY,), [("deferred", "arbitration"), FIRED]
    ),
    "maximum rate: the next slot is waited for": Guard(
        rules(send="{channels: [push], expires_after: 36h, max_rate: 1 per 1h}"),
        (BUY,),
        [("deferred", "cap"), FIRED],
        None,
        {"budgets": {"a_rule": Budget(HOUR, 0, at("03-11 15:00"))}},
    ),
    "holdout: who is held out gets nothing, and a record of what it would have been": Guard(
        rules("holdout: {share: 1}\n"), (BUY,), [("control", "holdout")]
    ),
    "holdout: a control candidate passes the gates before it": Guard(
        rules("holdout: {share: 1}\n" + SALE % "mute"), (BUY,), [("dropped", "eligibility")]
    ),
    "holdout: who is held out of one rule gets what another sends": Guard(
        rules("arbitration: 1h\n", NO_WINDOW, other=rule_text(**BETTER_SETTINGS | {"holdout": "1"})),
        (BUY,),
        [("deferred", "arbitration"), FIRED],
        better=[("deferred", "arbitration"), ("control", "holdout")],
    ),
    # grants and modes
    "grants meet neither consent, quiet hours, caps, arbitration nor the calendar": Guard(
        rules(NOTHING_GOES, without("caps", "arbitration", "consent"), send=GRANT),
        (BUY, PUSH_OFF, sent_by_others("03-11 09:00")),
        [FIRED],
    ),
    "grants meet eligibility": Guard(
        rules(send=GRANT, check="user.paid_orders == 2"), (BUY,), [("dropped", "eligibility")]
    ),
    "grants meet holdout": Guard(rules("holdout: {share: 1}\n", send=GRANT), (BUY,), [("control", "holdout")]),
    "shadow: everything is decided, and the trigger says not to send": Guard(rules(mode="shadow"), (BUY,), [FIRED]),
    "shadow: what is sent is decided as if it were not there": Guard(
        rules(
            "arbitration: 1h\ncaps: [{limit: 1, rolling: 9d}]\n",
            without("arbitration", "caps"),
            other=rule_text(**BETTER_SETTINGS | SHADOW),
        ),
        (BUY,),
        [("deferred", "arbitration"), FIRED],
        better=[("deferred", "arbitration"), FIRED],
    ),
}


SEVERAL = {
    "contact": "{channels: [push], expires_after: 36h}",
    "bill": "{class: transactional, channels: [push], expires_after: 36h}",
    "gift": GRANT,
}


@pytest.mark.parametrize("name", GUARDRAILS)
def test_a_guardrail_holds(name: str) -> None:
    guard = GUARDRAILS[name]
    desk = Desk(guard.rules, **guard.moment)
    for each in sorted(guard.given, key=lambda one: one.occurred_at):
        desk.wait(each.occurred_at - 1).say(each)
    desk.wait(at("03-01") + 60 * DAY)
    assert [(d.outcome, d.gate) for d in desk.decisions if d.rule == "a_rule"] == guard.outcomes
    assert [(d.outcome, d.gate) for d in desk.decisions if d.rule == "better"] == list(guard.better)
    if guard.channel is not None:
        assert desk.triggers[-1].channel == guard.channel
    modes = {t.rule: t.mode for t in desk.triggers}
    if name.startswith("shadow"):
        assert [rule for rule, mode in modes.items() if mode == "shadow"] == ["better" if guard.better else "a_rule"]


def test_every_gate_of_the_contract_holds_something_back_here() -> None:
    gates = {gate for guard in GUARDRAILS.values() for _, gate in guard.outcomes if gate}
    assert gates == {"consent", "eligibility", "staleness", "quiet_hours", "cap", "arbitration", "holdout"}


def test_contacts_meet_the_gates_that_grants_do_not() -> None:
    """Each of these alone holds back a contact where nothing held back the grant."""
    for shop, gates in (
        (HELD, OPEN),
        ("caps: [{limit: 1, rolling: 1d}]\n", NO_CAPS),
        ("arbitration: 1h\n", NO_WINDOW),
        ("consent: {push: denied, in_app: denied}\n", without("consent")),
        (SALE % "mute", OPEN),
    ):
        desk = Desk(rules(shop, gates)).say(BUY, sent_by_others("03-11 09:00")).wait("03-11")
        assert [d.outcome for d in desk.decisions] in (["deferred"], ["dropped"]), shop


@pytest.mark.parametrize("action", ["contact, channels: [push]", "grant"])
@pytest.mark.parametrize(("late", "outcome"), [(-1, FIRED), (0, FIRED), (1, ("expired", "staleness"))])
def test_what_comes_due_in_an_outage_is_stale_after_its_time(
    action: str, late: int, outcome: tuple[str, str | None]
) -> None:
    desk = Desk(rules(send=f"{{action: {action}, expires_after: 36h}}")).say(BUY)
    due, now = at("03-11"), at("03-11") + 36 * HOUR + late
    engine.tick(desk.row, due, desk._moment(now, due))
    assert [(d.outcome, d.gate) for d in desk.decisions] == [outcome]


def test_one_pause_stops_all_rules() -> None:
    several = catalogue(*(rule_text(rule=name, ends=None, send=send) for name, send in SEVERAL.items()))
    paused = several._replace(policy=several.policy._replace(paused=True))
    desk = Desk(paused).say(BUY).wait("04-01")
    assert desk.triggers == []
    assert {d.rule: d.reason for d in desk.decisions} == dict.fromkeys(SEVERAL, "The rule is paused.")
    assert sorted(t.rule for t in Desk(several).say(BUY).wait("04-01").triggers) == sorted(SEVERAL)


# -- the person


def test_who_buys_every_week_is_not_at_risk_for_buying_other_things() -> None:
    goods = ("milk_powder", "diapers", "soap", "coffee", "tea")
    weekly = [paid(f"o-{n}", at("01-05") + n * 7 * DAY, line(goods[n % len(goods)])) for n in range(30)]
    desk = Desk(CATALOGUES["policy"]())
    for each in weekly:
        desk.wait(each.occurred_at - 1).say(each)
    assert {t.rule for t in desk.triggers}.isdisjoint({"at_risk", "winback", "reactivated"})


def test_an_old_customer_is_not_taken_for_a_new_one() -> None:
    desk = Desk(CATALOGUES["policy"]())
    desk.say(baseline("03-01", "2020-01-01", 12, "2026-02-20"), event(ev.UserRegistered, "03-02"), paid("o-1", "03-03"))
    rules = {t.rule for t in desk.wait("03-10").triggers}
    assert rules.isdisjoint({"welcome_pack", "first_order_gift", "first_order_nudge", "second_order_nudge"})
