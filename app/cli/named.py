"""The rules that a person may ask about: those in effect, and those that were or will be.

What is published counts; where nothing is, the directory that a worker would publish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import click

from app import clock, rulebook
from app.core.problems import CatalogueError
from app.core.rules import Catalogue
from app.publications import change
from app.publications import topic as publishing
from app.publications.change import Kept
from app.publications.record import in_effect
from app.settings import Settings
from app.topics import TopicProblem, check_topics
from schemas.nearest import nearest


class Rules(NamedTuple):
    """What is known of the rules."""

    catalogue: Catalogue | None
    """In effect; None when this release cannot read it."""
    data: Mapping[str, Mapping[str, Any]]
    """By name, of those in effect: each as its file has it, with the pause that somebody said since."""
    others: frozenset[str]
    """Names that are only in other publications."""
    number: int | None = None
    """Of the publication that they are of; None: they are a directory's."""
    unreadable: Mapping[int, str] = {}
    """By number, of the publications that this release cannot read: why. One of them may be the one in effect."""


async def published(settings: Settings) -> Rules:
    """The rules in effect by the wall clock. Raises PublishingProblem."""
    found = await publishing.read_all(settings)
    present = in_effect(found.published, clock.now())
    if present is None:
        return of_directory(settings)._replace(unreadable=found.unreadable)
    rules = change.rules_of(present.files)
    every = {name for publication in found.published for name in change.rules_of(publication.files)}
    try:
        catalogue = rulebook.compiled(present.files)
    except CatalogueError:
        catalogue = None
    data = {name: _data(rule, present.way(name)) for name, rule in rules.items()}
    return Rules(catalogue, data, frozenset(every - rules.keys()), present.number, found.unreadable)


async def published_if_any(settings: Settings) -> Rules:
    """The same, where a topic to read them from is at hand; else the directory's."""
    try:
        await check_topics(settings)
        return await published(settings)
    except (TopicProblem, publishing.PublishingProblem):
        return of_directory(settings)


def of_directory(settings: Settings) -> Rules:
    """The rules that a worker of these settings would publish."""
    try:
        files, catalogue = rulebook.checked(settings.rules)
    except CatalogueError:
        return Rules(None, {}, frozenset())
    return Rules(catalogue, {name: _data(rule) for name, rule in change.rules_of(files).items()}, frozenset())


def _data(rule: Kept, said: str | None = None) -> Mapping[str, Any]:
    way = said or rule.paused  # as `change.pause_of`: what somebody said goes before the file
    return {**rule.meaning, "version": rule.version, **({"paused": way} if way else {})}


def require(rules: Rules, name: str, heard_of: bool = False) -> None:
    """That there is a rule of this name, was one, or that something of it is kept (`heard_of`), which is said beside
    the answer. Raises BadParameter. Where no rule is known, any may be named."""
    if not rules.data or name in rules.data:
        return
    if heard_of or name in rules.others:
        click.echo(f"'{name}' is none of the rules in effect; what is kept of it is shown.", err=True)
        return
    near = nearest(name, rules.data)
    hint = f"Did you mean {near}?" if near else f"There are: {', '.join(sorted(rules.data))}."
    raise click.BadParameter(f"There is no rule '{name}'. {hint}", param_hint="--rule")
