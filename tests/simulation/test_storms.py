"""Storms in small; `python -m tests.simulation.storms` plays them with a million each."""

from __future__ import annotations

import pytest

from tests.simulation import storms

#: Of a row: what a user may come to who does everything all the time. Nothing here is at its longest.
BOUND = 250_000


@pytest.mark.timeout(900)
def test_a_user_with_very_many_events_has_a_bounded_row_with_the_right_sums() -> None:
    told = storms.busy_user(12_000)
    assert told.largest_row < BOUND
    assert "events of one user" in str(told)


@pytest.mark.timeout(900)
def test_a_bot_with_ten_thousand_looks_a_minute_costs_the_others_nothing() -> None:
    assert storms.bot(2).largest_row < BOUND


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("count", "limit"), [(20_000, 1_000), (3_000, 40)])
def test_timers_due_at_one_instant_are_worked_off_in_bounded_batches_while_events_keep_flowing(
    count: int, limit: int
) -> None:
    assert storms.timers(count, limit).largest_row < 2_000


def test_without_turns_events_would_wait_for_the_whole_storm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.processor.shard.STORM", 1_000_000)
    with pytest.raises(AssertionError):
        storms.timers(3_000, 40)
