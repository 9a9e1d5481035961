"""`lifecycle rules check / list / show / names / try / schema`: the catalogue, for the people who write it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from datetime import tzinfo
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
import orjson

from app import rulebook
from app.cli import named
from app.cli.asking import ask, doubts, nothing
from app.cli.terminal import width
from app.core.catalogue_file import KEYS
from app.core.problems import CatalogueError, Problem, located, shortened
from app.core.rules import Catalogue
from app.explain import names as names_of_rules
from app.explain import rule as words
from app.explain import schema as schemas_of_rules
from app.explain import timeline, trial
from app.explain.hints import hints
from app.explain.language import counted
from app.processor import InvariantBroken
from app.replay.files import BadLine, EventFile, FileProblem
from app.replay.outgoing import EVERY_INPUT, Outgoing, before
from app.settings import Settings, SettingsError, load_settings
from schemas.codec import DecodeOptions
from schemas.events import INPUT_TOPICS
from schemas.instant import DAY, BadInstant, format_instant, parse_instant

_AFTERWARDS = 365 * DAY
"""How long `try` lets time go on after the last event, so that the longest rules come to their end."""
_SHOWN_BAD_LINES = 20
_LONGEST_LINE = 200
_OTHER_DIRECTORY = "Rules of another directory: --dir DIR."

_directory = click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(file_okay=False, path_type=Path)
)
_in_directory = click.option(
    "--dir", "directory", type=click.Path(file_okay=False, path_type=Path), help="The catalogue to look in."
)


@click.group()
def command() -> None:
    """The catalogue: what sends messages, when, to whom, and what stops it.

    Without a directory it is that of LIFECYCLE_RULES, or the shipped one.
    """


@command.command()
@_directory
@click.pass_context
def check(context: click.Context, directory: Path | None) -> None:
    """Say all mistakes of a catalogue at once: file, line, cause and a way out. Exit code 1 when there are any."""
    where = _where(directory)
    try:
        catalogue = rulebook.load(where)
    except CatalogueError as error:
        for problem in error.problems:
            for line in explained(where, problem):
                click.echo(line)
        count = len(error.problems)
        click.echo(f"{counted(count, 'mistake')}. Nothing of this catalogue would be used.", err=True)
        context.exit(1)
    finally:
        remark(where)
    hint(catalogue)
    click.echo(f"{counted(len(catalogue.rules), 'rule')}, no mistakes ({where}).")


def remark(where: Path) -> None:
    """Say beside the answer what is no mistake of a catalogue, but may not be meant."""
    for line in rulebook.remarks(where) if where.is_dir() else ():
        click.echo(line, err=True)


def hint(catalogue: Catalogue) -> None:
    """Say beside the answer what the shop makes of its rules, and may not be meant."""
    for line in hints(catalogue):
        click.echo(line, err=True)


def explained(where: Path, problem: Problem) -> list[str]:
    """A mistake as an editor can jump to it, with the line that it is in; of a directory there is none."""
    if not problem.line:
        return [str(problem)]
    head = f"{where / problem.file}:{problem.line}: {problem.text}"
    try:
        text = (where / problem.file).read_text(encoding="utf-8").splitlines()[problem.line - 1].strip("\ufeff \t")
    except (OSError, ValueError, IndexError):
        return [head]
    return [head, f"    {timeline.printable(shortened(text, _LONGEST_LINE))}"] if text else [head]


@command.command("list")
@_directory
@click.option("--markdown", is_flag=True, help="As a Markdown table, such as the one in the README.")
def list_(directory: Path | None, markdown: bool) -> None:
    """A table of the rules: what they do, what they wait for, when they act, what ends them."""
    where = _where(directory)
    files = _files(where)[1]
    remark(where)
    if markdown:
        click.echo(words.markdown([words.overview(files[name]) for name in sorted(files)]))
        return
    rows = [words.Overview("rule", "action", "enters", "fires", "ends", "about", "source")]
    rows += [words.overview(files[name]) for name in sorted(files)]
    for line in table(rows, width()):
        click.echo(line)


def table(rows: list[words.Overview], columns: int) -> list[str]:
    """The rows as aligned columns, each cell wrapped in its column; where a rule comes from stands in `show`."""
    longest = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    fixed = longest[0] + longest[1]
    share = max(16, (columns - fixed - 2 * 5) // 4)
    widths = [longest[0], longest[1], *(min(longest[n], share) for n in (2, 3, 4)), 0]
    widths[5] = max(16, min(longest[5], columns - sum(widths) - 2 * 5))
    lines: list[str] = []
    for row in rows:
        cells = [_wrapped(cell, size) for cell, size in zip(row[: len(widths)], widths, strict=True)]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            lines.append("  ".join(part.ljust(size) for part, size in zip(parts, widths, strict=True)).rstrip())
    return lines


def _wrapped(text: str, columns: int) -> list[str]:
    return textwrap.wrap(text, columns) or [""]


@command.command()
@click.argument("rule")
@_in_directory
@click.option("--published", is_flag=True, help="As it is published, and in effect on the workers now.")
def show(rule: str, directory: Path | None, published: bool) -> None:
    """Explain RULE in a paragraph of plain words, and draw its timeline."""
    if published and directory is not None:
        raise click.UsageError("Name a directory, or say --published: not both.")
    if published:
        _show_published(rule)
        return
    where = _where(directory)
    catalogue, files = _files(where)
    data = _data(files, rule, str(where), _OTHER_DIRECTORY, "One that is published: --published.")
    for line in words.shown(data, width(), catalogue.policy):
        click.echo(line)


@command.command()
@click.option("--key", type=click.Choice(KEYS), help="Only those for rules keyed by this.")
@click.option("--markdown", is_flag=True, help="The names alone, as a Markdown table.")
def names(key: str | None, markdown: bool) -> None:
    """List the names that conditions, timings, reasons and facts may use, and how expressions are written."""
    for line in names_of_rules.markdown(key) if markdown else names_of_rules.lines(width(), key):
        click.echo(line)


@command.command("try")
@click.argument("rule")
@click.argument("file", metavar="FILE.jsonl", type=click.Path(path_type=Path))
@_in_directory
@click.option("--until", metavar="TIME", help="Where time stands at the end.  [default: a year after the last event]")
@click.option("--user", help="Only this user's events.")
@click.option("--users", type=click.IntRange(min=1), default=10, show_default=True, help="Show at most so many users.")
@click.option("--topic", type=click.Choice(INPUT_TOPICS), help="Where lines go that don't tell their topic.")
def try_(
    rule: str, file: Path, directory: Path | None, until: str | None, user: str | None, users: int, topic: str | None
) -> None:
    """Run RULE alone on the events of FILE.jsonl, in virtual time, and tell user by user what comes of it.

    Nothing is read from Kafka and nothing is sent. A line of the file is an event, as for `lifecycle replay`. Exit code
    1 when none of them can be used.
    """
    settings = _settings()
    where = _where(directory)
    catalogue, files = _files(where)
    _data(files, rule, str(where), _OTHER_DIRECTORY)
    try:
        end = parse_instant(until, settings.assume_zone) if until else None
        done = trial.run(
            trial.only(catalogue, rule),
            before(_begun(_of_user(_events(file, topic, settings), user), end, catalogue.policy.zone), end),
            options=DecodeOptions(assume_zone=settings.assume_zone, unknown_types=settings.unknown_types),
            until=end,
            after=_AFTERWARDS,
        )
    except BadInstant as problem:
        raise click.BadParameter(str(problem), param_hint="--until") from problem
    except FileProblem as problem:
        raise click.ClickException(str(problem)) from problem
    except InvariantBroken as problem:
        raise click.ClickException(
            f"The rule fails on an event ({problem.__cause__!r}). That is a defect."
        ) from problem
    for line in told(rule, done, catalogue, users):
        click.echo(line)
    if not done.timelines:
        whose = f" of {timeline.printable(user)}" if user else ""
        raise click.ClickException(f"There is no event{whose} in {file} that can be used, so nothing was tried.")


def told(rule: str, done: trial.Trial, catalogue: Catalogue, users: int) -> Iterator[str]:
    """What a trial has shown, user by user."""
    shown = (done.touched or list(done.timelines))[:users]
    for user in shown:
        zone = done.zones.get(user, catalogue.policy.zone)
        yield f"{timeline.printable(user)} (times in {zone})"
        yield from (f"  {line}" for line in timeline.render(done.timelines[user], zone, width() - 2))
        for line in timeline.to_come(done.to_come.get(user, []), zone):
            yield f"  still to come after {timeline.local(done.ended_at, zone)}: {line}"
        yield ""
    for letter in done.rejected[:_SHOWN_BAD_LINES]:
        yield f"not usable ({letter.code}{f', {letter.field}' if letter.field else ''}): {letter.reason}"
    more = len(done.touched) - len(shown)
    rest = f"; {more:,} more are not shown (--users)" if more > 0 else ""
    yield (
        f"{rule}: {counted(done.events, 'event')} of {counted(len(done.timelines), 'user')}, {len(done.touched):,} "
        f"concerned, {counted(done.triggers, 'trigger')}{rest}."
    )


def _events(file: Path, topic: str | None, settings: Settings) -> Iterator[Outgoing]:
    if not file.is_file():
        raise click.ClickException(f"There is no file {file}.")
    bad = 0

    def report(line: BadLine) -> None:
        nonlocal bad
        bad += 1
        if bad <= _SHOWN_BAD_LINES:
            click.echo(f"{file}, line {line.number}: left out. {line.why}", err=True)

    yield from EventFile(file, topic=topic, assume_zone=settings.assume_zone, report=report).events()
    if bad > _SHOWN_BAD_LINES:
        click.echo(f"{bad:,} lines were left out in all.", err=True)


def _of_user(events: Iterator[Outgoing], user: str | None) -> Iterator[Outgoing]:
    for event in events:
        if user is None or event.input == EVERY_INPUT or event.key == user.encode():
            yield event


def _begun(events: Iterator[Outgoing], until: int | None, zone: tzinfo) -> Iterator[Outgoing]:
    """The events, of which some must come before `until`. Raises BadParameter."""
    first = next(events, None)
    if first is None:
        return
    if until is not None and first.occurred_at >= until:
        at = format_instant(first.occurred_at, zone)
        raise click.BadParameter(f"it is not after the first event, which is of {at}.", param_hint="--until")
    yield first
    yield from events


@command.command()
def schema() -> None:
    """Print the JSON Schema of rule files, so that an editor completes and checks them.

    In an editor that speaks YAML, put this first in a rule file: # yaml-language-server: $schema=PATH_OR_URL
    """
    sys.stdout.buffer.write(schema_bytes())
    sys.stdout.buffer.flush()


def schema_bytes() -> bytes:
    """The schema as it is published in schemas/rules/rule.v1.json."""
    return orjson.dumps(schemas_of_rules.rule_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


# -- where rules are


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as problem:
        raise click.ClickException(str(problem)) from problem


def _where(directory: Path | None) -> Path:
    return directory or _settings().rules or rulebook.SHIPPED


def _files(where: Path) -> tuple[Catalogue, dict[str, Mapping[str, Any]]]:
    """The checked catalogue, and each rule as its file has it."""
    try:
        texts, catalogue = rulebook.checked(where)
    except CatalogueError as error:
        also = f"\nSee also: lifecycle rules check {where}" if all(each.line for each in error.problems) else ""
        raise click.ClickException(f"{error}{also}") from error
    files: dict[str, Mapping[str, Any]] = {}
    for name, text in texts.items():
        data, _ = located(text, name, [])
        if data.get("rule") in catalogue.rules:
            files[str(data["rule"])] = data
    return catalogue, files


def _show_published(rule: str) -> None:
    async def tell(settings: Settings) -> None:
        rules = await named.published(settings)
        try:
            if rules.number is None:
                raise click.ClickException(nothing(rules.unreadable))
            policy = rules.catalogue.policy if rules.catalogue is not None else None
            for line in words.shown(_data(rules.data, rule, "what is published"), width(), policy):
                click.echo(line)
            click.echo(f"So number {rules.number} of what is published has it.")
        finally:
            doubts(rules.unreadable, settings)

    ask(tell)


def _data(files: Mapping[str, Mapping[str, Any]], rule: str, where: str, *elsewhere: str) -> Mapping[str, Any]:
    if rule in files:
        return files[rule]
    near = get_close_matches(rule, files, 1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(sorted(files))}."
    raise click.ClickException(" ".join([f"There is no rule '{rule}' in {where}.", hint, *elsewhere]))
