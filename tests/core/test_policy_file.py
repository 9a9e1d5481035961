"""The shop policy: read, defaulted, and every mistake of both files reported at once with its line."""

from __future__ import annotations

import pytest

from app.core import policy_file
from app.core.policy import SHOP, Cap, Period, QuietHours, StageMove
from app.core.problems import CatalogueError
from schemas.triggers import Offer
from tests.core.shop import DAY, MINUTE, at


def problems(shop: str = "", intervals: str = "") -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        policy_file.read(shop, intervals)
    return [str(problem) for problem in caught.value.problems]


def test_what_is_left_out_has_the_default() -> None:
    assert policy_file.read("", "") == SHOP
    assert policy_file.read("quiet_hours:\n", "") == SHOP
    assert policy_file.read("quiet_hours: {jitter: 0s}", "").quiet == QuietHours(21 * 60, 9 * 60, 0)


def test_a_time_of_day_needs_no_quotes() -> None:
    quiet = policy_file.read("quiet_hours: {from: 22:30, until: 07:15}", "").quiet
    assert quiet[:2] == (22 * 60 + 30, 7 * 60 + 15)


def test_everything_can_be_set() -> None:
    policy = policy_file.read(
        "zone: Europe/Berlin\nlocale: de\nreplenishment_lead: 5d\n"
        'quiet_hours: {from: "22:30", until: "07:15", jitter: 5min, exempt: [page]}\n',
        "milk_powder: 20\neye_drops: 1.5\n",
    )
    assert policy.zone.key == "Europe/Berlin"
    assert policy.locale == "de"
    assert policy.quiet == QuietHours(22 * 60 + 30, 7 * 60 + 15, 5 * MINUTE)
    assert policy.quiet_exempt == {"page"}
    assert policy.lead == 5 * DAY
    assert policy.intervals == {"milk_powder": 20 * DAY, "eye_drops": 3 * DAY // 2}


def test_all_mistakes_of_both_files_are_reported_at_once_with_their_lines() -> None:
    shop = """\
zone: Asia/Shangai
lokale: zh-CN
replenishment_lead: 3 days
quiet_hours:
  from: 9:00
  until: "25:00"
  jitter: soon
  exemt: [page]
  exempt: [page, owl]
"""
    intervals = "milk_powder: 20\ndiapers: -1\nwipes: many\nsoap: true\nbleach: 99999\nglue: .nan\n"
    days = "write how many days one unit lasts, such as 20."
    assert problems(shop, intervals) == [
        "shop.yaml:2: There is no setting 'lokale' here. Did you mean 'locale'?",
        "shop.yaml:8: There is no setting 'exemt' here. Did you mean 'exempt'?",
        "shop.yaml:1: 'Asia/Shangai' is no time zone. Did you mean 'Asia/Shanghai'?",
        "shop.yaml:5: '9:00' is no time of day. Write hours and minutes in quotes, such as \"09:00\".",
        "shop.yaml:6: '25:00' is no time of day. Write hours and minutes in quotes, such as \"09:00\".",
        "shop.yaml:7: 'soon' is not a duration: write a whole number and a unit, such as 7d, 36h, 15min or 30s.",
        "shop.yaml:9: 'owl' is no channel. Known: chat_card, email, in_app, page, push, sms, wechat_service.",
        "shop.yaml:3: '3 days' is not a duration: write 3d.",
        f"intervals.yaml:2: The interval of 'diapers' is '-1': {days}",
        f"intervals.yaml:3: The interval of 'wipes' is 'many': {days}",
        f"intervals.yaml:4: The interval of 'soap' is 'true': {days}",
        f"intervals.yaml:5: The interval of 'bleach' is '99999': {days}",
        f"intervals.yaml:6: The interval of 'glue' is 'nan': {days}",
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("asia/shanghai", "Asia/Shanghai"), ("Shanghai", "Asia/Shanghai"), ("Berlln", "Europe/Berlin")]
    + [("new york", "America/New_York"), ("Europe/Berln", "Europe/Berlin")],
)
def test_the_zone_that_was_meant_is_suggested(written: str, meant: str) -> None:
    assert problems(f"zone: {written}") == [f"shop.yaml:1: '{written}' is no time zone. Did you mean '{meant}'?"]


