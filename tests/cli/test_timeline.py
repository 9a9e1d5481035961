"""A user's timeline: each kind of message has its words, and what belongs together stands together."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import orjson
import pytest

from app.core.row import NEVER, Row, Run, run_key
from app.explain import timeline
from app.explain.timeline import Entry
from schemas import events
from schemas.codec import DecodeOptions, decode
from schemas.events import EVENT_TYPES, CouponIssued, CustomerBaseline, Event, OrderPaid, OrderRefunded
from schemas.instant import Instant, parse_instant
from schemas.triggers import Decision, Offer, Outcome, Retraction, StageChange, Trigger
from schemas.triggers import Entry as About
from tests.schemas.samples import example

SHANGHAI = ZoneInfo("Asia/Shanghai")
AT = "2026-03-08T09:00:00+08:00"
WHO: dict[str, Any] = {"event_id": "e-1", "user_id": "u-1", "occurred_at": Instant(parse_instant(AT))}


def decision(outcome: str, **more: Any) -> Decision:
    values = {
        "decision_id": "d", "sequence": 0, "final": True, "rule": "nudge", "rule_version": 1, "user_id": "u-1",
        "entry": About(kind="coupon", key="c-4"), "run_id": "r", "step": 1, "outcome": outcome, "reason": "So.",
        "due_at": AT, "decided_at": AT, "trigger_id": "t",
    }  # fmt: skip
    return Decision(**{**values, **more})


def trigger(**more: Any) -> Trigger:
    values = {
        "trigger_id": "t", "rule": "nudge", "rule_version": 1, "family": "coupon", "step": 1, "user_id": "u-1",
        "action": "contact", "class_": "marketing", "entry": About(kind="coupon", key="c-4"), "run_id": "r",
        "reason": "So.", "channel": "push", "fallbacks": ("sms", "email"), "priority": 1, "due_at": AT,
        "decided_at": AT, "not_before": AT, "expires_at": "2026-03-09T21:00:00+08:00",
    }  # fmt: skip
    return Trigger(**{**values, **more})


def retraction() -> Retraction:
    return Retraction(
        retraction_id="x", retracts="t", rule="nudge", rule_version=1, family="coupon", step=1, user_id="u-1",
        entry=About(kind="coupon", key="c-4"), run_id="r", reason="It was used.", decided_at=AT,
    )  # fmt: skip


def told(*given: Any) -> list[tuple[str, str]]:
    kinds = {kind: [one for one in given if isinstance(one, kind)] for kind in (Decision, Trigger, Retraction)}
    found = timeline.decided(kinds[Decision], kinds[Trigger], kinds[Retraction], SHANGHAI)
    return [(entry.word, entry.text) for entry in found]


# -- what happened


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_event_of_the_contract_has_words(name: str) -> None:
    body = example(name)
    event = decode(EVENT_TYPES[name].TOPIC, body["user_id"].encode(), orjson.dumps(body), -1, DecodeOptions())
    assert isinstance(event, Event)
    entry = timeline.happened(event, UTC)
    assert entry.text.startswith(name)
    assert body["user_id"] not in entry.text.removeprefix(name)
    assert not any(sign in entry.text for sign in ("Struct", "Decimal(", "<", "1970"))


def test_an_event_is_told_with_its_money_lines_and_instants() -> None:
    lines = (
        events.Line(product_id="p-1", product_type="milk_powder", quantity=2),
        events.Line(product_id="p-2", product_type="milk_powder", quantity=1),
        events.Line(product_id="p-3", category="toys", quantity=1, gift=True),
    )
    issued = (events.IssuedCoupon(coupon_id="c-9"),)
    paid = OrderPaid(
        **WHO, order_id="o-7", currency="CNY", total=Decimal("258.00"), lines=lines, coupons_used=("c-3",),
        coupons_issued=issued,
    )  # fmt: skip
    assert timeline.happened(paid, SHANGHAI, "a note") == Entry(
        parse_instant(AT),
        timeline.HAPPENED,
        "happened",
        "OrderPaid: order o-7, total 258.00 CNY, lines 3 x milk_powder + 1 x gift toys, coupons used c-3, "
        "coupons issued c-9 (a note)",
    )
    percent = CouponIssued(**WHO, coupon_id="c-4", kind="percent", value=Decimal(15), expires_at=WHO["occurred_at"])
    assert timeline.details(percent, SHANGHAI) == (
        ": coupon c-4, kind percent, value 15 %, expires at 2026-03-08 09:00:00"
    )
    back = events.LineQuantity(product_id="p-1", quantity=1)
    refund = OrderRefunded(**WHO, order_id="o-7", lines=(back,), goods_returned=False)
    assert timeline.details(refund, UTC) == ": order o-7, lines 1 x p-1, goods returned no"
    old = CustomerBaseline(**WHO, registered_at=WHO["occurred_at"], orders=0)
    assert timeline.details(old, UTC) == ": registered at 2026-03-08 01:00:00, orders 0"


# -- what came of it


def test_a_fired_decision_and_its_trigger_are_one_entry() -> None:
    [(word, text)] = told(decision("fired"), trigger())
    assert word == "sent"
    assert text == (
        "nudge, step 1 (coupon c-4) by push, else sms or email: So. "
        "To be sent 2026-03-08 09:00:00 to 2026-03-09 21:00:00, or never."
    )


def test_what_the_trigger_topic_no_longer_has_is_told_by_its_record_and_the_other_way_round() -> None:
    assert told(decision("fired")) == [("sent", "nudge, step 1 (coupon c-4): So.")]
    assert [word for word, _ in told(trigger())] == ["sent"]
    assert told(retraction()) == [("retracted", "nudge, step 1 (coupon c-4): It was used.")]
    assert told(decision("retracted", reason="It was used."), retraction()) == [
        ("retracted", "nudge, step 1 (coupon c-4): It was used.")
    ]


@pytest.mark.parametrize(
    ("outcome", "gate", "word", "by"),
    [
        ("deferred", "quiet_hours", "held", ", by quiet hours"),
        ("dropped", "cap", "dropped", ", by cap"),
        ("expired", "staleness", "expired", ", by staleness"),
        ("control", "holdout", "held out", ", by holdout"),
    ],
)
def test_each_way_of_not_going_out_names_its_gate(outcome: str, gate: str, word: str, by: str) -> None:
    assert told(decision(outcome, gate=gate)) == [(word, f"nudge, step 1 (coupon c-4){by}: So.")]


def test_shadow_and_grant_are_not_called_sent() -> None:
    assert told(decision("fired"), trigger(mode="shadow"))[0][0] == "shadow"
    assert told(decision("fired"), trigger(action="grant", channel=None, fallbacks=()))[0][0] == "granted"


def test_an_offer_and_the_coupons_that_go_along_are_told() -> None:
    offer = Offer(batch="winback_large", kind="amount", value="30.00", currency="CNY")
    text = told(trigger(offer=offer, coupons=("c-1", "c-2")))[0][1]
    assert "Offer: winback_large (30.00 CNY). With the coupon c-1 and c-2." in text


def test_a_users_own_run_needs_no_key() -> None:
    assert told(decision("dropped", entry=About(kind="user", key="u-1")))[0][1] == "nudge, step 1: So."


def test_stages_and_outcomes_have_their_words() -> None:
    first = StageChange(stage_change_id="s", user_id="u-1", to="growth", reason="First order.", decided_at=AT)
    assert timeline.moved(first).text == "to growth: First order."
    assert timeline.moved(msgspec.structs.replace(first, from_="introduction")).text == (
        "from introduction to growth: First order."
    )
    came = Outcome(
        outcome_id="o", trigger_id="t", rule="nudge", rule_version=1, family="coupon", step=1, user_id="u-1",
        entry=About(kind="coupon", key="c-4"), run_id="r", arm="treated", goal="CouponRedeemed", converted=True,
        amount="9.00", currency="CNY", window_from=AT, window_until=AT, decided_at=AT,
    )  # fmt: skip
    assert timeline.came_of_it(came).text == (
        "nudge, step 1 (coupon c-4): CouponRedeemed was reached (9.00 CNY) after it was sent."
    )
    without = msgspec.structs.replace(came, arm="control", converted=False, amount=None)
    assert timeline.came_of_it(without).text == (
        "nudge, step 1 (coupon c-4): CouponRedeemed was not reached without it, in the control group."
    )


# -- lines


def test_entries_stand_in_time_and_what_happened_stands_before_what_came_of_it() -> None:
    at = parse_instant(AT)
    entries = [
        Entry(at, timeline.DECIDED, "sent", "c"),
        Entry(at, timeline.HAPPENED, "happened", "b"),
        Entry(at - 1, timeline.CAME, "stage", "a"),
    ]
    assert [entry.text for entry in timeline.in_time(entries)] == ["a", "b", "c"]


def test_long_texts_are_wrapped_under_themselves() -> None:
    lines = timeline.render([Entry(parse_instant(AT), 0, "sent", "word " * 30)], SHANGHAI, 80)
    assert lines[0].startswith("2026-03-08 09:00:00  sent        word word")
    assert len(lines) > 2
    assert all(len(line) <= 80 for line in lines)
    assert all(line.startswith(" " * 33 + "word") for line in lines[1:])


def run_of(**more: Any) -> Run:
    at = parse_instant(AT)
    values = {"rule": "nudge", "version": 1, "kind": "coupon", "key": "c-4", "event_id": "e", "entered_at": at}
    return Run(**{**values, "due_at": at, "timer_at": at, **more})


def test_only_runs_with_a_step_to_come_are_told_with_what_they_wait_for() -> None:
    at = parse_instant(AT)
    later = run_of(key="later", timer_at=at + 3_600_000_000)
    runs = (run_of(), later, run_of(key="held", held=True, timer_at=NEVER), run_of(key="over", due_at=NEVER))
    row = Row("u-1", runs={run_key("nudge", "c-4"): runs})
    assert timeline.to_come(timeline.alive(row, None), SHANGHAI) == [
        "nudge, step 1 (coupon c-4): due 2026-03-08 09:00:00",
        "nudge, step 1 (coupon later): was due 2026-03-08 09:00:00, will be asked again 2026-03-08 10:00:00",
        "nudge, step 1 (coupon held): waits, for what it is about cannot be used now",
    ]
