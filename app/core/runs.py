"""Runs: how a user enters a rule, what ends a run, and what a reversal gives back.

Everything that ends a run takes effect at the ending event's own time, and nothing depends on the order of arrival: an
entry that arrives after its end is born ended, and an end taken back revives the run it ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from operator import itemgetter
from typing import Any

from msgspec.structs import replace

from app.core import release
from app.core.facts import groups_of, left_of
from app.core.guardrails import Candidate, Verdict, arbitration, eligibility
from app.core.happenings import Group, Happening, Reversal
from app.core.moment import Moment
from app.core.purchases import is_paid, paid_since
from app.core.row import MAX_ENDED_RUNS, MAX_ENTRIES, MAX_RESTING, NEVER, Coupon, Mark, Row, Run, run_key
from app.core.rules import End, Enter, Rule
from app.core.scope import NO_COUPON, NO_ORDER, Scope, category_of, coupon_of, taken_back, usable
from schemas.events import Event, UserMerged

#: A run that more purchases (or other events) than this have ended is not kept for their reversal.
MAX_ENDS = 2
#: A refund this long after an order no longer revives what the order had ended, microseconds (90 days).
REVERSAL_WINDOW = 90 * 86_400_000_000
_RULE_KEY_STEP = itemgetter(0, 1, 2)
_COUPONS = frozenset({"coupon", "pack"})
_OF_A_THING = frozenset({"coupon", "pack", "order"})


def on_happening(row: Row, happening: Happening, moment: Moment) -> Row:
    """Ends first, then waits, then entries: an order of milk ends the old reminder and starts the next."""
    catalogue = moment.catalogue
    ended = catalogue.ended_by.get(happening.kind)
    if ended:
        row = _marked(row, ended, happening)
        for rule, end in ended:
            for key in (
                _end_keys(row, rule, end, happening) if happening.counts or end.same_line or rule.key == "order" else ()
            ):
                row = _end(row, rule, end, key, happening, moment)
    for rule in catalogue.held_by.get(happening.kind, ()):
        row = _hold(row, rule, happening, moment)
    for rule, enter in catalogue.entered_by.get(happening.kind, ()):
        for key, data in _entry_keys(row, rule, enter, happening) if happening.counts or enter.each_line else ():
            row = _enter(row, rule, enter, key, data, happening, moment)
    return row


# -- keys ------------------------------------------------------------------------------------------------------------


def _pack_of(row: Row, coupon_id: str) -> str:
    coupon = row.coupons.get(coupon_id)
    return (coupon.pack_id if coupon else None) or coupon_id


def _thing_key(row: Row, rule: Rule, happening: Happening) -> str | None:
    """The key of the thing this happening is about; None when it is about no such thing."""
    if rule.key == "user":
        return ""
    if rule.key == "order":
        return happening.order_id
    if rule.key == "cart":
        return happening.thing if happening.kind == "CartUpdated" else None
    if rule.key in ("category", "product_type"):
        view = row.views.get(happening.thing or "")
        if view is None:
            return None
        return category_of(view) if rule.key == "category" else view.product_type or None
    coupon_id = happening.coupon_id or ""  # a coupon's event has one: the catalogue sees to it
    return coupon_id if rule.key == "coupon" else _pack_of(row, coupon_id)


def _entry_keys(row: Row, rule: Rule, enter: Enter, happening: Happening) -> Iterable[tuple[str, dict[str, Any]]]:
    if enter.each_line:
        return [(key, _line_data(group)) for key, group in _groups(happening, rule).items()]
    key = _thing_key(row, rule, happening)
    return [] if key is None else [(key, {})]


def _groups(happening: Happening, rule: Rule) -> Mapping[str, Group]:
    return happening.categories if rule.key == "category" else happening.groups


def _line_data(group: Group) -> dict[str, Any]:
    data = {
        "units": group.units,
        "quantity": group.quantity,
        "product_id": group.product_id,
        "title": group.title,
        "image_url": group.image_url,
    }
    return {name: value for name, value in data.items() if value is not None}


def _end_keys(row: Row, rule: Rule, end: End, happening: Happening) -> Iterable[str]:
    if end.same_line:
        groups = happening.interests if rule.key == "category" else happening.groups
        prefix = run_key(rule.name, "")
        return [key for key in groups if prefix + key in row.runs and _has_line(groups, key)]
    if end.any_key or (rule.key in ("product_type", "category") and happening.thing is None):
        prefix = run_key(rule.name, "")
        return [key.removeprefix(prefix) for key in row.runs if key.startswith(prefix)]
    key = _thing_key(row, rule, happening)
    return [] if key is None else [key]


def _mark_of(happening: Happening) -> Mark:
    return Mark(happening.at, happening.event_id, happening.kind, happening.order_id)


def _marked(row: Row, ended: tuple[tuple[Rule, End], ...], happening: Happening) -> Row:
    """The row that remembers this end, for entries that happened before it and arrive after it."""
    if happening.kind == "OrderPaid" or all(rule.key in _OF_A_THING for rule, _ in ended):
        return row
    mark = _mark_of(happening)
    before = row.marks.get(happening.kind)
    if before is not None and _order_of_marks(before) >= _order_of_marks(mark):
        return row
    return replace(row, marks={**row.marks, happening.kind: mark})


def _order_of_marks(mark: Mark) -> tuple[int, str]:
    return (mark.at, mark.event_id)


def _seen_ends(row: Row, rule: Rule, run: Run, moment: Moment) -> tuple[Mark, ...]:
    """The ends of this run that have been seen already, whatever arrived first."""
    if rule.key in ("coupon", "pack"):
        kinds = _kinds_of_ends(row, rule, run, moment)
        found = [
            m for c in _coupons(row, run.key) for m in (c.redeemed, c.revoked) if m is not None and m.kind in kinds
        ]
    elif rule.key == "order":
        kinds = _kinds_of_ends(row, rule, run, moment)
        order = row.orders.get(run.key, NO_ORDER)
        instants = (("OrderPaid", order.paid_at), ("OrderCancelled", order.cancelled_at))
        found = [Mark(at, "", kind, run.key) for kind, at in instants if at is not None and kind in kinds]
        found += _ends_by_others(row, rule, run, moment)
    else:
        found = [
            mark
            for end in rule.ends
            for mark in _ends_after(row, end, run)
            if _is_after(mark, run) and _applies(row, end, run, mark.at, moment)
        ]
    return tuple(sorted(found, key=_order_of_marks)[: MAX_ENDS + 1]) if found else ()


def _kinds_of_ends(row: Row, rule: Rule, run: Run, moment: Moment) -> set[str]:
    return {end.on for end in rule.ends if not end.any_key and _applies(row, end, run, run.entered_at, moment)}


def _ends_by_others(row: Row, rule: Rule, run: Run, moment: Moment) -> list[Mark]:
    """Orders of the user's that end a run keyed by another one: a checkout that became an order."""
    found = []
    for end in rule.ends:
        for order in row.orders.values() if end.any_key and _applies(row, end, run, moment.now, moment) else ():
            at = order.placed_at if end.on == "OrderPlaced" else order.paid_at if end.on == "OrderPaid" else None
            if at is not None and at > run.entered_at and order.order_id != run.key:
                found.append(Mark(at, order.paid_event_id, end.on, order.order_id))
    return found


