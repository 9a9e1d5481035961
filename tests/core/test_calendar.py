"""Birthdays and anniversaries: the morning, a week ahead, where the user is, in years with and without 29 February."""

from __future__ import annotations

import itertools
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from app.core import calendar
from app.core.policy import Policy
from app.core.row import NEVER, Row, Run
from app.core.rules import index
from app.rulebook import load
from schemas import events as ev
from schemas.instant import format_instant, parse_instant
from tests.core.shop import DAY, SECOND, Desk, at, baseline, catalogue, event, rule_text

ANNIVERSARY = rule_text(
    enter="{on: UserRegistered, key: user}",
    ends=None,
    steps='[{at: "user.anniversary"}]',
    repeat="yearly",
    reentry="once",
)
BIRTHDAY = rule_text(
    enter="{on: ProfileUpdated, key: user, when: user.has_birthday}",
    ends="[{on: ProfileUpdated}]",
    steps='[{at: "user.birthday - 7d"}]',
    repeat="yearly",
)


def profile(when: str, **fields: str) -> ev.ProfileUpdated:
    return event(ev.ProfileUpdated, when, **fields)


def decided(desk: Desk) -> list[str]:
    return [t.decided_at for t in desk.triggers]


def next_birthday(birthday: str | None, since: int, ordinal: int = 0) -> int:
    run = Run("r", 1, "user", "", "e", since, ordinal=ordinal)
    return calendar.birthday(Row("u-1", birthday=birthday), run, Policy())


def day(instant: int) -> str:
    return format_instant(instant, Policy().zone)


def test_a_greeting_comes_a_week_before_each_birthday() -> None:
    desk = Desk(catalogue(BIRTHDAY)).say(profile("03-01", birthday="1990-05-04")).wait("2028-12-31")
    assert decided(desk) == [f"{year}-04-27T09:00:00+08:00" for year in (2026, 2027, 2028)]
    assert len({t.trigger_id for t in desk.triggers}) == 3
    assert {t.step for t in desk.triggers} == {1}


def test_the_29th_of_february_is_kept_on_the_28th_in_years_that_have_none() -> None:
    desk = Desk(catalogue(BIRTHDAY)).say(profile("03-01", birthday="--02-29")).wait("2029-12-31")
    assert decided(desk) == ["2027-02-21T09:00:00+08:00", "2028-02-22T09:00:00+08:00", "2029-02-21T09:00:00+08:00"]


@pytest.mark.parametrize(("year", "expected"), [(2096, "29"), (2100, "28"), (2400, "29")])
def test_centuries_are_leap_years_when_the_calendar_says_so(year: int, expected: str) -> None:
    assert day(next_birthday("--02-29", at(f"{year}-01-01"))) == f"{year}-02-{expected}T09:00:00+08:00"


@pytest.mark.parametrize(("tick", "year"), [(-1, 2026), (0, 2026), (1, 2027)])
def test_a_birthday_less_than_a_week_off_is_next_years(tick: int, year: int) -> None:
    since = at("04-27 09:00") + tick
    assert day(next_birthday("1990-05-04", since)) == f"{year}-05-04T09:00:00+08:00"


def test_without_a_birthday_there_is_none_and_the_calendar_ends_with_the_year_9998() -> None:
    assert next_birthday(None, at("03-01")) == NEVER
    assert day(next_birthday("--05-04", at("03-01"), 9998 - 2026)) == "9998-05-04T09:00:00+08:00"
    assert next_birthday("--05-04", at("03-01"), 9999 - 2026) == NEVER


def test_the_birthday_named_last_is_known_whichever_word_arrives_first() -> None:
    words = [("03-06", "--05-01"), ("03-07", "--06-01"), ("03-10", "--05-01"), ("03-10", "--04-01")]
    for order in itertools.permutations(words):
        desk = Desk(catalogue(BIRTHDAY)).say(*(profile(when, birthday=named) for when, named in order))
        assert (desk.row.birthday, desk.row.birthday_said_at) == ("--05-01", at("03-10"))
    old = replace(desk.row, birthday_said_at=-1, birthday_at=at("03-08"))  # as a row had it before both were told apart
    desk.row = old
    assert desk.say(profile("03-07", birthday="--06-01")).row.birthday == "--05-01"
    assert desk.say(profile("03-09", birthday="--06-01")).row.birthday == "--06-01"


def test_a_profile_that_changes_the_birthday_changes_the_greeting() -> None:
    desk = Desk(catalogue(BIRTHDAY)).say(profile("03-01", birthday="--05-04"), profile("03-02", birthday="--06-04"))
    assert decided(desk.wait("2026-12-31")) == ["2026-05-28T09:00:00+08:00"]


