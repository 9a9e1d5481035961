"""`lifecycle rules publish / pause / resume / published`: which rules the workers run, changed while they run.

What is published is a record in Kafka; nothing here reaches a worker directly. All or nothing: whatever is refused has
written nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from itertools import count, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

import click

from app import clock, rulebook
from app.cli.asking import REFUSED, Refused, ask, doubts, nothing, warn
from app.cli.rules import command, explained, hint, remark
from app.core.catalogue_file import PAUSES
from app.core.guardrails.eligibility import PAUSE_SPREAD
from app.core.problems import CatalogueError, Problem
from app.explain.language import counted, listed
from app.explain.timeline import named
from app.publications import change, topic
from app.publications.record import ALL, Publication, Way, in_effect, to_come
from app.settings import Settings
from schemas.instant import SECOND, BadInstant, parse_instant

__all__ = ["command"]

AHEAD: Final = 5 * SECOND
"""CLOCK=wall: so much time every worker has to hear of a publication before it takes effect."""
_NAMED: Final = 5
"""So many rules are named in a sentence, more are counted: `lifecycle rules published` has their names."""

_at = click.option(
    "--effective-at", "at", metavar="TIME",
    help="From when on, with its offset; under CLOCK=events it must be given.  [default: in 5 s]",
)  # fmt: skip
_all = click.option("--all", "every", is_flag=True, help="Every rule.")
_dry = click.option("--dry-run", is_flag=True, help="Only say what would change.")


@command.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@_at
@_dry
@click.option("--number", type=click.IntRange(min=1), help="After the topic was lost: go on with this number, at once.")
@click.pass_context
def publish(context: click.Context, directory: Path, at: str | None, dry_run: bool, number: int | None) -> None:
    """Publish the catalogue of DIR to all workers, whole or not at all; they change over at the same instant.

    Exit code 2, and nothing written, when it has mistakes or a rule changed without a new version.
    """
    try:
        files, catalogue = rulebook.checked(directory)
        remark(directory)
        hint(catalogue)
        ask(lambda settings: _publish(settings, files, at, dry_run, number))
    except CatalogueError as error:
        _list(directory, error.problems)
        click.echo(f"{counted(len(error.problems), 'mistake')}. Nothing was published.", err=True)
        context.exit(REFUSED)


def _list(directory: Path, problems: Sequence[Problem]) -> None:
    for problem in problems:
        for line in explained(directory, problem):
            click.echo(line)


@command.command()
@click.argument("rule", required=False)
@_all
@click.option(
    "--way", type=click.Choice(PAUSES), default="hold", show_default=True,
    help="What comes due meanwhile: waits until it is stale, is dropped, or counts as stale.",
)  # fmt: skip
@_at
@_dry
def pause(rule: str | None, every: bool, way: str, at: str | None, dry_run: bool) -> None:
    """Pause RULE, or --all: nothing of it goes out until it is resumed. Runs are entered and ended as before."""
    name = _named(rule, every)
    ask(lambda settings: _switch(settings, name, at, dry_run, lambda p: _with_pause(p, name, cast(Way, way))))


@command.command()
@click.argument("rule", required=False)
@_all
@click.option("--by-name", is_flag=True, help="With --all: also the rules that were paused by their names.")
@_at
@_dry
def resume(rule: str | None, every: bool, by_name: bool, at: str | None, dry_run: bool) -> None:
    """Let RULE, or --all, go on. What waited is asked again within the hour, user by user; what is stale is not sent.

    --all ends what `pause --all` began, and nothing else: a rule that was paused by its name stays so until it is
    resumed by its name, or by --all --by-name. A RULE that is resumed out of a pause of all leaves the others paused,
    each by its name from then on. A pause that is still to come is called off.
    """
    name = _named(rule, every)
    if by_name and not every:
        raise click.UsageError("--by-name goes with --all.")
    ask(lambda settings: _switch(settings, name, at, dry_run, lambda p: _without_pause(p, name, by_name)))


@command.command()
def published() -> None:
    """Say which rules are in effect on the workers, since when, which are paused, and what is to come."""

    async def show(settings: Settings) -> None:
        found = await topic.read_all(settings)
        if not found.published:
            click.echo(nothing(found.unreadable))
        for line in described(found.published, clock.now()):
            click.echo(line)
        doubts(found.unreadable, settings)

    ask(show)


def described(publications: Sequence[Publication], now: int) -> list[str]:
    """The publication in effect, its rules, and those to come. `now` is the wall clock's: replays have their own."""
    lines = []
    present = in_effect(publications, now)
    if present is not None:
        lines.append(f"Number {present.number}, in effect {_since(present)}:")
        for name, rule in sorted(change.rules_of(present.files).items()):
            way = change.pause_of(present, name, rule)
            lines.append(f"  {name}, version {rule.version}{f', paused ({way})' if way else ''}")
    for publication in to_come(publications, now):
        lines.append(f"Number {publication.number}, in effect {_since(publication)}:")
        lines += [f"  {line}" for line in change.told(present, publication)]
        present = publication
    return lines


