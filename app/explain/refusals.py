"""Why an event was no entry, though the rule is entered by its kind: each gate of an entry is asked once more.

Nothing is decided here: the event's facts, keys and conditions are the engine's own, and what re-entry refused was
counted when it did. Nothing is before the start of a rule that is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from app.core import facts
from app.core.happenings import Happening
from app.core.row import Row, Run, run_key
from app.core.rules import Catalogue, Enter, Rule
from app.core.runs.entries import entry_of
from app.core.runs.things import entry_keys
from app.core.scope import AFTERMATH, Scope, taken_back
from app.explain.language import spoken
from schemas.events import Event

_AGAIN = {
    "once": "a user enters only once",
    "every_key": "no {} enters twice",
    "every_purchase": "a purchase enters only once, whichever of its parts is paid",
    "after_exit": "a run is there that is not over",
    "cooldown": "the last entry was not long enough ago, or its run is not over",
}


def of(before: Row | None, row: Row, event: Event, catalogue: Catalogue, *, again: bool) -> list[str]:
    """A sentence for each entry that this event was not: the user's row was `before` and is `row` now. `again`:
    re-entry has refused one."""
    said = facts.apply(before or Row(event.user_id), event, 0)
    happenings = () if isinstance(said, facts.Refused) else said.happenings
    asked = [(h, way) for h in happenings for way in catalogue.entered_by.get(h.kind, ())]
    if not asked:
        return ["it says nothing that was not known"] if event.TYPE in catalogue.entered_by else []
    found = [why for h, (rule, enter) in asked for why in _entry(row, rule, enter, h, catalogue, again)]
    return list(dict.fromkeys(found))


def _entry(
    row: Row, rule: Rule, enter: Enter, happening: Happening, catalogue: Catalogue, again: bool
) -> Iterator[str]:
    entry = entry_of(row, enter, happening)
    if entry is None:
        yield "there is no order yet that it could be entered by (as_of: first_order)"
        return
    order = row.orders.get(entry.order_id or "")
    gone = order is not None and entry.source not in AFTERMATH and taken_back(order)
    if gone and rule.key != "product_type":
        yield "its order had been taken back before"
        return
    keys = list(entry_keys(row, rule, enter, entry))
    for key, data in keys:
        yield "; and ".join(_objections(row, rule, enter, _draft(rule, key, data, entry), catalogue, again))
    if not keys:
        yield "it has no line of its own" if enter.each_line else f"it names no {spoken(rule.key)}"


def _draft(rule: Rule, key: str, data: dict[str, Any], entry: Happening) -> Run:
    return Run(rule.name, rule.version, rule.key, key, entry.event_id, entry.at, entry.order_id, data=data)


def _objections(row: Row, rule: Rule, enter: Enter, draft: Run, catalogue: Catalogue, again: bool) -> list[str]:
    scope = Scope(row, draft, catalogue.policy, draft.entered_at)
    if enter.at is not None:
        at = enter.at(scope)
        if at < 0:
            return ["what its entry is counted from is not known (at)"]
        scope = replace(scope, run=replace(draft, entered_at=at))
    said = []
    if enter.when is not None and not enter.when(scope):
        said.append("its condition does not hold (when)")
    elif rule.key == "pack" and run_key(rule.name, draft.key) in row.runs:
        said.append("its coupon joins the run of its pack")
    if again:
        said.append(f"re-entry refuses it: {_AGAIN[rule.reentry].format(spoken(rule.key))} (reentry: {rule.reentry})")
    return said or ["it may not enter"]
