"""A user's purchases, as far as the row keeps them: which orders count, and the rhythm they make.

What rules ask for while a row stays as it is, is worked out once (`latest`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from app.core.latest import of_the_latest
from app.core.row import Order, Row
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
    return Purchases(tuple(map(_paid_at, counted)), len({order.parent_id or order.order_id for order in counted}), paid)


def paid_since(row: Row, at: int) -> list[Order]:
    """Orders that were paid at this instant or later, whether they still count or not."""
    paid = purchases(row).paid
    return paid[bisect_left(paid, at, key=_paid_at) :]


def first_order(row: Row) -> Order | None:
    """The first purchase that is kept and counts."""
    return next((order for order in purchases(row).paid if is_paid(order)), None)


def is_paid(order: Order) -> bool:
    """Whether the order counts as a purchase now."""
    return (
        order.paid_at is not None
        and (order.cancelled_at is None or order.cancelled_at < order.paid_at)
        and not order.refunded_whole
    )


def paid_orders(row: Row) -> int:
    """Orders that count, split orders once."""
    return purchases(row).orders + row.old_orders + (row.baseline.orders if row.baseline else 0)


def last_order_at(row: Row) -> int | None:
    """The latest purchase that still counts."""
    instants = [*purchases(row).instants[-1:]]
    if row.old_last_order_at is not None:
        instants.append(row.old_last_order_at)
    if row.baseline and row.baseline.last_order_at is not None:
        instants.append(row.baseline.last_order_at)
    return max(instants, default=None)


def purchase_before(row: Row, at: int) -> int | None:
    """The latest purchase before an instant."""
    kept = purchases(row).instants
    instants = [*kept[: bisect_left(kept, at)][-1:]]
    instants += [t for t in (row.old_last_order_at, row.baseline and row.baseline.last_order_at) if t and t < at]
    return max(instants, default=None)


def usual_gap(row: Row, until: int) -> int | None:
    """The mean gap between the purchases that are kept (those before an instant), those within a day being one; None
    when they are too few to make a rhythm."""
    instants = purchases(row).instants
    if instants and instants[-1] >= until:
        instants = instants[: bisect_left(instants, until)]
    return _mean_gap(instants)


@lru_cache(maxsize=64)
def _mean_gap(instants: tuple[int, ...]) -> int | None:
    gaps = [later - earlier for earlier, later in pairwise(instants) if later - earlier >= DAY]
    return sum(gaps) // len(gaps) if len(gaps) >= MIN_GAPS else None
