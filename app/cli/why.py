"""`lifecycle why USER`: everything that is known of a user, as a timeline in words."""

from __future__ import annotations

import asyncio
import logging
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, tzinfo
from typing import Any, Final, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import click
import msgspec
from aiokafka import TopicPartition
from rich.console import Console

from app.accounts import Merged, merged_key, merged_of
from app.cli import letters, named, reading
from app.cli.terminal import width
from app.core.guardrails import start
from app.core.row import NewerRow, Row, Run, decode
from app.core.rules import Catalogue
from app.explain import rule as words
from app.explain import timeline
from app.explain.erasure import Erasure, Heard, erasure
from app.explain.erasure import said as erased
from app.explain.language import counted, listed
from app.explain.missed import missed
from app.explain.things import Data
from app.explain.timeline import Entry
from app.processor import META_KEY, TRANSFERS, active_since, partition_of, reached
from app.publications import topic as publishing
from app.settings import Settings, SettingsError, load_settings, start_policy
from app.topics import CHANGELOG, RULES, TopicProblem, changelog, specs
from schemas import codec
from schemas.codec import DecodeOptions
from schemas.envelope import TRIGGER_RETRACTED
from schemas.events import Event, ProfileUpdated
from schemas.instant import BadInstant, parse_instant
from schemas.rejects import RejectedMessage
from schemas.triggers import Decision, Outcome, Retraction, StageChange, Trigger

_RETRACTED: Final = ("ce_type", TRIGGER_RETRACTED.encode())

T = TypeVar("T")


@click.command()
@click.argument("user")
@click.option("--rule", help="Only what concerns this rule, beside what happened.")
@click.option("--since", metavar="TIME", help="Only from this instant on; reads less, so it is quicker.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N entries.")
@click.pass_context
def command(context: click.Context, user: str, rule: str | None, since: str | None, last: int | None) -> None:
    """Tell USER's timeline: what happened, what was considered, what went out, what was held back and why.

    Reads what Kafka still keeps of the user's partition: events as long as upstream keeps them, decisions for a month,
    triggers for a week. A run that ended before its step was due left no decision: what ended it stands among what
    happened. Exit code 1 when nothing is known of the user, 2 when --rule names none.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what goes wrong is said in a sentence
    try:
        settings = load_settings()
        begin = parse_instant(since, settings.assume_zone) if since else None
        known, rules = asyncio.run(_look(settings, user, begin))
    except BadInstant as problem:
        raise click.BadParameter(str(problem), param_hint="--since") from problem
    except (SettingsError, TopicProblem, publishing.PublishingProblem, reading.ReadProblem) as problem:
        raise click.ClickException(str(problem)) from problem
    zone = zone_of(known, rules.catalogue)
    if rule is not None:
        named.require(rules, rule, heard_of=_is_known_of(rule, known))
    if known.nothing:
        click.echo(_nothing(user, settings, since), err=True)
        context.exit(1)
    for line in told(user, known, rule, zone, rules.catalogue, begin, last):
        click.echo(line)
    skipped = passed_over(known, rule, zone, settings, rules.catalogue) if begin is None else []
    for line in skipped:
        click.echo(line)
    data = rules.data.get(rule or "")
    if rule and data and begin is None and not skipped and not _is_known_of(rule, known):
        for line in not_entered(rule, data, width()):
            click.echo(line)


async def _look(settings: Settings, user: str, since: int | None) -> tuple[Known, named.Rules]:
    """The user, and the rules in effect."""
    return await read(settings, user, since), await named.published(settings)


def _nothing(user: str, settings: Settings, since: str | None) -> str:
    partition = partition_of(user.encode(), settings.partitions, settings.partitioner)
    when = f" since {since}" if since else ""
    return (
        f"Nothing is known of {timeline.printable(user)}{when}: no event, no decision, no trigger and no state in "
        f"partition {partition} of {settings.kafka_bootstrap}. Check the spelling; ids are compared exactly."
    )


class Known(NamedTuple):
    """What was found of a user."""

    events: list[Event]
    unusable: list[tuple[int, str, str, str]]
    """Of dead letters: (when in microseconds, code, reason, field)."""
    decisions: list[Decision]
    triggers: list[Trigger]
    retractions: list[Retraction]
    stages: list[StageChange]
    outcomes: list[Outcome]
    row: Row | None
    row_problem: str
    active_since: Mapping[str, int]
    """By rule: when it was switched on in the user's shard."""
    merged: Merged | None = None
    """What the account is part of."""
    reached: int = 0
    """The instant that the user's shard has come to."""
    erasure: Erasure = Erasure()
    unread: Mapping[str, int] = {}
    """By reason: how many messages cannot be read here, without a dead letter that says that the workers could not."""

    @property
    def nothing(self) -> bool:
        """Whether there is nothing at all."""
        return not (any(self[: self._fields.index("active_since")]) or self.merged or self.unread)


