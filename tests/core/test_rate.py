"""A rule's maximum rate: a storm is spread over slots, nobody is asked for ever, and no stretch sees too many."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from app.core.guardrails.rate import Budget, budget
from app.core.rules import Catalogue, Rate, index
from app.processor import partition_of
from schemas import events as ev
from schemas.instant import parse_instant
from tests.core.shard import Shard, named
from tests.core.shop import HOUR, MINUTE, NO_NIGHT, SECOND, Desk, at, catalogue, event, issued, paid, rule_text

NIGHT = "quiet_hours: {jitter: 0s}\n"


def gift(rate: str, shop: str = NO_NIGHT, **changes: Any) -> Catalogue:
    """A grant for each coupon, a day after it was issued."""
    settings = {
        "rule": "gift",
        "family": "coupon",
        "enter": "{on: CouponIssued, key: coupon}",
        "ends": None,
        "steps": "[{after: 1d}]",
        "send": f"{{action: grant, expires_after: 24h, max_rate: {rate}}}",
        "reentry": "every_key",
    }
    return catalogue(rule_text(**(settings | changes)), shop=shop)


def coupons(users: int, each: int, when: str = "03-01") -> list[ev.Event]:
    return [named(issued(f"c-{n}", when), f"e-{u}-{n}", f"u-{u:04}") for u in range(users) for n in range(each)]


def released(shard: Shard) -> list[int]:
    return [parse_instant(text) for text in shard.sent(lambda trigger: trigger["decided_at"])]


def most_in(window: int, instants: list[int]) -> int:
    """The most of these (sorted) instants that lie in any stretch of that length."""
    first = most = 0
    for last, instant in enumerate(instants):
        while instant - instants[first] >= window:
            first += 1
        most = max(most, last - first + 1)
    return most


# -- a storm


def test_a_storm_of_ten_thousand_never_exceeds_the_rate_whatever_crashes_and_however_the_batches_are_cut() -> None:
    rules = gift("500 per 1h")
    storm = coupons(1_000, 10)
    plain = Shard(rules).write(*storm).clock("03-10").run()
    instants = released(plain)
    assert len(instants) == 10_000
    assert instants == sorted(instants)
    assert most_in(HOUR, instants) == 500
    assert instants[-1] - instants[0] < 20 * HOUR  # and no slot was wasted
    records = Counter((d["trigger_id"], d["final"]) for d in plain.decisions())
    assert set(records.values()) == {1}  # asked twice at most: when it was due, and in its slot
    assert sum(final for _, final in records) == 10_000

    cut = Shard(rules).write(*storm).clock("03-10")
    turn = 0
    while cut.committed != plain.committed or cut.processor.merged < plain.processor.merged:
        cut.fetch(most=700).take((13, 997, 211)[turn % 3])
        turn += 1
        if turn % 5 == 0:
            cut.processor.take(101)  # a batch that is never committed
            cut.reopen()
    assert turn > 50
    assert cut.outputs == plain.outputs
    assert cut.state() == plain.state()


def test_the_shards_of_a_deployment_share_the_rate() -> None:
    rules, instants = gift("500 per 1h"), []
    for shard in range(4):
        own = [e for e in coupons(400, 2) if partition_of(e.user_id.encode(), 4, "murmur2") == shard]
        done = Shard(rules, shard, partitions=4).write(*own).clock("03-10").run()
        instants += released(done)
    assert len(instants) == 800
    assert 480 <= most_in(HOUR, sorted(instants)) <= 500


def test_what_would_have_its_turn_too_late_is_dropped_and_blocks_nobody_who_comes_later() -> None:
    shard = Shard(gift("1 per 10h")).run(*coupons(5, 1)).clock("03-03").run()
    shard.run(*[named(e, f"later-{e.event_id}", f"v-{e.user_id}") for e in coupons(1, 1, "03-04")]).clock("03-20").run()
    said = [(d["outcome"], d["gate"], d["decided_at"][5:16]) for d in shard.decisions() if d["final"]]
    assert said == [
        ("fired", None, "03-02T12:00"),
        ("dropped", "cap", "03-02T12:00"),
        ("dropped", "cap", "03-02T12:00"),
        ("fired", None, "03-02T22:00"),
        ("fired", None, "03-03T08:00"),
        ("fired", None, "03-05T12:00"),
    ]
    assert shard.decisions()[3]["reason"] == "The rule sends at most 1 in 10 hours; its turn would come too late."


# -- slots


@pytest.mark.parametrize(
    ("rate", "shares", "tolerance", "spacing"),
    [
        (Rate(1000, HOUR), 1, 0, 3_600_000),
        (Rate(1000, HOUR), 4, 0, 14_400_000),
        (Rate(10, HOUR), 4, 0, 30 * MINUTE),  # 2 each: 8 in all, and never 11
        (Rate(3, HOUR), 4, 0, 80 * MINUTE),  # less than one each: one in a longer stretch
        (Rate(60, HOUR), 1, 3 * MINUTE, 63 * SECOND),
        (Rate(7, SECOND), 1, 0, 142_858),
    ],
)
def test_a_share_is_a_row_of_slots(rate: Rate, shares: int, tolerance: int, spacing: int) -> None:
    assert budget(rate, shares, tolerance)[:3] == Budget(spacing, tolerance)[:3]


def test_what_comes_due_at_once_for_one_user_takes_slot_after_slot() -> None:
    desk = Desk(gift("1 per 1h"), budgets={"gift": Budget(HOUR, 0)})
    desk.say(issued("c-1", "03-01"), issued("c-2", "03-01")).wait(at("03-02"))
    assert [(d.outcome, d.gate) for d in desk.decisions] == [("fired", None), ("deferred", "cap")]
    assert desk.decisions[1].reason == "The rule sends no more now; it waits for its turn."
    assert desk.wait("03-02 13:00").sent == [("gift", 1, "03-02 12:00"), ("gift", 1, "03-02 13:00")]


@pytest.mark.parametrize(("late", "outcome"), [(0, "fired"), (6 * MINUTE, "fired"), (6 * MINUTE + 1, "deferred")])
def test_under_the_wall_clock_a_slot_is_good_for_a_while_and_then_void(late: int, outcome: str) -> None:
    rules = gift("10 per 2h")  # 6 minutes late, and so 12.6 minutes apart
    shard = Shard(rules, clock="wall").look("03-01").run(*coupons(3, 1)).look("03-02").run()
    first = [(d["outcome"], d["decided_at"][11:19]) for d in shard.decisions()]
    assert first == [("fired", "12:00:00"), ("deferred", "12:00:00"), ("deferred", "12:00:00")]
    shard.look(at("03-02 12:12:36") + late).run()
    assert [d["outcome"] for d in shard.decisions()[3:]] == [outcome]
    if outcome == "deferred":  # what had been given out stays given: it is the last in the row now
        shard.look("03-02 12:50").run()
        assert most_in(2 * HOUR, released(shard)) <= 10


def test_after_an_outage_there_is_no_storm_either() -> None:
    shard = Shard(gift("10 per 2h"), clock="wall").look("03-01").run(*coupons(40, 1)).look("03-02").run()
    for minutes in range(180, 1_440):  # three hours without a look, with 14 slots in them
        shard.look(at("03-02") + minutes * MINUTE).run()
    instants = released(shard)
    assert len(instants) == 40
    assert most_in(2 * HOUR, instants) <= 10
    assert max(Counter(d["trigger_id"] for d in shard.decisions()).values()) == 3


@pytest.mark.parametrize("gap", [1, 10, 45])
def test_under_the_wall_clock_however_rare_the_looks_nobody_is_asked_more_than_three_times(gap: int) -> None:
    rules = gift("20 per 1min")
    shard = Shard(rules, clock="wall", lateness=5 * SECOND).look("03-01").run(*coupons(100, 1)).look("03-02").run()
    for seconds in range(0, 1_800, gap):
        shard.look(at("03-02") + seconds * SECOND).run()
    assert Counter(d["outcome"] for d in shard.decisions() if d["final"]) == {"fired": 100}
    asked = Counter(d["trigger_id"] for d in shard.decisions())
    assert max(asked.values()) == (2 if gap == 1 else 3)
    # slots that lie between two looks come at the second one
    assert most_in(MINUTE, released(shard)) <= 20 + (0 if gap == 1 else 20 * gap // 60)


def test_of_a_rate_below_one_a_partition_up_to_one_of_each_may_come_at_once_and_no_more_in_a_stretch() -> None:
    rules, instants = gift("3 per 1h"), []
    for shard in range(8):
        own = [e for e in coupons(200, 1) if partition_of(e.user_id.encode(), 8, "murmur2") == shard]
        instants += released(Shard(rules, shard, partitions=8).write(*own).clock("03-10").run())
    assert max(Counter(instants).values()) == 8
    assert most_in(HOUR, sorted(instants)) == 8


def test_a_night_in_between_makes_the_slot_void_and_the_morning_asks_again() -> None:
    send = "{action: contact, channels: [push], expires_after: 36h, max_rate: 1 per 4h}"
    shard = Shard(gift("", NIGHT, send=send)).run(*coupons(4, 1)).clock("03-10").run()
    assert [d["decided_at"][5:16] for d in shard.decisions() if d["outcome"] == "fired"] == [
        "03-02T12:00",
        "03-02T16:00",
        "03-02T20:00",
        "03-03T09:00",
    ]
    last = [(d["gate"], d["decided_at"][11:16]) for d in shard.decisions() if d["user_id"] == "u-0003"]
    assert last == [("cap", "12:00"), ("quiet_hours", "00:00"), (None, "09:00")]


def test_a_rule_that_drops_what_is_too_much_drops_it_at_once() -> None:
    send = "{action: grant, on_cap: drop, expires_after: 24h, max_rate: 1 per 1h}"
    shard = Shard(gift("", send=send)).run(*coupons(3, 1)).clock("03-10").run()
    assert [d["outcome"] for d in shard.decisions()] == ["fired", "dropped", "dropped"]


def test_who_is_held_out_waits_like_the_others_and_takes_nobodys_slot() -> None:
    held = gift("1 per 1h", holdout="0.5")
    shard = Shard(held).run(*coupons(20, 1)).clock("03-10").run()
    finals = [(d["outcome"], parse_instant(d["decided_at"])) for d in shard.decisions() if d["final"]]
    fired = [when for outcome, when in finals if outcome == "fired"]
    control = [when for outcome, when in finals if outcome == "control"]
    assert len(fired) > 2
    assert len(control) > 2
    assert [later - earlier for earlier, later in pairwise(fired)] == [HOUR] * (len(fired) - 1)
    assert max(control) > at("03-02")


# -- with the window in which messages compete


def _two(**of_better: str) -> Catalogue:
    """Two rules that come due together; the better one has a maximum rate."""
    better = "{action: contact, channels: [push], priority: 90, expires_after: 6h, max_rate: 1 per 3h" + "".join(
        f", {name}: {value}" for name, value in of_better.items()
    )
    both = {"enter": "{on: CouponIssued, key: coupon}", "ends": None, "steps": "[{after: 1d}]", "family": "coupon"}
    both["reentry"] = "every_key"
    return catalogue(
        rule_text(rule="better", send=better + "}", **both),
        rule_text(rule="other", send="{channels: [push], priority: 10, expires_after: 36h}", **both),
        gates="stages: []\narbitration: 1h\ncaps: []\n",
    )


def test_who_wins_and_has_no_turn_yet_keeps_the_others_waiting_and_carries_their_coupon() -> None:
    desk = Desk(_two(), budgets={"better": Budget(3 * HOUR, 0, at("03-02 14:30"))})
    desk.say(issued("c-1", "03-01")).wait("03-05")
    assert desk.sent == [("better", 1, "03-02 14:30")]
    assert desk.triggers[0].coupons == ("c-1",)
    said = [(d.rule, d.outcome, d.gate, d.decided_at[11:16]) for d in desk.decisions]
    assert said == [
        ("better", "deferred", "arbitration", "12:00"),
        ("other", "deferred", "arbitration", "12:00"),
        ("better", "deferred", "cap", "13:00"),
        ("other", "deferred", "arbitration", "13:00"),
        ("better", "fired", None, "14:30"),
        ("other", "dropped", "arbitration", "14:30"),
    ]
    assert desk.decisions[3].reason == "'better' is more important, and waits for its turn."


@pytest.mark.parametrize("of_better", [{}, {"on_cap": "drop"}])
def test_who_wins_and_is_dropped_leaves_the_window_to_the_next(of_better: dict[str, str]) -> None:
    desk = Desk(_two(**of_better), budgets={"better": Budget(3 * HOUR, 0, at("03-02 20:00"))})
    desk.say(issued("c-1", "03-01")).wait("03-05")
    assert desk.sent == [("other", 1, "03-02 13:00")]
    assert [(d.rule, d.gate) for d in desk.decisions if d.outcome == "dropped"] == [("better", "cap")]


# -- the state


def test_a_rate_that_is_taken_out_of_the_rules_leaves_nothing_behind() -> None:
    shard = Shard(gift("1 per 1h")).run(*coupons(2, 1)).clock("03-02 12:30").run()
    assert shard.processor._meta.slots == {"gift": at("03-02 14:00")}
    shard.reopen(catalogue=gift("2 per 1h")).clock("03-02 12:31").run()
    assert shard.processor._meta.slots == {"gift": at("03-02 14:00")}
    send = "{action: grant, expires_after: 24h}"
    shard.reopen(catalogue=gift("", send=send)).clock("03-10").run()
    assert shard.processor._meta.slots == {}
    assert len(shard.sent()) == 2


def test_a_rate_holds_for_runs_that_entered_before_the_rule_had_one() -> None:
    before, after = gift("", send="{action: grant, expires_after: 24h}"), gift("1 per 1h", version="2")
    both = index(after.rules, after.policy, {("gift", 1): before.rules["gift"]})
    shard = Shard(before).run(*coupons(2, 1)).clock("03-01 13:00").run()
    shard.reopen(catalogue=both).clock("03-10").run()
    assert [(d["outcome"], d["rule_version"]) for d in shard.decisions()] == [
        ("fired", 1),
        ("deferred", 1),
        ("fired", 1),
    ]
    assert shard.decisions()[1]["reason"] == "The rule sends at most 1 in 1 hour; it waits for its turn."


def test_a_rate_does_not_hold_back_another_rule() -> None:
    free = rule_text(rule="free", send="{action: grant, expires_after: 1d}", steps="[{after: 1d}]")
    rules = catalogue(free, rule_text(rule="slow", send="{action: grant, max_rate: 1 per 1d}", steps="[{after: 1d}]"))
    shard = Shard(rules).run(*[named(paid(f"o-{n}", "03-01"), f"e-{n}", f"u-{n}") for n in range(3)])
    shard.clock("03-02 12:01").run()
    assert sorted(shard.sent(lambda t: t["rule"])) == ["free", "free", "free", "slow"]


def test_a_visit_takes_no_slot() -> None:
    shard = Shard(gift("1 per 1h")).run(named(event(ev.UserLoggedIn, "03-01"), "e-1"))
    assert shard.processor._meta.slots == {}
