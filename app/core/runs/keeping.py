"""Which runs a row keeps: those with a step to come, and those that a later fact could revive or retract.

All others are let go, and of too many that merely rest, those entered first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from operator import is_not

from msgspec.structs import replace

from app.core.moment import Moment
from app.core.row import MAX_ENDED_RUNS, MAX_ENTRIES, MAX_RESTING, NEVER, Row, Run

#: A run that more purchases (or other events) than this have ended is not kept for their reversal.
MAX_ENDS = 2
#: A refund this long after an order no longer revives what the order had ended, microseconds (90 days).
REVERSAL_WINDOW = 90 * 86_400_000_000
_COUPONS = frozenset({"coupon", "pack"})


def put(row: Row, name: str, runs: Iterable[Run], moment: Moment) -> Row:
    """The row with these runs of a key; what can neither fire, nor be revived, nor be retracted is let go."""
    kept = worth_keeping(runs, moment)
    if not kept and name not in row.runs:
        return row
    others = dict(row.runs)
    fill_in(others, name, kept)
    return replace(row, runs=others)


def each_run(row: Row, changed: Callable[[Run], Run], moment: Moment) -> Row:
    """The row with each run as `changed` gives it, by what the row was before; the same row when none is another."""
    for name, runs in row.runs.items():
        after = [changed(run) for run in runs]
        if any(map(is_not, after, runs)):
            row = put(row, name, after, moment)
    return row


def worth_keeping(runs: Iterable[Run], moment: Moment) -> list[Run]:
    """Those of a key's runs that something may come of; of too many that have ended, not the first."""
    kept = [run for run in runs if (run.timer_at < NEVER and not run.ends) or _worth_keeping(run, moment)]
    if len(kept) > MAX_ENDED_RUNS:
        ended = [run for run in kept if run.ends]
        if len(ended) > MAX_ENDED_RUNS:
            kept.remove(ended[0])
    return kept


def fill_in(new: dict[str, tuple[Run, ...]], name: str, kept: Iterable[Run]) -> None:
    """Puts what is kept of a key's runs into a dictionary that is being made: no row has it yet."""
    if kept:
        new[name] = tuple(kept)
    else:
        new.pop(name, None)


def _worth_keeping(run: Run, moment: Moment) -> bool:
    """A run that is over, or has no timer, is kept while it has a step to come, or a trigger out that a later fact
    could retract."""
    for fired in run.fired:
        if fired.expires_at > moment.now:
            return True
    ends = run.ends
    if ends:
        if ends[-1].at < moment.floor - REVERSAL_WINDOW or (len(ends) > MAX_ENDS and _ended_often(run)):
            return False
        if run.timer_at < NEVER and (run.held or run.due_at >= moment.floor):
            return True  # a timer is of a step to come
    rule = moment.catalogue.rule_of(run)
    assert rule is not None  # `adapt` has let such runs exit
    steps_left = len(rule.steps) - run.step
    if steps_left <= 0 or not ends:
        return steps_left > 0
    return run.held or run.due_at >= moment.floor or steps_left > 1


def _ended_often(run: Run) -> bool:
    return len({mark.order_id or mark.event_id for mark in run.ends}) > MAX_ENDS


def entered(row: Row, name: str, at: int) -> Row:
    """The row that remembers this key; of too many, the earliest entries are forgotten."""
    entries = {**row.entries, name: at}
    keys = sorted((at, name) for name, at in entries.items() if "\x1f" in name)
    for _, oldest in keys[:-MAX_ENTRIES]:
        del entries[oldest]
    return replace(row, entries=entries)


def swept(row: Row, moment: Moment) -> Row:
    """The row without runs that nothing will come of any more (a trigger out until now could have been retracted). Of
    too many that are kept for their reversal or retraction alone, those entered first are let go."""
    return swept_among(row, row.runs.keys(), moment)


def swept_among(row: Row, names: Set[str], moment: Moment) -> Row:
    """Looks at the runs of these keys only: all others wait for their timers."""
    if not names:
        return row
    things = {name for coupon in row.coupons.values() for name in (coupon.coupon_id, coupon.pack_id)}
    gone = {}
    for name in names:
        for run in row.runs.get(name, ()):
            if not _stays(run, things, moment):
                gone[name] = tuple([run for run in row.runs[name] if _stays(run, things, moment)])
                break
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


def _stays(run: Run, things: set[str | None], moment: Moment) -> bool:
    worth = (run.timer_at < NEVER and not run.ends) or _worth_keeping(run, moment)
    return worth and not (run.kind in _COUPONS and _forgotten(run, things))


def _forgotten(run: Run, things: set[str | None]) -> bool:
    """Whether the run waits for word of a coupon that was summarised: none will come."""
    return bool(run.ends or (run.held and not run.sequence)) and run.key not in things
