"""What an erasure makes of a user's events: what comes after it is ignored, until a later registration begins anew."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import tzinfo
from typing import NamedTuple

from app.explain.timeline import local
from schemas.events import Event, UserErased, UserRegistered


class Heard(NamedTuple):
    """An event, and when its record was written (microseconds UTC)."""

    event: Event
    written_at: int


class Erasure(NamedTuple):
    """The latest erasure of a user; all empty when there was none."""

    at: int | None = None
    anew_at: int | None = None
    """When the user registered after it."""
    ignored: frozenset[str] = frozenset()
    """Ids of the events that came in vain; one that came before as well is none of them."""


def erasure(heard: Iterable[Heard], by_time: bool) -> Erasure:
    """What the workers made of these events: they take them as they were written, or, `by_time`, as they happened."""
    at: int | None = None
    anew_at: int | None = None
    ignored: set[str] = set()
    taken: set[str] = set()
    for event, _ in sorted(heard, key=lambda one: (0 if by_time else one.written_at, one.event.occurred_at)):
        old = at is not None and event.occurred_at <= at
        if isinstance(event, UserErased):
            at, anew_at = (at, anew_at) if old else (event.occurred_at, None)
            continue
        if at is not None and not old and anew_at is None and isinstance(event, UserRegistered):
            anew_at = event.occurred_at
        (ignored if old or (at is not None and anew_at is None) else taken).add(event.event_id)
    return Erasure(at, anew_at, frozenset(ignored - taken))


def said(of: Erasure, zone: tzinfo) -> list[str]:
    """What the timeline of an erased user ends with."""
    if of.at is None:
        return []
    head = f"The user was erased on {local(of.at, zone)}"
    if of.anew_at is not None:
        return [
            f"{head} and registered anew on {local(of.anew_at, zone)}: what happened before the erasure is forgotten."
        ]
    return [f"{head}: what was known is gone, and what comes is ignored. Only a later registration begins anew."]
