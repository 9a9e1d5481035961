"""What another account's history does to runs: it counts at its own time, and says nothing at once about the past."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from app.core import release
from app.core.facts import left_of
from app.core.guardrails import start
from app.core.happenings import Happening, payment_of
from app.core.moment import Moment
from app.core.purchases import is_paid
from app.core.row import NEVER, Row, Run
from app.core.rules import Rule
from app.core.runs.afterthoughts import heard_late
from app.core.runs.ends import ended, goes_along
from app.core.runs.entries import let_in
from app.core.runs.keeping import entered, put
from app.core.runs.marks import mark_of, seen_ends
from app.core.runs.things import entry_keys, is_locked
from app.core.runs.timing import schedule, with_ends
from app.core.runs.waiting import freed
from app.core.scope import NO_COUPON, NO_ORDER, taken_back
from schemas.events import OrderPaid


def meet_history(row: Row, before: Row, other: Row, happening: Happening, moment: Moment) -> Row:
    """The runs of a row (`before` it was so) that another account's history was added to. What it brings ends them at
    its own time, and what depends on the user's rhythm is timed anew; then its purchases and coupons enter as if they
    had been heard of late, and what comes every year goes on. Nothing is said at once about the past, and nobody enters
    what is entered once, with either account; what is given for a purchase and is none of that is given. Who was here
    before registering is not new: what that began ends with this `happening`."""
    since, row = _here_since(other), _with_their_grants(row, other, happening, moment)
    for name in sorted(row.runs):
        after = [_met(row, run, moment) for run in row.runs[name]]
        after = [_not_new(row, run, since, happening, moment) for run in after]
        row = put(row, name, after, moment)
    for name in sorted(other.runs.keys() - row.runs.keys()):
        row = _every_year(row, name, other.runs[name], moment)
    brought = _brought(before, other)
    row = _with_their_purchases(row, _first_bought(brought, other), other, happening, moment)
    theirs = {name: at for name, at in row.entries.items() if "\x1f" in name and name not in before.entries}
    row = replace(row, entries={name: at for name, at in row.entries.items() if name not in theirs})
    for one in brought:
        for rule, enter in moment.catalogue.entered_by.get(one.kind, ()):
            if (rule.reentry == "once" or rule.steps[0].at_once) and not _is_owed(rule, one, moment):
                continue
            for key, data in entry_keys(row, rule, enter, one) if one.counts or enter.each_line else ():
                row = let_in(row, rule, enter, key, data, one, moment)
    for name, at in theirs.items():
        row = entered(row, name, at)
    return row


def _with_their_grants(row: Row, other: Row, happening: Happening, moment: Moment) -> Row:
    """What was given for the other's purchases can still be taken back with them; no more comes of those runs. Of what
    was given for one order under both names, as both were told of it, theirs is taken back."""
    for name in sorted(other.runs):
        for run in other.runs[name]:
            rule = moment.catalogue.rule_of(run)
            if rule is None or not goes_along(rule, run):
                continue
            if rule.key == "order" and any(mine.fired for mine in row.runs.get(name, ())):
                release.retract(row, rule, run, "It was given for the same order under both names.", happening, moment)
            else:
                over = replace(run, step=len(rule.steps), due_at=NEVER, timer_at=NEVER, sequence=0)
                row = put(row, name, (*row.runs.get(name, ()), over), moment)
    return row


def _is_owed(rule: Rule, purchase: Happening, moment: Moment) -> bool:
    """Whether a gift may come with this purchase that it could not bring while nobody knew whose it was."""
    gift = rule.reentry == "once" and rule.steps[0].at_once and rule.send.action == "grant"
    return gift and purchase.at + rule.send.expires_after >= moment.now


def _with_their_purchases(row: Row, since: int, other: Row, happening: Happening, moment: Moment) -> Row:
    """The runs as if the other's purchases had been known all along. Who would not have entered is free to enter, but
    for what was entered with the other account."""
    theirs = {name: at for name, at in other.entries.items() if name in row.entries}
    row = heard_late(row, since, happening, moment)
    return replace(row, entries={**theirs, **row.entries})


def _first_bought(brought: Sequence[Happening], other: Row) -> int:
    """The earliest purchase that is heard of with the other account, be it no longer kept by itself."""
    summed = [other.old_last_order_at, other.baseline.last_order_at if other.baseline else None]
    known = [one.at for one in brought if one.kind == OrderPaid.TYPE]
    return min([*known, *(at for at in summed if at is not None)], default=NEVER)


def _here_since(other: Row) -> int:
    """The earliest instant at which the other account is known to have been a customer's."""
    known = [other.registered_at, other.last_login_at, other.old_last_order_at]
    known += [order.paid_at for order in other.orders.values()]
    return min((at for at in known if at is not None), default=NEVER)


