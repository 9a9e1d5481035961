"""Life stages: introduction, growth, maturity, decline, churned, and back. A transition table in data moves a user.

Moves follow events (a purchase) or a silence, for which the row keeps one timer; a purchase ends it. What changes the
past moves a user only when the purchases that now count lead elsewhere (`standing`).
"""

from __future__ import annotations

from msgspec.structs import replace

from app.core import calendar, ids, words
from app.core.happenings import Happening
from app.core.moment import Moment
from app.core.purchases import last_order_at, paid_orders
from app.core.row import NEVER, Row
from app.core.standing import by_event, by_silence, goes_round, silence, silent_move, stage_of
from schemas.instant import format_instant
from schemas.triggers import Evidence, StageChange

#: What can change which purchase is the latest that counts.
_OF_PURCHASES = frozenset({"OrderPaid", "OrderCancelled", "OrderRefunded", "CustomerBaseline"})


def on_happening(row: Row, before: Row, happening: Happening, moment: Moment) -> Row:
    """The row in the stage that this event brings, if any, with its silence timed anew. `before` it was so."""
    policy = moment.catalogue.policy
    if happening.kind not in _OF_PURCHASES:
        return _put_to(row, by_event(policy, row.stage, happening.kind, 0), happening, moment)
    if _is_news(row, happening):
        stage = by_event(policy, row.stage, happening.kind, paid_orders(row))
        stage = by_silence(row, policy, stage, last_order_at(row) or 0, moment.floor)
    else:
        stage = _corrected(row, before, happening, moment)
    return timed(_put_to(row, stage, happening, moment), moment)


def _is_news(row: Row, happening: Happening) -> bool:
    """Whether it is the latest word of what the customer bought, not one that changes the past."""
    paid = happening.kind == "OrderPaid" and happening.counts
    return happening.kind == "CustomerBaseline" or (paid and happening.at >= (last_order_at(row) or 0))


def _corrected(row: Row, before: Row, happening: Happening, moment: Moment) -> str:
    """The stage when an event changed the past: that which the purchases now come to, if they came to another one. A
    purchase heard of late ends no silence that has come since."""
    policy = moment.catalogue.policy
    silent = {move.to for move in policy.stages if move.silence is not None}
    if happening.kind == "OrderPaid" and row.stage in silent:
        return row.stage
    stage = stage_of(row, policy, moment.floor)
    return stage if stage and stage != stage_of(before, policy, moment.floor) else row.stage


def _put_to(row: Row, stage: str, happening: Happening, moment: Moment) -> Row:
    """The row in this stage; nothing is published when it is in it."""
    if stage == row.stage:
        return row
    why = f"{happening.kind}, {words.counted(paid_orders(row), 'order')} so far."
    return _moved(row, stage, happening.at, why, happening, moment)


def meet_history(row: Row, other: Row, brought: bool, happening: Happening, moment: Moment) -> Row:
    """The stage of two accounts that became one: of the one that bought last (`brought`: the other), moved on by the
    orders of both, unless it is a silence that led there."""
    moves = moment.catalogue.policy.stages
    stage = other.stage if other.stage and (brought or not row.stage) else row.stage
    orders = paid_orders(row)
    silent = {move.to for move in moves if move.silence is not None}
    for move in moves if orders and stage not in silent else ():
        if move.on == "OrderPaid" and stage in move.source and orders >= move.orders:
            stage = move.to
            break
    if stage != row.stage:
        why = f"Another account was merged into this one; {words.counted(orders, 'order')} so far."
        row = _moved(row, stage, happening.at, why, happening, moment)
    return timed(row, moment)


def timed(row: Row, moment: Moment) -> Row:
    """The row with the instant at which silence moves it on; NEVER when no silence does. Who has no purchase is silent
    since the stage began."""
    last = last_order_at(row) or row.stage_at
    move = silent_move(moment.catalogue.policy, row.stage)
    due = NEVER
    if move is not None:
        due = max(last + silence(row, moment.catalogue.policy, move), moment.floor)
    return row if row.stage_due == due else replace(row, stage_due=due)


def on_timer(row: Row, due_at: int, moment: Moment) -> Row:
    """The row after a silence that lasted until now."""
    if row.stage_due > due_at:
        return row
    move = silent_move(moment.catalogue.policy, row.stage)
    at = row.stage_due
    row = replace(row, stage_due=NEVER)
    if move is None:
        return row
    row = timed(_moved(row, move.to, at, "Silent for longer than the user's rhythm allows.", None, moment), moment)
    # A table that goes round is no file's: it is refused there. One that came otherwise must not hold up the shard.
    stuck = row.stage_due <= due_at and goes_round(moment.catalogue.policy, row.stage)
    return replace(row, stage_due=NEVER) if stuck else row


def _moved(row: Row, to: str, at: int, why: str, happening: Happening | None, moment: Moment) -> Row:
    zone = calendar.zone_of(row, moment.catalogue.policy.zone)
    evidence: tuple[Evidence, ...] = ()
    if happening is not None:
        occurred_at = format_instant(happening.at, zone)
        evidence = (Evidence(event_id=happening.event_id, type=happening.source, occurred_at=occurred_at),)
    change = StageChange(
        stage_change_id=ids.stage_change_id(row.user_id, row.stage, to, at),
        user_id=row.user_id,
        from_=row.stage or None,
        to=to,
        reason=why,
        facts={"orders": paid_orders(row)},
        evidence=evidence,
        decided_at=format_instant(moment.now, zone),
    )
    moment.trace.append(change)
    moment.tally("stages", to)
    return replace(row, stage=to, stage_at=at)
