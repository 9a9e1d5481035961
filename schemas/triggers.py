"""What leaves: triggers and their retractions, decisions, stage changes and outcomes, as immutable values.

Instants are already RFC 3339 text here, in the zone of the person they speak to; fields stand in the published order.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

Facts = dict[str, Any]
"""The state values that were read, by name: strings, numbers, booleans, null, or lists of those."""


def _one_of(*values: str) -> Meta:
    """Published in the schema; not enforced on construction, for what leaves is made by us."""
    return Meta(extra_json_schema={"enum": list(values)})


Action = Annotated[str, _one_of("contact", "grant")]
MessageClass = Annotated[str, _one_of("marketing", "transactional")]
Mode = Annotated[str, _one_of("live", "shadow")]
Arm = Annotated[str, _one_of("treated", "control")]
OutcomeName = Annotated[str, _one_of("fired", "deferred", "dropped", "expired", "control", "retracted")]
Gate = Annotated[str, _one_of("consent", "eligibility", "staleness", "quiet_hours", "cap", "arbitration", "holdout")]
When = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class Entry(Struct, frozen=True, kw_only=True):
    """What the run is about: the kind (user, order, cart, coupon, product, category...) and its key."""

    kind: str
    key: str


class Evidence(Struct, frozen=True, kw_only=True):
    """One event that led to the conclusion."""

    event_id: str
    type: str
    occurred_at: When


class Offer(Struct, frozen=True, kw_only=True):
    """The coupon batch that the message may promise or the coupon service is to issue."""

    batch: str
    kind: str
    value: str | None = None
    currency: str | None = None
    min_spend: str | None = None


class Item(Struct, frozen=True, kw_only=True):
    """A product the message is about."""

    product_id: str | None = None
    product_type: str | None = None
    title: str | None = None
    image_url: str | None = None
    quantity: int | None = None


class Trigger(Struct, frozen=True, kw_only=True):
    """Act now: contact the user, or grant something. To be sent within `not_before`..`expires_at`, or never.

    `trigger_id` is the same after any crash, replay or rebalance. `mode` shadow means: don't send.
    """

    trigger_id: str
    rule: str
    rule_version: int
    family: str
    step: int
    user_id: str
    action: Action
    class_: MessageClass = field(name="class")
    mode: Mode = "live"
    arm: Arm = "treated"
    entry: Entry
    run_id: str
    reason: str
    facts: Facts = {}
    evidence: tuple[Evidence, ...] = ()
    channel: str | None = None
    fallbacks: tuple[str, ...] = ()
    locale: str | None = None
    collapse_key: str | None = None
    offer: Offer | None = None
    coupons: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    recheck: tuple[str, ...] = ()
    priority: int
    due_at: When
    decided_at: When
    not_before: When
    expires_at: When


class Retraction(Struct, frozen=True, kw_only=True):
    """A later fact made the unexpired trigger `retracts` wrong: don't send it any more. It gives no cap back.

    `retraction_id` is a function of the trigger's id.
    """

    retraction_id: str
    retracts: str
    rule: str
    rule_version: int
    family: str
    step: int
    user_id: str
    mode: Mode = "live"
    entry: Entry
    run_id: str
    reason: str
    facts: Facts = {}
    evidence: tuple[Evidence, ...] = ()
    decided_at: When


class Decision(Struct, frozen=True, kw_only=True):
    """One transition of a candidate, a step that has come due. Each candidate has exactly one final record; a
    retraction may follow a fired one. `gate` is the one that held or dropped it, or null."""

    decision_id: str
    sequence: int
    final: bool
    rule: str
    rule_version: int
    user_id: str
    entry: Entry
    run_id: str
    step: int
    outcome: OutcomeName
    gate: Gate | None = None
    reason: str
    facts: Facts = {}
    evidence: tuple[Evidence, ...] = ()
    due_at: When
    decided_at: When
    trigger_id: str | None = None


class StageChange(Struct, frozen=True, kw_only=True):
    """A user moved between life stages (introduction, growth, maturity, decline, churned). `from` is null at first."""

    stage_change_id: str
    user_id: str
    from_: str | None = field(name="from", default=None)
    to: str
    reason: str
    facts: Facts = {}
    evidence: tuple[Evidence, ...] = ()
    decided_at: When


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of a candidate that was fired (`arm` treated) or held out (`control`) within its goal's window.

    `order_id`, `amount` and `currency` are those of the converting order, where the goal is one.
    """

    outcome_id: str
    trigger_id: str
    rule: str
    rule_version: int
    family: str
    step: int
    user_id: str
    entry: Entry
    run_id: str
    mode: Mode = "live"
    arm: Arm
    goal: str
    converted: bool
    order_id: str | None = None
    amount: str | None = None
    currency: str | None = None
    evidence: tuple[Evidence, ...] = ()
    window_from: When
    window_until: When
    decided_at: When
