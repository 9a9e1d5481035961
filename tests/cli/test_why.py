"""`lifecycle why`: what the start policy of a rule passed over is said, whose steps left no decision."""

from __future__ import annotations

from collections.abc import Mapping
from zoneinfo import ZoneInfo

import pytest

from app.cli.why import Known, passed_over
from app.rulebook import load
from app.settings import load_settings
from schemas import events as ev
from tests.core.shop import at, event, issued, paid, terms

ZONE = ZoneInfo("Asia/Shanghai")


def said(active: Mapping[str, int], *events: ev.Event, rule: str | None = None, start: str = "") -> list[str]:
    settings = load_settings({"LIFECYCLE_START": start} if start else {})
    return passed_over(Known(list(events), [], [], [], [], [], [], None, "", active), rule, ZONE, settings, load())


def test_rules_that_were_switched_on_later_say_what_they_passed_over() -> None:
    on = {"coupon_unused": at("03-08"), "winback": at("03-08"), "cart_abandoned": at("03-08"), "gone": at("03-08")}
    assert said(on, paid("o-1", "03-01", coupons_issued=(terms("c-1"),))) == [
        "coupon_unused, winback: what was due before 2026-03-08 12:00:00 was passed over (start: state-only)."
    ]
    assert said(on, paid("o-1", "03-01"), rule="coupon_unused") == []
    assert said(on, paid("o-1", "03-01"), rule="winback") != []


def test_what_happened_after_a_rule_was_switched_on_needs_no_word() -> None:
    assert said({"coupon_unused": at("03-01")}, issued("c-1", "03-01"), event(ev.UserLoggedIn, "02-01")) == []


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("none", "what happened before 2026-03-08 12:00:00 starts nothing (start: none)."),
        ("since:2026-03-05T00:00:00+08:00", "what was due before 2026-03-05 00:00:00 was passed over (start: since)."),
        ("since:2026-02-05T00:00:00+08:00", None),
    ],
)
def test_the_start_policy_of_the_settings_is_the_one_that_counts(start: str, words: str | None) -> None:
    told = said({"winback": at("03-08")}, paid("o-1", "03-01"), start=start)
    assert told == ([f"winback: {words}"] if words else [])


def test_nothing_known_of_a_user_is_nothing_whatever_the_shard_knows() -> None:
    assert Known([], [], [], [], [], [], [], None, "", {"winback": 1}).nothing
