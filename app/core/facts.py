"""What happened to a user, whatever the order in which it arrived: events become facts of the row.

Nothing here knows a rule. An event changes orders, coupons and profile once (by their own ids and states, even when
the event ledger has forgotten it) and yields happenings, which rules listen to, and reversals, which take back what an
order had started or ended.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from app.core import baselines, ids, visits
from app.core.happenings import Facts, Group, Happening, Refused, Reversal, lines_of
from app.core.purchases import is_paid
from app.core.row import (
    MAX_CASES,
    MAX_COUPONS,
    MAX_LINES,
    MAX_MINOR,
    MAX_ORDERS,
    MAX_ORDERS_WITH_LINES,
    MAX_REFUNDS,
    NEVER,
    Baseline,
    Coupon,
    Mark,
    Order,
    OrderLine,
    Row,
)
from app.core.scope import NO_ORDER, taken_back
from schemas import events as ev
from schemas.money import minor_units

#: Topics whose events are acts of the user: somebody is there.
_OF_THE_USER = frozenset({"orders", "logins", "browse"})
#: And those among them that the shop does, or time: nobody was there.
_OF_THE_SHOP = (ev.OrderShipped, ev.OrderReceived, ev.OrderCancelled, ev.OrderRefunded, ev.AfterSaleClosed)
#: Hashes of summarised orders and coupons that a row keeps.
MAX_FORGOTTEN = 1024


def apply(row: Row, event: ev.Event) -> Facts | Refused:
    """The facts after this event. Unknown types of our own contract cannot come here: the codec made the event."""
    if (
        event.TOPIC in _OF_THE_USER
        and not isinstance(event, _OF_THE_SHOP)
        and event.occurred_at > (row.last_seen_at or 0)
    ):
        row = replace(row, last_seen_at=event.occurred_at)
    handler = HANDLERS.get(type(event))
    if handler is None:
        return Facts(row, (happening_of(event),))
    return handler(row, event)


def happening_of(event: ev.Event) -> Happening:
    """The event itself as something that rules listen to."""
    order_id, coupon_id = getattr(event, "order_id", None), getattr(event, "coupon_id", None)
    return Happening(event.TYPE, event.occurred_at, event.event_id, event.TYPE, order_id, coupon_id)


# -- orders ----------------------------------------------------------------------------------------------------------


def groups_of(order: Order, by: str = "product_type") -> dict[str, Group]:
    """The lines of an order by product type (or "category", or "interest": category, type and product), in order of
    first appearance; gifts count for nobody."""
    types, categories, interests = grouped(order)
    return types if by == "product_type" else categories if by == "category" else interests


def grouped(order: Order) -> tuple[dict[str, Group], dict[str, Group], dict[str, Group]]:
    """All three of `groups_of`: by product type, by category, by interest."""
    types: dict[str, Group] = {}
    categories: dict[str, Group] = {}
    interests: dict[str, Group] = {}
    for line in order.lines:
        if line.kind == "gift":
            continue
        left = 0 if order.returned_whole else line.quantity - line.returned
        subscription = line.kind == "subscription" and left > 0
        own = 0 if line.kind == "subscription" else left
        group = Group(own * line.units, subscription, own, line.product_id, line.title, line.image_url)
        _add(types, line.product_type, group)
        _add(categories, line.category, group)
        for name in dict.fromkeys((line.category, line.product_type, line.product_id)):
            _add(interests, name, group)
    return types, categories, interests


def _add(groups: dict[str, Group], name: str, group: Group) -> None:
    """Lines without a name for it (a category) are of no group."""
    if name:
        before = groups.get(name)
        groups[name] = group if before is None else _together(before, group)


def _together(one: Group, other: Group) -> Group:
    return Group(
        one.units + other.units,
        one.subscription or other.subscription,
        one.quantity + other.quantity,
        one.product_id,
        one.title,
        one.image_url,
    )


def _known_order(row: Row, order_id: str) -> Order | None:
    """The order as known; None when it was summarised long ago and changes nothing any more."""
    order = row.orders.get(order_id)
    if order is not None:
        return order
    return None if is_forgotten(row, "order", order_id) else Order(order_id)


def is_forgotten(row: Row, kind: str, name: str) -> bool:
    """Whether it was summarised, counted or not."""
    return bool(row.forgotten) and any(_has(row.forgotten, _trace(kind, name, counted)) for counted in (False, True))


def counted(row: Row) -> set[bytes]:
    """What stands for the purchases within `old_orders`, as far as their hashes are kept."""
    size = ids.EVENT_HASH_BYTES
    hashes = (row.forgotten[start : start + size] for start in range(0, len(row.forgotten), size))
    return {each for each in hashes if each[0] & 1}


def _trace(kind: str, name: str, counted: bool) -> bytes:
    """The hash by which it is known; its first byte is odd if it was counted among the old orders."""
    hashed = ids.event_hash(f"{kind}:{name}")
    return bytes((hashed[0] & 0xFE | counted,)) + hashed[1:]


def _has(forgotten: bytes, hashed: bytes) -> bool:
    found = forgotten.find(hashed)
    while found >= 0 and found % ids.EVENT_HASH_BYTES:
        found = forgotten.find(hashed, found + 1)
    return found >= 0


def _forget(row: Row, kind: str, name: str, counted: bool = False) -> None:
    row.forgotten = (row.forgotten + _trace(kind, name, counted))[-MAX_FORGOTTEN * ids.EVENT_HASH_BYTES :]


def _with_order(row: Row, order: Order) -> Row:
    """The row with this order; beyond MAX_ORDERS the oldest of the others is summarised into its sums."""
    new = replace(row, orders={**row.orders, order.order_id: order})
    let_lines_go(new.orders)
    if len(new.orders) > MAX_ORDERS:
        summarise(new, oldest_of([o for o in new.orders.values() if o.order_id != order.order_id]))
    return new


def summarise(new: Row, oldest: Order) -> None:
    """Takes an order off a row that is being made; its sums stay."""
    del new.orders[oldest.order_id]
    parent = oldest.parent_id or oldest.order_id
    paid = is_paid(oldest) and oldest.paid_at is not None
    counts = paid and not any((o.parent_id or o.order_id) == parent and is_paid(o) for o in new.orders.values())
    if oldest.paid_at is not None or taken_back(oldest):  # else its payment may be to come
        _forget(new, "order", oldest.order_id, counts and parent == oldest.order_id)
    if counts:
        new.old_orders += 1
        if parent != oldest.order_id:
            _forget(new, "parent", parent, counted=True)
    if paid:
        new.old_last_order_at = max(new.old_last_order_at or 0, oldest.paid_at or 0)
        spent = new.old_spend_minor.get(oldest.currency, 0) + oldest.total_minor - oldest.refunded_minor
        new.old_spend_minor = {**new.old_spend_minor, oldest.currency: min(spent, MAX_MINOR)}


def let_lines_go(orders: dict[str, Order]) -> None:
    """Takes the lines off the oldest orders, until those that keep theirs are few enough."""
    detailed = [order for order in orders.values() if order.lines]
    lines = sum([len(order.lines) for order in detailed])
    while len(detailed) > MAX_ORDERS_WITH_LINES or (len(detailed) > 1 and lines > MAX_LINES):
        oldest = oldest_of(detailed)
        detailed.remove(oldest)
        lines -= len(oldest.lines)
        orders[oldest.order_id] = replace(oldest, lines=(), coupons_used=(), coupons_issued=())


def oldest_of(orders: list[Order]) -> Order:
    """The order of which nothing was heard for longest; of equals the first by its id."""
    ages = [age_of(order) for order in orders]
    least = min(ages)
    return min((o for o, age in zip(orders, ages, strict=True) if age == least), key=lambda o: o.order_id)


def age_of(order: Order) -> int:
    """When something was last heard of an order."""
    at = order.paid_at or 0
    if order.placed_at is not None and order.placed_at > at:
        at = order.placed_at
    return order.cancelled_at if order.cancelled_at is not None and order.cancelled_at > at else at


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
        total_minor=_minor(event.total, event.currency),
        lines=lines_of(event.lines),
        coupons_used=event.coupons_used,
        pay_url=event.pay_url or order.pay_url,
        pay_deadline=order.pay_deadline if event.pay_deadline is None else event.pay_deadline,
    )
    return with_returns(order)


def with_returns(order: Order) -> Order:
    """The order with what was said to have come back of it before it was known; that waits for what was paid."""
    if order.paid_at is None:
        return order
    lines = order.lines
    for product_id, pieces, goods in order.pending_returns:
        lines = take_back(lines, product_id, pieces, goods)
    return settle(replace(order, lines=lines, pending_returns=()))


def _minor(amount: Decimal, currency: str) -> int:
    """Minor units, within what a row can hold whatever is summed."""
    return min(minor_units(amount, currency), MAX_MINOR)


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
    order = _known_order(row, event.order_id)
    if order is None or order.placed_at is not None:
        return Facts(row)
    order = replace(order, placed_at=event.occurred_at)
    if order.paid_at is None:
        order = _fill(order, event)
    return Facts(_with_order(row, order), (happening_of(event)._replace(groups=groups_of(order)),))


def _paid(row: Row, event: ev.OrderPaid) -> Facts:
    order = _known_order(row, event.order_id)
    if order is None or is_paid(order):
        return Facts(row)
    if order.paid_at is not None and event.occurred_at <= order.paid_at:
        return Facts(row)
    issued = tuple(coupon.coupon_id for coupon in event.coupons_issued)
    order = replace(order, paid_at=event.occurred_at, paid_event_id=event.event_id, coupons_issued=issued)
    order = _fill(order, event)
    new = _with_order(row, order)
    if not is_paid(order):  # its cancellation or refund was here first; goods that stayed run out all the same
        left = left_of(order)
        stayed = happening_of(event)._replace(
            groups=left, categories=left_of(order, "category"), interests=left_of(order, "interest"), counts=False
        )
        new, freed = _reverse_coupons(new, order, event)
        return Facts(new, (stayed, *freed))
    at, event_id = event.occurred_at, event.event_id
    groups, categories, interests = grouped(order)
    happenings = [happening_of(event)._replace(groups=groups, categories=categories, interests=interests)]
    for coupon_id in event.coupons_used:
        new, more = _redeem(new, coupon_id, Mark(at, event_id, "CouponRedeemed", order.order_id), event.TYPE)
        happenings += more
    for terms in event.coupons_issued:
        new, more = _issue(new, terms, event, order.order_id)
        happenings += more
    return Facts(new, tuple(happenings))


def _cancelled(row: Row, event: ev.OrderCancelled) -> Facts:
    order = _known_order(row, event.order_id)
    if order is None or (order.cancelled_at is not None and event.occurred_at <= order.cancelled_at):
        return Facts(row)
    return _reverse(row, order, replace(order, cancelled_at=event.occurred_at), event)


def _refunded(row: Row, event: ev.OrderRefunded) -> Facts | Refused:
    order = _known_order(row, event.order_id)
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
        amount = _minor(event.amount, event.currency or order.currency)
        after = replace(after, refunded_minor=min(after.refunded_minor + amount, MAX_MINOR))
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


def _has_goods(order: Order) -> bool:
    """Whether goods of this order are with the customer, as far as orders tell."""
    cancelled = order.cancelled_at is not None and order.paid_at is not None and order.cancelled_at >= order.paid_at
    return order.paid_at is not None and not cancelled and not order.returned_whole


def left_of(order: Order, by: str = "product_type") -> dict[str, Group]:
    """What is with the customer, by product type or category."""
    if not _has_goods(order):
        return {}
    return {name: group for name, group in groups_of(order, by).items() if group.units > 0 or group.subscription}


def _reverse(row: Row, before: Order, after: Order, event: ev.Event) -> Facts:
    """What it means that an order turned from `before` to `after`."""
    new = _with_order(row, after)
    was, left = left_of(before), left_of(after)
    nothing_left = _has_goods(before) and not _has_goods(after)
    gone = None if nothing_left else frozenset(name for name in was if name not in left)
    purchase = taken_back(after) and not taken_back(before)
    happenings = [happening_of(event)]
    if purchase:
        new, freed = _reverse_coupons(new, after, event)
        happenings += freed
    no_own = frozenset(n for n, group in was.items() if group.units > 0 and (n not in left or not left[n].units))
    reversal = Reversal(after.order_id, purchase, gone, no_own)
    reversals = (reversal,) if purchase or no_own or gone != frozenset() else ()
    fewer = any(name in left and 0 < left[name].units < group.units for name, group in was.items())
    return Facts(new, tuple(happenings), reversals, after.order_id if fewer else None)


def _reverse_coupons(row: Row, order: Order, event: ev.Event) -> tuple[Row, list[Happening]]:
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
        coupon = replace(coupon, locked_at=None, locked_by=None)
    return replace(coupon, redeemed=_use_by_an_order(row, coupon)) if used else coupon


def _use_by_an_order(row: Row, coupon: Coupon) -> Mark | None:
    """The use of a coupon by an order that counts; an older use that was heard of as well."""
    uses = [
        Mark(order.paid_at, order.paid_event_id, "CouponRedeemed", order.order_id)
        for order in row.orders.values()
        if order.paid_at is not None and coupon.coupon_id in order.coupons_used and is_paid(order)
    ]
    return max((use for use in uses if use.at > (coupon.returned_at or 0)), key=lambda use: use.at, default=None)


def _received(row: Row, event: ev.OrderReceived) -> Facts:
    order = _known_order(row, event.order_id)
    if order is None or (order.received_at is not None and order.received_at <= event.occurred_at):
        return Facts(row)
    new = _with_order(row, replace(order, received_at=event.occurred_at))
    return Facts(new, (happening_of(event),), (), order.order_id)


def _deposit(row: Row, event: ev.DepositPaid) -> Facts:
    order = _known_order(row, event.order_id)
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
    return Facts(_with_order(row, order), (happening_of(event),), (), order.order_id)


def _case(row: Row, event: ev.AfterSaleOpened | ev.AfterSaleClosed) -> Facts:
    order = _known_order(row, event.order_id)
    if order is None:
        return Facts(row)
    case, at, opens = event.case_id or "", event.occurred_at, isinstance(event, ev.AfterSaleOpened)
    known = next((word for word in order.case_words if word[0] == case), None)
    if known is not None and (known[1], not known[2]) >= (at, not opens):  # a later word; of two at once, the closing
        return Facts(row, (happening_of(event),))
    words = (*(word for word in order.case_words if word[0] != case), (case, at, opens))[-MAX_CASES:]
    cases = (*(name for name in order.cases if name != case), *((case,) if opens else ()))
    new = _with_order(row, replace(order, cases=cases[-MAX_CASES:], case_words=words))
    return Facts(new, (happening_of(event),))


# -- coupons ---------------------------------------------------------------------------------------------------------


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
    _forget(new, "coupon", coupon_id)


def _issue(
    row: Row, terms: ev.IssuedCoupon | ev.CouponIssued, event: ev.Event, order_id: str | None
) -> tuple[Row, list[Happening]]:
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
        value_minor=_minor(terms.value or Decimal(0), terms.currency or "") if money else 0,
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


def _redeem(row: Row, coupon_id: str, mark: Mark, source: str) -> tuple[Row, list[Happening]]:
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


def _coupon_issued(row: Row, event: ev.CouponIssued) -> Facts:
    new, happenings = _issue(row, event, event, None)
    return Facts(new, tuple(happenings))


def _coupon_redeemed(row: Row, event: ev.CouponRedeemed) -> Facts:
    mark = Mark(event.occurred_at, event.event_id, "CouponRedeemed", event.order_id)
    new, happenings = _redeem(row, event.coupon_id, mark, event.TYPE)
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
            coupon = replace(coupon, locked_at=at, locked_by=event.order_id)
    else:
        redeemed = coupon.redeemed if coupon.redeemed is not None and coupon.redeemed.at > at else None
        locked = coupon.locked_at if coupon.locked_at is not None and coupon.locked_at > at else None
        coupon = replace(coupon, redeemed=redeemed, locked_at=locked, returned_at=max(at, coupon.returned_at or at))
    return Facts(_with_coupon(row, coupon), (happening_of(event),))


# -- profile and visits ----------------------------------------------------------------------------------------------


def _registered(row: Row, event: ev.UserRegistered) -> Facts:
    if row.registered_at is not None and row.registered_at < event.occurred_at:
        return Facts(row)
    return Facts(replace(row, registered_at=event.occurred_at), (happening_of(event),))


def _logged_in(row: Row, event: ev.UserLoggedIn) -> Facts:
    return Facts(replace(row, last_login_at=max(event.occurred_at, row.last_login_at or 0)), (happening_of(event),))


def _baseline(row: Row, event: ev.CustomerBaseline) -> Facts:
    spend = _minor(event.spend, event.currency) if event.spend is not None and event.currency is not None else 0
    baseline = Baseline(
        event.registered_at, event.orders, event.first_order_at, event.last_order_at, spend, event.currency
    )
    registered = min(event.registered_at, row.registered_at or event.registered_at)
    row = baselines.told(row, event.user_id, baseline)
    return Facts(replace(row, registered_at=registered), (happening_of(event),))


def _profile(row: Row, event: ev.ProfileUpdated) -> Facts:
    at = event.occurred_at
    if event.time_zone is not None and at >= row.zone_at:
        row = replace(row, zone=event.time_zone, zone_at=at)
    if event.locale is not None and at >= row.locale_at:
        row = replace(row, locale=event.locale, locale_at=at)
    if event.birthday is not None:
        first, last = birthday_named(row)
        if event.birthday == row.birthday:
            row = replace(row, birthday_at=min(at, first), birthday_said_at=max(at, last))
        elif (at, event.birthday) > (last, row.birthday or ""):
            row = replace(row, birthday=event.birthday, birthday_at=at, birthday_said_at=at)
    return Facts(row, (happening_of(event),))


def birthday_named(row: Row) -> tuple[int, int]:
    """When the profile first and last named the birthday that is known."""
    return row.birthday_at, max(row.birthday_at, row.birthday_said_at)


HANDLERS: dict[type[ev.Event], Callable[[Row, Any], Facts | Refused]] = {
    ev.OrderPlaced: _placed,
    ev.OrderPaid: _paid,
    ev.OrderCancelled: _cancelled,
    ev.OrderRefunded: _refunded,
    ev.OrderReceived: _received,
    ev.DepositPaid: _deposit,
    ev.AfterSaleOpened: _case,
    ev.AfterSaleClosed: _case,
    ev.CouponIssued: _coupon_issued,
    ev.CouponRedeemed: _coupon_redeemed,
    ev.CouponRevoked: _coupon_changed,
    ev.CouponLocked: _coupon_changed,
    ev.CouponReturned: _coupon_changed,
    ev.UserRegistered: _registered,
    ev.UserLoggedIn: _logged_in,
    ev.CustomerBaseline: _baseline,
    ev.ProfileUpdated: _profile,
    ev.ProductViewed: visits.viewed,
    ev.CartUpdated: visits.cart_updated,
    ev.CheckoutStarted: visits.checkout_started,
    ev.ConsentChanged: visits.consent_changed,
    ev.Unsubscribed: visits.unsubscribed,
    ev.MessageSent: visits.message_sent,
}

__all__ = ["Facts", "Group", "Happening", "Refused", "Reversal", "apply", "groups_of"]
