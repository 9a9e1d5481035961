"""What an order is of: its lines by product type, by category, and by all that a look at them was kept under.

Nothing here changes a row. Gifts count for nobody, and what came back is taken off.
"""

from __future__ import annotations

from app.core.happenings import Group
from app.core.row import Order


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


def has_goods(order: Order) -> bool:
    """Whether goods of this order are with the customer, as far as orders tell."""
    cancelled = order.cancelled_at is not None and order.paid_at is not None and order.cancelled_at >= order.paid_at
    return order.paid_at is not None and not cancelled and not order.returned_whole


def left_of(order: Order, by: str = "product_type") -> dict[str, Group]:
    """What is with the customer, by product type or category."""
    if not has_goods(order):
        return {}
    return {name: group for name, group in groups_of(order, by).items() if group.units > 0 or group.subscription}
