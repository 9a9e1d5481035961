"""A row that has grown too large lets go of detail until it fits: what matters least first, of that the oldest first.

Nothing here loses a count, a sum, or a no to being contacted. What only tells more (looks, carts, lines, orders whose
money is in the sums, runs that are over) goes before what is still to come (coupons and runs that are alive); those
exit with their records. What is left at the least is bounded, whatever was said (`tests/core/test_shedding.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from app.core import facts, runs, visits
from app.core.moment import Moment
from app.core.row import Coupon, Order, Row, Run, encode, size_of

#: A contact's channel and family are compared with the policy's, which are shorter; more of a longer one says nothing.
MAX_NAME = 64
_TEXTS = ("title", "image_url")


class _Weighed(NamedTuple):
    """What a row could let go of: its place in the order, its name, its bytes."""

    age: Any
    name: str
    size: int


def shed(row: Row, most: int, moment: Moment) -> Row:
    """The row in at most so many bytes, or in as few as it can be (`most` = 0)."""
    for let_go in _STAGES:
        excess = len(encode(row)) - most
        if excess <= 0:
            break
        row = let_go(row, excess, moment)
    return row


def _oldest(things: Iterable[_Weighed], excess: int) -> set[str]:
    """The names of the oldest of these, as many as make up for the excess."""
    gone = set()
    for thing in sorted(things):
        if excess <= 0:
            break
        gone.add(thing.name)
        excess -= thing.size
    return gone


def _dated(things: Mapping[str, Any], age: Callable[[Any], Any]) -> list[_Weighed]:
    return [_Weighed(age(thing), name, size_of((name, thing))) for name, thing in things.items()]


def _without(things: Mapping[str, Any], gone: set[str]) -> dict[str, Any]:
    return {name: thing for name, thing in things.items() if name not in gone}


def _views(row: Row, excess: int, moment: Moment) -> Row:
    return replace(row, views=_without(row.views, _oldest(_dated(row.views, lambda view: view.last_at), excess)))


def _carts(row: Row, excess: int, moment: Moment) -> Row:
    return replace(row, carts=_without(row.carts, _oldest(_dated(row.carts, lambda cart: cart.at), excess)))


def _lines(row: Row, excess: int, moment: Moment) -> Row:
    """Orders without what was in them."""
    return _bare_orders(
        row, excess, lambda order: replace(order, lines=(), coupons_used=(), coupons_issued=(), pay_url=None)
    )


def _refund_ids(row: Row, excess: int, moment: Moment) -> Row:
    """Of the orders that are left: their refunds are in their sums."""
    return _bare_orders(row, excess, lambda order: replace(order, refunds=(), pending_returns=()))


def _bare_orders(row: Row, excess: int, bare: Callable[[Order], Order]) -> Row:
    detail = [
        _Weighed(facts.age_of(o), name, size_of(o) - size_of(bare(o))) for name, o in row.orders.items() if bare(o) != o
    ]
    gone = _oldest(detail, excess)
    return replace(row, orders={name: bare(o) if name in gone else o for name, o in row.orders.items()})


def _resting_runs(row: Row, excess: int, moment: Moment) -> Row:
    """Runs that are over, kept in case that they are reversed or what they sent is retracted."""
    over = {name: some for name, some in row.runs.items() if all(map(runs.rests, some))}
    return replace(row, runs=_without(row.runs, _oldest(_dated(over, lambda some: some[-1].entered_at), excess)))


def _orders(row: Row, excess: int, moment: Moment) -> Row:
    """Orders whose counts and money go to the row's sums. One with an open after-sale case still holds messages."""
    new = replace(row, orders=dict(row.orders))
    for name in _oldest(_dated({n: o for n, o in row.orders.items() if not o.cases}, facts.age_of), excess):
        facts.summarise(new, row.orders[name])
    return new


def _names_of_contacts(row: Row, excess: int, moment: Moment) -> Row:
    return replace(
        row,
        sent=tuple(
            replace(contact, channel=contact.channel[:MAX_NAME], family=contact.family[:MAX_NAME])
            for contact in row.sent
        ),
    )


def _idle_consents(row: Row, excess: int, moment: Moment) -> Row:
    return replace(row, consents=visits.without_idle_consents(row.consents, 0))


def _spent_coupons(row: Row, excess: int, moment: Moment) -> Row:
    def spent(coupon: Coupon) -> bool:
        return coupon.redeemed is not None or coupon.revoked is not None or coupon.expires_at <= moment.floor

    return _coupons(row, {name: coupon for name, coupon in row.coupons.items() if spent(coupon)}, excess, moment)


def _usable_coupons(row: Row, excess: int, moment: Moment) -> Row:
    return _coupons(row, row.coupons, excess, moment)


def _coupons(row: Row, of: Mapping[str, Coupon], excess: int, moment: Moment) -> Row:
    """Those that end first go, and with them the runs that speak of nothing else: what becomes of a coupon that is
    known no more ends no run."""
    gone = _oldest(_dated(of, lambda coupon: (coupon.expires_at, coupon.issued_at or 0)), excess)
    new = replace(row, coupons=dict(row.coupons))
    for name in sorted(gone):
        facts.let_coupon_go(new, name)
    things = {thing for c in new.coupons.values() for thing in (c.coupon_id, c.pack_id)}
    silent = {
        name for name, some in row.runs.items() if some[0].kind in ("coupon", "pack") and some[0].key not in things
    }
    return _exited(new, silent, moment)


def _entries(row: Row, excess: int, moment: Moment) -> Row:
    """Keys that entered once: what is entered once by a user stays known."""
    keys = {name: at for name, at in row.entries.items() if "\x1f" in name}
    return replace(row, entries=_without(row.entries, _oldest(_dated(keys, int), excess)))


def _texts_of_runs(row: Row, excess: int, moment: Moment) -> Row:
    """What products are called, and how they look, as runs would tell it."""

    def bare(run: Run) -> Run:
        return replace(run, data={name: value for name, value in run.data.items() if name not in _TEXTS})

    return replace(row, runs={name: tuple(map(bare, some)) for name, some in row.runs.items()})


def _live_runs(row: Row, excess: int, moment: Moment) -> Row:
    return _exited(row, _oldest(_dated(row.runs, lambda some: some[-1].entered_at), excess), moment)


def _exited(row: Row, names: set[str], moment: Moment) -> Row:
    return runs.exited(row, names, "let go, as there was no more room for it", moment)


_STAGES = (
    _views,
    _carts,
    _names_of_contacts,
    _idle_consents,
    _lines,
    _resting_runs,
    _spent_coupons,
    _orders,
    _entries,
    _texts_of_runs,
    _usable_coupons,
    _refund_ids,
    _live_runs,
)
