"""The only door through which a user's state changes: (row, message, moment) -> row, with outputs in the trace.

Pure: no clock, no I/O, no Kafka. The same arguments give the same row and the same outputs, on any machine.
"""

from __future__ import annotations

from msgspec.structs import replace

from app.core import facts, ids, merging, release, runs, shedding, stages
from app.core.facts import Refused
from app.core.happenings import Happening
from app.core.moment import Moment
from app.core.purchases import last_order_at
from app.core.row import MANY_RUN_KEYS, NEVER, Row, remember, remembers
from app.core.transfers import History
from schemas.events import Event, OrderPaid, UserErased, UserMerged


def step(row: Row | None, event: Event, moment: Moment) -> Row | Refused:
    """Applies one event. Gives the same row object when it changes nothing (a duplicate), `Refused` when the event
    contradicts what is known."""
    row = Row(event.user_id) if row is None else row
    hashed = ids.event_hash(event.event_id)
    if remembers(row.ledger, hashed):
        moment.tally("duplicates", event.TYPE)
        return row
    known = len(row.runs)
    before = row = adapt(row, moment)
    after = facts.apply(row, event, moment.floor)
    if isinstance(after, Refused):
        return after
    if event.occurred_at < moment.floor:
        moment.tally("late", event.TYPE)
    row = replace(after.row, ledger=remember(row.ledger, hashed, max(event.occurred_at, moment.floor)))
    for reversal in after.reversals:
        row = runs.on_reversal(row, reversal, after.happenings[0], moment)
        row = runs.taken_back(row, before, moment) if reversal.purchase else row
    if after.retimed is not None:
        row = runs.retime(row, after.retimed, frozenset(h.kind for h in after.happenings), moment)
    for happening in after.happenings:
        if happening.kind == OrderPaid.TYPE and happening.at < (row.last_seen_at or 0):
            row = runs.heard_late(row, happening.at, happening, moment)
        row = runs.on_happening(row, happening, moment)
        row = stages.on_happening(row, before, happening, moment)
    return _in_bounds(row, known, moment)


def _in_bounds(row: Row, known: int, moment: Moment) -> Row:
    """Looks through the runs with each so many keys that they become more than were known: it costs all of them."""
    if (len(row.runs) - 1) // MANY_RUN_KEYS > (max(MANY_RUN_KEYS, known) - 1) // MANY_RUN_KEYS:
        return runs.thinned(runs.swept(row, moment), moment)
    return row


def tick(row: Row, due_at: int, moment: Moment) -> Row:
    """Fires the row's timers due at this instant."""
    return runs.on_timer(stages.on_timer(adapt(row, moment), due_at, moment), due_at, moment)


def lean(row: Row, most: int, moment: Moment) -> Row:
    """The row in at most so many bytes if it can be: its oldest detail goes, its counts and sums stay."""
    return shedding.shed(adapt(row, moment), most, moment)


def let_go(row: Row, due_at: int, moment: Moment) -> Row:
    """The row without what is due by this instant: the rules fail on it, and a person has set it aside. A candidate
    gets its final record; what waits for its coupon without one was none."""
    kept = {name: tuple(run for run in some if run.ends or run.timer_at > due_at) for name, some in row.runs.items()}
    for name in sorted(row.runs):
        for run in row.runs[name]:
            if run in kept[name]:
                continue
            if run.sequence or not run.held:
                release.abandon(row, run, release.SET_ASIDE, moment)
            moment.tally("runs", "exited", run.rule)
    later = row.stage_due if row.stage_due > due_at else NEVER
    return replace(row, runs={name: some for name, some in kept.items() if some}, stage_due=later)


def adapt(row: Row, moment: Moment) -> Row:
    """The row under the present catalogue: at a change-over, and whenever one is touched that was not there then."""
    present = moment.catalogue.fingerprint
    if row.catalogue == present:
        return row
    return replace(runs.adapt(row, moment) if row.runs else row, catalogue=present)


def settle(row: Row, moment: Moment) -> Row:
    """The row at a change-over that concerns it: adapted, and what waited for the end of a pause is asked again."""
    return runs.woken(adapt(row, moment), moment)


def erase(row: Row, event: UserErased, moment: Moment) -> None:
    """What an erasure says before the row goes: what waited is dropped, what is out and unexpired is retracted."""
    runs.give_up(adapt(row, moment), event, moment)


def leave(row: Row, event: UserMerged, moment: Moment) -> Refused | None:
    """What is said before the row goes to the account that it becomes part of; None, or why it cannot."""
    if event.into in row.merged:
        return Refused("The account that it is to become part of is itself part of this one.", "into")
    runs.give_up(adapt(row, moment), event, moment)
    return None


def absorb(row: Row | None, history: History, other: Row | None, moment: Moment) -> Row:
    """The row that another account became part of. `other` is the account's row; None when nothing was known of it.
    Gives the same row object when it has this history already."""
    row = Row(history.user) if row is None else row
    hashed = ids.event_hash(f"merged:{history.path[0]}:{history.event_id}")
    if remembers(row.ledger, hashed):
        moment.tally("duplicates", UserMerged.TYPE)
        return row
    known = len(row.runs)
    row = adapt(row, moment)
    other = Row(history.path[0]) if other is None else other
    happening = Happening(UserMerged.TYPE, history.occurred_at, history.event_id, UserMerged.TYPE)
    brought = (last_order_at(other) or 0) > (last_order_at(row) or 0)
    new = merging.absorbed(row, other, history.path)
    new = replace(new, ledger=remember(new.ledger, hashed, max(history.occurred_at, moment.floor)))
    new = _in_bounds(runs.meet_history(new, row, other, happening, moment), known, moment)
    return stages.meet_history(new, other, brought, happening, moment)
