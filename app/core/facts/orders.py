"""Orders: placed, paid, cancelled, refunded, received, with deposits and after-sale cases.

Each word counts once, by the order's own id and state. A refund may come before its purchase: it waits in the order.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from app.core.facts import coupons
from app.core.facts.groups import grouped, groups_of, has_goods, left_of
from app.core.facts.summaries import known_cases, known_order, minor, with_order
from app.core.happenings import Facts, Refused, Reversal, happening_of, lines_of
from app.core.purchases import is_paid
from app.core.row import MAX_CASES, MAX_MINOR, MAX_REFUNDS, Mark, Order, OrderLine, Row
from app.core.scope import taken_back
from schemas import events as ev

#: No currency's smallest unit is smaller (ISO 4217).
_UNNAMED = 10_000


def take_back(lines: tuple[OrderLine, ...], product_id: str, pieces: int, goods: bool) -> tuple[OrderLine, ...]:
    """The lines after a refund of so many pieces of a product, filling lines of that product in order."""
    result = []
    for line in lines:
        if line.product_id == product_id and pieces > 0:
            taken = min(pieces, line.quantity - line.refunded)
            pieces -= taken
            line = replace(line, refunded=line.refunded + taken, returned=line.returned + (taken if goods else 0))
        result.append(line)
    return tuple(result)


def _fill(order: Order, event: ev.OrderPlaced | ev.OrderPaid) -> Order:
    """The order with what a placed or paid event says of it; the paid one is the better word."""
    order = replace(
        order,
        parent_id=event.parent_order_id or order.parent_id,
        currency=event.currency,
        total_minor=minor(event.total, event.currency),
        lines=lines_of(event.lines),
        coupons_used=event.coupons_used,
        pay_url=event.pay_url or order.pay_url,
        pay_deadline=order.pay_deadline if event.pay_deadline is None else event.pay_deadline,
    )
    return with_returns(order)


def in_its_currency(order: Order) -> Order:
    """The order with its money of refunds that name no currency: they are in the order's, once that is known."""
    if not order.refunded_unnamed or not order.currency:
        return order
    amount = minor(Decimal(order.refunded_unnamed) / _UNNAMED, order.currency)
    return replace(order, refunded_minor=min(order.refunded_minor + amount, MAX_MINOR), refunded_unnamed=0)


def with_returns(order: Order) -> Order:
    """The order with what was said to have come back of it before it was known; that waits for what was paid."""
    order = in_its_currency(order)
    if order.paid_at is None:
        return order
    lines = order.lines
    for product_id, pieces, goods in order.pending_returns:
        lines = take_back(lines, product_id, pieces, goods)
    return settle(replace(order, lines=lines, pending_returns=()))


def settle(order: Order) -> Order:
    """Refunds of every piece, or of the whole sum, are refunds of the order."""
    if order.paid_at is None:
        return order
    every_piece = bool(order.lines) and all(line.refunded >= line.quantity for line in order.lines)
    whole_sum = 0 < order.total_minor <= order.refunded_minor
    if not every_piece and not whole_sum:
        return order
    return replace(
        order, refunded_whole=True, returned_whole=order.returned_whole or (whole_sum and order.returned_for_sum)
    )


def _placed(row: Row, event: ev.OrderPlaced) -> Facts:
    order = known_order(row, event.order_id)
    if order is None or order.placed_at is not None:
        return Facts(row)
    order = replace(order, placed_at=event.occurred_at, parent_id=event.parent_order_id or order.parent_id)
    if order.paid_at is None:
        order = _fill(order, event)
    happening = happening_of(event)._replace(groups=groups_of(order), counts=not taken_back(order))
    return Facts(with_order(row, order), (happening,), (), order.order_id)  # its checkout knew of no deadline


def _paid(row: Row, event: ev.OrderPaid) -> Facts:
    order = known_order(row, event.order_id)
    if order is None or is_paid(order):
        return Facts(row)
    if order.paid_at is not None and event.occurred_at <= order.paid_at:
        return Facts(row)
    issued = tuple(coupon.coupon_id for coupon in event.coupons_issued)
    order = replace(order, paid_at=event.occurred_at, paid_event_id=event.event_id, coupons_issued=issued)
    order = _fill(order, event)
    new = with_order(row, order)
    if not is_paid(order):  # its cancellation or refund was here first; goods that stayed run out all the same
        left = left_of(order)
        stayed = happening_of(event)._replace(
            groups=left, categories=left_of(order, "category"), interests=left_of(order, "interest"), counts=False
        )
        new, freed = coupons.freed_from(new, order, event)
        return Facts(new, (stayed, *freed))
    at, event_id = event.occurred_at, event.event_id
    groups, categories, interests = grouped(order)
    happenings = [happening_of(event)._replace(groups=groups, categories=categories, interests=interests)]
    for coupon_id in event.coupons_used:
        new, more = coupons.redeem(new, coupon_id, Mark(at, event_id, "CouponRedeemed", order.order_id), event.TYPE)
        happenings += more
    for terms in event.coupons_issued:
        new, more = coupons.issue(new, terms, event, order.order_id)
        happenings += more
    return Facts(new, tuple(happenings))


