"""What happens, said of the very thing that a run is about: that order, not an order; all that is left of a pack.

What counts as an end, a wait or a new timing is decided in `core.runs`; here is only what that comes to in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from app.core.guardrails.reentry import EVERY
from app.explain import language
from app.explain.language import EVENTS, event, listed, spoken

Data = Mapping[str, Any]
"""A rule file, read as YAML."""

_PACK = (
    "A coupon that is in no pack is one by itself, and what is said of the coupon is of the one that expires first of "
    "those in the pack that can be used."
)
_OF_A_PACK = {
    "CouponRedeemed": "a coupon of the pack is redeemed",
    "CouponRevoked": "the last coupon that is left of the pack is revoked",
}
_OF_AN_ORDER = {
    "OrderPlaced": "that order, or a part of it, is placed",
    "OrderPaid": "that order, or a part of it, is paid",
}
_ENTERED_BY = "the order that it was entered by"
#: Whose order a run may have begun with, by the event: what takes that order back takes the run back. What comes of the
#: taking back (`scope.AFTERMATH`) began with no order.
BEGIN_WITH_AN_ORDER = {
    "OrderPlaced": _ENTERED_BY,
    "DepositPaid": _ENTERED_BY,
    "OrderPaid": _ENTERED_BY,
    "OrderShipped": _ENTERED_BY,
    "OrderReceived": _ENTERED_BY,
    "CheckoutStarted": _ENTERED_BY,
    "CouponIssued": "the order that issued the coupon, if one did,",
    "CouponRedeemed": "the order that used the coupon, if one did,",
    "CouponLocked": "the order that holds the coupon, if one does,",
    "CouponRevoked": "the order that the coupon was revoked with, if there was one,",
}


def entries(data: Data, name: str) -> list[Data]:
    """A setting that is a mapping or a list of them, as a list."""
    value = data.get(name) or []
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, Mapping)]


def key_of(data: Data) -> str:
    """What the runs of a rule are about."""
    return str(next((entry.get("key", "user") for entry in entries(data, "enter")), "user"))


def one_each(data: Data) -> Iterable[str]:
    """What a pack is, for rules that are about one; and what has no name that could be known again."""
    if key_of(data) == "pack":
        yield _PACK
    checkouts = any(entry.get("on") == "CheckoutStarted" for entry in entries(data, "enter"))
    if key_of(data) == "order" and checkouts and data.get("reentry") in EVERY:
        yield "A checkout that names neither an order nor itself may enter again once its run is over."


def own(kind: object, key: str) -> str:
    """'that coupon is redeemed (CouponRedeemed)': an event of what the run is about."""
    return f"{_own(str(kind), key)} ({kind})" if kind in EVENTS else event(kind)


def _own(kind: str, key: str) -> str:
    words = EVENTS[kind]
    if key == "coupon":
        return words.replace("a coupon", "that coupon")
    if key == "pack":
        return _OF_A_PACK.get(kind) or words.replace("a coupon", "a coupon of the pack")
    if key == "order" and "an order" in words:
        return _OF_AN_ORDER.get(kind) or words.replace("an order", "that order")
    if key == "order":
        return f"{words} for that order"
    if key == "cart":
        return words.replace("the cart", "that cart")
    if key in ("category", "product_type") and kind == "ProductViewed":
        return words.replace("a product", f"a product of that {spoken(key)}")
    return words


def end(data: Data, entry: Data) -> str:
    """When a run ends by this, as 'It ends at once ...' goes on."""
    if "on" not in entry:
        return language.moment(entry.get("at"))
    when = f", if {condition(data, entry)}" if "when" in entry else ""
    whenever = " (whenever it is heard of: what went out is taken back)" if entry.get("whenever") else ""
    return f"when {_ending(entry, key_of(data))}{when}{whenever}"


def _ending(entry: Data, key: str) -> str:
    kind, same = entry["on"], entry.get("same")
    if same is None:
        return own(kind, key)
    if same == "user":
        return (
            f"{str(EVENTS.get(str(kind), kind)).replace('an order', 'any order of the user')} ({kind}) after the entry"
        )
    return f"an order with something of that {spoken(str(same))}, and not as a gift, is paid ({kind})"


def condition(data: Data, entry: Data) -> str:
    """The condition of an end: what it says of a thing is said of the run's own, whatever the event is about."""
    key, said = key_of(data), language.condition(entry["when"])
    its_own = f"the run's own {key}" if entry.get("same") == "user" else f"that {key}"
    return re.sub(rf"\bthe {key}\b", its_own, said) if key in ("order", "coupon", "cart") else said


def taken_back(data: Data) -> str:
    """When what the rule did is undone with the purchase that it was entered by; '' when it is entered by none."""
    orders = dict.fromkeys(order for entry in entries(data, "enter") if (order := _began_with(entry)))
    if not orders:
        return ""
    if key_of(data) == "product_type":
        return "nothing of that product type is left of the order, because it was cancelled or the goods went back"
    order = "that order" if key_of(data) == "order" else listed(orders)
    return f"{order} is cancelled, or refunded as a whole"


def _began_with(entry: Data) -> str | None:
    return _ENTERED_BY if entry.get("as_of") else BEGIN_WITH_AN_ORDER.get(str(entry.get("on")))


def holds(data: Data) -> str:
    """What makes a run wait, and until when; '' when nothing does."""
    said = data.get("holds")
    if not said:
        return ""
    key, lapses = key_of(data), ", or the lock lapses"
    begins, ends = f"when {own(said['from'], key)}", own(said["until"], key)
    if key == "pack":
        begins = f"while all that is left of the pack is locked by unpaid orders ({said['from']})"
    return f"{begins}, until {ends}{lapses if key in ('coupon', 'pack') else ''}"


def retimed(data: Data) -> str:
    """What times the next step anew; '' when nothing does."""
    order = "that order" if key_of(data) == "order" else _ENTERED_BY
    return listed(_timing_anew(str(kind), order) for kind in data["retime_on"]) if data.get("retime_on") else ""


def _timing_anew(kind: str, order: str) -> str:
    if kind == "ProfileUpdated":
        return f"the profile names another time zone ({kind})"
    words = EVENTS.get(kind, kind)
    return f"{words.replace('an order', order) if 'an order' in words else f'{words} for {order}'} ({kind})"
