"""Two accounts become one: what the row of the other knows is added to this one's, as if it had always been its own.

Nothing here knows a rule. The newer word wins where there are two; a no to being contacted is never overruled by an
older yes; what counts (orders, spend, contacts, entries) is added up, and all bounds of the row hold afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import fields, replace

from app.core import baselines, facts, ids, looks, visits
from app.core.row import (
    MAX_CARTS,
    MAX_CASES,
    MAX_COUPONS,
    MAX_ENTRIES,
    MAX_MINOR,
    MAX_ORDERS,
    MAX_REFUNDS,
    MAX_VIEWS,
    NEVER,
    Baseline,
    Cart,
    Consent,
    Coupon,
    Order,
    Row,
    Sent,
    View,
    ledgers_together,
)
from app.core.scope import taken_back
from app.core.visits import SENT_DAYS
from schemas.instant import DAY

V = TypeVar("V")
S = TypeVar("S", bound=msgspec.Struct)


def absorbed(row: Row, other: Row, accounts: tuple[str, ...]) -> Row:
    """The row with another account's history, which came through these accounts. Its runs stay behind."""
    shared = min(len(facts.counted(row) & facts.counted(other)), row.old_orders, other.old_orders)
    new = replace(
        baselines.joined(row, _accounts(other, accounts)),
        ledger=ledgers_together(row.ledger, other.ledger),
        registered_at=_earliest(row.registered_at, other.registered_at),
        last_login_at=_latest(row.last_login_at, other.last_login_at),
        last_seen_at=_latest(row.last_seen_at, other.last_seen_at),
        old_orders=row.old_orders + other.old_orders - shared,
        old_last_order_at=_latest(row.old_last_order_at, other.old_last_order_at),
        old_spend_minor=_old_spend(row, other, shared),
        forgotten=_forgotten(row.forgotten, other.forgotten),
        marks=_newest(row.marks, other.marks, lambda mark: (mark.at, mark.event_id)),
        entries=_entries(row.entries, other.entries),
        consents=_consents(row.consents, other.consents),
        sent=_sent(row, other),
        last_fired=_newest(row.last_fired, other.last_fired, lambda fired: (fired[1], fired[0])),
        views=_views(row, other),
        carts=_carts(row, other),
    )
    if other.zone is not None and (row.zone is None or other.zone_at > row.zone_at):
        new = replace(new, zone=other.zone, zone_at=other.zone_at)
    if other.locale is not None and (row.locale is None or other.locale_at > row.locale_at):
        new = replace(new, locale=other.locale, locale_at=other.locale_at)
    return _with_coupons(_with_orders(_with_birthday(new, other), row, other), row, other)


def _with_birthday(new: Row, other: Row) -> Row:
    """The birthday named last; one that both named was named first and last by either."""
    if other.birthday is None:
        return new
    (first, last), (mine_first, mine_last) = facts.birthday_named(other), facts.birthday_named(new)
    if other.birthday == new.birthday:
        return replace(new, birthday_at=min(first, mine_first), birthday_said_at=max(last, mine_last))
    if new.birthday is not None and last <= mine_last:
        return new
    return replace(new, birthday=other.birthday, birthday_at=first, birthday_said_at=last)


def _accounts(other: Row, accounts: tuple[str, ...]) -> dict[str, Baseline | None]:
    """Those that become part, each with what was before our first event of it: of the other alone, of none twice."""
    alone = other.alone if other.merged else other.baseline
    return {**other.merged, **dict.fromkeys(accounts[1:]), accounts[0]: alone}


def _earliest(*instants: int | None) -> int | None:
    return min((at for at in instants if at is not None), default=None)


def _latest(*instants: int | None) -> int | None:
    return max((at for at in instants if at is not None), default=None)


def _sums(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: min(one.get(name, 0) + other.get(name, 0), MAX_MINOR) for name in {**one, **other}}


