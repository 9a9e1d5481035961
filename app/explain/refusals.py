"""Why an event was no entry, though the rule is entered by its kind: each gate of an entry is asked once more, of each
thing that might have entered and did not.

Nothing is decided here: the event's facts, keys and conditions are the engine's own, and re-entry has refused only what
it would refuse in the row from before or after, when it was counted to have refused some. Nothing is before the start
of a rule that is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from msgspec.structs import replace

from app.core import facts
from app.core.guardrails import reentry
from app.core.happenings import Happening
from app.core.ids import run_id
from app.core.row import Row, Run, run_key
from app.core.rules import Catalogue, Enter, Rule
from app.core.runs.entries import entry_of
from app.core.runs.things import entry_keys
from app.core.scope import AFTERMATH, Scope, taken_back
from app.explain.language import listed, spoken
from schemas.events import Event

_AGAIN = {
    "once": "a user enters only once",
    "every_key": "no {} enters twice",
    "every_purchase": "a purchase enters only once, whichever of its parts is paid",
    "after_exit": "a run is there that is not over",
    "cooldown": "the last entry was not long enough ago, or its run is not over",
}


class Turn(NamedTuple):
    """What the engine made of an event, as far as it can be seen."""

    before: Row | None
    row: Row
    """The user's, before and after it."""
    fresh: AbstractSet[str]
    """Where a run is that was not there before, as `run_key` says."""
    asked: AbstractSet[str]
    """The runs, by id, of which a step was decided on: what enters and is over at once leaves no other trace."""
    began: int
    """How many runs were counted to have begun; with some of them nothing is left to see."""
    refused: bool
    """Whether re-entry was counted to have refused any."""

    def has_let_in(self, draft: Run) -> bool:
        its_own = run_id(draft.rule, self.row.user_id, draft.kind, draft.key, draft.event_id, draft.ordinal)
        return run_key(draft.rule, draft.key) in self.fresh or its_own in self.asked


class _Asked(NamedTuple):
    """An entry that might have been: by one of a rule's ways in, of one thing."""

    rule: Rule
    enter: Enter
    entry: Happening
    draft: Run


def of(event: Event, turn: Turn, catalogue: Catalogue) -> list[str]:
    """A sentence for each reason why this event was no entry, of those things that did not enter by it."""
    said = facts.apply(turn.before or Row(event.user_id), event, 0)
    happenings = () if isinstance(said, facts.Refused) else said.happenings
    ways = [(rule, enter, h) for h in happenings for rule, enter in catalogue.entered_by.get(h.kind, ())]
    if not ways:
        return ["it says nothing that was not known"] if event.TYPE in catalogue.entered_by and not turn.began else []
    asked = [one for way in ways for one in _asked(turn.row, *way)]
    entered = {run_key(one.rule.name, one.draft.key) for one in asked if turn.has_let_in(one.draft)}
    found: dict[str, list[Run]] = {}
    for one in asked:
        if run_key(one.rule.name, one.draft.key) not in entered:
            why = "; and ".join(_objections(one, turn, catalogue))
            if why or turn.began <= len(entered):  # else it did enter, and is over
                found.setdefault(why or "it may not enter", []).append(one.draft)
    several = len({one.draft.key for one in asked}) > 1
    without = () if turn.began else dict.fromkeys(why for way in ways if (why := _without_a_thing(turn.row, *way)))
    return [*without, *(_said_of(drafts, why) if several else why for why, drafts in found.items())]


def _said_of(drafts: list[Run], why: str) -> str:
    return f"{spoken(drafts[0].kind)} {listed(dict.fromkeys(draft.key for draft in drafts), 'and')}: {why}"


def _without_a_thing(row: Row, rule: Rule, enter: Enter, happening: Happening) -> str:
    """Why there is nothing that might enter; '' where there is."""
    entry = entry_of(row, enter, happening)
    if entry is None:
        return "there is no order yet that it could be entered by (as_of: first_order)"
    if _is_gone(row, rule, entry):
        return "its order had been taken back before"
    if not list(entry_keys(row, rule, enter, entry)):
        return "it has no line of its own" if enter.each_line else f"it names no {spoken(rule.key)}"
    return ""


def _is_gone(row: Row, rule: Rule, entry: Happening) -> bool:
    order = row.orders.get(entry.order_id or "")
    return rule.key != "product_type" and order is not None and entry.source not in AFTERMATH and taken_back(order)


def _asked(row: Row, rule: Rule, enter: Enter, happening: Happening) -> Iterator[_Asked]:
    entry = entry_of(row, enter, happening)
    if entry is None or _is_gone(row, rule, entry):
        return
    for key, data in entry_keys(row, rule, enter, entry):
        draft = Run(rule.name, rule.version, rule.key, key, entry.event_id, entry.at, entry.order_id, data=data)
        yield _Asked(rule, enter, entry, draft)


def _objections(one: _Asked, turn: Turn, catalogue: Catalogue) -> Iterator[str]:
    rule, enter, entry, draft = one
    scope = Scope(turn.row, draft, catalogue.policy, draft.entered_at)
    if enter.at is not None:
        at = enter.at(scope)
        if at < 0:
            yield "what its entry is counted from is not known (at)"
            return
        scope = replace(scope, run=replace(draft, entered_at=at))
    holds, joins = enter.when is None or enter.when(scope), False
    if not holds:
        yield "its condition does not hold (when)"
    elif rule.key == "pack" and run_key(rule.name, draft.key) in turn.row.runs:
        joins = True
        yield "its coupon joins the run of its pack"
    policy = reentry.policy_of(rule, run_key(rule.name, draft.key))
    first_asked = policy in ("once", *reentry.EVERY) and rule.key != "pack"
    if turn.refused and not joins and (holds or first_asked) and _refuses(rule, policy, draft, entry, turn):
        yield f"re-entry refuses it: {_AGAIN[policy].format(spoken(rule.key))} (reentry: {rule.reentry})"


def _refuses(rule: Rule, policy: str, draft: Run, entry: Happening, turn: Turn) -> bool:
    """Whether re-entry keeps this thing out, by what was before or by what entered beside it."""
    name = run_key(rule.name, draft.key)
    rows = (turn.before or Row(turn.row.user_id), turn.row)
    if policy in ("after_exit", "cooldown"):
        return any(name in row.runs or (policy == "cooldown" and rule.name in row.entries) for row in rows)
    return any(not reentry.allows(row, rule, name) and not reentry.comes_before(row, name, entry) for row in rows)