def _applies(row: Row, end: End, run: Run, at: int, moment: Moment) -> bool:
    """The end's condition at the instant of its event, however late that is heard of."""
    return end.when is None or end.when(Scope(row, run, moment.catalogue.policy, at))


def _coupons(row: Row, key: str) -> list[Coupon]:
    """The coupon with this id, or those of the pack with this id."""
    return [coupon for coupon in row.coupons.values() if key in (coupon.coupon_id, coupon.pack_id)]


def _ends_after(row: Row, end: End, run: Run) -> Iterable[Mark]:
    """Events of this kind that may have come after the entry. Purchases are looked up among the orders, so that a
    reversal needs no second place; of other events the latest is remembered."""
    if end.on != "OrderPaid":
        return () if (mark := row.marks.get(end.on)) is None else (mark,)
    return [
        Mark(order.paid_at, order.paid_event_id, end.on, order.order_id)
        for order in paid_since(row, run.entered_at)
        if order.paid_at is not None
        and (order.paid_at, order.paid_event_id) > (run.entered_at, run.event_id)
        and (
            _has_line(left_of(order, "interest" if run.kind == "category" else run.kind), run.key)
            if end.same_line
            else is_paid(order)
        )
    ]


def _has_line(groups: Mapping[str, Group], key: str) -> bool:
    """A gift of the same type is no purchase of it; a subscription to it is."""
    group = groups.get(key)
    return group is not None and (group.units > 0 or group.subscription)


def _concerns(mark: Mark, rule: Rule, end: End, run: Run) -> bool:
    """What happens to a thing ends its runs whenever it happened; what happens to others, only what began before."""
    if rule.key not in _OF_A_THING:
        return _is_after(mark, run)
    return not end.any_key or mark.at > run.entered_at


def _is_after(mark: Mark, run: Run | Happening) -> bool:
    """Whether an event ends a run that was entered earlier; of two at one instant the event id decides, so that the
    order of arrival does not."""
    return (mark.at, mark.event_id) > (run.at if isinstance(run, Happening) else run.entered_at, run.event_id)


# -- ends ------------------------------------------------------------------------------------------------------------


def _end(row: Row, rule: Rule, end: End, key: str, happening: Happening, moment: Moment) -> Row:
    runs = row.runs.get(run_key(rule.name, key))
    if not runs:
        return row
    mark = _mark_of(happening)
    after: list[Run] = []
    for run in runs:
        mine = moment.catalogue.rule_of(run) is rule and _concerns(mark, rule, end, run)
        if not mine or mark in run.ends or not _applies(row, end, run, mark.at, moment):
            after.append(run)
        else:
            after.append(_ended(row, rule, run, mark, happening, moment))
    return _put(row, run_key(rule.name, key), after, moment)


