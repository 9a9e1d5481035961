"""The gates that a shop's own file sets up: consent, caps, pauses, the shop's calendar, arbitration, holdout."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from typing import Any

import pytest
from msgspec.structs import replace

from app.core import engine, merging, policy_file
from app.core.guardrails import consent as consent_gate
from app.core.ids import share_of
from app.core.row import Consent, Row
from app.core.rules import Catalogue
from schemas import events as ev
from schemas.triggers import Offer
from tests.core.shop import (
    HOUR,
    MINUTE,
    NO_NIGHT,
    OPEN,
    Desk,
    at,
    catalogue,
    event,
    issued,
    paid,
    rule_text,
)

BARE = "caps: []\narbitration: 0s\nstages: []\n"


def login_rule(name: str = "hello", after: str = "0s", **changes: Any) -> str:
    """A rule that speaks some time after each login."""
    return rule_text(
        **{
            "rule": name,
            "enter": "{on: UserLoggedIn, key: user}",
            "ends": None,
            "steps": f"[{{after: {after}}}]",
            **changes,
        }
    )


def login(when: str | int) -> ev.UserLoggedIn:
    return event(ev.UserLoggedIn, when)


def sent(when: str | int, channel: str = "push", **fields: Any) -> ev.MessageSent:
    return event(ev.MessageSent, when, channel=channel, **fields)


def consent(when: str | int, channel: str, granted: bool, **fields: Any) -> ev.ConsentChanged:
    return event(ev.ConsentChanged, when, channel=channel, granted=granted, **fields)


def open_shop(*rules: str, gates: str = "", shop: str = NO_NIGHT) -> Catalogue:
    return catalogue(*rules, gates=_merged(gates), shop=shop)


def _merged(gates: str) -> str:
    """The open shop with these settings in place of its own."""
    settings = [text for text in OPEN.strip().splitlines() if text.split(":")[0] not in _keys(gates)]
    return "\n".join([*settings, gates]) + "\n"


def _keys(gates: str) -> set[str]:
    return {text.split(":")[0] for text in gates.splitlines()}


def outcomes(desk: Desk) -> list[tuple[str, str | None]]:
    return [(d.outcome, d.gate) for d in desk.decisions]


# -- consent


@pytest.mark.parametrize(
    ("channels", "chosen"),
    [
        ("[sms, email]", None),
        ("[wechat_service]", None),
        ("[push]", "push"),
        ("[sms, in_app]", "in_app"),
        ("[email, page]", "page"),
    ],
)
def test_without_a_word_of_the_user_the_law_of_the_shop_counts(channels: str, chosen: str | None) -> None:
    rules = catalogue(login_rule(send=f"{{channels: {channels}, expires_after: 36h}}"), gates=BARE)
    desk = Desk(rules).say(login("03-01")).wait("03-02")
    assert [t.channel for t in desk.triggers] == ([chosen] if chosen else [])
    if chosen is None:
        assert outcomes(desk) == [("dropped", "consent")]
        assert desk.decisions[0].reason.startswith("The user allows none of the channels ")


def test_a_channel_that_the_shop_does_not_name_is_denied() -> None:
    rules = catalogue(login_rule(), gates=BARE + "consent: {sms: allowed}\n")
    assert outcomes(Desk(rules).say(login("03-01")).wait("03-02")) == [("dropped", "consent")]


def test_what_is_transactional_needs_no_consent_but_respects_a_closed_channel() -> None:
    send = "{class: transactional, channels: [sms], expires_after: 36h}"
    rules = catalogue(login_rule(send=send), gates=BARE)
    assert len(Desk(rules).say(login("03-01")).wait("03-02").triggers) == 1
    closed = Desk(rules).say(consent("02-28", "sms", False), login("03-01")).wait("03-02")
    assert outcomes(closed) == [("dropped", "consent")]
    quota = catalogue(login_rule(send=send.replace("sms", "wechat_service")), gates=BARE)
    assert outcomes(Desk(quota).say(login("03-01")).wait("03-02")) == [("dropped", "consent")]


def test_a_denied_channel_is_taken_away_and_the_next_one_is_used() -> None:
    rules = open_shop(login_rule(send="{channels: [push, sms, email], expires_after: 36h}"))
    (trigger,) = Desk(rules).say(consent("02-28", "push", False), login("03-01")).wait("03-02").triggers
    assert (trigger.channel, trigger.fallbacks) == ("sms", ("email",))


def test_consent_is_asked_at_the_moment_of_release() -> None:
    rules = open_shop(login_rule(after="1d"))
    assert len(Desk(rules).say(login("03-01"), consent(at("03-02") + 1, "push", False)).row.consents) == 2
    for tick, went_out in ((-1, 0), (0, 0), (1, 1)):
        desk = Desk(rules).say(login("03-01")).wait(at("03-02") + min(tick - 1, 0))
        desk.say(consent(at("03-02") + tick, "push", False)).wait("03-03")
        assert len(desk.triggers) == went_out, tick


def test_a_quota_is_counted_down_by_each_send_and_grants_add_to_it() -> None:
    rules = catalogue(login_rule(send="{channels: [wechat_service], expires_after: 36h}"), gates=BARE)
    desk = Desk(rules).say(consent("03-01", "wechat_service", True, quota=1))
    desk.say(consent("03-01 13:00", "wechat_service", True, quota=1))
    assert desk.row.consents["wechat_service"].quota == 2
    for day in ("03-02", "03-03", "03-04"):
        desk.say(login(day)).wait(at(day) + HOUR)
    assert outcomes(desk) == [("fired", None), ("fired", None), ("dropped", "consent")]
    assert desk.row.consents["wechat_service"].quota == 0
    desk.say(consent("03-05", "wechat_service", True, quota=1), login("03-06")).wait("03-07")
    assert outcomes(desk)[-1] == ("fired", None)


def test_a_grant_without_a_number_is_no_quota_where_only_quotas_count() -> None:
    rules = catalogue(login_rule(send="{channels: [wechat_service], expires_after: 36h}"), gates=BARE)
    desk = Desk(rules).say(consent("03-01", "wechat_service", True), login("03-02")).wait("03-03")
    assert outcomes(desk) == [("dropped", "consent")]


@pytest.mark.parametrize(
    ("said", "went_out"),
    [
        ([("03-01", True, "coupon"), ("03-02", False, None)], 0),  # the later no to the whole channel wins
        ([("03-01", True, "coupon"), ("03-01", False, None)], 0),
        ([("03-02", True, "coupon"), ("03-01", False, None)], 1),
        ([("03-01", True, "coupon"), ("03-02", False, None), ("03-02 13:00", True, "coupon")], 1),
        ([("03-01", False, "coupon"), ("03-02", True, None)], 0),  # the narrower no stays a no
        ([("03-01", False, "coupon"), ("03-02", False, None), ("03-02 13:00", True, None)], 0),
        ([("03-01", True, "coupon"), ("03-02", False, None), ("03-02 13:00", True, None)], 1),
        (
            [
                ("02-01", False, "coupon"),
                ("03-01", True, "coupon"),
                ("03-02", False, None),
                ("03-02 13:00", True, None),
            ],
            1,
        ),
        ([("03-01", True, "coupon"), ("03-02", False, "winback")], 1),
    ],
)
def test_a_word_about_a_category_outweighs_one_about_the_channel_but_no_later_refusal_of_it(
    said: list[tuple[str, bool, str | None]], went_out: int
) -> None:
    rules = open_shop(login_rule(family="coupon"))
    for order in permutations(consent(when, "push", yes, category=family) for when, yes, family in said):
        assert len(Desk(rules).say(*order, login("03-03")).wait("03-04").triggers) == went_out
    for way in range(1 << len(said)):  # the same words to two accounts that become one
        words = [consent(when, "push", yes, category=family) for when, yes, family in said]
        mine, theirs = (
            Desk(rules).say(*(word for n, word in enumerate(words) if (way >> n & 1) == side)) for side in (0, 1)
        )
        mine.row = merging.absorbed(mine.row, theirs.row, ("u-2",))
        assert len(mine.say(login("03-03")).wait("03-04").triggers) == went_out, way


def test_a_quota_granted_for_a_category_before_its_channel_was_refused_counts_no_more() -> None:
    rules = catalogue(login_rule(family="coupon", send="{channels: [wechat_service], expires_after: 36h}"), gates=BARE)
    grant = {"category": "coupon", "quota": 1}
    said = (
        consent("03-01", "wechat_service", True, **grant),
        consent("03-02", "wechat_service", False),
        consent("03-03", "wechat_service", True, **grant),
    )
    for order in permutations(said):
        desk = Desk(rules).say(*order)
        for day in ("03-04", "03-05"):
            desk.say(login(day)).wait(at(day) + HOUR)
        assert outcomes(desk) == [("fired", None), ("dropped", "consent")]


def test_a_refusal_of_a_channel_from_before_it_was_said_of_all_categories_counts_for_them() -> None:
    # Rows that were written before say it of the channel alone.
    row = Row("u-1", consents={"sms": Consent(False, 2), "sms/coupon": Consent(True, 1), "sms/cart": Consent(True, 3)})
    policy = policy_file.read(BARE, "")
    assert [consent_gate.may(row, "sms", family, True, policy, False) for family in ("coupon", "cart")] == [False, True]


def test_a_word_about_another_category_is_none() -> None:
    desk = Desk(open_shop(login_rule(family="coupon"))).say(consent("03-01", "push", False, category="winback"))
    assert len(desk.say(login("03-03")).wait("03-04").triggers) == 1


def test_whoever_unsubscribes_hears_no_more_in_any_category() -> None:
    desk = Desk(open_shop(login_rule(family="coupon"))).say(consent("03-01", "push", True, category="coupon"))
    desk.say(event(ev.Unsubscribed, "03-02", channel="push"), login("03-03")).wait("03-04")
    assert outcomes(desk) == [("dropped", "consent")]


# -- caps


def capped(cap: str, *rules: str, gates: str = "", shop: str = NO_NIGHT) -> Catalogue:
    return open_shop(*(rules or (login_rule(),)), gates=f"caps: [{cap}]\n{gates}", shop=shop)


@pytest.mark.parametrize(("tick", "outcome"), [(-1, "deferred"), (0, "fired"), (1, "fired")])
def test_a_contact_leaves_a_rolling_window_when_it_is_exactly_as_old(tick: int, outcome: str) -> None:
    desk = Desk(capped("{limit: 1, rolling: 3d}")).say(sent("03-01", "sms"), login(at("03-04") + tick))
    desk.wait(at("03-04") + max(tick, 0))
    assert desk.decisions[0].outcome == outcome
    assert [t.decided_at for t in desk.triggers] == [f"2026-03-04T12:00:00{'.000001' if tick == 1 else ''}+08:00"]
    if outcome == "deferred":
        assert desk.decisions[0].reason == "The user had 1 contact in 3 days, and no more are allowed."


@pytest.mark.parametrize(("tick", "outcome"), [(-1, "deferred"), (0, "fired"), (1, "fired")])
def test_a_calendar_day_ends_at_midnight_where_the_user_is(tick: int, outcome: str) -> None:
    midnight = at("2026-03-02T00:00:00+01:00")
    berlin = event(ev.ProfileUpdated, "02-01", time_zone="Europe/Berlin")
    desk = Desk(capped("{limit: 1, calendar: 1d}")).say(berlin, sent("2026-03-01T01:00:00+01:00"))
    desk.say(login(midnight + tick)).wait(midnight + 1)
    assert desk.decisions[0].outcome == outcome
    assert desk.triggers[0].decided_at.startswith("2026-03-02T00:00:00")
    if outcome == "deferred":
        assert desk.decisions[0].reason == "The user had 1 contact in a calendar day, and no more are allowed."


@pytest.mark.parametrize(
    ("day", "next_day"),
    [
        ("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),  # 23 hours
        ("2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),  # 25 hours
    ],
)
def test_the_day_of_a_clock_change_is_as_long_as_it_is(day: str, next_day: str) -> None:
    berlin = event(ev.ProfileUpdated, "02-01", time_zone="Europe/Berlin")
    before, after = at(day), at(next_day)
    rules = capped("{limit: 1, calendar: 1d}")
    desk = Desk(rules).say(berlin, sent(before), login(before + HOUR)).wait(after)
    assert [t.decided_at for t in desk.triggers] == [next_day]
    # A contact in the last tick of the day before is none of this day.
    desk = Desk(rules).say(berlin, sent(before - 1), login(before)).wait(before)
    assert len(desk.triggers) == 1


def test_calendar_days_count_today() -> None:
    desk = Desk(capped("{limit: 2, calendar: 2d}")).say(sent("03-01 00:00"), sent("03-01 23:00"), login("03-02 08:00"))
    desk.wait("03-04")
    assert [(d.outcome, d.decided_at[:16]) for d in desk.decisions] == [
        ("deferred", "2026-03-02T08:00"),
        ("fired", "2026-03-03T00:00"),
    ]
    assert desk.decisions[0].reason == "The user had 2 contacts in 2 calendar days, and no more are allowed."


def test_a_cap_of_a_channel_counts_that_channel_and_the_next_channel_is_used() -> None:
    rules = capped(
        "{limit: 1, rolling: 3d, channel: sms}", login_rule(send="{channels: [sms, push, email], expires_after: 36h}")
    )
    (trigger,) = Desk(rules).say(sent("03-01", "sms"), login("03-02")).wait("03-03").triggers
    assert (trigger.channel, trigger.fallbacks) == ("push", ("email",))
    (trigger,) = Desk(rules).say(sent("03-01", "push"), login("03-02")).wait("03-03").triggers
    assert trigger.channel == "sms"


def test_a_cap_of_a_family_counts_that_family_only() -> None:
    rules = capped(
        "{limit: 1, rolling: 3d, family: coupon}",
        login_rule("a", family="coupon"),
        login_rule("b", family="coupon"),
        login_rule("c", family="welcome"),
    )
    desk = Desk(rules).say(login("03-01")).wait("03-01 13:00")
    assert [t.rule for t in desk.triggers] == ["a", "c"]
    (full,) = [d for d in desk.decisions if d.outcome == "dropped"]
    assert full.reason == "The user had 1 contact of coupon in 3 days, and no more are allowed."


def test_when_several_channels_are_full_the_one_that_frees_first_decides() -> None:
    caps = "{limit: 1, rolling: 3d, channel: sms}, {limit: 1, rolling: 2d, channel: push}, {limit: 1, rolling: 1d}"
    desk = Desk(capped(caps, login_rule(send="{channels: [sms, push], expires_after: 60h}")))
    desk.say(sent("03-01", "sms"), sent("03-01", "push"), login("03-01 18:00")).wait("03-05")
    assert [(t.channel, t.decided_at[:16]) for t in desk.triggers] == [("push", "2026-03-03T12:00")]
    # The order in which the rule names its channels does not matter for that.
    desk = Desk(capped(caps, login_rule(send="{channels: [push, sms], expires_after: 60h}")))
    desk.say(sent("03-01", "sms"), sent("03-01", "push"), login("03-01 18:00")).wait("03-05")
    assert [t.decided_at[:16] for t in desk.triggers] == ["2026-03-03T12:00"]


@pytest.mark.parametrize(
    ("hours", "expected"), [(23, "dropped"), (24, "deferred"), (25, "deferred")], ids=["before", "at", "after"]
)
def test_what_would_be_stale_when_the_cap_frees_is_dropped_at_once(hours: int, expected: str) -> None:
    rules = capped("{limit: 1, rolling: 1d}", login_rule(send=f"{{channels: [push], expires_after: {hours}h}}"))
    desk = Desk(rules).say(sent("03-01"), login("03-01")).wait("03-03")
    assert desk.decisions[0].outcome == expected
    assert len(desk.triggers) == (expected == "deferred")


def test_a_rule_that_drops_does_not_wait_for_a_cap() -> None:
    rules = capped("{limit: 1, rolling: 1d}", login_rule(send="{channels: [push], expires_after: 36h, on_cap: drop}"))
    desk = Desk(rules).say(sent("03-01"), login("03-01 13:00")).wait("03-03")
    assert outcomes(desk) == [("dropped", "cap")]


def test_our_own_messages_are_charged_when_released_and_not_again_when_heard_of() -> None:
    desk = Desk(capped("{limit: 2, rolling: 1d}")).say(login("03-01")).wait("03-01 12:30")
    (first,) = desk.triggers
    desk.say(sent("03-01 12:31", trigger_id=first.trigger_id), login("03-01 13:00")).wait("03-01 14:00")
    assert len(desk.triggers) == 2
    desk.say(login("03-01 15:00")).wait("03-01 16:00")
    assert len(desk.triggers) == 2
    assert len(desk.row.sent) == 2


def test_messages_of_others_count() -> None:
    desk = Desk(capped("{limit: 1, rolling: 1d}")).say(sent("03-01", campaign="spring"), login("03-01 13:00"))
    assert outcomes(desk.wait("03-01 14:00")) == [("deferred", "cap")]


def test_what_is_transactional_passes_full_caps_and_fills_none() -> None:
    rules = capped(
        "{limit: 1, rolling: 1d}",
        login_rule("bill", send="{class: transactional, channels: [push], expires_after: 36h}"),
        login_rule("hello", after="1h"),
    )
    desk = Desk(rules).say(login("03-01")).wait("03-01 12:30")
    (bill,) = desk.triggers
    desk.say(sent("03-01 12:40", trigger_id=bill.trigger_id)).wait("03-01 14:00")
    assert [t.rule for t in desk.triggers] == ["bill", "hello"]
    desk.say(login("03-01 15:00")).wait("03-01 15:30")
    assert [t.rule for t in desk.triggers] == ["bill", "hello", "bill"]


def test_a_step_may_be_of_another_class_than_its_rule() -> None:
    rules = capped("{limit: 1, rolling: 9d}", login_rule(steps="[{after: 1h, class: transactional}, {after: 1h}]"))
    desk = Desk(rules).say(sent("03-01"), login("03-01")).wait("03-02")
    assert [(t.step, t.class_) for t in desk.triggers] == [(1, "transactional")]


def test_a_rule_writes_once_in_its_time_but_goes_on_with_the_run_it_wrote_in() -> None:
    rules = open_shop(
        login_rule(
            steps="[{after: 0s}, {after: 1d}]",
            send="{channels: [push], expires_after: 36h, once_in: 7d}",
            reentry="after_exit",
        )
    )
    desk = Desk(rules).say(login("03-01")).wait("03-03")
    assert [t.step for t in desk.triggers] == [1, 2]
    for tick, went_out in ((-1, 2), (0, 3)):
        again = Desk(rules)
        again.row, again.now, again.floor, again.trace = desk.row, desk.now, desk.floor, list(desk.trace)
        again.say(login(at("03-09") + tick)).wait(at("03-09") + 1)
        assert len(again.triggers) == went_out, tick
        if not tick + 1:
            assert again.decisions[-1].reason == "This rule wrote 6 days ago, and writes once in 7 days."


# -- after-sale cases, the shop's calendar, pauses


def test_an_open_case_holds_marketing_until_it_is_closed() -> None:
    rules = open_shop(login_rule(), login_rule("bill", send="{class: transactional, channels: [push]}"))
    desk = Desk(rules).say(paid("o-1", "03-01"), event(ev.AfterSaleOpened, "03-02", order_id="o-1", case_id="a"))
    desk.say(login("03-03")).wait("03-03 13:00")
    assert [t.rule for t in desk.triggers] == ["bill"]
    desk.say(event(ev.AfterSaleClosed, "03-03 14:00", order_id="o-1", case_id="a")).wait("03-05")
    assert desk.sent[1:] == [("hello", 1, "03-04 00:00")]
    assert desk.decisions[1].reason == "The user has an open after-sale case."


@pytest.mark.parametrize("newer", [31, 32, 40])
@pytest.mark.parametrize("first", ["case", "orders"])
def test_an_open_case_holds_marketing_however_many_orders_are_newer(first: str, newer: int) -> None:
    opened = event(ev.AfterSaleOpened, "03-02", order_id="o-1", case_id="a")
    more = [paid(f"o-n{n}", at("03-03") + n * HOUR) for n in range(newer)]
    said = (opened, *more) if first == "case" else (*more, opened)
    desk = Desk(open_shop(login_rule())).say(paid("o-1", "03-01"), *said, login("03-10")).wait("03-11")
    assert desk.triggers == []
    assert {d.reason for d in desk.decisions} == {"The user has an open after-sale case."}
    desk.say(event(ev.AfterSaleClosed, "03-11", order_id="o-1", case_id="a")).wait("03-12")
    assert len(desk.triggers) == 1


FESTIVAL = "calendar: [{{name: '11.11', from: 2026-11-10T00:00:00+08:00, until: 2026-11-12T00:00:00+08:00, {what}}}]\n"


@pytest.mark.parametrize(
    ("when", "tick", "outcome"),
    [
        ("11-10 00:00", -1, "fired"),
        ("11-10 00:00", 0, "dropped"),
        ("11-12 00:00", -1, "dropped"),
        ("11-12 00:00", 0, "fired"),
    ],
)
def test_in_a_period_of_the_calendar_rules_are_muted(when: str, tick: int, outcome: str) -> None:
    desk = Desk(open_shop(login_rule(), gates=FESTIVAL.format(what="mute: all"))).say(login(at(when) + tick))
    (decision,) = desk.wait("11-13").decisions
    assert decision.outcome == outcome
    if outcome == "dropped":
        assert (decision.gate, decision.reason) == ("eligibility", "Muted during 11.11.")


def test_a_period_postpones_the_rules_it_names_to_its_end() -> None:
    rules = open_shop(login_rule("a"), login_rule("b"), gates=FESTIVAL.format(what="postpone: [b]"))
    desk = Desk(rules).say(login("11-11")).wait("11-13")
    assert desk.sent == [("a", 1, "11-11 12:00"), ("b", 1, "11-12 00:00")]
    assert [d.reason for d in desk.decisions if d.outcome == "deferred"] == ["Postponed to the end of 11.11."]


def test_what_is_transactional_or_a_grant_does_not_care_for_the_calendar() -> None:
    send = ("{class: transactional, channels: [push]}", "{action: grant}")
    for each in send:
        rules = open_shop(login_rule(send=each), gates=FESTIVAL.format(what="mute: all"))
        assert len(Desk(rules).say(login("11-11")).wait("11-13").triggers) == 1


def resumed(desk: Desk, rules: Catalogue) -> Desk:
    desk.catalogue = rules
    desk.row = engine.settle(desk.row, desk._moment(desk.now, desk.floor))
    return desk


def test_a_paused_rule_holds_what_comes_due_until_it_goes_on_and_says_so_once() -> None:
    desk = Desk(open_shop(login_rule(paused="hold"))).say(login("03-01")).wait("03-01 14:30")
    assert outcomes(desk) == [("deferred", "eligibility")]
    assert desk.decisions[0].reason == "The rule is paused."
    paused = desk.row
    assert resumed(desk, desk.catalogue).row is paused
    slot = at("03-01 14:30") + int(HOUR * share_of("pause/hello", "u-1"))
    assert [timer[3] for timer in resumed(desk, open_shop(login_rule())).timers] == [slot]
    assert resumed(desk, desk.catalogue).row is desk.row  # another change-over leaves it its instant
    assert desk.wait(slot - 1).sent == []
    assert len(desk.wait(slot).sent) == 1


def waiting(hours: int, minutes: int = 0) -> Desk:
    """What came due at noon and is worth 36 hours has been held so long by a pause."""
    late = hours * HOUR + minutes * MINUTE
    return Desk(open_shop(login_rule(paused="hold"))).say(login("03-01")).wait(at("03-01") + late)


@pytest.mark.parametrize(
    ("hours", "minutes", "window"),
    [
        (0, 0, HOUR),
        (34, 58, HOUR),
        (34, 59, HOUR),
        (35, 0, HOUR - MINUTE + 1),
        (35, 58, MINUTE + 1),
        (35, 59, 1),
        (36, 0, 0),
    ],
)
def test_the_end_of_a_pause_is_spread_by_user_and_never_into_staleness(hours: int, minutes: int, window: int) -> None:
    ((_, _, _, slot),) = resumed(desk := waiting(hours, minutes), open_shop(login_rule())).timers
    assert slot == desk.now + int(window * share_of("pause/hello", "u-1"))
    assert outcomes(desk.wait("03-05")) == [("deferred", "eligibility"), ("fired", None)]


def test_users_have_instants_of_their_own_and_so_have_the_rules_of_a_user() -> None:
    rules = open_shop(login_rule("a"), login_rule("b"), gates="arbitration: 1h\n")
    paused = rules._replace(policy=rules.policy._replace(paused=True))
    slots = {}
    for user in map(str, range(100)):
        desk = Desk(paused)
        desk.row = Row(user)
        resumed(desk.say(replace(login("03-01"), user_id=user)).wait("03-01 13:00"), rules)
        slots[user] = [timer[3] - desk.now for timer in desk.timers]
        assert [t.rule for t in desk.wait("03-02").triggers] == ["a"]  # both are in one window all the same
    assert all(len(set(each)) == 2 for each in slots.values())
    assert len({slot for each in slots.values() for slot in each}) == 200
    quarters = Counter(slot // (15 * MINUTE) for each in slots.values() for slot in each)
    assert sorted(quarters) == [0, 1, 2, 3]
    assert min(quarters.values()) > 30


def test_another_pause_holds_what_has_its_instant_still_to_come() -> None:
    desk = resumed(waiting(1), open_shop(login_rule()))
    assert resumed(desk, open_shop(login_rule(paused="hold"))).wait("03-02").sent == []
    assert outcomes(desk) == [("deferred", "eligibility")] * 2
    assert len(resumed(desk, open_shop(login_rule())).wait("03-03").sent) == 1


@pytest.mark.parametrize(("hours", "last"), [(35, "deferred"), (36, "deferred"), (37, "expired")])
def test_what_a_pause_holds_gets_stale_in_it(hours: int, last: str) -> None:
    desk = Desk(open_shop(login_rule(paused="hold"))).say(login("03-01")).wait(at("03-01") + hours * HOUR)
    assert desk.decisions[-1].outcome == last
    assert len(desk.decisions) == 1 + (last == "expired")


@pytest.mark.parametrize(
    ("way", "outcome", "gate"), [("skip", "dropped", "eligibility"), ("expire", "expired", "staleness")]
)
def test_a_paused_rule_may_let_go_what_comes_due(way: str, outcome: str, gate: str) -> None:
    desk = Desk(open_shop(login_rule(paused=way))).say(login("03-01")).wait("03-01 13:00")
    assert outcomes(desk) == [(outcome, gate)]
    assert resumed(desk, open_shop(login_rule())).wait("03-03").triggers == []


def test_all_rules_wait_when_the_shop_is_paused() -> None:
    rules = open_shop(login_rule("a"), login_rule("b", send="{action: grant}"))
    desk = Desk(rules._replace(policy=rules.policy._replace(paused=True))).say(login("03-01")).wait("03-01 12:30")
    assert outcomes(desk) == [("deferred", "eligibility")] * 2
    assert sorted(t.rule for t in resumed(desk, rules).wait("03-02").triggers) == ["a", "b"]


# -- arbitration


def race(*rules: str, shop: str = NO_NIGHT) -> Catalogue:
    return open_shop(*rules, gates="arbitration: 1h\n", shop=shop)


def send(priority: int, **more: Any) -> str:
    extra = "".join(f", {name}: {value}" for name, value in more.items())
    return f"{{channels: [push], priority: {priority}, expires_after: 36h{extra}}}"


def test_the_more_important_wins_not_the_first_to_arrive() -> None:
    rules = race(login_rule("early", send=send(10)), login_rule("late", after="59min", send=send(20)))
    desk = Desk(rules).say(login("03-01")).wait("03-02")
    assert desk.sent == [("late", 1, "03-01 13:00")]
    (lost,) = [d for d in desk.decisions if d.outcome == "dropped"]
    assert (lost.rule, lost.gate, lost.final) == ("early", "arbitration", True)
    assert lost.reason == "'late' was more important in the same hour."


@pytest.mark.parametrize(("tick", "in_one"), [(-1, True), (0, False), (1, False)])
def test_a_window_lasts_an_hour_from_the_first(tick: int, in_one: bool) -> None:
    first = at("03-01")
    rules = race(
        rule_text(rule="a", enter="{on: UserLoggedIn, key: user}", ends=None, steps="[{after: 0s}]", send=send(10)),
        rule_text(rule="b", enter="{on: UserCheckedIn, key: user}", ends=None, steps="[{after: 0s}]", send=send(20)),
    )
    desk = Desk(rules).say(login(first)).wait(first)
    desk.wait(first + HOUR + tick - 1) if tick < 0 else desk.wait(first + HOUR - 1)
    desk.say(event(ev.UserCheckedIn, first + HOUR + tick)).wait("03-02")
    assert [t.rule for t in desk.triggers] == (["b"] if in_one else ["a", "b"])


def test_of_equals_the_name_of_the_rule_decides() -> None:
    rules = race(login_rule("b", send=send(10)), login_rule("a", after="30min", send=send(10)))
    assert [t.rule for t in Desk(rules).say(login("03-01")).wait("03-02").triggers] == ["a"]


def test_the_winner_carries_the_coupon_of_those_it_won_against() -> None:
    coupons = {"enter": "{on: CouponIssued, key: coupon}", "ends": None, "steps": "[{after: 1h}]"}
    rules = race(login_rule("a", after="1h", send=send(99)), rule_text(rule="b", **coupons))
    desk = Desk(rules).say(login("03-01"), issued("c-1", "03-01"), issued("c-2", "03-01 12:30")).wait("03-02")
    (trigger,) = desk.triggers
    assert (trigger.rule, trigger.coupons) == ("a", ("c-1", "c-2"))
    two = race(rule_text(rule="b", **coupons))
    (trigger,) = Desk(two).say(issued("c-2", "03-01"), issued("c-1", "03-01")).wait("03-02").triggers
    assert trigger.coupons == ("c-1", "c-2")


def test_what_does_not_compete_does_not_wait() -> None:
    rules = race(
        login_rule("a", steps="[{at_once: true}]"),
        login_rule("b", send="{class: transactional, channels: [push]}"),
        login_rule("c", send="{action: grant}"),
        login_rule("d"),
    )
    desk = Desk(rules).say(login("03-01")).wait("03-02")
    assert desk.sent == [(name, 1, "03-01 12:00") for name in "abc"] + [("d", 1, "03-01 13:00")]


def test_a_run_that_ends_while_its_window_is_open_does_not_win() -> None:
    rules = race(rule_text(enter="{on: UserLoggedIn, key: user}", steps="[{after: 0s}]"), login_rule("z", send=send(5)))
    desk = Desk(rules).say(login("03-01")).wait("03-01 12:10").say(paid("o-1", "03-01 12:30")).wait("03-02")
    assert [t.rule for t in desk.triggers] == ["z"]
    (dropped,) = [d for d in desk.decisions if d.outcome == "dropped"]
    assert (dropped.rule, dropped.gate) == ("a_rule", "eligibility")


def test_a_night_before_the_end_of_a_window_defers_and_the_morning_has_one_of_its_own() -> None:
    rules = race(
        login_rule("a", send=send(10)), login_rule("b", after="11h", send=send(20)),
        shop="quiet_hours: {jitter: 0s}\n",
    )  # fmt: skip
    desk = Desk(rules).say(login("03-01 20:30")).wait("03-03")
    assert desk.sent == [("b", 1, "03-02 10:00")]
    assert [(d.rule, d.outcome, d.gate) for d in desk.decisions] == [
        ("a", "deferred", "arbitration"),
        ("a", "deferred", "quiet_hours"),
        ("b", "deferred", "quiet_hours"),
        ("a", "deferred", "arbitration"),
        ("b", "deferred", "arbitration"),
        ("b", "fired", None),
        ("a", "dropped", "arbitration"),
    ]


def test_a_loser_goes_on_with_its_next_step() -> None:
    rules = race(login_rule("a", steps="[{after: 0s}, {after: 1d}]", send=send(10)), login_rule("b", send=send(20)))
    desk = Desk(rules).say(login("03-01")).wait("03-03")
    assert desk.sent == [("b", 1, "03-01 13:00"), ("a", 2, "03-02 13:00")]


# -- holdout

HELD = "u-1"


def held(share: float, **changes: Any) -> Catalogue:
    return open_shop(login_rule(**changes), gates=f"holdout: {{share: {share}, salt: s}}\n")


@pytest.mark.parametrize(("above", "control"), [(-1e-9, False), (0.0, False), (1e-9, True)])
def test_who_is_held_out_hangs_on_the_share_and_the_salt(above: float, control: bool) -> None:
    desk = Desk(held(share_of("s", HELD) + above)).say(login("03-01")).wait("03-02")
    assert outcomes(desk) == ([("control", "holdout")] if control else [("fired", None)])
    if control:
        assert desk.triggers == []
        assert desk.decisions[0].final
        assert desk.decisions[0].reason == "The user is in the control group: it would have been sent."


def test_growing_the_share_moves_nobody_out_and_about_so_many_in() -> None:
    users = [f"u-{n}" for n in range(2000)]
    before: set[str] = set()
    for share in (0.0, 0.05, 0.1, 0.5, 1.0):
        now = {user for user in users if share_of("s", user) < share}
        assert before <= now
        assert abs(len(now) / len(users) - share) < 0.04
        before = now
    assert {u for u in users if share_of("t", u) < 0.5} != {u for u in users if share_of("s", u) < 0.5}


def test_a_rule_may_have_a_holdout_of_its_own() -> None:
    rules = open_shop(login_rule("a", holdout="1"), login_rule("b", holdout="0"))
    desk = Desk(rules).say(login("03-01")).wait("03-02")
    assert [(d.rule, d.outcome) for d in desk.decisions] == [("a", "control"), ("b", "fired")]


def test_a_control_candidate_passes_the_same_gates_with_caps_that_only_it_sees() -> None:
    rules = capped(
        "{limit: 1, rolling: 9d}", login_rule("a", holdout="1"), login_rule("b", after="1h"),
        login_rule("c", after="2h", holdout="1", send="{channels: [push], expires_after: 1h}"),
    )  # fmt: skip
    desk = Desk(rules).say(login("03-01")).wait("03-02")
    assert [(d.rule, d.outcome, d.gate) for d in desk.decisions] == [
        ("a", "control", "holdout"),
        ("b", "fired", None),
        ("c", "dropped", "cap"),
    ]
    assert [contact.shadow for contact in desk.row.sent] == [True, False]


def test_a_control_candidate_uses_up_no_quota() -> None:
    rules = catalogue(login_rule(holdout="1", send="{channels: [wechat_service], expires_after: 36h}"), gates=BARE)
    desk = Desk(rules).say(consent("03-01", "wechat_service", True, quota=1), login("03-02")).wait("03-03")
    assert outcomes(desk) == [("control", "holdout")]
    assert desk.row.consents["wechat_service"].quota == 1


# -- offers

GIFT = Offer(batch="winback_small", kind="amount", value="10.00", currency="CNY")


def offering(**more: Any) -> Catalogue:
    return open_shop(login_rule(steps="[{after: 0s, offer: winback_small}, {after: 1d, offer: winback_small}]",
                                send=send(10, **more)))  # fmt: skip


def test_a_step_may_promise_an_offer() -> None:
    desk = Desk(offering()).say(issued("c-1", "02-01"), login("03-01")).wait("03-03")
    assert [(t.offer, t.coupons) for t in desk.triggers] == [(GIFT, ())] * 2


def test_a_coupon_in_hand_is_named_in_place_of_the_offer() -> None:
    coupons = (issued("c-2", "02-01", expires_at="04-02"), issued("c-1", "02-01", expires_at="03-02"))
    desk = Desk(offering(coupon_in_hand="instead")).say(*coupons, login("03-01")).wait("03-03")
    assert [(t.offer, t.coupons) for t in desk.triggers] == [(None, ("c-1",)), (None, ("c-2",))]
    desk = Desk(offering(coupon_in_hand="instead")).say(login("03-01")).wait("03-01 13:00")
    assert desk.triggers[0].offer == GIFT


@pytest.mark.parametrize(("tick", "offer"), [(-1, None), (0, GIFT), (1, GIFT)])
def test_a_discount_is_given_by_one_run_in_its_time(tick: int, offer: Offer | None) -> None:
    desk = Desk(offering(discount_every="7d")).say(login("03-01")).wait("03-03")
    assert [t.offer for t in desk.triggers] == [GIFT, GIFT]
    again = at("03-09") + tick
    desk.say(login(again)).wait(again)
    assert desk.triggers[2].offer == offer


def test_a_message_without_its_discount_goes_out_all_the_same_and_starts_no_new_time() -> None:
    desk = Desk(offering(discount_every="7d")).say(login("03-01")).wait("03-03").say(login("03-05")).wait("03-07")
    assert [t.offer for t in desk.triggers] == [GIFT, GIFT, None, None]
    assert desk.row.last_fired["discount"][1] == at("03-02")


def test_a_message_that_fell_back_to_another_channel_fills_the_cap_of_that_one_and_is_one_contact() -> None:
    rules = open_shop(
        login_rule(send="{channels: [push], on_cap: drop, expires_after: 36h}"),
        login_rule("by_sms", after="1d", send="{channels: [sms], on_cap: drop, expires_after: 36h}"),
        gates="caps: [{limit: 1, rolling: 3d, channel: sms}, {limit: 3, rolling: 7d}]\n",
    )
    for told, expected in (
        (True, [("hello", "fired"), ("by_sms", "dropped")]),
        (False, [("hello", "fired"), ("by_sms", "fired")]),
    ):
        desk = Desk(rules).say(login("03-01")).wait("03-01 13:00")
        if told:
            word = sent("03-01 14:00", "sms", trigger_id=desk.triggers[0].trigger_id)
            desk.say(word, replace(word, event_id="again"))
        assert [(d.rule, d.outcome) for d in desk.wait("03-03").decisions] == expected
    for contacts, outcome in ((1, "fired"), (2, "dropped")):  # what fell back counts once, whatever the others are
        desk = Desk(rules).say(login("03-01")).wait("03-01 13:00")
        desk.say(sent("03-01 14:00", "sms", trigger_id=desk.triggers[0].trigger_id))
        desk.say(*(sent(f"03-01 15:0{n}", "push") for n in range(contacts)), login("03-01 16:00")).wait("03-01 17:00")
        assert desk.decisions[-1].outcome == outcome
