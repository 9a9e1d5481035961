"""Coupons: issued, locked, used, given back, revoked, by word of their own or by an order's.

Whatever arrives first, a coupon ends in the same state; beyond MAX_COUPONS the one that matters least is let go.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from app.core.facts.summaries import forget, is_forgotten, minor
from app.core.happenings import Facts, Happening, happening_of
from app.core.purchases import is_paid
from app.core.row import MAX_COUPONS, NEVER, Coupon, Mark, Order, Row
from app.core.scope import NO_ORDER, taken_back
from schemas import events as ev


def _known_coupon(row: Row, coupon_id: str) -> Coupon | None:
    coupon = row.coupons.get(coupon_id)
    if coupon is not None:
        return coupon
    return None if is_forgotten(row, "coupon", coupon_id) else Coupon(coupon_id)


def _with_coupon(row: Row, coupon: Coupon) -> Row:
    new = replace(row, coupons={**row.coupons, coupon.coupon_id: coupon})
    if len(new.coupons) > MAX_COUPONS:
        let_coupon_go(new, least_coupon(new, coupon.coupon_id))
    return new


def least_coupon(new: Row, but: str = "") -> str:
    """The coupon of which the least is to be expected; one may be left out."""
    others = [c for c in new.coupons.values() if c.coupon_id != but]
    done = [c for c in others if c.redeemed or c.revoked] or others
    return min(done, key=lambda c: (c.expires_at, c.coupon_id)).coupon_id


def let_coupon_go(new: Row, coupon_id: str) -> None:
    """Takes a coupon off a row that is being made; it is known, and changes nothing any more."""
    del new.coupons[coupon_id]
    forget(new, "coupon", coupon_id)


def issue(
    row: Row, terms: ev.IssuedCoupon | ev.CouponIssued, event: ev.Event, order_id: str | None
) -> tuple[Row, list[Happening]]:
    """The row with a coupon that was issued, by an order or on its own; nothing happens when it was known."""
    at, event_id = event.occurred_at, event.event_id
    coupon = _known_coupon(row, terms.coupon_id)
    if coupon is None or coupon.issued_at is not None:
        return row, []
    money = terms.value is not None and terms.currency is not None
    coupon = replace(
        coupon,
        issued_at=at,
        event_id=event_id,
        kind=terms.kind,
        value=_plain(terms.value),
        currency=terms.currency,
        value_minor=minor(terms.value or Decimal(0), terms.currency or "") if money else 0,
        min_spend=_plain(terms.min_spend),
        batch=terms.batch,
        pack_id=terms.pack_id,
        valid_from=at if terms.valid_from is None else terms.valid_from,
        expires_at=NEVER if terms.expires_at is None else terms.expires_at,
        order_id=order_id,
    )
    return _with_coupon(row, coupon), [Happening("CouponIssued", at, event_id, event.TYPE, order_id, coupon.coupon_id)]


def _plain(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")


def redeem(row: Row, coupon_id: str, mark: Mark, source: str) -> tuple[Row, list[Happening]]:
    """The row with a coupon that was used, unless something later or stronger is known of it."""
    coupon = _known_coupon(row, coupon_id)
    if coupon is None:
        return row, []
    before = coupon.redeemed  # a later use says that the earlier one was taken back, heard of or not
    if before is not None and (before.at >= mark.at or before.order_id == mark.order_id):
        return row, []
    if taken_back(row.orders.get(mark.order_id or "", NO_ORDER)):
        return row, []
    if coupon.returned_at is not None and coupon.returned_at >= mark.at:
        return row, []
    new = _with_coupon(row, replace(coupon, redeemed=mark))
    return new, [Happening("CouponRedeemed", mark.at, mark.event_id, source, mark.order_id, coupon_id)]


def freed_from(row: Row, order: Order, event: ev.Event) -> tuple[Row, list[Happening]]:
    """Coupons that the order used or held are free again (as happenings); those that it issued are gone."""
    at, event_id = event.occurred_at, event.event_id
    coupons, freed = dict(row.coupons), []
    for name, coupon in row.coupons.items():
        if (after := freed_by(row, coupon, order)) is not None:
            coupons[name] = coupon = after
            freed.append(Happening("CouponReturned", at, event_id, event.TYPE, order.order_id, name))
        if coupon.order_id == order.order_id and coupon.revoked is None:
            coupons[name] = replace(coupon, revoked=Mark(at, event_id, "CouponRevoked", order.order_id))
    return replace(row, coupons=coupons), freed


def freed_by(row: Row, coupon: Coupon, order: Order) -> Coupon | None:
    """The coupon that this order, now taken back, used or held; None when it did neither."""
    used = coupon.redeemed is not None and coupon.redeemed.order_id == order.order_id
    if not used and coupon.locked_by != order.order_id:
        return None
    if coupon.locked_by in (None, order.order_id):  # a lock that names no order was this one's
        coupon = replace(coupon, locked_at=None, locked_by=None, locked_until=NEVER)
    return replace(coupon, redeemed=_use_by_an_order(row, coupon)) if used else coupon


def _use_by_an_order(row: Row, coupon: Coupon) -> Mark | None:
    """The use of a coupon by an order that counts; an older use that was heard of as well."""
    uses = [
        Mark(order.paid_at, order.paid_event_id, "CouponRedeemed", order.order_id)
        for order in row.orders.values()
        if order.paid_at is not None and coupon.coupon_id in order.coupons_used and is_paid(order)
    ]
    return max((use for use in uses if use.at > (coupon.returned_at or 0)), key=lambda use: use.at, default=None)


def _coupon_issued(row: Row, event: ev.CouponIssued) -> Facts:
    new, happenings = issue(row, event, event, None)
    return Facts(new, tuple(happenings))


def _coupon_redeemed(row: Row, event: ev.CouponRedeemed) -> Facts:
    mark = Mark(event.occurred_at, event.event_id, "CouponRedeemed", event.order_id)
    new, happenings = redeem(row, event.coupon_id, mark, event.TYPE)
    return Facts(new, tuple(happenings))


def _coupon_changed(row: Row, event: ev.CouponRevoked | ev.CouponLocked | ev.CouponReturned) -> Facts:
    coupon = _known_coupon(row, event.coupon_id)
    if coupon is None:
        return Facts(row)
    at = event.occurred_at
    if isinstance(event, ev.CouponRevoked):
        if coupon.revoked is not None:
            return Facts(row)
        coupon = replace(coupon, revoked=Mark(at, event.event_id, event.TYPE, event.order_id))
    elif isinstance(event, ev.CouponLocked):
        if coupon.returned_at is not None and coupon.returned_at >= at:
            return Facts(row)
        if taken_back(row.orders.get(event.order_id or "", NO_ORDER)):
            return Facts(row)
        if coupon.locked_at is None or coupon.locked_at <= at:
            until = NEVER if event.until is None else event.until
            coupon = replace(coupon, locked_at=at, locked_by=event.order_id, locked_until=until)
    else:
        redeemed = coupon.redeemed if coupon.redeemed is not None and coupon.redeemed.at > at else None
        if coupon.locked_at is not None and coupon.locked_at <= at:
            coupon = replace(coupon, locked_at=None, locked_until=NEVER)
        coupon = replace(coupon, redeemed=redeemed, returned_at=max(at, coupon.returned_at or at))
    return Facts(_with_coupon(row, coupon), (happening_of(event),))


HANDLERS: dict[type[ev.Event], Callable[[Row, Any], Facts]] = {
    ev.CouponIssued: _coupon_issued,
    ev.CouponRedeemed: _coupon_redeemed,
    ev.CouponRevoked: _coupon_changed,
    ev.CouponLocked: _coupon_changed,
    ev.CouponReturned: _coupon_changed,
}