def _not_new(row: Row, run: Run, since: int, happening: Happening, moment: Moment) -> Run:
    rule = moment.catalogue.rule_of(run)
    assert rule is not None  # `adapt` has let such runs exit
    new = any(kind == "UserRegistered" for _, kind, _ in run.evidence[:1]) and not rule.yearly
    if run.ends or not new or since >= run.entered_at:
        return run
    return ended(row, rule, run, mark_of(happening), happening, moment)


def _every_year(row: Row, name: str, theirs: Sequence[Run], moment: Moment) -> Row:
    """What comes to the other account every year comes to this one, which has nothing of the kind."""
    for run in theirs:
        rule = moment.catalogue.rule_of(run)
        if rule is None or not rule.yearly or run.ends:
            continue
        if not start.lets_in(rule, run.entered_at, moment.enters_from):
            moment.tally("refused_entries", "start", rule.name)
            continue
        draft = replace(run, version=rule.version, ordinal=0, step=0, sequence=0, competing=False, slot=0, fired=())
        if seen_ends(row, rule, draft, moment):
            continue
        moment.tally("runs", "entered", rule.name)
        row = put(row, name, [schedule(row, rule, draft, draft.entered_at, moment)], moment)
    return row


def _brought(before: Row, other: Row) -> list[Happening]:
    """The other's purchases and coupons that were not this one's already, in the order in which they happened."""
    found = []
    for order in other.orders.values():
        if order.paid_at is None or before.orders.get(order.order_id, NO_ORDER).paid_at is not None:
            continue
        left, counts = left_of(order), is_paid(order)
        found.append(payment_of(order)._replace(groups=left, categories=left_of(order, "category"), counts=counts))
    for coupon in other.coupons.values():
        if coupon.issued_at is None or before.coupons.get(coupon.coupon_id, NO_COUPON).issued_at is not None:
            continue
        source = "CouponIssued" if coupon.order_id is None else "OrderPaid"
        at, event_id = coupon.issued_at, coupon.event_id
        found.append(Happening("CouponIssued", at, event_id, source, coupon.order_id, coupon.coupon_id))
    return sorted(found, key=lambda happening: (happening.at, happening.event_id, happening.kind))


def _met(row: Row, run: Run, moment: Moment) -> Run:
    rule = moment.catalogue.rule_of(run)
    assert rule is not None  # `adapt` has let such runs exit
    if rule.holds is not None:
        held = is_locked(row, run, run.held)
        free, run = run.held and not held, replace(run, held=held)
        run = freed(rule, run, moment.floor) if free else run
    if run.ends:
        if not any(taken_back(row.orders.get(mark.order_id or "", NO_ORDER)) for mark in run.ends):
            return run
        return with_ends(row, rule, run, seen_ends(row, rule, run, moment), moment)
    for mark in seen_ends(row, rule, run, moment):
        run = ended(row, rule, run, mark, Happening(mark.kind, mark.at, mark.event_id, mark.kind), moment)
    return run
