"""A user's row as bytes, and the ledger of event ids: what it remembers, for how long, and its bounds."""

from __future__ import annotations

import msgspec
import pytest

from app.core import ids, row
from app.core.row import (
    LEDGER_MAX,
    LEDGER_MIN,
    NEVER,
    ROW_VERSION,
    Coupon,
    NewerRow,
    Row,
    Run,
    decode,
    encode,
    encoded_timer,
    next_timer,
    remember,
    remembers,
)
from tests.core import golden_row
from tests.core.shop import DAY, HOUR, at

START = at("01-01")


# -- bytes


@pytest.mark.parametrize("version", range(1, ROW_VERSION + 1))
def test_rows_of_every_version_are_read_as_they_were_written(version: int) -> None:
    known = decode(golden_row.path(version).read_bytes())
    for name in Row.__struct_fields__[: row.FIELDS.get(version, len(Row.__struct_fields__))]:
        assert getattr(known, name) == getattr(golden_row.ROWS[version], name), name


def test_the_bytes_of_this_version_do_not_change() -> None:
    assert encode(golden_row.ROWS[ROW_VERSION]) == golden_row.path(ROW_VERSION).read_bytes()


def _plain(value: object) -> list[str]:
    """Fields of a value, and of the values in it, that are as if nobody had set them."""
    if isinstance(value, msgspec.Struct):
        plain = [
            f"{type(value).__name__}.{field.name}"
            for field in msgspec.structs.fields(value)
            if getattr(value, field.name) == field.default or getattr(value, field.name) in ({}, (), b"")
        ]
        return plain + [name for field in value.__struct_fields__ for name in _plain(getattr(value, field))]
    if isinstance(value, dict | tuple):
        return [name for item in (value.values() if isinstance(value, dict) else value) for name in _plain(item)]
    return []


def test_the_row_that_is_kept_for_later_versions_has_something_in_every_field() -> None:
    assert sorted(set(_plain(golden_row.ROWS[ROW_VERSION]))) == ["Mark.order_id"]  # one mark with it and one without


def test_a_row_comes_back_as_it_was() -> None:
    assert decode(encode(golden_row.ROW)) == golden_row.ROW
    assert decode(encode(Row("u-1"))) == Row("u-1")


def test_the_next_timer_stands_in_front_so_that_recovery_decodes_nothing() -> None:
    assert encoded_timer(encode(Row("u-1"))) == NEVER
    run = Run("r", 1, "user", "", "e-1", 0, timer_at=START)
    assert encoded_timer(encode(Row("u-1", runs={"r": (run,)}))) == START


def test_a_row_of_a_newer_version_is_refused_with_a_sentence() -> None:
    newer = bytes([ROW_VERSION + 1]) + encode(Row("u-1"))[1:]
    for read in (decode, encoded_timer):
        with pytest.raises(NewerRow) as caught:
            read(newer)
        assert str(caught.value) == (
            f"The state holds a row of version {ROW_VERSION + 1}; this worker reads up to {ROW_VERSION}. "
            "A newer worker has finalised its format: run that version (or newer) here too."
        )


def test_a_row_can_be_written_in_an_older_version() -> None:
    older = encode(golden_row.ROW_2, 1)
    assert older[0] == 1

    known = decode(older)
    assert (known.entries, known.zone) == (golden_row.ROW_2.entries, golden_row.ROW_2.zone)
    assert (known.last_seen_at, known.stage_due, known.views) == (None, NEVER, {})


def test_the_next_timer_is_the_earliest_of_runs_that_have_not_ended() -> None:
    def run(timer: int, *ends: row.Mark) -> Run:
        return Run("r", 1, "user", "", "e-1", 0, timer_at=timer, ends=ends)

    ended = run(1, row.Mark(0, "e", "x"))
    assert next_timer(Row("u-1")) == NEVER
    assert next_timer(Row("u-1", runs={"a": (ended,)})) == NEVER
    assert next_timer(Row("u-1", runs={"a": (ended, run(7)), "b": (run(5), run(9))})) == 5


def test_a_large_row_still_fits_a_record_of_the_changelog() -> None:
    text, name = "x" * 2048, "y" * 256
    line = row.OrderLine(name, text, 1_000_000, 1_000_000, "subscription", text, text, 1_000_000, 1_000_000)
    coupon = Coupon(name, START, name, "shipping", "1" * 15, "CNY", 1 << 61, "1" * 15, text, name, START, NEVER, name)
    many = Row(
        "u-1",
        ledger=b"z" * 12 * LEDGER_MAX,
        orders={
            f"{n}": row.Order(name, lines=(line,) * (row.MAX_LINES // row.MAX_ORDERS_WITH_LINES)) for n in range(16)
        },
        coupons={f"{n}": coupon for n in range(row.MAX_COUPONS)},
    )
    assert len(encode(many)) < 8_388_608


# -- the ledger


def filled(count: int, every: int, start: int = START) -> bytes:
    ledger = b""
    for number in range(count):
        ledger = remember(ledger, ids.event_hash(f"e-{number}"), start + number * every)
    return ledger


def known(ledger: bytes, number: int) -> bool:
    return remembers(ledger, ids.event_hash(f"e-{number}"))


def test_an_event_id_is_remembered() -> None:
    ledger = filled(3, HOUR)
    assert [known(ledger, number) for number in range(4)] == [True, True, True, False]


def test_the_last_512_are_remembered_however_old() -> None:
    ledger = filled(600, 30 * DAY)
    assert len(ledger) // 12 == LEDGER_MIN
    assert [known(ledger, number) for number in (87, 88, 599)] == [False, True, True]


def test_seven_days_are_remembered_however_many() -> None:
    ledger = filled(2000, HOUR // 10)  # 200 hours
    assert [known(ledger, number) for number in (2000 - 1 - 7 * 240, 2000 - 1 - 7 * 240 - 20)] == [True, False]


def test_never_more_than_the_bound_is_remembered() -> None:
    ledger = filled(LEDGER_MAX + 10, 1)
    assert len(ledger) // 12 == LEDGER_MAX
    assert [known(ledger, number) for number in (9, 10)] == [False, True]


def test_an_old_event_that_comes_late_pushes_nobody_out() -> None:
    ledger = filled(600, HOUR)
    before = len(ledger)
    assert len(remember(ledger, ids.event_hash("late"), START - 60 * DAY)) == before + 12


def test_a_hash_across_the_border_of_two_entries_is_no_memory() -> None:
    hashed = ids.event_hash("e-1")
    ledger = b"1234" + hashed + b"...." + b"12345678"
    assert len(ledger) % 12 == 0
    assert not remembers(ledger, hashed)
    assert remembers(remember(ledger, hashed, START), hashed)
