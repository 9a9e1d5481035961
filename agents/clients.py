"""aiokafka's client with its mended faults, for every consumer and producer of the engine.

Each is here because a fault run met it.
"""

from __future__ import annotations

from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import KafkaError, NodeNotReadyError


class ClientBroken(KafkaError):
    """One of aiokafka's own background tasks died; the client would stay silent for ever."""

    safe_to_log = True


class SteadyClient(AIOKafkaClient):
    """A client that reports a connection gone during a request as what it is."""

    async def send(self, node_id: Any, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        """As aiokafka's, which raises KeyError when a request times out after its connection was given up (a process
        that was frozen): an error nobody expects, and it ends the fetcher's or the sender's task for good."""
        try:
            return await super().send(node_id, request, group=group)
        except KeyError:
            raise NodeNotReadyError(f"the connection to node {node_id} went away during a request") from None


def steady(client: AIOKafkaClient) -> None:
    """Make a client, which aiokafka builds inside its consumers and producers, a SteadyClient."""
    client.__class__ = SteadyClient


def require_alive(**tasks: Any) -> None:
    """Raises ClientBroken, naming the first of these tasks that has ended."""
    for name, task in tasks.items():
        if task is not None and task.done():
            error = None if task.cancelled() else task.exception()
            raise ClientBroken(f"aiokafka's {name} has ended ({type(error).__name__})") from error
