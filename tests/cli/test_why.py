"""`lifecycle why`: what the start policy of a rule passed over, whose steps left no decision, and what a rule waits for
that the user never did, is said; a rule that is none is asked for in vain.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
import pytest
from msgspec import structs

from app.backtest.driver import Driver
from app.cli import named
from app.cli.why import Known, not_entered, passed_over, told
from app.core.row import NEVER, Mark, Row, Run
from app.core.rules import Catalogue
from app.explain import missed as why_missed
from app.processor import InvariantBroken
from app.rulebook import load
from app.settings import load_settings
from schemas import events as ev
from tests.core.shop import Desk, at, event, issued, line, locked, paid, placed, terms

ZONE = ZoneInfo("Asia/Shanghai")


def said(
    active: Mapping[str, int], *events: ev.Event, rule: str | None = None, start: str = "", now: str = "12-01"
) -> list[str]:
    settings = load_settings({"LIFECYCLE_START": start} if start else {})
    known = Known(list(events), [], [], [], [], [], [], None, "", active, reached=at(now))
    return passed_over(known, rule, ZONE, settings, load())


def test_rules_that_were_switched_on_later_say_what_they_passed_over() -> None:
    names = ("coupon_unused", "repurchase_coupon", "winback", "cart_abandoned", "gone")
    on = dict.fromkeys(names, at("03-09"))
    bought = paid("o-1", "03-01", line(category="baby"), coupons_issued=(terms("c-1"),))
    over = "what was due before 2026-03-09 12:00:00 was passed over (start: state-only)."
    assert said(on, bought) == [f"coupon_unused, repurchase_coupon: {over}"]
    assert said(on, bought, rule="coupon_unused") == [f"coupon_unused: {over}"]
    assert said({**on, "winback": at("06-09")}, bought, rule="winback") == [
        f"winback: {over.replace('03-09', '06-09')}"
    ]


def test_of_rules_of_which_nothing_was_due_before_they_were_switched_on_nothing_was_passed_over() -> None:
    bought = paid("o-1", "03-01", coupons_issued=(terms("c-1"),))
    assert said({"winback": at("03-09"), "coupon_unused": at("03-08")}, bought) == []
    used = event(ev.CouponRedeemed, "03-02", coupon_id="c-1")
    assert said({"coupon_unused": at("03-09")}, bought, used) == []


def test_what_is_still_to_come_was_not_passed_over_as_the_user_may_act_before_it_is_due() -> None:
    start = "since:2026-04-01T00:00:00+08:00"
    over = "coupon_unused: what was due before 2026-04-01 00:00:00 was passed over (start: since)."
    for now, lines in (("03-08", []), ("03-09", [over])):
        assert said({"coupon_unused": at("03-01")}, issued("c-1", "03-01"), start=start, now=now) == lines


def test_only_the_rules_that_were_late_are_played(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[set[str]] = []

    class Watched(Driver):
        def __init__(self, catalogue: Catalogue, **options: Any) -> None:
            played.append({*catalogue.rules})
            super().__init__(catalogue, **options)

    monkeypatch.setattr(why_missed, "Driver", Watched)
    bought = paid("o-1", "03-01", line(category="baby"), coupons_issued=(terms("c-1"),))
    on = {"coupon_unused": at("03-09"), "winback": at("03-09"), "repurchase_coupon": at("03-01")}
    assert said(on, bought, rule="repurchase_coupon") == []
    assert said(dict.fromkeys(on, at("03-09")), bought, rule="winback", start="none") != []
    assert played == [], "there was nothing to ask of"
    assert said(on, bought, rule="coupon_unused") != []
    assert said(on, bought) != []
    assert played == [{"coupon_unused"}, {"coupon_unused", "winback"}]


def test_where_a_rule_fails_on_the_past_nothing_is_claimed_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise InvariantBroken

    bought = paid("o-1", "03-01", coupons_issued=(terms("c-1"),))
    monkeypatch.setattr(Driver, "advance_time", fails)
    assert said({"coupon_unused": at("03-09")}, bought) == []


def test_what_happened_after_a_rule_was_switched_on_needs_no_word() -> None:
    assert said({"coupon_unused": at("03-01")}, issued("c-1", "03-01"), event(ev.UserLoggedIn, "02-01")) == []


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("none", "what happened before 2026-03-08 12:00:00 starts nothing (start: none)."),
        ("since:2026-03-07T00:00:00+08:00", "what was due before 2026-03-07 00:00:00 was passed over (start: since)."),
        ("since:2026-02-05T00:00:00+08:00", None),
    ],
)
def test_the_start_policy_of_the_settings_is_the_one_that_counts(start: str, words: str | None) -> None:
    told = said({"repurchase_coupon": at("03-08")}, paid("o-1", "03-01", line(category="baby")), start=start)
    assert told == ([f"repurchase_coupon: {words}"] if words else [])


def test_nothing_known_of_a_user_is_nothing_whatever_the_shard_knows() -> None:
    assert Known([], [], [], [], [], [], [], None, "", {"winback": 1}, reached=1).nothing


# -- which rules there are to ask about

RULES = named.of_directory(load_settings({}))


def test_a_rule_that_is_none_is_refused_with_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    named.require(RULES, "winback")
    with pytest.raises(click.BadParameter, match=r"There is no rule 'winbak'\. Did you mean winback\?") as caught:
        named.require(RULES, "winbak")
    assert caught.value.exit_code == 2
    with pytest.raises(click.BadParameter, match="There are: activation_nudge, "):
        named.require(RULES, "zzz")
    assert capsys.readouterr() == ("", "")


def test_a_rule_that_was_removed_can_still_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    named.require(RULES._replace(others=frozenset({"old"})), "old")
    named.require(RULES, "older", heard_of=True)
    said = "'{}' is none of the rules in effect; what is kept of it is shown.\n"
    assert capsys.readouterr() == ("", said.format("old") + said.format("older"))


def test_where_the_rules_cannot_be_read_any_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("rule: [")
    unknown = named.of_directory(load_settings({"LIFECYCLE_RULES": str(tmp_path)}))
    assert unknown == (None, {}, frozenset(), None, {})
    named.require(unknown, "anything")


def test_what_a_rule_waits_for_is_said_to_who_asks_why_it_was_not_entered() -> None:
    said = " ".join(not_entered("coupon_unused", RULES.data["coupon_unused"], 60))
    assert said.startswith("coupon_unused: nothing of it is kept for this user, so it was not entered, or had ended")
    assert "It is entered when a coupon is issued (CouponIssued). Each pack has a run of its own, and no pack" in said
    assert "It ends at once when a coupon of the pack is redeemed (CouponRedeemed), when the last" in said


def test_runs_that_were_ended_before_anything_was_due_are_told_of_the_rule_that_is_asked_for() -> None:
    over = Mark(at("03-02"), "e-2", "OrderPaid")
    runs = [
        Run("winback", 1, "user", "u-1", "e-1", at("03-01"), ends=(over,)),
        Run("winback", 1, "user", "u-1", "e-2", at("03-02"), due_at=at("05-01"), timer_at=at("05-01")),
        Run("coupon_unused", 1, "pack", "c-4", "e-1", at("03-01"), ends=(over,)),
    ]
    row = Row("u-1", runs={"a": tuple(runs[:2]), "b": (runs[2],)})
    known = Known([], [], [], [], [], [], [], row, "", {})
    assert told("u-1", known, "winback", ZONE, None)[1:] == [
        "over: winback, entered 2026-03-01 12:00:00, ended by OrderPaid 2026-03-02 12:00:00",
        "still to come: winback, step 1: due 2026-05-01 12:00:00",
    ]
    assert told("u-1", known, "coupon_unused", ZONE, None)[1:] == [
        "over: coupon_unused (pack c-4), entered 2026-03-01 12:00:00, ended by OrderPaid 2026-03-02 12:00:00"
    ]
    assert not any(line.startswith("over") for line in told("u-1", known, None, ZONE, None))


# -- what is still to come

SHIPPED = load()


def to_come(desk: Desk) -> list[str]:
    known = Known([], [], [], [], [], [], [], desk.row, "", {})
    lines = told("u-1", known, None, ZONE, SHIPPED)
    return [line.removeprefix("still to come: ") for line in lines if line.startswith("still to come: ")]


def test_of_an_order_that_cannot_be_paid_any_more_nothing_is_to_come() -> None:
    desk = Desk(SHIPPED).say(placed("o-1", "03-01 12:00", pay_deadline=at("03-01 12:13"))).wait("03-01 12:00")
    assert to_come(desk) == ["checkout_reminder, step 1 (order o-1): due 2026-03-01 12:06:30"]
    desk.wait("03-01 12:20")
    assert [run.step for runs in desk.row.runs.values() for run in runs if run.timer_at < NEVER] == [1]
    assert to_come(desk) == []


@pytest.mark.parametrize(("expires_at", "comes"), [("03-18 11:59:59", 0), ("03-18 12:00", 0), ("03-18 12:00:01", 1)])
def test_a_step_is_to_come_only_before_its_coupon_expires(expires_at: str, comes: int) -> None:
    desk = Desk(SHIPPED).say(issued("c-1", "03-01", expires_at=expires_at)).wait("03-14")
    found = [line for line in to_come(desk) if line.startswith("coupon_unused")]
    assert found == ["coupon_unused, step 2 (pack c-1): due 2026-03-18 12:00:00"] * comes


def test_a_coupon_that_is_held_is_asked_about_when_its_lock_lapses() -> None:
    lock = locked("c-1", "03-02", until=at("03-19"))
    desk = Desk(SHIPPED).say(issued("c-1", "03-01", expires_at="03-20"), lock).wait("03-14")
    told = "coupon_unused, step 1 (pack c-1): what it is about was held; will be looked at 2026-03-19 12:00:00"
    assert told in to_come(desk)
    desk = Desk(SHIPPED).say(issued("c-1", "03-01", expires_at="03-19"), lock).wait("03-14")
    assert to_come(desk) == []


def test_what_a_gate_held_gets_a_last_record_and_so_is_to_come_though_it_is_over() -> None:
    desk = Desk(SHIPPED).say(issued("c-1", "03-01", expires_at="03-18")).wait("03-14")
    held = {name: tuple(structs.replace(run, sequence=1) for run in runs) for name, runs in desk.row.runs.items()}
    desk.row = structs.replace(desk.row, runs=held)
    assert "coupon_unused, step 2 (pack c-1): due 2026-03-18 12:00:00" in to_come(desk)
