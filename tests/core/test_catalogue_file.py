"""Rule files: what they come to mean, and every mistake with its file, its line and a way out, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from app.core import catalogue_file, policy_file
from app.core.policy import Policy
from app.core.problems import CatalogueError
from app.rulebook import SHIPPED
from tests.core.shop import DAY, HOUR, SHOP, at, catalogue, rule_text

LINES = {name: number for number, name in enumerate(
    ["rule", "version", "family", "about", "enter", "ends", "steps", "send", "reason", "reentry", "more"], start=1
)}  # fmt: skip

_ISSUED = {"enter": "{on: CouponIssued, key: coupon}", "ends": None}
_BROKEN = yaml.safe_load(Path(__file__).with_name("broken_rules.yaml").read_text())


def problems(*texts: str) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        catalogue_file.read({f"{number}.yaml": text for number, text in enumerate(texts)}, Policy())
    return [str(problem) for problem in caught.value.problems]


def problem(**changes: str | None) -> tuple[str, str]:
    """The one mistake of an otherwise right rule: (name of the setting in whose line it is, text)."""
    (found,) = problems(rule_text(**changes))
    file, line, text = found.split(":", 2)
    assert file == "0.yaml"
    return next((name for name, number in LINES.items() if number == int(line)), line), text.strip()


# -- what is right


def test_the_shipped_catalogue_is_read_and_indexed_by_event() -> None:
    assert list(SHOP.rules) == ["coupon_unused", "replenishment", "winback"]
    assert [rule.name for rule, _ in SHOP.entered_by["OrderPaid"]] == ["replenishment", "winback"]
    assert [rule.name for rule, _ in SHOP.ended_by["OrderPaid"]] == ["replenishment", "winback"]
    assert [rule.name for rule in SHOP.held_by["CouponLocked"]] == ["coupon_unused"]
    coupon = SHOP.rules["coupon_unused"]
    assert (coupon.key, coupon.reentry, coupon.holds) == ("pack", "every_key", ("CouponLocked", "CouponReturned"))
    assert coupon.send.channels == ("push", "wechat_service", "sms")
    assert coupon.send.expires_after == 36 * HOUR
    assert coupon.facts == ("coupon.issued_at", "coupon.value", "coupon.expires_at")
    assert SHOP.rules["replenishment"].retime_on == {"OrderReceived", "OrderRefunded"}


def test_the_texts_of_the_shipped_files_are_all_that_is_needed() -> None:
    texts = {
        path.name: path.read_text()
        for path in SHIPPED.glob("*.yaml")
        if path.name not in ("shop.yaml", "intervals.yaml")
    }
    policy = policy_file.read((SHIPPED / "shop.yaml").read_text(), (SHIPPED / "intervals.yaml").read_text())
    assert len(catalogue_file.read(texts, policy).rules) == len(texts) == 18


def test_what_may_be_left_out_has_a_default() -> None:
    (rule,) = catalogue(rule_text(ends=None, send="{channels: [sms]}")).rules.values()
    assert (rule.ends, rule.end_at, rule.holds, rule.check, rule.facts) == ((), (), None, None, ())
    assert (rule.mode, rule.start, rule.cooldown) == ("live", None, 0)
    assert (rule.send.action, rule.send.kind, rule.send.priority, rule.send.collapse) == (
        "contact",
        "marketing",
        10,
        None,
    )
    assert rule.send.expires_after == DAY


def test_a_grant_needs_no_channel() -> None:
    (rule,) = catalogue(rule_text(send="{action: grant}")).rules.values()
    assert (rule.send.action, rule.send.channels) == ("grant", ())


def test_a_cooldown_is_a_reentry_with_a_length() -> None:
    (rule,) = catalogue(rule_text(reentry="{cooldown: 30d}")).rules.values()
    assert (rule.reentry, rule.cooldown) == ("cooldown", 30 * DAY)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("none", "none"),
        ("state_only", "state-only"),
        ("state-only", "state-only"),
        ("{since: 2026-03-01}", f"since:{at('03-01 00:00')}"),
        ("{since: 2026-03-01T12:00:00+08:00}", f"since:{at('03-01 12:00')}"),
        ("{since: '2026-03-01T04:00:00Z'}", f"since:{at('03-01 12:00')}"),
        ("{since: '2026-03-01 12:00:00'}", f"since:{at('03-01 12:00')}"),
        (None, None),
    ],
)
def test_a_start_is_what_the_shard_understands(text: str | None, start: str | None) -> None:
    (rule,) = catalogue(rule_text(start=text)).rules.values()
    assert rule.start == start


def test_a_step_at_once_is_due_with_the_entry() -> None:
    (rule,) = catalogue(rule_text(steps="[{at_once: true}, {after: 1d}]")).rules.values()
    assert [step.at_once for step in rule.steps] == [True, False]


# -- a file for each kind of mistake


@pytest.mark.parametrize("name", ["rule", "version", "family", "about", "enter", "steps", "send", "reason", "reentry"])
def test_what_is_missing_is_said(name: str) -> None:
    found = problems(rule_text(**{name: None}))
    assert f"0.yaml:1: '{name}' is missing. Every rule has one." in found


@pytest.mark.parametrize("case", _BROKEN, ids=[str(case["with"]) for case in _BROKEN])
def test_each_mistake_is_said_where_it_is_and_with_a_way_out(case: dict) -> None:
    place, message = problem(**case["with"])
    assert message == case["says"]
    assert place == case.get("line", place)


def test_an_instant_that_a_start_cannot_be_read_from_is_said_in_words() -> None:
    said = "is no instant: write day, time and offset, such as 2026-03-01T08:00:00+08:00."
    for day in ("spring", "01.03.2026"):
        assert problem(start=f"{{since: '{day}'}}")[1] == f"'{day}' {said}"


def test_an_end_without_an_event_is_a_mistake_beside_its_others() -> None:
    found = problems(rule_text(ends="[{when: 'waited > 5'}]"))
    assert len(found) == 2
    assert found[0].startswith("0.yaml:6: No event is named here. Known: AfterSaleClosed,")
    assert found[1].startswith("0.yaml:6: 'waited > 5' is not a condition: a duration (written duration('72h'))")


def test_all_mistakes_of_all_files_are_reported_at_once() -> None:
    first = rule_text(family="coupons", steps="[{after: 10 days}, {after: 1d, at: waited}]", reason="'{x.y}'")
    second = rule_text(rule="b_rule", send="{channels: [pigeon, push], priority: 1.5}")
    found = problems(first, "a: [", second, rule_text(rule="c_rule"))
    places = [tuple(each.split(":")[:2]) for each in found]
    assert places == [("0.yaml", line) for line in "37779"] + [("1.yaml", "1")] + [("2.yaml", "8")] * 2


def test_two_rules_of_one_name_are_refused() -> None:
    assert problems(rule_text(), rule_text()) == [
        "1.yaml:1: There is a rule called 'a_rule' in 0.yaml too. Give one of them another name."
    ]


def test_a_file_is_called_as_its_rule() -> None:
    files = {"a_rule.yaml": rule_text(), "b_rule.yaml": rule_text(), "2 b.yaml": f"\n{rule_text()}"}
    others = {"broken.yaml": "rule: [", "none.yaml": "", "wrong.yaml": rule_text(rule="A Rule")}
    called = "The rule of this file is called 'a_rule': rename the file to a_rule.yaml"
    assert [str(problem) for problem in catalogue_file.misnamed(files | others)] == [
        f"2 b.yaml:2: {called}.",
        f"b_rule.yaml:1: {called}, or write rule: b_rule.",
    ]


def test_lists_over_several_lines_are_pointed_into() -> None:
    text = rule_text(steps="\n  - {after: 1d}\n  - {after: x}\n", ends="\n  - {on: OrderPaid}\n  - {on: OrderPaidd}\n")
    event, timing = problems(text)
    assert event == "0.yaml:8: 'OrderPaidd' is no event. Did you mean 'OrderPaid'?"
    assert timing.startswith(
        "0.yaml:12: 'x' is not a timing: There is no 'x'. Known: entered_at, waited, user.paid_orders,"
    )


@pytest.mark.parametrize("text", ["", "# later\n", "{}"])
def test_an_empty_file_is_one_mistake(text: str) -> None:
    assert problems(text) == ["0.yaml:1: There is nothing in this file: write a rule, or take the file away."]


def test_a_file_with_a_name_alone_lacks_everything_else() -> None:
    lacking = problems("rule: a_rule\n")
    assert {each.split("'")[1] for each in lacking} == set(LINES) - {"rule", "ends", "more"}
    assert len(lacking) == 8


def test_how_long_a_rule_lives_is_only_compared_where_durations_alone_tell() -> None:
    ends = "[{on: OrderPaid}, {at: user.last_order_at}, {at: entered_at + 30d}]"
    for steps in ("[{at_once: true}, {after: 30d}]", "[{after: silence.churned}, {after: 60d}]", "[{at: entered_at}]"):
        assert "a_rule" in catalogue(rule_text(ends=ends, steps=steps)).rules


def test_offers_of_a_shop_that_cannot_be_read_are_not_missed_in_rules() -> None:
    text = rule_text(steps="[{after: 1d, offer: any}]")
    assert "a_rule" in catalogue_file.read({"0.yaml": text}, Policy(), offers_known=False).rules


def test_what_a_rule_of_the_shops_own_may_say_is_read() -> None:
    send = "{channels: [push], once_in: 7d, on_cap: drop, discount_every: 30d, coupon_in_hand: instead}"
    settings = {"holdout": "0.05", "repeat": "yearly", "on_change": "restart", "paused": "skip"}
    steps = "[{at: user.birthday - 1d, offer: winback_small, class: transactional}, {after: 1d}]"
    text = rule_text(send=send, steps=steps, goal="{on: OrderPaid, within: 7d}", **settings)
    (rule,) = catalogue(text).rules.values()
    assert (rule.holdout, rule.yearly, rule.on_change, rule.paused) == (0.05, True, "restart", "skip")
    assert rule.goal == ("OrderPaid", 7 * DAY)
    assert (rule.send.once_in, rule.send.discount_every) == (7 * DAY, 30 * DAY)
    assert (rule.send.on_cap, rule.send.coupon_instead) == ("drop", True)
    assert [(step.offer, step.kind) for step in rule.steps] == [("winback_small", "transactional"), (None, None)]
    (plain,) = catalogue(rule_text()).rules.values()
    assert (plain.goal, plain.paused, plain.yearly, plain.on_change) == (None, None, False, "finish")


@pytest.mark.parametrize("first", ["at: user.birthday", "at: user.anniversary - 7d + 1h", "at: ' user.birthday-7d '"])
def test_what_is_due_once_a_year_repeats_yearly(first: str) -> None:
    (rule,) = catalogue(rule_text(steps=f"[{{{first}}}, {{after: 1d}}]", repeat="yearly")).rules.values()
    assert rule.yearly


@pytest.mark.parametrize(
    "first",
    ["after: 1d", "at_once: true", "at: user.registered_at + 3d", "at: 'min(user.birthday, entered_at + 1d)'"],
)
def test_what_would_be_due_again_at_once_repeats_never(first: str) -> None:
    place, message = problem(steps=f"[{{{first}}}, {{at: user.birthday}}]", repeat="yearly")
    assert place == "more"
    assert message.startswith("What repeats yearly has a first step that is due once a year, such as")


# -- what nothing would hear


def test_what_a_list_says_twice_is_said_of_each() -> None:
    found = problems(rule_text(send="{channels: [push, sms, push, sms]}", recheck="[price, price]"))
    assert [text.split(": ", 1)[1] for text in found] == [
        f"'{name}' stands here twice. Take one of them out." for name in ("push", "sms", "price")
    ]


def test_what_cannot_be_read_is_not_held_against_what_stands_beside_it() -> None:
    """Each odd value is said once, by whoever reads it."""
    assert len(problems(rule_text(enter="{on: [OrderPaid], each: line, key: category}", ends=None))) == 1
    assert len(problems(rule_text(enter="{on: OrderPaidd}", ends=None, retime_on="[OrderReceived]"))) == 1
    assert len(problems(rule_text(enter="{on: UserLoggedIn}", ends=None, retime_on="[[OrderReceived], OrderPd]"))) == 2
    assert len(problems(rule_text(send="push"))) == 1
    assert len(problems(rule_text(steps="[x]", ends="[y]", facts="z"))) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": "[{after: 20s}, {at: entered_at + 20s}, {at: entered_at + 1h + 1d - 1h}]"},
        {"steps": "[{at: user.last_order_at + 2d}, {at: user.last_order_at + 1d}]"},  # it moves
        {"steps": "[{after: user.usual_gap}, {at: entered_at + 1s}]"},
        {"steps": "[{after: user.usual_gap}, {after: 1d}, {at: entered_at + 1s}]"},
        {"steps": "[{at: coupon.expires_at - 3d}, {at: coupon.issued_at + 1d}, {after: 4d}]", **_ISSUED},
        {"steps": "[{at: coupon.expires_at - 3d}, {after: 2d}]", **_ISSUED, "ends": "[{at: coupon.expires_at - 1d}]"},
        {"steps": "[{at: coupon.expires_at - 1d}, {at: coupon.expires_at - 3d}]", **_ISSUED}
        | {"enter": "{on: CouponIssued, key: pack}"},  # of a pack another coupon may be the next
    ],
)
def test_steps_are_only_put_in_order_where_the_file_tells(settings: dict[str, str]) -> None:
    assert "a_rule" in catalogue(rule_text(**settings)).rules


@pytest.mark.parametrize(
    ("enter", "event"),
    [
        ("[{on: UserLoggedIn}, {on: OrderPaid}]", "OrderReceived"),
        ("{on: UserRegistered, as_of: first_order}", "OrderReceived"),
        ("{on: CheckoutStarted}", "OrderPlaced"),
        ("{on: CouponIssued}", "OrderReceived"),  # by an order, perhaps
        ("{on: UserLoggedIn}", "ProfileUpdated"),
    ],
)
def test_what_an_order_may_have_entered_can_be_timed_anew_by_it(enter: str, event: str) -> None:
    (rule,) = catalogue(rule_text(enter=enter, ends=None, retime_on=f"[{event}]", reentry="once")).rules.values()
    assert rule.retime_on == {event}


def test_an_end_by_an_instant_ends_the_run_that_an_event_of_another_entry_does_not() -> None:
    (rule,) = catalogue(rule_text(ends="[{on: OrderPaid}, {at: entered_at + 20d}]")).rules.values()
    assert ([end.on for end in rule.ends], len(rule.end_at)) == (["OrderPaid"], 1)
