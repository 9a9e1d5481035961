"""Track calls as Segment's e-commerce spec v2 and RudderStack's publish them: same names, same JSON types."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import yaml
from msgspec import structs

from schemas import segment
from schemas.codec import Ignored, RejectedMessage
from schemas.events import (
    EVENT_TYPES,
    INPUT_TOPICS,
    CartUpdated,
    CheckoutStarted,
    CouponLocked,
    CouponReturned,
    Line,
    LineQuantity,
    OrderCancelled,
    OrderPaid,
    OrderRefunded,
    PageShared,
    ProductViewed,
    SearchPerformed,
)
from schemas.instant import HOUR, parse_instant
from tests.schemas.samples import SCHEMAS, read

# The frame that Segment's servers put around what a page or an app tracked.
FRAME: dict[str, Any] = {
    "anonymousId": "6f0d1a52-3b0e-4f0e-9d2b-1c8a7be0a001",
    "channel": "client",
    "context": {
        "library": {"name": "analytics.js", "version": "next-1.70.0"},
        "page": {"path": "/checkout"},
        "ip": "192.0.2.7",
    },
    "integrations": {},
    "messageId": "ajs-next-1767225600000-6f0d1a52",
    "originalTimestamp": "2026-03-01T00:15:29.152Z",
    "receivedAt": "2026-03-01T00:15:31.266Z",
    "sentAt": "2026-03-01T00:15:30.169Z",
    "timestamp": "2026-03-01T00:15:30.249Z",
    "type": "track",
    "userId": "u-42",
    "version": 2,
}
# RudderStack's frame: no `timestamp` before its servers set one, `channel` says where the user was.
RUDDER: dict[str, Any] = {
    "anonymousId": "6f0d1a52-3b0e-4f0e-9d2b-1c8a7be0a001",
    "channel": "web",
    "context": {"library": {"name": "RudderLabs JavaScript SDK", "version": "3.20.1"}, "traits": {}, "locale": "zh-CN"},
    "integrations": {"All": True},
    "messageId": "1772324130249-c622426c-a1dd-44c0-ac6d-d4dbee3f4a93",
    "originalTimestamp": "2026-03-01T00:15:30.249Z",
    "rudderId": "4a47e99b-2afc-45c6-b902-ed69282ca805",
    "sentAt": "2026-03-01T00:15:30.301Z",
    "type": "track",
    "userId": "u-42",
}
PRODUCTS: list[dict[str, Any]] = [
    {
        "product_id": "64b0c9f2a1d3e4f5a6b7c8d9",
        "sku": "40210-11",
        "name": "Infant formula, 800 g",
        "price": 129,
        "quantity": 2,
        "category": "Baby",
        "url": "https://shop.example/p/40210-11",
        "image_url": "https://img.shop.example/40210-11.jpg",
    },
    {"product_id": "64b0c9f2a1d3e4f5a6b7c8da", "sku": "40377-02", "name": "Wipes", "price": 9.9, "category": "Baby"},
]
ORDER: dict[str, Any] = {
    "checkout_id": "k-1",
    "order_id": "o-77",
    "affiliation": "Shop app",
    "total": 270.35,
    "subtotal": 262.9,
    "revenue": 267.90,
    "shipping": 5,
    "tax": 2.45,
    "discount": 5,
    "coupon": "spring5",
    "currency": "CNY",
    "products": PRODUCTS,
}
PRODUCT: dict[str, Any] = {
    "product_id": "64b0c9f2a1d3e4f5a6b7c8d9",
    "sku": "40210-11",
    "category": "Baby",
    "name": "Infant formula, 800 g",
    "brand": "Acme",
    "variant": "stage 1",
    "price": 129.99,
    "quantity": 1,
    "coupon": "SPRING5",
    "currency": "cny",
    "position": 3,
    "value": 129.99,
    "url": "https://shop.example/p/40210-11",
    "image_url": "https://img.shop.example/40210-11.jpg",
}
LINES = (
    Line(
        product_id="64b0c9f2a1d3e4f5a6b7c8d9",
        sku="40210-11",
        category="Baby",
        quantity=2,
        unit_price=Decimal(129),
        title="Infant formula, 800 g",
        image_url="https://img.shop.example/40210-11.jpg",
    ),
    Line(
        product_id="64b0c9f2a1d3e4f5a6b7c8da",
        sku="40377-02",
        category="Baby",
        quantity=1,
        unit_price=Decimal("9.9"),
        title="Wipes",
    ),
)
BASE: dict[str, Any] = {
    "event_id": "ajs-next-1767225600000-6f0d1a52",
    "user_id": "u-42",
    "occurred_at": parse_instant("2026-03-01T00:15:30.249Z"),
}


def track(event: object, properties: object, frame: dict[str, Any] = FRAME, **how: Any) -> object:
    """What the codec makes of a track call."""
    return read({**frame, "event": event, "properties": properties}, **how)


def without(properties: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name not in names}


def test_order_completed_is_an_order_paid() -> None:
    assert track("Order Completed", ORDER) == OrderPaid(
        **BASE,
        order_id="o-77",
        currency="CNY",
        total=Decimal("270.35"),
        lines=LINES,
        coupons_used=("spring5",),
    )


def test_rudderstacks_order_completed_is_the_same_but_for_its_frame() -> None:
    theirs = track("Order Completed", ORDER, RUDDER)
    assert isinstance(theirs, OrderPaid)
    assert (theirs.event_id, theirs.channel) == (RUDDER["messageId"], "web")
    assert (theirs.occurred_at, theirs.lines) == (BASE["occurred_at"], LINES)


def test_the_corrected_timestamp_beats_the_senders_clock() -> None:
    later = track("Order Completed", ORDER, {**RUDDER, "timestamp": "2026-03-01T00:20:00.000Z"})
    assert isinstance(later, OrderPaid)
    assert later.occurred_at == parse_instant("2026-03-01T00:20:00Z")


def test_order_cancelled_and_refunded_name_their_order() -> None:
    assert track("Order Cancelled", ORDER) == OrderCancelled(**BASE, order_id="o-77")
    assert track("Order Refunded", {"order_id": "o-77"}) == OrderRefunded(**BASE, order_id="o-77")
    assert track(
        "Order Refunded", {"order_id": "o-77", "total": 30, "currency": "USD", "products": PRODUCTS}
    ) == OrderRefunded(
        **BASE,
        order_id="o-77",
        amount=Decimal(30),
        currency="USD",
        lines=(
            LineQuantity(product_id=LINES[0].product_id, quantity=2),
            LineQuantity(product_id=LINES[1].product_id, quantity=1),
        ),
    )


def test_checkout_started_carries_what_is_to_be_paid() -> None:
    properties = {**without(ORDER, "total", "checkout_id"), "value": 270.35}
    assert track("Checkout Started", properties) == CheckoutStarted(
        **BASE, lines=LINES, order_id="o-77", currency="CNY", total=Decimal("270.35")
    )


@pytest.mark.parametrize("event", ["Product Viewed", "Product Added"])
def test_a_product_viewed_or_added_was_looked_at(event: str) -> None:
    assert track(event, {**PRODUCT, "cart_id": "cart-1"}) == ProductViewed(
        **BASE,
        product_id="64b0c9f2a1d3e4f5a6b7c8d9",
        category="Baby",
        title="Infant formula, 800 g",
        image_url="https://img.shop.example/40210-11.jpg",
    )


def test_the_cart_as_it_is_shown_is_the_whole_cart() -> None:
    products = [{**without(PRODUCTS[0], "quantity"), "position": 1}, PRODUCTS[1]]
    cart = track("Cart Viewed", {"cart_id": "cart-1", "products": products})
    assert isinstance(cart, CartUpdated)
    assert (cart.cart_id, [line.quantity for line in cart.lines]) == ("cart-1", [1, 1])
    empty = track("Cart Viewed", {"cart_id": "cart-1", "products": []})
    assert isinstance(empty, CartUpdated)
    assert empty.lines == ()


def test_a_cart_that_does_not_say_what_is_in_it_is_not_taken_for_empty() -> None:
    assert track("Cart Viewed", {"cart_id": "cart-1"}) == Ignored("unmapped", "Cart Viewed")


def test_an_applied_coupon_is_held_by_its_order_until_it_is_removed() -> None:
    properties = {
        "order_id": "o-77",
        "cart_id": "cart-1",
        "coupon_id": "spring5",
        "coupon_name": "Spring",
        "discount": 23.32,
    }
    applied = track("Coupon Applied", properties)
    until = BASE["occurred_at"] + 24 * HOUR  # a checkout that is left says no more
    assert applied == CouponLocked(**BASE, coupon_id="spring5", order_id="o-77", until=until)
    assert track("Coupon Removed", properties) == CouponReturned(**BASE, coupon_id="spring5", order_id="o-77")


def test_a_coupon_applied_to_a_mere_cart_changes_nothing() -> None:
    assert track("Coupon Applied", {"cart_id": "cart-1", "coupon_id": "spring5"}) == Ignored(
        "unmapped", "Coupon Applied"
    )


def test_searches_and_shares_are_read() -> None:
    assert track("Products Searched", {"query": "milk powder"}) == SearchPerformed(**BASE, query="milk powder")
    shared = {
        "share_via": "email",
        "share_message": "Look",
        "recipient": "friend@example.com",
        "product_id": "p-1",
        "url": "https://x.example",
    }
    assert track("Product Shared", shared) == PageShared(**BASE, product_id="p-1", url="https://x.example")


@pytest.mark.parametrize("topic", INPUT_TOPICS)
def test_a_track_call_is_recognised_by_its_shape_on_any_topic(topic: str) -> None:
    assert track("Order Completed", ORDER, topic=topic) == track("Order Completed", ORDER)


@pytest.mark.parametrize("user", [..., None, ""])
def test_an_anonymous_track_call_is_ignored_with_any_key(user: object) -> None:
    frame = {name: value for name, value in {**FRAME, "userId": user}.items() if value is not ...}
    for key in (None, b"6f0d1a52-3b0e-4f0e-9d2b-1c8a7be0a001"):
        assert track("Order Completed", ORDER, frame, key=key) == Ignored("anonymous", "Order Completed")


@pytest.mark.parametrize("event", ["Promotion Viewed", "Product Clicked", "order completed", "", "x" * 500])
def test_an_unmapped_track_call_is_ignored_by_its_name(event: str) -> None:
    assert track(event, ORDER) == Ignored("unmapped", event[:100])
    assert track(event, ORDER, unknown_types="reject") == Ignored("unmapped", event[:100])


@pytest.mark.parametrize(
    ("number", "amount"),
    [
        (25, "25"),
        (25.0, "25.0"),
        (19.99, "19.99"),
        (0.1 + 0.2, "0.30000000"),
        (27.500000000000004, "27.50000000"),
        (1e-7, "0.0000001"),
        (123456789.12, "123456789.12"),
        ("14.99", "14.99"),
        (0, "0"),
    ],
)
def test_numbers_for_money_are_read_as_the_decimals_that_were_written(number: object, amount: str) -> None:
    order = track("Order Completed", {**ORDER, "total": number})
    assert isinstance(order, OrderPaid)
    assert f"{order.total:f}" == amount


@pytest.mark.parametrize("price", [-5, -0.5, 1e300, 10**18, "$5", True, [5]])
def test_what_is_no_amount_is_refused_in_the_words_of_the_track_call(price: object) -> None:
    order = {**ORDER, "products": [PRODUCTS[0], {**PRODUCTS[1], "price": price}]}
    result = track("Order Completed", order)
    assert isinstance(result, RejectedMessage)
    assert (result.code, result.field) == ("bad_value", "properties.products[1].price")
    assert "`properties.products[1].price`" in result.reason


def test_what_is_paid_falls_back_to_value_and_revenue() -> None:
    for left_out, total in ((("total",), "267.9"), (("total", "revenue"), "300")):
        order = track(
            "Order Completed", {**without(ORDER, *left_out), **({"value": 300} if "revenue" in left_out else {})}
        )
        assert isinstance(order, OrderPaid)
        assert order.total == Decimal(total)


def test_money_without_a_currency_is_in_us_dollars_as_segment_says() -> None:
    order = track("Order Completed", without(ORDER, "currency"))
    assert isinstance(order, OrderPaid)
    assert order.currency == "USD"


def test_a_refund_that_names_no_currency_is_in_its_orders_and_one_that_does_is_as_it_says() -> None:
    refund = {"order_id": "o-77", "total": 30}
    assert track("Order Refunded", refund) == OrderRefunded(**BASE, order_id="o-77", amount=Decimal(30))
    named = track("Order Refunded", {**refund, "currency": "eur"})
    assert named == OrderRefunded(**BASE, order_id="o-77", amount=Decimal(30), currency="EUR")
    wrong = track("Order Refunded", {**refund, "currency": "euro"})
    assert isinstance(wrong, RejectedMessage)
    assert (wrong.code, wrong.field) == ("bad_value", "properties.currency")


def test_a_currency_in_small_letters_is_understood() -> None:
    order = track("Order Completed", {**ORDER, "currency": "cny"})
    assert isinstance(order, OrderPaid)
    assert order.currency == "CNY"


def test_ids_that_are_numbers_become_text() -> None:
    order = track("Order Completed", {**ORDER, "order_id": 77}, {**FRAME, "userId": 42}, key=b"42")
    assert isinstance(order, OrderPaid)
    assert (order.order_id, order.user_id) == ("77", "42")


def test_a_product_without_id_is_known_by_its_sku() -> None:
    order = track("Order Completed", {**ORDER, "products": [without(PRODUCTS[0], "product_id")]})
    assert isinstance(order, OrderPaid)
    assert order.lines[0].product_id == "40210-11"


def test_an_order_may_come_without_its_products() -> None:
    order = track("Order Completed", without(ORDER, "products"))
    assert isinstance(order, OrderPaid)
    assert order.lines == ()


def test_whole_numbers_written_as_decimals_are_quantities() -> None:
    order = track("Order Completed", {**ORDER, "products": [{**PRODUCTS[0], "quantity": 2.0}]})
    assert isinstance(order, OrderPaid)
    assert order.lines[0].quantity == 2


@pytest.mark.parametrize(
    ("event", "properties", "frame", "code", "field"),
    [
        ("Order Completed", without(ORDER, "order_id"), {}, "missing_field", "properties.order_id"),
        (
            "Order Completed",
            without(ORDER, "total", "revenue", "currency"),
            {"x": 1},
            "missing_field",
            "properties.currency",
        ),
        ("Order Completed", {**ORDER, "products": 5}, {}, "bad_value", "properties.products"),
        ("Order Completed", {**ORDER, "products": [5]}, {}, "bad_value", "properties.products[0]"),
        ("Order Completed", {**ORDER, "products": [{}]}, {}, "missing_field", "properties.products[0].product_id"),
        ("Order Completed", {**ORDER, "coupon": {}}, {}, "bad_value", "properties.coupon[0]"),
        ("Order Completed", {**ORDER, "currency": "euro"}, {}, "bad_value", "properties.currency"),
        ("Order Completed", {**ORDER, "currency": 9}, {}, "bad_value", "properties.currency"),
        ("Product Viewed", {**PRODUCT, "name": ["x"]}, {}, "bad_value", "properties.name"),
        ("Product Viewed", PRODUCT, {"messageId": None}, "missing_field", "messageId"),
        ("Product Viewed", PRODUCT, {"userId": "u\n"}, "bad_value", "userId"),
        ("Product Viewed", PRODUCT, {"userId": {"id": 1}}, "bad_value", "userId"),
        ("Product Viewed", PRODUCT, {"userId": "u-43"}, "key_mismatch", "userId"),
        ("Product Viewed", PRODUCT, {"timestamp": "2026-03-01"}, "bad_time", "timestamp"),
        ("Product Viewed", PRODUCT, {"timestamp": None, "originalTimestamp": None}, "missing_field", "timestamp"),
        ("Product Viewed", PRODUCT, {"timestamp": "2030-03-01T00:00:00Z"}, "bad_time", "timestamp"),
        ("Product Viewed", [], {}, "bad_value", "properties"),
        ("Product Viewed", None, {}, "missing_field", "properties.product_id"),
        (None, PRODUCT, {}, "missing_field", "event"),
        (7, PRODUCT, {}, "bad_value", "event"),
    ],
)
def test_a_refusal_names_the_field_of_the_track_call(
    event: object, properties: object, frame: dict[str, Any], code: str, field: str
) -> None:
    result = track(event, properties, {**FRAME, **frame})
    assert isinstance(result, RejectedMessage)
    assert (result.code, result.field) == (code, field)
    assert result.reason.endswith(".")


def test_the_key_must_be_the_user_here_too() -> None:
    result = track("Order Completed", ORDER, key=None)
    assert isinstance(result, RejectedMessage)
    assert result.code == "no_key"


def test_every_event_of_the_mapping_names_fields_that_its_type_has() -> None:
    data = yaml.safe_load((SCHEMAS / "segment.yaml").read_text(encoding="utf-8"))
    for name, event in data["events"].items():
        fields = set(event) - {"type", "needs", "without currency", "lapses after hours"}
        assert fields <= set(EVENT_TYPES[event["type"]].__struct_fields__), name


def test_a_mapping_onto_a_field_that_does_not_exist_is_refused_when_it_is_loaded() -> None:
    with pytest.raises(ValueError, match="OrderPaid has no field totl"):
        segment._mapping({"type": "OrderPaid", "totl": ["total"]})


def test_every_required_field_of_a_mapped_type_is_read_from_somewhere() -> None:
    frame = {field.name for field in segment._FRAME}
    for name, mapping in segment._EVENTS.items():
        required = {f.name for f in structs.fields(EVENT_TYPES[mapping.type]) if f.required}
        assert required <= frame | {field.name for field in mapping.fields}, name


def test_a_refusal_of_a_field_that_is_not_mapped_stays_as_it_is() -> None:
    refusal = RejectedMessage("bad_value", "`attributes.x` is odd.", "attributes.x")
    assert segment.where_it_came_from(refusal, "Order Completed") == refusal
