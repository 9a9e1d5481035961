"""Instants: text with an offset in, text with an offset out, microseconds between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import instant
from schemas.instant import (
    DAY,
    EARLIEST,
    HOUR,
    LATEST,
    MINUTE,
    SECOND,
    BadInstant,
    Instant,
    format_instant,
    parse_instant,
)

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
instants = st.integers(EARLIEST, LATEST - 2 * DAY)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def test_units_are_microseconds() -> None:
    assert (SECOND, MINUTE, HOUR, DAY) == (10**6, 60 * 10**6, 3600 * 10**6, 86400 * 10**6)


def test_the_contracts_example_is_read_exactly() -> None:
    at = parse_instant("2026-03-01T08:15:30+08:00")
    assert at == int(datetime(2026, 3, 1, 0, 15, 30, tzinfo=UTC).timestamp()) * SECOND
    assert format_instant(at, SHANGHAI) == "2026-03-01T08:15:30+08:00"


def test_an_instant_is_a_plain_int_so_that_every_serialiser_knows_it() -> None:
    assert type(parse_instant("2026-03-01T08:15:30Z")) is int
    assert type(Instant(5)) is int
    assert isinstance(5, Instant)


@given(instants, offsets)
def test_what_is_written_is_read_back(at: int, zone: timezone) -> None:
    assert parse_instant(format_instant(at, zone)) == at


@given(instants, st.sampled_from(["Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]))
def test_what_is_written_in_a_zone_with_clock_changes_is_read_back(at: int, zone: str) -> None:
    assert parse_instant(format_instant(at, ZoneInfo(zone))) == at


@given(st.datetimes(datetime(2000, 1, 2), datetime(9999, 12, 30)), offsets)
def test_the_fast_reader_agrees_with_the_standard_library(local: datetime, zone: timezone) -> None:
    moment = local.replace(tzinfo=zone)
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parse_instant(moment.isoformat()) == expected


@given(instants)
def test_epoch_milliseconds_are_read(at: int) -> None:
    assert parse_instant(at // 1000) == at // 1000 * 1000


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T00:15:30Z",
        "2026-03-01t00:15:30z",
        "2026-03-01 00:15:30Z",
        "2026-03-01T00:15:30.000Z",
        "2026-03-01T00:15:30.0000000001Z",
        "2026-02-28T16:15:30-08:00",
        "2026-03-01T00:15:30-00:00",
    ],
)
def test_all_spellings_of_rfc_3339_name_the_same_instant(text: str) -> None:
    assert parse_instant(text) == parse_instant("2026-03-01T08:15:30+08:00")


def test_a_fraction_is_written_only_if_there_is_one() -> None:
    at = parse_instant("2026-03-01T08:15:30.25+08:00")
    assert format_instant(at, SHANGHAI) == "2026-03-01T08:15:30.250000+08:00"
    assert format_instant(at - 250_000, SHANGHAI) == "2026-03-01T08:15:30+08:00"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-03-01",
        "2026-03-01T08:15+08:00",
        "20260301T081530Z",
        "2026-W09-1T08:15:30+08:00",
        "2026-03-01T08:15:30+0800",
        "2026-03-01T08:15:30+08:75",
        "2026-03-01T08:15:30+24:00",
        "2026-03-01T24:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-03-01T08:60:00Z",
        "2026-03-01T08:15:60Z",
        "2026-03-01T08:15:30.Z",
        "2026-03-01T08:15:30Z\n",
        "２０２６-03-01T08:15:30Z",
        "2026-03-01T08:15:30" + "Z" * 1000,
        "+2026-03-01T08:15:30Z",
    ],
)
def test_what_is_not_rfc_3339_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(BadInstant) as refusal:
        parse_instant(text, SHANGHAI)
    assert str(refusal.value).endswith((".", ").")), refusal.value
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("raw", [True, None, 1.5, [], {}])
def test_what_is_neither_text_nor_an_integer_is_refused(raw: object) -> None:
    with pytest.raises(BadInstant, match="RFC 3339 text"):
        parse_instant(raw)  # type: ignore[arg-type]


def test_local_time_needs_a_zone_to_be_assumed() -> None:
    with pytest.raises(BadInstant, match="no offset"):
        parse_instant("2026-03-01T08:15:30")
    assert parse_instant("2026-03-01T08:15:30", SHANGHAI) == parse_instant("2026-03-01T08:15:30+08:00")


def test_an_offset_beats_the_assumed_zone() -> None:
    assert parse_instant("2026-03-01T00:15:30Z", SHANGHAI) == parse_instant("2026-03-01T08:15:30+08:00")


def test_a_local_time_that_a_clock_change_repeats_is_the_earlier_one() -> None:
    assert parse_instant("2026-10-25T02:30:00", BERLIN) == parse_instant("2026-10-25T02:30:00+02:00")


def test_a_local_time_that_a_clock_change_skips_moves_on_by_the_change() -> None:
    assert parse_instant("2026-03-29T02:30:00", BERLIN) == parse_instant("2026-03-29T03:30:00+02:00")


def test_the_years_before_2000_and_after_9999_are_refused_to_the_tick() -> None:
    assert parse_instant("2000-01-01T00:00:00Z") == EARLIEST
    assert parse_instant("9999-12-31T23:59:59.999999Z") == LATEST
    assert parse_instant(EARLIEST // 1000) == EARLIEST
    for outside in (
        "1999-12-31T23:59:59.999999Z",
        "2000-01-01T00:00:00+08:00",
        "9999-12-31T23:59:59-08:00",
        EARLIEST // 1000 - 1,
        LATEST // 1000 + 1,
        2**64,
        -1,
    ):
        with pytest.raises(BadInstant, match="between the years 2000 and 9999"):
            parse_instant(outside)
    with pytest.raises(BadInstant, match="2000 and 9999"):
        parse_instant("0001-01-01T00:00:00", SHANGHAI)
    with pytest.raises(BadInstant, match="2000 and 9999"):
        parse_instant("9999-12-31T23:59:59", ZoneInfo("America/New_York"))


def test_seconds_sent_as_milliseconds_get_a_hint() -> None:
    with pytest.raises(BadInstant, match="send milliseconds"):
        parse_instant(1_772_324_130)


def test_the_last_instant_can_be_written_east_of_greenwich() -> None:
    assert parse_instant(format_instant(LATEST, SHANGHAI)) == LATEST


def test_an_offset_with_seconds_is_written_in_utc() -> None:
    before_zones = -60 * 365 * DAY  # 1910: Amsterdam was 19 min 32 s ahead
    assert format_instant(before_zones, ZoneInfo("Europe/Amsterdam")).endswith("+00:00")


@given(
    st.integers(-5 * 10**15, LATEST),
    st.sampled_from(["Asia/Shanghai", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Monrovia", "Europe/Amsterdam"]),
)
def test_what_is_written_by_the_day_is_what_the_standard_library_writes(at: int, name: str) -> None:
    assert format_instant(at, ZoneInfo(name)) == instant._format_rare_instant(at, ZoneInfo(name))


@pytest.mark.parametrize("zone", ["Australia/Lord_Howe", "Europe/Berlin"])
def test_the_days_around_a_clock_change_are_written_as_the_standard_library_does(zone: str) -> None:
    for change in ("2026-04-04T15:00:00Z", "2026-10-03T15:30:00Z", "2026-10-25T01:00:00Z", "2026-03-29T01:00:00Z"):
        for minutes in range(-40, 40):
            at = parse_instant(change) + minutes * MINUTE + 1
            assert format_instant(at, ZoneInfo(zone)) == instant._format_rare_instant(at, ZoneInfo(zone))
