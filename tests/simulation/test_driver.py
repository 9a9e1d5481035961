"""The synchronous driver: what each of its moves does, under both clocks."""

from __future__ import annotations

from typing import Any

import pytest

from app.backtest import driver as module
from app.backtest.driver import Driver
from app.core.rules import Catalogue
from app.rulebook import load
from schemas.events import UserLoggedIn
from schemas.instant import DAY, HOUR, SECOND, Instant, parse_instant
from tests.catalogues import THREE

NOON = parse_instant("2026-03-01T12:00:00+08:00")
DUE = NOON + 7 * DAY


@pytest.fixture(scope="module")
def rules() -> Catalogue:
    return load(THREE)


def coupon(number: int = 1, at: int = NOON, **fields: Any) -> dict[str, Any]:
    told = {"event_id": f"e-{number}", "type": "CouponIssued", "user_id": "u-1", "coupon_id": f"c-{number}"}
    return {**told, "occurred_at": at // 1000, **fields}


def redeemed(number: int = 1, at: int = NOON + DAY) -> dict[str, Any]:
    return {**coupon(number, at), "event_id": f"r-{number}", "type": "CouponRedeemed"}


def fired(driver: Driver) -> list[tuple[str, int]]:
    return [(trigger.entry.key, trigger.step) for trigger in driver.triggers]


def test_the_example_of_its_documentation_runs(rules: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (module.__doc__ or "").partition("::\n")[2].partition("\n\nBoth")[0]
    lines = [line.removeprefix("    ") for line in text.splitlines()]
    monkeypatch.setattr(module, "load", lambda: rules)
    exec("\n".join(lines), {"Driver": Driver})


def test_nothing_is_processed_before_it_is_told_to(rules: Catalogue) -> None:
    driver = Driver(rules)
    driver.send(coupon())
    assert driver.row("u-1") is None
    driver.announce(NOON + 1)
    driver.run()
    assert driver.row("u-1") is not None


def test_under_the_clock_of_events_all_that_is_due_by_an_instant_fires_when_time_comes_to_it(rules: Catalogue) -> None:
    driver = Driver(rules)
    driver.send(coupon())
    driver.advance_time(DUE - 1)
    assert fired(driver) == []
    driver.advance_time(DUE)
    assert fired(driver) == [("c-1", 1)]


def test_lateness_holds_back_what_is_due(rules: Catalogue) -> None:
    driver = Driver(rules, lateness=HOUR)
    driver.send(coupon())
    driver.advance_time(DUE + HOUR - 1)
    assert fired(driver) == []
    driver.advance_time(by=1)
    assert fired(driver) == [("c-1", 1)]


def test_under_the_wall_clock_it_stops_at_each_timer_on_the_way(rules: Catalogue) -> None:
    driver = Driver(rules, clock="wall", at=NOON - SECOND)
    driver.run()
    driver.now = NOON
    driver.send(coupon())
    driver.advance_time(by=30 * DAY)
    assert [parse_instant(t.decided_at) for t in driver.triggers] == [DUE + 5 * SECOND, DUE + 10 * DAY + 5 * SECOND]


def test_a_jump_of_the_wall_clock_without_a_worker_is_an_outage(rules: Catalogue) -> None:
    driver = Driver(rules, clock="wall", at=NOON - SECOND)
    driver.run()
    driver.now = NOON
    driver.send(coupon())
    driver.run()
    driver.advance_time(DUE + 3 * DAY, working=False)
    assert driver.decisions == []
    driver.run()
    assert [decision.outcome for decision in driver.decisions] == ["expired"]


def test_a_wall_clock_that_jumps_back_changes_nothing(rules: Catalogue) -> None:
    driver = Driver(rules, clock="wall", at=NOON - SECOND)
    driver.run()
    driver.now = NOON
    driver.send(coupon())
    driver.advance_time(DUE + HOUR)
    before = (driver.merged(), len(driver.decisions), driver.timers())
    driver.now -= 30 * DAY
    driver.run()
    driver.rebalance()
    driver.run()
    assert (driver.merged(), len(driver.decisions), driver.timers()) == before


def test_time_moves_by_or_to_but_not_both(rules: Catalogue) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Driver(rules).advance_time(DUE, by=DAY)
    with pytest.raises(ValueError, match="exactly one"):
        Driver(rules).advance_time()


@pytest.mark.parametrize(("when", "visible"), [("before", False), ("inside", False), ("after", True)])
def test_a_crash_leaves_all_of_a_batch_or_nothing(rules: Catalogue, when: Any, visible: bool) -> None:
    driver = Driver(rules)
    driver.send(coupon())
    driver.announce(DUE + 1)
    driver.crash(when)
    assert (fired(driver) == [("c-1", 1)]) is visible
    assert (driver.broker.committed["coupons", 0] > 0) is visible
    assert (driver.row("u-1") is not None) is visible
    driver.run()
    assert fired(driver) == [("c-1", 1)]


def test_other_workers_go_on_where_the_last_commit_was(rules: Catalogue) -> None:
    driver = Driver(rules, partitions=2)
    driver.cut(batch=1, fetch=1)
    driver.send(*(coupon(number, user_id=f"u-{number}") for number in range(1, 7)))
    for _ in range(4):
        driver.work(0)
        driver.work(1)
        driver.rebalance()
    driver.advance_time(DUE)
    assert sorted(fired(driver)) == [(f"c-{number}", 1) for number in range(1, 7)]


def test_the_same_record_again_changes_nothing(rules: Catalogue) -> None:
    driver = Driver(rules)
    driver.send(coupon())
    driver.advance_time(NOON)
    driver.redeliver(("coupons", 0), 0)
    driver.rebalance()
    driver.advance_time(DUE)
    assert fired(driver) == [("c-1", 1)]
    assert driver.counts["duplicates", "CouponIssued"] == 1


def test_a_paused_input_holds_time_up_under_both_clocks(rules: Catalogue) -> None:
    for clock in ("events", "wall"):
        driver = Driver(rules, clock=clock, at=NOON)  # type: ignore[arg-type]
        driver.run()
        driver.send(coupon())
        driver.run()
        driver.now = DUE + HOUR
        driver.pause("coupons")
        driver.send(redeemed(at=DUE - 1000))
        driver.advance_time(DUE + HOUR)
        assert driver.lagging()
        assert driver.merged() < DUE
        driver.resume()
        driver.advance_time(DUE + 2 * HOUR)
        assert not driver.lagging()
        assert (fired(driver), driver.timers("u-1")) == ([], [])


def test_markers_in_a_log_are_passed(rules: Catalogue) -> None:
    driver = Driver(rules, clock="wall", at=NOON)
    driver.run()
    driver.broker.mark(("coupons", 0))
    driver.send(coupon())
    driver.broker.mark(("coupons", 0))
    driver.broker.mark(("orders", 0))
    driver.cut(fetch=1)
    driver.advance_time(DUE + HOUR)
    driver.rebalance()
    driver.advance_time(by=HOUR)
    assert fired(driver) == [("c-1", 1)]
    assert driver.merged() == DUE + 2 * HOUR


def test_events_may_be_values_and_mappings_may_name_a_topic(rules: Catalogue) -> None:
    driver = Driver(rules)
    driver.send(UserLoggedIn(event_id="l-1", user_id="u-1", occurred_at=Instant(NOON)), {**coupon(), "topic": "orders"})
    driver.advance_time(NOON)
    assert driver.counts["events", "UserLoggedIn"] == 1
    assert [(letter.code, letter.topic, letter.key) for letter in driver.dead_letters] == [
        ("wrong_topic", "orders", b"u-1")
    ]


def test_timers_are_shown_by_user_earliest_first(rules: Catalogue) -> None:
    driver = Driver(rules)
    driver.send(coupon(1, at=NOON + HOUR), coupon(2), coupon(3, user_id="u-2"))
    driver.advance_time(NOON + 2 * HOUR)
    assert [(timer.key, timer.at - NOON) for timer in driver.timers("u-1")] == [
        ("c-2", 7 * DAY),
        ("c-1", 7 * DAY + HOUR),
    ]
    assert len(driver.timers()) == 3


def test_a_retraction_is_no_trigger(rules: Catalogue) -> None:
    driver = Driver(rules)
    driver.send(coupon())
    driver.advance_time(DUE + HOUR)
    driver.send(redeemed(at=DUE - 1000))
    driver.advance_time(DUE + 2 * HOUR)
    assert fired(driver) == [("c-1", 1)]
    assert [retraction.retracts for retraction in driver.retractions] == [driver.triggers[0].trigger_id]
