"""`lifecycle demo`: everything at once, to look at."""

from __future__ import annotations

import logging
import sys

import click
from rich.console import Console

from app import embedded
from app.cli.kafka import TerminalProgress
from app.demo.run import run
from app.demo.show import Screen
from app.demo.stage import DemoProblem
from app.feed import FeedProblem
from app.replay.journey_data import JourneyProblem
from app.replay.publish import PublishProblem
from app.topics import TopicProblem

_INTERRUPTED = 130
_PLAIN_WIDTH = 120


@click.command()
@click.option("--households", type=click.IntRange(1, 2_469), default=300, show_default=True, help="Of 2,469.")
@click.option("--keep", is_flag=True, help="Keep Kafka's data and the logs.")
@click.pass_context
def command(context: click.Context, households: int, keep: bool) -> None:
    """Start a Kafka and a worker of the demo's own, replay a year of real purchases, show what it triggers.

    Uses free ports and a temporary directory, whatever LIFECYCLE_ settings there are, and leaves nothing running.
    The exit code is 0 when replenishment, coupon_unused and winback have all fired.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what goes wrong is said in a sentence
    screen = Screen(Console(highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH))
    try:
        fine = run(households, keep, screen, TerminalProgress(screen.console))
    except KeyboardInterrupt:
        screen.step("Stopped before its end.")
        context.exit(_INTERRUPTED)
    except (
        DemoProblem, embedded.KafkaProblem, TopicProblem, JourneyProblem, PublishProblem, FeedProblem
    ) as problem:  # fmt: skip
        raise click.ClickException(str(problem)) from problem
    context.exit(0 if fine else 1)