def _ended(row: Row, rule: Rule, run: Run, mark: Mark, happening: Happening, moment: Moment) -> Run:
    """The run with one more end: what waited is dropped, what went out after it is taken back."""
    if not run.ends:
        run = _close(row, rule, run, f"ended by {happening.kind}", moment)
        if run.step < len(rule.steps):
            moment.tally("runs", "ended", rule.name)
    wrong = tuple(fired for fired in run.fired if mark.at <= fired.at)
    if wrong:
        why = f"{happening.kind} had happened before it went out, and was only heard of afterwards."
        release.retract(row, rule, replace(run, fired=wrong), why, happening, moment)
        run = replace(run, fired=tuple(fired for fired in run.fired if mark.at > fired.at))
    return replace(run, ends=(*run.ends, mark))


def _close(row: Row, rule: Rule, run: Run, why: str, moment: Moment) -> Run:
    """A candidate that waits (deferred) gets its final record before its run stops."""
    if run.sequence == 0:
        return run
    release.drop(row, rule, run, why, moment)
    closed = replace(run, sequence=0, step=run.step + 1, timer_at=NEVER)
    if closed.step >= len(rule.steps):
        return closed
    return replace(closed, due_at=due_of(row, rule, closed, closed.step, run.due_at, moment))


def _put(row: Row, name: str, runs: Iterable[Run], moment: Moment) -> Row:
    """The row with these runs of a key; what can neither fire, nor be revived, nor be retracted is let go."""
    kept = [run for run in runs if worth_keeping(run, moment)]
    ended = [run for run in kept if run.ends]
    if len(ended) > MAX_ENDED_RUNS:
        kept.remove(ended[0])
    if not kept and name not in row.runs:
        return row
    others = dict(row.runs)
    if kept:
        others[name] = tuple(kept)
    else:
        others.pop(name, None)
    return replace(row, runs=others)


def worth_keeping(run: Run, moment: Moment) -> bool:
    """A run is kept while it has a step to come, or a trigger out that a later fact could retract."""
    ends = run.ends
    if run.timer_at < NEVER and not ends:
        return True
    for fired in run.fired:
        if fired.expires_at > moment.now:
            return True
    rule = moment.catalogue.rule_of(run)
    assert rule is not None  # `adapt` has let such runs exit
    steps_left = len(rule.steps) - run.step
    if steps_left <= 0 or not ends:
        return steps_left > 0
    if ends[-1].at < moment.floor - REVERSAL_WINDOW or (len(ends) > MAX_ENDS and _ended_often(run)):
        return False
    return run.held or run.due_at >= moment.floor or steps_left > 1


def _ended_often(run: Run) -> bool:
    return len({mark.order_id or mark.event_id for mark in run.ends}) > MAX_ENDS


# -- waiting ---------------------------------------------------------------------------------------------------------


def _hold(row: Row, rule: Rule, happening: Happening, moment: Moment) -> Row:
    assert rule.holds is not None
    key = _thing_key(row, rule, happening)
    runs = row.runs.get(run_key(rule.name, key)) if key is not None else None
    if not runs or key is None:
        return row
    waits = happening.kind == rule.holds[0]
    after = []
    for run in runs:
        if moment.catalogue.rule_of(run) is not rule:
            after.append(run)
            continue
        held = _waits(row, run, waits)
        free = run.held and not held
        run = replace(run, held=held)
        if run.ends and not waits:  # usable again: an end by redemption may have been taken back as well
            ends = _seen_ends(row, rule, run, moment)
            run = replace(run, ends=ends) if ends else _revive(row, rule, replace(run, ends=()), moment)
        elif free:
            run = _freed(rule, run, max(happening.at, moment.floor))
        after.append(run)
    return _put(row, run_key(rule.name, key), after, moment)


def _freed(rule: Rule, run: Run, at: int) -> Run:
    """What came due while it waited is due now; a candidate whose record is open is asked again now."""
    if run.sequence and run.timer_at == _stale_at(rule, run):
        return replace(run, timer_at=at)
    if run.timer_at < NEVER or run.step >= len(rule.steps):
        return run
    due = max(run.due_at, at)
    return replace(run, due_at=due, timer_at=due)


def _waits(row: Row, run: Run, otherwise: bool = False) -> bool:
    """Whether the thing cannot be used now: the coupon, or one of the pack, is locked, by whatever has been seen."""
    if run.kind not in ("coupon", "pack"):
        return otherwise
    return any(coupon.locked_at is not None and usable(coupon) for coupon in _coupons(row, run.key))


def _waits_since(row: Row, run: Run) -> int:
    """From when on the thing could not be used; only what came due after that has been waiting."""
    locked = [c.locked_at for c in _coupons(row, run.key) if c.locked_at is not None and usable(c)]
    return min(locked, default=NEVER)


