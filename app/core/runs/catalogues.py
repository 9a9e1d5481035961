"""What another catalogue does to runs: those whose rule left it exit, those that restart or follow go on under it, and
what it pauses no more is asked again."""

from __future__ import annotations

from msgspec.structs import replace

from app.core import release
from app.core.guardrails import eligibility
from app.core.moment import Moment
from app.core.row import NEVER, Row, Run
from app.core.rules import Rule
from app.core.runs.timing import schedule


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
    if rule is not None and rule.version != run.version and rule.on_change == "restart" and _in_flight(run):
        if run.sequence:
            release.abandon(row, run, release.TAKEN_OUT, moment)
        return _anew(row, rule, run, moment)
    if rule is None or (run.timer_at < NEVER and run.step >= len(rule.steps)):
        if run.sequence:
            release.abandon(row, run, release.TAKEN_OUT, moment)
        if not run.ends:
            moment.tally("runs", "exited", run.rule)
        if rule is None or not any(fired.expires_at > moment.now for fired in run.fired):
            return None
        # Its next step is there no more, but what is out may still have to be taken back.
        return replace(run, version=rule.version, timer_at=NEVER, sequence=0, competing=False)
    return run if rule.version == run.version else replace(run, version=rule.version)


def _in_flight(run: Run) -> bool:
    """Whether a step is still to come, by the version that the run was under."""
    return not run.ends and (run.timer_at < NEVER or run.held)


def _anew(row: Row, rule: Rule, run: Run, moment: Moment) -> Run:
    """The run from its first step on. What is said in the moment of the entry is not said again when that is over: the
    other steps count from it as they would have."""
    anew = replace(run, version=rule.version, ordinal=run.ordinal + 1, step=0, sequence=0, competing=False)
    if not run.step or not rule.steps[0].at_once:
        return schedule(row, rule, anew, anew.entered_at, moment)
    return schedule(row, rule, replace(anew, step=1), anew.entered_at, moment)


def woken(row: Row, moment: Moment) -> Row:
    """What a pause held back, and holds back no more, is asked again, spread by user."""
    awake = {name: tuple([_woken(row, run, moment) for run in runs]) for name, runs in row.runs.items()}
    return row if awake == row.runs else replace(row, runs=awake)


def _woken(row: Row, run: Run, moment: Moment) -> Run:
    rule = moment.catalogue.rule_of(run)
    assert rule is not None  # `adapt` has let such runs exit
    if not run.sequence or run.waits_for != "pause" or moment.catalogue.waits(rule.name):
        return run
    return replace(run, timer_at=eligibility.asked_after_pause(rule, run, row.user_id, moment.now), waits_for="")