def _old_spend(row: Row, other: Row, shared: int) -> dict[str, int]:
    """What was spent with orders that are summarised. Some may be so in both rows, and what these came to is known no
    more: it is taken for their share, by number, in the row that has fewer of them besides. So it is exact where one
    row was told of all that the other has summarised."""
    if not shared:
        return _sums(row.old_spend_minor, other.old_spend_minor)
    more, fewer = (row, other) if row.old_orders >= other.old_orders else (other, row)
    alone = fewer.old_orders - shared
    rest = {name: minor * alone // fewer.old_orders for name, minor in fewer.old_spend_minor.items()}
    return _sums(more.old_spend_minor, rest)


def _newest(one: dict[str, V], other: dict[str, V], age: Callable[[V], Any]) -> dict[str, V]:
    """Both; of two with one name the newer, this account's own when they are of the same age."""
    return {**one, **{name: new for name, new in other.items() if name not in one or age(new) > age(one[name])}}


def _forgotten(one: bytes, other: bytes) -> bytes:
    size = ids.EVENT_HASH_BYTES
    hashes = [ledger[start : start + size] for ledger in (one, other) for start in range(0, len(ledger), size)]
    return b"".join(list(dict.fromkeys(hashes))[-facts.MAX_FORGOTTEN :])


def _entries(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """By rule and by key: whoever entered once, with either account, has entered."""
    entries = _newest(one, other, lambda at: at)
    keys = sorted((at, name) for name, at in entries.items() if "\x1f" in name)
    surplus = {name for _, name in keys[:-MAX_ENTRIES]}
    return {name: at for name, at in entries.items() if name not in surplus}


def _consents(one: dict[str, Consent], other: dict[str, Consent]) -> dict[str, Consent]:
    said = {**one, **{key: _one_word(one.get(key, word), word) for key, word in other.items()}}

    for channel in sorted({key.partition("/")[0] for key in said}):  # what one account closed is closed for the other
        if (at := visits.closed_since(said, channel)) >= 0:
            said = visits.closed(said, channel, at)
    return visits.without_idle_consents(said)


def _one_word(mine: Consent, theirs: Consent) -> Consent:
    """The newer one; of two at the same instant the no."""
    newer = max(mine, theirs, key=lambda word: (word.at, not word.granted))
    return replace(newer, refused_at=max(mine.refused_at, theirs.refused_at))


def _sent(row: Row, other: Row) -> tuple[Sent, ...]:
    """Contacts with either account count for the caps."""
    both = sorted((*row.sent, *other.sent), key=lambda contact: (contact.at, contact.trigger_id))
    return visits.bounded(tuple(contact for contact in both if contact.at > both[-1].at - SENT_DAYS * DAY))


def _views(row: Row, other: Row) -> dict[str, View]:
    views = dict(row.views)
    for view in other.views.values():
        mine = views.get(view.product_id)
        views[view.product_id] = view if mine is None else _filled(looks.together(mine, view), view)
    newest = sorted(views.values(), key=lambda view: (view.last_at, view.product_id))[-MAX_VIEWS:]
    return {view.product_id: view for view in newest}


def _carts(row: Row, other: Row) -> dict[str, Cart]:
    carts = _newest(row.carts, other.carts, lambda cart: cart.at)
    return {cart.key: cart for cart in sorted(carts.values(), key=lambda cart: (cart.at, cart.key))[-MAX_CARTS:]}


def _filled(value: S, more: S) -> S:
    """The value, with what the other says where it says nothing itself."""
    return replace(
        value, **{f.name: getattr(more, f.name) for f in fields(value) if getattr(value, f.name) == f.default}
    )


def _with_orders(new: Row, row: Row, other: Row) -> Row:
    """The newest orders of both; the sums of the others. What either has summarised already counts once, and is kept as
    far as its after-sale cases go."""
    orders: dict[str, Order] = {}
    for order in (*row.orders.values(), *other.orders.values()):
        name = order.order_id
        if any(facts.is_forgotten(each, "order", name) for each in (row, other)):
            if not order.case_words:
                continue
            order = facts.cases_of(order)
        orders[name] = _one_order(orders[name], order) if name in orders else order
    new = replace(new, orders=orders)
    facts.let_lines_go(orders)
    while len(orders) > MAX_ORDERS:
        facts.summarise(new, facts.least_order(new))
    return new


def _one_order(mine: Order, theirs: Order) -> Order:
    """An order of which both accounts were told: the paid one is the better word, and refunds of either count."""
    base = max(mine, theirs, key=lambda order: (order.paid_at or 0, order.placed_at or 0))
    more = theirs if base is mine else mine
    currency = base.currency or more.currency
    base, more = (facts.in_its_currency(replace(order, currency=currency)) for order in (base, more))
    words = {
        word[0]: word for word in sorted((*base.case_words, *more.case_words), key=lambda word: (word[1], not word[2]))
    }
    closed = {name for name, _, opens in words.values() if not opens}
    order = replace(
        _filled(base, more),
        refunds=tuple(dict.fromkeys((*base.refunds, *more.refunds)))[-MAX_REFUNDS:],
        refunded_minor=_refunded_by_either(base, more, base.refunded_minor, more.refunded_minor),
        refunded_unnamed=_refunded_by_either(base, more, base.refunded_unnamed, more.refunded_unnamed),
        cases=tuple(name for name in dict.fromkeys((*base.cases, *more.cases)) if name not in closed)[-MAX_CASES:],
        case_words=tuple(words.values())[-MAX_CASES:],
        cancelled_at=_latest(base.cancelled_at, more.cancelled_at),
    )
    return facts.with_returns(order)


def _refunded_by_either(one: Order, other: Order, sum_of_one: int, sum_of_other: int) -> int:
    """Refunds of which both were told (they have ids in common) count once; where each was told of some that the other
    was not, at least the larger sum."""
    if set(one.refunds) & set(other.refunds):
        return max(sum_of_one, sum_of_other)
    return min(sum_of_one + sum_of_other, MAX_MINOR)


def _with_coupons(new: Row, row: Row, other: Row) -> Row:
    coupons = {name: coupon for name, coupon in row.coupons.items() if not facts.is_forgotten(other, "coupon", name)}
    for name, coupon in other.coupons.items():
        if not facts.is_forgotten(row, "coupon", name):
            coupons[name] = _one_coupon(coupons[name], coupon) if name in coupons else coupon
    new = replace(new, coupons=coupons)
    for order in new.orders.values():
        if taken_back(order):  # it may have used or held a coupon of the other account
            coupons |= {n: free for n, c in coupons.items() if (free := facts.freed_by(new, c, order)) is not None}
    while len(coupons) > MAX_COUPONS:
        facts.let_coupon_go(new, facts.least_coupon(new))
    return new


def _one_coupon(mine: Coupon, theirs: Coupon) -> Coupon:
    """A coupon that was issued to one account and used with the other: the latest word on its use counts."""
    base = max(mine, theirs, key=lambda coupon: coupon.issued_at or 0)
    more = theirs if base is mine else mine
    returned = _latest(base.returned_at, more.returned_at)
    uses = [c.redeemed for c in (base, more) if c.redeemed is not None and c.redeemed.at > (returned or 0)]
    held = max(base, more, key=lambda coupon: coupon.locked_at or 0)
    coupon = replace(
        _filled(base, more),
        locked_at=held.locked_at,
        locked_by=held.locked_by,
        locked_until=held.locked_until,
        returned_at=returned,
        redeemed=max(uses, key=lambda mark: mark.at, default=None),
    )
    freed = coupon.locked_at is not None and returned is not None and coupon.locked_at <= returned
    return replace(coupon, locked_at=None, locked_by=None, locked_until=NEVER) if freed else coupon
