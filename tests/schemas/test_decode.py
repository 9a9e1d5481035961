"""What a message becomes: an event, something to ignore, or a refusal of it as a whole or for what it lacks."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from schemas.codec import DecodeOptions, Ignored, RejectedMessage, decode, did_you_mean
from schemas.events import (
    EVENT_TYPES,
    INPUT_TOPICS,
    ClockAdvanced,
    CouponIssued,
    CustomerBaseline,
    Event,
    IssuedCoupon,
    Line,
    OrderPaid,
    OrderRefunded,
)
from schemas.instant import parse_instant
from tests.schemas.samples import LONG_AFTER_MS, OPTIONS, changed, example, read, refusal


def raw_refusal(value: bytes | None) -> RejectedMessage:
    result = decode("orders", b"u-42", value, LONG_AFTER_MS, OPTIONS)
    assert isinstance(result, RejectedMessage)
    return result


# what is read


def test_the_contracts_order_is_read_field_by_field() -> None:
    assert read(example("OrderPaid")) == OrderPaid(
        event_id="e-1001",
        user_id="u-42",
        occurred_at=parse_instant("2026-03-01T08:15:30+08:00"),
        channel="app",
        order_id="o-77",
        currency="CNY",
        total=Decimal("258.00"),
        lines=(
            Line(
                product_id="p-1",
                sku="s-9",
                category="baby",
                product_type="milk_powder",
                quantity=2,
                unit_price=Decimal("129.00"),
            ),
        ),
        coupons_used=("c-3",),
        coupons_issued=(
            IssuedCoupon(
                coupon_id="c-4",
                kind="amount",
                value=Decimal("20.00"),
                currency="CNY",
                min_spend=Decimal("100.00"),
                batch="repurchase-a",
                valid_from=parse_instant("2026-03-01T00:00:00+08:00"),
                expires_at=parse_instant("2026-03-31T23:59:59+08:00"),
            ),
        ),
    )


@pytest.mark.parametrize("name", [*EVENT_TYPES, "ClockAdvanced"])
def test_every_type_of_the_contract_is_read_on_its_topic(name: str) -> None:
    event = read(example(name))
    assert type(event).__name__ == name
    assert isinstance(event, Event | ClockAdvanced)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_type_can_do_without_its_optional_fields(name: str) -> None:
    required = {field.name for field in _fields(name) if field.required}
    bare = {field: value for field, value in example(name).items() if field in required | {"type"}}
    assert isinstance(read(bare), EVENT_TYPES[name])


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_null_counts_as_absent(name: str) -> None:
    required = {field.name for field in _fields(name) if field.required}
    bare = {field: value for field, value in example(name).items() if field in required | {"type"}}
    with_nulls = {**{field.name: None for field in _fields(name)}, **bare}
    assert read(with_nulls) == read(bare)


def test_null_counts_as_absent_inside_lines() -> None:
    line = {"product_id": "p-1", "quantity": 2, "units": None, "gift": None, "unit_price": None}
    event = read(changed("OrderPaid", lines=[line]))
    assert isinstance(event, OrderPaid)
    assert event.lines == (Line(product_id="p-1", quantity=2),)


def test_unknown_fields_are_let_pass_so_that_upstream_can_add_some() -> None:
    assert read({**example("OrderPaid"), "new": {"deep": [1, None]}}) == read(example("OrderPaid"))


def test_what_runs_out_is_the_product_type_or_else_the_category() -> None:
    assert Line(product_id="p", quantity=1, product_type="milk_powder", category="baby").runs_out == "milk_powder"
    assert Line(product_id="p", quantity=1, category="baby").runs_out == "baby"
    assert Line(product_id="p", quantity=1, category="").runs_out is None


def test_the_defaults_are_those_of_the_contract() -> None:
    coupon = read(changed("CouponIssued", kind=..., value=..., currency=..., min_spend=...))
    assert isinstance(coupon, CouponIssued)
    assert (coupon.kind, coupon.value) == ("amount", None)
    refund = read(
        {field: example("OrderRefunded")[field] for field in ("event_id", "type", "user_id", "occurred_at", "order_id")}
    )
    assert isinstance(refund, OrderRefunded)
    assert (refund.goods_returned, refund.amount, refund.lines) == (True, None, ())


def test_a_baseline_may_reach_back_but_not_before_2000() -> None:
    assert isinstance(read(changed("CustomerBaseline", registered_at="2000-01-01T00:00:00Z")), CustomerBaseline)
    assert refusal(changed("CustomerBaseline", registered_at="1999-12-31T00:00:00Z")).field == "registered_at"


# not_json, not_an_object, too_large


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"order",
        b'{"a": 1',
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000 + b"]" * 100_000,
        b"\x00\x00\x00\x00\x05avro",
    ],
)
def test_what_is_not_json_is_not_json(value: bytes | None) -> None:
    result = raw_refusal(value)
    assert (result.code, result.field) == ("not_json", "")
    assert "JSON" in result.reason


@pytest.mark.parametrize("value", [b"[]", b"null", b"5", b'"OrderPaid"', b"true", b'[{"type": "OrderPaid"}]'])
def test_json_that_is_no_object_is_not_an_object(value: bytes) -> None:
    assert raw_refusal(value).code == "not_an_object"


def test_a_value_may_have_as_many_bytes_as_the_setting_says_and_not_one_more() -> None:
    value = orjson.dumps(example("OrderPaid"))
    fits, tight = DecodeOptions(max_bytes=len(value)), DecodeOptions(max_bytes=len(value) - 1)
    assert isinstance(decode("orders", b"u-42", value, LONG_AFTER_MS, fits), OrderPaid)
    result = decode("orders", b"u-42", value, LONG_AFTER_MS, tight)
    assert isinstance(result, RejectedMessage)
    assert result.code == "too_large"
    assert str(len(value)) in result.reason


# types and topics


def test_a_type_we_do_not_know_is_ignored_by_name() -> None:
    assert read({"type": "OrderPayed"}) == Ignored("unknown_type", "OrderPayed")
    assert read({"type": "x" * 5000}) == Ignored("unknown_type", "x" * 100)
    assert read({"type": ""}) == Ignored("unknown_type", "")


def test_a_type_we_do_not_know_is_rejected_if_the_shop_is_strict() -> None:
    result = refusal({"type": "OrdrePaid"}, unknown_types="reject")
    assert (result.code, result.field) == ("unknown_type", "type")
    assert "Did you mean OrderPaid?" in result.reason
    assert "mean" not in refusal({"type": "zzzz"}, unknown_types="reject").reason


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("orderPaid", "OrderPaid"),
        ("ClockAdvance", "ClockAdvanced"),
        ("OrderPayed", "OrderPaid"),  # looks as much like OrderPlaced
        ("OrderPlacd", "OrderPlaced"),
        ("zzzz", None),
        ("", None),
    ],
)
def test_the_nearest_type_is_suggested(name: str, meant: str | None) -> None:
    assert did_you_mean(name) == meant


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_a_type_on_another_topic_is_told_its_own(name: str) -> None:
    own = EVENT_TYPES[name].TOPIC
    for other in set(INPUT_TOPICS) - {own}:
        result = refusal(example(name), topic=other)
        assert (result.code, result.field) == ("wrong_topic", "type")
        assert f"belongs on the topic {own}" in result.reason


@pytest.mark.parametrize("message", [{}, {"type": None}])
def test_a_message_without_type_misses_it(message: dict[str, Any]) -> None:
    assert (refusal(message).code, refusal(message).field) == ("missing_field", "type")


@pytest.mark.parametrize("name", [5, True, [], {}, ["OrderPaid"]])
def test_a_type_that_is_no_text_is_a_bad_value(name: object) -> None:
    assert (refusal({"type": name}).code, refusal({"type": name}).field) == ("bad_value", "type")


def test_a_topic_that_is_no_input_never_raises() -> None:
    assert refusal(example("OrderPaid"), topic="elsewhere").code == "wrong_topic"


# missing_field


class _Field:
    def __init__(self, name: str, required: bool) -> None:
        self.name, self.required = name, required


def _fields(name: str) -> list[_Field]:
    import msgspec

    return [_Field(field.encode_name, field.required) for field in msgspec.structs.fields(EVENT_TYPES[name])]


REQUIRED = [(name, field.name) for name in EVENT_TYPES for field in _fields(name) if field.required]


@pytest.mark.parametrize(("name", "field"), REQUIRED)
def test_every_required_field_is_missed_absent_or_null(name: str, field: str) -> None:
    for value in (..., None):
        result = refusal(changed(name, **{field: value}))
        assert (result.code, result.field) == ("missing_field", field)
        assert f"`{field}` is required" in result.reason


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (changed("OrderPaid", lines=[{"product_id": "p-1", "quantity": 1}, {"quantity": 1}]), "lines[1].product_id"),
        (changed("OrderPaid", lines=[{"product_id": "p-1", "quantity": None}]), "lines[0].quantity"),
        (changed("OrderPaid", coupons_issued=[{"kind": "gift"}]), "coupons_issued[0].coupon_id"),
        (changed("OrderPlaced", discounts=[{"funded_by": "shop"}]), "discounts[0].amount"),
        (changed("OrderPaid", coupons_issued=[{"coupon_id": "c", "value": "5"}]), "coupons_issued[0].currency"),
        (changed("OrderPaid", coupons_issued=[{"coupon_id": "c", "min_spend": "5"}]), "coupons_issued[0].currency"),
        (changed("CouponIssued", currency=None), "currency"),
        (changed("OrderRefunded", currency=...), "currency"),
        (changed("CheckoutStarted", currency=...), "currency"),
        (changed("CustomerBaseline", currency=...), "currency"),
        (changed("ProfileUpdated", currency=...), "currency"),
    ],
)
def test_a_missing_field_is_named_by_its_path(message: dict[str, Any], field: str) -> None:
    assert (refusal(message).code, refusal(message).field) == ("missing_field", field)