# -- reading


async def read(settings: Settings, user: str, since: int | None = None) -> Known:
    """Reads the user's partition of every topic of this deployment up to its end. Raises TopicProblem, ReadProblem."""
    partition = partition_of(user.encode(), settings.partitions, settings.partitioner)
    topics = {spec.name: spec.logical for spec in specs(settings) if spec.kind != RULES}
    places = [
        TopicPartition(name, partition) for name, logical in topics.items() if logical not in (CHANGELOG, TRANSFERS)
    ]
    state = TopicPartition(changelog(settings), partition)
    found: dict[str, list[Any]] = {}
    row: bytes | None = None
    meta: bytes | None = None
    marker: bytes | None = None
    async with reading.reader(settings) as consumer:
        where = await reading.bounds(consumer, places, since) | await reading.bounds(consumer, [state])
        with Console(stderr=True).status("reading") as status:

            def show(done: int, of: int) -> None:
                status.update(f"read {done:,} of about {of:,} records of partition {partition}")

            async for tp, portion in reading.records(consumer, where, show):
                own = [record for record in portion if record.key == user.encode()]
                if tp == state:
                    row = own[-1].value if own else row
                    marker = next((r.value for r in reversed(portion) if r.key == merged_key(user)), marker)
                    meta = next((record.value for record in reversed(portion) if record.key == META_KEY), meta)
                elif own:
                    found.setdefault(topics[tp.topic], []).extend(own)
    merged = merged_of(marker) if marker else None
    known = _known(settings, found, row, active_since(meta) if meta else {})
    return known._replace(merged=merged, reached=reached(meta) if meta else 0)


def _known(settings: Settings, found: dict[str, list[Any]], state: bytes | None, active: Mapping[str, int]) -> Known:
    triggers = [record for name, records in found.items() if name.startswith("triggers.") for record in records]
    row, problem = None, ""
    try:
        row = decode(state) if state else None
    except (NewerRow, msgspec.DecodeError) as error:
        problem = str(error)
    heard, unread = _events(settings, found)
    return Known(
        events=[event for event, _ in heard],
        unusable=[_letter(record) for record in found.get("dead-letters", ())],
        decisions=_messages(found.get("decisions", ()), Decision),
        triggers=_messages((r for r in triggers if _RETRACTED not in r.headers), Trigger),
        retractions=_messages((r for r in triggers if _RETRACTED in r.headers), Retraction),
        stages=_messages(found.get("lifecycle.stages", ()), StageChange),
        outcomes=_messages(found.get("outcomes", ()), Outcome),
        row=row,
        row_problem=problem,
        active_since=active,
        erasure=erasure(heard, by_time=settings.clock == "events"),
        unread=unread,
    )


def _events(settings: Settings, found: dict[str, list[Any]]) -> tuple[list[Heard], Counter[str]]:
    """The usable ones, and why others are not. What the worker could not use either stands among the dead letters."""
    options = DecodeOptions(
        clock_skew=settings.clock_skew, assume_zone=settings.assume_zone, unknown_types=settings.unknown_types
    )
    refused = {_place(record) for record in found.get("dead-letters", ())}
    heard: list[Heard] = []
    unread: Counter[str] = Counter()
    for name in settings.inputs:
        for record in found.get(name, ()):
            message = codec.decode(name, record.key, record.value, record.timestamp, options)
            if isinstance(message, Event):
                heard.append(Heard(message, record.timestamp * 1000))
            elif isinstance(message, RejectedMessage) and (name, record.partition, record.offset) not in refused:
                unread[message.reason] += 1
    return heard, unread


