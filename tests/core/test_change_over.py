"""Change-overs in company: with refunds and erasures, with versions that have fewer steps, one after the other."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from msgspec.structs import replace

from app.core import engine
from app.core.row import Run
from app.core.rules import Catalogue
from app.processor import InvariantBroken, RulesNotLoaded
from schemas import events as ev
from tests.core.shard import Shard, named
from tests.core.shop import SECOND, Desk, at, catalogue, event, issued, locked, paid, refunded, returned, rule_text
from tests.core.test_versions import NIGHT, after, hello, order, shard_of, versions

SEND = "{action: contact, channels: [push], priority: 10, expires_after: 7d}"


def ruled(number: int, steps: str, shop: str = "", **changes: Any) -> Catalogue:
    common = {"version": str(number), "steps": steps, "ends": None, "start": "{since: 2026-01-01}", "send": SEND}
    text = rule_text(**(common | changes))
    return catalogue(text, shop=shop) if shop else catalogue(text)


# -- fewer steps


GOES = {
    "refund": refunded("o-a", "03-04"),
    "merge": event(ev.UserMerged, "03-04", into="u-2"),
    "erasure": event(ev.UserErased, "03-04"),
}


@pytest.mark.parametrize("what", GOES)
@pytest.mark.parametrize("steps", ["[{after: 1d}, {after: 1d}]", "[{after: 1d}, {after: 1d}, {after: 9d}]"])
def test_what_is_out_is_taken_back_when_the_version_it_follows_has_no_such_step(what: str, steps: str) -> None:
    old = ruled(1, steps)
    shard = Shard(old, inputs=("orders", "profiles", "logins"))
    shard.processor.offer(1, 0, old)
    shard.processor.offer(2, at("03-03 18:00"), after(ruled(2, "[{after: 1d}]", on_change="follow"), old))
    shard.run(order("03-01", "a")).clock("03-03 19:00").run()
    assert shard.sent(lambda t: (t["step"], t["rule_version"])) == [(1, 1), (2, 1)]
    shard.run(GOES[what]).clock("03-30").run()
    taken_back = [d["step"] for d in shard.decisions() if d["outcome"] == "retracted"]
    assert (taken_back, shard.processor.pending_timers) == ([1, 2], 0)
    assert shard.letters() == []


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("on_change", ["finish", "follow", "restart"])
def test_what_is_taken_back_is_named_as_it_went_out_whatever_its_rule_has_become(on_change: str, kept: bool) -> None:
    old = ruled(1, "[{after: 1d}, {after: 1d}]", mode="shadow")
    new = ruled(2, "[{after: 1d}, {after: 3d}]", mode="live", family="coupon", on_change=on_change)
    desk = Desk(old).say(paid("o-1", "03-01")).wait("03-02 13:00")
    if not kept:  # the row was written before a trigger's version, family and mode were
        said = {"version": 0, "family": "", "mode": ""}
        first = {name: tuple(_as_before(run, said) for run in runs) for name, runs in desk.row.runs.items()}
        desk.row = replace(desk.row, runs=first)
    desk.catalogue = after(new, old)
    desk.say(refunded("o-1", "03-02 14:00"))
    (trigger,), (back,) = desk.triggers, desk.retractions
    fired, taken_back = (d for d in desk.decisions if d.trigger_id == trigger.trigger_id)
    assert (back.retracts, back.run_id, taken_back.run_id) == (trigger.trigger_id, trigger.run_id, fired.run_id)
    named = (1, "winback", "shadow") if kept or on_change == "finish" else (2, "coupon", "live")
    assert (back.rule_version, back.family, back.mode) == named
    assert taken_back.rule_version == named[0]
    if kept:
        assert (trigger.rule_version, trigger.family, trigger.mode) == named


def _as_before(run: Run, said: dict[str, Any]) -> Run:
    return replace(run, fired=tuple(replace(fired, **said) for fired in run.fired))


def test_what_waits_at_a_step_that_is_there_no_more_gets_its_final_record_and_what_is_out_stays_known() -> None:
    old = ruled(1, "[{after: 1d}, {after: 20h}]", NIGHT)
    shard = shard_of(old)
    shard.processor.offer(1, 0, old)
    shard.processor.offer(2, at("03-03 08:30"), after(ruled(2, "[{after: 1d}]", NIGHT, on_change="follow"), old))
    shard.run(order("03-01", "a")).clock("03-03 12:00").run()
    shard.run(refunded("o-a", "03-04")).clock("03-10").run()
    assert [(d["step"], d["outcome"]) for d in shard.decisions()] == [
        (1, "fired"), (2, "deferred"), (2, "dropped"), (1, "retracted"),
    ]  # fmt: skip


def test_an_erasure_on_which_the_rules_fail_says_how_it_can_be_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    shard = Shard(inputs=("orders", "profiles")).run(order("03-01", "a"))
    monkeypatch.setattr(engine, "erase", lambda *_: 1 / 0)
    shard.write(GOES["erasure"]).fetch()
    with pytest.raises(InvariantBroken, match=r"ZeroDivisionError.*lifecycle quarantine profiles 0 0"):
        shard.clock("03-05").run()


# -- one after the other

OTHER = rule_text(rule="other", steps="[{after: 300d}]", ends=None)
TEN = {"steps": "[{after: 10d}]", "ends": None}
REMOVED = (catalogue(OTHER), catalogue(rule_text(**TEN), OTHER))
EXIT = (
    catalogue(rule_text(**TEN, version="2", on_change="exit"), OTHER),
    catalogue(rule_text(**TEN, version="3", on_change="follow"), OTHER),
)


@pytest.mark.parametrize("two", [REMOVED, EXIT], ids=["removed and put back", "exit, then follow"])
@pytest.mark.parametrize("clock", ["events", "wall"])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("limit", [1, 5_000])
def test_changes_that_a_shard_hears_of_late_take_effect_one_after_the_other_as_those_heard_of_in_time(
    two: tuple[Catalogue, Catalogue], clock: str, late: bool, limit: int
) -> None:
    first = catalogue(rule_text(**TEN), OTHER)
    shard = Shard(first, inputs=("orders",), clock=clock)
    shard.processor.offer(1, 0, first)

    def until(when: str) -> None:
        for _ in range(2):  # a look is passed by the next one
            (shard.clock(when) if clock == "events" else shard.look(when)).run(limit=limit)

    def offer() -> None:
        for number, (when, new) in enumerate(zip(("03-03", "03-04"), two, strict=True), 2):
            shard.processor.offer(number, at(when), after(new, new))

    until("03-01")
    shard.run(order("03-01", "a"))
    until("03-02")
    if not late:
        offer()
    until("03-05")
    if late:
        offer()
    until("03-06")
    assert (shard.processor.catalogue_number, shard.counts["runs", "exited", "a_rule"]) == (3, 1)
    until("03-20")
    assert shard.sent() == []


# -- rules that a worker cannot load


def test_what_cannot_be_loaded_stops_a_shard_when_it_takes_effect_and_not_before() -> None:
    shard = shard_of(hello(1))
    shard.processor.offer(1, 0, hello(1))
    shard.processor.offer(2, at("03-05"), "nudge.yaml:22: There is no setting 'dream' here.")
    shard.run(order("03-01", "a")).clock("03-04").run()
    assert versions(shard) == [(1, "03-02 12:00")]
    shard.write(order(at("03-05") - 1, "b"))
    with pytest.raises(RulesNotLoaded) as caught:
        shard.run(order("03-05", "c")).clock("03-06").run()
    assert str(caught.value).startswith(
        "the rules published as number 2, which are in effect, cannot be loaded by this worker "
        "(nudge.yaml:22: There is no setting 'dream' here). Start workers of the release"
    )
    assert (shard.committed["orders"], shard.processor.catalogue_number) == (3, 1), "what was before the change is kept"


@pytest.mark.parametrize(("since", "clock"), [
    ("03-02", "events"), ("03-05", "events"), ("03-02", "wall"), ("03-05", "wall"), ("03-06", "wall"),
])  # fmt: skip
def test_what_cannot_be_loaded_is_passed_over_when_a_later_number_is_in_effect_by_then(since: str, clock: str) -> None:
    shard = Shard(hello(1), inputs=("orders",), clock=clock)
    shard.processor.offer(1, 0, hello(1))
    shard.processor.offer(2, at("03-05"), "it is not written as a publication")
    shard.processor.offer(3, at(since), after(hello(3), hello(1)))
    for when in ("03-01", "03-04", "03-07", "03-08"):
        (shard.clock(when) if clock == "events" else shard.look(when)).run()
    shard.run(order("03-08", "a"))
    assert shard.processor.catalogue_number == 3
    assert shard.processor.row("u-1").runs["a_rule\x1f"][0].version == 3  # type: ignore[union-attr]


def test_after_a_stop_under_the_wall_clock_a_shard_goes_on_once_a_later_number_is_in_effect() -> None:
    shard = Shard(hello(1), inputs=("orders",), clock="wall")
    shard.processor.offer(1, 0, hello(1))
    for when in ("03-01", "03-02"):
        shard.look(when).run()
    for when, stops in (("03-03", True), ("03-05", False)):
        shard.reopen()
        shard.processor.offer(1, 0, hello(1))
        shard.processor.offer(2, 0, "it is not written as a publication")
        shard.processor.offer(3, at("03-04"), after(hello(3), hello(1)))
        with pytest.raises(RulesNotLoaded) if stops else nullcontext():
            shard.look(when).run()
    assert shard.processor.catalogue_number == 3


def test_a_later_number_that_is_not_yet_in_effect_lets_no_shard_go_on_under_rules_that_are_over() -> None:
    shard = shard_of(hello(1))
    shard.processor.offer(1, 0, hello(1))
    shard.processor.offer(2, at("03-05"), "no")
    shard.processor.offer(3, at("03-20"), hello(3))
    with pytest.raises(RulesNotLoaded):
        shard.clock("03-06").run()


def test_a_shard_of_a_newer_worker_goes_on_elsewhere_only_under_rules_that_can_be_loaded_there() -> None:
    first, second = hello(1), after(hello(2), hello(1))
    shard = shard_of(first)
    shard.processor.offer(1, 0, first)
    shard.processor.offer(2, at("03-02"), second)
    shard.run(order("03-01", "a")).clock("03-03").run()
    shard.reopen()
    shard.processor.offer(2, at("03-02"), "no")
    with pytest.raises(RulesNotLoaded, match="number 2"):
        shard.run(order("03-04", "b"))
    shard.reopen()
    shard.processor.offer(2, at("03-02"), "no")
    shard.processor.offer(3, at("03-03"), after(hello(3), hello(1)))
    shard.run().clock("03-06").run()
    assert versions(shard) == [(2, "03-02 12:00"), (3, "03-05 12:00")]


# -- what waits without a timer, or for the end of a pause


def of_coupons(version: str, way: str = "finish") -> str:
    holds = "{from: CouponLocked, until: CouponReturned}"
    enter, ends = "{on: CouponIssued, key: coupon}", "[{on: CouponRedeemed}]"
    return rule_text(
        enter=enter, holds=holds, ends=ends, steps="[{after: 10d}]", version=version, on_change=way
    )  # fmt: skip


@pytest.mark.parametrize("limit", [1, 5_000])
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(("second", "third"), [
    (catalogue(OTHER), catalogue(of_coupons("1"), OTHER)),
    (catalogue(of_coupons("2", "exit"), OTHER), catalogue(of_coupons("3", "follow"), OTHER)),
], ids=["removed and put back", "exit, then follow"])  # fmt: skip
def test_a_run_that_waits_without_a_timer_leaves_with_its_rule_and_never_comes_back(
    second: Catalogue, third: Catalogue, limit: int, crash: bool
) -> None:
    first = catalogue(of_coupons("1"), OTHER)
    offers = ((1, 0, first), (2, at("03-13"), after(second, first)), (3, at("03-20"), third))
    shard = Shard(first, inputs=("orders", "coupons"))

    def offer() -> None:
        for each in offers:
            shard.processor.offer(*each)

    offer()
    shard.run(*[e for n in "123" for e in (named(issued("c", "03-01"), f"i{n}", f"u-{n}"),)])
    shard.run(*[named(locked("c", "03-02"), f"l{n}", f"u-{n}") for n in "123"]).clock("03-12").run()
    assert shard.processor.pending_timers == 0
    shard.clock("03-14").fetch()
    while shard.take(limit) is not None:
        if crash:
            shard.reopen()
            offer()
            shard.fetch()
    assert shard.counts["runs", "exited", "a_rule"] == 3
    shard.clock("03-21").run()
    shard.run(*[named(returned("c", "03-22"), f"r{n}", f"u-{n}") for n in "123"]).clock("04-20").run()
    assert shard.sent() == []


@pytest.mark.parametrize("worth", ["12h", "36h", "96h"])
@pytest.mark.parametrize("holds", ["pause", "lock"])
def test_what_waits_is_asked_when_what_it_waits_for_is_over_whatever_version_it_follows_then(
    holds: str, worth: str
) -> None:
    def version(number: int, expires_after: str, paused: bool = False) -> Catalogue:
        text = rule_text(
            version=str(number),
            enter="{on: CouponIssued, key: coupon}",
            ends=None,
            holds="{from: CouponLocked, until: CouponReturned}",
            steps="[{after: 1d}]",
            send=f"{{channels: [push], expires_after: {expires_after}}}",
            on_change="follow",
        )
        return catalogue(text + ("paused: hold\n" if paused else ""), shop="quiet_hours: {jitter: 0s}\n")

    old, pause = version(1, "36h"), holds == "pause"
    desk = Desk(version(1, "36h", paused=True) if pause else old).say(issued("c", "03-01 21:30", expires_at="04-01"))
    if not pause:  # after its record is open
        desk.wait("03-02 22:00").say(locked("c", "03-02 23:00"))
    desk.wait("03-03 09:30")
    assert [d.outcome for d in desk.decisions] == ["deferred"]
    desk.catalogue = after(version(2, worth, paused=pause), old)
    desk.row = engine.settle(desk.row, desk._moment(desk.now, desk.floor))
    desk.wait("03-03 10:00")
    if pause:
        desk.catalogue = after(version(2, worth), old)
        desk.row = engine.settle(desk.row, desk._moment(desk.now, desk.floor))
    else:
        desk.say(returned("c", "03-03 10:00"))
    (timer,) = desk.timers
    assert at("03-03 10:00") <= timer[-1] <= at("03-03 11:00")
    desk.wait("03-03 12:00")
    stale = worth == "12h"  # it was due at half past nine in the evening
    assert [d.outcome for d in desk.decisions] == ["deferred", "expired" if stale else "fired"]


@pytest.mark.parametrize("clock", ["events", "wall"])
@pytest.mark.parametrize("way", [None, "skip", "policy"])
def test_what_a_pause_holds_is_asked_again_when_it_ends_and_has_one_record_of_it(clock: str, way: str | None) -> None:
    running = rule_text(steps="[{after: 1d}]", ends=None)
    on, paused = catalogue(running), catalogue(running + "paused: hold\n")
    if way == "policy":
        paused = on._replace(policy=on.policy._replace(paused=True))
    then = catalogue(running + "paused: skip\n") if way == "skip" else on
    shard = Shard(on, inputs=("orders",), clock=clock, start="since:0")
    for number, since, rules in ((1, 0, on), (2, at("03-01 18:00"), paused), (3, at("03-02 18:00"), then)):
        shard.processor.offer(number, since, rules)

    def until(when: str) -> None:
        (shard.clock(when) if clock == "events" else shard.look(when)).run()

    until("02-28")
    shard.run(order("03-01", "a"), named(paid("o-b", "03-02"), "b", "u-2"))
    for when in (
        "03-01 12:01",
        "03-01 19:00",
        "03-02 13:00",
        "03-02 17:00",
        "03-02 18:01",
        "03-02 18:50",
        "03-02 18:58",
        "03-03 13:00",
    ):
        until(when)
    until("03-05")
    told = [(d["user_id"], d["outcome"], d["decided_at"][5:16]) for d in shard.decisions()]
    asked = "03-02T18:55" if clock == "events" else "03-02T18:58"  # 55 minutes are this user's
    last = "dropped" if way == "skip" else "fired"
    assert told[:2] == [
        ("u-1", "deferred", "03-02T12:00" if clock == "events" else "03-02T13:00"),
        ("u-1", last, asked),
    ]
    assert [outcome for user, outcome, _ in told if user == "u-2"] == [last]


@pytest.mark.parametrize(("clock", "late"), [("events", 0), ("wall", 5 * SECOND)])
def test_what_is_nearly_stale_when_its_pause_ends_goes_out_and_is_not_spread_into_staleness(
    clock: str, late: int
) -> None:
    running = rule_text(steps="[{after: 1d}]", ends=None, send="{action: contact, channels: [push], expires_after: 2h}")
    paused, ends = catalogue(running + "paused: hold\n"), at("03-02 13:58")
    shard = Shard(paused, inputs=("orders",), clock=clock, start="since:0", lateness=late)
    shard.processor.offer(1, 0, paused)
    shard.processor.offer(2, ends, catalogue(running))

    def until(when: str | int) -> None:
        (shard.clock(when) if clock == "events" else shard.look(when)).run()

    until("02-28")
    users = [f"u-{n}" for n in range(20)]
    shard.run(*[named(paid(f"o-{user}", "03-01"), user, user) for user in users])
    until("03-02 12:01")
    for seconds in range(0, 130, 3):
        until(ends + seconds * SECOND)
    fired = {d["user_id"]: d["decided_at"] for d in shard.decisions() if d["outcome"] == "fired"}
    assert sorted(fired) == sorted(users)
    assert len(set(fired.values())) > 8


@pytest.mark.parametrize("limit", [1, 3])
def test_who_is_asked_when_after_a_pause_does_not_depend_on_the_batches(limit: int) -> None:
    def told(limit: int) -> list[dict[str, object]]:
        running = rule_text(steps="[{after: 1d}]", ends=None)
        shard = Shard(catalogue(running), inputs=("orders",), start="since:0")
        for number, since, rules in (
            (1, 0, running),
            (2, at("03-02"), running + "paused: hold\n"),
            (3, at("03-03"), running),
        ):
            shard.processor.offer(number, since, catalogue(rules))
        shard.clock("02-28").run()
        shard.run(*[named(paid(f"o-{n}", "03-01"), f"e-{n}", f"u-{n}") for n in range(20)], limit=limit)
        shard.clock("03-02 13:00").run(limit=limit)
        shard.clock("03-05").run(limit=limit)
        return shard.decisions()

    assert told(limit) == told(5_000)
    assert len({d["decided_at"] for d in told(limit) if d["outcome"] == "fired"}) == 20


def test_only_rules_whose_pause_ends_are_looked_after_for_it() -> None:
    def rules(**ways: str | None) -> Catalogue:
        return catalogue(*[rule_text(rule=n) + (f"paused: {way}\n" if way else "") for n, way in ways.items()])

    before = rules(a="hold", b="hold", c="hold", d="skip", e=None)
    assert before.unsettled_by(rules(a=None, b="hold", c="expire", d=None, e="hold")) == ("a", "c")
