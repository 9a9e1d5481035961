"""`lifecycle watch`: triggers as they come, a line each."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import click
from rich.console import Console
from rich.markup import escape

from app.cli import named
from app.explain.timeline import named_as
from app.feed import FeedProblem, Told, triggers
from app.settings import Settings, SettingsError, load_settings
from app.topics import TopicProblem, check_triggers

_WIDTHS: Final = (19, 10, 6, 9)
"""What the columns begin with: rule, user, step, channel. No name of what is shipped is longer."""


@click.command()
@click.option("--rule", help="Only this rule's.")
@click.option("--user", help="Only this user's.")
@click.option("--from-start", is_flag=True, help="Begin with the oldest that Kafka still keeps.")
def command(rule: str | None, user: str | None, from_start: bool) -> None:
    """Print triggers as they come: when (UTC), rule, user, step, channel, reason. Ctrl-C ends it.

    Exit code 2 when --rule names none.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what goes wrong is said in a sentence
    try:
        asyncio.run(_watch(load_settings(), rule, user, from_start))
    except (SettingsError, TopicProblem, FeedProblem) as problem:
        raise click.ClickException(str(problem)) from problem
    except KeyboardInterrupt:
        return  # the way to end it, not a failure


async def _watch(settings: Settings, rule: str | None, user: str | None, from_start: bool) -> None:
    if rule is not None:
        named.require(await named.published_if_any(settings), rule)
    await check_triggers(settings)
    out = Console(highlight=False, soft_wrap=True)
    if out.is_terminal:
        out.print("[dim]waiting for triggers; Ctrl-C ends[/]")
    lines = Lines()
    async for told in triggers(settings, from_start=from_start):
        if told and rule in (None, told.rule) and user in (None, told.user_id):
            out.print(lines.line(told))


class Lines:
    """Triggers in columns. What comes is not known before: a column is as wide as the widest that it has had."""

    def __init__(self) -> None:
        self._widths = list(_WIDTHS)

    def line(self, told: Told) -> str:
        """A trigger or a retraction in one line, with console markup."""
        body = told.body
        how = "retracted" if told.retracted else str(body.get("channel") or body.get("action"))
        if body.get("mode") == "shadow":
            how += " (shadow)"
        cells = (told.rule, told.user_id, f"step {body.get('step')}", how)
        self._widths = [max(size, len(cell)) for size, cell in zip(self._widths, cells, strict=True)]
        padded = [escape(cell.ljust(size)) for cell, size in zip(cells, self._widths, strict=True)]
        rule, user, step, how = padded
        at, reason = escape(named_as(str(body.get("decided_at")))), escape(" ".join(told.reason.split()))
        shown = f"[red]{how}[/]" if told.retracted else how
        return f"[dim]{at}[/]  [cyan]{rule}[/]  {user}  {step}  {shown}  {reason}"
