"""What the events are made of: ids, texts and counts with their bounds, and the values that several events carry.

A bound stands where its type stands, so that the decoder and the published schema take it from the same place.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.instant import Instant
from schemas.money import Amount

Id = Annotated[str, Meta(min_length=1, max_length=256)]
UserId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        description="The record's key. At most 256 bytes of UTF-8, no control characters.",
        extra_json_schema={"pattern": r"^[^\u0000-\u001f\u007f-\u009f]+$"},
    ),
]
Text = Annotated[str, Meta(max_length=2048)]
Currency = Annotated[
    str,
    Meta(min_length=3, max_length=3, description="ISO 4217, such as CNY.", extra_json_schema={"pattern": "^[A-Z]{3}$"}),
]
Quantity = Annotated[int, Meta(gt=0, le=1_000_000)]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=31_536_000)]
Zone = Annotated[str, Meta(min_length=1, max_length=64, description="An IANA time zone, such as Asia/Shanghai.")]
Birthday = Annotated[
    str,
    Meta(
        min_length=7,
        max_length=10,
        description='A date since 1900, "1990-05-04", or "--05-04" without the year.',
        extra_json_schema={"pattern": "^([0-9]{4}|-)-[0-9]{2}-[0-9]{2}$"},
    ),
]
Ids = Annotated[tuple[Id, ...], Meta(max_length=1000)]
Scalar = str | int | float | bool | None

CouponKind = Literal["amount", "percent", "shipping", "gift"]


class Line(Struct, frozen=True, kw_only=True, gc=False):
    """One line of an order, a cart or a checkout. `unit_price` is in the currency of what the line belongs to."""

    product_id: Id
    sku: Text | None = None
    category: Text | None = None
    product_type: Text | None = None
    quantity: Quantity
    unit_price: Amount | None = None
    units: Quantity = 1
    gift: bool = False
    subscription: bool = False
    title: Text | None = None
    image_url: Text | None = None

    @property
    def runs_out(self) -> str | None:
        """What replenishment looks at: the product type, or the category where there is none."""
        return self.product_type or self.category or None


Lines = Annotated[tuple[Line, ...], Meta(max_length=1000)]


class LineQuantity(Struct, frozen=True, kw_only=True, gc=False):
    """How many pieces of an ordered product were shipped, received or sent back."""

    product_id: Id
    quantity: Quantity


LineQuantities = Annotated[tuple[LineQuantity, ...], Meta(max_length=1000)]


class Discount(Struct, frozen=True, kw_only=True, gc=False):
    """What was taken off an order, in the order's currency, and who pays for it."""

    amount: Amount
    coupon_id: Id | None = None
    funded_by: Text | None = None


Discounts = Annotated[tuple[Discount, ...], Meta(max_length=1000)]


class IssuedCoupon(Struct, frozen=True, kw_only=True, gc=False):
    """A coupon that an order gave to its buyer. `value` is money, or for kind percent the percentage (0 to 100]."""

    coupon_id: Id
    kind: CouponKind = "amount"
    value: Amount | None = None
    currency: Currency | None = None
    min_spend: Amount | None = None
    batch: Text | None = None
    pack_id: Id | None = None
    categories: Ids = ()
    valid_from: Instant | None = None
    expires_at: Instant | None = None


IssuedCoupons = Annotated[tuple[IssuedCoupon, ...], Meta(max_length=1000)]
