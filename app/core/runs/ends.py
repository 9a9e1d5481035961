"""What ends a run: at the ending event's own time what waits is dropped, and what went out after it is taken back."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from app.core import release
from app.core.happenings import Happening
from app.core.moment import Moment
from app.core.row import NEVER, Mark, Row, Run
from app.core.rules import End, Rule
from app.core.runs.keeping import fill_in, put, worth_keeping
from app.core.runs.marks import applies, concerns, counted, last_revoked, mark_of, seen_ends
from app.core.runs.things import end_names
from app.core.runs.timing import due_of, with_ends
from schemas.events import Event, UserMerged


def end_all(row: Row, ends: Iterable[tuple[Rule, End]], happening: Happening, moment: Moment) -> Row:
    """The row after all ends that this happening is. One dictionary of runs is made, however many of them end."""
    before = row.runs
    if not before:
        return row
    runs, said = before, mark_of(happening)
    for rule, end in ends:
        own = end.same_line or (rule.key == "order" and not end.any_key)  # whatever became of the order
        if not happening.counts and not own:
            continue
        for name in end_names(row, rule, end, happening):
            if of_key := runs.get(name):
                after = [_after(row, rule, end, run, said, happening, moment) for run in of_key]
                runs = dict(before) if runs is before else runs
                fill_in(runs, name, worth_keeping(after, moment))
    return row if runs is before else replace(row, runs=runs)


def end_runs(row: Row, rule: Rule, end: End, name: str, happening: Happening, moment: Moment) -> Row:
    """The row after this end of the runs of one key."""
    said = mark_of(happening)
    after = [_after(row, rule, end, run, said, happening, moment) for run in row.runs.get(name, ())]
    return put(row, name, after, moment)


def _after(row: Row, rule: Rule, end: End, run: Run, said: Mark, happening: Happening, moment: Moment) -> Run:
    """The run after this end, if it is one of it."""
    if moment.catalogue.rule_of(run) is not rule or not concerns(said, rule, end, run):
        return run
    mark, of_one = counted(said, end, run), run.kind == "pack" and end.on == "CouponRevoked"
    if of_one:
        mark = last_revoked(row, run.key) or mark  # others may have been revoked later, and heard of before
    if mark in run.ends or ((of_one or end.when is not None) and not applies(row, end, run, said.at, moment)):
        return run
    return ended(row, rule, run, mark, happening, moment)


def reopen(row: Row, name: str, moment: Moment) -> Row:
    """More is known of an order: what another one ended only while this one was not open goes on, once it is."""
    runs = row.runs.get(name, ())
    after = [_reopened(row, run, moment) if run.ends else run for run in runs]
    return put(row, name, after, moment) if any(run.ends for run in runs) else row


def _reopened(row: Row, run: Run, moment: Moment) -> Run:
    rule = moment.catalogue.rule_of(run)
    assert rule is not None  # `adapt` has let such runs exit
    return with_ends(row, rule, run, seen_ends(row, rule, run, moment), moment)


def ended(row: Row, rule: Rule, run: Run, mark: Mark, happening: Happening, moment: Moment) -> Run:
    """The run with one more end: what waited is dropped, what went out after it is taken back."""
    if not run.ends:
        run = close(row, rule, run, f"ended by {happening.kind}", moment)
        if run.step < len(rule.steps):
            moment.tally("runs", "ended", rule.name)
    if run.fired and (wrong := tuple([fired for fired in run.fired if mark.at <= fired.at])):
        tells = "had happened" if mark.at >= happening.at else "tells of what was"
        why = f"{happening.kind} {tells} before it went out, and was only heard of afterwards."
        release.retract(row, rule, replace(run, fired=wrong), why, happening, moment)
        run = replace(run, fired=tuple([fired for fired in run.fired if mark.at > fired.at]))
    return replace(run, ends=(*run.ends, mark))


def close(row: Row, rule: Rule, run: Run, why: str, moment: Moment) -> Run:
    """A candidate that waits (deferred) gets its final record before its run stops."""
    if run.sequence == 0:
        return run
    release.drop(row, rule, run, why, moment)
    closed = replace(run, sequence=0, step=run.step + 1, timer_at=NEVER)
    if closed.step >= len(rule.steps):
        return closed
    return replace(closed, due_at=due_of(row, rule, closed, closed.step, run.due_at, moment))


def give_up(row: Row, event: Event, moment: Moment) -> None:
    """All runs of a user who is gone, or is somebody else now: final records for what waited, retractions of what is
    out, but for what came with a purchase of who is somebody else."""
    merged = isinstance(event, UserMerged)
    why = "The account was merged into another one." if merged else "The user is gone."
    happening = Happening(event.TYPE, event.occurred_at, event.event_id, event.TYPE)
    for name in sorted(row.runs):
        for run in row.runs[name]:
            rule = moment.catalogue.rule_of(run)
            assert rule is not None  # `adapt` has let such runs exit
            if not run.ends:
                run = close(row, rule, run, f"given up ({event.TYPE})", moment)
                if run.step < len(rule.steps):
                    moment.tally("runs", "exited", rule.name)
            if not (merged and goes_along(rule, run)):
                release.retract(row, rule, run, why, happening, moment)


def goes_along(rule: Rule, run: Run) -> bool:
    """Whether what was given stays given when the account becomes part of another one: its purchase goes there, too."""
    return rule.send.action == "grant" and run.order_id is not None
