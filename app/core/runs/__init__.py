"""Runs: how a user enters a rule, what ends a run, and what a reversal gives back.

Everything that ends a run takes effect at the ending event's own time, and nothing depends on the order of arrival: an
entry that arrives after its end is born ended, and an end taken back revives the run it ended.
"""

from __future__ import annotations

from app.core.happenings import Happening
from app.core.moment import Moment
from app.core.row import Row, run_key
from app.core.runs.afterthoughts import heard_late, taken_back
from app.core.runs.catalogues import adapt, woken
from app.core.runs.crowds import exited, thinned
from app.core.runs.ends import end_all, give_up, reopen
from app.core.runs.entries import entry_of, let_in, let_in_later_looks
from app.core.runs.histories import meet_history
from app.core.runs.keeping import MAX_ENDS, REVERSAL_WINDOW, rests, swept
from app.core.runs.marks import marked
from app.core.runs.reversals import on_reversal
from app.core.runs.things import entry_keys
from app.core.runs.timers import on_timer
from app.core.runs.timing import retime
from app.core.runs.waiting import hold

__all__ = [
    "MAX_ENDS",
    "REVERSAL_WINDOW",
    "adapt",
    "exited",
    "give_up",
    "heard_late",
    "meet_history",
    "on_happening",
    "on_reversal",
    "on_timer",
    "rests",
    "retime",
    "swept",
    "taken_back",
    "thinned",
    "woken",
]


def on_happening(row: Row, happening: Happening, moment: Moment) -> Row:
    """Ends first, then waits, then entries: an order of milk ends the old reminder and starts the next."""
    catalogue = moment.catalogue
    ended = catalogue.ended_by.get(happening.kind)
    if ended:
        row = end_all(marked(row, ended, happening), ended, happening, moment)
    if (order_id := happening.order_id) is not None:
        for name in catalogue.reopened:
            row = reopen(row, run_key(name, order_id), moment)
    for rule in catalogue.held_by.get(happening.kind, ()):
        row = hold(row, rule, happening, moment)
    for rule, enter in catalogue.entered_by.get(happening.kind, ()):
        entry = entry_of(row, enter, happening)
        if entry is None:
            continue
        for key, data in entry_keys(row, rule, enter, entry) if entry.counts or enter.each_line else ():
            row = let_in(row, rule, enter, key, data, entry, moment)
        row = let_in_later_looks(row, rule, enter, entry, moment)
    return row
