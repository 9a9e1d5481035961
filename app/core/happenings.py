"""What events come to, in the words that rules are written in: happenings, and reversals of what orders did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from app.core.row import Order, OrderLine, Row
from schemas import events as ev


class Group(Struct, frozen=True, gc=False):
    """The lines of one event that share a product type: one entry."""

    units: int
    """For own use; what came back is taken off."""
    subscription: bool
    """Some of it is delivered regularly, and has not come back."""
    quantity: int
    product_id: str
    title: str | None
    image_url: str | None


class Happening(NamedTuple):
    """Something rules may listen to. One event may mean several (an order that issues and uses coupons)."""

    kind: str
    at: int
    event_id: str
    source: str
    """The type of the event that said so."""
    order_id: str | None = None
    coupon_id: str | None = None
    groups: Mapping[str, Group] = {}
    """Its lines by product type."""
    categories: Mapping[str, Group] = {}
    """Its lines by category."""
    interests: Mapping[str, Group] = {}
    """Its lines by all that a look at them may have been kept under: category, product type, product."""
    counts: bool = True
    """False: a purchase that was paid back before it was heard of, with goods that stayed with the customer."""
    thing: str | None = None
    """The cart or the product it is about."""


class Reversal(NamedTuple):
    """A purchase, or the goods of some product types of it, no longer counts."""

    order_id: str
    purchase: bool
    """The order as such: it was cancelled or refunded, and counts no more."""
    product_types: frozenset[str] | None
    """Types of which nothing of this order is left with the customer; None = nothing of it at all."""
    no_own: frozenset[str]
    """Types of which nothing for own use is left (of a subscription to them, something may be)."""


class Facts(NamedTuple):
    """The row after the event, and what that means to rules."""

    row: Row
    happenings: tuple[Happening, ...] = ()
    reversals: tuple[Reversal, ...] = ()
    retimed: str | None = None
    """An order of which something changed, or "" for the user (another zone): pending steps are timed anew."""


class Refused(NamedTuple):
    """The event contradicts what is known; it goes to dead letters as `cannot_apply`."""

    reason: str
    field: str = ""


def happening_of(event: ev.Event) -> Happening:
    """The event itself as something that rules listen to."""
    order_id, coupon_id = getattr(event, "order_id", None), getattr(event, "coupon_id", None)
    return Happening(event.TYPE, event.occurred_at, event.event_id, event.TYPE, order_id, coupon_id)


def payment_of(order: Order) -> Happening:
    """That an order which is known was paid, as its event said it; its lines are left out."""
    assert order.paid_at is not None  # nobody asks it of another
    kind = ev.OrderPaid.TYPE
    return Happening(kind, order.paid_at, order.paid_event_id, kind, order.order_id)


def lines_of(lines: tuple[ev.Line, ...]) -> tuple[OrderLine, ...]:
    """The lines of an event as the row keeps them."""
    return tuple(
        OrderLine(
            line.product_id,
            line.runs_out or "",
            line.quantity,
            line.units,
            "gift" if line.gift else "subscription" if line.subscription else "",
            line.title,
            line.image_url,
            0,
            0,
            line.category or "",
        )
        for line in lines
    )
