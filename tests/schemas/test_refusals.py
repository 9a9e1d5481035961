"""Fields, keys and instants that cannot be used: the path, the code, and a sentence that says what to send."""

from __future__ import annotations

from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from msgspec import ValidationError
from msgspec.inspect import LiteralType, StructType, type_info

from schemas.codec import Ignored, RejectedMessage
from schemas.events import (
    EVENT_TYPES,
    INPUT_TOPICS,
    ClockAdvanced,
    CouponIssued,
    OrderPaid,
    ProfileUpdated,
    UserLoggedIn,
)
from schemas.explain import VALUES, explain
from schemas.instant import MINUTE, parse_instant
from schemas.parts import IssuedCoupon
from tests.schemas.samples import changed, example, read, refusal

# bad_value


def line(**fields: Any) -> dict[str, Any]:
    return changed(
        "OrderPaid", lines=[{"product_id": "p-0", "quantity": 1}, {"product_id": "p-1", "quantity": 2, **fields}]
    )


def coupon(**fields: Any) -> dict[str, Any]:
    return changed("CouponIssued", **fields)


BAD_VALUES: list[tuple[dict[str, Any], str, str]] = [
    (line(quantity=0), "lines[1].quantity", "a whole number, at least 1. It is 0."),
    (line(quantity=-1), "lines[1].quantity", "a whole number, at least 1. It is -1."),
    (line(quantity=1_000_001), "lines[1].quantity", "at most 1000000"),
    (line(quantity=1.5), "lines[1].quantity", "a whole number. It is 1.5."),
    (line(quantity=10**30), "lines[1].quantity", "a whole number"),
    (line(quantity=True), "lines[1].quantity", "a whole number. It is true."),
    (line(quantity="2"), "lines[1].quantity", "a whole number. It is text."),
    (line(units=0), "lines[1].units", "at least 1"),
    (line(gift=1), "lines[1].gift", "true or false. It is 1."),
    (line(product_id=""), "lines[1].product_id", "text of at least 1 characters"),
    (line(product_id="p" * 257), "lines[1].product_id", "text of at most 256 characters"),
    (line(product_id=7), "lines[1].product_id", "text. It is 7."),
    (line(title="t" * 2049), "lines[1].title", "text of at most 2048 characters"),
    (line(unit_price=129), "lines[1].unit_price", "decimal string"),
    (line(unit_price=129.5), "lines[1].unit_price", "decimal string"),
    (line(unit_price="-1.00"), "lines[1].unit_price", "not an amount"),
    (changed("OrderPaid", total=258.0), "total", "decimal string"),
    (changed("OrderPaid", total="NaN"), "total", "not an amount"),
    (changed("OrderPaid", total="1e5"), "total", "not an amount"),
    (changed("OrderPaid", total=["258"]), "total", "decimal string"),
    (changed("OrderPaid", lines={}), "lines", "a list. It is an object."),
    (changed("OrderPaid", lines=[5]), "lines[0]", "an object. It is 5."),
    (
        changed("OrderPaid", lines=[{"product_id": "p", "quantity": 1}] * 1001),
        "lines",
        "a list of at most 1000 entries",
    ),
    (changed("OrderPaid", coupons_used="c-3"), "coupons_used", "a list. It is text."),
    (changed("OrderPaid", coupons_used=["c-3", ""]), "coupons_used[1]", "at least 1 characters"),
    (changed("OrderPaid", currency="yuan"), "currency", "three capital letters of ISO 4217"),
    (changed("OrderPaid", currency="cny"), "currency", "three capital letters of ISO 4217"),
    (changed("OrderPaid", currency="人民币"), "currency", "three capital letters of ISO 4217"),
    (changed("OrderPaid", currency=156), "currency", "text. It is 156."),
    (changed("OrderPaid", event_id=""), "event_id", "at least 1 characters"),
    (
        changed("OrderPaid", coupons_issued=[{"coupon_id": "c", "kind": "Ms Li"}]),
        "coupons_issued[0].kind",
        "`coupons_issued[0].kind` must be amount, percent, shipping or gift.",
    ),
    (coupon(kind="ammount"), "kind", "`kind` must be amount, percent, shipping or gift. Did you mean amount?"),
    (coupon(kind="PERCENT"), "kind", "gift. Did you mean percent?"),
    (coupon(kind=""), "kind", "must be amount, percent, shipping or gift."),
    (
        changed("OrderPaid", coupons_issued=[{"coupon_id": "c", "currency": "x"}]),
        "coupons_issued[0].currency",
        "ISO 4217",
    ),
    (changed("DepositPaid", currency="!!!"), "currency", "ISO 4217"),
    (
        changed("DepositPaid", balance_due_until="2026-05-01T00:00:00Z"),
        "balance_due_until",
        "before `balance_due_from`",
    ),
    (changed("OrderRefunded", currency="eur"), "currency", "ISO 4217"),
    (changed("OrderRefunded", goods_returned="no"), "goods_returned", "true or false. It is text."),
    (changed("CartUpdated", currency="eur"), "currency", "ISO 4217"),
    (coupon(currency="eur"), "currency", "ISO 4217"),
    (coupon(value="0"), "value", "above 0 and at most 100"),
    (coupon(value="100.01"), "value", "above 0 and at most 100"),
    (coupon(expires_at="2026-02-28T00:00:00+08:00"), "expires_at", "before `valid_from`"),
    (coupon(categories=[None]), "categories[0]", "text"),
    (changed("ProductViewed", dwell_seconds=-0.5), "dwell_seconds", "a number, at least 0"),
    (changed("ProductViewed", dwell_seconds="40"), "dwell_seconds", "a number. It is text."),
    (changed("ProductViewed", dwell_seconds=True), "dwell_seconds", "a number. It is true."),
    (changed("CustomerBaseline", orders=-1), "orders", "at least 0"),
    (changed("CustomerBaseline", last_order_at="2020-01-01T00:00:00Z"), "last_order_at", "before `first_order_at`"),
    (changed("ProfileUpdated", time_zone="Mars/Olympus"), "time_zone", "IANA time zone"),
    (changed("ProfileUpdated", time_zone="../etc/passwd"), "time_zone", "IANA time zone"),
    (changed("ProfileUpdated", time_zone="+08:00"), "time_zone", "IANA time zone"),
    (changed("ProfileUpdated", time_zone=""), "time_zone", "IANA time zone"),
    (changed("ProfileUpdated", birthday="1990-02-29"), "birthday", '"1990-05-04"'),
    (changed("ProfileUpdated", birthday="--02-30"), "birthday", '"--05-04" without the year'),
    (changed("ProfileUpdated", birthday="04.05.1990"), "birthday", '"1990-05-04"'),
    (changed("ProfileUpdated", birthday="0001-01-01"), "birthday", '"1990-05-04"'),
    (changed("ProfileUpdated", birthday=""), "birthday", '"1990-05-04"'),
    (changed("ProfileUpdated", attributes=[]), "attributes", "an object. It is a list."),
    (changed("ProfileUpdated", attributes={"ok": 1, "deep": {"er": 1}}), "attributes.deep", "It is an object."),
    (changed("ProfileUpdated", attributes={"": 1}), "attributes", "1 to 256 characters"),
    (changed("ConsentChanged", granted="yes"), "granted", "true or false"),
    (changed("UserMerged", into="u-42"), "into", "another account"),
    (changed("UserMerged", into="a\nb"), "into", "another account"),
]


