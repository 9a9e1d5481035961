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
from app.publications.record import in_effect
from app.settings import Settings
from app.topics import TopicProblem, check_topics
from schemas.nearest import nearest


class Rules(NamedTuple):
    """What is known of the rules."""

    catalogue: Catalogue | None
    """In effect; None when this release cannot read it."""
    meanings: Mapping[str, Mapping[str, Any]]
    """By name, of those in effect: each as its file has it."""
    others: frozenset[str]
    """Names that are only in other publications."""


async def published(settings: Settings) -> Rules:
    """The rules in effect. Raises PublishingProblem."""
    publications = await publishing.read(settings)
    present = in_effect(publications, clock.now())
    if present is None:
        return of_directory(settings)
    rules = change.rules_of(present.files)
    every = {name for publication in publications for name in change.rules_of(publication.files)}
    try:
        catalogue = rulebook.compiled(present.files)
    except CatalogueError:
        catalogue = None
    return Rules(catalogue, {name: rule.meaning for name, rule in rules.items()}, frozenset(every - rules.keys()))


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
    return Rules(catalogue, {name: rule.meaning for name, rule in change.rules_of(files).items()}, frozenset())


def require(rules: Rules, name: str, heard_of: bool = False) -> None:
    """That there is a rule of this name, was one, or that something of it is kept (`heard_of`), which is said beside
    the answer. Raises BadParameter. Where no rule is known, any may be named."""
    if not rules.meanings or name in rules.meanings:
        return
    if heard_of or name in rules.others:
        click.echo(f"'{name}' is none of the rules in effect; what is kept of it is shown.", err=True)
        return
    near = nearest(name, rules.meanings)
    hint = f"Did you mean {near}?" if near else f"There are: {', '.join(sorted(rules.meanings))}."
    raise click.BadParameter(f"There is no rule '{name}'. {hint}", param_hint="--rule")
