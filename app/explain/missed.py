"""What came due for a user before a rule was switched on: the real engine plays what happened, as if it had been on.

Of what a start policy passed over there is no record. A step that an event had ended before was not due, and is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.backtest.driver import Driver
from app.core.rules import Catalogue, index
from app.processor import InvariantBroken
from schemas.events import Event
from schemas.instant import parse_instant

_ALWAYS_ON = "since:0"


def missed(events: Iterable[Event], catalogue: Catalogue, sends_from: Mapping[str, int], now: int) -> set[str]:
    """Of these rules (by name: from which instant on each may send) those of which something was due earlier, and
    before `now`: of what is still to come nobody knows whether it will be due, as the user may act first."""
    if not sends_from:
        return set()
    driver = Driver(index({name: catalogue.rules[name] for name in sends_from}, catalogue.policy), start=_ALWAYS_ON)
    end = min(max(sends_from.values()), now)
    driver.send(*sorted((e for e in events if e.occurred_at < end), key=lambda event: event.occurred_at))
    try:
        driver.advance_time(end - 1)
    except InvariantBroken:
        return set()  # a rule fails on the past: nothing can be said of it, and what else is known can
    due = ((decision.rule, parse_instant(decision.due_at)) for decision in driver.decisions)
    return {rule for rule, at in due if at < sends_from[rule]}
