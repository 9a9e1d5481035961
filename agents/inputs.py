"""The Faust agents: one for each input topic. An agent hands what it receives to the shard of that partition.

It never waits: how much a shard is given is decided before it is fetched, so no agent can hold up another shard.
"""

from __future__ import annotations

from typing import Any

import faust
from faust.types import EventT, Message

from agents.wiring import Wiring


class Untouched(faust.Schema[Any, Any]):
    """Messages pass as they are: decoding is the processor's, and a bad one must reach the dead letters."""

    def compile(self, app: Any, **_: Any) -> Any:
        """The decoder Faust calls for each message."""
        create_event = app.create_event

        async def decode(message: Message, *, propagate: bool = False) -> EventT[Any]:
            event: EventT[Any] = create_event(None, message.value, None, message)
            return event

        return decode


def add_agents(app: Any, wiring: Wiring) -> None:
    """Give `app` its agents, named after the inputs."""
    for name, topic in wiring.inputs.items():
        _add_agent(app, name, topic)


def _add_agent(app: Any, name: str, topic: str) -> None:
    async def agent(chunks: faust.StreamT[Any]) -> None:
        async for chunk in chunks:
            app.shards.deliver(name, chunk)

    agent.__name__ = agent.__qualname__ = name
    app.agent(app.topic(topic, schema=Untouched(), acks=False), name=name)(agent)
