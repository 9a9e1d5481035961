"""The products that a trigger is about, by the kind of its run."""

from __future__ import annotations

from app.core.row import Cart, OrderLine, View
from app.core.scope import Scope, best_view, order_of
from schemas.triggers import Item

#: A message names so many products at most.
MAX_ITEMS = 10


def items_of(scope: Scope) -> tuple[Item, ...]:
    """What runs out, what lies in the cart or in the order, or the product that was looked at most."""
    run, row = scope.run, scope.row
    if run.kind == "product_type":
        return (_replenished(scope),)
    if run.kind == "category":
        best = best_view(scope)
        return () if best is None else (_viewed(best),)
    if run.kind == "cart":
        return _lines(row.carts.get(run.key, Cart("", 0)).lines)
    if run.kind == "order":
        lines = order_of(scope).lines or row.carts.get(run.key, Cart("", 0)).lines
        return _lines(lines)
    return ()


def _replenished(scope: Scope) -> Item:
    data = scope.run.data
    return Item(
        product_id=data.get("product_id"),
        product_type=scope.run.key,
        title=data.get("title"),
        image_url=data.get("image_url"),
        quantity=data.get("quantity"),
    )


def _viewed(view: View) -> Item:
    return Item(
        product_id=view.product_id,
        product_type=view.product_type or None,
        title=view.title,
        image_url=view.image_url,
    )


def _lines(lines: tuple[OrderLine, ...]) -> tuple[Item, ...]:
    return tuple(
        [
            Item(
                product_id=line.product_id,
                product_type=line.product_type or None,
                title=line.title,
                image_url=line.image_url,
                quantity=line.quantity,
            )
            for line in lines[:MAX_ITEMS]
        ]
    )