@pytest.mark.parametrize(("message", "field", "says"), BAD_VALUES)
def test_a_bad_value_is_named_by_its_path_with_what_is_expected(message: dict[str, Any], field: str, says: str) -> None:
    result = refusal(message)
    assert (result.code, result.field) == ("bad_value", field), result
    assert f"`{field}`" in result.reason
    assert says in result.reason


@pytest.mark.parametrize("birthday", ["1990-05-04", "--05-04", "--02-29", "2000-02-29", "1900-01-01"])
def test_a_birthday_may_leave_out_its_year(birthday: str) -> None:
    event = read(changed("ProfileUpdated", birthday=birthday))
    assert isinstance(event, ProfileUpdated)
    assert event.birthday == birthday


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "UTC", "America/Argentina/Buenos_Aires"])
def test_a_zone_of_the_database_is_taken(zone: str) -> None:
    event = read(changed("ProfileUpdated", time_zone=zone))
    assert isinstance(event, ProfileUpdated)
    assert ZoneInfo(zone).key == event.time_zone


def test_a_percent_coupon_needs_no_currency_and_may_take_all_off() -> None:
    event = read(coupon(kind="percent", value="100", currency=..., min_spend=...))
    assert isinstance(event, CouponIssued)
    assert event.value == 100


def test_the_text_of_a_message_is_not_repeated_in_a_reason() -> None:
    secret = "Ms Li, Beijing Rd 5"
    for message in (
        line(quantity=secret),
        changed("OrderPaid", lines=secret),
        changed("UserErased", user_id=secret + "\n"),
        coupon(kind=secret),
        coupon(kind=f"amount {secret}"),
    ):
        assert secret not in refusal(message).reason


