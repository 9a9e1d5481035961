"""What a rule is, once read and checked: rows of data that the engine interprets. Nothing here runs a rule.

One primitive carries the catalogue: an entry (event, key, condition), steps, ends, a check at release, what to send.
A rule that it cannot express shows a gap in the primitive, never a reason for a special case in the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from app.core.policy import Policy
from app.core.scope import Scope

KeyKind = Literal["user", "order", "coupon", "pack", "cart", "product", "category", "product_type"]
Reentry = Literal["once", "every_key", "after_exit", "cooldown"]
Condition = Callable[[Scope], bool]
Timing = Callable[[Scope], int]


class Enter(NamedTuple):
    """A way into a rule."""

    on: str
    when: Condition | None
    each_line: bool
    at: Timing | None
    """The instant of entry; None = the event's own."""


class End(NamedTuple):
    """An event that ends a run, applied at the event's own time. Events of a thing (a coupon) end the runs of that
    thing whenever they happened; events of a user end the runs that were entered before them."""

    on: str
    when: Condition | None
    same_line: bool
    """Only when the event has a line of the run's own key (the same product type)."""


class Step(NamedTuple):
    """When to act. Exactly one of `after` (counts from the step before; the first from the entry) and `at`."""

    after: Timing | None
    at: Timing | None
    offer: str | None
    at_once: bool


class Send(NamedTuple):
    """What goes out."""

    action: Literal["contact", "grant"]
    kind: Literal["marketing", "transactional"]
    channels: tuple[str, ...]
    priority: int
    collapse: str | None
    expires_after: int
    """Microseconds after release; the candidate is stale as long after it was due."""


class Rule(NamedTuple):
    """A rule of the catalogue. Names as in the YAML (see `catalogue_file`)."""

    name: str
    version: int
    family: str
    about: str
    key: KeyKind
    enter: tuple[Enter, ...]
    ends: tuple[End, ...]
    end_at: tuple[Timing, ...]
    steps: tuple[Step, ...]
    holds: tuple[str, str] | None
    """(event that makes a run wait, event that lets it go on)."""
    retime_on: frozenset[str]
    """Events of the entry's order after which the pending step is timed anew."""
    check: Condition | None
    check_text: str
    send: Send
    reason: str
    facts: tuple[str, ...]
    reentry: Reentry
    cooldown: int
    mode: Literal["live", "shadow"]
    start: str | None
    """'none', 'state-only' or 'since:<microseconds>'; None = the shop's."""


class Catalogue(NamedTuple):
    """All rules, and who listens to which event."""

    rules: Mapping[str, Rule]
    policy: Policy
    entered_by: Mapping[str, tuple[tuple[Rule, Enter], ...]]
    ended_by: Mapping[str, tuple[tuple[Rule, End], ...]]
    held_by: Mapping[str, tuple[Rule, ...]]


def index(rules: Mapping[str, Rule], policy: Policy) -> Catalogue:
    """The catalogue with its indexes by event type; rules keep their order by name, so that outputs do too."""
    entered: dict[str, list[tuple[Rule, Enter]]] = {}
    ended: dict[str, list[tuple[Rule, End]]] = {}
    held: dict[str, list[Rule]] = {}
    for name in sorted(rules):
        rule = rules[name]
        for enter in rule.enter:
            entered.setdefault(enter.on, []).append((rule, enter))
        for end in rule.ends:
            ended.setdefault(end.on, []).append((rule, end))
        for kind in rule.holds or ():
            held.setdefault(kind, []).append(rule)
    return Catalogue(
        rules={name: rules[name] for name in sorted(rules)},
        policy=policy,
        entered_by={k: tuple(v) for k, v in entered.items()},
        ended_by={k: tuple(v) for k, v in ended.items()},
        held_by={k: tuple(v) for k, v in held.items()},
    )
