"""Change-overs in company: with refunds and erasures, with versions that have fewer steps, one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from app.core import engine
from app.core.rules import Catalogue
from app.processor import InvariantBroken
from schemas import events as ev
from tests.core.shard import Shard
from tests.core.shop import at, catalogue, event, refunded, rule_text
from tests.core.test_versions import NIGHT, after, order, shard_of

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
