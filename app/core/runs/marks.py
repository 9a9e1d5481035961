"""Which ends a run has met: an end counts at its own time, whether it arrives before the entry or after it."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from app.core.facts import left_of
from app.core.happenings import Happening
from app.core.moment import Moment
from app.core.packs import coupons_of
from app.core.purchases import is_paid, paid_since, parts_of
from app.core.row import Mark, Row, Run
from app.core.rules import End, Rule
from app.core.runs.keeping import MAX_ENDS
from app.core.runs.things import has_line
from app.core.scope import NO_ORDER, Scope, category_of, taken_back, usable

_OF_A_THING = frozenset({"coupon", "pack", "order"})
#: What is seen of the things that are in no order, and are no user's word: each event is about one of them.
_SEEN = {"cart": "CartUpdated", "category": "ProductViewed", "product_type": "ProductViewed"}


def mark_of(happening: Happening) -> Mark:
    return Mark(happening.at, happening.event_id, happening.kind, happening.order_id)


def counted(mark: Mark, end: End, run: Run) -> Mark:
    """The mark of an end as it counts for a run: what tells of the time before it, from the entry on."""
    return replace(mark, at=min(mark.at, run.entered_at)) if end.whenever else mark


def marked(row: Row, ended: tuple[tuple[Rule, End], ...], happening: Happening) -> Row:
    """The row that remembers this end, for entries that happened before it and arrive after it."""
    if happening.kind in ("OrderPlaced", "OrderPaid") or all(rule.key in _OF_A_THING for rule, _ in ended):
        return row
    mark = mark_of(happening)
    before = row.marks.get(happening.kind)
    if before is not None and _order_of_marks(before) >= _order_of_marks(mark):
        return row
    return replace(row, marks={**row.marks, happening.kind: mark})


def _order_of_marks(mark: Mark) -> tuple[int, str]:
    return (mark.at, mark.event_id)


def seen_ends(row: Row, rule: Rule, run: Run, moment: Moment) -> tuple[Mark, ...]:
    """The ends of this run that have been seen already, whatever arrived first."""
    if rule.key in ("coupon", "pack"):
        kinds = _kinds_of_ends(row, rule, run, moment)
        found = [c.redeemed for c in coupons_of(row, run.key) if c.redeemed is not None and c.redeemed.kind in kinds]
        found += [mark for mark in (last_revoked(row, run.key),) if mark is not None and mark.kind in kinds]
    elif rule.key == "order":
        kinds = _kinds_of_ends(row, rule, run, moment)
        order = row.orders.get(run.order_id or "", NO_ORDER)
        words = [("OrderPaid", order.paid_at, order), ("OrderCancelled", order.cancelled_at, order)]
        for part in parts_of(row, run.key):
            words += [("OrderPlaced", part.placed_at, part), ("OrderPaid", part.paid_at, part)]
        found = [Mark(at, "", kind, o.order_id) for kind, at, o in words if at is not None and kind in kinds]
        found += _ends_by_others(row, rule, run, moment)
    else:
        found = [
            counted(mark, end, run)
            for end in rule.ends
            for mark in _ends_after(row, end, run)
            if concerns(mark, rule, end, run) and applies(row, end, run, mark.at, moment)
        ]
    return tuple(sorted(found, key=_order_of_marks)[: MAX_ENDS + 1]) if found else ()


def _kinds_of_ends(row: Row, rule: Rule, run: Run, moment: Moment) -> set[str]:
    return {end.on for end in rule.ends if not end.any_key and applies(row, end, run, run.entered_at, moment)}


def _ends_by_others(row: Row, rule: Rule, run: Run, moment: Moment) -> list[Mark]:
    """Orders of the user's that end a run keyed by another one: a checkout that became an order."""
    found = []
    for end in rule.ends:
        if end.any_key and applies(row, end, run, moment.now, moment):
            marks = _orders_after(row, end, run) if end.on in ("OrderPlaced", "OrderPaid") else ()
            found += [mark for mark in marks if mark.order_id != run.key]
    return found


def last_revoked(row: Row, key: str) -> Mark | None:
    """Of the revoked coupons of a pack (or the one coupon) the last: with it the pack is over, if nothing is left."""
    revoked = [coupon.revoked for coupon in coupons_of(row, key) if coupon.revoked is not None]
    return max(revoked, key=_order_of_marks, default=None)


def applies(row: Row, end: End, run: Run, at: int, moment: Moment) -> bool:
    """The end's condition at the instant of its event, however late that is heard of. Whoever uses one coupon of a pack
    has used the pack; a coupon that is revoked ends it only when none is left that could be used, or was."""
    of_one = run.kind == "pack" and end.on == "CouponRevoked"
    if of_one and any(coupon.redeemed is not None or usable(coupon) for coupon in coupons_of(row, run.key)):
        return False
    return end.when is None or end.when(Scope(row, run, moment.catalogue.policy, at))


def _ends_after(row: Row, end: End, run: Run) -> Iterable[Mark]:
    """Events of this kind that may have come after the entry. Purchases are looked up among the orders, so that a
    reversal needs no second place; of other events the latest is remembered."""
    if run.kind in _SEEN and end.on == _SEEN[run.kind] and not end.any_key:
        return _later_looks(row, run) if end.on == "ProductViewed" else ()  # of a cart only the newest picture enters
    if end.on == "OrderPlaced":
        return _orders_after(row, end, run)
    if end.on != "OrderPaid":
        return () if (mark := row.marks.get(end.on)) is None else (mark,)
    return [
        Mark(order.paid_at, order.paid_event_id, end.on, order.order_id)
        for order in paid_since(row, 0 if end.whenever else run.entered_at)
        if order.paid_at is not None
        and (end.whenever or (order.paid_at, order.paid_event_id) > (run.entered_at, run.event_id))
        and (
            has_line(left_of(order, "interest" if run.kind == "category" else run.kind), run.key)
            if end.same_line
            else is_paid(order)
        )
    ]


def _orders_after(row: Row, end: End, run: Run) -> list[Mark]:
    """Orders that were placed (or paid) after the entry, and count."""
    placed, found = end.on == "OrderPlaced", []
    for order in row.orders.values():
        at = order.placed_at if placed else order.paid_at
        if at is not None and at > run.entered_at and not taken_back(order):
            found.append(Mark(at, "" if placed else order.paid_event_id, end.on, order.order_id))
    return found


def _later_looks(row: Row, run: Run) -> list[Mark]:
    """The latest looks at what the run is about: others say nothing of it."""
    views = [v for v in row.views.values() if run.key == (category_of(v) if run.kind == "category" else v.product_type)]
    return [Mark(v.last_at, v.looks[-1][1] if v.looks else "", "ProductViewed") for v in views]


def concerns(mark: Mark, rule: Rule, end: End, run: Run) -> bool:
    """What happens to a thing ends its runs whenever it happened; what happens to others, only what began before. What
    tells of the time before a run concerns it, too."""
    if rule.key not in _OF_A_THING:
        return end.whenever or is_after(mark, run)
    if rule.reentry == "every_purchase" and mark.kind == "OrderCancelled":
        return mark.order_id in (run.order_id, run.key)
    return not end.any_key or mark.at > run.entered_at


def is_after(mark: Mark, run: Run) -> bool:
    """Whether an event ends a run that was entered earlier; of two at one instant the event id decides, so that the
    order of arrival does not."""
    at = run.entered_at
    return mark.at > at or (mark.at == at and mark.event_id > run.event_id)