def test_a_value_of_a_few_is_said_with_all_of_them_wherever_the_contract_has_one() -> None:
    """Whoever adds such a field tells its senders what it takes."""
    few = {
        field.encode_name: field.type.values
        for struct in (*EVENT_TYPES.values(), IssuedCoupon)
        for field in cast(StructType, type_info(struct)).fields
        if isinstance(field.type, LiteralType)
    }
    assert {name: set(values) for name, values in few.items()} == {name: set(of) for name, of in VALUES.items()}


def test_a_value_of_any_length_is_told_in_no_time() -> None:
    assert "Did you mean" not in refusal(coupon(kind="amount" * 100_000)).reason


# keys


@pytest.mark.parametrize("key", [None, b""])
def test_a_record_needs_a_key(key: bytes | None) -> None:
    result = refusal(example("OrderPaid"), key=key)
    assert (result.code, result.field) == ("no_key", "user_id")


@pytest.mark.parametrize("key", [b"u-43", b"U-42", b"u-42 ", b'"u-42"', b"\xff\xfe", b"\x00\x00\x00\x2a"])
def test_the_key_is_the_user_byte_by_byte(key: bytes) -> None:
    result = refusal(example("OrderPaid"), key=key)
    assert (result.code, result.field) == ("key_mismatch", "user_id")


@pytest.mark.parametrize("user_id", ["u-42", "用户-42", "a" * 256, "ü" * 128, "a b", "\N{THIN SPACE}x", "\u200b"])
def test_a_user_is_any_text_of_up_to_256_bytes(user_id: str) -> None:
    event = read(changed("UserLoggedIn", user_id=user_id), key=user_id.encode())
    assert isinstance(event, UserLoggedIn)
    assert event.user_id == user_id


@pytest.mark.parametrize("user_id", ["", "a" * 257, "ü" * 129, "a\nb", "\x00", "a\x7f", "a\x85b", 42, True, ["u"]])
def test_a_user_that_cannot_be_a_key_is_a_bad_value(user_id: object) -> None:
    result = refusal(changed("UserLoggedIn", user_id=user_id), key=str(user_id).encode())
    assert (result.code, result.field) == ("bad_value", "user_id")


def test_an_anonymous_event_is_ignored_only_if_it_says_so() -> None:
    for user_id in (..., None, ""):
        anonymous = changed("ProductViewed", user_id=user_id, anonymous_id="a-1")
        assert read(anonymous, key=None) == Ignored("anonymous", "ProductViewed")
    assert refusal(changed("ProductViewed", user_id=...)).code == "missing_field"


# bad_time


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("OrderPaid", "occurred_at"),
        ("OrderPlaced", "pay_deadline"),
        ("DepositPaid", "balance_due_from"),
        ("CouponIssued", "expires_at"),
        ("CustomerBaseline", "first_order_at"),
        ("ClockAdvanced", "occurred_at"),
    ],
)
@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("2026-03-01T08:15:30", "no offset"),
        ("1999-12-31T23:59:59Z", "between the years 2000 and 9999"),
        (1_772_324_130, "send milliseconds"),
        ("yesterday", "not RFC 3339"),
        ("2026-02-30T00:00:00Z", "does not exist"),
        (True, "RFC 3339 text"),
        (1.5, "RFC 3339 text"),
        ({}, "RFC 3339 text"),
    ],
)
def test_an_instant_that_names_no_instant_is_a_bad_time(name: str, field: str, at: object, says: str) -> None:
    result = refusal(changed(name, **{field: at}))
    assert (result.code, result.field) == ("bad_time", field)
    assert says in result.reason