@pytest.mark.parametrize("zone", ["Asia", "CST", "GMT+8", "''", "../etc/passwd", "5", "[1]"])
def test_no_zone_is_taken_for_one(zone: str) -> None:
    (problem,) = problems(f"zone: {zone}")
    assert problem.endswith("is no time zone. Write an IANA name such as Asia/Shanghai.")


@pytest.mark.parametrize("hours", ["none", "[21, 9]", "5"])
def test_quiet_hours_that_are_no_mapping_are_not_the_default_in_silence(hours: str) -> None:
    (problem,) = problems(f"\nquiet_hours: {hours}")
    assert problem.startswith("shop.yaml:2: 'quiet_hours' is a mapping with from, until, jitter, exempt, not")


def test_channels_without_quiet_hours_are_a_list() -> None:
    (problem,) = problems("quiet_hours: {exempt: push}")
    assert problem == "shop.yaml:1: 'exempt' is a list of channels such as [page, in_app], not 'push'."


def test_what_the_shop_decides_for_all_rules_is_read() -> None:
    policy = policy_file.read(
        """
consent: {push: allowed, sms: quota}
caps:
  - {limit: 3, calendar: 2d, channel: sms}
  - {limit: 1, rolling: 31d, family: coupon}
arbitration: 30min
holdout: {share: 0.05, salt: spring}
calendar:
  - {name: "618", from: 2026-06-18T00:00:00+08:00, until: "2026-06-19T00:00:00+08:00", mute: all}
  - {name: sale, from: "2026-07-01T00:00:00+08:00", until: "2026-07-02T00:00:00+08:00", postpone: [winback]}
usual_gap: 20d
magic_number: 4
companions: {milk_powder: diapers}
offers: {ten: {kind: amount, value: "10.00", currency: CNY}, gift: {kind: gift}, plain: {}}
stages:
  - {from: [""], to: growth, on: OrderPaid, orders: 1}
  - {from: [growth], to: decline, silence: at_risk}
""",
        "",
    )
    assert policy.consent == {"push": "allowed", "sms": "quota"}
    assert policy.caps == (Cap(3, 2, True, "sms", None), Cap(1, 31, False, None, "coupon"))
    assert (policy.window, policy.holdout_share, policy.holdout_salt) == (30 * MINUTE, 0.05, "spring")
    assert policy.calendar == (
        Period("618", at("06-18 00:00"), at("06-19 00:00"), frozenset(), False),
        Period("sale", at("07-01 00:00"), at("07-02 00:00"), frozenset({"winback"}), True),
    )
    assert (policy.usual_gap, policy.magic_number) == (20 * DAY, 4)
    assert policy.companions == {"milk_powder": "diapers"}
    assert policy.offers == {
        "ten": Offer(batch="ten", kind="amount", value="10.00", currency="CNY"),
        "gift": Offer(batch="gift", kind="gift"),
        "plain": Offer(batch="plain", kind="amount"),
    }
    assert policy.stages == (
        StageMove(frozenset({""}), "growth", "OrderPaid", None, 1),
        StageMove(frozenset({"growth"}), "decline", None, "at_risk", 0),
    )
    assert policy_file.read("caps: []", "").caps == ()


