"""Quiet hours: no message at night by the clock on the user's own wall, also when that clock changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.core import calendar
from app.core.guardrails import quiet_hours
from app.core.policy import Policy, QuietHours
from schemas import events as ev
from tests.core.shop import HOUR, MINUTE, Desk, at, catalogue, event, paid, rule_text

NIGHT = QuietHours(21 * 60, 9 * 60, 0)
SHANGHAI = ZoneInfo("Asia/Shanghai")


def instant(text: str, zone: str, fold: int = 0) -> int:
    """'2026-03-08 01:30' on the wall of that zone."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return (local.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def wall(at: int, zone: ZoneInfo) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).astimezone(zone)


def on_the_wall(at: int, zone: ZoneInfo, quiet: QuietHours) -> bool:
    """Whether the clock on the wall shows a time in the window."""
    local = wall(at, zone)
    minute = local.hour * 60 + local.minute
    if quiet.start_minute <= quiet.end_minute:
        return quiet.start_minute <= minute < quiet.end_minute
    return minute >= quiet.start_minute or minute < quiet.end_minute


# -- the boundaries


@pytest.mark.parametrize(
    ("text", "quiet"),
    [
        ("2026-03-01 20:59:59.999999", False),
        ("2026-03-01 21:00:00", True),
        ("2026-03-01 21:00:00.000001", True),
        ("2026-03-02 00:00:00", True),
        ("2026-03-02 08:59:59.999999", True),
        ("2026-03-02 09:00:00", False),
        ("2026-03-02 09:00:00.000001", False),
        ("2026-03-02 12:00:00", False),
    ],
)
def test_the_start_belongs_to_the_night_and_the_end_does_not(text: str, quiet: bool) -> None:
    end = quiet_hours.window_end(instant(text, "Asia/Shanghai"), SHANGHAI, NIGHT)
    assert end == (instant("2026-03-02 09:00", "Asia/Shanghai") if quiet else None)


def test_a_window_may_lie_within_a_day() -> None:
    nap = QuietHours(13 * 60, 14 * 60 + 30, 0)
    ends = [
        quiet_hours.window_end(instant(f"2026-03-01 {t}", "Asia/Shanghai"), SHANGHAI, nap) for t in ("12:59", "13:00")
    ]
    assert ends == [None, instant("2026-03-01 14:30", "Asia/Shanghai")]
    assert quiet_hours.window_end(instant("2026-03-01 14:30", "Asia/Shanghai"), SHANGHAI, nap) is None
    spring = [
        quiet_hours.window_end(instant(f"2026-03-29 {t}", "Europe/Berlin"), ZoneInfo("Europe/Berlin"), nap)
        for t in ("12:59", "13:00", "14:30")
    ]
    assert spring == [None, instant("2026-03-29 14:30", "Europe/Berlin"), None]


def test_a_window_from_and_until_the_same_time_is_none() -> None:
    for zone in ("Asia/Shanghai", "Europe/Berlin"):
        assert quiet_hours.window_end(instant("2026-03-29 03:00", zone), ZoneInfo(zone), QuietHours(60, 60, 0)) is None
        assert quiet_hours.clip(instant("2026-03-29 03:00", zone), ZoneInfo(zone), QuietHours(60, 60, 0)) == instant(
            "2026-03-29 03:00", zone
        )


# -- clock changes


