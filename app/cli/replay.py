"""`lifecycle replay`: publishes a file of events, or a year of real purchases, in time order."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from app import clock
from app.explain.language import counted
from app.replay.files import BadLine, EventFile, FileProblem
from app.replay.journey import ENDS, Journey, load_journey
from app.replay.journey_data import JourneyProblem
from app.replay.outgoing import Outgoing, before
from app.replay.publish import Progress, PublishProblem, publish
from app.settings import Settings, SettingsError, load_settings
from app.topics import TopicProblem
from schemas.events import INPUT_TOPICS
from schemas.instant import BadInstant, format_instant, parse_instant

COMPLETE_JOURNEY: Final = "complete-journey"
_SHOWN_BAD_LINES: Final = 20


@click.command()
@click.argument("source", metavar="FILE.jsonl|complete-journey")
@click.option("--households", type=click.IntRange(min=1), help="complete-journey: only so many households.")
@click.option("--until", metavar="TIME", help="Stop before this instant, and let time stand there afterwards.")
@click.option("--topic", type=click.Choice(INPUT_TOPICS), help="FILE: where lines go that don't tell their topic.")
@click.option("--dry-run", is_flag=True, help="Print the events, a line each, instead of publishing them.")
def command(source: str, households: int | None, until: str | None, topic: str | None, dry_run: bool) -> None:
    """Publish events in time order, keyed by user.

    FILE.jsonl (or .jsonl.gz) holds an event a line, with "topic" when it isn't the type's own; it need not be sorted.
    complete-journey is a year of real purchases, campaigns and coupon redemptions of 2,469 households; what stands in
    for the logins and the browsing that it does not hold is marked as simulated.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what goes wrong is said in a sentence
    try:
        settings = load_settings()
        end = parse_instant(until, settings.assume_zone) if until else None
        if source == COMPLETE_JOURNEY:
            if topic:
                raise click.UsageError("--topic is for files; complete-journey knows its topics.")
            _journey(load_journey(households), settings, end, dry_run)
        else:
            if households:
                raise click.UsageError("--households is for complete-journey only.")
            _file(Path(source), topic, settings, end, dry_run)
    except BadInstant as problem:
        raise click.BadParameter(str(problem), param_hint="--until") from problem
    except (SettingsError, JourneyProblem, FileProblem, PublishProblem, TopicProblem) as problem:
        raise click.ClickException(str(problem)) from problem


def _journey(journey: Journey, settings: Settings, until: int | None, dry_run: bool) -> None:
    say = Console(stderr=True, highlight=False, soft_wrap=True)
    say.print(f"a year of {journey.households:,} households, {journey.lines:,} lines bought")
    say.print("real:      " + ", ".join(f"{count:,} {name}" for name, count in journey.counts.items()))
    say.print("simulated: " + ", ".join(f"{count:,} {name}" for name, count in journey.simulated.items()))
    say.print("left out:  " + (", ".join(f"{count:,} {what}" for what, count in journey.left_out.items()) or "nothing"))
    _run(before(journey.events(), until), settings, until or ENDS, dry_run, say)


def _file(path: Path, topic: str | None, settings: Settings, until: int | None, dry_run: bool) -> None:
    say = Console(stderr=True, highlight=False, soft_wrap=True)
    if not path.is_file():
        raise click.ClickException(f"There is no file {path}. (The built-in data set is called {COMPLETE_JOURNEY}.)")
    bad = 0

    def report(line: BadLine) -> None:
        nonlocal bad
        bad += 1
        if bad <= _SHOWN_BAD_LINES:
            say.print(f"{path}, line {line.number}: not published. {line.why}", markup=False)

    file = EventFile(path, topic=topic, assume_zone=settings.assume_zone, report=report)
    _run(before(file.events(), until), settings, until, dry_run, say)
    if file.undated:
        lines = counted(file.undated, "line")
        say.print(f"{lines} without a readable time: the worker will put what has none into the dead letters.")
    if bad:
        raise click.ClickException(f"{bad:,} of the lines could not be published.")


def _run(events: Iterable[Outgoing], settings: Settings, until: int | None, dry_run: bool, say: Console) -> None:
    if dry_run:
        for event in events:
            sys.stdout.buffer.write((event.value or b"") + b"\n")
        sys.stdout.buffer.flush()
        return
    with say.status("publishing") as status:

        def show(progress: Progress) -> None:
            at = format_instant(progress.reached, settings.assume_zone or UTC)[:10] if progress.reached else "the start"
            status.update(f"published {counted(progress.events, 'event')}, {progress.rate:,.0f} a second, up to {at}")

        done = asyncio.run(publish(events, settings, until=until, progress=show))
    size = f"{done.bytes / 1e6:,.1f} MB"
    say.print(f"published {counted(done.events, 'event')} ({size}) in {done.seconds:.1f} s: {done.rate:,.0f}/s")
    for name, count in done.left_out.items():
        say.print(f"left out {counted(count, 'event')} for {name}: LIFECYCLE_INPUTS does not name that input.")
    for line in _in_the_future(done.ahead, until, settings):
        say.print(line)


def _in_the_future(events: int, until: int | None, settings: Settings) -> Iterator[str]:
    """What the workers will not take, or were not told, because it has not come yet."""
    if events:
        yield (
            f"{counted(events, 'event')} in the future (by more than LIFECYCLE_CLOCK_SKEW): the worker refuses what is "
            "ahead of its record, into the dead letters. What is to come can be tried with `lifecycle rules try`."
        )
    if until is not None and until > clock.now() + settings.clock_skew:
        yield "Time stands at the last event of before now, not at --until: that is in the future."