# -- entries ---------------------------------------------------------------------------------------------------------


def _draft(
    row: Row, rule: Rule, enter: Enter, key: str, data: dict[str, Any], happening: Happening, moment: Moment
) -> Run | None:
    """The run that this entry would begin; None when the rule's own condition or start keeps it from being one."""
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
    if draft.entered_at < moment.enters_from.get(rule.name, 0):
        return None
    return draft if enter.when is None or enter.when(scope) else None


def _enter(
    row: Row, rule: Rule, enter: Enter, key: str, data: dict[str, Any], happening: Happening, moment: Moment
) -> Row:
    name = run_key(rule.name, key)
    if rule.key != "pack" and not _may_enter(row, rule, name) and not _comes_before(row, name, happening):
        return row
    draft = _draft(row, rule, enter, key, data, happening, moment)
    if draft is None:
        return row
    if rule.key == "pack":
        if name in row.runs:
            row = _joined(row, rule, draft, row.coupons.get(happening.coupon_id or "", NO_COUPON), moment)
        if not _may_enter(row, rule, name):
            return row
    ends, held = _seen_ends(row, rule, draft, moment), rule.holds is not None and _waits(row, draft)
    if ends or held:
        draft = replace(draft, ends=ends, held=held)
    before = _makes_room(row, rule, draft, row.runs.get(name, ()), moment)
    if before is None:
        return row
    moment.tally("runs", "entered", rule.name)
    if draft.ends:  # its steps are timed when it comes back, by what is known then
        moment.tally("runs", "ended", rule.name)
        run = replace(draft, due_at=due_of(row, rule, draft, 0, draft.entered_at, moment))
    else:
        run = schedule(row, rule, draft, draft.entered_at, moment)
    if rule.reentry in ("once", "cooldown"):
        row = replace(row, entries={**row.entries, rule.name: max(draft.entered_at, row.entries.get(rule.name, 0))})
    elif rule.reentry == "every_key" and _comes_again(row, rule, key):
        row = _entered(row, name, draft.entered_at)
    row = _put(row, name, (*before, run), moment)
    if run.step < len(rule.steps) and rule.steps[run.step].at_once and not run.ends and run.timer_at < NEVER:
        row, _ = fire(row, name, run, moment)
    return row


def _joined(row: Row, rule: Rule, draft: Run, coupon: Coupon, moment: Moment) -> Row:
    """A coupon joins a pack that has a run: what had happened to it counts for the pack, the earliest one is the entry,
    and when the message is due depends on all that are in it."""
    for mark in (coupon.redeemed, coupon.revoked):
        for end in rule.ends:
            if mark is not None and mark.kind == end.on:
                past = Happening(mark.kind, mark.at, mark.event_id, mark.kind, mark.order_id, coupon.coupon_id)
                row = _end(row, rule, end, draft.key, past, moment)
    after = []
    for run in row.runs.get(run_key(rule.name, draft.key), ()):
        run = replace(run, held=rule.holds is not None and _waits(row, run))
        untouched = not run.step and not run.sequence
        if untouched and _is_after(_entry_mark(run), draft):
            run = replace(
                run,
                event_id=draft.event_id,
                entered_at=draft.entered_at,
                order_id=draft.order_id,
                evidence=draft.evidence,
            )
        if untouched and not run.ends:
            due = due_of(row, rule, run, 0, run.entered_at, moment)
            if due >= max(moment.floor, moment.sends_from.get(rule.name, 0)):
                run = replace(run, due_at=due, timer_at=due)
        after.append(run)
    return _put(row, run_key(rule.name, draft.key), after, moment)


def _entered(row: Row, name: str, at: int) -> Row:
    """The row that remembers this key; of too many, the earliest entries are forgotten."""
    entries = {**row.entries, name: at}
    keys = sorted((at, name) for name, at in entries.items() if "\x1f" in name)
    for _, oldest in keys[:-MAX_ENTRIES]:
        del entries[oldest]
    return replace(row, entries=entries)


def _comes_again(row: Row, rule: Rule, key: str) -> bool:
    """Whether a key may be seen again when its run is long over. An order is paid and a coupon is issued once."""
    return rule.key in ("user", "product_type") or (rule.key == "pack" and key not in row.coupons)


def _may_enter(row: Row, rule: Rule, name: str) -> bool:
    """Whether re-entry allows another run at all, whatever it is about to be."""
    if rule.reentry == "once":
        return rule.name not in row.entries
    return rule.reentry != "every_key" or (name not in row.runs and name not in row.entries)


def _makes_room(row: Row, rule: Rule, draft: Run, before: tuple[Run, ...], moment: Moment) -> tuple[Run, ...] | None:
    """The runs of this key that stay beside the new one; None when re-entry forbids it."""
    last = row.entries.get(rule.name)
    if rule.reentry == "cooldown" and last is not None and abs(draft.entered_at - last) < rule.cooldown:
        return None
    if draft.ends and rule.reentry in ("after_exit", "cooldown"):
        return before
    alive = [
        run
        for run in before
        if not run.ends and run.step < len((moment.catalogue.rule_of(run) or rule).steps)  # of its own version
    ]
    if not alive:
        return before
    # Nobody is in two runs of one key. The earlier entry has it, even when it arrives late, as long as the later one
    # has not led to anything.
    if any(run.step or run.sequence or not _is_after(_entry_mark(run), draft) for run in alive):
        return None
    return tuple(run for run in before if run not in alive)


