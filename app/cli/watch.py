"""`lifecycle watch`: triggers as they come, a line each."""

from __future__ import annotations

import asyncio
import logging

import click
from rich.console import Console
from rich.markup import escape

from app.cli import named
from app.explain.timeline import named_as
from app.feed import FeedProblem, Told, triggers
from app.settings import Settings, SettingsError, load_settings
from app.topics import TopicProblem, check_triggers


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
    async for told in triggers(settings, from_start=from_start):
        if told and rule in (None, told.rule) and user in (None, told.user_id):
            out.print(line(told))


def line(told: Told) -> str:
    """A trigger or a retraction in one line, with console markup."""
    body = told.body
    at = named_as(str(body.get("decided_at")))
    how = "[red]retracted[/]" if told.retracted else str(body.get("channel") or body.get("action"))
    if body.get("mode") == "shadow":
        how += " (shadow)"
    reason = escape(" ".join(told.reason.split()))
    return (
        f"[dim]{escape(at)}[/]  [cyan]{escape(told.rule):<15}[/] {escape(told.user_id):<10} "
        f"step {body.get('step')}  {how:<8} {reason}"
    )
