"""Release: the trigger and the decision record that come of a due step, field by field."""

from __future__ import annotations

from app.core import ids
from schemas import events as ev
from schemas.triggers import Decision, Entry, Evidence, Item
from tests.core.shop import SHOP, Desk, catalogue, event, issued, line, paid, redeemed, refunded, rule_text, terms


def test_a_trigger_is_as_the_contract_describes_it() -> None:
    order = paid("o-77", "03-01 08:15:30", coupons_issued=(terms("c-4", expires_at="2026-03-31T23:59:59+08:00"),))
    desk = Desk(catalogue("coupon_unused", shop="quiet_hours: {jitter: 0s}\n")).say(order).wait("03-09")
    (trigger,) = desk.triggers
    run = ("coupon_unused", "u-1", "pack", "c-4", order.event_id, 0)
    assert trigger.trigger_id == ids.trigger_id(*run, 1)
    assert trigger.run_id == ids.run_id(*run)
    assert (trigger.rule, trigger.rule_version, trigger.family, trigger.step) == ("coupon_unused", 1, "coupon", 1)
    assert (trigger.action, trigger.class_, trigger.mode, trigger.arm) == ("contact", "marketing", "live", "treated")
    assert trigger.entry == Entry(kind="coupon", key="c-4")
    assert trigger.reason == "Coupon c-4 (20.00 CNY off) from 1 March has not been used for 7 days."
    assert trigger.facts == {
        "issued_at": "2026-03-01T08:15:30+08:00",
        "value": "20.00",
        "expires_at": "2026-03-31T23:59:59+08:00",
    }
    assert trigger.evidence == (
        Evidence(event_id=order.event_id, type="OrderPaid", occurred_at="2026-03-01T08:15:30+08:00"),
    )
    assert (trigger.channel, trigger.fallbacks) == ("push", ("wechat_service", "sms"))
    assert (trigger.locale, trigger.collapse_key, trigger.priority) == ("zh-CN", "buy_again", 50)
    assert (trigger.coupons, trigger.items, trigger.offer, trigger.recheck) == (("c-4",), (), None, ())
    assert trigger.due_at == "2026-03-08T08:15:30+08:00"
    assert trigger.decided_at == trigger.not_before == "2026-03-08T09:00:00+08:00"
    assert trigger.expires_at == "2026-03-09T21:00:00+08:00"


def test_the_decision_beside_it_says_the_same() -> None:
    desk = Desk().say(issued("c-4", "03-01")).wait("03-09")
    (trigger,), (decision,) = desk.triggers, desk.decisions
    assert decision == Decision(
        decision_id=ids.decision_id(trigger.trigger_id, 0),
        sequence=0,
        final=True,
        rule=trigger.rule,
        rule_version=trigger.rule_version,
        user_id="u-1",
        entry=trigger.entry,
        run_id=trigger.run_id,
        step=1,
        outcome="fired",
        gate=None,
        reason=trigger.reason,
        facts=trigger.facts,
        evidence=trigger.evidence,
        due_at=trigger.due_at,
        decided_at=trigger.decided_at,
        trigger_id=trigger.trigger_id,
    )
    assert desk.trace.index(trigger) < desk.trace.index(decision)


def test_goods_that_run_out_are_named() -> None:
    can = line(quantity=2, units=3, title="Milk powder 900 g", image_url="https://shop/p-1.png")
    (trigger,) = Desk(catalogue("replenishment")).say(paid("o-1", "03-01", can)).wait("07-01").triggers
    assert trigger.reason == "6 x milk_powder, bought on 1 March, should run out on 29 June."
    image = "https://shop/p-1.png"
    product = {"product_id": "p-milk_powder", "product_type": "milk_powder"}
    assert trigger.items == (Item(**product, title="Milk powder 900 g", image_url=image, quantity=2),)
    assert trigger.entry == Entry(kind="product_type", key="milk_powder")


