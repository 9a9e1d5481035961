"""Life stages: introduction, growth, maturity, decline, churned, and back. A transition table in data moves a user.

Moves follow events (a purchase) or a silence, for which the row keeps one timer; a purchase ends it.
"""

from __future__ import annotations

from msgspec.structs import replace

from app.core import calendar, ids, words
from app.core.happenings import Happening
from app.core.moment import Moment
from app.core.policy import StageMove
from app.core.purchases import last_order_at, paid_orders
from app.core.row import NEVER, Row, Run
from app.core.scope import VARIABLES, Scope
from schemas.instant import format_instant
from schemas.triggers import Evidence, StageChange

_NOBODY = Run("", 0, "user", "", "", 0)
#: What can change which purchase is the latest that counts.
_OF_PURCHASES = frozenset({"OrderPaid", "OrderCancelled", "OrderRefunded", "CustomerBaseline"})


def on_happening(row: Row, happening: Happening, moment: Moment) -> Row:
    """The row in the stage that this event brings, if any, with its silence timed anew."""
    orders = paid_orders(row) if happening.kind in _OF_PURCHASES else 0
    for move in moment.catalogue.policy.stages:
        if move.on == happening.kind and row.stage in move.source and orders >= move.orders:
            row = _moved(
                row,
                move.to,
                happening.at,
                f"{happening.kind}, {words.counted(orders, 'order')} so far.",
                happening,
                moment,
            )
            break
    return timed(row, moment) if happening.kind in _OF_PURCHASES else row


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
    """The row with the instant at which silence moves it on; NEVER when no silence does. Who has had all purchases
    taken back is silent since the stage began."""
    last = last_order_at(row) or row.stage_at
    move = _silent_move(row, moment)
    due = NEVER
    if move is not None:
        scope = Scope(row, _NOBODY, moment.catalogue.policy, moment.now)
        due = max(last + int(VARIABLES[f"silence.{move.silence}"].read(scope)), moment.floor)
    return row if row.stage_due == due else replace(row, stage_due=due)


def on_timer(row: Row, due_at: int, moment: Moment) -> Row:
    """The row after a silence that lasted until now."""
    if row.stage_due > due_at:
        return row
    move = _silent_move(row, moment)
    at = row.stage_due
    row = replace(row, stage_due=NEVER)
    if move is None:
        return row
    return timed(_moved(row, move.to, at, "Silent for longer than the user's rhythm allows.", None, moment), moment)


def _silent_move(row: Row, moment: Moment) -> StageMove | None:
    for move in moment.catalogue.policy.stages:
        if move.silence is not None and row.stage in move.source:
            return move
    return None


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
