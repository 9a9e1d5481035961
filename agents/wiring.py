"""What the shards of one worker are connected to: topics, group, ids and limits, all derived from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import TopicPartition

from agents.protocol import ProcessorFactory

REQUEST_TIMEOUT_MS: Final = 40_000


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """Durations are seconds. Topics are physical names."""

    client: Mapping[str, Any]
    """aiokafka's connection arguments: bootstrap_servers, security, timeouts."""
    group: str
    """The consumer group; also the stem of the transactional ids."""
    inputs: Mapping[str, str]
    """Logical name of each input -> its topic, in the order that breaks ties."""
    outputs: Mapping[str, str]
    """Logical name of each output -> its topic."""
    changelog: str
    rules: str | None
    """The topic of the published catalogues; None = the processors come with all they need."""
    shards: int
    """How many there are: the partitions of every input."""
    wall: bool
    """True under CLOCK=wall: the shards are told the time and the ends of their inputs."""
    batch_max: int
    reject_ceiling: int
    """So many messages rejected in a row raise the alarm."""
    make: ProcessorFactory
    session_timeout: float
    instance_id: str | None = None
    transaction_timeout: float = 30.0
    """After so long the brokers end the transaction of a worker that fell silent, and readers go on."""
    look_idle: float = 0.2
    """How often a shard that has nothing to do is told the time."""
    look_busy: float = 1.0
    """How often a shard under load is."""
    hanging_after: float = 60.0
    """An upstream transaction open for longer raises the alarm."""
    lost_after: float = 10.0
    """What was read and has not reached its shard after so long is lost on the way: the shard opens anew."""
    first_retry: float = 0.2
    last_retry: float = 5.0
    _numbered: dict[int, dict[str, TopicPartition]] = field(default_factory=dict, repr=False, compare=False)

    def partitions(self, shard: int) -> Mapping[str, TopicPartition]:
        """A shard's partition of each input, by logical name."""
        found = self._numbered.get(shard)
        if found is None:
            found = {name: TopicPartition(topic, shard) for name, topic in self.inputs.items()}
            self._numbered[shard] = found
        return found

    def transactional_id(self, shard: int) -> str:
        """One for each shard, whichever worker has it, so that a new owner fences the old one."""
        return f"{self.group}-{shard}"
