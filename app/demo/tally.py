"""Counts what the demo's worker did, from its own metrics, and picks the triggers to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from app.feed import Told
from schemas.events import ClockAdvanced

RULES: Final = ("replenishment", "coupon_unused", "winback")
"""All three must fire, or the demo has failed."""

_HELD: Final = ("dropped", "expired", "control")
"""Outcomes that are final without a message."""


class RuleCounts(NamedTuple):
    """What became of a rule's runs and candidates."""

    entered: int
    ended: int
    """By the customer, before anything was due."""
    fired: int
    held: int
    """Candidates that a gate dropped, or that went stale while they were held."""
    deferred: int
    """Times a candidate had to wait: for the morning, for what else came within the hour, for a cap to free."""


class Tally:
    """The worker's counters at one moment."""

    def __init__(self, exposition: str) -> None:
        self._values: Counter[tuple[str, ...]] = Counter()
        self.merged: float | None = None
        """The instant up to which every shard has applied its inputs, seconds since 1970."""
        merged: list[float] = []
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                name = sample.name.removeprefix("lifecycle_").removesuffix("_total")
                if name == "merged_time_seconds":
                    merged.append(sample.value)
                elif name == "rejects" or (name == "events" and sample.labels["type"] != ClockAdvanced.TYPE):
                    self._values[(name,)] += int(sample.value)
                elif name == "runs":
                    self._values[name, sample.labels["rule"], sample.labels["what"]] += int(sample.value)
                elif name == "decisions":
                    self._values[name, sample.labels["rule"], sample.labels["outcome"]] += int(sample.value)
                elif name == "gates":
                    self._values[name, sample.labels["gate"], sample.labels["outcome"]] += int(sample.value)
        if merged:
            self.merged = min(merged)

    @property
    def events(self) -> int:
        """Events applied, ClockAdvanced left aside."""
        return self._values[("events",)]

    @property
    def rejects(self) -> int:
        return self._values[("rejects",)]

    @property
    def rules(self) -> list[str]:
        """All rules that did anything, those that must fire first."""
        others = {key[1] for key in self._values if key[0] in ("runs", "decisions")} - set(RULES)
        return [*RULES, *sorted(others)]

    @property
    def gates(self) -> dict[str, Counter[str]]:
        """By gate: how often it held or dropped a candidate, by outcome."""
        found: dict[str, Counter[str]] = {}
        for key, number in sorted(self._values.items()):
            if key[0] == "gates":
                found.setdefault(key[1], Counter())[key[2]] += number
        return found

    def rule(self, rule: str) -> RuleCounts:
        values = self._values
        return RuleCounts(
            entered=values["runs", rule, "entered"],
            ended=values["runs", rule, "ended"],
            fired=values["decisions", rule, "fired"],
            held=sum(values["decisions", rule, outcome] for outcome in _HELD),
            deferred=values["decisions", rule, "deferred"],
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]


class Addressed(NamedTuple):
    """How many messages users got. Grants (a coupon, a gift) are no messages."""

    users: int
    messages: int
    most: int


def addressed(fired: Iterable[Told]) -> Addressed:
    """Messages by user, retractions left aside."""
    by_user = Counter(t.user_id for t in fired if not t.retracted and t.body.get("action") == "contact")
    return Addressed(len(by_user), by_user.total(), max(by_user.values(), default=0))


def samples(fired: Iterable[Told], count: int = 5) -> Sequence[Told]:
    """`count` triggers of different users, the rules taking turns; the same ones for the same triggers in any order."""
    by_rule: dict[str, list[Told]] = {rule: [] for rule in RULES}
    for told in sorted(fired, key=lambda told: told.id):
        if not told.retracted:
            by_rule.setdefault(told.rule, []).append(told)
    chosen: list[Told] = []
    users: set[str] = set()
    while len(chosen) < count and any(by_rule.values()):
        for waiting in by_rule.values():
            while waiting and len(chosen) < count:
                told = waiting.pop(0)
                if told.user_id not in users:
                    users.add(told.user_id)
                    chosen.append(told)
                    break
    return chosen