def test_silence_is_said_in_days_and_the_rule_of_a_user_is_about_the_user() -> None:
    (first, second) = Desk().say(paid("o-1", "03-01")).wait("12-31").triggers
    assert first.reason == "No purchase for 60 days, the last one on 1 March."
    assert second.reason == "No purchase for 90 days, the last one on 1 March."
    assert first.entry == Entry(kind="user", key="u-1")
    assert first.facts == {"last_order_at": "2026-03-01T12:00:00+08:00", "paid_orders": 1}
    assert first.run_id == second.run_id
    assert first.trigger_id != second.trigger_id


def test_the_users_language_and_zone_are_used() -> None:
    berlin = event(ev.ProfileUpdated, "03-01", time_zone="Europe/Berlin", locale="de-DE")
    (trigger,) = Desk().say(paid("o-1", "03-01"), berlin).wait("05-01").triggers
    assert trigger.locale == "de-DE"
    assert trigger.due_at == "2026-04-30T06:00:00+02:00"


def test_a_pack_is_spoken_of_by_the_coupon_that_expires_first() -> None:
    pack = [issued(f"c-{n}", "03-01", f"{n}0.00", pack_id="p-1", expires_at=f"06-0{n}") for n in (2, 1)]
    (trigger,) = Desk().say(*pack).wait("03-09").triggers
    assert trigger.entry == Entry(kind="pack", key="p-1")
    assert trigger.coupons == ("c-1",)
    assert "c-1 (10.00 CNY off)" in trigger.reason


def test_nothing_is_to_be_sent_after_the_coupon_has_expired() -> None:
    rules = catalogue(
        rule_text(
            enter="{on: CouponIssued, key: coupon}",
            ends=None,
            steps='[{at: "coupon.expires_at - 1h"}, {after: 2h}]',
        )
    )
    desk = Desk(rules).say(issued("c-1", "03-01", expires_at="03-05")).wait("03-06")
    assert [t.expires_at for t in desk.triggers] == ["2026-03-05T12:00:00+08:00"]
    assert [(d.step, d.outcome) for d in desk.decisions] == [(1, "fired"), (2, "expired")]


def test_a_shadow_rule_says_so_and_its_retraction_too() -> None:
    rules = catalogue(rule_text(mode="shadow"))
    desk = Desk(rules).say(paid("o-1", "03-01")).wait("03-11").say(refunded("o-1", "03-11 13:00"))
    assert [t.mode for t in desk.triggers] == ["shadow"]
    (back,) = desk.retractions
    assert back.mode == "shadow"
    assert back.retraction_id == ids.retraction_id(desk.triggers[0].trigger_id)
    assert (back.step, back.run_id, back.entry) == (1, desk.triggers[0].run_id, desk.triggers[0].entry)
    assert back.decided_at == "2026-03-11T13:00:00+08:00"


def test_a_retraction_that_follows_a_deferred_one_goes_on_counting() -> None:
    night = catalogue("coupon_unused", shop="quiet_hours: {jitter: 0s}\n")
    desk = Desk(night).say(issued("c-1", "03-01 22:00")).wait("03-09 09:00").say(redeemed("c-1", "03-09 08:00"))
    assert [(d.outcome, d.sequence, d.final) for d in desk.decisions] == [
        ("deferred", 0, False),
        ("fired", 1, True),
        ("retracted", 2, False),
    ]
    assert len({d.decision_id for d in desk.decisions}) == 3


def test_only_the_steps_that_have_not_expired_are_retracted() -> None:
    rules = catalogue(rule_text(steps="[{after: 1d}, {after: 1d}, {after: 1d}]"))
    desk = Desk(rules).say(paid("o-1", "03-01")).wait("03-04 12:00").say(refunded("o-1", "03-04 12:30"))
    assert [t.step for t in desk.triggers] == [1, 2, 3]
    assert [back.step for back in desk.retractions] == [2, 3]


def test_what_is_counted_is_counted_by_rule() -> None:
    desk = Desk(SHOP).say(issued("c-1", "03-01"), paid("o-1", "03-01")).wait("12-31")
    counts = desk.tallies
    assert counts["runs", "entered", "coupon_unused"] == counts["runs", "entered", "winback"] == 1
    assert counts["triggers", "coupon_unused"] == counts["decisions", "coupon_unused", "fired"] == 2
    assert counts["triggers", "winback"] == 2
