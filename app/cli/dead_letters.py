"""`lifecycle dead-letters list / redrive`: what could not be used, and sending it again once it can be."""

from __future__ import annotations

import asyncio
import heapq
import logging
import textwrap
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

import click

from app.cli import letters, reading, redriving
from app.cli.letters import Letter
from app.cli.redriving import Choice, Plan
from app.cli.terminal import width
from app.explain.language import counted
from app.explain.timeline import named_as, printable
from app.settings import Settings, SettingsError, load_settings
from app.topics import TopicProblem
from schemas.events import INPUT_TOPICS
from schemas.rejects import CODES

_SHOWN_REASONS: Final = 5
_LONGEST_REASON: Final = 300
_LONGEST_NAME: Final = 128

T = TypeVar("T")

_code = click.option("--code", type=click.Choice(list(CODES)), help="Only those with this code.")


@click.group()
def command() -> None:
    """Messages that could not be used. Their bytes are kept for a month, with the reason."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what goes wrong is said in a sentence


@command.command("list")
@_code
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many.")
def list_(code: str | None, limit: int) -> None:
    """A table of dead letters, the newest last: when, code, field, where the message came from, and the reason. Under
    that stand the message's type, its event id and its key, which is the user."""
    newest, counts = _run(_newest(_settings(), code, limit))
    if not newest:
        click.echo(f"There are no dead letters{f' with the code {code}' if code else ''}.")
        return
    for line in table(newest):
        click.echo(line)
    told = ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
    click.echo(f"{len(newest):,} of {counted(counts.total(), 'dead letter')} ({told}).")


async def _newest(settings: Settings, code: str | None, limit: int) -> tuple[list[Letter], Counter[str]]:
    counts: Counter[str] = Counter()
    newest: list[tuple[str, tuple[int, int], Letter]] = []
    async with reading.reader(settings) as consumer:
        async for portion in letters.letters(consumer, await letters.bounds(settings, consumer)):
            for letter in portion:
                if code not in (None, letter.code):
                    continue
                counts[letter.code] += 1
                if len(newest) == limit and (letter.rejected_at, letter.place) < newest[0][:2]:
                    continue
                slim = letter._replace(value=None, about=letters.about(letter.value))  # of the bytes no more is shown
                add = heapq.heappush if len(newest) < limit else heapq.heappushpop
                add(newest, (letter.rejected_at, letter.place, slim))
    return [letter for _, _, letter in sorted(newest)], counts


def table(found: list[Letter]) -> list[str]:
    """The letters in aligned columns; the reason has what is left of the line, and more lines when it needs them. Under
    it stands which message it is."""
    rows = [("when", "code", "field", "from", "reason", "")]
    rows += [
        (
            named_as(letter.rejected_at),
            letter.code,
            printable(letter.field) or "-",
            f"{letter.topic}[{letter.partition}] offset {letter.offset}",
            printable(letter.reason)[:_LONGEST_REASON],
            _which(letter),
        )
        for letter in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row in rows:
        head = "  ".join(cell.ljust(size) for cell, size in zip(row[:4], widths, strict=True))
        room = max(30, width() - len(head) - 2)
        first, *more = [*textwrap.wrap(row[4], room), *textwrap.wrap(row[5], room)] or [""]
        lines += [f"{head}  {first}".rstrip(), *(" " * (len(head) + 2) + line for line in more)]
    return lines


def _which(letter: Letter) -> str:
    """'UserLoggedIn e-1001, key u-42'."""
    key = "no key" if letter.key is None else f"key {letter.key.decode(errors='replace')[:_LONGEST_NAME]}"
    return printable(f"{letter.about}, {key}" if letter.about else key)


@command.command()
@_code
@click.option("--topic", type=click.Choice(INPUT_TOPICS), help="Only those that came from this input.")
@click.option("--again", is_flag=True, help="Also those that an earlier redrive has dealt with.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def redrive(code: str | None, topic: str | None, again: bool, dry_run: bool, yes: bool) -> None:
    """Send dead letters back where they came from: the same bytes and key, to the same partition of the same input.

    To be used once the cause is mended: a setting (LIFECYCLE_ASSUME_ZONE...), a rule, the worker. What would be refused
    again as it is stays where it is. What was in a wrong partition is sent to the right one. Events that a person set
    aside are sent only with --code cannot_apply. An earlier redrive is remembered as long as Kafka keeps the offsets
    of an idle group (a week by default); whatever is sent twice is recognised by its event id.
    """
    settings, choice = _settings(), Choice(code, topic, again)
    plan = _run(redriving.plan(settings, choice))
    for line in said(plan):
        click.echo(line)
    if dry_run or not plan.send:
        return
    if not yes:
        click.confirm(f"Send {counted(plan.send.total(), 'message')} now?", abort=True)
    done = _run(redriving.carry_out(settings, choice, plan.where))
    click.echo(f"Sent {counted(done.messages, 'message')}.")
    if done.too_large:
        raise click.ClickException(
            f"{counted(done.too_large, 'message')} could not be sent: their topic takes none as large as they are. "
            "Raise its max.message.bytes, then run this with --again."
        )


def said(plan: Plan) -> Iterator[str]:
    """What a redrive would do, in words."""
    if plan.send:
        yield f"{counted(plan.send.total(), 'message')} to send, the oldest rejected {named_as(plan.oldest)}:"
        for (code, topic), count in sorted(plan.send.items()):
            yield f"  {count:,} {code} to {topic}"
    else:
        yield "There is nothing to send."
    fates = plan.fates
    if fates["done"]:
        yield f"{fates['done']:,} dealt with by an earlier redrive (--again takes them too)."
    if fates["set aside"]:
        yield f"{fates['set aside']:,} set aside by a person (--code cannot_apply takes them too)."
    if fates["nowhere"]:
        yield f"{fates['nowhere']:,} came from inputs that this deployment does not have (LIFECYCLE_INPUTS)."
    if plan.refused:
        yield f"{plan.refused.total():,} would be refused again as they are, and stay where they are:"
        for reason, count in plan.refused.most_common(_SHOWN_REASONS):
            yield f"  {count:,} {printable(reason)[:_LONGEST_REASON]}"
        if len(plan.refused) > _SHOWN_REASONS:
            yield f"  and {len(plan.refused) - _SHOWN_REASONS:,} other reasons"


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as problem:
        raise click.ClickException(str(problem)) from problem


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except (TopicProblem, reading.ReadProblem) as problem:
        raise click.ClickException(str(problem)) from problem
