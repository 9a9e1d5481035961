"""What goes on although an order of it was taken back: what belongs to a purchase with other parts, and what another
order had begun as well.

What was said at once is not said again; so it is not taken back while it is true of an order that counts.
"""

from __future__ import annotations

from app.core.moment import Moment
from app.core.purchases import is_paid, parts_of, purchase_of
from app.core.row import Order, Row, Run
from app.core.rules import Rule
from app.core.scope import NO_ORDER, Scope, taken_back


def of_the_whole(row: Row, run: Run, order_id: str) -> bool:
    """Whether this order is a part of the one that the run is about."""
    return run.kind == "order" and run.key != order_id and purchase_of(_order(row, order_id)) == run.key


def is_left(row: Row, purchase: str) -> bool:
    """Whether some of a purchase counts, or may still be paid."""
    return is_paid(_order(row, purchase)) or any(not taken_back(part) for part in parts_of(row, purchase))


def heir_of(row: Row, rule: Rule, run: Run, moment: Moment) -> Order | None:
    """The order that carries on with a run whose own was taken back: a part of the same purchase, or one that re-entry
    had refused because of this run. None when there is none, or it has a run of its own."""
    if rule.key != "user" and rule.reentry != "every_purchase":
        return None
    purchase = purchase_of(_order(row, run.order_id or ""))
    apart = {one.order_id for runs in row.runs.values() for one in runs if (one.rule, one.key) == (run.rule, run.key)}
    heirs = [
        order
        for order in row.orders.values()
        if is_paid(order)
        and order.order_id not in apart
        and (
            _in_its_place(rule, run, order)
            if purchase_of(order) == purchase
            else _refused_for_it(row, rule, run, order, moment)
        )
    ]
    return min(heirs, key=lambda order: (order.paid_at, order.paid_event_id), default=None)


def _in_its_place(rule: Rule, run: Run, part: Order) -> bool:
    """What is timed by the later part is not what the earlier one would have begun."""
    return rule.steps[0].at_once or rule.key == "order" or (part.paid_at or 0) >= run.entered_at


def _refused_for_it(row: Row, rule: Rule, run: Run, order: Order, moment: Moment) -> bool:
    at = order.paid_at or 0
    near = rule.reentry == "once" or (rule.reentry == "cooldown" and abs(at - run.entered_at) < rule.cooldown)
    if not near or not rule.steps[0].at_once:
        return False
    draft = Run(run.rule, run.version, run.kind, run.key, order.paid_event_id, at, order.order_id)
    scope = Scope(row, draft, moment.catalogue.policy, at)
    return any(
        enter.on == "OrderPaid" and enter.at is None and (enter.when is None or enter.when(scope))
        for enter in rule.enter
    )


def _order(row: Row, order_id: str) -> Order:
    return row.orders.get(order_id, NO_ORDER)
