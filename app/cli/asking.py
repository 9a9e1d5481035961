"""What the commands on what is published share: the way there, and what each of them says beside its answer.

Whatever goes wrong on the way is a sentence for a person: nothing of the client's own log, and no traceback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import click

from app.publications.topic import PublishingProblem
from app.settings import Settings, SettingsError, load_settings
from app.topics import TopicProblem, check_topics

REFUSED: Final = 2
"""Exit code of what was refused."""

T = TypeVar("T")


class Refused(Exception):
    """Nothing was published. The text says why, and what to do."""


def ask(act: Callable[[Settings], Awaitable[T]]) -> T:
    """Do it on the settings' cluster. What a person can mend is told in a sentence, exit code 1 or 2."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what goes wrong is said in a sentence

    async def run(settings: Settings) -> T:
        await check_topics(settings)
        return await act(settings)

    try:
        return asyncio.run(run(load_settings()))
    except Refused as problem:
        refused = click.ClickException(str(problem))
        refused.exit_code = REFUSED
        raise refused from problem
    except (SettingsError, TopicProblem, PublishingProblem) as problem:
        raise click.ClickException(str(problem)) from problem


def nothing(unreadable: Mapping[int, str]) -> str:
    """That there is nothing to be looked at."""
    what = "Nothing of what is published can be read by this release" if unreadable else "Nothing is published yet"
    return f"{what}: the first worker that starts publishes its own rules."


def warn(unreadable: Mapping[int, str]) -> None:
    """Say which numbers are not looked at, because this release cannot read them."""
    for number, why in unreadable.items():
        click.echo(
            f"Number {number} cannot be read by this release: {why}. If a newer one wrote it, use that one; workers "
            "that cannot read it either stop, until a later number is in effect."
        )


def doubts(unreadable: Mapping[int, str], settings: Settings) -> None:
    """Say why the workers may be at another number than the one that is in effect by the wall clock."""
    warn(unreadable)
    if settings.clock == "events":
        click.echo(
            "This goes by the wall clock, and events say what time it is: each shard's metric lifecycle_catalogue "
            "tells which number it is at."
        )
