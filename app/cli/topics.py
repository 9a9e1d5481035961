"""`lifecycle topics create`: makes the topics and says what differs in those that are there."""

from __future__ import annotations

import asyncio
import logging

import click

from app import topics
from app.settings import SettingsError, load_settings

_DAY_MS = 86_400_000


@click.group()
def command() -> None:
    """The topics that the worker reads and writes."""


@command.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print the topics as YAML for other tools; asks no cluster.")
def create(dry_run: bool, as_yaml: bool) -> None:
    """Create the topics that are missing, with partitions, retention and compaction. Safe to repeat.

    Topics that are there are never changed; what differs is told, with the way to mend it.
    """
    # The sentence at the end says it better than the client's own lines before it.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        settings = load_settings()
        if as_yaml:
            click.echo(topics.render(settings), nl=False)
            return
        reports = asyncio.run(topics.create_topics(settings, dry_run))
    except (SettingsError, topics.TopicProblem) as problem:
        raise click.ClickException(str(problem)) from problem
    for line in table(reports):
        click.echo(line)
    for report in reports:
        for sentence in report.advice:
            click.echo(f"{report.spec.name}: {sentence}")


def table(reports: list[topics.Report]) -> list[str]:
    """A line a topic: what it is and what was done about it."""
    rows = [("topic", "partitions", "copies", "kept", "")]
    for report in reports:
        spec = report.spec
        done = "would be created" if report.state == "missing" else report.state
        rows.append((spec.name, str(spec.partitions), str(spec.replication), kept(spec), done))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        f"{name:<{widths[0]}}  {partitions:>{widths[1]}}  {copies:>{widths[2]}}  {kept_:<{widths[3]}}  {done}".rstrip()
        for name, partitions, copies, kept_, done in rows
    ]


def kept(spec: topics.Spec) -> str:
    """How long a topic's records stay, in words."""
    if spec.kind == topics.RULES:
        return "every publication"
    if spec.config["cleanup.policy"] == "compact":
        return "the latest of each user"
    retention_ms = int(spec.config["retention.ms"])
    return "for ever" if retention_ms < 0 else f"{retention_ms // _DAY_MS} days"