def _comes_before(row: Row, name: str, happening: Happening) -> bool:
    """Whether the run that has the key of a rule that enters once was entered later, and has led to nothing yet."""
    return any(
        not run.ends and not run.step and not run.sequence and _is_after(_entry_mark(run), happening)
        for run in row.runs.get(name, ())
    )


def _entry_mark(run: Run) -> Mark:
    return Mark(run.entered_at, run.event_id, "", run.order_id)


def schedule(row: Row, rule: Rule, run: Run, previous_due: int, moment: Moment) -> Run:
    """The run with its next step timed. Steps due in the past, or before the rule may send, are passed over: late
    facts and loaded history start no timer in the past."""
    floor = max(moment.floor, moment.sends_from.get(rule.name, 0))
    index, due = run.step, previous_due
    while True:
        if index == len(rule.steps):
            if not rule.yearly or due >= NEVER:
                return replace(run, step=index, due_at=due, timer_at=NEVER, sequence=0)
            run, index = replace(run, ordinal=run.ordinal + 1), 0
        due = due_of(row, rule, run, index, due, moment)
        if rule.steps[index].at_once and _still_fresh(rule, due, moment):
            return replace(run, step=index, due_at=due, timer_at=due, sequence=0)
        waits = run.held and moment.sends_from.get(rule.name, 0) <= due and _waits_since(row, run) <= due
        if due >= floor or waits:
            return replace(run, step=index, due_at=due, timer_at=due if due >= floor else NEVER, sequence=0)
        if not run.ends:
            moment.tally("steps", "passed", rule.name)
        index += 1


def _still_fresh(rule: Rule, due: int, moment: Moment) -> bool:
    """What fires at once is no timer: an order that is heard of a little late brings its coupon all the same."""
    return due >= moment.sends_from.get(rule.name, 0) and moment.now - due <= rule.send.expires_after


def due_of(row: Row, rule: Rule, run: Run, index: int, previous_due: int, moment: Moment) -> int:
    """When a step is due: an instant of its own, or counted from the step before."""
    step = rule.steps[index]
    scope = Scope(row, run, moment.catalogue.policy, moment.now)
    if step.at is not None:
        return step.at(scope)
    assert step.after is not None
    return min(previous_due + step.after(scope), NEVER)


def retime(row: Row, order_id: str, kinds: frozenset[str], moment: Moment) -> Row:
    """An order of the run's was received, or part of it went back: its pending first step is timed anew."""
    for name, runs in row.runs.items():
        after = []
        for run in runs:
            rule = moment.catalogue.rule_of(run)
            mine = rule is not None and run.order_id == order_id and rule.retime_on & kinds
            after.append(_retimed(row, rule, run, moment) if rule is not None and mine else run)
        if any(new is not old for new, old in zip(after, runs, strict=True)):
            row = _put(row, name, after, moment)
    return row


def _retimed(row: Row, rule: Rule, run: Run, moment: Moment) -> Run:
    if run.step >= len(rule.steps) or run.sequence:
        return run
    run = replace(run, data=_data_now(row, run))
    if rule.steps[run.step].at is None:
        return run
    due = due_of(row, rule, run, run.step, run.entered_at, moment)
    if due < moment.sends_from.get(rule.name, 0):
        return schedule(row, rule, run, run.entered_at, moment)
    return replace(run, due_at=due, timer_at=max(due, moment.floor))


def _data_now(row: Row, run: Run) -> dict[str, Any]:
    order = row.orders.get(run.order_id or "")
    group = groups_of(order).get(run.key) if order is not None else None
    return run.data if group is None or run.kind != "product_type" else _line_data(group)


# -- reversals -------------------------------------------------------------------------------------------------------


