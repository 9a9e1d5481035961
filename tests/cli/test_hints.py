"""What a shop's night and window make of its rules is said beside the answer, where some of it would never be sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.explain.hints import hints
from app.rulebook import load
from tests.cli.shop import NUDGE, POLICY, run, shop
from tests.core.shop import OPEN, catalogue, rule_text

NIGHT = 'quiet_hours: {{from: "21:00", until: "09:00", jitter: {}}}\n'
NO_NIGHT = 'quiet_hours: {from: "09:00", until: "09:00", jitter: 15min}\n'


def hinted(send: str, night: str, window: str, step: str = "after: 10d") -> list[str]:
    policy = OPEN.replace("arbitration: 0s", f"arbitration: {window}")
    return list(hints(catalogue(rule_text(send=f"{{{send}}}", steps=f"[{{{step}}}]"), shop=night, gates=policy)))


@pytest.mark.parametrize(
    ("night", "window", "enough", "waits"),
    [
        (NIGHT.format("15min"), "1h", 795,
         "13 h 15 min (the night, 12 h, its turn in the morning, 15 min at most and something better, 1 h)"),
        (NIGHT.format("15min"), "0s", 735,
         "12 h 15 min (the night, 12 h and its turn in the morning, 15 min at most)"),
        (NIGHT.format("0s"), "90s", 722, "12 h 2 min (the night, 12 h and something better, 2 min)"),
        (NO_NIGHT, "1h", 60, "1 h (something better, 1 h)"),
    ],
)  # fmt: skip
def test_what_the_night_and_the_window_outlast_is_spoken_of(night: str, window: str, enough: int, waits: str) -> None:
    send = "channels: [push, in_app], expires_after: {}min"
    assert hinted(send.format(enough), night, window) == []
    (said,) = hinted(send.format(59), night, window)
    assert said == (
        f"a_rule: what is due may have to wait for {waits}, and is worth sending for 59 min: some of it is never sent. "
        f"If that is not meant, write 'expires_after: {-(-enough // 60)}h' or more."
    )


@pytest.mark.parametrize(
    ("send", "step", "enough"),
    [
        ("channels: [push], class: transactional", "after: 10d", 735),  # it does not compete
        ("channels: [push], class: transactional", "after: 10d, class: marketing", 795),
        ("channels: [push]", "at_once: true", 735),
        ("channels: [page, in_app]", "after: 10d", 60),  # they know no night
    ],
)
def test_what_does_not_wait_need_not_be_worth_it(send: str, step: str, enough: int) -> None:
    night = NIGHT.format("15min")
    assert hinted(f"{send}, expires_after: {enough}min", night, "1h", step) == []
    assert len(hinted(f"{send}, expires_after: {enough - 1}min", night, "1h", step)) == 1


def test_a_grant_waits_for_nothing() -> None:
    assert hinted("action: grant, expires_after: 1min", NIGHT.format("15min"), "1h") == []


def test_offers_in_more_than_one_currency_are_spoken_of() -> None:
    larger = '{kind: amount, value: "30.00", currency: NAMED}'
    texts = [OPEN.replace("{kind: gift}", larger.replace("NAMED", currency)) for currency in ("CNY", "USD")]
    one, two = (list(hints(catalogue(rule_text(), gates=text))) for text in texts)
    assert one == []
    (said,) = two
    assert said.startswith(
        "shop.yaml: its offers are in CNY and USD. They go out as they stand there, whatever currency"
    )


def test_the_shipped_rules_outlast_the_shipped_night() -> None:
    assert list(hints(load())) == []


@pytest.mark.parametrize(
    ("send", "said"),
    [
        ("channels: [push], expires_after: 14d", False),
        ("channels: [push], expires_after: 15d", True),
        ("action: grant, expires_after: 100d", False),
    ],
)
def test_news_of_long_ago_is_spoken_of(send: str, said: bool) -> None:
    hint = (
        "a_rule: what is due may still be sent 15 days later, be it no longer true by then. If that is not meant, "
        "write an 'expires_after' of hours, or of a few days."
    )
    assert hinted(send, NO_NIGHT, "0s") == ([hint] if said else [])


def test_a_user_has_but_one_key() -> None:
    one = rule_text(enter="{on: OrderPaid, key: user}", reentry="every_key")
    (said,) = hints(catalogue(one, shop=NO_NIGHT))
    why = "a user has but one key, so 'reentry: every_key' lets nobody enter twice. Write 'once', or 'after_exit'."
    assert said == f"a_rule: {why}"
    each = rule_text(enter="{on: OrderPaid, key: order}", reentry="every_key")
    assert list(hints(catalogue(each, shop=NO_NIGHT))) == []
    assert list(hints(catalogue(rule_text(reentry="after_exit"), shop=NO_NIGHT))) == []


@pytest.mark.parametrize(
    ("steps", "late"),
    [
        ("[{after: 10d}]", "step 1"),
        ("[{after: 1h}]", "step 1"),
        ("[{after: 59min}]", ""),
        ("[{at_once: true}, {after: 1d}]", "step 2"),
        ("[{at_once: true}]", ""),
        ("[{at: coupon.expires_at - 3d}]", ""),
        ("[{at: coupon.expires_at}]", "step 1"),
        ("[{at: 'coupon.valid_from + min(7d, coupon.validity / 2)'}, {after: 1d}]", "step 2"),
        ("[{at: entered_at + 1d}, {after: 1d}]", "step 1 and 2"),
        ("[{after: coupon.validity / 2}]", ""),
    ],
)
@pytest.mark.parametrize("key", ["coupon", "pack"])
def test_a_step_that_may_come_after_its_coupon_is_spoken_of(steps: str, late: str, key: str) -> None:
    rule = {"enter": f"{{on: CouponIssued, key: {key}}}", "steps": steps, "reentry": "every_key"}

    def found(**more: str) -> list[str]:
        return list(hints(catalogue(rule_text(**{"ends": "[{on: CouponRedeemed}]", **rule, **more}), shop=NO_NIGHT)))

    hint = (
        f"a_rule: {late} may come when the coupon has expired, and is then never sent. Time it by coupon.expires_at or "
        "coupon.validity; or if it is meant, say so: 'ends: [{at: coupon.expires_at}]'."
    )
    assert found() == ([hint] if late else [])
    assert found(ends="[{on: CouponRedeemed}, {at: coupon.expires_at}]") == []
    assert found(check="coupon.expires_in > duration('0s')") == []


def test_what_begins_without_an_issue_is_nobodys_coupon() -> None:
    redeemed = rule_text(enter="{on: CouponRedeemed, key: coupon}", steps="[{after: 10d}]", ends=None)
    assert list(hints(catalogue(redeemed, shop=NO_NIGHT))) == []


@pytest.mark.parametrize(
    ("pair", "misspelt"),
    [
        ("milk_powdr: tea", "milk_powdr"),
        ("tea: Milk Powder", "Milk Powder"),
        ("milk_powder: milk", ""),
        ("milk_powder: daily_goods", ""),
        ("soup: bread", ""),
    ],
)
def test_a_companion_that_looks_misspelt_is_spoken_of(pair: str, misspelt: str) -> None:
    said = list(hints(catalogue(rule_text(reentry="after_exit"), shop=f"{NO_NIGHT}companions: {{{pair}}}\n")))
    hint = (
        f"shop.yaml, companions: '{misspelt}' has no interval, and looks like 'milk_powder', which has "
        "one. If it is a product type of its own, all is well."
    )
    assert said == ([hint] if misspelt else [])


def test_check_says_so_and_calls_it_no_mistake(tmp_path: Path) -> None:
    where = shop(tmp_path, nudge=NUDGE.replace("expires_after: 36h", "expires_after: 12h"), shop=POLICY)
    (where / "intervals.yaml").write_text("")
    result = run("rules", "check", where)
    assert (result.exit_code, result.stdout) == (0, f"2 rules, no mistakes ({where}).\n")
    assert result.stderr.startswith("nudge: what is due may have to wait for 12 h 15 min (the night")