def _since(publication: Publication) -> str:
    since = publication.effective_at
    return "from the beginning" if since is None else f"from {named(since)}"


# -- what is written


def _named(rule: str | None, every: bool) -> str:
    if bool(rule) == every:
        raise click.UsageError("Name one rule, or --all.")
    return rule or ALL


def _with_pause(publication: Publication, name: str, way: Way) -> Publication:
    return publication._replace(paused={**publication.paused, name: way})


def _without_pause(publication: Publication, name: str, by_name: bool) -> Publication:
    if name == ALL:
        alone = {} if by_name else {rule: way for rule, way in publication.paused.items() if rule != ALL}
        return publication._replace(paused=alone)
    ways = {rule: publication.way(rule) for rule in change.rules_of(publication.files) if rule != name}
    return publication._replace(paused={rule: way for rule, way in ways.items() if way})


def _has(publication: Publication, name: str) -> bool:
    return name == ALL or name in change.rules_of(publication.files)


def _require(publication: Publication, name: str) -> None:
    if not _has(publication, name):
        rules = sorted(change.rules_of(publication.files))
        near = get_close_matches(name, rules, 1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(rules)}."
        raise Refused(f"There is no rule '{name}' in what is published. {hint}")


async def _publish(
    settings: Settings, files: Mapping[str, str], given: str | None, dry_run: bool, number: int | None
) -> None:
    async with topic.publisher(settings, dry_run) as alone:
        now = clock.now()
        if number is not None and number <= alone.next_number:
            raise Refused(f"Number {alone.next_number} comes next anyway; leave --number out.")
        first = number is not None or not alone.published
        if first and given is not None:
            raise Refused("What is published first is in effect from the beginning: leave --effective-at out.")
        at = None if first else instant(settings, given, now)
        if at is not None:
            before = in_effect(alone.published, at)
        else:
            before = max(alone.published, key=lambda p: p.number, default=None)
        rules = change.rules_of(files)
        paused = {name: way for name, way in (before.paused if before else {}).items() if name in rules or name == ALL}
        new = Publication(number or alone.next_number, at, files, paused, now)
        problems = change.refused(files, alone.published)
        if problems:
            raise CatalogueError(problems)
        same = before is not None and not change.differs(before, new)
        if before is not None and same and not first and not to_come(alone.published, new.since):
            click.echo(f"Nothing differs from number {before.number}; nothing was published.")
            return
        await _write(alone, before, [new], dry_run)
        if number is not None and before is None:
            click.echo("Nobody knows any more which rules were paused: pause again those that are to be.")


async def _switch(
    settings: Settings, name: str, given: str | None, dry_run: bool, switched: Callable[[Publication], Publication]
) -> None:
    """The same files with other pauses; those that are to come get them too, so that they don't undo it: a pause that
    was still to come does not begin once its rule is resumed, nor does the end of one once it is paused again."""
    async with topic.publisher(settings, dry_run) as alone:
        now = clock.now()
        if not alone.published:
            raise Refused(f"{nothing(alone.unreadable)} To begin, start a worker, or `lifecycle rules publish DIR`.")
        at = instant(settings, given, now)
        before = in_effect(alone.published, at)
        assert before is not None  # the first one is in effect from the beginning
        _require(before, name)
        coming = to_come(alone.published, at)
        new = switched(before)._replace(effective_at=at)
        later = [switched(p) if _has(p, name) else p for p in coming]
        left = [] if name in new.paused else _left_paused(new, later, name)
        old, instead = [before, *coming], [new, *later]
        if not any(change.differs(*pair) for pair in zip(old, instead, strict=True)):
            if left:
                raise Refused(" ".join(left))
            click.echo(f"{_stands(new, name)}; nothing was published.")
            return
        written = [new, *(after for earlier, after in pairwise(instead) if change.differs(earlier, after))]
        numbers = count(alone.next_number)
        written = [p._replace(number=next(numbers), published_at=now) for p in written]
        await _write(alone, before, written, dry_run, change.called_off(old, instead))
        for line in left:
            click.echo(line)


