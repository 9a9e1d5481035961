"""However much one user does, an event of theirs costs no more than so much: of too many runs of one rule that are
alive, those entered first exit. A candidate that waits in one gets its final record.
"""

from __future__ import annotations

from collections.abc import Set

from msgspec.structs import replace

from app.core import release
from app.core.moment import Moment
from app.core.row import MAX_ALIVE, Row
from app.core.runs.keeping import rests

#: How many of a rule's are left when they were too many: the next ones find room.
_LEFT = MAX_ALIVE * 3 // 4


def thinned(row: Row, moment: Moment) -> Row:
    """The row with no rule's runs being too many."""
    alive: dict[str, list[tuple[int, str]]] = {}
    for name, some in row.runs.items():
        if not all(map(rests, some)):
            alive.setdefault(some[-1].rule, []).append((some[-1].entered_at, name))
    gone = {name for keys in alive.values() if len(keys) > MAX_ALIVE for _, name in sorted(keys)[:-_LEFT]}
    return exited(row, gone, f"let go, as more than {MAX_ALIVE} of its rule were waiting", moment)


def exited(row: Row, names: Set[str], why: str, moment: Moment) -> Row:
    """The row without these runs; what waited in one gets its final record."""
    if not names:
        return row
    left = dict(row.runs)
    for name in sorted(names):
        for run in row.runs[name]:
            rule = moment.catalogue.rule_of(run)
            if run.sequence and not run.ends and rule is not None:
                release.drop(row, rule, run, why, moment)
            if not rests(run):
                moment.tally("runs", "exited", run.rule)
        del left[name]
    return replace(row, runs=left)
