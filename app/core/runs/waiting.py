"""Runs wait while their thing cannot be used, and go on when it can; what came due meanwhile is due then."""

from __future__ import annotations

from msgspec.structs import replace

from app.core.happenings import Happening
from app.core.moment import Moment
from app.core.row import NEVER, Row, Run, run_key
from app.core.rules import Rule
from app.core.runs.keeping import put
from app.core.runs.marks import seen_ends
from app.core.runs.things import is_locked, thing_key
from app.core.runs.timing import revive, worth_until


def hold(row: Row, rule: Rule, happening: Happening, moment: Moment) -> Row:
    assert rule.holds is not None
    key = thing_key(row, rule, happening)
    runs = row.runs.get(run_key(rule.name, key)) if key is not None else None
    if not runs or key is None:
        return row
    waits = happening.kind == rule.holds[0]
    after = []
    for run in runs:
        if moment.catalogue.rule_of(run) is not rule:
            after.append(run)
            continue
        held = is_locked(row, run, waits)
        free = run.held and not held
        run = replace(run, held=held)
        if run.ends and not waits:  # usable again: an end by redemption may have been taken back as well
            ends = seen_ends(row, rule, run, moment)
            run = replace(run, ends=ends) if ends else revive(row, rule, replace(run, ends=()), moment)
        elif free:
            run = freed(rule, run, max(happening.at, moment.floor))
        after.append(run)
    return put(row, run_key(rule.name, key), after, moment)


def freed(rule: Rule, run: Run, at: int) -> Run:
    """What came due while it waited is due now; a candidate whose record is open is asked again now."""
    if run.sequence and run.timer_at == worth_until(rule, run):
        return replace(run, timer_at=at)
    if run.timer_at < NEVER or run.step >= len(rule.steps):
        return run
    due = max(run.due_at, at)
    return replace(run, due_at=due, timer_at=due)
