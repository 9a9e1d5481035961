"""Money: decimal strings in, exact decimals and smallest units inside."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.money import (
    Amount,
    BadAmount,
    exponent,
    format_money,
    is_currency,
    minor_units,
    parse_amount,
)


def test_an_amount_keeps_every_digit() -> None:
    assert parse_amount("258.00") == Decimal("258.00")
    assert str(parse_amount("258.00")) == "258.00"
    assert type(parse_amount("0")) is Decimal
    assert isinstance(Decimal(1), Amount)


@pytest.mark.parametrize("raw", [258, 258.0, True, None, [], {}])
def test_a_json_number_is_no_money(raw: object) -> None:
    with pytest.raises(BadAmount, match="decimal string"):
        parse_amount(raw)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1e3",
        "NaN",
        "Infinity",
        "1,000.00",
        "1.",
        ".5",
        " 1",
        "1\n",
        "0x10",
        "１",
        "1" * 16,
        "0.111111111",
    ],
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(BadAmount, match="not an amount"):
        parse_amount(text)


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("258.00", "CNY", 25800),
        ("258", "JPY", 258),
        ("258.5", "JPY", 259),
        ("1.2345", "KWD", 1235),
        ("0.005", "USD", 1),
        ("1.00005", "CLF", 10001),
        ("7", "XXX", 700),
        ("999999999999999.99", "CNY", 99999999999999999),
    ],
)
def test_smallest_units_follow_iso_4217(amount: str, currency: str, minor: int) -> None:
    assert minor_units(Decimal(amount), currency) == minor


@given(st.integers(0, 10**17), st.sampled_from(["CNY", "JPY", "KWD", "CLF", "USD"]))
def test_smallest_units_are_written_and_read_back(minor: int, currency: str) -> None:
    assert minor_units(Decimal(format_money(minor, currency)), currency) == minor


def test_money_is_written_with_the_decimals_of_its_currency() -> None:
    assert [format_money(25800, code) for code in ("CNY", "JPY", "KWD")] == ["258.00", "25800", "25.800"]
    assert format_money(0, "CNY") == "0.00"
    assert exponent("CNY") == 2


def test_a_currency_is_three_capital_letters() -> None:
    assert is_currency("CNY")
    assert not any(is_currency(text) for text in ("cny", "CN", "CNYY", "CN1", "", "CNY\n", "ＣＮＹ"))