_TIMES = "from: '2026-06-18T00:00:00Z', until: '2026-06-19T00:00:00Z'"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("caps: 5", "'caps' is a list."),
        ("caps: [5]", "A cap is written as a mapping, not as '5'."),
        ("caps: [{limit: 1, rolling: 1d, chanel: sms}]", "A cap has no 'chanel'. Did you mean 'channel'?"),
        ("caps: [{limit: 1}]", "A cap has one window: 'calendar: 1d' or 'rolling: 7d'."),
        ("caps: [{limit: 1, rolling: 1d, calendar: 1d}]", "A cap has one window: 'calendar: 1d' or 'rolling: 7d'."),
        ("caps: [{rolling: 1d}]", "A cap needs 'limit'."),
        ("caps: [{limit: 0, rolling: 1d}]", "A cap allows one contact at least; a channel is closed under 'consent'."),
        ("caps: [{limit: -1, rolling: 1d}]", "'-1' is no count: write a whole number."),
        ("caps: [{limit: true, rolling: 1d}]", "'true' is no count: write a whole number."),
        ("caps: [{limit: 1, rolling: 36h}]", "The window of a cap is 1 to 31 whole days."),
        ("caps: [{limit: 1, rolling: 0d}]", "The window of a cap is 1 to 31 whole days."),
        ("caps: [{limit: 1, rolling: 32d}]", "The window of a cap is 1 to 31 whole days."),
        ("caps: [{limit: 1, rolling: 1d, channel: smss}]", "'smss' is no channel. Did you mean 'sms'?"),
        ("consent: [push]", "'consent' is a mapping, one entry a line, not '[push]'."),
        ("consent: {push: yess}", "'yess' is no consent for push. Known: allowed, denied, quota."),
        ("consent: {pusch: allowed}", "'pusch' is no channel. Did you mean 'push'?"),
        ("companions: [milk]", "'companions' is a mapping, one entry a line, not '[milk]'."),
        (
            "companions: {milk: }",
            "What goes with milk is another product type, not 'nothing': write one, or take the line out.",
        ),
        (
            "companions: {milk: ''}",
            "What goes with milk is another product type, not '': write one, or take the line out.",
        ),
        (
            "companions: {milk: [tea]}",
            "What goes with milk is another product type, not '[tea]': write one, or take the line out.",
        ),
        (
            "companions: {milk: milk}",
            "What goes with milk is another product type, not 'milk': write one, or take the line out.",
        ),
        ("holdout: {share: 2}", "'2' is no share: write a number from 0 to 1, such as 0.05 for 5 %."),
        ("holdout: {share: true}", "'true' is no share: write a number from 0 to 1, such as 0.05 for 5 %."),
        ("offers: 5", "'offers' is a mapping, one entry a line, not '5'."),
        ("offers: {ten: }", "The offer 'ten' is written as a mapping, not as 'nothing'."),
        ("offers: {ten: {value: 10}}", "'10' is no value of an offer. Write it as value: \"10.00\"."),
        (
            "offers: {ten: {min_spend: '80,00'}}",
            "'80,00' is no min_spend of an offer. Write it as min_spend: \"10.00\".",
        ),
        ("offers: {ten: {currency: 1}}", "'1' is no currency of an offer. Write it as currency: CNY."),
        ("offers: {ten: {kind: [a]}}", "'[a]' is no kind of an offer. Write it as kind: amount."),
        ("consent: {push: yes}", "'true' is no consent for push. Known: allowed, denied, quota."),
        ("caps: [{limit: 1, rolling: 1d, family: coupons}]", "'coupons' is no family. Did you mean 'coupon'?"),
        ("stages: [{from: [a], to: b, on: OrderPayd}]", "'OrderPayd' is no event. Did you mean 'OrderPaid'?"),
        ("stages: [{from: [a], to: b, on: [OrderPaid]}]", "'[OrderPaid]' is no event. Did you mean 'OrderPaid'?"),
        (
            "calendar: [{name: a, from: '2026-06-19T00:00:00Z', until: '2026-06-18T00:00:00Z', mute: all}]",
            "The period ends before it begins: 'from' is the earlier one, 'until' the later.",
        ),
        (
            "calendar: [{name: a, from: 2026-06-19T00:00:00Z, until: 9999-12-31T23:59:59Z, postpone: all}]",
            "'9999-12-31T23:59:59+00:00' is too far ahead: a period of the calendar is over by the year 2200.",
        ),
        (
            "stages: [{from: [a, b], to: b, silence: at_risk}]",
            "Silence would lead from 'b' to 'b' again and again: take 'b' out of 'from'.",
        ),
        ("offers: {ten: 10}", "The offer 'ten' is written as a mapping, not as '10'."),
        ("calendar: [{name: a, from: x, mute: all}]", "A period of the calendar needs 'until'."),
        (f"calendar: [{{name: a, {_TIMES}}}]", "A period says 'mute' or 'postpone': all, or a list of rules."),
        (
            f"calendar: [{{name: a, {_TIMES}, mute: []}}]",
            "'mute' names no rule: write all, or a list of rules, or take the period out.",
        ),
        (f"calendar: [{{name: a, {_TIMES}, mute: winback}}]", "Rules are written as a list, such as [winback]."),
        ("stages: [{from: [a], to: b}]", "A move between stages happens 'on' an event or after a 'silence'."),
        ("stages: [{to: b, on: OrderPaid}]", "A move between stages needs 'from'."),
        ("stages: [{from: a, to: b, on: OrderPaid}]", "Stages are written as a list, such as [a]."),
        (
            "stages: [{from: [a], to: b, silence: churned, orders: 2}]",
            "'orders' goes with 'on': a silence moves whoever is silent, with any number of orders.",
        ),
        ("stages: [{from: [a], to: b, silence: churnt}]", "'churnt' is no silence. Did you mean 'churned'?"),
    ],
)
def test_each_mistake_of_the_shops_file_is_a_sentence_with_a_way_out(text: str, says: str) -> None:
    assert problems(f"\n{text}") == [f"shop.yaml:2: {says}"]