def on_reversal(row: Row, reversal: Reversal, happening: Happening, moment: Moment) -> Row:
    """Takes back what the order had started, and gives back what it had ended."""
    order_id = reversal.order_id

    def concerned(kind: str, key: str, mine: bool) -> bool:
        types = reversal.product_types
        if kind != "product_type":
            return reversal.purchase
        return types is None or key in (reversal.no_own if mine else types)

    for name in sorted(row.runs):
        after = []
        for run in row.runs[name]:
            rule = moment.catalogue.rule_of(run)
            if rule is None or not concerned(run.kind, run.key, run.order_id == order_id):
                after.append(run)
            elif run.order_id == order_id:
                if not run.ends:
                    run = _close(row, rule, run, f"order {order_id} was taken back", moment)
                    moment.tally("runs", "taken_back", rule.name)
                release.retract(row, rule, run, f"Order {order_id} was taken back.", happening, moment)
                # What was given for good stays given: only what could be taken back may come again.
                freed = {name} if _given(run, moment) else {name, run.rule}
                row = replace(row, entries={k: at for k, at in row.entries.items() if k not in freed})
            elif any(m.order_id == order_id and m.at >= moment.floor - REVERSAL_WINDOW for m in run.ends):
                ends = (
                    _seen_ends(row, rule, run, moment)
                    if rule.key in ("coupon", "pack")
                    else tuple(m for m in run.ends if m.order_id != order_id)
                )
                run = replace(run, ends=ends, held=rule.holds is not None and _waits(row, run, run.held))
                after.append(run if run.ends else _revive(row, rule, run, moment))
            else:
                after.append(run)
        row = _put(row, name, after, moment)
    return row


def _given(run: Run, moment: Moment) -> bool:
    return bool(run.fired) and all(fired.expires_at <= moment.now for fired in run.fired)


def _revive(row: Row, rule: Rule, run: Run, moment: Moment) -> Run:
    moment.tally("runs", "revived", rule.name)
    if run.step >= len(rule.steps):
        return run
    previous = run.due_at if rule.steps[run.step].at is not None else run.due_at - _after(row, rule, run, moment)
    return schedule(row, rule, run, previous, moment)


def _after(row: Row, rule: Rule, run: Run, moment: Moment) -> int:
    step = rule.steps[run.step]
    assert step.after is not None
    return step.after(Scope(row, run, moment.catalogue.policy, moment.now))


# -- timers ----------------------------------------------------------------------------------------------------------


def on_timer(row: Row, due_at: int, moment: Moment) -> Row:
    """Fires what is due at this instant, in the order (rule, key, step)."""
    waiting: list[tuple[str, str, int, str, Run]] = []
    at_rest: set[str] = set()
    for name, runs in row.runs.items():
        for run in runs:
            if due_at < run.timer_at < NEVER and not run.ends and not run.held:
                continue  # its time will come
            at_rest.add(name)
            if run.timer_at <= due_at and not run.ends:
                waiting.append((run.rule, run.key, run.step, name, run))
    waiting.sort(key=_RULE_KEY_STEP)
    contenders: list[Candidate] = []
    for _, _, _, name, run in waiting:
        row, contender = fire(row, name, run, moment)
        if contender is not None:
            contenders.append(contender)
    return _swept(_settle(row, contenders, moment), at_rest, moment)


def _settle(row: Row, contenders: Sequence[Candidate], moment: Moment) -> Row:
    """The end of an arbitration window: one goes out and carries the coupons of the others, which are dropped."""
    if not contenders:
        return row
    winner, *losers = arbitration.ranked(contenders)
    if (full := release.turn(winner, moment)) is not None:
        return _settle(*_not_yet(row, winner, losers, full, moment), moment)
    coupons = tuple(coupon_of(c.scope).coupon_id for c in losers if c.scope.run.kind in ("coupon", "pack"))
    before = winner.scope.run
    row, after = release.conclude(replace(winner, scope=replace(winner.scope, row=row)), coupons, moment)
    row = _concluded(row, winner.rule, before, after, moment)
    for loser in losers:
        before = loser.scope.run
        after = release.object_to(loser, arbitration.lost_to(winner), moment)
        row = _concluded(row, loser.rule, before, after, moment)
    return row


def _not_yet(
    row: Row, winner: Candidate, losers: Sequence[Candidate], full: Verdict, moment: Moment
) -> tuple[Row, Sequence[Candidate]]:
    """The winner's rule may not send more now: when it waits for its turn, the less important wait with it; when it is
    dropped, they are contenders still."""
    after = release.object_to(winner, full, moment)
    if full.outcome == "dropped":
        return _concluded(row, winner.rule, winner.scope.run, after, moment), losers
    row = _concluded(row, winner.rule, winner.scope.run, replace(after, competing=True), moment)
    for one in losers:
        after = release.object_to(one, arbitration.waits_for(winner, full.until), moment)
        row = _concluded(row, one.rule, one.scope.run, replace(after, competing=True), moment)
    return row, ()


def adapt(row: Row, moment: Moment) -> Row:
    """The row under the present catalogue: runs whose rule left it exit, those that follow or restart go on anew."""
    for name in sorted(row.runs):
        runs = row.runs[name]
        after = [new for run in runs if (new := _adapted(row, run, moment)) is not None]
        if len(after) != len(runs) or any(new is not old for new, old in zip(after, runs, strict=True)):
            others = {key: value for key, value in row.runs.items() if key != name}
            row = replace(row, runs={**others, name: tuple(after)} if after else others)
    return row


