"""`lifecycle rules show`: every setting of a rule is said in words, and what is said is what the engine does."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.backtest.driver import Driver
from app.core import catalogue_file as reader
from app.core import facts
from app.core.calendar import AHEAD
from app.core.happenings import Refused
from app.core.looks import VISIT_GAP
from app.core.problems import located
from app.core.row import Row
from app.core.scope import AFTERMATH, AT_RISK_MIN, CHURNED_MIN, SILENCES, VARIABLES
from app.explain import rule as explained
from app.explain import sending, things
from app.explain.language import PHRASES
from app.rulebook import POLICY_FILES, SHIPPED, load
from schemas.codec import DecodeOptions, decode
from schemas.events import EVENT_TYPES, Event
from schemas.instant import DAY, MINUTE
from tests.cli.shop import NUDGE, POLICY, THANKS, event, run, shop, words

RULES = {
    path.stem: located(path.read_text(), path.name, [])[0]
    for path in sorted(SHIPPED.glob("*.yaml"))
    if path.name not in POLICY_FILES
}
OTHERS = {
    "live": "shadow", "marketing": "transactional", "contact": "grant", "once": "after_exit", "drop": "defer",
    "OrderPaid": "OrderPlaced", "user": "order", "order": "user", "coupon": "pack", "pack": "coupon", "cart": "user",
    "yearly": None, "line": None, "first_order": None, "instead": None, True: None,
}  # fmt: skip


def leaves(data: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The way to each single setting."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from leaves(value, *path, name)
    elif isinstance(data, list):
        for position, value in enumerate(data):
            yield from leaves(value, *path, position)
    else:
        yield path


def other(value: Any) -> Any:
    """Something else that a file might have there, or nothing where there is nothing else."""
    if type(value) is int:
        return value + 1
    return OTHERS.get(value, "waited" if value in VARIABLES else f"{value}_x")


def changed(rule: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    data = copy.deepcopy(rule)
    place: Any = data
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = other(place[path[-1]])
    return data


def paragraph(text: str) -> str:
    return words(" ".join(explained.paragraph(located(text, "rule.yaml", [])[0])))


def with_setting(line: str, text: str = NUDGE) -> str:
    """The paragraph of a rule with one setting put in, or in the place of another."""
    name = line.partition(":")[0]
    return paragraph("".join(each for each in text.splitlines(True) if not each.startswith(f"{name}:")) + line + "\n")


# -- nothing is left out


@pytest.mark.parametrize("name", RULES)
def test_every_setting_of_a_shipped_rule_is_said_and_none_is_left_as_it_stands(name: str) -> None:
    rule = RULES[name]
    shown = explained.shown(rule)
    assert not [line for line in shown if line.startswith("Also set")]
    # All entries of a rule have the key of the first: the reader sees to it.
    paths = [path for path in leaves(rule) if not (path[0] == "enter" and path[1] != 0 and path[-1] == "key")]
    assert len(paths) > 10
    assert [path for path in paths if explained.shown(changed(rule, path)) == shown] == []


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("holdout: 0.05", "Of all users 5 % are held out of it, so that the others can be compared with them."),
        ("paused: hold", "It is paused: what comes due waits until it is no longer worth sending."),
        ("paused: skip", "It is paused: what comes due is dropped."),
        ("paused: expire", "It is paused: what comes due counts as no longer worth sending."),
        ("on_change: finish", "Whoever entered under another version finishes under that one."),
        ("on_change: follow", "Whoever entered under another version goes on under this one."),
        ("on_change: restart", "Whoever entered under another version begins anew under this one."),
        ("on_change: exit", "Whoever entered under another version is out of it."),
        ("start: state_only", "Nothing that was due before the rule was switched on is sent."),
        ("recheck: [stock, price]", "the sender should ask once more about: stock and price."),
        ("repeat: yearly", "After its last step it begins anew: it comes every year."),
        ("facts: [user.came_back]", "The facts that go with it: whether the user was seen again more than half an"),
    ],
)
def test_what_no_shipped_rule_sets_has_its_words_too(setting: str, sentence: str) -> None:
    assert sentence not in paragraph(NUDGE)
    said = with_setting(setting)
    assert sentence in said
    assert "Also set" not in said


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("on_cap: defer", "A marketing contact whose channels have all reached their frequency caps waits until one"),
        ("on_cap: drop", "A marketing contact whose channels have all reached their frequency caps is dropped."),
        ("once_in: 7d", "Within 7 days only one of a user's runs may write, with all its steps; what others would say"),
    ],
)
def test_what_holds_a_contact_back_is_said_of_contacts_only(setting: str, sentence: str) -> None:
    contact = NUDGE.replace("priority: 50", f"priority: 50\n  {setting}")
    assert sentence in paragraph(contact)
    grant = paragraph(contact.replace("action: contact", "action: grant"))
    assert sentence not in grant
    assert f"Also set: send.{setting}" in grant


def test_the_names_of_the_settings_are_those_of_the_reader() -> None:
    assert explained._SAID == reader._TOP
    assert sending._OF_ANY | sending._OF_A_CONTACT == reader._SEND


# -- what is said is so


@pytest.mark.parametrize("name", ["birthday", "anniversary"])
def test_what_comes_every_year_is_not_over_after_its_step(name: str) -> None:
    said = words(run("rules", "show", name).stdout)
    assert "After its last step it begins anew: it comes every year." in said
    assert "↻ and so on, a year later" in said
    assert "the run is over" not in said
    assert "Its next step is timed anew when the profile names another time zone (ProfileUpdated)." in said
    assert AHEAD == 7 * DAY  # as the phrase of the glossary has it


def test_a_pack_ends_with_the_last_coupon_that_is_left_of_it() -> None:
    said = words(run("rules", "show", "coupon_unused").stdout)
    assert (
        "It ends at once when a coupon of the pack is redeemed (CouponRedeemed), when the last coupon that is left of "
        "the pack is revoked (CouponRevoked) or at the coupon's expiry."
    ) in said
    assert "It stands still while all that is left of the pack is locked by unpaid orders (CouponLocked), until" in said
    assert "A coupon that is in no pack is one by itself, and what is said of the coupon is of the one that" in said
    assert "✕ over at any time before: when the last coupon that is left of the pack is revoked" in said


def test_nothing_goes_out_for_a_coupon_that_is_over_whether_or_not_the_rule_says_so() -> None:
    over = "Once the coupon has expired, nothing goes out."
    assert over not in paragraph(NUDGE)
    assert over in with_setting("ends: [{on: CouponRedeemed}]")
    assert over not in paragraph(THANKS)


def test_an_end_is_said_of_the_very_thing_that_the_run_is_about() -> None:
    said = words(run("rules", "show", "checkout_reminder").stdout)
    assert "It ends at once when that order, or a part of it, is paid (OrderPaid); when that order is cancelled" in said
    assert "when that order, or a part of it, is placed (OrderPlaced), if that order is not open;" in said
    of_others = "when any order of the user is {} after the entry, if the run's own order is not open"
    assert of_others.format("placed (OrderPlaced)") in said
    assert of_others.format("paid (OrderPaid)") in said
    assert "still open" not in said


@pytest.mark.parametrize(
    ("key", "end", "sentence"),
    [
        ("user", "on: OrderPaid", "when an order is paid (OrderPaid)"),
        ("order", "on: OrderShipped", "when that order is shipped (OrderShipped)"),
        ("order", "on: DepositPaid", "when a deposit is paid for that order (DepositPaid)"),
        ("coupon", "on: CouponLocked", "when that coupon is locked by an unpaid order (CouponLocked)"),
        ("pack", "on: CouponLocked", "when a coupon of the pack is locked by an unpaid order (CouponLocked)"),
        ("cart", "on: CartUpdated", "when that cart changes (CartUpdated)"),
        ("cart", "on: UserLoggedIn, same: user", "when the user visits (UserLoggedIn) after the entry"),
        ("category", "on: ProductViewed", "when a product of that category is viewed (ProductViewed)"),
        ("category", "on: UserLoggedIn", "when the user visits (UserLoggedIn)"),
        (
            "product_type",
            "on: OrderPaid, same: product_type",
            "when an order with something of that product type, and not as a gift, is paid (OrderPaid)",
        ),
        ("coupon", "on: Other", "when Other"),
        ("coupon", "at: coupon.expires_at", "at the coupon's expiry"),
        (
            "coupon",
            "on: CouponRevoked, when: coupon.value_minor > 5",
            "when that coupon is revoked (CouponRevoked), if that coupon's value in cents is more than 5",
        ),
    ],
)
def test_what_ends_a_run_by_its_key(key: str, end: str, sentence: str) -> None:
    rule, _ = located(f"enter: {{on: X, key: {key}}}\nends: {{{end}}}\n", "rule.yaml", [])
    (said,) = (things.end(rule, entry) for entry in things.entries(rule, "ends"))
    assert said == sentence


def test_a_transactional_step_is_not_called_marketing() -> None:
    out = run("rules", "show", "checkout_reminder").stdout
    assert re.search(r"^  1  a transactional contact by push, else wechat_service or sms$", out, re.M)
    assert re.search(r"^  2  a marketing contact by push, else wechat_service or sms$", out, re.M)
    said = words(out)
    assert "sms, transactional in step 1 and marketing in step 2; it may be sent for 16 hours." in said
    assert "only the one with the highest goes out; what comes in step 1 competes with nothing." in said
    assert "What is transactional needs no consent to marketing, and meets neither frequency caps nor" in said
    assert "transactional" not in run("rules", "show", "cart_abandoned").stdout


@pytest.mark.parametrize("name", ["post_purchase_offer", "welcome_pack"])
def test_what_goes_out_at_once_competes_with_nothing(name: str) -> None:
    assert "Its priority is 10, but it competes with nothing." in words(run("rules", "show", name).stdout)


def test_visits_are_explained_where_a_rule_uses_them() -> None:
    said = words(run("rules", "show", "browse_abandoned").stdout)
    assert (
        "the number of visits (looks at least half an hour apart) to the product looked at most is at least 2" in said
    )
    assert "view.visits: visits to the best product: looks at it half an hour apart, or more" in said
    assert VISIT_GAP == 30 * MINUTE


def test_the_silences_are_those_that_the_phrases_name() -> None:
    assert "one and a half times" in PHRASES["silence.at_risk"]
    assert "; 30 days at least)" in PHRASES["silence.at_risk"]
    assert (SILENCES["at_risk"](100 * DAY), AT_RISK_MIN) == (150 * DAY, 30 * DAY)
    assert "three times" in PHRASES["silence.churned"]
    assert "; 60 days at least)" in PHRASES["silence.churned"]
    assert (SILENCES["churned"](100 * DAY), CHURNED_MIN) == (300 * DAY, 60 * DAY)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "reactivated",
            "but this: when the order that it was entered by is cancelled, or refunded as a whole, what is",
        ),
        ("post_purchase_offer", "but this: when that order is cancelled, or refunded as a whole, what is out is taken"),
        ("winback", "When the order that it was entered by is cancelled, or refunded as a whole, it ends and what is"),
        ("replenishment", "When nothing of that product type is left of the order, because it was cancelled or the"),
    ],
)
def test_what_a_purchase_began_goes_back_with_it(name: str, sentence: str) -> None:
    said = words(run("rules", "show", name).stdout)
    assert sentence in said
    assert "✕ over, and what is out is taken back: when" in said


def test_what_no_purchase_began_is_not_taken_back_with_one() -> None:
    assert "cancelled" not in run("rules", "show", "anniversary").stdout


PAID = event(
    "OrderPaid", "u-1", "2026-03-01T11:00:00+08:00", order_id="o-1", total="9.00", currency="CNY",
    lines=[{"product_id": "p-1", "product_type": "tea", "quantity": 2}],
    coupons_used=["c-1"], coupons_issued=[{"coupon_id": "c-2"}],
)  # fmt: skip
#: What each kind that may say which order it is of says besides that; nothing of those that PAID says as well.
OF_AN_ORDER: dict[str, dict[str, Any]] = {
    "OrderPlaced": {name: PAID[name] for name in ("total", "currency", "lines")}, "OrderPaid": {}, "CouponIssued": {},
    "DepositPaid": {"amount": "1.00", "currency": "CNY"}, "OrderShipped": {"lines": []}, "OrderReceived": {"lines": []},
    "CheckoutStarted": {"lines": PAID["lines"]}, "CouponRedeemed": {"coupon_id": "c-3"},
    "CouponLocked": {"coupon_id": "c-3"}, "CouponRevoked": {"coupon_id": "c-3"}, "CouponReturned": {"coupon_id": "c-3"},
    "OrderRefunded": {"lines": [{"product_id": "p-1", "quantity": 1}]}, "OrderCancelled": {"reason": "late"},
    "AfterSaleOpened": {"case_id": "s"}, "AfterSaleClosed": {"case_id": "s"},
}  # fmt: skip


def test_each_event_that_may_be_of_an_order_begins_with_it_unless_it_comes_of_a_reversal() -> None:
    paid = decode("orders", b"u-1", orjson.dumps(PAID), -1, DecodeOptions())
    assert isinstance(paid, Event)
    said = facts.apply(Row("u-1"), paid, 0)
    assert not isinstance(said, Refused)
    with_an_order = {happening.kind for happening in said.happenings if happening.order_id}
    carry = {kind for kind, event_type in EVENT_TYPES.items() if "order_id" in event_type.__struct_fields__}
    assert set(things.BEGIN_WITH_AN_ORDER) == (carry | with_an_order) - AFTERMATH
    assert set(OF_AN_ORDER) == carry | with_an_order


@pytest.mark.parametrize("kind", OF_AN_ORDER)
def test_what_is_said_to_be_taken_back_with_an_order_is_what_the_engine_takes_back(kind: str, tmp_path: Path) -> None:
    rule = THANKS.replace("{on: OrderPaid, key: order}", f"{{on: {kind}, key: user}}").replace(
        "expires_after: 1h", "expires_after: 9d"
    )
    driver = Driver(load(shop(tmp_path, thanks=rule)), at="2026-03-01T00:00:00+08:00")
    its_own = event(kind, "u-1", "2026-03-01T10:00:00+08:00", order_id="o-1", **OF_AN_ORDER[kind])
    gone = event("OrderCancelled", "u-1", "2026-03-01T12:00:00+08:00", order_id="o-1")
    for each in (its_own if OF_AN_ORDER[kind] else PAID, gone):
        driver.send(each)
        driver.advance_time(each["occurred_at"])
    assert len(driver.triggers) == 1
    assert bool(driver.retractions) == bool(things.taken_back(located(rule, "rule.yaml", [])[0]))
    assert bool(driver.retractions) == ("what is out is taken back" in paragraph(rule))


def test_what_the_first_order_entered_goes_back_with_it() -> None:
    as_of = "{on: UserRegistered, key: user, as_of: first_order}"
    said = paragraph(THANKS.replace("{on: OrderPaid, key: order}", as_of))
    assert "but this: when the order that it was entered by is cancelled, or refunded as a whole" in said


@pytest.mark.parametrize(
    ("entry", "order"),
    [
        ("on: CouponIssued, key: coupon", "the order that issued the coupon, if one did, is cancelled, or refunded"),
        ("on: CouponIssued, key: pack", "the order that issued the coupon, if one did, is cancelled, or refunded"),
        ("on: CouponRedeemed, key: coupon", "the order that used the coupon, if one did, is cancelled, or refunded"),
        ("on: CouponRedeemed, key: order", "that order is cancelled, or refunded"),
        ("on: CouponLocked, key: coupon", "the order that holds the coupon, if one does, is cancelled, or refunded"),
    ],
)
def test_a_coupon_of_an_order_goes_back_with_it(entry: str, order: str) -> None:
    said = paragraph(THANKS.replace("on: OrderPaid, key: order", entry))
    assert f"Nothing ends it before its last step but this: when {order} as a whole, what is out is taken back." in said


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("winback", "step 1: when three times the user's usual gap between purchases (the shop's while the user has"),
        ("winback", "has passed since the entry, with the offer 'winback_small'; step 2: 30 days after step 1 was due"),
        ("second_order_nudge", "(the shop's while the user has none) has passed since the entry"),
    ],
)
def test_a_length_that_is_the_users_own_is_not_mistaken_for_one_after_the_entry(name: str, sentence: str) -> None:
    assert sentence in words(run("rules", "show", name).stdout)


@pytest.mark.parametrize("name", ["at_risk", "winback", "second_order_nudge", "reactivated"])
def test_a_rhythm_that_the_user_does_not_have_is_said_to_be_the_shops(name: str) -> None:
    said = explained.paragraph(RULES[name])
    assert "user's usual gap between purchases (the shop's while the user has none" in words(" ".join(said))
    assert "usually comes every" not in RULES["at_risk"]["reason"]


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("second_order_nudge", "likely (the shop's magic number: 3)"),
        ("second_order_nudge", "else the shop's (the shop's usual gap: 36 hours)"),
        ("replenishment", "how long before the run-out to remind (the shop's lead: 5 days)"),
        ("at_risk", "silence beyond the user's rhythm (the shop's usual gap: 36 hours)"),
    ],
)
def test_a_number_of_the_shop_stands_beside_the_name_that_it_is_in(rule: str, line: str, tmp_path: Path) -> None:
    numbers = POLICY + "usual_gap: 36h\nmagic_number: 3\nreplenishment_lead: 5d\n"
    text = (SHIPPED / f"{rule}.yaml").read_text()
    assert line in words(run("rules", "show", rule, "--dir", shop(tmp_path, **{rule: text, "shop": numbers})).stdout)
    assert not [name for name in explained.glossary(RULES[rule]) if "the shop's " in name.partition("(")[2]]


def test_what_is_marketing_waits_for_the_end_of_an_after_sale_case_and_nothing_else_does() -> None:
    waits = "What is marketing waits, while it is worth sending, as long as the user has an open after-sale case, of"
    assert waits in paragraph(NUDGE)
    assert waits not in paragraph(NUDGE.replace("class: marketing", "class: transactional"))
    assert waits not in paragraph(THANKS)


@pytest.mark.parametrize("name", ["checkout_reminder", "repurchase_coupon"])
def test_what_has_no_name_is_not_known_again(name: str) -> None:
    said = "A checkout that names neither an order nor itself may enter again once its run is over."
    assert (said in words(run("rules", "show", name).stdout)) is (name == "checkout_reminder")


def test_a_condition_that_is_asked_of_every_event_is_said_once() -> None:
    said = words(run("rules", "show", "first_order_gift").stdout)
    assert said.count("the user's history is known from its beginning") == 1
    assert "; each time only if the user's history is known from its beginning and" in said
    assert "there was no purchase before the entry" in said
    assert "it is not so that" not in said


def test_a_shadow_grant_is_said_to_be_none() -> None:
    assert "no contact is made; but the rule is in shadow mode, so nothing is really sent." in paragraph(THANKS)
