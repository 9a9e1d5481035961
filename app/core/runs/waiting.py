"""Runs wait while their thing cannot be used, and go on when it can; what came due meanwhile is due then.

A pack waits only while all that is left of it is locked; which of its coupons can be used says when it is due.
"""

from __future__ import annotations

from msgspec.structs import replace

from app.core.happenings import Happening
from app.core.moment import Moment
from app.core.row import NEVER, Row, Run, run_key
from app.core.rules import Rule
from app.core.runs.keeping import put
from app.core.runs.marks import seen_ends
from app.core.runs.things import held_until, is_locked, thing_key
from app.core.runs.timing import due_of, with_ends

_OF_COUPONS = frozenset({"CouponRedeemed", "CouponRevoked"})


def hold(row: Row, rule: Rule, happening: Happening, moment: Moment) -> Row:
    key = thing_key(row, rule, happening)
    runs = row.runs.get(run_key(rule.name, key)) if key is not None else None
    if not runs or key is None:
        return row
    waits = rule.holds is not None and happening.kind == rule.holds[0]
    after = []
    for run in runs:
        if moment.catalogue.rule_of(run) is not rule:
            after.append(run)
            continue
        if rule.key == "pack":
            after.append(regarded(row, rule, run, max(happening.at, moment.floor), moment))
            continue
        held = is_locked(row, run, waits)
        free = run.held and not held
        run = replace(run, held=held)
        if run.ends and not waits:  # usable again: an end by redemption may have been taken back as well
            run = with_ends(row, rule, run, seen_ends(row, rule, run, moment), moment)
        elif free:
            run = freed(rule, run, max(happening.at, moment.floor))
        after.append(_watched(row, rule, run, moment))
    return put(row, run_key(rule.name, key), after, moment)


def regarded(row: Row, rule: Rule, run: Run, at: int, moment: Moment) -> Run:
    """The run of a pack by what its coupons are now: ended or not, waiting or not, and its first step due by those that
    can be used, unless it is over or that is past. A candidate that waits for the morning is asked when it is due."""
    held = rule.holds is not None and is_locked(row, run)
    free, run = run.held and not held, replace(run, held=held)
    if run.ends:
        others = tuple(mark for mark in run.ends if mark.kind not in _OF_COUPONS)
        return with_ends(row, rule, run, others + seen_ends(row, rule, run, moment), moment)
    if free and (on := freed(rule, run, at)) is not run:
        return on
    if run.step:
        return _watched(row, rule, run, moment)
    due = due_of(row, rule, run, 0, run.entered_at, moment)
    same = run.sequence and due == run.due_at
    if same or due < max(moment.floor, moment.sends_from.get(rule.name, 0)):
        return _watched(row, rule, run, moment)
    return replace(run, due_at=due, timer_at=due, competing=False, slot=0, waits_for="")


def freed(rule: Rule, run: Run, at: int) -> Run:
    """What came due while it waited is due now; a candidate whose record is open is asked again now."""
    if run.sequence and run.waits_for == "coupon":
        return replace(run, timer_at=at, waits_for="")
    if not _waits(rule, run):
        return run
    due = min(max(run.due_at, at), run.timer_at)  # the lock may have lapsed before the word came
    return replace(run, due_at=due, timer_at=due)


def _waits(rule: Rule, run: Run) -> bool:
    """Whether a step came due while its thing could not be used, and has no record."""
    late = run.timer_at == NEVER or (not run.sequence and run.timer_at > run.due_at)
    return late and run.step < len(rule.steps)


def _watched(row: Row, rule: Rule, run: Run, moment: Moment) -> Run:
    """A run that waits comes back when its lock lapses, whichever that is by now."""
    if not run.held or run.ends or not _waits(rule, run):
        return run
    return replace(run, timer_at=max(held_until(row, run), moment.floor))
