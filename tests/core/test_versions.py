"""Catalogues that change under runs in flight: no run is lost, none fires twice, all shards change at one instant."""

from __future__ import annotations

from typing import Any

import pytest

from app.core import engine, row
from app.core.row import Row, decode, encode
from app.core.rules import Catalogue, Rule, index
from schemas import events as ev
from tests.core.shard import Shard, named
from tests.core.shop import DAY, HOUR, Desk, at, catalogue, event, issued, paid, rule_text

NIGHT = 'quiet_hours: {from: "21:00", until: "09:00", jitter: 0s}\n'


def version(number: int, steps: str, shop: str | None = None, **changes: Any) -> Catalogue:
    text = rule_text(version=str(number), steps=steps, ends=None, **changes)
    return catalogue(text) if shop is None else catalogue(text, shop=shop)


def after(new: Catalogue, old: Catalogue) -> Catalogue:
    """The new catalogue with the versions of the old one that runs pin."""
    return index(new.rules, new.policy, {(rule.name, rule.version): rule for rule in old.rules.values()})


OLD = version(1, "[{after: 10d}, {after: 10d}]")
NEW_STEPS = "[{after: 12d}, {after: 1d}, {after: 1d}]"


def in_flight(new: Catalogue, changed: str) -> Desk:
    """A run entered on 1 March under the old version; the new one comes at some later instant."""
    desk = Desk(OLD).say(paid("o-1", "03-01")).wait(changed)
    desk.catalogue = new
    desk.row = engine.adapt(desk.row, desk._moment(desk.now, desk.floor))
    return desk


def fired(desk: Desk) -> list[tuple[int, int, str]]:
    return [(t.rule_version, t.step, t.decided_at[5:10]) for t in desk.wait("12-31").triggers]


def test_a_run_is_finished_under_the_version_it_entered() -> None:
    new = after(version(2, NEW_STEPS), OLD)
    assert fired(in_flight(new, "03-05")) == [(1, 1, "03-11"), (1, 2, "03-21")]
    assert fired(in_flight(new, "03-15")) == [(1, 1, "03-11"), (1, 2, "03-21")]
    assert in_flight(new, "03-15").say(paid("o-2", "04-01")).row.runs["a_rule\x1f"][-1].version == 1


def test_whoever_enters_after_the_change_enters_the_new_version() -> None:
    desk = in_flight(after(version(2, NEW_STEPS), OLD), "04-01").say(paid("o-2", "04-01"))
    assert fired(desk)[2:] == [(2, 1, "04-13"), (2, 2, "04-14"), (2, 3, "04-15")]


def test_an_old_version_ends_hears_and_waits_as_it_always_did() -> None:
    ends = {"enter": "{on: CouponIssued, key: coupon}", "holds": "{from: CouponLocked, until: CouponReturned}"}
    old = catalogue(rule_text(**ends, ends="[{on: CouponRedeemed}]", retime_on="[OrderReceived]"))
    new = after(catalogue(rule_text(**ends, version="2", ends="[{on: CouponRevoked}]")), old)
    assert [rule.version for rule, _ in new.ended_by["CouponRedeemed"]] == [1]
    for kind, left in ((ev.CouponRedeemed, 0), (ev.CouponRevoked, 1)):
        desk = Desk(old).say(issued("c-1", "03-01"))
        desk.catalogue = new
        assert len(desk.say(event(kind, "03-02", coupon_id="c-1")).wait("04-01").triggers) == left
    desk = Desk(old).say(issued("c-1", "03-01"))
    desk.catalogue = new
    desk.say(event(ev.CouponLocked, "03-02", coupon_id="c-1")).wait("04-01")
    assert desk.triggers == []
    assert len(desk.say(event(ev.CouponReturned, "04-01", coupon_id="c-1")).wait("04-02").triggers) == 1


def test_a_version_that_is_no_longer_kept_goes_on_under_the_present_one() -> None:
    assert fired(in_flight(version(2, "[{after: 12d}, {after: 3d}]"), "03-15")) == [(1, 1, "03-11"), (2, 2, "03-21")]


def test_a_run_follows_the_new_version_with_its_next_step() -> None:
    new = after(version(2, NEW_STEPS, on_change="follow"), OLD)
    assert fired(in_flight(new, "03-15")) == [(1, 1, "03-11"), (2, 2, "03-21"), (2, 3, "03-22")]