def test_a_row_that_an_earlier_one_hides_leads_nobody_round() -> None:
    shop = """stages:
  - {from: [decline], to: churned, silence: churned}
  - {from: [growth, decline], to: decline, silence: at_risk}
"""
    assert [move.to for move in policy_file.read(f"\n{shop}", "").stages] == ["churned", "decline"]


def test_silences_that_lead_round_in_a_circle_are_refused_row_by_row() -> None:
    shop = """stages:
  - {from: [x], to: a, silence: at_risk}
  - {from: [a], to: b, silence: at_risk}
  - {from: [b], to: c, silence: churned}
  - {from: [a, b], to: c, on: OrderPaid}
  - {from: [c], to: a, silence: churned}
"""
    why = "again and again: one of the rows on that way is by an event ('on'), or is taken out."
    assert problems(shop) == [
        f"shop.yaml:{line}: Silence alone would lead from '{stage}' back to '{stage}', {why}"
        for line, stage in ((3, "b"), (4, "c"), (6, "a"))
    ]


def test_only_the_first_row_that_fits_leads_on() -> None:
    """So a later row that would close a circle closes none; of a table that is not read whole nothing is said."""
    shop = """stages:
  - {from: [a], to: b, silence: at_risk}
  - {from: [b], to: c, silence: at_risk}
  - {from: [b], to: a, silence: churned}
"""
    assert len(policy_file.read(shop, "").stages) == 3
    assert len(problems(shop.replace("[b], to: c, silence", "[b], to: c, silent"))) == 1


@pytest.mark.parametrize("day", ["2199-12-31T23:59:59Z", "2200-01-01T00:00:00Z"])
def test_a_period_of_the_calendar_may_end_as_late_as_anybody_plans(day: str) -> None:
    assert policy_file.read(f"calendar: [{{name: a, from: 2026-06-19T00:00:00Z, until: {day}, mute: all}}]", "")


@pytest.mark.parametrize("day", ["soon", "2026-11-10"])
def test_an_instant_of_the_calendar_that_cannot_be_read_is_said_in_words(day: str) -> None:
    said = f"'{day}' is no instant: write day, time and offset, such as 2026-03-01T08:00:00+08:00."
    assert problems(f"calendar: [{{name: a, from: {day}, until: later, mute: all}}]") == [f"shop.yaml:1: {said}"]


def test_each_wrong_entry_of_a_mapping_is_said_in_its_line() -> None:
    shop = "consent:\n  push: yes\n  sms: no\n  email: allowed\noffers:\n  ten: 10\n  gift: {kind: gift}\n  five: 5\n"
    assert [problem.partition(": ")[0] for problem in problems(shop)] == [f"shop.yaml:{line}" for line in (2, 3, 6, 8)]


def test_offers_are_known_by_their_names_even_when_they_are_wrong() -> None:
    policy, found = policy_file.partly("offers: {ten: {value: 10}}", "")
    assert (list(policy.offers), len(found)) == (["ten"], 1)
    assert policy_file.readable("offers: {ten: {value: 10}}")
    assert policy_file.readable("")
    assert not policy_file.readable("offers: [")


def test_rules_that_the_calendar_names_and_that_are_none_are_said_in_their_line() -> None:
    shop = f"""calendar:
  - {{name: a, {_TIMES}, mute: all}}
  - {{name: b, {_TIMES}, postpone: [winback, winbak, 5]}}
"""
    assert [str(problem) for problem in policy_file.unknown_rules(shop, ["winback"])] == [
        "shop.yaml:3: The calendar names a rule 'winbak'. There is none. Did you mean 'winback'?",
        "shop.yaml:3: The calendar names a rule '5'. There is none. Known: winback.",
    ]
    assert policy_file.unknown_rules("zone: Asia/Shanghai", []) == []
