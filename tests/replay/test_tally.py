"""The demo's numbers come from the worker's metrics; its samples are different people and the same every time."""

from __future__ import annotations

from collections import Counter

from app.demo.tally import RULES, Tally, addressed, samples
from app.feed import Told
from app.metrics import Metrics


def told(rule: str, user: str, id: str, retracted: bool = False) -> Told:
    return Told(id=id, retracted=retracted, body={"rule": rule, "user_id": user})


def test_counts_are_read_from_the_page_that_the_worker_serves() -> None:
    metrics = Metrics()
    metrics.count(
        Counter(
            {
                ("events", "OrderPaid"): 7,
                ("events", "UserLoggedIn"): 2,
                ("events", "ClockAdvanced"): 100,
                ("rejects", "not_json"): 3,
                ("runs", "entered", "winback"): 6,
                ("runs", "ended", "winback"): 5,
                ("decisions", "winback", "fired"): 4,
                ("decisions", "winback", "deferred"): 9,
                ("decisions", "winback", "dropped"): 1,
                ("decisions", "winback", "expired"): 2,
            }
        )
    )
    metrics.merged_time.labels("0").set(200)
    metrics.merged_time.labels("1").set(100)
    tally = Tally(metrics.exposition().decode())
    assert (tally.events, tally.rejects, tally.merged) == (9, 3, 100)
    assert tally.rule("winback") == (6, 5, 4, 3, 9)
    assert tally.rule("replenishment") == (0, 0, 0, 0, 0)


def test_tallies_are_equal_while_the_counters_stand_still() -> None:
    metrics = Metrics()
    metrics.count(Counter({("events", "OrderPaid"): 1}))
    first = Tally(metrics.exposition().decode())
    metrics.merged_time.labels("0").set(5)
    assert Tally(metrics.exposition().decode()) == first
    metrics.count(Counter({("events", "OrderPaid"): 1}))
    assert Tally(metrics.exposition().decode()) != first


def test_samples_take_turns_between_rules_and_never_show_a_user_twice_or_a_retraction() -> None:
    fired = [told("replenishment", f"u{n % 3}", f"r{n}") for n in range(9)]
    fired += [told("winback", "u0", "w0"), told("winback", "u7", "w1"), told("coupon_unused", "u8", "c0")]
    fired += [told("coupon_unused", "u9", "a0", retracted=True)]
    chosen = samples(fired)
    assert [one.rule for one in chosen] == [*RULES, "replenishment", "replenishment"]
    assert len({one.user_id for one in chosen}) == 5
    assert not any(one.retracted for one in chosen)
    assert samples(reversed(fired)) == chosen


def test_fewer_triggers_than_samples_are_all_shown() -> None:
    assert len(samples([told("winback", "u1", "w")])) == 1
    assert samples([]) == []


def test_grants_and_retractions_are_no_messages() -> None:
    fired = [told("winback", "u1", "a"), told("winback", "u1", "b"), told("winback", "u2", "c")]
    fired += [told("winback", "u3", "d", retracted=True)]
    for one in fired:
        one.body["action"] = "contact"
    gift = told("repurchase_coupon", "u4", "e")
    gift.body["action"] = "grant"
    assert addressed([*fired, gift]) == (2, 3, 2)
