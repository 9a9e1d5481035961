"""What is due goes through the gates in the order (rule, key, step); of those that come through, one goes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter

from msgspec.structs import replace

from app.core import release
from app.core.guardrails import Candidate, Verdict, arbitration, reentry
from app.core.moment import Moment
from app.core.row import NAMELESS_CHECKOUT, NEVER, Row, Run, run_key
from app.core.rules import Rule
from app.core.runs.keeping import entered, put, swept_among
from app.core.runs.things import held_until
from app.core.runs.timing import schedule, worth_until
from app.core.scope import Scope, coupon_of

_RULE_KEY_STEP = itemgetter(0, 1, 2)
_Standing = tuple[Candidate, Verdict]
"""Who is the most important, and what that leaves to all others."""


def on_timer(row: Row, due_at: int, moment: Moment) -> Row:
    """Fires what is due at this instant, in the order (rule, key, step)."""
    waiting: list[tuple[str, str, int, Run]] = []
    at_rest: set[str] = set()
    for name, runs in row.runs.items():
        for run in runs:
            if not run.ends:
                if run.timer_at <= due_at:
                    waiting.append((run.rule, run.key, run.step, run))
                elif run.timer_at < NEVER and not run.held:
                    continue  # its time will come
            at_rest.add(name)
    waiting.sort(key=_RULE_KEY_STEP)
    contenders: list[Candidate] = []
    for _, _, _, run in waiting:
        row, contender = _fire(row, run, moment)
        if contender is not None:
            contenders.append(contender)
    return swept_among(_settle(row, due_at, contenders, moment) if contenders else row, at_rest, moment)


def _settle(row: Row, due_at: int, contenders: Sequence[Candidate], moment: Moment) -> Row:
    """The end of an arbitration window. What goes out is decided as if there were no ghosts; then of these the best, if
    it is better than that and than what waits for a later window, is what it would have been."""
    ghosts = [c for c in contenders if c.ghost]
    rivals = [(one, arbitration.lost_to(one)) for one in (_rivals(row, due_at, moment) if ghosts else ())]
    row, first = _contest(row, [c for c in contenders if not c.ghost], None, moment)
    best = min([first, *rivals] if first else rivals, key=lambda one: arbitration.rank(one[0]), default=None)
    return _contest(row, ghosts, best, moment)[0]


def _rivals(row: Row, due_at: int, moment: Moment) -> list[Candidate]:
    """Real candidates whose window was opened after that of the ghosts, and closes later: they would have met."""
    waiting = [
        run
        for runs in row.runs.values()
        for run in runs
        if run.competing and run.timer_at == row.window_until > due_at and not run.ends and not run.held
    ]
    found = []
    for run in waiting:
        rule = moment.catalogue.rule_of(run)
        assert rule is not None  # `adapt` has let such runs exit
        one = release.candidate_of(row, rule, run, moment)
        if not one.ghost and isinstance(release.through(one), Candidate):
            found.append(one)
    return found


def _contest(
    row: Row, contenders: Sequence[Candidate], above: _Standing | None, moment: Moment
) -> tuple[Row, _Standing | None]:
    """Of these one goes out and carries the coupons of the others, which are dropped, unless one that is more important
    stands above them all: then they hear what that leaves them. When the rule of the best may not send more now, the
    others wait with it; when it is dropped, they are contenders still."""
    if not contenders:
        return row, above
    winner, *losers = arbitration.ranked(contenders)
    if above is not None and arbitration.rank(above[0]) < arbitration.rank(winner):
        return _told(row, contenders, above[1], moment), above
    before = winner.scope.run
    if (full := release.turn(winner, moment)) is None:
        coupons = tuple(coupon_of(c.scope).coupon_id for c in losers if c.scope.run.kind in ("coupon", "pack"))
        row, after = release.conclude(replace(winner, scope=replace(winner.scope, row=row)), coupons, moment)
        standing = winner, arbitration.lost_to(winner)
    else:
        after = release.object_to(winner, full, moment)
        if full.outcome == "dropped":
            return _contest(_concluded(row, winner.rule, before, after, moment), losers, above, moment)
        after = replace(after, competing=True)
        standing = winner, arbitration.waits_for(winner, full.until)
    row = _concluded(row, winner.rule, before, after, moment)
    return _told(row, losers, standing[1], moment), standing


def _told(row: Row, others: Sequence[Candidate], said: Verdict, moment: Moment) -> Row:
    """Those that did not win: dropped, or waiting with the one that waits for its turn."""
    for one in others:
        after = replace(release.object_to(one, said, moment), competing=said.outcome == "deferred")
        row = _concluded(row, one.rule, one.scope.run, after, moment)
    return row


def _fire(row: Row, run: Run, moment: Moment) -> tuple[Row, Candidate | None]:
    """One due step: let through the gates, or deferred, or dropped; then the next step is timed. A candidate that
    comes back has come through, and meets the others of its window."""
    rule = moment.catalogue.rule_of(run)
    assert rule is not None  # `adapt` has let such runs exit
    if (free := _free(row, run, moment)) is not run:
        row, run = _swap(row, rule, run, free, moment), free
    row, after, contender = _asked(row, rule, run, moment)
    return (row, contender) if contender is not None else (_swap(row, rule, run, after, moment), None)


def fire_at_once(row: Row, rule: Rule, run: Run, beside: Sequence[Run], moment: Moment) -> Row:
    """The row with a run that it did not have yet, beside others of its key. Its first step is due as it is entered,
    and competes with nothing."""
    row, after, _ = _asked(row, rule, _free(row, run, moment), moment)
    return _put(row, rule, after, (*beside, after), moment)


def _free(row: Row, run: Run, moment: Moment) -> Run:
    """The run without a lock that has lapsed, though nobody said so: what waited for that is due then."""
    if not run.held or moment.now < held_until(row, run):
        return run
    return replace(run, held=False, due_at=run.due_at if run.sequence else max(run.due_at, run.timer_at))


def _asked(row: Row, rule: Rule, run: Run, moment: Moment) -> tuple[Row, Run, Candidate | None]:
    if run.held:
        return row, _waiting(row, rule, run, moment), None
    if not run.sequence and rule.end_at:
        scope = Scope(row, run, moment.catalogue.policy, moment.now)
        if any(at(scope) <= run.due_at for at in rule.end_at):
            moment.tally("runs", "expired", rule.name)
            return row, replace(run, step=len(rule.steps), timer_at=NEVER), None
    row, after, contender = release.ask(row, rule, run, moment)
    return row, after if contender is not None else _timed(row, rule, run, after, moment), contender


def _waiting(row: Row, rule: Rule, run: Run, moment: Moment) -> Run:
    """What it is about cannot be used now: the timer comes back with its event, or when the lock lapses. A candidate
    whose record is open waits for it no longer than it is worth sending: then it gets the final one."""
    if not run.sequence:
        return replace(run, timer_at=held_until(row, run))
    stale_at = worth_until(rule, run)
    if moment.now < stale_at:
        return replace(run, timer_at=stale_at, competing=False, slot=0, waits_for="coupon")
    return _timed(row, rule, run, release.expire(row, rule, run, moment), moment)


def _timed(row: Row, rule: Rule, before: Run, after: Run, moment: Moment) -> Run:
    """A run as its gates left it; the next step is timed when this one is done."""
    if after.sequence:
        return after
    return schedule(row, rule, replace(after, step=before.step + 1), before.due_at, moment)


def _concluded(row: Row, rule: Rule, before: Run, after: Run, moment: Moment) -> Row:
    """The row with a run as its gates left it, its next step timed."""
    return _swap(row, rule, before, _timed(row, rule, before, after, moment), moment)


def _swap(row: Row, rule: Rule, before: Run, after: Run, moment: Moment) -> Row:
    runs = row.runs[run_key(rule.name, before.key)]
    return _put(row, rule, after, [after if run is before else run for run in runs], moment)


def _put(row: Row, rule: Rule, after: Run, runs: Iterable[Run], moment: Moment) -> Row:
    name = run_key(rule.name, after.key)
    row = put(row, name, runs, moment)
    over = after.step >= len(rule.steps) and rule.key == "order" and rule.reentry in reentry.EVERY
    if over and len(rule.enter) > 1 and after.key != NAMELESS_CHECKOUT:  # a checkout may become an order: the same one
        return entered(row, name, after.entered_at)
    return row