def test_a_run_begins_anew_under_the_new_version_but_says_nothing_that_was_due_before() -> None:
    new = after(version(2, NEW_STEPS, on_change="restart"), OLD)
    early = in_flight(new, "03-05")
    assert fired(early) == [(2, 1, "03-13"), (2, 2, "03-14"), (2, 3, "03-15")]
    late = in_flight(new, "03-13 13:00")
    assert fired(late) == [(1, 1, "03-11"), (2, 2, "03-14"), (2, 3, "03-15")]
    assert len({t.trigger_id for t in late.triggers}) == 3
    over = Desk(OLD).say(paid("o-1", "03-01")).wait("03-21 13:00")
    over.catalogue = new
    assert fired(over) == [(1, 1, "03-11"), (1, 2, "03-21")]


def test_a_run_exits_when_the_new_version_says_so() -> None:
    desk = in_flight(after(version(2, NEW_STEPS, on_change="exit"), OLD), "03-05")
    assert fired(desk) == []
    assert desk.row.runs == {}
    assert desk.tallies["runs", "exited", "a_rule"] == 1


@pytest.mark.parametrize("way", ["restart", "exit", "deleted"])
def test_what_waits_in_the_night_gets_its_final_record(way: str) -> None:
    old = version(1, "[{after: 10h}, {after: 9d}]", NIGHT)
    new = version(2, "[{after: 12d}]", NIGHT, on_change=way if way != "deleted" else "exit")
    if way == "deleted":
        new = catalogue("coupon_unused", shop=NIGHT)
    desk = Desk(old).say(paid("o-1", "03-01")).wait("03-01 23:00")
    desk.catalogue = after(new, old)
    fired(desk)
    assert [(d.outcome, d.final) for d in desk.decisions[:2]] == [("deferred", False), ("dropped", True)]
    assert desk.decisions[1].reason == "While it waited, it was taken out of the catalogue."
    assert [(t.rule_version, t.step) for t in desk.triggers] == ([(2, 1)] if way == "restart" else [])


def test_an_ended_run_of_a_deleted_rule_goes_without_being_counted_as_an_exit() -> None:
    desk = Desk(catalogue("coupon_unused")).say(
        issued("c-1", "03-01"), event(ev.CouponRedeemed, "03-02", coupon_id="c-1")
    )
    assert desk.row.runs
    desk.catalogue = catalogue("winback")
    desk.say(event(ev.UserLoggedIn, "03-03"))
    assert desk.row.runs == {}
    assert desk.tallies["runs", "exited", "coupon_unused"] == 0


# -- the change-over of a shard


def order(when: str | int, name: str) -> ev.OrderPaid:
    return named(paid(f"o-{name}", when), name)


def hello(number: int, after: str = "1d") -> Catalogue:
    """Says after each order, some time later, which version it is of."""
    return version(
        number, f"[{{after: {after}}}]", reentry="after_exit", start="{since: 2026-01-01}", on_change="follow"
    )


def versions(shard: Shard) -> list[tuple[int, str]]:
    return shard.sent(lambda t: (t["rule_version"], t["decided_at"][5:16].replace("T", " ")))


def shard_of(catalogue: Catalogue, **changes: Any) -> Shard:
    return Shard(catalogue, inputs=("orders", "logins"), **changes)


@pytest.mark.parametrize(("tick", "expected"), [(-1, 1), (0, 2), (1, 2)])
def test_events_from_the_instant_of_the_change_meet_the_new_catalogue(tick: int, expected: int) -> None:
    shard = shard_of(hello(1))
    new = version(2, "[{after: 1d}]", start="{since: 2026-01-01}")
    shard.processor.offer(1, at("03-02"), after(new, hello(1)))
    shard.run(order(at("03-02") + tick, "a")).clock("03-02 13:00").run()
    assert shard.counts["runs", "entered", "a_rule"] == 1
    (run,) = shard.processor.row("u-1").runs["a_rule\x1f"]  # type: ignore[union-attr]
    assert run.version == expected
    assert run.due_at == at("03-03") + tick


