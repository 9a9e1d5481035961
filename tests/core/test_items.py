"""The products that a trigger names, for each kind of run."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.items import MAX_ITEMS
from schemas import events as ev
from schemas.triggers import Item
from tests.core.shop import Desk, catalogue, event, line, paid, placed, rule_text

PICTURE = {"title": "Milk", "image_url": "https://shop/1.png"}


def named(key: str, on: str, *events: ev.Event, **enter: Any) -> tuple[Item, ...]:
    """What the one trigger of a rule with this key names, a day later."""
    more = "".join(f", {name}: {value}" for name, value in enter.items())
    rules = catalogue(rule_text(enter=f"{{on: {on}, key: {key}{more}}}", ends=None, steps="[{after: 1d}]"))
    (trigger,) = Desk(rules).say(*events).wait("04-01").triggers
    return trigger.items


def viewed(product: str, when: str, **fields: Any) -> ev.ProductViewed:
    return event(ev.ProductViewed, when, product_id=product, category="baby", **fields)


def test_of_what_was_looked_at_the_product_with_most_visits_is_named() -> None:
    looks = (viewed("p-1", "03-01", product_type="milk", **PICTURE), viewed("p-2", "03-01 12:05"))
    again = viewed("p-1", "03-01 13:00")
    (item,) = named("category", "ProductViewed", *looks, again)
    assert item == Item(product_id="p-1", product_type="milk", **PICTURE)
    (item,) = named("category", "ProductViewed", *looks)
    assert item == Item(product_id="p-2")


def test_a_category_that_was_bought_and_never_looked_at_names_nothing() -> None:
    assert named("category", "OrderPaid", paid("o-1", "03-01", line(category="baby")), each="line") == ()


def test_a_cart_is_named_as_it_is_at_release() -> None:
    first = event(ev.CartUpdated, "03-01", lines=(line("milk", 2, **PICTURE),))
    then = event(ev.CartUpdated, "03-01 13:00", lines=(line("soap"), line("milk", 3)))
    assert named("cart", "CartUpdated", first) == (
        Item(product_id="p-milk", product_type="milk", quantity=2, **PICTURE),
    )
    assert [(i.product_type, i.quantity) for i in named("cart", "CartUpdated", first, then)] == [
        ("soap", 1),
        ("milk", 3),
    ]


def test_an_order_names_its_lines_and_no_more_than_a_message_can_hold() -> None:
    lines = [line(f"t-{n}") for n in range(MAX_ITEMS + 2)]
    items = named("order", "OrderPlaced", placed("o-1", "03-01", *lines))
    assert [item.product_type for item in items] == [f"t-{n}" for n in range(MAX_ITEMS)]


@pytest.mark.parametrize("fields", [{"order_id": "o-1"}, {"checkout_id": "x"}])
def test_a_checkout_names_what_was_to_be_bought(fields: dict[str, str]) -> None:
    rules = catalogue(
        rule_text(enter="{on: CheckoutStarted, key: order}", ends=None, steps="[{after: 1d}]"),
    )
    desk = Desk(rules).say(event(ev.CheckoutStarted, "03-01", lines=(line("milk"),), **fields)).wait("04-01")
    items = [t.items for t in desk.triggers]
    assert items == ([(Item(product_id="p-milk", product_type="milk", quantity=1),)] if "order_id" in fields else items)


def test_a_rule_of_a_user_names_no_products() -> None:
    assert named("user", "OrderPaid", paid("o-1", "03-01", line())) == ()