@pytest.mark.parametrize(
    ("zone", "evening", "morning", "hours"),
    [
        ("America/New_York", "2026-03-07 21:00", "2026-03-08 09:00", 11),
        ("America/New_York", "2026-10-31 21:00", "2026-11-01 09:00", 13),
        ("Europe/Berlin", "2026-03-28 21:00", "2026-03-29 09:00", 11),
        ("Europe/Berlin", "2026-10-24 21:00", "2026-10-25 09:00", 13),
        ("Australia/Lord_Howe", "2026-04-04 21:00", "2026-04-05 09:00", 12.5),
        ("Australia/Lord_Howe", "2026-10-03 21:00", "2026-10-04 09:00", 11.5),
        ("America/Santiago", "2026-09-05 21:00", "2026-09-06 09:00", 11),
        ("America/Santiago", "2026-04-04 21:00", "2026-04-05 09:00", 13),
        ("Asia/Shanghai", "2026-03-07 21:00", "2026-03-08 09:00", 12),
    ],
)
def test_the_night_of_a_clock_change_is_as_long_as_it_is(zone: str, evening: str, morning: str, hours: float) -> None:
    start, end = instant(evening, zone), instant(morning, zone)
    assert end - start == hours * HOUR
    local = ZoneInfo(zone)
    assert [quiet_hours.window_end(moment, local, NIGHT) for moment in (start, (start + end) // 2, end - 1)] == [
        end
    ] * 3
    assert quiet_hours.window_end(start - 1, local, NIGHT) is None
    assert quiet_hours.window_end(end, local, NIGHT) is None


def test_a_night_that_ends_in_an_hour_that_the_clock_skips_ends_with_the_skip() -> None:
    quiet, zone = QuietHours(21 * 60, 2 * 60 + 30, 0), "America/New_York"
    end = quiet_hours.window_end(instant("2026-03-08 01:59", zone), ZoneInfo(zone), quiet)
    assert end == instant("2026-03-08 03:00", zone)


def test_a_night_that_begins_at_a_midnight_that_the_clock_skips_begins_with_the_skip() -> None:
    quiet, zone = QuietHours(0, 9 * 60, 0), "America/Santiago"
    change = instant("2026-09-06 01:00", zone)
    assert quiet_hours.window_end(change - 1, ZoneInfo(zone), quiet) is None
    assert quiet_hours.window_end(change, ZoneInfo(zone), quiet) == instant("2026-09-06 09:00", zone)
    assert quiet_hours.clip(change + HOUR, ZoneInfo(zone), quiet) == change


def test_a_night_that_ends_in_an_hour_that_comes_twice_ends_the_second_time() -> None:
    quiet, zone = QuietHours(21 * 60, 60 + 30, 0), "America/New_York"
    again = instant("2026-11-01 01:30", zone, fold=1)
    assert again - instant("2026-11-01 01:30", zone) == HOUR
    assert quiet_hours.window_end(instant("2026-11-01 01:15", zone, fold=1), ZoneInfo(zone), quiet) == again
    assert quiet_hours.window_end(instant("2026-11-01 01:45", zone), ZoneInfo(zone), quiet) == again


def test_a_day_that_a_zone_skipped_whole_has_no_night_of_its_own() -> None:
    zone = "Pacific/Apia"  # it had no 30 December 2011
    evening, morning = instant("2011-12-29 21:00", zone), instant("2011-12-31 09:00", zone)
    assert morning - evening == 12 * HOUR
    midnight = instant("2011-12-31 00:00", zone)
    assert (
        quiet_hours.window_end(evening, ZoneInfo(zone), NIGHT) == midnight
    )  # where the skipped morning would have been
    assert quiet_hours.window_end(midnight, ZoneInfo(zone), NIGHT) == morning  # and then it is asked again
    assert quiet_hours.window_end(morning - 1, ZoneInfo(zone), NIGHT) == morning


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("America/New_York", "2026-03-08"),
        ("America/New_York", "2026-11-01"),
        ("Europe/Berlin", "2026-03-29"),
        ("Europe/Berlin", "2026-10-25"),
        ("Australia/Lord_Howe", "2026-04-05"),
        ("Australia/Lord_Howe", "2026-10-04"),
        ("America/Santiago", "2026-09-06"),
        ("America/Santiago", "2026-04-05"),
        ("America/Sao_Paulo", "2018-11-04"),
        ("Asia/Beirut", "2026-03-29"),
        ("Africa/Cairo", "2026-04-24"),
        ("Asia/Kathmandu", "2026-04-24"),
    ],
)
@pytest.mark.parametrize("window", [(21, 9), (0, 9), (21, 0), (23, 1), (2, 3), (1, 2), (0, 23)])
def test_whenever_the_wall_clock_shows_night_it_is_night(zone: str, day: str, window: tuple[int, int]) -> None:
    local, quiet = ZoneInfo(zone), QuietHours(window[0] * 60, window[1] * 60, 0)
    noon = instant(f"{day} 12:00", zone)
    held_though_day = 0
    for moment in range(noon - 40 * HOUR, noon + 40 * HOUR, 15 * MINUTE):
        end = quiet_hours.window_end(moment, local, quiet)
        if on_the_wall(moment, local, quiet):
            assert end is not None, wall(moment, local)
        elif end is not None:
            held_though_day += 1  # only where the clock was set back to before the night: it does not begin twice
        if end is not None:
            assert end > moment
            assert not on_the_wall(end, local, quiet), wall(end, local)
            assert quiet_hours.window_end(end - 1, local, quiet) == end
        clipped = quiet_hours.clip(moment, local, quiet)
        assert clipped <= moment
        assert (clipped == moment) or quiet_hours.window_end(clipped, local, quiet) == end
        assert quiet_hours.window_end(clipped - 1, local, quiet) is None or clipped == moment
    assert held_though_day <= 4


def test_far_from_a_change_arithmetic_gives_what_the_calendar_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [at("06-01 00:00") + n * 97 * MINUTE for n in range(60)]
    zones = [ZoneInfo(name) for name in ("Asia/Shanghai", "Europe/Berlin", "America/New_York", "Asia/Kathmandu")]
    windows = [NIGHT, QuietHours(13 * 60, 15 * 60, 0), QuietHours(0, 60, 0)]
    cases = [(m, zone, quiet) for m in moments for zone in zones for quiet in windows]
    quick = [quiet_hours.window_end(*case) for case in cases]
    clipped = [quiet_hours.clip(*case) for case in cases]
    monkeypatch.setattr(calendar, "steady_offset", lambda day, zone: None)
    assert quick == [quiet_hours.window_end(*case) for case in cases]
    assert clipped == [quiet_hours.clip(*case) for case in cases]
    assert {None} < set(quick)


# -- the end of a send window


