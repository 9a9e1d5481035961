"""The events that upstream services publish: what users did, as immutable values, one type each.

Fields, order and meaning are the published contract; the JSON Schema files beside this module are generated from it.
An optional field that is absent or null is None, an optional list is ().
"""

from __future__ import annotations

from typing import ClassVar, Final

from msgspec import Struct

from schemas import parts
from schemas.instant import Instant
from schemas.money import Amount
from schemas.parts import (
    Birthday,
    Count,
    CouponKind,
    Currency,
    Discounts,
    Id,
    Ids,
    IssuedCoupons,
    LineQuantities,
    Lines,
    Scalar,
    Seconds,
    Text,
    UserId,
    Zone,
)

INPUT_TOPICS: Final = ("orders", "logins", "browse", "coupons", "profiles", "feedback")
"""Every input, in the order that breaks ties when two events happened at the same instant."""

ANY_TOPIC: Final = "any"

# What events carry goes by their name as well: `events.Line`.
Line = parts.Line
LineQuantity = parts.LineQuantity
Discount = parts.Discount
IssuedCoupon = parts.IssuedCoupon


class Event(Struct, frozen=True, kw_only=True, gc=False):
    """What every event of a user carries. `event_id` drops duplicates; `occurred_at` (event time) decides the order."""

    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]

    event_id: Id
    user_id: UserId
    occurred_at: Instant
    channel: Text | None = None


class ClockAdvanced(Struct, frozen=True, kw_only=True, gc=False):
    """Nothing older than `occurred_at` follows on this partition of this topic. No user, no key."""

    TYPE: ClassVar[str] = "ClockAdvanced"
    TOPIC: ClassVar[str] = ANY_TOPIC

    occurred_at: Instant


# orders


class OrderEvent(Event, frozen=True, kw_only=True, gc=False):
    TOPIC: ClassVar[str] = "orders"

    order_id: Id


class OrderPlaced(OrderEvent, frozen=True, kw_only=True, gc=False):
    """`total` is what the customer pays in the end: all discounts taken off, shipping included."""

    TYPE: ClassVar[str] = "OrderPlaced"

    currency: Currency
    total: Amount
    lines: Lines
    coupons_used: Ids = ()
    pay_url: Text | None = None
    pay_deadline: Instant | None = None
    parent_order_id: Id | None = None
    discounts: Discounts = ()


class OrderPaid(OrderPlaced, frozen=True, kw_only=True, gc=False):
    """Fully paid; for cash on delivery: at delivery."""

    TYPE: ClassVar[str] = "OrderPaid"

    coupons_issued: IssuedCoupons = ()


class DepositPaid(OrderEvent, frozen=True, kw_only=True, gc=False):
    """A pre-sale's deposit. The balance is due from `balance_due_from` on; no "unpaid" reminder before."""

    TYPE: ClassVar[str] = "DepositPaid"

    currency: Currency
    amount: Amount
    balance_due_from: Instant | None = None
    balance_due_until: Instant | None = None


