"""A user's timeline: what happened, what was considered, what went out, what was held back and why. Lines of text."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, get_args, get_type_hints

from msgspec import Struct, structs

from app.core.row import NEVER, Row, Run
from app.core.rules import Catalogue
from app.core.runs.things import held_until
from app.core.scope import Scope
from app.explain.language import flow, listed
from schemas.events import Event, IssuedCoupon, Line, LineQuantity
from schemas.instant import BadInstant, Instant, format_instant, parse_instant
from schemas.triggers import Decision, Offer, Outcome, Retraction, StageChange, Trigger
from schemas.triggers import Entry as About

_WORD_WIDTH = 10
_TIME_WIDTH = 19
#: Entries of one instant stand in this order.
HAPPENED, BEGAN, DECIDED, CAME = range(4)
_BASE = frozenset({"event_id", "user_id", "occurred_at", "currency"})
_OUTCOMES = {"deferred": "held", "fired": "sent", "control": "held out"}


class Entry(NamedTuple):
    """One line of a timeline."""

    at: int
    """Microseconds UTC."""
    order: int
    """Among entries of the same instant."""
    word: str
    """What kind of thing it is: happened, entered, held, sent, dropped..."""
    text: str


def in_time(entries: Iterable[Entry]) -> list[Entry]:
    """In the order of time; at one instant what happened stands before what came of it."""
    return sorted(entries, key=lambda entry: entry[:2])


def render(entries: Iterable[Entry], zone: tzinfo, width: int = 100) -> list[str]:
    """The entries as lines, wrapped; what cannot be printed becomes '?'."""
    lines: list[str] = []
    under = " " * (_TIME_WIDTH + _WORD_WIDTH + 4)
    for entry in entries:
        head = f"{local(entry.at, zone):<{_TIME_WIDTH}}  {entry.word:<{_WORD_WIDTH}}  "
        text = textwrap.wrap(printable(entry.text), max(40, width - len(under))) or [""]
        lines += [head + text[0], *(under + line for line in text[1:])]
    return lines


def printable(text: str) -> str:
    """Text of others, safe for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def local(at: int, zone: tzinfo) -> str:
    """'2026-03-01 08:15:30' on the zone's wall clock, under a heading that names the zone."""
    return "never" if at >= NEVER else format_instant(at, zone)[:_TIME_WIDTH].replace("T", " ")


def named(at: int, zone: tzinfo = UTC) -> str:
    """'2026-03-01 08:15:30 UTC': an instant that stands by itself."""
    return local(at, zone) if at >= NEVER else f"{local(at, zone)} {zone}"


def named_as(text: str) -> str:
    """The instant that a message has as text, in UTC; what is none stands as it is."""
    try:
        return named(parse_instant(text))
    except BadInstant:
        return printable(text)


# -- what happened


def happened(event: Event, zone: tzinfo, note: str = "") -> Entry:
    """An event in words, with a note on it."""
    text = f"{event.TYPE}{details(event, zone)}{f' ({note})' if note else ''}"
    return Entry(event.occurred_at, HAPPENED, "happened", text)


def details(event: Event, zone: tzinfo) -> str:
    """': order o-77, total 258.00 CNY, lines 2 x milk_powder': what an event says besides who and when."""
    said = []
    currency = getattr(event, "currency", None)
    for field in _fields(type(event)):
        value = getattr(event, field.name)
        if value in (None, (), field.default):
            continue
        if field.instant:
            said.append(f"{field.words} {local(value, zone)}")
        else:
            said.append(f"{field.words} {_value(value, getattr(event, 'kind', ''), currency)}".strip())
    return f": {', '.join(said)}" if said else ""


class _Field(NamedTuple):
    """A field of an event that says more than who and when."""

    name: str
    words: str
    default: object
    instant: bool
    """Whether its value is an instant; those are plain numbers."""


@lru_cache(maxsize=128)
def _fields(of: type[Event]) -> tuple[_Field, ...]:
    hints = get_type_hints(of)
    return tuple(
        _Field(
            field.name,
            field.name.removesuffix("_id").replace("_", " "),
            field.default,
            hints[field.name] is Instant or Instant in get_args(hints[field.name]),
        )
        for field in structs.fields(of)
        if field.name not in _BASE
    )


