"""Re-entry: how often a user begins a rule: once, once with each key (or purchase), after the last run's exit, or after
a cooldown.

Nobody is in two runs of one key. Of two entries that compete for one, the earlier has it, even when it is heard of
late, as long as the later one has led to nothing.
"""

from __future__ import annotations

from app.core.happenings import Happening
from app.core.row import NAMELESS_CHECKOUT, Row, Run, run_key
from app.core.rules import Catalogue, Reentry, Rule

#: A key enters once. Of `every_purchase` the key is the purchase, whichever of its parts is paid (`runs.things`).
EVERY = ("every_key", "every_purchase")


def allows(row: Row, rule: Rule, name: str) -> bool:
    """Whether another run may begin at all under this name, whatever it is about to be."""
    if rule.reentry == "once":
        return rule.name not in row.entries
    return policy_of(rule, name) not in EVERY or (name not in row.runs and name not in row.entries)


def policy_of(rule: Rule, name: str) -> Reentry:
    """The rule's own; what has no name of its own enters again after its exit."""
    nameless = rule.reentry in EVERY and name.endswith("\x1f" + NAMELESS_CHECKOUT)
    return "after_exit" if nameless else rule.reentry


def comes_before(row: Row, name: str, happening: Happening) -> bool:
    """Whether the run that has this name was entered later, and has led to nothing yet."""
    return any(
        not run.ends and not run.step and not run.sequence and _is_later(run, happening.at, happening.event_id)
        for run in row.runs.get(name, ())
    )


def makes_room(
    row: Row, rule: Rule, draft: Run, before: tuple[Run, ...], catalogue: Catalogue
) -> tuple[Run, ...] | None:
    """The runs of this key that stay beside the new one; None when re-entry forbids it."""
    last = row.entries.get(rule.name)
    if rule.reentry == "cooldown" and last is not None and abs(draft.entered_at - last) < rule.cooldown:
        return None
    if draft.ends and policy_of(rule, run_key(rule.name, draft.key)) in ("after_exit", "cooldown"):
        return before
    alive = [
        run
        for run in before
        if not run.ends and run.step < len((catalogue.rule_of(run) or rule).steps)  # of its own version
    ]
    if not alive:
        return before
    if any(run.step or run.sequence or not _is_later(run, draft.entered_at, draft.event_id) for run in alive):
        return None
    return tuple(run for run in before if run not in alive)


def _is_later(run: Run, at: int, event_id: str) -> bool:
    """Whether a run was entered later than this; of two at one instant the event id decides, so that the order of
    arrival does not."""
    return (run.entered_at, run.event_id) > (at, event_id)
