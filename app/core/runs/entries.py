"""How a user enters a rule: where its re-entry allows it, at the time of the event that it enters by.

An entry that arrives after its end is born ended; of two that compete for a key, the earlier has it.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from app.core import looks
from app.core.guardrails import reentry, start
from app.core.happenings import Happening, payment_of
from app.core.moment import Moment
from app.core.purchases import first_order, is_split
from app.core.row import NEVER, Coupon, Mark, Row, Run, run_key
from app.core.rules import Enter, Rule
from app.core.runs.ends import end_runs
from app.core.runs.keeping import entered, put
from app.core.runs.marks import is_after, seen_ends
from app.core.runs.things import entry_keys, is_locked
from app.core.runs.timers import fire_at_once
from app.core.runs.timing import due_of, schedule
from app.core.runs.waiting import regarded
from app.core.scope import AFTERMATH, NO_COUPON, Scope, taken_back
from schemas import events as ev


def entry_of(row: Row, enter: Enter, happening: Happening) -> Happening | None:
    """What the user would enter by: what happened, or the first order where that only says who the user is."""
    if not enter.of_first_order:
        return happening
    order = first_order(row)
    return None if order is None else payment_of(order)


def let_in(
    row: Row, rule: Rule, enter: Enter, key: str, data: dict[str, Any], happening: Happening, moment: Moment
) -> Row:
    name = run_key(rule.name, key)
    if rule.key != "pack" and not reentry.allows(row, rule, name) and not reentry.comes_before(row, name, happening):
        return _refused(row, rule, name, moment)
    draft = _draft(row, rule, enter, key, data, happening, moment)
    if draft is None:
        return row
    if rule.key == "pack":
        if name in row.runs:
            row = _joined(row, rule, draft, row.coupons.get(happening.coupon_id or "", NO_COUPON), moment)
        if not reentry.allows(row, rule, name):
            return _refused(row, rule, name, moment)
    ends, held = seen_ends(row, rule, draft, moment), rule.holds is not None and is_locked(row, draft)
    if ends or held:
        draft = replace(draft, ends=ends, held=held)
    before = reentry.makes_room(row, rule, draft, row.runs.get(name, ()), moment.catalogue)
    if before is None:
        return _refused(row, rule, name, moment)
    moment.tally("runs", "entered", rule.name)
    if draft.ends:  # its steps are timed when it comes back, by what is known then
        moment.tally("runs", "ended", rule.name)
        run = replace(draft, due_at=due_of(row, rule, draft, 0, draft.entered_at, moment))
    else:
        run = schedule(row, rule, draft, draft.entered_at, moment)
    if rule.reentry in ("once", "cooldown"):
        row = replace(row, entries={**row.entries, rule.name: max(draft.entered_at, row.entries.get(rule.name, 0))})
    elif rule.reentry in reentry.EVERY and _comes_again(row, rule, draft):
        row = entered(row, name, draft.entered_at)
    if run.timer_at < NEVER and not run.ends and rule.steps[run.step].at_once:
        return fire_at_once(row, rule, run, before, moment)
    return put(row, name, (*before, run), moment)


def _refused(row: Row, rule: Rule, name: str, moment: Moment) -> Row:
    """Re-entry's objection: no candidate comes of it, so no record; it is counted. A coupon that has joined
    the run of its pack was not refused."""
    if rule.key != "pack" or name not in row.runs:
        moment.tally("refused_entries", "reentry", rule.name)
    return row


def _was_taken_back(row: Row, happening: Happening) -> bool:
    """Whether the order that would start it was cancelled or refunded before it was heard of."""
    if happening.order_id is None or happening.source in AFTERMATH:
        return False
    order = row.orders.get(happening.order_id)
    return order is not None and taken_back(order)


def let_in_later_looks(row: Row, rule: Rule, enter: Enter, look: Happening, moment: Moment) -> Row:
    """A look that is heard of late may be what later ones were missing: without it they were no entries."""
    view = row.views.get(look.thing or "")
    if view is None or view.last_at <= look.at or look.kind != ev.ProductViewed.TYPE:
        return row
    before = replace(row, views={**row.views, view.product_id: looks.without(view, look.event_id)})
    for at, event_id in looks.after(view, look.at, look.event_id):
        row = let_in_anew(row, before, rule, enter, look._replace(at=at, event_id=event_id), moment)
    return row


def let_in_anew(row: Row, before: Row, rule: Rule, enter: Enter, happening: Happening, moment: Moment) -> Row:
    """Lets in by what happened earlier, where it was no entry by what was known `before`."""
    for key, data in entry_keys(row, rule, enter, happening):
        if _draft(before, rule, enter, key, data, happening, moment) is None:
            row = let_in(row, rule, enter, key, data, happening, moment)
    return row


def _draft(
    row: Row, rule: Rule, enter: Enter, key: str, data: dict[str, Any], happening: Happening, moment: Moment
) -> Run | None:
    """The run that this entry would begin; None when the rule's own condition or start keeps it from being one."""
    if rule.key != "product_type" and _was_taken_back(row, happening):  # of goods, what stayed is known
        return None
    draft = Run(
        rule=rule.name,
        version=rule.version,
        kind=rule.key,
        key=key,
        event_id=happening.event_id,
        entered_at=happening.at,
        order_id=happening.order_id,
        data=data,
        evidence=((happening.event_id, happening.source, happening.at),),
    )
    scope = Scope(row, draft, moment.catalogue.policy, happening.at)
    if enter.at is not None:
        at = enter.at(scope)
        if at < 0:
            return None
        draft = replace(draft, entered_at=at)
        scope = replace(scope, run=draft)
    if not start.lets_in(rule, draft.entered_at, moment.enters_from):
        moment.tally("refused_entries", "start", rule.name)
        return None
    return draft if enter.when is None or enter.when(scope) else None


def _joined(row: Row, rule: Rule, draft: Run, coupon: Coupon, moment: Moment) -> Row:
    """A coupon joins a pack that has a run: what had happened to it counts for the pack, the earliest one is the entry,
    and what becomes of the run depends on all that are in it."""
    for mark in (coupon.redeemed, coupon.revoked):
        for end in rule.ends:
            if mark is not None and mark.kind == end.on:
                past = Happening(mark.kind, mark.at, mark.event_id, mark.kind, mark.order_id, coupon.coupon_id)
                row = end_runs(row, rule, end, run_key(rule.name, draft.key), past, moment)
    after = []
    for run in row.runs.get(run_key(rule.name, draft.key), ()):
        if not run.step and not run.sequence and is_after(_entry_mark(run), draft):
            run = replace(
                run,
                event_id=draft.event_id,
                entered_at=draft.entered_at,
                order_id=draft.order_id,
                evidence=draft.evidence,
            )
        own = moment.catalogue.rule_of(run)
        assert own is not None  # `adapt` has let such runs exit
        after.append(regarded(row, own, run, max(draft.entered_at, moment.floor), moment))
    return put(row, run_key(rule.name, draft.key), after, moment)


def _comes_again(row: Row, rule: Rule, run: Run) -> bool:
    """Whether a key may be seen again when its run is long over. An order is paid and a coupon is issued once; of a
    purchase that was split, another part may be paid later."""
    if rule.reentry == "every_purchase":
        return run.key != run.order_id or is_split(row, run.key)
    return rule.key in ("user", "product_type") or (rule.key == "pack" and run.key not in row.coupons)


def _entry_mark(run: Run) -> Mark:
    return Mark(run.entered_at, run.event_id, "", run.order_id)
