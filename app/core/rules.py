"""What a rule is, once read and checked: rows of data that the engine interprets. Nothing here runs a rule.

One primitive carries the catalogue: an entry (event, key, condition), steps, ends, a check at release, what to send.
A rule that it cannot express shows a gap in the primitive, never a reason for a special case in the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple
from zlib import crc32

from app.core.policy import Policy
from app.core.row import Run
from app.core.scope import Scope

KeyKind = Literal["user", "order", "coupon", "pack", "cart", "category", "product_type"]
Reentry = Literal["once", "every_key", "every_purchase", "after_exit", "cooldown"]
Condition = Callable[[Scope], bool]
Timing = Callable[[Scope], int]


class Enter(NamedTuple):
    """A way into a rule."""

    on: str
    when: Condition | None
    each_line: bool
    at: Timing | None
    """The instant of entry; None = the event's own."""
    of_first_order: bool
    """The event only says who the user is: the entry is the first order, which was heard of before."""


class End(NamedTuple):
    """An event that ends a run, applied at the event's own time. Events of a thing (a coupon) end the runs of that
    thing whenever they happened; events of a user end the runs that were entered before them."""

    on: str
    when: Condition | None
    same_line: bool
    """Only when the event has a line of the run's own key (the same product type or category)."""
    any_key: bool
    """All runs of the rule, whatever their key."""
    whenever: bool
    """The event tells of what was before the entry: it ends the run from there on, whenever it happened itself."""


class Step(NamedTuple):
    """When to act. Exactly one of `after` (counts from the step before; the first from the entry) and `at`."""

    after: Timing | None
    at: Timing | None
    offer: str | None
    at_once: bool
    kind: Literal["marketing", "transactional"] | None
    """Where it differs from the rule's."""


class Rate(NamedTuple):
    """At most `most` in any `window`, microseconds, of all workers together."""

    most: int
    window: int


class Send(NamedTuple):
    """What goes out."""

    action: Literal["contact", "grant"]
    kind: Literal["marketing", "transactional"]
    channels: tuple[str, ...]
    priority: int
    collapse: str | None
    expires_after: int
    """Microseconds after release; the candidate is stale as long after it was due."""
    once_in: int
    """At most one run of this rule writes to a user in so long, microseconds; 0 = no such bound."""
    on_cap: Literal["defer", "drop"]
    """When all channels' caps are full."""
    discount_every: int
    """At most one run gives a discount in so long, microseconds; the message goes out without it. 0 = no bound."""
    coupon_instead: bool
    """A usable coupon that the user holds is named in place of the offer."""
    max_rate: Rate | None = None


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
    recheck: tuple[str, ...]
    """What the sender should ask again (stock, price)."""
    reentry: Reentry
    cooldown: int
    mode: Literal["live", "shadow"]
    start: str | None
    """'none', 'state-only' or 'since:<microseconds>'; None = the shop's."""
    holdout: float
    """Share of users held out of this rule, besides the shop's."""
    yearly: bool
    """After its last step a run begins anew, a year on."""
    on_change: Literal["finish", "follow", "restart", "exit"]
    """What this version does with runs that entered under another one."""
    paused: Literal["hold", "skip", "expire"] | None
    """While paused, what comes due waits until it is stale, is dropped, or counts as stale at once."""
    goal: tuple[str, int] | None
    """(event, microseconds): what counts as a conversion, pinned at entry and apart from the run's progress."""


class Catalogue(NamedTuple):
    """All rules, and who listens to which event."""

    rules: Mapping[str, Rule]
    policy: Policy
    entered_by: Mapping[str, tuple[tuple[Rule, Enter], ...]]
    ended_by: Mapping[str, tuple[tuple[Rule, End], ...]]
    held_by: Mapping[str, tuple[Rule, ...]]
    retimed_by: Mapping[str, tuple[Rule, ...]]
    reopened: tuple[str, ...]
    """Names of rules about an order that another order ends only while this one is in some state."""
    earlier: Mapping[tuple[str, int], Rule] = {}
    """Versions of rules under which runs may still be finished."""
    fingerprint: int = 0
    """Of its rules' names, versions and numbers of steps: a row adapted to another one is adapted when touched."""

    def rule_of(self, run: Run) -> Rule | None:
        """The rule under which a run goes on: the version it entered under, or the present one, as the present one
        says. None = the run exits."""
        rule = self.rules.get(run.rule)
        if rule is None or rule.version == run.version:
            return rule
        if rule.on_change == "finish":
            return self.earlier.get((run.rule, run.version), rule)
        return None if rule.on_change == "exit" else rule

    def waits(self, name: str) -> bool:
        """Whether what comes due of this rule waits, because the rule is paused, or all are."""
        way = self.rules[name].paused
        return way == "hold" or (way is None and self.policy.paused)

    def unsettled_by(self, after: Catalogue) -> tuple[str, ...]:
        """The rules whose runs must not wait until they are touched when `after` takes over: they exit or go on under
        another version, whatever comes later, or their timers move, as those of what waited for the end of a pause do.
        Names in order."""
        gone = {name for name, _ in self.earlier}.union(self.rules).difference(after.rules)
        moved = {
            name
            for name, rule in after.rules.items()
            if rule.on_change != "finish" and name in self.rules and self.rules[name].version != rule.version
        }
        woken = {name for name in self.rules if name in after.rules and self.waits(name) and not after.waits(name)}
        return tuple(sorted(gone | moved | woken))


def index(
    rules: Mapping[str, Rule],
    policy: Policy,
    earlier: Mapping[tuple[str, int], Rule] | None = None,
) -> Catalogue:
    """The catalogue with its indexes by event type; rules keep their order by name, so that outputs do too."""
    present = {name: rules[name] for name in sorted(rules)}
    kept = {
        key: rule._replace(paused=present[key[0]].paused)  # a pause is of the rule, whatever version a run is under
        for key, rule in sorted((earlier or {}).items())
        if key[0] in present and present[key[0]].version != key[1] and present[key[0]].on_change == "finish"
    }
    entered: dict[str, list[tuple[Rule, Enter]]] = {}
    ended: dict[str, list[tuple[Rule, End]]] = {}
    held: dict[str, list[Rule]] = {}
    retimed: dict[str, list[Rule]] = {}
    for rule in present.values():
        for enter in rule.enter:
            entered.setdefault(enter.on, []).append((rule, enter))
    for rule in (*present.values(), *kept.values()):
        for end in rule.ends:
            ended.setdefault(end.on, []).append((rule, end))
        # A pack may wait, or be due at another instant, because one of it is revoked and others are left.
        for kind in dict.fromkeys((*(rule.holds or ()), *(("CouponRevoked",) if rule.key == "pack" else ()))):
            held.setdefault(kind, []).append(rule)
        for kind in rule.retime_on:
            retimed.setdefault(kind, []).append(rule)
    return Catalogue(
        rules=present,
        policy=policy,
        entered_by={k: tuple(v) for k, v in entered.items()},
        ended_by={k: tuple(v) for k, v in ended.items()},
        held_by={k: tuple(v) for k, v in held.items()},
        retimed_by={k: tuple(v) for k, v in retimed.items()},
        reopened=tuple(
            dict.fromkeys(
                rule.name
                for rule in (*present.values(), *kept.values())
                if rule.key == "order" and any(end.any_key and end.when is not None for end in rule.ends)
            )
        ),
        earlier=kept,
        fingerprint=crc32(
            " ".join(f"{rule.name}:{rule.version}:{len(rule.steps)}" for rule in present.values()).encode()
        ),
    )