def test_it_is_nine_where_the_user_is() -> None:
    desk = Desk(catalogue(BIRTHDAY)).say(profile("03-01", birthday="--05-04", time_zone="Europe/Berlin"))
    assert decided(desk.wait("2026-12-31")) == ["2026-04-27T09:00:00+02:00"]


@pytest.mark.parametrize(
    ("registered", "first", "second"),
    [
        ("2026-03-01", "2027-03-01", "2028-03-01"),
        ("2028-02-29", "2029-02-28", "2030-02-28"),
        ("2026-12-31", "2027-12-31", "2028-12-31"),
    ],
)
def test_an_anniversary_comes_from_the_first_year_on(registered: str, first: str, second: str) -> None:
    desk = Desk(catalogue(ANNIVERSARY)).say(event(ev.UserRegistered, registered)).wait(f"{second[:4]}-12-31 23:00")
    assert decided(desk) == [f"{first}T09:00:00+08:00", f"{second}T09:00:00+08:00"]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("registered", ["9998-12-23T23:59:59Z", "9998-12-24T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_who_registered_at_the_end_of_the_calendar_has_no_anniversary(registered: str, zone: str) -> None:
    rules = load()
    said: ev.CustomerBaseline = baseline("03-01", "2020-01-01", 1)
    desk = Desk(index({"anniversary": rules.rules["anniversary"]}, rules.policy)).say(profile("02-01", time_zone=zone))
    assert desk.say(replace(said, registered_at=parse_instant(registered))).timers == []


def test_rounds_that_were_over_before_they_could_be_sent_are_passed_over() -> None:
    desk = Desk(catalogue(ANNIVERSARY)).wait("2026-06-01").say(event(ev.UserRegistered, "2020-03-01"))
    assert decided(desk.wait("2027-12-31")) == ["2027-03-01T09:00:00+08:00"]
    assert desk.tallies["steps", "passed", "a_rule"] == 6


def test_what_never_comes_has_no_timer() -> None:
    rules = catalogue(BIRTHDAY.replace(", when: user.has_birthday", ""))
    assert Desk(rules).say(profile("03-01")).timers == []


@pytest.mark.parametrize(("second", "days"), [("03-01 23:59", 0), ("03-02 00:00", 1), ("02-28 23:59", -1)])
def test_days_between_are_counted_where_the_user_is(second: str, days: int) -> None:
    assert calendar.days_between(Row("u-1"), at("03-01"), at(second), Policy()) == days
    honolulu = Row("u-1", zone="Pacific/Honolulu")
    assert calendar.days_between(honolulu, at("03-01"), at("03-01") + DAY, Policy()) == 1


@pytest.mark.parametrize(
    ("zone", "change", "by"),
    [
        ("Europe/Berlin", "2026-03-29T01:00:00Z", 60),
        ("Europe/Berlin", "2026-10-25T01:00:00Z", -60),
        ("America/New_York", "2026-11-01T06:00:00Z", -60),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00Z", -30),
        ("Australia/Lord_Howe", "2026-10-03T15:30:00Z", 30),
        ("Africa/Casablanca", "2026-02-15T02:00:00Z", -60),
        ("Africa/Casablanca", "2026-03-22T02:00:00Z", 60),
        ("America/Santiago", "2026-09-06T04:00:00Z", 60),  # there is no midnight on that day
        ("America/Havana", "2026-11-01T05:00:00Z", -60),  # and two of them here
        ("Pacific/Apia", "2011-12-30T10:00:00Z", 24 * 60),  # nor is there any 30th
    ],
)
def test_days_and_midnights_by_arithmetic_are_those_of_the_wall_clock(
    zone: str, change: str, by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, moment = ZoneInfo(zone), at(change)
    before, after = (calendar.local(instant, where).utcoffset() for instant in (moment - 1, moment))
    assert before is not None
    assert after == before + timedelta(minutes=by)
    # eight days before it and after it, at all times of the day; and the change itself
    instants = [moment + n * 7_777 * SECOND for n in range(-90, 91)] + [moment - 1, moment + 1]

    def read() -> list[tuple[int, ...]]:
        return [
            (calendar.local_day(i, where), *(calendar.midnight(i, where, days) for days in range(-2, 3)))
            for i in instants
        ]

    quick = read()
    assert {calendar.steady_offset(i // DAY, where) is None for i in instants} == {True, False}  # both ways were taken
    monkeypatch.setattr(calendar, "steady_offset", lambda day, zone: None)
    assert quick == read()


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-26", 1), ("2026-03-27", None), ("2026-03-31", None), ("2026-04-01", 2), ("9999-12-31", None)],
)
def test_an_offset_is_steady_two_days_around_and_not_where_the_calendar_ends(day: str, hours: int | None) -> None:
    number = at(f"{day}T12:00:00Z") // DAY
    steady = calendar.steady_offset(number, ZoneInfo("Europe/Berlin"))
    assert steady == (None if hours is None else hours * 3_600_000_000)
