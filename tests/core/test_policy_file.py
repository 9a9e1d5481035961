"""The shop policy: read, defaulted, and every mistake of both files reported at once with its line."""

from __future__ import annotations

import pytest

from app.core import policy_file
from app.core.policy import SHOP, QuietHours
from app.core.problems import CatalogueError
from tests.core.shop import DAY, MINUTE


def problems(shop: str = "", intervals: str = "") -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        policy_file.read(shop, intervals)
    return [str(problem) for problem in caught.value.problems]


def test_what_is_left_out_has_the_default() -> None:
    assert policy_file.read("", "") == SHOP
    assert policy_file.read("quiet_hours:\n", "") == SHOP
    assert policy_file.read("quiet_hours: {jitter: 0s}", "").quiet == QuietHours(21 * 60, 9 * 60, 0)


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
  from: 21:00
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
        "shop.yaml:1: 'Asia/Shangai' is no time zone. Write an IANA name such as Asia/Shanghai.",
        "shop.yaml:5: '1260' is no time of day. Write it in quotes, such as \"21:00\".",
        "shop.yaml:6: '25:00' is no time of day. Write it in quotes, such as \"21:00\".",
        "shop.yaml:7: 'soon' is not a duration: write a whole number and a unit, such as 7d, 36h, 15min or 30s.",
        "shop.yaml:9: 'owl' is no channel. Known: chat_card, email, in_app, page, push, sms, wechat_service.",
        "shop.yaml:3: '3 days' is not a duration: write a whole number and a unit, such as 7d, 36h, 15min or 30s.",
        f"intervals.yaml:2: The interval of 'diapers' is '-1': {days}",
        f"intervals.yaml:3: The interval of 'wipes' is 'many': {days}",
        f"intervals.yaml:4: The interval of 'soap' is 'True': {days}",
        f"intervals.yaml:5: The interval of 'bleach' is '99999': {days}",
        f"intervals.yaml:6: The interval of 'glue' is 'nan': {days}",
    ]


@pytest.mark.parametrize("zone", ["Asia", "''", "../etc/passwd", "5", "[1]"])
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
