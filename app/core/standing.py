"""The stage in which a customer stands by what is known: the shop's table, played over the purchases that count.

Nothing here changes a row. It is asked where an event changes the past (a purchase that is taken back, or heard of
late): what followed from the past as it was then known follows no more.
"""

from __future__ import annotations

from app.core.policy import Policy, StageMove
from app.core.purchases import is_paid, purchase_of, purchases, usual_gap
from app.core.row import NEVER, Row
from app.core.scope import SILENCES


def stage_of(row: Row, policy: Policy, until: int) -> str:
    """Where the row's registration, its purchases and the silences between and after them lead by this instant
    (microseconds UTC; what is due then is still to come). '' when they lead nowhere. Who has only purchases that were
    taken back is as known as who registered."""
    stage, orders, last = "", 0, -1
    if row.registered_at is not None or purchases(row).paid:
        stage = by_event(policy, stage, "UserRegistered", 0)
    if row.baseline is not None:
        orders, last = row.baseline.orders, max(row.baseline.last_order_at or 0, last)
        stage = by_event(policy, stage, "CustomerBaseline", orders)
    if row.old_orders:
        orders, last = orders + row.old_orders, max(row.old_last_order_at or 0, last)
        stage = by_event(policy, stage, "OrderPaid", orders)
    counted: set[str] = set()
    for order in purchases(row).paid:
        if order.paid_at is not None and is_paid(order):
            stage = by_silence(row, policy, stage, last, order.paid_at)
            counted.add(purchase_of(order))
            stage, last = by_event(policy, stage, "OrderPaid", orders + len(counted)), max(order.paid_at, last)
    return by_silence(row, policy, stage, last, until)


def by_event(policy: Policy, stage: str, kind: str, orders: int) -> str:
    """The stage after an event, with so many orders by then."""
    for move in policy.stages:
        if move.on == kind and stage in move.source and orders >= move.orders:
            return move.to
    return stage


def by_silence(row: Row, policy: Policy, stage: str, last: int, until: int) -> str:
    """The stage after the silence between a purchase and an instant. Without a purchase there is none."""
    for _ in policy.stages if last >= 0 else ():
        move = silent_move(policy, stage)
        if move is None or last + silence(row, policy, move, last) >= until:
            break
        stage = move.to
    return stage


def silent_move(policy: Policy, stage: str) -> StageMove | None:
    """The move that a silence makes from a stage."""
    return next((move for move in policy.stages if move.silence is not None and stage in move.source), None)


def goes_round(policy: Policy, stage: str) -> bool:
    """Whether silence alone leads from a stage on and on without an end; once all silences are over, at one instant."""
    for _ in policy.stages:
        move = silent_move(policy, stage)
        if move is None:
            return False
        stage = move.to
    return silent_move(policy, stage) is not None


def silence(row: Row, policy: Policy, move: StageMove, last: int = NEVER) -> int:
    """How long a silence makes this move, by the rhythm of the purchases up to the latest; microseconds."""
    own = usual_gap(row, last + 1)
    return SILENCES[str(move.silence)](policy.usual_gap if own is None else own)