def _cancelled(row: Row, event: ev.OrderCancelled) -> Facts:
    order = known_order(row, event.order_id)
    if order is None or (order.cancelled_at is not None and event.occurred_at <= order.cancelled_at):
        return Facts(row)
    return _reverse(row, order, replace(order, cancelled_at=event.occurred_at), event)


def _refunded(row: Row, event: ev.OrderRefunded) -> Facts | Refused:
    order = known_order(row, event.order_id)
    if order is None or (event.refund_id is not None and event.refund_id in order.refunds):
        return Facts(row)
    if event.currency is not None and order.currency and event.currency != order.currency:
        return Refused(
            f"Order {event.order_id} was paid in {order.currency}; a refund in {event.currency} cannot be it.",
            "currency",
        )
    after = order
    if event.refund_id is not None:
        after = replace(after, refunds=(*after.refunds, event.refund_id)[-MAX_REFUNDS:])
    if event.amount is not None:
        after = _paid_back(after, event.amount, event.currency or order.currency)
    if not event.lines and event.amount is None:
        after = replace(after, refunded_whole=True, returned_whole=order.returned_whole or event.goods_returned)
    elif not event.lines and event.goods_returned:
        after = replace(after, returned_for_sum=True)
    for line in event.lines:
        if order.paid_at is None:
            pending = (*after.pending_returns, (line.product_id, line.quantity, event.goods_returned))
            after = replace(after, pending_returns=pending[-MAX_REFUNDS:])
        else:
            after = replace(after, lines=take_back(after.lines, line.product_id, line.quantity, event.goods_returned))
    return _reverse(row, order, settle(after), event)


def _paid_back(order: Order, amount: Decimal, currency: str) -> Order:
    if not currency:
        unnamed = order.refunded_unnamed + int(amount * _UNNAMED)
        return replace(order, refunded_unnamed=min(unnamed, MAX_MINOR))
    return replace(order, refunded_minor=min(order.refunded_minor + minor(amount, currency), MAX_MINOR))


def _reverse(row: Row, before: Order, after: Order, event: ev.Event) -> Facts:
    """What it means that an order turned from `before` to `after`."""
    new = with_order(row, after)
    was, left = left_of(before), left_of(after)
    nothing_left = has_goods(before) and not has_goods(after)
    gone = None if nothing_left else frozenset(name for name in was if name not in left)
    purchase = taken_back(after) and not taken_back(before)
    happenings = [happening_of(event)]
    if purchase:
        new, freed = coupons.freed_from(new, after, event)
        happenings += freed
    no_own = frozenset(n for n, group in was.items() if group.units > 0 and (n not in left or not left[n].units))
    reversal = Reversal(after.order_id, purchase, gone, no_own)
    reversals = (reversal,) if purchase or no_own or gone != frozenset() else ()
    fewer = any(name in left and 0 < left[name].units < group.units for name, group in was.items())
    return Facts(new, tuple(happenings), reversals, after.order_id if fewer else None)


def _received(row: Row, event: ev.OrderReceived) -> Facts:
    order = known_order(row, event.order_id)
    if order is None or (order.received_at is not None and order.received_at <= event.occurred_at):
        return Facts(row)
    new = with_order(row, replace(order, received_at=event.occurred_at))
    return Facts(new, (happening_of(event),), (), order.order_id)


def _deposit(row: Row, event: ev.DepositPaid) -> Facts:
    order = known_order(row, event.order_id)
    if order is None:
        return Facts(row)
    word = (event.occurred_at, event.balance_due_from or 0, event.balance_due_until or 0)
    if order.deposit_at is not None and word < (order.deposit_at, order.deposit_from or 0, order.deposit_until or 0):
        return Facts(row, (happening_of(event),))  # a later word about the balance was here first
    order = replace(
        order,
        deposit_at=event.occurred_at,
        deposit_from=event.balance_due_from,
        deposit_until=event.balance_due_until,
    )
    return Facts(with_order(row, order), (happening_of(event),), (), order.order_id)


def _case(row: Row, event: ev.AfterSaleOpened | ev.AfterSaleClosed) -> Facts:
    order = known_cases(row, event.order_id)
    case, at, opens = event.case_id or "", event.occurred_at, isinstance(event, ev.AfterSaleOpened)
    known = next((word for word in order.case_words if word[0] == case), None)
    if known is not None and (known[1], not known[2]) >= (at, not opens):  # a later word; of two at once, the closing
        return Facts(row, (happening_of(event),))
    words = (*(word for word in order.case_words if word[0] != case), (case, at, opens))[-MAX_CASES:]
    cases = (*(name for name in order.cases if name != case), *((case,) if opens else ()))
    new = with_order(row, replace(order, cases=cases[-MAX_CASES:], case_words=words))
    return Facts(new, (happening_of(event),))


HANDLERS: dict[type[ev.Event], Callable[[Row, Any], Facts | Refused]] = {
    ev.OrderPlaced: _placed,
    ev.OrderPaid: _paid,
    ev.OrderCancelled: _cancelled,
    ev.OrderRefunded: _refunded,
    ev.OrderReceived: _received,
    ev.DepositPaid: _deposit,
    ev.AfterSaleOpened: _case,
    ev.AfterSaleClosed: _case,
}