@pytest.mark.parametrize(
    ("until", "clipped"),
    [
        ("2026-03-01 20:59", "2026-03-01 20:59"),
        ("2026-03-01 21:00", "2026-03-01 21:00"),
        ("2026-03-01 23:00", "2026-03-01 21:00"),
        ("2026-03-02 08:59", "2026-03-01 21:00"),
        ("2026-03-02 09:00", "2026-03-02 09:00"),
    ],
)
def test_a_send_window_does_not_end_in_the_night(until: str, clipped: str) -> None:
    zone = "Asia/Shanghai"
    assert quiet_hours.clip(instant(until, zone), SHANGHAI, NIGHT) == instant(clipped, zone)


# -- as a gate


def desk(shop: str = "", **rule: str) -> Desk:
    rule = {"ends": None, "steps": "[{after: 10h}]", **rule}
    return Desk(catalogue(rule_text(**rule), shop=shop))


def test_what_comes_due_at_night_goes_out_in_the_morning_a_little_later_for_each_user() -> None:
    one = desk().say(paid("o-1", "03-01")).wait("03-03")
    deferred, fired = one.decisions
    assert (deferred.outcome, deferred.gate, deferred.final, deferred.sequence) == ("deferred", "quiet_hours", False, 0)
    assert deferred.reason == "It is night where the user is (Asia/Shanghai)."
    assert deferred.decided_at == deferred.due_at == "2026-03-01T22:00:00+08:00"
    assert (fired.outcome, fired.final, fired.sequence) == ("fired", True, 1)
    (trigger,) = one.triggers
    assert at("03-02 09:00") <= at(trigger.decided_at) < at("03-02 09:15")
    assert trigger.due_at == "2026-03-01T22:00:00+08:00"
    assert desk().say(paid("o-1", "03-01")).wait("03-03").triggers[0].decided_at == trigger.decided_at


def test_users_are_spread_over_the_jitter_each_always_at_the_same_minute() -> None:
    minutes = set()
    for number in range(40):
        one = desk()
        user = f"u-{number}"
        one.row = type(one.row)(user)
        one.say(paid("o-1", "03-01", user_id=user)).wait("03-03")
        minutes.add((at(one.triggers[0].decided_at) - at("03-02 09:00")) // MINUTE)
    assert minutes <= set(range(15))
    assert len(minutes) > 8


@pytest.mark.parametrize(("tick", "sent"), [(-1, "20:59:59.999999"), (0, "09:00:00"), (1, "09:00:00")])
def test_the_instant_at_which_the_night_begins_is_held_and_the_one_before_is_not(tick: int, sent: str) -> None:
    one = desk("quiet_hours: {jitter: 0s}\n", steps="[{after: 9h}]").say(paid("o-1", at("03-01") + tick)).wait("03-03")
    assert one.triggers[0].decided_at[11:-6] == sent


def test_channels_that_wait_for_the_user_know_no_night() -> None:
    one = desk(send="{channels: [page, in_app], expires_after: 1h}").say(paid("o-1", "03-01")).wait("03-03")
    (trigger,) = one.triggers
    assert trigger.decided_at == "2026-03-01T22:00:00+08:00"
    assert trigger.expires_at == "2026-03-01T23:00:00+08:00"
    mixed = desk(send="{channels: [page, push]}").say(paid("o-1", "03-01")).wait("03-03")
    assert [d.outcome for d in mixed.decisions] == ["deferred", "fired"]


def test_a_grant_knows_no_night() -> None:
    one = desk(send="{action: grant, expires_after: 2h}").say(paid("o-1", "03-01")).wait("03-03")
    (trigger,) = one.triggers
    assert (trigger.decided_at, trigger.expires_at) == ("2026-03-01T22:00:00+08:00", "2026-03-02T00:00:00+08:00")
    assert trigger.channel is None


def test_the_night_is_that_of_the_users_own_zone_at_the_moment_of_release() -> None:
    berlin = event(ev.ProfileUpdated, "03-01", time_zone="Europe/Berlin")
    one = desk().say(paid("o-1", "03-01"), berlin).wait("03-03")
    assert one.triggers[0].decided_at == "2026-03-01T15:00:00+01:00"
    moved = desk("quiet_hours: {jitter: 0s}\n").say(paid("o-1", "03-01")).wait("03-01 23:00")
    moved.say(event(ev.ProfileUpdated, "03-01 23:00", time_zone="Europe/Berlin")).wait("03-05")
    assert [d.outcome for d in moved.decisions] == ["deferred", "deferred", "fired"]
    assert [d.sequence for d in moved.decisions] == [0, 1, 2]
    assert moved.triggers[0].decided_at == "2026-03-02T09:00:00+01:00"


def test_rules_without_a_night_are_those_that_say_nothing_or_wait() -> None:
    policy = Policy()
    loud, silent, grant = (
        next(iter(catalogue(rule_text(send=send)).rules.values()))
        for send in ("{channels: [push]}", "{channels: [chat_card]}", "{action: grant}")
    )
    assert [quiet_hours.applies(rule, policy) for rule in (loud, silent, grant)] == [True, False, False]