def _value(value: object, kind: str, currency: str | None) -> str:
    if isinstance(value, Decimal):
        return f"{value} {'%' if kind == 'percent' else currency or ''}".strip()
    if isinstance(value, tuple):
        return _items(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return flow(value)


def _items(items: Iterable[object]) -> str:
    """Lines are added up by what they are of: '2 x milk_powder + 1 x gift toys'."""
    sums: Counter[str] = Counter()
    others = []
    for item in items:
        if isinstance(item, Line):
            kind = "gift " if item.gift else "subscription " if item.subscription else ""
            sums[f"{kind}{item.runs_out or item.product_id}"] += item.quantity
        elif isinstance(item, LineQuantity):
            sums[item.product_id] += item.quantity
        elif isinstance(item, IssuedCoupon):
            others.append(item.coupon_id)
        elif isinstance(item, Struct):
            others.append(flow({name: v for name, v in structs.asdict(item).items() if v is not None}))
        else:
            others.append(str(item))
    return " + ".join([*(f"{count} x {name}" for name, count in sums.items()), *others])


def rejected(at: int, code: str, reason: str, field: str) -> Entry:
    """A message of the user that could not be used."""
    return Entry(at, HAPPENED, "rejected", f"{code}{f' ({field})' if field else ''}: {reason}")


# -- what came of it


def candidate(rule: str, step: int, about: About) -> str:
    """'coupon_unused, step 1 (coupon c-4)'."""
    return f"{rule}, step {step}{thing(about.kind, about.key)}"


def thing(kind: str, key: str) -> str:
    """' (coupon c-4)'; the user's own runs need no key."""
    return "" if kind == "user" or not key else f" ({kind.replace('_', ' ')} {key})"


def decided(
    decisions: Iterable[Decision], triggers: Iterable[Trigger], retractions: Iterable[Retraction], zone: tzinfo
) -> list[Entry]:
    """The decisions in words, each `fired` one with its trigger. A trigger or a retraction whose record is no longer
    kept stands for itself."""
    by_id = {trigger.trigger_id: trigger for trigger in triggers}
    taken_back = {retraction.retracts: retraction for retraction in retractions}
    entries = []
    for decision in decisions:
        trigger = by_id.pop(decision.trigger_id or "", None) if decision.outcome == "fired" else None
        if decision.outcome == "retracted":
            taken_back.pop(decision.trigger_id or "", None)
        entries.append(_sent(trigger, zone) if trigger else _decision(decision))
    entries += [_sent(trigger, zone) for trigger in by_id.values()]
    for one in taken_back.values():
        what = f"{candidate(one.rule, one.step, one.entry)}: {one.reason}"
        entries.append(Entry(parse_instant(one.decided_at), DECIDED, "retracted", what))
    return entries


def _decision(decision: Decision) -> Entry:
    word = _OUTCOMES.get(decision.outcome, decision.outcome)
    gate = f", by {decision.gate.replace('_', ' ')}" if decision.gate else ""
    text = f"{candidate(decision.rule, decision.step, decision.entry)}{gate}: {decision.reason}"
    return Entry(parse_instant(decision.decided_at), DECIDED, word, text)


def _sent(trigger: Trigger, zone: tzinfo) -> Entry:
    ways = f" by {trigger.channel}" if trigger.channel else ""
    if trigger.fallbacks:
        ways += f", else {listed(trigger.fallbacks)}"
    offer = f" Offer: {_offer(trigger.offer)}." if trigger.offer else ""
    coupons = f" With the coupon {listed(trigger.coupons, 'and')}." if trigger.coupons else ""
    window = (
        f" To be sent {local(parse_instant(trigger.not_before), zone)} to "
        f"{local(parse_instant(trigger.expires_at), zone)}, or never."
    )
    word = "shadow" if trigger.mode == "shadow" else "granted" if trigger.action == "grant" else "sent"
    what = f"{candidate(trigger.rule, trigger.step, trigger.entry)}{ways}: {trigger.reason}{offer}{coupons}{window}"
    return Entry(parse_instant(trigger.decided_at), DECIDED, word, what)


def _offer(offer: Offer) -> str:
    value = f" ({offer.value} {offer.currency or offer.kind})" if offer.value else ""
    return f"{offer.batch}{value}"


def moved(change: StageChange) -> Entry:
    """A move between life stages."""
    before = f"from {change.from_} " if change.from_ else ""
    return Entry(parse_instant(change.decided_at), CAME, "stage", f"{before}to {change.to}: {change.reason}")


def came_of_it(outcome: Outcome) -> Entry:
    """Whether a message (or its absence) was followed by what it was meant for."""
    arm = "after it was sent" if outcome.arm == "treated" else "without it, in the control group"
    result = f"{outcome.goal} was reached" if outcome.converted else f"{outcome.goal} was not reached"
    worth = f" ({outcome.amount} {outcome.currency or ''}".rstrip() + ")" if outcome.amount else ""
    text = f"{candidate(outcome.rule, outcome.step, outcome.entry)}: {result}{worth} {arm}."
    return Entry(parse_instant(outcome.decided_at), CAME, "outcome", text)


# -- what is still to come


def alive(row: Row, catalogue: Catalogue | None) -> list[Run]:
    """The runs of a row that still have a step to come, the earliest first. Without a catalogue, those that have a
    timer: the ends that are instants are known to none else."""
    found = [run for runs in row.runs.values() for run in runs if not run.ends and run.due_at < NEVER]
    waiting = [run for run in found if run.timer_at < NEVER or run.held]
    if catalogue is not None:
        waiting = [run for run in waiting if not _over_when_due(row, run, catalogue)]
    return sorted(waiting, key=lambda run: run.timer_at)


def _over_when_due(row: Row, run: Run, catalogue: Catalogue) -> bool:
    """Whether an end that is an instant comes before the step. Nothing happens at such an end: the engine asks when the
    step is due, and until then the run stands there. What was held by a gate gets a last record, and so is to come."""
    rule = catalogue.rule_of(run)
    if rule is None or run.sequence:
        return False
    free_at = held_until(row, run) if run.held else NEVER
    due_at = max(run.due_at, free_at) if free_at < NEVER else run.due_at
    scope = Scope(row, run, catalogue.policy, due_at)
    return any(end_at(scope) <= due_at for end_at in rule.end_at)


def to_come(runs: Sequence[Run], zone: tzinfo) -> list[str]:
    """A line for each run with a step to come."""
    lines = []
    for run in runs:
        what = f"{run.rule}, step {run.step + 1}{thing(run.kind, run.key)}"
        if run.held and run.timer_at == NEVER:
            lines.append(f"{what}: waits, for what it is about cannot be used now")
        elif run.held:
            lines.append(f"{what}: what it is about was held; will be looked at {local(run.timer_at, zone)}")
        elif run.timer_at != run.due_at:
            lines.append(f"{what}: was due {local(run.due_at, zone)}, will be asked again {local(run.timer_at, zone)}")
        else:
            lines.append(f"{what}: due {local(run.due_at, zone)}")
    return lines
