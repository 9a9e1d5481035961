"""A user's purchases, as far as the row keeps them: which orders count, and the rhythm they make.

What rules ask for while a row stays as it is, is worked out once (`latest`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from operator import attrgetter, sub
from typing import NamedTuple

from app.core.latest import of_the_latest
from app.core.row import NEVER, Order, Row
from schemas.instant import DAY

_paid_at: Callable[[Order], int] = attrgetter("paid_at")
#: A rhythm needs so many gaps between purchases to be the user's own.
MIN_GAPS = 3


class Purchases(NamedTuple):
    """What the kept orders of a row come to."""

    instants: tuple[int, ...]
    """When those that count were paid, the earliest first."""
    orders: int
    """How many count, split orders once."""
    paid: list[Order]
    """All that were ever paid, whether they still count or not, the earliest first."""


def purchases(row: Row) -> Purchases:
    """The purchases of a row."""
    return _purchases(row.orders)


@of_the_latest
def _purchases(orders: dict[str, Order]) -> Purchases:
    paid = [order for order in orders.values() if order.paid_at is not None]
    paid.sort(key=_paid_at)
    counted = [order for order in paid if is_paid(order)]
    return Purchases(tuple(map(_paid_at, counted)), len({purchase_of(order) for order in counted}), paid)


def paid_since(row: Row, at: int) -> list[Order]:
    """Orders that were paid at this instant or later, whether they still count or not."""
    paid = purchases(row).paid
    first = len(paid)
    while first and _paid_at(paid[first - 1]) >= at:  # from the end: they are few, and mostly none
        first -= 1
    return paid[first:]


def first_order(row: Row) -> Order | None:
    """The first purchase that is kept and counts."""
    return next((order for order in purchases(row).paid if is_paid(order)), None)


def bought_since(row: Row, interest: str, at: int) -> list[tuple[int, bool]]:
    """(instant, whether it still counts) of purchases of a category, product type or product from an instant on, the
    earliest first."""
    return [
        (order.paid_at or 0, is_paid(order))
        for order in paid_since(row, at)
        if any(
            interest in (line.category, line.product_type, line.product_id) and line.kind != "gift"
            for line in order.lines
        )
    ]


def is_paid(order: Order) -> bool:
    """Whether the order counts as a purchase now."""
    return (
        order.paid_at is not None
        and (order.cancelled_at is None or order.cancelled_at < order.paid_at)
        and not order.refunded_whole
    )


def purchase_of(order: Order) -> str:
    """The purchase that an order is, or that it is a part of: the shop splits what was bought as one."""
    return order.parent_id or order.order_id


def parts_of(row: Row, purchase: str) -> Iterator[Order]:
    """The orders into which the shop split a purchase."""
    return (o for o in row.orders.values() if o.parent_id == purchase and o.order_id != purchase)


def is_split(row: Row, order_id: str) -> bool:
    """Whether the shop split this order: what is paid, cancelled and refunded are its parts."""
    return any(True for _ in parts_of(row, order_id))


def paid_orders(row: Row) -> int:
    """Orders that count, split orders once."""
    return purchases(row).orders + row.old_orders + (row.baseline.orders if row.baseline else 0)


def last_order_at(row: Row) -> int | None:
    """The latest purchase that still counts."""
    instants = purchases(row).instants
    return _latest_of(row, instants[-1] if instants else None, NEVER)


def purchase_before(row: Row, at: int) -> int | None:
    """The latest purchase before an instant."""
    instants = purchases(row).instants
    place = bisect_left(instants, at)
    return _latest_of(row, instants[place - 1] if place else None, at)


def buying_since(row: Row, at: int) -> int:
    """The first of the purchases that end with an instant, those within a day being one."""
    while (before := purchase_before(row, at)) is not None and at - before < DAY:
        at = before
    return at


def _latest_of(row: Row, latest: int | None, before: int) -> int | None:
    """The latest of a kept purchase and those that are merely summed up, if they were before an instant."""
    for other in (row.old_last_order_at, row.baseline.last_order_at if row.baseline else None):
        if other is not None and other < before and (latest is None or other > latest):
            latest = other
    return latest


def usual_gap(row: Row, until: int) -> int | None:
    """The mean gap between the purchases that are kept (those before an instant), those within a day being one; None
    when they are too few to make a rhythm."""
    instants = purchases(row).instants
    if instants and instants[-1] >= until:
        return _mean_gap(instants[: bisect_left(instants, until)])
    return _own_gap(instants)


def _mean_gap(instants: tuple[int, ...]) -> int | None:
    gaps = [gap for gap in map(sub, instants[1:], instants) if gap >= DAY]
    return sum(gaps) // len(gaps) if len(gaps) >= MIN_GAPS else None


_own_gap = of_the_latest(_mean_gap)
