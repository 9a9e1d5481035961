"""Packs of coupons: one message for all, as long as one is left that can be used, whatever is heard of first."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.rules import Catalogue, index
from schemas import events as ev
from tests.core.shop import (
    HOUR,
    Desk,
    at,
    catalogue,
    issued,
    locked,
    redeemed,
    returned,
    revoked,
    rule_text,
    whatever_arrives_first,
)

COUPON = catalogue("coupon_unused")
"""Due seven days after a coupon became valid (or half of its validity), and ten days later."""


def pack(*expires: str, when: str = "03-01") -> list[ev.CouponIssued]:
    """Coupons c-1, c-2... of one pack."""
    return [issued(f"c-{n}", when, pack_id="p", expires_at=day) for n, day in enumerate(expires, 1)]


TWO = pack("05-01", "06-01")
FIRST, SECOND = "03-08 12:00", "03-18 12:00"


def sends(*events: ev.Event, until: str = "12-31", of: Catalogue = COUPON) -> list[tuple[int, str]]:
    """(step, due) of all that is sent, in every order of arrival."""
    found = whatever_arrives_first(*events, until=until, catalogue=of)
    assert {key for _, key, *_ in found} <= {"p"}
    return sorted((step, due[5:16].replace("T", " ")) for _, _, step, due, _ in found)


def names(*events: ev.Event) -> list[tuple[str, ...]]:
    """The coupons that each message names."""
    return [trigger.coupons for trigger in Desk(COUPON).say(*events).wait("12-31").triggers]


# -- ended


def test_whoever_uses_one_has_used_the_pack() -> None:
    for used in ("c-1", "c-2"):
        assert sends(*TWO, redeemed(used, "03-02")) == []
        assert sends(*TWO, redeemed(used, "03-02"), returned(used, "03-03")) == [(1, FIRST), (2, SECOND)]


@pytest.mark.parametrize("gone", ["c-1", "c-2"])
def test_one_that_is_revoked_leaves_the_others(gone: str) -> None:
    assert sends(*TWO, revoked(gone, "03-02")) == [(1, FIRST), (2, SECOND)]
    assert names(*TWO, revoked(gone, "03-02")) == [({"c-1": "c-2", "c-2": "c-1"}[gone],)] * 2


def test_a_pack_ends_when_the_last_is_revoked_or_the_rest_is_used() -> None:
    assert sends(*TWO, revoked("c-1", "03-02"), revoked("c-2", "03-03")) == []
    assert sends(*TWO, revoked("c-1", "03-02"), redeemed("c-2", "03-03")) == []
    assert sends(*TWO, redeemed("c-1", "03-02"), revoked("c-2", "03-03"), returned("c-1", "03-04")) == [
        (1, FIRST),
        (2, SECOND),
    ]
    assert sends(*TWO, redeemed("c-1", "03-02"), revoked("c-2", "03-03")) == []


def test_a_coupon_that_comes_into_a_pack_of_revoked_ones_is_spoken_of() -> None:
    later = issued("c-3", "03-04", pack_id="p")
    assert sends(*TWO[:1], revoked("c-1", "03-02"), later) == [(1, "03-11 12:00"), (2, "03-21 12:00")]
    assert sends(*TWO[:1], redeemed("c-1", "03-02"), later) == []


@pytest.mark.parametrize(("tick", "wrong"), [(-1, True), (0, True), (1, False)])
@pytest.mark.parametrize("first", ["c-1", "c-2"])
def test_a_message_was_wrong_only_if_the_last_had_been_revoked_before_it(first: str, tick: int, wrong: bool) -> None:
    """One was revoked long before the message, the other about then; both are heard of after it."""
    words = [revoked("c-1", "03-02"), revoked("c-2", at(FIRST) + tick)]
    words.sort(key=lambda word: word.coupon_id != first)
    desk = Desk(COUPON).say(*TWO).wait(FIRST).say(words[0])
    assert desk.retractions == []
    desk.say(words[1])
    assert [r.reason for r in desk.retractions] == wrong * [
        "CouponRevoked had happened before it went out, and was only heard of afterwards."
    ]
    assert [t.step for t in desk.wait("12-31").triggers] == [1]


def test_what_else_ended_a_pack_is_not_undone_by_a_coupon_that_joins_it() -> None:
    ends = "[{on: CouponRevoked}, {on: CouponLocked}]"
    rules = catalogue(rule_text(enter="{on: CouponIssued, key: pack}", ends=ends, reentry="every_key"))
    desk = Desk(rules).say(TWO[0], locked("c-1", "03-02"), issued("c-3", "03-03", pack_id="p"), revoked("c-1", "03-04"))
    assert desk.wait("12-31").triggers == []
    assert len(Desk(rules).say(*TWO).wait("12-31").triggers) == 1


# -- waiting


@pytest.mark.parametrize("held", ["c-1", "c-2"])
def test_one_that_is_locked_leaves_the_others(held: str) -> None:
    assert sends(*TWO, locked(held, "03-02")) == [(1, FIRST), (2, SECOND)]
    assert names(*TWO, locked(held, "03-02")) == [({"c-1": "c-2", "c-2": "c-1"}[held],)] * 2


def test_a_pack_waits_while_all_that_are_left_of_it_are_locked() -> None:
    locks = locked("c-1", "03-02"), locked("c-2", "03-03")
    assert sends(*TWO, *locks) == []
    assert sends(*TWO, locks[0], revoked("c-2", "03-03")) == []
    assert sends(*TWO, *locks, returned("c-1", "03-04")) == [(1, FIRST), (2, SECOND)]
    desk = Desk(COUPON).say(*TWO, *locks).wait("03-12").say(returned("c-2", "03-12"))
    assert desk.wait("12-31").sent == [("coupon_unused", 1, "03-12 12:00"), ("coupon_unused", 2, "03-22 12:00")]
    assert desk.triggers[0].coupons == ("c-2",)


def test_what_came_due_while_all_were_locked_is_due_with_a_new_one() -> None:
    desk = Desk(COUPON).say(*TWO, locked("c-1", "03-02"), locked("c-2", "03-03")).wait("03-12")
    desk.say(issued("c-3", "03-12", pack_id="p"))
    assert desk.wait("03-12 12:00").sent == [("coupon_unused", 1, "03-12 12:00")]
    assert desk.triggers[0].coupons == ("c-3",)


@pytest.mark.parametrize(
    ("lock", "gone", "waited"),
    [
        (at(FIRST) - 1, at(FIRST) - 1, True),
        (at(FIRST) - 1, at(FIRST), True),
        (at(FIRST) - 1, at(FIRST) + 1, False),
        (at(FIRST) + 1, at(FIRST) - 1, False),
    ],
)
def test_what_is_heard_of_late_came_due_in_waiting_only_after_none_was_free(lock: int, gone: int, waited: bool) -> None:
    """All of it is heard of when the first step is long past; then the locked one is free again."""
    desk = Desk(COUPON).wait("03-10").say(revoked("c-2", gone), locked("c-1", lock), *reversed(TWO))
    steps = [1, 2] if waited else [2]
    assert [t.step for t in desk.say(returned("c-1", "03-11")).wait("12-31").triggers] == steps


def test_a_candidate_that_waits_in_the_night_goes_on_with_the_one_that_is_left() -> None:
    night = catalogue("coupon_unused", shop='quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n')
    coupons = [issued(f"c-{n}", "03-01 22:00", pack_id="p") for n in (1, 2)]
    desk = Desk(night).say(*coupons).wait("03-08 23:00").say(locked("c-1", "03-08 23:00"))
    assert desk.wait("03-09 09:00").triggers[0].coupons == ("c-2",)
    desk = Desk(night).say(*coupons).wait("03-08 23:00")
    desk.say(locked("c-1", "03-08 23:00"), revoked("c-2", "03-08 23:10"))
    assert desk.wait("03-09 10:00").triggers == []  # the last free one is gone
    desk.say(returned("c-1", "03-09 11:00"))
    assert desk.wait("03-09 11:00").triggers[0].coupons == ("c-1",)
    assert [d.outcome for d in desk.decisions] == ["deferred", "fired"]


def test_a_candidate_that_waits_in_the_night_is_asked_when_the_one_that_is_left_makes_it_due() -> None:
    night = catalogue("coupon_unused", shop='quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n')
    first = issued("c-1", "03-01 22:00", pack_id="p", expires_at="04-01")
    later = issued("c-2", "03-01 22:00", pack_id="p", valid_from="03-20", expires_at="06-01")
    desk = Desk(night).say(first, later).wait("03-08 23:00").say(revoked("c-1", "03-08 23:00")).wait("03-30")
    assert [(d.outcome, d.due_at[5:16], d.decided_at[5:16]) for d in desk.decisions] == [
        ("deferred", "03-08T22:00", "03-08T22:00"),
        ("fired", "03-27T12:00", "03-27T12:00"),
    ]
    desk = Desk(night).say(first, later).wait("03-08 23:00")  # all are locked, until the later one comes back
    desk.say(locked("c-2", "03-08 23:00"), locked("c-1", "03-08 23:10"), returned("c-2", "03-08 23:20")).wait("03-30")
    assert [(t.coupons, t.due_at[5:16]) for t in desk.triggers] == [(("c-2",), "03-27T12:00")]
    desk = Desk(night).say(first, later).wait("03-08 23:00").say(revoked("c-2", "03-08 23:00")).wait("03-10")
    assert [(t.coupons, t.due_at[5:16], t.decided_at[5:16]) for t in desk.triggers] == [
        (("c-1",), "03-08T22:00", "03-09T09:00")
    ]


# -- when


SOON = pack("03-13", "06-01")
"""The first of these makes the pack due on 03-07, the second a day later."""


def test_a_pack_is_due_by_what_can_be_used_of_it() -> None:
    half = "03-07 12:00"
    assert sends(*SOON, until="03-10") == [(1, half)]
    for gone in (revoked("c-1", "03-02"), locked("c-1", "03-02")):
        assert sends(*SOON, gone, until="03-10") == [(1, FIRST)]
    assert sends(*SOON, locked("c-1", "03-02"), returned("c-1", "03-03"), until="03-10") == [(1, half)]
    assert sends(*SOON, locked("c-1", "03-02"), locked("c-2", "03-03"), until="03-10") == []
    held = Desk(COUPON).say(*SOON, revoked("c-1", "03-02"), locked("c-2", "03-03"))
    assert held.timers == [("coupon_unused", "p", 1, at(FIRST))]


@pytest.mark.parametrize(("hours", "due"), [(-1, "03-07 12:00"), (0, "03-07 12:00"), (1, FIRST)])
def test_no_step_is_due_in_the_past_when_a_coupon_can_be_used_again(hours: int, due: str) -> None:
    desk = Desk(COUPON).say(*SOON, locked("c-1", "03-02")).wait(at("03-07 12:00") + hours * HOUR)
    assert desk.say(returned("c-1", "03-03")).timers == [("coupon_unused", "p", 1, at(due))]


def test_a_step_that_has_come_through_is_not_timed_anew() -> None:
    desk = Desk(COUPON).say(*SOON).wait("03-07").say(revoked("c-1", "03-07 12:30"))
    assert desk.timers == [("coupon_unused", "p", 2, at("03-17 12:00"))]
    assert [t.coupons for t in desk.wait("12-31").triggers] == [("c-1",), ("c-2",)]


def test_a_rule_that_waits_for_no_lock_is_due_by_what_is_left_as_well() -> None:
    at_half = "[{at: coupon.valid_from + coupon.validity / 2}]"
    settings: dict[str, Any] = {"enter": "{on: CouponIssued, key: pack}", "steps": at_half, "reentry": "every_key"}
    rules = catalogue(rule_text(ends="[{on: CouponRevoked}]", **settings))
    assert sends(*SOON, of=rules) == [(1, "03-07 12:00")]
    assert sends(*SOON, revoked("c-1", "03-02"), of=rules) == [(1, "04-16 12:00")]
    desk = Desk(rules).say(*SOON, locked("c-1", "03-02"), locked("c-2", "03-02")).wait("12-31")
    assert [t.coupons for t in desk.triggers] == [("c-1",)]
    desk = Desk(rules).say(*SOON, locked("c-2", "03-02"), revoked("c-1", "03-02")).wait("12-31")
    assert [t.coupons for t in desk.triggers] == [("c-2",)]


def test_a_run_of_an_earlier_version_is_regarded_as_that_has_it() -> None:
    def version(number: int, days: int) -> Catalogue:
        steps = f"[{{at: coupon.valid_from + {days}d}}]"
        enter = "{on: CouponIssued, key: pack}"
        ends, kept = "[{on: CouponRedeemed}, {on: CouponRevoked}]", {"reentry": "every_key"}
        return catalogue(rule_text(version=str(number), enter=enter, steps=steps, ends=ends, **kept))

    old, new = version(1, 10), version(2, 20)
    desk = Desk(old).say(TWO[0])
    desk.catalogue = index(new.rules, new.policy, {("a_rule", 1): old.rules["a_rule"]})
    desk.say(issued("c-0", "03-02", pack_id="p", expires_at="04-01"))
    assert desk.timers == [("a_rule", "p", 1, at("03-12"))]
    assert desk.say(revoked("c-0", "03-03")).timers == [("a_rule", "p", 1, at("03-11"))]


def test_one_that_was_revoked_is_not_the_end_of_a_pack_that_was_used_afterwards() -> None:
    used, gone = redeemed("c-1", "03-10"), revoked("c-2", "03-02")
    for late in ([gone, used], [used, gone]):
        desk = Desk(COUPON).say(*TWO).wait("03-09").say(*late)
        assert len(desk.triggers) == 1
        assert desk.retractions == []
        assert desk.timers == []