def _stands(publication: Publication, name: str) -> str:
    """How a rule, or ALL of them, stands as it was asked for: 'nudge is not paused'."""
    way, every = publication.paused.get(name), name == ALL
    if way is None:
        return "No rule is paused" if every else f"{name} is not paused"
    return f"{'Every rule' if every else name} is paused ({way}) already"


def _left_paused(new: Publication, later: Sequence[Publication], name: str) -> list[str]:
    """What stays paused, or will be, although a pause was ended; and how that is ended."""
    now = change.paused_by_file(new, name)
    then = [
        f"From {named(p.since)} on {sentence}"
        for p in later
        for sentence in change.paused_by_file(p, name)
        if sentence not in now
    ]
    return [*_paused_by_name(new, name), *now, *then]


def _paused_by_name(publication: Publication, name: str) -> list[str]:
    """What the end of a pause of all leaves paused, and how that is ended."""
    alone = [rule for rule in publication.paused if rule != ALL] if name == ALL else []
    if not alone:
        return []
    be = "is" if len(alone) == 1 else "are"
    ends = "`lifecycle rules resume RULE` ends that of one, `lifecycle rules resume --all --by-name` of all"
    return [f"{_few(alone)} {be} paused by name: {ends}."]


def _few(names: Sequence[str]) -> str:
    """Their names, or how many rules they are."""
    return listed(names, "and") if len(names) <= _NAMED else f"{len(names)} rules"


def instant(settings: Settings, given: str | None, now: int) -> int:
    """From when on: as given, or soon. Raises Refused."""
    if given is None:
        if settings.clock == "events":
            raise Refused("Under CLOCK=events only events say what time it is: give --effective-at.")
        return now + AHEAD
    try:
        at = parse_instant(given, settings.assume_zone)
    except BadInstant as problem:
        raise Refused(f"--effective-at: {problem}") from problem
    if settings.clock == "wall" and at <= now:
        raise Refused(
            f"{named(at)} is past, and shards that are beyond it would not change over at one instant: "
            "leave --effective-at out, or name one to come."
        )
    return at


async def _write(
    alone: topic.Publisher,
    before: Publication | None,
    new: Sequence[Publication],
    dry_run: bool,
    called_off: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Writes them, and then says what that changes: of what could not be written nothing is claimed. `called_off`: by
    number, what is said of those that they replace."""
    if not dry_run:
        await alone.write(*new)
    for publication in new:
        verb = "would take" if dry_run else "takes"
        click.echo(f"Number {publication.number} {verb} effect {_since(publication)}:")
        for line in [*change.told(before, publication), *_asked_again(before, publication)]:
            click.echo(f"  {line}")
        before = publication
    warn(alone.unreadable)
    for lost in to_come(alone.published, new[0].since):
        gone = called_off.get(lost.number, [])
        off = "; called off is:" if gone else "."
        click.echo(f"Number {lost.number}, which was to take effect {_since(lost)}, is replaced{off}")
        for line in gone:
            click.echo(f"  {line}")
    if dry_run:
        click.echo("Nothing was published (--dry-run).")
    else:
        click.echo(f"Published: {', '.join(f'number {p.number}' for p in new)}.")


def _asked_again(before: Publication | None, after: Publication) -> list[str]:
    """When what was held comes up again, now that a pause ends."""
    rules = change.let_go(before, after) if before else []
    if not rules:
        return []
    since = after.effective_at
    when = "" if since is None else f", from {named(since)} to {named(since + PAUSE_SPREAD)}"
    what = f"What was held of {_few(rules)} is asked again within the hour{when}"
    return [f"{what}: each user at an instant of its own. What is stale by then is not sent."]
