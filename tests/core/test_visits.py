"""What a user did without buying and what was said to the user: looks, carts, consent and contacts as facts."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from msgspec.structs import replace

from app.core import facts, visits
from app.core.facts import Facts
from app.core.guardrails import consent
from app.core.row import MAX_CARTS, MAX_SENT, MAX_VIEWS, Consent, Row, Sent, View
from schemas import events as ev
from tests.core.shop import DAY, MINUTE, SECOND, Desk, at, catalogue, event, line, paid, placed, rule_text


def known(*events: ev.Event) -> Row:
    row = Row("u-1")
    for each in events:
        after = facts.apply(row, each)
        assert isinstance(after, Facts)
        row = after.row
    return row


# -- looks


def view(when: str | int, product: str = "p-1", dwell: float | None = None, **fields: Any) -> ev.ProductViewed:
    return event(ev.ProductViewed, when, product_id=product, dwell_seconds=dwell, **fields)


def test_a_look_half_an_hour_after_the_last_one_is_another_visit() -> None:
    def visits(*minutes: float) -> int:
        return known(*[view(at("03-01") + int(m * MINUTE)) for m in minutes]).views["p-1"].visits

    assert visits(0) == 1
    assert visits(0, 29.9) == 1
    assert visits(0, 30) == 2
    assert visits(0, 29, 58) == 1
    assert visits(30, 0) == 2


def test_the_longest_look_and_the_latest_instant_count() -> None:
    seen = known(view("03-01 12:00", dwell=12.9), view("03-01 12:10", dwell=41.2), view("03-01 12:05", dwell=3)).views
    assert (seen["p-1"].dwell, seen["p-1"].last_at) == (41, at("03-01 12:10"))


def test_what_a_look_says_of_the_product_is_kept() -> None:
    told = {"category": "baby", "product_type": "milk_powder", "title": "Milk", "image_url": "https://shop/p-1.png"}
    seen = known(view("03-01", **told), view("03-02")).views["p-1"]
    assert replace(seen, looks=()) == View("p-1", at("03-02"), 2, 0, *told.values())


def test_of_too_many_products_those_looked_at_last_are_kept() -> None:
    seen = known(*[view(at("03-01") + n, f"p-{n}") for n in range(MAX_VIEWS + 3)]).views
    assert len(seen) == MAX_VIEWS
    assert "p-2" not in seen
    assert f"p-{MAX_VIEWS + 2}" in seen


def test_a_rule_of_a_category_speaks_of_the_product_that_was_looked_at_most() -> None:
    rules = catalogue(
        rule_text(
            enter="{on: ProductViewed, key: category, when: \"view.visits >= 2 || view.dwell >= duration('40s')\"}",
            ends="[{on: OrderPaid, same: category}]",
            reason='"{view.title} ({category}), {view.visits} visits, {view.dwell}"',
        )
    )
    looks = [
        view("03-01 10:00", "p-1", 41, category="baby", title="Milk"),
        view("03-01 11:00", "p-2", category="baby", title="Diapers", image_url="https://shop/p-2.png"),
        view("03-01 12:00", "p-2", 5, category="baby"),
        view("03-01 12:00", "p-3", 50, product_type="shoes"),
        view("03-01 12:00", "p-4", 50),
    ]
    desk = Desk(rules).say(*looks).wait("03-12")
    reasons = {t.entry.key: t.reason for t in desk.triggers}
    assert reasons == {
        "baby": "Diapers (baby), 2 visits, 5 seconds",
        "shoes": "p-3 (shoes), 1 visits, 50 seconds",
        "p-4": "p-4 (p-4), 1 visits, 50 seconds",
    }
    (item,) = next(t.items for t in desk.triggers if t.entry.key == "baby")
    assert (item.product_id, item.title, item.image_url) == ("p-2", "Diapers", "https://shop/p-2.png")
    bought = Desk(rules).say(*looks, paid("o-1", "03-02", line("milk_powder", category="baby"))).wait("03-12")
    assert {t.entry.key for t in bought.triggers} == {"shoes", "p-4"}


def test_a_rule_of_a_product_type_may_begin_with_a_look() -> None:
    rules = catalogue(rule_text(enter="{on: ProductViewed, key: product_type}", ends="[{on: ProductViewed}]"))
    desk = Desk(rules).say(view("03-01", "p-1", product_type="shoes"), view("03-01", "p-2"))
    assert [key for _, key, *_ in desk.timers] == ["shoes"]
    desk.say(view("03-02", "p-3", product_type="hats"))
    assert sorted(key for _, key, *_ in desk.timers) == ["hats", "shoes"]
    many = [view(at("03-03") + n, f"q-{n}") for n in range(MAX_VIEWS)]
    assert sorted(key for _, key, *_ in desk.say(*many).timers) == ["hats", "shoes"]


# -- carts


def cart(when: str | int, *lines: ev.Line, **fields: Any) -> ev.CartUpdated:
    return event(ev.CartUpdated, when, lines=lines, **fields)


def test_the_latest_picture_of_a_cart_counts() -> None:
    carts = known(cart("03-02", line(quantity=2)), cart("03-01", line(quantity=5)), cart("03-01", cart_id="b")).carts
    assert {key: sum(each.quantity for each in c.lines) for key, c in carts.items()} == {"": 2, "b": 0}


def test_an_older_picture_of_a_cart_is_no_happening() -> None:
    after = facts.apply(known(cart("03-02")), cart("03-01"))
    assert isinstance(after, Facts)
    assert after.happenings == ()


def test_a_checkout_is_known_by_its_order_or_by_itself() -> None:
    checkouts = [
        event(ev.CheckoutStarted, "03-01", lines=(line(),), order_id="o-1", checkout_id="k-1"),
        event(ev.CheckoutStarted, "03-01", lines=(), checkout_id="k-2"),
        event(ev.CheckoutStarted, "03-01", lines=()),
    ]
    assert set(known(*checkouts).carts) == {"o-1", "checkout:k-2", "checkout:"}


def test_of_too_many_carts_the_latest_are_kept() -> None:
    carts = known(*[cart(at("03-01") + n, cart_id=f"k-{n}") for n in range(MAX_CARTS + 2)]).carts
    assert len(carts) == MAX_CARTS
    assert "k-1" not in carts


def test_a_rule_of_a_cart_speaks_of_what_is_in_it_and_a_change_starts_anew() -> None:
    rules = catalogue(
        rule_text(
            enter='{on: CartUpdated, key: cart, when: "cart.size > 0"}',
            ends="[{on: CartUpdated}, {on: OrderPaid, same: user}]",
            steps="[{after: 4h}]",
            reason='"{cart.size} pieces"',
        )
    )
    goods = [line(f"t{n}", 2, title=f"T{n}") for n in range(12)]
    desk = Desk(rules).say(cart("03-01 08:00", *goods[:1])).wait("03-01 10:00").say(cart("03-01 10:00", *goods))
    (trigger,) = desk.wait("03-02").triggers
    assert (trigger.decided_at[11:16], trigger.reason, len(trigger.items)) == ("14:00", "24 pieces", 10)
    assert (trigger.items[0].product_type, trigger.items[0].title, trigger.items[0].quantity) == ("t0", "T0", 2)
    emptied = Desk(rules).say(cart("03-01 08:00", *goods), cart("03-01 09:00"))
    assert emptied.wait("03-02").triggers == []
    bought = Desk(rules).say(cart("03-01 08:00", *goods), cart("03-01 08:00", *goods, cart_id="b"))
    assert len(bought.timers) == 2
    assert bought.say(paid("o-1", "03-01 09:00")).timers == []


def test_a_rule_of_an_order_names_its_lines_or_those_of_its_checkout() -> None:
    rules = catalogue(rule_text(enter="[{on: CheckoutStarted, key: order}, {on: OrderPlaced, key: order}]", ends=None))
    checkout = event(ev.CheckoutStarted, "03-01", lines=(line("shoes"),), checkout_id="k-1")
    sent = Desk(rules).say(checkout, placed("o-1", "03-01", line("hats"))).wait("03-12").triggers
    assert {t.entry.key: [item.product_type for item in t.items] for t in sent} == {
        "checkout:k-1": ["shoes"],
        "o-1": ["hats"],
    }


def test_a_rule_of_a_user_names_no_goods_and_neither_does_a_category_without_a_look() -> None:
    rules = catalogue(rule_text(enter="{on: OrderPaid, each: line, key: category}", ends=None))
    (trigger,) = Desk(rules).say(paid("o-1", "03-01", line(category="baby"))).wait("03-12").triggers
    assert (trigger.entry.kind, trigger.entry.key, trigger.items) == ("category", "baby", ())


# -- consent


def word(when: str, channel: str = "push", granted: bool = True, **fields: Any) -> ev.ConsentChanged:
    return event(ev.ConsentChanged, when, channel=channel, granted=granted, **fields)


def test_the_later_word_counts_whatever_arrives_first() -> None:
    said = word("03-02", granted=False), word("03-01")
    refused = Consent(False, at("03-02"), refused_at=at("03-02"))
    assert known(*said).consents == known(*reversed(said)).consents == {"push": refused, "push/": refused}


def test_a_grant_adds_to_the_sends_that_are_left_unless_there_was_a_refusal() -> None:
    assert known(word("03-01", quota=2), word("03-02", quota=3)).consents["push"].quota == 5
    refused = word("03-01", quota=2), word("03-02", granted=False), word("03-03", quota=3)
    assert known(*refused).consents["push"].quota == 3
    assert known(word("03-01"), word("03-02", quota=3)).consents["push"].quota == 3
    assert known(word("03-01", granted=False, quota=3)).consents["push"].quota is None


def test_grants_add_up_whichever_is_heard_of_first_and_a_refusal_takes_those_before_it() -> None:
    grants = [word("03-01", quota=2), word("03-02", quota=3), word("03-04", quota=4)]
    for order in permutations(grants):
        assert known(*order).consents["push"].quota == 9
    for order in permutations([*grants, word("03-03", granted=False)]):
        assert known(*order).consents["push"].quota == 4
    last = Consent(False, at("03-05"), refused_at=at("03-05"))
    for order in permutations([*grants, word("03-05", granted=False)]):
        assert known(*order).consents["push"] == last


def test_a_late_word_without_a_number_changes_no_number() -> None:
    plain, numbered = word("03-01"), word("03-02", quota=3)
    assert known(numbered, plain).consents["push"].quota == 3
    assert known(word("03-03"), numbered).consents["push"].quota is None
    assert known(numbered, word("02-01", granted=False), word("01-01", granted=False)).consents["push"].quota == 3


def test_a_grant_without_a_number_is_a_new_start_whichever_is_heard_of_first() -> None:
    said = [word("03-01", quota=2), word("03-02"), word("03-03", quota=1)]
    for order in permutations(said):
        assert known(*order).consents["push"] == Consent(True, at("03-03"), 1, 1, at("03-02"))
    same = [word("03-02"), word("03-02", quota=3)]
    assert known(*same).consents == known(*reversed(same)).consents


def test_a_late_refusal_between_grants_allows_no_more_than_in_the_order_of_time() -> None:
    said = [word("03-01", quota=2), word("03-02", granted=False), word("03-03", quota=3), word("03-04", quota=1)]
    left = {known(*order).consents["push"].quota for order in permutations(said)}
    assert left == {4, 1}  # 3 + 1; and what the latest grant brought, where both had been heard of before the refusal


def test_a_use_counts_down_what_is_limited_only() -> None:
    row = Row("u-1", consents={"push": Consent(True, 1, 2), "sms": Consent(True, 1)})
    assert consent.used(row, "push", "coupon", ghost=False).consents["push"].quota == 1
    assert consent.used(row, "sms", "coupon", ghost=False) is row
    assert consent.used(row, "email", "coupon", ghost=False) is row


def test_who_unsubscribes_takes_back_every_word_before_it_and_none_after() -> None:
    gone = event(ev.Unsubscribed, "03-02", channel="push")
    before = word("03-01", category="winback"), word("03-01"), word("03-01", channel="push_b")
    refused = Consent(False, at("03-02"), refused_at=at("03-02"))
    closed = {
        "push": refused,
        "push/": refused,
        "push/winback": Consent(True, at("03-01"), refused_at=at("03-02")),  # worth nothing, and no refusal
        "push_b": Consent(True, at("03-01"), refused_at=at("03-01")),
    }
    for order in permutations([*before, gone]):
        assert known(*order).consents == closed
    after = word("03-03"), word("03-03", category="winback")
    assert (
        known(*after, gone).consents
        == known(gone, *after).consents
        == {
            "push": Consent(True, at("03-03"), refused_at=at("03-03")),
            "push/": refused,
            "push/winback": Consent(True, at("03-03"), refused_at=at("03-03")),
        }
    )
    mixed = known(word("03-03", category="winback"), gone)
    assert set(mixed.consents) == {"push", "push/", "push/winback"}


# -- contacts


def test_a_contact_of_somebody_else_is_kept_and_ours_was_counted_when_it_was_released() -> None:
    theirs = event(ev.MessageSent, "03-01", channel="push", campaign="sale")
    ours = event(ev.MessageSent, "03-01", channel="push", trigger_id="t-1")
    assert known(theirs, ours).sent == (Sent(at("03-01"), "push", "sale"),)


def test_a_message_that_went_out_on_another_channel_is_charged_to_that_one_too_once_and_at_the_latest_word() -> None:
    charged = Sent(at("03-01"), "push", "coupon", "t-1")
    row = Row("u-1", sent=(charged, Sent(at("03-01 15:00"), "push", "cart", "t-2")))

    def told(*events: ev.MessageSent) -> tuple[Sent, ...]:
        after = row
        for each in events:
            after = visits.message_sent(after, each).row
        return after.sent

    def word(when: str, channel: str, trigger: str = "t-1") -> ev.MessageSent:
        return event(ev.MessageSent, when, channel=channel, trigger_id=trigger)

    sms = replace(charged, at=at("03-02 10:00"), channel="sms")
    said = word("03-01 10:00", "push"), word("03-02 09:00", "sms"), word("03-02 10:00", "sms"), word("03-03", "email")
    for order in permutations(said):
        assert told(*order) == (*row.sent, sms, replace(charged, at=at("03-03"), channel="email"))
    assert told(word("02-28", "sms")) == (charged, replace(charged, channel="sms"), row.sent[1])
    assert told(word("03-02", "sms", "of nobody"), word("03-02", "push", "t-2")) == row.sent


def test_contacts_are_in_the_order_of_their_instants_and_within_their_bounds() -> None:
    def sent(when: int) -> ev.MessageSent:
        return event(ev.MessageSent, when, channel="push")

    start = at("01-01")
    assert [s.at for s in known(sent(start + 5), sent(start)).sent] == [start, start + 5]
    assert len(known(*[sent(start + n * DAY) for n in range(80)]).sent) == 31
    burst = known(*[sent(start + n * SECOND) for n in range(MAX_SENT + 9)])
    assert len(burst.sent) == MAX_SENT
    assert burst.sent[-1].at == start + (MAX_SENT + 8) * SECOND
