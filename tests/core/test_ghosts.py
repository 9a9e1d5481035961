"""Ghosts: candidates of the control group and of rules in shadow mode. They are decided as if they were sent, meet what
is sent and each other, and change nothing of what is sent."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from app.core.guardrails.rate import Budget, SlotTaken
from app.core.merging import absorbed
from app.core.row import MAX_SENT, Row, Sent
from app.core.rules import Catalogue
from app.core.visits import bounded, with_sent
from schemas import events as ev
from schemas.triggers import Decision, Trigger
from tests.core.shop import HOUR, Desk, at, event, issued, rule_text
from tests.core.test_gates import consent, login, login_rule, open_shop, outcomes, race, send

SHADOW: dict[str, Any] = {"mode": "shadow"}
CONTROL: dict[str, Any] = {"holdout": "1"}
GHOSTS = pytest.mark.parametrize("ghost", [SHADOW, CONTROL], ids=["shadow", "control"])


def became(desk: Desk) -> list[tuple[str, str, str | None]]:
    """The final records: (rule, outcome, gate)."""
    return [(d.rule, d.outcome, d.gate) for d in desk.decisions if d.final]


def of(desk: Desk, *rules: str) -> list[object]:
    """All that was said of these rules."""
    return [item for item in desk.trace if isinstance(item, Trigger | Decision) and item.rule in rules]


def would_be(rule: str, ghost: dict[str, Any]) -> tuple[str, str, str | None]:
    return (rule, "fired", None) if ghost is SHADOW else (rule, "control", "holdout")


# -- what is sent


@pytest.mark.parametrize("gates", ["arbitration: 1h\n", "arbitration: 1h\ncaps: [{limit: 1, rolling: 9d}]\n"])
@pytest.mark.parametrize("ghost", [SHADOW, CONTROL, SHADOW | CONTROL], ids=["shadow", "control", "both"])
def test_what_is_sent_is_the_same_with_ghosts_and_without(ghost: dict[str, Any], gates: str) -> None:
    came, delays = login("03-01"), ("0s", "30min", "1h", "90min")
    for first, second, third in itertools.product(delays, repeat=3):
        real = (login_rule("a", after=first, send=send(10)), login_rule("c", after=second, send=send(20)))
        ghosts = [login_rule(n, after=third, send=send(p), **ghost) for n, p in (("a_1", 5), ("b", 15), ("d", 25))]
        alone = Desk(open_shop(*real, gates=gates)).say(came).wait("03-04")
        both = Desk(open_shop(*real, *ghosts, gates=gates)).say(came).wait("03-04")
        assert of(both, "a", "c") == of(alone, "a", "c")
        assert sorted(d.rule for d in both.decisions if d.final) == ["a", "a_1", "b", "c", "d"]


@GHOSTS
@pytest.mark.parametrize(("ghosts_after", "real_after"), [("0s", "30min"), ("30min", "0s"), ("0s", "0s")])
def test_the_best_ghost_is_what_it_would_have_been_and_the_best_real_one_goes_out(
    ghost: dict[str, Any], ghosts_after: str, real_after: str
) -> None:
    rules = race(
        login_rule("g1", after=ghosts_after, send=send(90), **ghost),
        login_rule("g2", after=ghosts_after, send=send(80), **ghost),
        login_rule("r1", after=real_after, send=send(50)),
        login_rule("r2", after=real_after, send=send(40)),
    )
    desk = Desk(rules).say(login("03-01")).wait("03-02")
    assert sorted(became(desk)) == [
        would_be("g1", ghost),
        ("g2", "dropped", "arbitration"),
        ("r1", "fired", None),
        ("r2", "dropped", "arbitration"),
    ]
    lost = {d.rule: d.reason for d in desk.decisions if d.gate == "arbitration" and d.final}
    assert lost == {
        "g2": "'g1' was more important in the same hour.",
        "r2": "'r1' was more important in the same hour.",
    }


@GHOSTS
@pytest.mark.parametrize(("ghosts_after", "real_after"), [("0s", "30min"), ("30min", "0s"), ("0s", "0s")])
def test_a_ghost_loses_to_what_is_more_important_whichever_was_first(
    ghost: dict[str, Any], ghosts_after: str, real_after: str
) -> None:
    rules = race(
        login_rule("g1", after=ghosts_after, send=send(30), **ghost),
        login_rule("g2", after=ghosts_after, send=send(20), **ghost),
        login_rule("r1", after=real_after, send=send(50)),
        login_rule("r2", after=real_after, send=send(10)),
    )
    desk = Desk(rules).say(login("03-01")).wait("03-02")
    assert [(d.rule, d.reason) for d in desk.decisions if d.gate == "arbitration" and d.final and d.rule < "r"] == [
        ("g1", "'r1' was more important in the same hour."),
        ("g2", "'r1' was more important in the same hour."),
    ]
    assert [t.rule for t in desk.triggers] == ["r1"]


def test_a_global_holdout_holds_out_one_as_one_would_have_been_sent() -> None:
    rules = open_shop(
        login_rule("a", send=send(10)), login_rule("b", send=send(20), mode="shadow"),
        gates="arbitration: 1h\nholdout: {share: 1}\n",
    )  # fmt: skip
    desk = Desk(rules).say(login("03-01")).wait("03-02")
    assert became(desk) == [("b", "control", "holdout"), ("a", "dropped", "arbitration")]


# -- windows


@GHOSTS
@pytest.mark.parametrize(("tick", "met"), [(-1, True), (0, False), (1, False)])
def test_ghosts_meet_in_a_window_that_is_theirs(ghost: dict[str, Any], tick: int, met: bool) -> None:
    first = at("03-01")
    checked = {"enter": "{on: UserCheckedIn, key: user}", "ends": None, "steps": "[{after: 0s}]"}
    rules = race(login_rule("g1", send=send(10), **ghost), rule_text(rule="g2", send=send(20), **checked, **ghost))
    desk = Desk(rules).say(login(first)).wait(first + HOUR + tick - 1)
    desk.say(event(ev.UserCheckedIn, first + HOUR + tick)).wait("03-02")
    lost = ("g1", "dropped", "arbitration") if met else would_be("g1", ghost)
    assert sorted(became(desk)) == [lost, would_be("g2", ghost)]
    assert desk.row.window_until == 0


@GHOSTS
@pytest.mark.parametrize(("tick", "met"), [(-1, True), (0, False), (1, False)])
def test_a_ghost_waits_in_the_window_that_is_open(ghost: dict[str, Any], tick: int, met: bool) -> None:
    first = at("03-01")
    checked = {"enter": "{on: UserCheckedIn, key: user}", "ends": None, "steps": "[{after: 0s}]"}
    rules = race(login_rule("r", send=send(20)), rule_text(rule="g", send=send(10), **checked, **ghost))
    desk = Desk(rules).say(login(first)).wait(first + HOUR + tick - 1)
    desk.say(event(ev.UserCheckedIn, first + HOUR + tick)).wait("03-02")
    assert desk.sent[0] == ("r", 1, "03-01 13:00")
    (last,) = [d for d in desk.decisions if d.rule == "g" and d.final]
    assert last.outcome == ("dropped" if met else would_be("g", ghost)[1])
    assert last.decided_at[:16] == f"2026-03-01T1{3 if met else 4}:00"


@GHOSTS
def test_of_two_windows_a_ghost_waits_in_that_of_the_ghosts(ghost: dict[str, Any]) -> None:
    rules = race(
        login_rule("g1", send=send(10), **ghost), login_rule("r", after="30min", send=send(5)),
        login_rule("g2", after="40min", send=send(20), **ghost),
    )  # fmt: skip
    desk = Desk(rules).say(login("03-01")).wait("03-02")
    assert [(d.rule, d.outcome, d.decided_at[11:16]) for d in desk.decisions if d.final] == [
        ("g2", would_be("g2", ghost)[1], "13:00"),
        ("g1", "dropped", "13:00"),
        ("r", "fired", "13:30"),
    ]


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        (None, "dropped"),
        (consent("03-01 12:50", "push", False, category="order"), "fired"),
        (consent("03-01 12:50", "push", False, category="cart"), "dropped"),
    ],
)
def test_a_rival_whose_window_is_open_must_itself_come_through(word: ev.Event | None, outcome: str) -> None:
    """The ghost's window closes at 13:00, the rival's at 13:30: what the rival may be then is not known yet, but what
    it may not be is."""
    rules = race(
        login_rule("g", send=send(20), **SHADOW), login_rule("r", after="30min", send=send(30), family="order"),
        login_rule("h", after="30min", send=send(25), **SHADOW),
    )  # fmt: skip
    desk = Desk(rules).say(login("03-01")).wait("03-01 12:40")
    if word is not None:
        desk.say(word)
    desk.wait("03-02")
    (last,) = [d for d in desk.decisions if d.rule == "h" and d.final]
    assert (last.outcome, last.decided_at[11:16]) == (outcome, "13:00")


def test_a_rival_that_ended_or_cannot_be_used_is_none() -> None:
    coupons = {"enter": "{on: CouponIssued, key: coupon}", "steps": "[{after: 30min}]", "ends": "[{on: CouponRevoked}]"}
    rival = rule_text(
        rule="r", send=send(30), holds="{from: CouponLocked, until: CouponReturned}", **coupons, reentry="every_key"
    )
    rules = race(login_rule("g", send=send(20), **SHADOW), rival)
    for kind in (ev.CouponLocked, ev.CouponRevoked):
        desk = Desk(rules).say(login("03-01"), issued("c-1", "03-01")).wait("03-01 12:40")
        desk.say(event(kind, "03-01 12:45", coupon_id="c-1")).wait("03-02")
        assert became(desk)[-1 if kind is ev.CouponRevoked else 0] == ("g", "fired", None)
    desk = Desk(rules).say(login("03-01"), issued("c-1", "03-01")).wait("03-02")
    assert became(desk) == [("g", "dropped", "arbitration"), ("r", "fired", None)]


# -- coupons


@GHOSTS
def test_the_real_winner_carries_what_real_losers_had_and_a_ghost_what_ghosts_had(ghost: dict[str, Any]) -> None:
    coupons = {"ends": None, "steps": "[{after: 0s}]", "reentry": "every_key"}
    of_real, of_ghosts = (
        f"{{on: CouponIssued, key: coupon, when: \"coupon.batch == '{batch}'\"}}" for batch in ("real", "ghosts")
    )
    rules = race(
        login_rule("g", send=send(90), **ghost),
        rule_text(rule="gc", enter=of_ghosts, send=send(10), **coupons, **ghost),
        login_rule("r", send=send(50)),
        rule_text(rule="rc", enter=of_real, send=send(10), **coupons),
    )
    given = (login("03-01"), issued("c-r", "03-01", batch="real"), issued("c-g", "03-01", batch="ghosts"))
    desk = Desk(rules).say(*given).wait("03-02")
    assert {t.rule: t.coupons for t in desk.triggers} == {"r": ("c-r",)} | ({"g": ("c-g",)} if ghost is SHADOW else {})


# -- caps, once_in, discounts


@GHOSTS
@pytest.mark.parametrize("first", ["real", "ghost"])
def test_contacts_of_ghosts_count_for_ghosts_only(ghost: dict[str, Any], first: str) -> None:
    rules = open_shop(
        login_rule("real", after="0s" if first == "real" else "1h", send=send(10)),
        login_rule("seen", after="1h" if first == "real" else "0s", send="{channels: [push], on_cap: drop}", **ghost),
        login_rule("then", after="2h", send="{channels: [push], on_cap: drop}", **ghost),
        gates="caps: [{limit: 1, rolling: 9d}]\n",
    )
    desk = Desk(rules).say(login("03-01")).wait("03-02")
    seen = ("seen", "dropped", "cap") if first == "real" else would_be("seen", ghost)
    assert sorted(became(desk)) == [("real", "fired", None), seen, ("then", "dropped", "cap")]
    assert [(c.shadow, bool(c.trigger_id)) for c in desk.row.sent if c.shadow] == (
        [] if first == "real" else [(True, ghost is SHADOW)]
    )


@GHOSTS
def test_contacts_of_ghosts_alone_fill_a_cap_for_ghosts(ghost: dict[str, Any]) -> None:
    ghosts = [login_rule(name, send="{channels: [push], on_cap: drop}", **ghost) for name in ("g1", "g2")]
    desk = Desk(open_shop(*ghosts, gates="caps: [{limit: 1, rolling: 9d}]\n")).say(login("03-01")).wait("03-02")
    assert became(desk) == [would_be("g1", ghost), ("g2", "dropped", "cap")]


ONCE = "{channels: [push], expires_after: 36h, once_in: 7d}"


@GHOSTS
def test_a_rule_that_only_would_have_written_may_write(ghost: dict[str, Any]) -> None:
    desk = Desk(open_shop(login_rule(send=ONCE, **ghost))).say(login("03-01")).wait("03-02")
    desk.say(login("03-03")).wait("03-04")
    assert outcomes(desk) == [would_be("", ghost)[1:], ("dropped", "cap")]  # so it is decided as it would be
    desk.catalogue = open_shop(login_rule(send=ONCE))
    desk.say(login("03-05")).wait("03-06").say(login("03-07")).wait("03-08")
    assert outcomes(desk)[2:] == [("fired", None), ("dropped", "cap")]
    desk.catalogue = open_shop(login_rule(send=ONCE, **ghost))
    desk.say(login("03-11")).wait(at("03-12") - 1)  # a week after the ghost, but not after what was sent
    assert outcomes(desk)[4:] == [("dropped", "cap")]
    desk.say(login("03-12")).wait("03-13")
    assert outcomes(desk)[5:] == [would_be("", ghost)[1:]]


def test_a_discount_that_was_not_sent_is_none() -> None:
    def discount(name: str, after: str, **more: Any) -> str:
        steps = f"[{{after: {after}, offer: winback_small}}]"
        return login_rule(name, steps=steps, send=send(10, discount_every="7d"), **more)

    rules = open_shop(discount("a", "0s", **SHADOW), discount("b", "1h"), discount("c", "2h", **SHADOW))
    desk = Desk(rules).say(login("03-01")).wait("03-02")
    assert [(t.rule, t.offer is not None) for t in desk.triggers] == [("a", True), ("b", True), ("c", False)]
    # A ghost's discount counts for ghosts for its own time, and what was sent counts for both.
    desk = Desk(open_shop(discount("a", "0s", **SHADOW), discount("c", "2h", **SHADOW))).say(login("03-01"))
    assert [t.offer is not None for t in desk.wait("03-02").triggers] == [True, False]


def test_of_too_many_contacts_those_of_ghosts_go_first_and_then_the_oldest() -> None:
    real = [Sent(at("03-01") + n, "push", "coupon", f"t-{n}") for n in range(MAX_SENT)]
    full = Row("u-1", sent=tuple(real))
    later = Sent(at("03-02"), "push", "coupon")
    assert with_sent(full, Sent(at("03-02"), "push", "coupon", "", True)).sent == full.sent
    assert with_sent(full, later).sent == (*real[1:], later)
    mixed = (*real[:2], Sent(at("03-01") + 2, "push", "coupon", "", True), *real[3:])
    assert with_sent(Row("u-1", sent=mixed), later).sent == (*real[:2], *real[3:], later)
    assert bounded(mixed) == mixed
    ghosts = tuple(Sent(at("03-01") + n, "sms", "coupon", "", True) for n in range(MAX_SENT))
    assert absorbed(full, Row("u-2", sent=ghosts), ("u-2",)).sent == full.sent


# -- quotas


def limited(steps: str = "[{after: 0s}, {after: 10d}, {after: 30d}]", **changes: Any) -> Catalogue:
    return open_shop(login_rule(steps=steps, **changes), gates="consent: {push: quota}\n")


@GHOSTS
def test_a_ghost_uses_up_a_quota_for_ghosts_and_takes_none_of_it(ghost: dict[str, Any]) -> None:
    for arm in (ghost, {}):
        desk = Desk(limited(**arm)).say(consent("02-01", "push", True, quota=1), login("03-01")).wait("06-01")
        dropped = ("dropped", "consent")
        assert outcomes(desk) == [would_be("", ghost)[1:] if arm else ("fired", None), dropped, dropped]
        assert desk.row.consents["push"].quota == (1 if arm else 0)


@pytest.mark.parametrize("ghost", [SHADOW, CONTROL, {}], ids=["shadow", "control", "sent"])
def test_a_quota_allows_a_ghost_as_many_as_it_would_have_been_sent(ghost: dict[str, Any]) -> None:
    """Grants add to what is left, a refusal or a grant without a number begins anew, whichever is heard of first."""

    def tries(*words: ev.Event, late: ev.Event | None = None, steps: int = 5) -> list[bool]:
        rules = limited(steps=f"[{', '.join(['{after: 1d}'] * steps)}]", **ghost)
        desk = Desk(rules).say(login("03-01"))
        for word in sorted(words, key=lambda one: one.occurred_at):
            desk.wait(word.occurred_at - 1).say(word)
        if late is not None:
            desk.say(late)
        return [d.outcome != "dropped" for d in desk.wait("04-01").decisions]

    def grant(when: str, quota: int | None = 1) -> ev.Event:
        return consent(when, "push", True, **({} if quota is None else {"quota": quota}))

    no = consent("03-03 18:00", "push", False)
    assert tries(grant("03-01", 2)) == [True, True, False, False, False]
    assert tries(grant("03-01"), grant("03-03 13:00")) == [True, False, True, False, False]
    assert tries(grant("03-01"), grant("03-01 13:00")) == [True, True, False, False, False]
    assert tries(grant("03-01", 3), no) == [True, True, False, False, False]
    assert tries(grant("03-01", 3), no, grant("03-04 13:00", 1)) == [True, True, False, True, False]
    assert tries(grant("03-01", 3), grant("03-03 20:00", None), grant("03-04 13:00")) == [
        True,
        True,
        False,
        True,
        False,
    ]
    # Heard of late: a grant before the last one, and a refusal before it, which leaves no more than that one brought.
    assert tries(grant("03-03 13:00"), late=grant("03-03")) == [False, False, True, True, False]
    assert tries(grant("03-01"), grant("03-03 13:00"), late=consent("03-03", "push", False)) == [
        True, False, True, False, False,
    ]  # fmt: skip
    assert tries(grant("03-01", 5), grant("03-03 13:00"), late=consent("03-03", "push", False)) == [
        True, True, True, False, False,
    ]  # fmt: skip


@GHOSTS
def test_what_is_transactional_uses_up_a_quota_for_ghosts_as_well(ghost: dict[str, Any]) -> None:
    desk = Desk(limited(send="{class: transactional, channels: [push]}", **ghost))
    desk.say(consent("02-01", "push", True, quota=2), login("03-01")).wait("06-01")
    assert outcomes(desk) == [would_be("", ghost)[1:]] * 2 + [("dropped", "consent")]


def test_what_is_sent_leaves_less_for_ghosts_and_never_less_than_nothing() -> None:
    rules = open_shop(
        login_rule("real", after="1h"), login_rule("seen", steps="[{after: 0s}, {after: 2h}]", **SHADOW),
        gates="consent: {push: quota}\n",
    )  # fmt: skip
    desk = Desk(rules).say(consent("02-01", "push", True, quota=1), login("03-01")).wait("03-02")
    assert became(desk) == [("seen", "fired", None), ("real", "fired", None), ("seen", "dropped", "consent")]
    desk.say(consent("03-02", "push", True, quota=1), login("03-03")).wait("03-04")
    assert became(desk)[3:] == [("seen", "fired", None), ("real", "fired", None), ("seen", "dropped", "consent")]


# -- maximum rate


def rated(name: str, priority: int, on_cap: str = "defer", **more: Any) -> str:
    return login_rule(name, send=send(priority, max_rate="1 per 1h", on_cap=on_cap), **more)


def raced(full: str, *rules: str) -> Desk:
    """The slots of this rule are taken until 15:30."""
    desk = Desk(race(*rules), budgets={full: Budget(HOUR, 0, at("03-01 15:30"))})
    return desk.say(login("03-01")).wait("03-02")


@GHOSTS
def test_a_ghost_takes_no_slot(ghost: dict[str, Any]) -> None:
    desk = Desk(race(rated("g", 10, **ghost)), budgets={"g": Budget(HOUR, 0)}).say(login("03-01")).wait("03-02")
    assert became(desk) == [would_be("g", ghost)]
    assert [item for item in desk.trace if isinstance(item, SlotTaken)] == []


@GHOSTS
def test_a_ghost_waits_for_its_turn_and_the_less_important_ghosts_with_it(ghost: dict[str, Any]) -> None:
    desk = raced(
        "g1", rated("g1", 90, **ghost), login_rule("g2", send=send(80), **ghost), login_rule("r", send=send(9))
    )
    assert [(d.rule, d.outcome, d.decided_at[11:16]) for d in desk.decisions if d.final] == [
        ("r", "fired", "13:00"),
        ("g1", would_be("g1", ghost)[1], "15:30"),
        ("g2", "dropped", "15:30"),
    ]


@GHOSTS
def test_less_important_ghosts_wait_with_what_waits_for_its_turn_to_be_sent(ghost: dict[str, Any]) -> None:
    rules = login_rule("g1", send=send(90), **ghost), login_rule("g2", send=send(30), **ghost), rated("r", 50)
    desk = raced("r", *rules)
    assert [(d.rule, d.outcome, d.decided_at[11:16]) for d in desk.decisions if d.final] == [
        ("g1", would_be("g1", ghost)[1], "13:00"),
        ("g2", "dropped", "13:00"),
        ("r", "fired", "15:30"),
    ]
    desk = raced("r", *rules[1:])
    assert [(d.rule, d.outcome, d.decided_at[11:16]) for d in desk.decisions if d.final] == [
        ("r", "fired", "15:30"),
        ("g2", "dropped", "15:30"),
    ]


@GHOSTS
def test_a_real_one_that_comes_too_late_for_its_turn_leaves_the_window_to_ghosts(ghost: dict[str, Any]) -> None:
    desk = raced("r", login_rule("g", send=send(30), **ghost), rated("r", 50, on_cap="drop"))
    assert became(desk) == [("r", "dropped", "cap"), would_be("g", ghost)]
    desk = raced("g", rated("g", 50, on_cap="drop", **ghost), login_rule("h", send=send(30), **ghost))
    assert became(desk) == [("g", "dropped", "cap"), would_be("h", ghost)]


@GHOSTS
def test_who_still_waits_for_its_turn_is_no_rival_in_a_later_window(ghost: dict[str, Any]) -> None:
    desk = raced("r", rated("r", 50), login_rule("g", after="2h", send=send(30), **ghost))
    assert [(d.rule, d.outcome, d.decided_at[11:16]) for d in desk.decisions if d.final] == [
        ("g", would_be("g", ghost)[1], "15:00"),
        ("r", "fired", "15:30"),
    ]


@GHOSTS
def test_a_ghost_whose_window_is_open_is_no_rival_of_one_that_has_had_its_turn(ghost: dict[str, Any]) -> None:
    """The first is given 15:30 at 13:00; at 15:10 something real opens a window, in which a better ghost waits."""
    rules = (
        rated("g1", 30, **ghost), login_rule("r", after="190min", send=send(10)),
        login_rule("g2", after="190min", send=send(90), **ghost),
    )  # fmt: skip
    desk = raced("g1", *rules)
    assert [(d.rule, d.outcome, d.decided_at[11:16]) for d in desk.decisions if d.final] == [
        ("g1", would_be("g1", ghost)[1], "15:30"),
        ("r", "fired", "16:10"),
        ("g2", would_be("g2", ghost)[1], "16:10"),
    ]


@GHOSTS
def test_a_ghost_meets_both_what_has_its_turn_and_what_waits_in_a_later_window(ghost: dict[str, Any]) -> None:
    """Until 15:30 the first waits for its turn and the ghost in its window, which closes then; the best has another."""
    rules = (
        rated("r1", 10), login_rule("g", after="150min", send=send(30), **ghost),
        login_rule("r2", after="3h", send=send(90)),
    )  # fmt: skip
    desk = raced("r1", *rules)
    assert [(d.rule, d.outcome, d.decided_at[11:16]) for d in desk.decisions if d.final] == [
        ("r1", "fired", "15:30"),
        ("g", "dropped", "15:30"),
        ("r2", "fired", "16:00"),
    ]