@pytest.mark.parametrize("limit", [1, 2, 5_000])
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_a_change_over_is_at_one_instant_whatever_the_batches_cut(limit: int, steps: int) -> None:
    shard = shard_of(hello(1))
    shard.processor.offer(
        1, at("03-03"), version(2, "[{after: 12h}]", on_change="restart", start="{since: 2026-01-01}")
    )
    shard.run(order("03-02", "a"), limit=limit)
    for n in range(1, steps + 1):
        shard.clock(at("03-02") + n * 2 * DAY // steps).run(limit=limit)
    # Due at midnight under the new version, which came twelve hours later: it is passed over.
    assert versions(shard) == []
    assert shard.counts["steps", "passed", "a_rule"] == 1


def test_timers_due_before_the_change_fire_under_the_old_catalogue_and_later_ones_under_the_new() -> None:
    shard = shard_of(hello(1))
    shard.processor.offer(1, at("03-03"), hello(2))
    shard.run(named(paid("o-a", at("03-02") - 1), "a", "u-1"), named(paid("o-b", "03-02"), "b", "u-2"))
    shard.clock("03-10").run(limit=1)
    assert [number for number, _ in versions(shard)] == [1, 2]
    assert len(set(shard.sent(lambda t: t["trigger_id"]))) == 2


def test_under_the_wall_clock_the_change_comes_with_the_look_and_after_the_backlog() -> None:
    # An outage over the change: what the backlog ends must not fire first.
    rule = rule_text(steps="[{after: 12h}]", start="{since: 2026-01-01}")
    b_rule = rule_text(rule="b_rule", steps="[{after: 1h}]", start="{since: 2026-01-01}")
    shard = Shard(catalogue(rule), inputs=("orders",), clock="wall").look("03-01 00:30").run()
    shard.run(order("03-01 01:00", "a")).look("03-01 01:01").run()
    shard.reopen()
    shard.processor.offer(1, at("03-01 14:00"), catalogue(rule, b_rule))
    shard.write(order("03-01 12:00", "b"), order("03-01 15:00", "c")).look("03-01 16:30").run()
    assert shard.sent(lambda t: (t["rule"], t["evidence"][0]["event_id"])) == [("b_rule", "c")]
    assert shard.processor.merged == at("03-01 16:30")
    shard.look("03-02 04:00").run()
    assert shard.sent(lambda t: t["rule"]) == ["b_rule", "a_rule"]


@pytest.mark.parametrize("limit", [1, 5_000])
def test_under_the_wall_clock_timers_before_the_change_fire_under_the_old_catalogue_and_later_ones_under_the_new(
    limit: int,
) -> None:
    shard = Shard(hello(1), inputs=("orders",), clock="wall").look("03-01").run()
    shard.run(order("03-01", "a"), named(paid("o-b", "03-01 13:30"), "b", "u-2")).look("03-01 14:00").run()
    shard.processor.offer(1, at("03-02") + HOUR, hello(2))
    shard.look("03-02 14:00").run(limit=limit)
    assert shard.sent(lambda t: (t["user_id"], t["rule_version"])) == [("u-1", 1), ("u-2", 2)]


def test_the_catalogue_in_effect_survives_a_crash_and_an_older_one_never_comes_back() -> None:
    shard = shard_of(hello(1)).clock("03-01").run()
    shard.processor.offer(5, at("03-02"), hello(5))
    shard.processor.offer(4, at("03-04"), hello(4))
    shard.clock("03-03").run().clock("03-05").run()
    shard.run(order("03-06", "a")).clock("03-08").run()
    shard.reopen()
    shard.processor.offer(4, at("03-04"), hello(4))
    shard.processor.offer(5, at("03-02"), hello(5))
    shard.run(order("03-09", "b")).clock("03-11").run()
    assert [number for number, _ in versions(shard)] == [5, 5]


def test_a_rule_that_comes_with_a_catalogue_is_active_from_the_change_on() -> None:
    shard = shard_of(hello(1)).clock("03-01").run()
    new = catalogue(rule_text(rule="b_rule", steps="[{after: 1d}]", start="none", ends=None))
    shard.processor.offer(1, at("03-05"), new)
    shard.run(order(at("03-05") - 1, "a")).clock("03-05").run().run(named(paid("o-b", "03-05"), "b", "u-2"))
    assert shard.clock("03-10").run().sent(lambda t: (t["rule"], t["user_id"])) == [("b_rule", "u-2")]


@pytest.mark.parametrize("limit", [1, 2, 3, 5_000])
@pytest.mark.parametrize("crash", [False, True])
def test_runs_that_exit_or_begin_anew_are_looked_after_in_bounded_batches_before_any_event(
    limit: int, crash: bool
) -> None:
    users = [f"u-{n}" for n in (3, 1, 5, 2, 4)]
    other = rule_text(rule="other", enter="{on: UserLoggedIn}", steps="[{after: 30d}]", ends=None)
    shard = shard_of(catalogue(rule_text(steps="[{after: 10d}]", ends=None), other))
    shard.run(*[named(paid(f"o-{user}", "03-01"), user, user) for user in users])
    shard.run(named(event(ev.UserLoggedIn, "03-01"), "in", "u-9")).clock("03-02").run()
    before = dict(shard.changelog)
    new = catalogue(rule_text(version="2", steps="[{after: 5d}]", ends=None, on_change="restart"), other)
    shard.processor.offer(1, 0, index(shard.plan.catalogue.rules, new.policy))
    assert shard.run().processor.catalogue_number == 1
    shard.processor.offer(2, at("03-03"), new)
    shard.write(named(paid("o-6", "03-04"), "late", "u-6")).clock("03-04 12:00").fetch()
    shard.batches.clear()
    while (batch := shard.take(limit)) is not None:
        adapted = [key for key, _ in batch.rows if key.startswith(b"u-") and key != b"u-6"]
        assert len(adapted) <= limit
        if crash:
            shard.reopen()
            for number, since, rules in ((1, 0, shard.plan.catalogue), (2, at("03-03"), new)):
                shard.processor.offer(number, since, rules)
            shard.fetch()
    written = [key.decode() for batch in shard.batches for key, _ in batch.rows if key.startswith(b"u-")]
    assert written == [*sorted(users), "u-6"]
    assert shard.changelog[b"u-9"] == before[b"u-9"], "who has no such run is left alone"
    assert shard.clock("03-20").run().sent(lambda t: (t["user_id"], t["rule_version"], t["decided_at"][5:10])) == [
        *[(user, 2, "03-06") for user in sorted(users)],
        ("u-6", 2, "03-09"),
    ]


def test_only_rules_that_are_gone_or_whose_runs_do_not_finish_as_they_began_unsettle_anybody() -> None:
    rules = {"gone": {}, "kept": {}, "exits": {}, "anew": {}, "follows": {}, "finished": {}}
    old = catalogue(*[rule_text(rule=name) for name in rules])
    new = catalogue(
        rule_text(rule="kept", about="The same version.", on_change="exit"),
        rule_text(rule="exits", version="2", on_change="exit"),
        rule_text(rule="anew", version="2", on_change="restart"),
        rule_text(rule="follows", version="2", on_change="follow"),
        rule_text(rule="finished", version="2"),
        rule_text(rule="added", on_change="exit"),
    )
    assert old.unsettled_by(after(new, old)) == ("anew", "exits", "follows", "gone")
    assert after(new, old).unsettled_by(catalogue(rule_text(rule="kept"))) == (
        "added", "anew", "exits", "finished", "follows",
    )  # fmt: skip


@pytest.mark.parametrize("limit", [1, 5_000])
@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize(
    ("second", "third", "expected"),
    [
        ({"on_change": "follow"}, {}, [(2, "two", "03-11")]),
        (
            {"on_change": "follow", "steps": "[{after: 10d}, {after: 5d}]"},
            {},
            [(2, "two", "03-11"), (2, "two", "03-16")],
        ),
        ({}, {"on_change": "follow"}, [(3, "three", "03-11")]),
        ({"on_change": "restart", "steps": "[{after: 12d}]"}, {}, [(2, "two", "03-13")]),
        ({}, {}, [(1, "one", "03-11")]),
    ],
)
def test_what_becomes_of_a_run_in_flight_depends_on_the_versions_and_on_no_event_between(
    second: dict[str, str], third: dict[str, str], expected: list[tuple[int, str, str]], touched: bool, limit: int
) -> None:
    texts: list[dict[str, str]] = [{"reason": '"one"'}, {"reason": '"two"', **second}, {"reason": '"three"', **third}]
    rules = [
        version(n, **{"steps": "[{after: 10d}]", "start": "{since: 2026-01-01}", **text})
        for n, text in enumerate(texts, 1)
    ]
    pinned: dict[tuple[str, int], Rule] = {}
    shard = shard_of(rules[0])
    for number, (since, of) in enumerate(zip((0, at("03-03"), at("03-05")), rules, strict=True), 1):
        shard.processor.offer(number, since, index(of.rules, of.policy, dict(pinned)))
        pinned |= {(rule.name, rule.version): rule for rule in of.rules.values()}
    shard.run(order("03-01", "a"), limit=limit).clock("03-04").run(limit=limit)
    if touched:
        shard.run(named(event(ev.UserLoggedIn, "03-04 12:00"), "in"), limit=limit)
    shard.clock("03-20").run(limit=limit)
    assert shard.sent(lambda t: (t["rule_version"], t["reason"], t["decided_at"][5:10])) == expected


GREETING = "[{at_once: true}, {after: 1d}]"


def restarted(old: str, new: str, changed: str, shop: str | None = None, **words: Any) -> list[tuple[int, int, str]]:
    """What is sent about an order of noon on 1 March whose rule begins anew at some later instant."""
    before = version(1, old, shop, start="{since: 2026-01-01}", **words)
    anew = after(version(2, new, shop, start="{since: 2026-01-01}", on_change="restart", **words), before)
    shard = shard_of(before)
    shard.processor.offer(1, 0, before)
    shard.processor.offer(2, at(changed), anew)
    shard.run(order("03-01", "a")).clock("03-20").run()
    assert len({*shard.sent(lambda t: t["trigger_id"])}) == len(shard.sent(lambda t: t["trigger_id"]))
    return shard.sent(lambda t: (t["rule_version"], t["step"], t["decided_at"][5:16].replace("T", " ")))


def test_what_was_said_at_the_entry_is_not_said_again_when_the_run_begins_anew() -> None:
    said = (1, 1, "03-01 12:00")
    assert restarted(GREETING, "[{at_once: true}, {after: 2d}]", "03-01 18:00") == [said, (2, 2, "03-03 12:00")]
    assert restarted(GREETING, "[{at_once: true}]", "03-01 18:00") == [said]
    assert restarted(GREETING, "[{after: 2d}]", "03-01 18:00") == [said, (2, 1, "03-03 12:00")]
    assert restarted("[{after: 1h}, {after: 1d}]", GREETING, "03-01 18:00") == [
        (1, 1, "03-01 13:00"), (2, 2, "03-02 12:00"),
    ]  # fmt: skip


def test_a_run_that_is_over_does_not_begin_anew_and_one_of_more_steps_than_the_new_version_is_not_lost() -> None:
    long = "{action: contact, channels: [push], priority: 10, expires_after: 9d}"
    assert restarted("[{after: 1d}]", "[{after: 5d}, {after: 1d}]", "03-03", send=long) == [(1, 1, "03-02 12:00")]
    assert restarted("[{after: 1d}, {after: 5d}]", "[{after: 4d}]", "03-03") == [
        (1, 1, "03-02 12:00"), (2, 1, "03-05 12:00"),
    ]  # fmt: skip
    of = {"enter": "{on: CouponIssued, key: coupon}", "holds": "{from: CouponLocked, until: CouponReturned}"}
    old = version(1, "[{after: 3d}]", **of)
    desk = Desk(old).say(issued("c-1", "03-01"), event(ev.CouponLocked, "03-02", coupon_id="c-1")).wait("03-10")
    desk.catalogue = after(version(2, "[{after: 12d}, {after: 1d}]", on_change="restart", **of), old)
    desk.row = engine.adapt(desk.row, desk._moment(desk.now, desk.floor))
    desk.wait("03-15").say(event(ev.CouponReturned, "03-15", coupon_id="c-1"))
    assert fired(desk) == [(2, 1, "03-15"), (2, 2, "03-16")]


def test_what_was_to_be_said_at_the_entry_and_was_not_is_said_after_the_change_while_it_is_fresh() -> None:
    later = (2, 2, "03-02 12:00")
    assert restarted("[{after: 10d}]", GREETING, "03-01 18:00") == [(2, 1, "03-01 18:00"), later]
    assert restarted("[{after: 10d}]", GREETING, "03-05") == []
    night = 'quiet_hours: {from: "11:00", until: "20:00", jitter: 0s}\n'
    assert restarted(GREETING, GREETING, "03-01 18:00", night) == [(2, 1, "03-01 20:00"), (2, 2, "03-02 20:00")]


def test_a_pause_is_of_the_rule_whatever_version_a_run_is_under() -> None:
    new = after(version(2, NEW_STEPS, paused="skip"), OLD)
    desk = in_flight(new, "03-05")
    assert fired(desk) == []
    assert {d.reason for d in desk.decisions} == {"The rule is paused, and skips what comes due."}
    assert fired(in_flight(after(version(2, NEW_STEPS), version(1, "[{after: 10d}]", paused="skip")), "03-05")) == [
        (1, 1, "03-11")
    ]


def test_the_first_catalogue_is_in_effect_from_the_beginning_whatever_the_worker_came_with() -> None:
    own = catalogue(rule_text(rule="own", steps="[{after: 1d}]"))
    for clock in ("events", "wall"):
        shard = Shard(own, inputs=("orders",), clock=clock)
        shard.processor.offer(1, 0, hello(1))
        if clock == "wall":
            shard.look("03-01")
        shard.run(order("03-02", "a"))
        shard.look("03-02").run() if clock == "wall" else shard.clock("03-02 12:00").run()
        assert shard.counts["runs", "entered", "a_rule"] == 1
        assert shard.counts["runs", "entered", "own"] == 0
        assert set(shard.processor._meta.active_since) == {"a_rule"}
        assert shard.processor.catalogue_number == 1


def test_state_from_before_anything_was_published_takes_up_the_first_catalogue_without_losing_a_run() -> None:
    shard = shard_of(hello(1)).run(order("03-01", "a")).clock("03-01 12:00").run()
    shard.reopen(catalogue=catalogue(rule_text(rule="own")))
    shard.processor.offer(1, 0, hello(1))
    shard.clock("03-05").run()
    assert versions(shard) == [(1, "03-02 12:00")]
    assert shard.counts["runs", "exited", "a_rule"] == 0


def test_what_a_shard_hears_of_too_late_takes_effect_where_the_shard_is() -> None:
    shard = shard_of(hello(1)).run(order("03-01", "a")).clock("03-06").run()
    shard.processor.offer(1, at("03-02"), hello(2))
    shard.run(order("03-07", "b")).clock("03-20").run()
    assert [number for number, _ in versions(shard)] == [1, 2]


def test_a_rule_that_comes_back_sends_nothing_about_the_time_when_it_was_gone() -> None:
    shard = shard_of(hello(1)).clock("03-01").run()
    there = catalogue(rule_text(rule="b_rule", steps="[{after: 1d}]", start="none", ends=None), rule_text())
    gone = catalogue(rule_text())
    for number, since, rules in ((1, "03-01", there), (2, "03-05", gone), (3, "03-10", there)):
        shard.processor.offer(number, at(since), rules)
    shard.clock("03-12").run()
    shard.run(named(paid("o-a", "03-07"), "a", "u-1"), named(paid("o-b", "03-12"), "b", "u-2"))
    assert shard.processor._meta.active_since["b_rule"] == at("03-10")
    assert ("b_rule", "u-2") in shard.clock("03-20").run().sent(lambda t: (t["rule"], t["user_id"]))
    assert shard.counts["runs", "entered", "b_rule"] == 1


# -- versions of rows


def test_a_row_of_the_older_version_is_read_and_an_older_worker_reads_ours() -> None:
    desk = Desk(catalogue("coupon_unused", "winback")).say(issued("c-1", "03-01"), paid("o-1", "03-01"))
    old = encode(desk.row, 1)
    assert old[0] == 1
    back = decode(old)
    assert back.runs == desk.row.runs
    assert back.orders == desk.row.orders
    assert back.last_seen_at is None
    assert len(Row.__struct_fields__) > row.FIELDS[1]
    assert row.encoded_timer(old) == row.next_timer(desk.row)


def test_a_rolling_upgrade_writes_what_the_older_workers_read_until_it_is_finalised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(row, "ROW_VERSION", 1)
    shard = shard_of(hello(1))
    shard.processor._meta.row_version = 1  # as the older software wrote it
    monkeypatch.setattr(row, "ROW_VERSION", 2)
    shard.run(order("03-01", "a")).clock("03-01 13:00").run()
    assert shard.changelog[b"u-1"][0] == 1
    shard.reopen().clock("03-05").run()
    assert versions(shard) == [(1, "03-02 12:00")]
    assert shard.changelog[b"u-1"][0] == 1  # rolled back now, an older worker could read it
    shard.reopen(state_version=2).run(order("03-06", "b")).clock("03-06 13:00").run()
    assert shard.changelog[b"u-1"][0] == 2
    shard.reopen().clock("03-09").run()
    assert versions(shard) == [(1, "03-02 12:00"), (1, "03-07 12:00")]
