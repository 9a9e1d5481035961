"""The things that runs are about: their keys, and whether they can be used now. What a happening says nothing of has no
key, and neither enters nor ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.core.happenings import Group, Happening
from app.core.packs import coupons_of
from app.core.purchases import purchase_of
from app.core.row import NEVER, Coupon, Row, Run, run_key
from app.core.rules import End, Enter, Rule
from app.core.scope import category_of, locked_until, usable

#: What happens to a part of an order that the shop split happens to the whole, too. A part that goes back does not.
OF_A_WHOLE = ("OrderPlaced", "OrderPaid")


def thing_key(row: Row, rule: Rule, happening: Happening) -> str | None:
    """The key of the thing this happening is about; None when it is about no such thing."""
    if rule.key == "user":
        return ""
    if rule.key == "order":
        return _purchase(row, happening.order_id) if rule.reentry == "every_purchase" else happening.order_id
    if rule.key == "cart":
        return happening.thing if happening.kind == "CartUpdated" else None
    if rule.key in ("category", "product_type"):
        view = row.views.get(happening.thing or "")
        if view is None:
            return None
        return category_of(view) if rule.key == "category" else view.product_type or None
    coupon_id = happening.coupon_id or ""  # a coupon's event has one: the catalogue sees to it
    return coupon_id if rule.key == "coupon" else _pack_of(row, coupon_id)


def _purchase(row: Row, order_id: str | None) -> str | None:
    order = row.orders.get(order_id or "")
    return order_id if order is None else purchase_of(order)


def _pack_of(row: Row, coupon_id: str) -> str:
    coupon = row.coupons.get(coupon_id)
    return (coupon.pack_id if coupon else None) or coupon_id


def entry_keys(row: Row, rule: Rule, enter: Enter, happening: Happening) -> Iterable[tuple[str, dict[str, Any]]]:
    if enter.each_line:
        return [(key, line_data(group)) for key, group in _groups(happening, rule).items()]
    key = thing_key(row, rule, happening)
    return [] if key is None else [(key, {})]


def _groups(happening: Happening, rule: Rule) -> Mapping[str, Group]:
    return happening.categories if rule.key == "category" else happening.groups


def line_data(group: Group) -> dict[str, Any]:
    data = {
        "units": group.units,
        "quantity": group.quantity,
        "product_id": group.product_id,
        "title": group.title,
        "image_url": group.image_url,
    }
    return {name: value for name, value in data.items() if value is not None}


def end_names(row: Row, rule: Rule, end: End, happening: Happening) -> Iterable[str]:
    """Where the runs are that this happening may end, as `run_key` says; there may be none."""
    prefix = run_key(rule.name, "")
    if end.same_line:
        groups = happening.interests if rule.key == "category" else happening.groups
        return [name for key in groups if (name := prefix + key) in row.runs and has_line(groups, key)]
    if rule.key == "user":
        return (prefix,)
    if end.any_key or (rule.key in ("product_type", "category") and happening.thing is None):
        return [name for name in row.runs if name.startswith(prefix)]
    key = thing_key(row, rule, happening)
    if key is None:
        return ()
    whole = _purchase(row, key) if rule.key == "order" and happening.kind in OF_A_WHOLE else None
    return (prefix + key,) if whole in (key, None) else (prefix + key, f"{prefix}{whole}")


def has_line(groups: Mapping[str, Group], key: str) -> bool:
    """A gift of the same type is no purchase of it; a subscription to it is."""
    group = groups.get(key)
    return group is not None and (group.units > 0 or group.subscription)


def usable_of(row: Row, key: str) -> list[Coupon]:
    """Those of them that nothing has ended."""
    return [coupon for coupon in coupons_of(row, key) if usable(coupon)]


def is_locked(row: Row, run: Run, otherwise: bool = False) -> bool:
    """Whether the thing is locked (the coupon, or all that are left of the pack) by whatever has been seen; the passing
    of time is not asked here: `held_until` says how long the lock holds."""
    if run.kind not in ("coupon", "pack"):
        return otherwise
    left = usable_of(row, run.key)
    return bool(left) and all(coupon.locked_at is not None for coupon in left)


def held_until(row: Row, run: Run) -> int:
    """From when on the thing can be used again by the passing of time; NEVER when only a word can say so."""
    if run.kind not in ("coupon", "pack"):
        return NEVER
    return min([locked_until(coupon) for coupon in usable_of(row, run.key)], default=NEVER)


def locked_since(row: Row, run: Run) -> int:
    """From when on the thing could not be used: the last of a pack was locked, or revoked beside those that are. Only
    what came due after that has been waiting."""
    locked = [c.locked_at for c in usable_of(row, run.key) if c.locked_at is not None]
    revoked = [c.revoked.at for c in coupons_of(row, run.key) if c.revoked is not None]
    return max(*locked, *revoked, 0) if locked else NEVER