def _place(letter: Any) -> tuple[str, int, int]:
    """Where a dead letter's message stands."""
    told = letters.letter(letter)
    return told.topic, told.partition, told.offset


def _letter(record: Any) -> tuple[int, str, str, str]:
    said = {name: value.decode(errors="replace") for name, value in record.headers}
    try:
        at: int = parse_instant(said.get("dlq.rejected_at", ""))
    except BadInstant:
        at = record.timestamp * 1000
    return at, said.get("dlq.reason_code", "?"), said.get("dlq.reason", ""), said.get("dlq.field", "")


def _messages(records: Iterable[Any], kind: type[T]) -> list[T]:
    """The records that are of this kind; what anybody else may have written is passed over."""
    messages = []
    for record in records:
        try:
            messages.append(msgspec.json.decode(record.value or b"", type=kind))
        except msgspec.DecodeError:
            continue
    return messages


# -- telling


def zone_of(known: Known, catalogue: Catalogue | None) -> tzinfo:
    """The user's zone: of the state, else of the latest profile, else the shop's."""
    profiles = sorted((e for e in known.events if isinstance(e, ProfileUpdated) and e.time_zone), key=_when)
    name = known.row.zone if known.row and known.row.zone else profiles[-1].time_zone if profiles else None
    try:
        return ZoneInfo(name) if name else catalogue.policy.zone if catalogue else UTC
    except (KeyError, ValueError, OSError):
        return UTC


def _when(event: Event) -> int:
    return event.occurred_at


def told(
    user: str,
    known: Known,
    rule: str | None,
    zone: tzinfo,
    catalogue: Catalogue | None,
    since: int | None = None,
    last: int | None = None,
) -> list[str]:
    """The timeline, line by line; of entries since an instant, the last so many."""
    entries = [entry for entry in timeline.in_time(_entries(known, rule, zone)) if since is None or entry.at >= since]
    lines = [f"{timeline.printable(user)} (times in {zone})"]
    if last is not None and len(entries) > last:
        lines.append(f"Earlier entries that are not shown (--last): {len(entries) - last:,}.")
    lines += timeline.render(entries[-(last or 0) :], zone, width())
    runs = timeline.alive(known.row, catalogue) if known.row else []
    lines += _ended(known.row, rule, zone) if known.row and rule else []
    runs = [run for run in runs if rule in (None, run.rule)]
    lines += [f"still to come: {line}" for line in timeline.to_come(runs, zone)]
    lines += _accounts(user, known, zone)
    lines += erased(known.erasure, zone)
    lines += _unread(known)
    if known.row_problem:
        lines.append(f"What is still to come cannot be told: {known.row_problem}")
    counts = Counter(entry.word for entry in entries)
    return [*lines, ", ".join(f"{count} {word}" for word, count in counts.items()) + "."] if entries else lines


def _unread(known: Known) -> list[str]:
    """That something is left out, which the workers' settings may read."""
    if not known.unread:
        return []
    why = timeline.printable(max(known.unread, key=lambda reason: known.unread[reason]))
    text = (
        f"Left out: {counted(sum(known.unread.values()), 'message')} that the settings of this shell cannot read: "
        f"{why} If the workers have others (LIFECYCLE_ASSUME_ZONE, LIFECYCLE_CLOCK_SKEW), set them here, too."
    )
    return textwrap.wrap(text, width())


def _accounts(user: str, known: Known, zone: tzinfo) -> list[str]:
    """What the account is part of, or what is part of it: `lifecycle why` tells each one's own past."""
    lines = []
    if known.merged is not None:
        into, at = timeline.printable(known.merged.into), timeline.local(known.merged.occurred_at, zone)
        lines.append(
            f"The account was merged into {into} on {at}: its history is there, and what is still said of "
            f"{timeline.printable(user)} counts for {into}."
        )
    if known.row is not None and known.row.merged:
        others = listed([timeline.printable(account) for account in known.row.merged], "and")
        lines.append(f"Merged into this account: {others}.")
    return lines


