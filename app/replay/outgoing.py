"""An event on its way to Kafka: its input, when it happened, its bytes. Nothing here knows a partition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Outgoing(NamedTuple):
    """One message to publish. `occurred_at` is in microseconds since 1970 and orders the stream."""

    occurred_at: int
    input: str
    """Logical input topic without prefix, or `EVERY_INPUT`."""
    key: bytes | None
    value: bytes | None


EVERY_INPUT = "*"
"""The input of a message that every partition of every input must hear: ClockAdvanced."""


def before(events: Iterable[Outgoing], until: int | None) -> Iterator[Outgoing]:
    """The events of a stream in time order that happened before `until` (microseconds since 1970; None = all)."""
    for event in events:
        if until is not None and event.occurred_at >= until:
            return
        yield event