class OrderCancelled(OrderEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "OrderCancelled"

    reason: Text | None = None


class OrderShipped(OrderEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "OrderShipped"

    lines: LineQuantities = ()


class OrderReceived(OrderEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "OrderReceived"

    lines: LineQuantities = ()


class OrderRefunded(OrderEvent, frozen=True, kw_only=True, gc=False):
    """Money went back. Neither an amount nor lines means the whole order."""

    TYPE: ClassVar[str] = "OrderRefunded"

    refund_id: Id | None = None
    amount: Amount | None = None
    currency: Currency | None = None
    lines: LineQuantities = ()
    goods_returned: bool = True


class AfterSaleOpened(OrderEvent, frozen=True, kw_only=True, gc=False):
    """A complaint or a return began. While one is open, marketing to the user is held."""

    TYPE: ClassVar[str] = "AfterSaleOpened"

    case_id: Id | None = None


class AfterSaleClosed(OrderEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "AfterSaleClosed"

    case_id: Id | None = None


# logins


class LoginEvent(Event, frozen=True, kw_only=True, gc=False):
    TOPIC: ClassVar[str] = "logins"


class UserRegistered(LoginEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "UserRegistered"

    campaign: Text | None = None
    referrer_id: Id | None = None


class UserLoggedIn(LoginEvent, frozen=True, kw_only=True, gc=False):
    """An authenticated visit (the app was opened), not only a password typed."""

    TYPE: ClassVar[str] = "UserLoggedIn"

    device: Text | None = None


class UserCheckedIn(LoginEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "UserCheckedIn"


# browse


class BrowseEvent(Event, frozen=True, kw_only=True, gc=False):
    TOPIC: ClassVar[str] = "browse"


class ProductViewed(BrowseEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "ProductViewed"

    product_id: Id
    category: Text | None = None
    product_type: Text | None = None
    title: Text | None = None
    image_url: Text | None = None
    dwell_seconds: Seconds | None = None


class SearchPerformed(BrowseEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "SearchPerformed"

    query: Text


class CartUpdated(BrowseEvent, frozen=True, kw_only=True, gc=False):
    """`lines` is the whole cart after the change; an empty list says that it was emptied."""

    TYPE: ClassVar[str] = "CartUpdated"

    lines: Lines
    currency: Currency | None = None
    cart_id: Id | None = None


class CheckoutStarted(BrowseEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "CheckoutStarted"

    lines: Lines
    checkout_id: Id | None = None
    order_id: Id | None = None
    currency: Currency | None = None
    total: Amount | None = None


class PageShared(BrowseEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "PageShared"

    product_id: Id | None = None
    url: Text | None = None


# coupons


class CouponEvent(Event, frozen=True, kw_only=True, gc=False):
    TOPIC: ClassVar[str] = "coupons"

    coupon_id: Id


class CouponIssued(CouponEvent, frozen=True, kw_only=True, gc=False):
    """A user was given a coupon. `value` is money, or for kind percent the percentage (0 to 100]."""

    TYPE: ClassVar[str] = "CouponIssued"

    kind: CouponKind = "amount"
    value: Amount | None = None
    currency: Currency | None = None
    min_spend: Amount | None = None
    batch: Text | None = None
    pack_id: Id | None = None
    categories: Ids = ()
    valid_from: Instant | None = None
    expires_at: Instant | None = None


class CouponRedeemed(CouponEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "CouponRedeemed"

    order_id: Id | None = None


class CouponRevoked(CouponEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "CouponRevoked"

    order_id: Id | None = None


class CouponLocked(CouponEvent, frozen=True, kw_only=True, gc=False):
    """Held by an order that is not paid yet: until it is returned, or `until` then if that is known."""

    TYPE: ClassVar[str] = "CouponLocked"

    order_id: Id | None = None
    until: Instant | None = None


class CouponReturned(CouponEvent, frozen=True, kw_only=True, gc=False):
    """Usable again."""

    TYPE: ClassVar[str] = "CouponReturned"

    order_id: Id | None = None


# profiles


class ProfileEvent(Event, frozen=True, kw_only=True, gc=False):
    TOPIC: ClassVar[str] = "profiles"


class CustomerBaseline(ProfileEvent, frozen=True, kw_only=True, gc=False):
    """What was before our first event, so that going live doesn't take old customers for new ones."""

    TYPE: ClassVar[str] = "CustomerBaseline"

    registered_at: Instant
    orders: Count
    first_order_at: Instant | None = None
    last_order_at: Instant | None = None
    spend: Amount | None = None
    currency: Currency | None = None
    tier: Text | None = None
    points: Count | None = None


class ProfileUpdated(ProfileEvent, frozen=True, kw_only=True, gc=False):
    """`birthday` is "1990-05-04", or "--05-04" without its year. `contact_group` is a hash of a phone or an address
    that several users may share."""

    TYPE: ClassVar[str] = "ProfileUpdated"

    time_zone: Zone | None = None
    birthday: Birthday | None = None
    locale: Text | None = None
    contact_group: Id | None = None
    acquisition_cost: Amount | None = None
    currency: Currency | None = None
    attributes: dict[Id, Scalar] | None = None


class ConsentChanged(ProfileEvent, frozen=True, kw_only=True, gc=False):
    """`channel` is the one that may or may not be used: push, sms, email, wechat_service, in_app, ...
    `quota` is how many sends this grant allows."""

    TYPE: ClassVar[str] = "ConsentChanged"

    channel: Id
    category: Text | None = None
    granted: bool
    template_id: Id | None = None
    quota: Count | None = None


class UserMerged(ProfileEvent, frozen=True, kw_only=True, gc=False):
    """This account becomes part of the account `into`, for good: its history is added there, and what is still said of
    it counts there."""

    TYPE: ClassVar[str] = "UserMerged"

    into: UserId


class UserErased(ProfileEvent, frozen=True, kw_only=True, gc=False):
    """The user is forgotten, with all accounts that were merged: only a later registration begins anew."""

    TYPE: ClassVar[str] = "UserErased"


# feedback


class FeedbackEvent(Event, frozen=True, kw_only=True, gc=False):
    """What marketing systems did with triggers, and what they sent besides. `channel` is the one they used."""

    TOPIC: ClassVar[str] = "feedback"

    channel: Id
    trigger_id: Id | None = None
    campaign: Text | None = None


class MessageSent(FeedbackEvent, frozen=True, kw_only=True, gc=False):
    """Without `trigger_id`, what somebody else sent: it counts for the caps of its channel and of all contacts, and for
    a family's if `campaign` is the family's name. With it, a trigger that went out: on another channel than the
    trigger's, it counts for that one's caps as well."""

    TYPE: ClassVar[str] = "MessageSent"


class MessageFailed(FeedbackEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "MessageFailed"


class MessageOpened(FeedbackEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "MessageOpened"


class MessageClicked(FeedbackEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "MessageClicked"


class Unsubscribed(FeedbackEvent, frozen=True, kw_only=True, gc=False):
    TYPE: ClassVar[str] = "Unsubscribed"


EVENT_TYPES: Final[dict[str, type[Event]]] = {
    event.TYPE: event
    for event in (
        OrderPlaced,
        DepositPaid,
        OrderPaid,
        OrderCancelled,
        OrderShipped,
        OrderReceived,
        OrderRefunded,
        AfterSaleOpened,
        AfterSaleClosed,
        UserRegistered,
        UserLoggedIn,
        UserCheckedIn,
        ProductViewed,
        SearchPerformed,
        CartUpdated,
        CheckoutStarted,
        PageShared,
        CouponIssued,
        CouponRedeemed,
        CouponRevoked,
        CouponLocked,
        CouponReturned,
        CustomerBaseline,
        ProfileUpdated,
        ConsentChanged,
        UserMerged,
        UserErased,
        MessageSent,
        MessageFailed,
        MessageOpened,
        MessageClicked,
        Unsubscribed,
    )
}