def passed_over(
    known: Known, rule: str | None, zone: tzinfo, settings: Settings, catalogue: Catalogue | None
) -> list[str]:
    """What the start policies did of rules that were switched on after the user had done something they enter on: which
    entries were refused, and of which rules something had been due."""
    if catalogue is None:
        return []
    events = [event for event in known.events if event.event_id not in known.erasure.ignored]
    first, policy = _first_entries(events, catalogue), start_policy(settings)
    starts = {
        name: (policy or catalogue.rules[name].start or start.DEFAULT, active)
        for name, active in sorted(known.active_since.items())
        if rule in (None, name) and name in first
    }
    since = {name: start.sends_from(*how) for name, how in starts.items()}
    late = {name: at for name, at in since.items() if first[name] < at}
    asked = {name: at for name, at in late.items() if starts[name][0] != "none"}
    due = missed(events, catalogue, asked, known.reached)
    groups: dict[str, list[str]] = {}
    for name, at in late.items():
        how, when = starts[name][0].partition(":")[0], timeline.local(at, zone)
        if how == "none":
            groups.setdefault(f"what happened before {when} starts nothing (start: none).", []).append(name)
        elif name in due:
            groups.setdefault(f"what was due before {when} was passed over (start: {how}).", []).append(name)
    return [f"{', '.join(names)}: {said}" for said, names in groups.items()]


def _is_known_of(rule: str, known: Known) -> bool:
    """Whether anything was considered for the rule, or will be."""
    named_by: list[Decision | Trigger | Retraction | Outcome | Run] = []
    for said in (known.decisions, known.triggers, known.retractions, known.outcomes):
        named_by += said
    for runs in known.row.runs.values() if known.row else ():
        named_by += runs
    return any(one.rule == rule for one in named_by)


def not_entered(rule: str, data: Data, columns: int) -> list[str]:
    """Of a rule of which nothing is known: what would have let the user in, and what might have ended it unseen."""
    return textwrap.wrap(
        f"{rule}: nothing of it is kept for this user, so it was not entered, or had ended before anything was due, or "
        f"that is long ago. {words.entrance(data)}",
        columns,
    )


def _ended(row: Row, rule: str, zone: tzinfo) -> list[str]:
    """The runs that something ended, of which no decision tells."""
    runs = [run for runs in row.runs.values() for run in runs if run.rule == rule and run.ends]
    lines = []
    for run in runs:
        entered, over = (timeline.local(at, zone) for at in (run.entered_at, run.ends[0].at))
        what = f"{run.rule}{timeline.thing(run.kind, run.key)}"
        lines.append(f"over: {what}, entered {entered}, ended by {run.ends[0].kind} {over}")
    return lines


def _first_entries(events: Iterable[Event], catalogue: Catalogue) -> dict[str, int]:
    """By rule: when the user first did what enters it; coupons may come inside orders."""
    first: dict[str, int] = {}
    for event in events:
        for kind in (event.TYPE, *(("CouponIssued",) if getattr(event, "coupons_issued", ()) else ())):
            for entered, _ in catalogue.entered_by.get(kind, ()):
                first[entered.name] = min(event.occurred_at, first.get(entered.name, event.occurred_at))
    return first


def _entries(known: Known, rule: str | None, zone: tzinfo) -> list[Entry]:
    copies = Counter(event.event_id for event in known.events)
    entries = []
    for event in sorted(known.events, key=_when):
        times = copies.pop(event.event_id, 0)
        if times:
            note = f"published {times} times, counted once" if times > 1 else ""
            if event.event_id in known.erasure.ignored:
                note = "ignored, as the user had been erased"
            entries.append(timeline.happened(event, zone, note))
    entries += [timeline.rejected(*letter) for letter in known.unusable]
    entries += [timeline.moved(change) for change in known.stages]
    entries += timeline.decided(
        (d for d in known.decisions if rule in (None, d.rule)),
        (t for t in known.triggers if rule in (None, t.rule)),
        (r for r in known.retractions if rule in (None, r.rule)),
        zone,
    )
    return entries + [timeline.came_of_it(one) for one in known.outcomes if rule in (None, one.rule)]
