"""What a row keeps of orders once they are too many: the oldest lose their lines, then become sums and a hash.

No count and no sum is lost. By its hash an order, or a coupon, is known when it is told again, and changes nothing. An
order with an open after-sale case is kept while there are others; of one that is summarised a later case is kept alone.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec.structs import replace

from app.core import ids
from app.core.purchases import is_paid
from app.core.row import MAX_LINES, MAX_MINOR, MAX_ORDERS, MAX_ORDERS_WITH_LINES, Order, Row
from app.core.scope import taken_back
from schemas.money import minor_units

#: Hashes of summarised orders and coupons that a row keeps.
MAX_FORGOTTEN = 1024


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


def forget(row: Row, kind: str, name: str, counted: bool = False) -> None:
    """Leaves the hash of what goes on a row that is being made; of too many the oldest go."""
    row.forgotten = (row.forgotten + _trace(kind, name, counted))[-MAX_FORGOTTEN * ids.EVENT_HASH_BYTES :]


def known_order(row: Row, order_id: str) -> Order | None:
    """The order as known; None when it was summarised long ago and changes nothing any more."""
    order = row.orders.get(order_id)
    if order is not None and not (_has_only_cases(order) and is_forgotten(row, "order", order_id)):
        return order
    return None if is_forgotten(row, "order", order_id) else Order(order_id)


def known_cases(row: Row, order_id: str) -> Order:
    """The order as known; of one that was summarised, what was heard of its after-sale cases since."""
    return row.orders.get(order_id) or Order(order_id)


def cases_of(order: Order) -> Order:
    """What is kept of an order that was summarised."""
    return Order(order.order_id, cases=order.cases, case_words=order.case_words)


def _has_only_cases(order: Order) -> bool:
    return bool(order.case_words) and order == cases_of(order)


def with_order(row: Row, order: Order) -> Row:
    """The row with this order; beyond MAX_ORDERS the least of the others is summarised into its sums."""
    new = replace(row, orders={**row.orders, order.order_id: order})
    let_lines_go(new.orders)
    if len(new.orders) > MAX_ORDERS:
        summarise(new, least_order(new, order.order_id))
    return new


def least_order(new: Row, but: str = "") -> Order:
    """The oldest order without an open case, else the oldest; one may be left out."""
    others = [order for order in new.orders.values() if order.order_id != but]
    return oldest_of([order for order in others if not order.cases] or others)


def summarise(new: Row, oldest: Order) -> None:
    """Takes an order off a row that is being made; its sums stay."""
    del new.orders[oldest.order_id]
    parent = oldest.parent_id or oldest.order_id
    paid = is_paid(oldest) and oldest.paid_at is not None
    counts = paid and not any((o.parent_id or o.order_id) == parent and is_paid(o) for o in new.orders.values())
    if oldest.paid_at is not None or taken_back(oldest):  # else its payment may be to come
        forget(new, "order", oldest.order_id, counts and parent == oldest.order_id)
    if counts:
        new.old_orders += 1
        if parent != oldest.order_id:
            forget(new, "parent", parent, counted=True)
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


def minor(amount: Decimal, currency: str) -> int:
    """Minor units, within what a row can hold whatever is summed."""
    return min(minor_units(amount, currency), MAX_MINOR)