def test_a_bad_time_inside_a_list_is_named_by_its_path() -> None:
    result = refusal(changed("OrderPaid", coupons_issued=[{"coupon_id": "c", "expires_at": "2026-03-31 23:59:59"}]))
    assert (result.code, result.field) == ("bad_time", "coupons_issued[0].expires_at")


def test_local_times_are_read_in_the_zone_that_the_shop_assumes() -> None:
    local = changed("OrderPaid", occurred_at="2026-03-01T08:15:30")
    assert read(local, assume_zone=ZoneInfo("Asia/Shanghai")) == read(example("OrderPaid"))
    clock = changed("ClockAdvanced", occurred_at="2026-03-02T00:00:00")
    assert read(clock, assume_zone=ZoneInfo("Asia/Shanghai")) == read(example("ClockAdvanced"))


@pytest.mark.parametrize("name", ["OrderPaid", "ClockAdvanced"])
def test_an_event_may_be_ahead_of_its_record_by_the_skew_and_not_a_tick_more(name: str) -> None:
    timestamp_ms = parse_instant("2026-03-01T08:00:00+08:00") // 1000
    at_most = parse_instant("2026-03-01T08:02:00+08:00") // 1000
    skew: dict[str, Any] = {"timestamp_ms": timestamp_ms, "clock_skew": 2 * MINUTE}
    assert isinstance(read(changed(name, occurred_at=at_most), **skew), OrderPaid | ClockAdvanced)
    result = refusal(changed(name, occurred_at=at_most + 1), **skew)
    assert (result.code, result.field) == ("bad_time", "occurred_at")
    assert "is 2 minutes ahead" in result.reason


@pytest.mark.parametrize(
    ("at", "told"),
    [("2026-03-01T08:01:59+08:00", "119 seconds"), ("2026-03-01T10:30:00+08:00", "2 hours"),
     ("2026-03-02T23:00:00+08:00", "39 hours"), ("2027-03-01T08:00:00+08:00", "365 days")],
)  # fmt: skip
def test_how_far_an_event_is_ahead_is_said_in_a_unit_that_tells_something(at: str, told: str) -> None:
    timestamp_ms = parse_instant("2026-03-01T08:00:00+08:00") // 1000
    result = refusal(changed("OrderPaid", occurred_at=at), timestamp_ms=timestamp_ms, clock_skew=0)
    assert f"is {told} ahead of the record's own timestamp" in result.reason


@pytest.mark.parametrize("name", ["OrderPaid", "ClockAdvanced"])
def test_a_record_without_a_timestamp_has_nothing_to_be_ahead_of(name: str) -> None:
    assert not isinstance(read(example(name), timestamp_ms=-1), RejectedMessage)


def test_an_end_may_lie_as_far_ahead_as_it_likes() -> None:
    event = read(changed("OrderPaid", coupons_issued=[{"coupon_id": "c", "expires_at": "9999-12-31T23:59:59Z"}]))
    assert isinstance(event, OrderPaid)


# ClockAdvanced


@pytest.mark.parametrize("topic", INPUT_TOPICS)
@pytest.mark.parametrize("key", [None, b"", b"anything"])
def test_the_clock_has_no_user_and_no_key_and_no_topic_of_its_own(topic: str, key: bytes | None) -> None:
    at = parse_instant("2026-03-02T00:00:00+08:00")
    assert read(example("ClockAdvanced"), topic=topic, key=key) == ClockAdvanced(occurred_at=at)


def test_the_clock_needs_an_instant() -> None:
    assert refusal({"type": "ClockAdvanced"}).code == "missing_field"
    assert refusal({"type": "ClockAdvanced", "occurred_at": None}).field == "occurred_at"


def test_a_complaint_that_is_new_to_us_is_passed_on_with_its_path() -> None:
    result = explain(ValidationError("Something else is wrong - at `$.lines[0].title`"), {})
    assert result == RejectedMessage("bad_value", "`lines[0].title`: Something else is wrong.", "lines[0].title")