def _adapted(row: Row, run: Run, moment: Moment) -> Run | None:
    rule = moment.catalogue.rule_of(run)
    if rule is None or (run.timer_at < NEVER and run.step >= len(rule.steps)):
        if run.sequence:
            release.abandon(row, run, moment)
        if not run.ends:
            moment.tally("runs", "exited", run.rule)
        if rule is None or not any(fired.expires_at > moment.now for fired in run.fired):
            return None
        # Its next step is there no more, but what is out may still have to be taken back.
        return replace(run, version=rule.version, timer_at=NEVER, sequence=0, competing=False)
    if rule.version == run.version:
        return run
    if rule.on_change == "restart" and not run.ends and run.step < len(rule.steps):
        if run.sequence:
            release.abandon(row, run, moment)
        anew = replace(run, version=rule.version, ordinal=run.ordinal + 1, step=0, sequence=0, competing=False)
        return schedule(row, rule, anew, anew.entered_at, moment)
    return replace(run, version=rule.version)


def woken(row: Row, moment: Moment) -> Row:
    """What a pause held back, and holds back no more, is asked again now."""
    awake = {name: tuple([_woken(run, moment) for run in runs]) for name, runs in row.runs.items()}
    return row if awake == row.runs else replace(row, runs=awake)


def _woken(run: Run, moment: Moment) -> Run:
    rule = moment.catalogue.rule_of(run)
    assert rule is not None  # `adapt` has let such runs exit
    waited = run.sequence and run.timer_at == eligibility.stale_at(rule, run) and not moment.catalogue.waits(rule.name)
    return replace(run, timer_at=moment.now) if waited else run


def swept(row: Row, moment: Moment) -> Row:
    """The row without runs that nothing will come of any more (a trigger out until now could have been retracted). Of
    too many that are kept for their reversal or retraction alone, those entered first are let go."""
    return _swept(row, row.runs.keys(), moment)


def _swept(row: Row, names: Set[str], moment: Moment) -> Row:
    """Looks at the runs of these keys only: all others wait for their timers."""
    things = {name for coupon in row.coupons.values() for name in (coupon.coupon_id, coupon.pack_id)}
    gone = {}
    for name in names:
        runs = row.runs.get(name, ())
        if len(left := _left(runs, things, moment)) != len(runs):
            gone[name] = left
    kept = {name: left for name, runs in row.runs.items() if (left := gone.get(name, runs))} if gone else row.runs
    if len(names) > MAX_RESTING:
        resting = [name for name in names & kept.keys() if all(map(rests, kept[name]))]
        resting.sort(key=lambda name: (kept[name][-1].entered_at, name))
        for name in resting[:-MAX_RESTING]:
            kept = {**kept} if kept is row.runs else kept
            del kept[name]
    return row if kept is row.runs else replace(row, runs=kept)


def rests(run: Run) -> bool:
    """Whether the run is over, and kept only in case that it is reversed or what it sent is retracted."""
    return bool(run.ends) or (run.timer_at == NEVER and not run.held)


def _left(runs: tuple[Run, ...], things: set[str | None], moment: Moment) -> tuple[Run, ...]:
    return tuple(
        [run for run in runs if worth_keeping(run, moment) and not (run.kind in _COUPONS and _forgotten(run, things))]
    )


def _forgotten(run: Run, things: set[str | None]) -> bool:
    """Whether the run waits for word of a coupon that was summarised: none will come."""
    return bool(run.ends or (run.held and not run.sequence)) and run.key not in things


def fire(row: Row, name: str, run: Run, moment: Moment) -> tuple[Row, Candidate | None]:
    """One due step: let through the gates, or deferred, or dropped; then the next step is timed. A candidate that
    comes back has come through, and meets the others of its window."""
    rule = moment.catalogue.rule_of(run)
    assert rule is not None  # `adapt` has let such runs exit
    if run.held:
        return _wait(row, rule, run, moment), None
    scope = Scope(row, run, moment.catalogue.policy, moment.now)
    if not run.sequence and any(at(scope) <= run.due_at for at in rule.end_at):
        moment.tally("runs", "expired", rule.name)
        return _swap(row, rule, run, replace(run, step=len(rule.steps), timer_at=NEVER), moment), None
    row, after, contender = release.ask(row, rule, run, moment)
    if contender is not None:
        return row, contender
    return _concluded(row, rule, run, after, moment), None


def _wait(row: Row, rule: Rule, run: Run, moment: Moment) -> Row:
    """What it is about cannot be used now: the timer comes back with its event. A candidate whose record is open waits
    for it no longer than it is worth sending: then it gets the final one."""
    if not run.sequence:
        return _swap(row, rule, run, replace(run, timer_at=NEVER), moment)
    stale_at = _stale_at(rule, run)
    if moment.now < stale_at:
        return _swap(row, rule, run, replace(run, timer_at=stale_at, competing=False, slot=0), moment)
    return _concluded(row, rule, run, release.expire(row, rule, run, moment), moment)


def _stale_at(rule: Rule, run: Run) -> int:
    return run.due_at + rule.send.expires_after


