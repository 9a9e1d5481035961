"""aiokafka's client with its mended faults, for every consumer and producer of the engine.

Each is here because a fault run met it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError, NodeNotReadyError

_FENCED_INSTANCE_ID: Final = 82  # Kafka's code; aiokafka has no error for it
_PAUSE_SECONDS: Final = 1.0


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


class NameTaken(Exception):
    """Another worker runs under this one's LIFECYCLE_INSTANCE_ID; the words say what to do."""

    safe_to_log = True


class NamedCoordinator(GroupCoordinator):
    """A member of the group that has a name of its own (static membership), and does not take it from another.

    When the group no longer knows its member id, aiokafka joins anew under the name, and so robs whoever has it now: a
    frozen worker and its replacement would throw each other out in turns, for ever. Here it first asks under its old
    id. The group then says whether that member is forgotten (join anew) or replaced: `taken`.
    """

    taken: NameTaken | None = None
    member_id: str
    _doubted = ""

    def reset_generation(self) -> None:
        """The group did not recognise us: the first time, keep the member id to ask with."""
        member = self.member_id
        super().reset_generation()
        if member and member != self._doubted:
            self.member_id = self._doubted = member

    async def _do_heartbeat(self) -> bool:
        if self.generation < 0:
            return True  # not a member until the question is answered; the coordinator itself is well
        known = bool(await super()._do_heartbeat())
        if known:
            self._doubted = ""
        return known

    async def _send_req(self, request: Any) -> Any:
        response = await super()._send_req(request)
        if getattr(response, "error_code", 0) == _FENCED_INSTANCE_ID:
            self.taken = NameTaken(
                f"Another worker has joined the group as {self._group_instance_id}, so this one ends: give each worker "
                "a LIFECYCLE_INSTANCE_ID of its own, or none."
            )
            await asyncio.sleep(_PAUSE_SECONDS)  # it is asked again until the worker ends
            raise KafkaError(str(self.taken))
        return response


def named(coordinator: GroupCoordinator) -> None:
    """Make the coordinator, which aiokafka builds inside a consumer, a NamedCoordinator if it has a name."""
    if getattr(coordinator, "_group_instance_id", None) is not None:
        coordinator.__class__ = NamedCoordinator


def require_alive(**tasks: Any) -> None:
    """Raises ClientBroken, naming the first of these tasks that has ended."""
    for name, task in tasks.items():
        if task is not None and task.done():
            error = None if task.cancelled() else task.exception()
            raise ClientBroken(f"aiokafka's {name} has ended ({type(error).__name__})") from error
