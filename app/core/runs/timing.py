"""When a step is due: an instant of its own, or so long after the step before.

Late facts and loaded history start no timer in the past: a step that is due there is passed over.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from app.core import release
from app.core.facts import groups_of
from app.core.moment import Moment
from app.core.row import NEVER, Mark, Row, Run
from app.core.rules import Rule
from app.core.runs.keeping import each_run
from app.core.runs.things import held_until, line_data, locked_since
from app.core.scope import Scope


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
            return replace(run, step=index, due_at=due, timer_at=max(due, moment.floor), sequence=0)
        waits = run.held and moment.sends_from.get(rule.name, 0) <= due and locked_since(row, run) <= due
        look_at = held_until(row, run) if waits and due < floor else due
        if look_at >= floor:
            return replace(run, step=index, due_at=due, timer_at=look_at, sequence=0)
        if not run.ends:
            early = due < moment.sends_from.get(rule.name, 0)
            moment.tally("steps", "before_start" if early else "passed", rule.name)
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


def worth_until(rule: Rule, run: Run) -> int:
    return run.due_at + rule.send.expires_after


def revive(row: Row, rule: Rule, run: Run, moment: Moment) -> Run:
    moment.tally("runs", "revived", rule.name)
    if run.step >= len(rule.steps):
        return run
    previous = run.due_at if rule.steps[run.step].at is not None else run.due_at - _after(row, rule, run, moment)
    return schedule(row, rule, run, previous, moment)


def with_ends(row: Row, rule: Rule, run: Run, ends: tuple[Mark, ...], moment: Moment) -> Run:
    """The run with just these ends; without any, one that had ended goes on."""
    return replace(run, ends=ends) if ends else revive(row, rule, replace(run, ends=()), moment)


def by_the_rhythm(row: Row, rule: Rule, run: Run, moment: Moment) -> Run:
    """A run of a user's that has led to nothing yet, timed by what is known now of the purchases that make the user's
    rhythm."""
    first = rule.key == "user" and not run.ends and not run.step and run.timer_at < NEVER
    return _due_anew(row, rule, run, moment) if first else run


def _after(row: Row, rule: Rule, run: Run, moment: Moment) -> int:
    step = rule.steps[run.step]
    assert step.after is not None
    return step.after(Scope(row, run, moment.catalogue.policy, moment.now))


def retime(row: Row, order_id: str, kinds: frozenset[str], moment: Moment) -> Row:
    """An order of the run's was placed or received, its deposit was paid, or part of it went back, or ("") the user is
    in another zone: the pending step is timed anew."""

    def timed(run: Run) -> Run:
        if order_id not in ("", run.order_id):
            return run
        rule = moment.catalogue.rule_of(run)
        return _retimed(row, rule, run, moment) if rule is not None and rule.retime_on & kinds else run

    return each_run(row, timed, moment)


def _retimed(row: Row, rule: Rule, run: Run, moment: Moment) -> Run:
    if run.step >= len(rule.steps):
        return run
    run = replace(run, data=_data_now(row, run))
    return run if rule.steps[run.step].at is None else _due_anew(row, rule, run, moment)


def _due_anew(row: Row, rule: Rule, run: Run, moment: Moment) -> Run:
    """The run with its pending step, which counts from the entry, due by what is known now: asked now if that is past,
    for it was waited for. A candidate that waits (for the morning, its window) and is due at another instant is asked
    anew at that one: whatever it waited for was worked out from the old one."""
    due = due_of(row, rule, run, run.step, run.entered_at, moment)
    if due == run.due_at:
        return run
    if due < moment.sends_from.get(rule.name, 0):
        return _before_start(row, rule, run, due, moment)
    return replace(run, due_at=due, timer_at=max(due, moment.floor), competing=False, slot=0, waits_for="")


def _before_start(row: Row, rule: Rule, run: Run, due: int, moment: Moment) -> Run:
    """What turns out to be due before the rule may send is passed over; a candidate that waits has its final record."""
    if not run.sequence:
        return schedule(row, rule, run, run.entered_at, moment)
    run = replace(run, due_at=due)
    release.drop(row, rule, run, "found to be due before the rule may send", moment)
    return schedule(row, rule, replace(run, step=run.step + 1, competing=False, slot=0), due, moment)


def _data_now(row: Row, run: Run) -> dict[str, Any]:
    order = row.orders.get(run.order_id or "")
    group = groups_of(order).get(run.key) if order is not None else None
    return run.data if group is None or run.kind != "product_type" else line_data(group)