def _concluded(row: Row, rule: Rule, before: Run, after: Run, moment: Moment) -> Row:
    """The row with a run as its gates left it; the next step is timed when this one is done."""
    if after.sequence == 0:
        after = schedule(row, rule, replace(after, step=before.step + 1), before.due_at, moment)
    return _swap(row, rule, before, after, moment)


def _swap(row: Row, rule: Rule, before: Run, after: Run, moment: Moment) -> Row:
    name = run_key(rule.name, before.key)
    runs = row.runs[name]
    return _put(row, name, [after if run is before else run for run in runs], moment)


def give_up(row: Row, event: Event, moment: Moment) -> None:
    """All runs of a user who is gone, or is somebody else now: final records for what waited, retractions of what is
    out."""
    merged = isinstance(event, UserMerged)
    why = "The account was merged into another one." if merged else "The user is gone."
    happening = Happening(event.TYPE, event.occurred_at, event.event_id, event.TYPE)
    for name in sorted(row.runs):
        for run in row.runs[name]:
            rule = moment.catalogue.rule_of(run)
            assert rule is not None  # `adapt` has let such runs exit
            if not run.ends:
                run = _close(row, rule, run, f"given up ({event.TYPE})", moment)
                if run.step < len(rule.steps):
                    moment.tally("runs", "exited", rule.name)
            release.retract(row, rule, run, why, happening, moment)


# -- another account's history ---------------------------------------------------------------------------------------


def meet_history(row: Row, before: Row, other: Row, happening: Happening, moment: Moment) -> Row:
    """The runs of a row (`before` it was so) that another account's history was added to. What it brings ends them at
    its own time, and what depends on the user's rhythm is timed anew; then its purchases and coupons enter as if they
    had been heard of late, and what comes every year goes on. Nothing is said at once about the past, and nobody enters
    what is entered once. Who was here before registering is not new: what that began ends with this `happening`."""
    since = _here_since(other)
    for name in sorted(row.runs):
        after = [_met(row, run, moment) for run in row.runs[name]]
        after = [_not_new(row, run, since, happening, moment) for run in after]
        row = _put(row, name, after, moment)
    for name in sorted(other.runs.keys() - row.runs.keys()):
        row = _every_year(row, name, other.runs[name], moment)
    theirs = {name: at for name, at in row.entries.items() if "\x1f" in name and name not in before.entries}
    row = replace(row, entries={name: at for name, at in row.entries.items() if name not in theirs})
    for happening in _brought(before, other):
        for rule, enter in moment.catalogue.entered_by.get(happening.kind, ()):
            if rule.reentry == "once" or rule.steps[0].at_once:
                continue
            for key, data in _entry_keys(row, rule, enter, happening) if happening.counts or enter.each_line else ():
                row = _enter(row, rule, enter, key, data, happening, moment)
    for name, at in theirs.items():
        row = _entered(row, name, at)
    return row


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
    return _ended(row, rule, run, _mark_of(happening), happening, moment)


def _every_year(row: Row, name: str, theirs: Sequence[Run], moment: Moment) -> Row:
    """What comes to the other account every year comes to this one, which has nothing of the kind."""
    for run in theirs:
        rule = moment.catalogue.rule_of(run)
        if rule is None or not rule.yearly or run.ends or run.entered_at < moment.enters_from.get(rule.name, 0):
            continue
        draft = replace(run, version=rule.version, ordinal=0, step=0, sequence=0, competing=False, slot=0, fired=())
        if _seen_ends(row, rule, draft, moment):
            continue
        moment.tally("runs", "entered", rule.name)
        row = _put(row, name, [schedule(row, rule, draft, draft.entered_at, moment)], moment)
    return row


def _brought(before: Row, other: Row) -> list[Happening]:
    """The other's purchases and coupons that were not this one's already, in the order in which they happened."""
    found = []
    for order in other.orders.values():
        if order.paid_at is None or before.orders.get(order.order_id, NO_ORDER).paid_at is not None:
            continue
        happening = Happening("OrderPaid", order.paid_at, order.paid_event_id, "OrderPaid", order.order_id)
        left, counts = left_of(order), is_paid(order)
        found.append(happening._replace(groups=left, categories=left_of(order, "category"), counts=counts))
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
        held = _waits(row, run, run.held)
        free, run = run.held and not held, replace(run, held=held)
        run = _freed(rule, run, moment.floor) if free else run
    if run.ends:
        if not any(taken_back(row.orders.get(mark.order_id or "", NO_ORDER)) for mark in run.ends):
            return run
        ends = _seen_ends(row, rule, run, moment)
        return replace(run, ends=ends) if ends else _revive(row, rule, replace(run, ends=()), moment)
    for mark in _seen_ends(row, rule, run, moment):
        run = _ended(row, rule, run, mark, Happening(mark.kind, mark.at, mark.event_id, mark.kind), moment)
    waits = rule.key == "user" and not run.ends and not run.step and not run.sequence and run.timer_at < NEVER
    if not waits or due_of(row, rule, run, 0, run.entered_at, moment) == run.due_at:
        return run
    return schedule(row, rule, run, run.entered_at, moment)
