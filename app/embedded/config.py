"""What a node of the embedded cluster is told: server.properties, its log lines' form, and where its files are.

One node is broker and controller at once. Three of them are one quorum, with three copies of everything internal of
which two must be in sync, as in production.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.embedded.ports import HOST


@dataclass(frozen=True, slots=True)
class Node:
    """One node's identity, ports and directory."""

    id: int
    """1, 2, 3."""
    port: int
    controller_port: int
    home: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def properties(self) -> Path:
        return self.home / "server.properties"

    @property
    def log_settings(self) -> Path:
        return self.home / "log4j2.properties"

    @property
    def scratch(self) -> Path:
        """Where the JVM unpacks the compression codecs; the system's own may forbid executing files."""
        return self.home / "tmp"

    @property
    def is_formatted(self) -> bool:
        """The format tool writes this file last."""
        return (self.data / "meta.properties").exists()


def server_properties(node: Node, nodes: Sequence[Node]) -> str:
    """The node's settings as a Java properties file."""
    copies = min(3, len(nodes))
    in_sync = 2 if copies == 3 else 1
    voters = ",".join(f"{other.id}@{HOST}:{other.controller_port}" for other in nodes)
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node.id,
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://{HOST}:{node.port},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{node.port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": node.data,
        # A misspelt topic is an error, as on a production cluster.
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        # Few partitions: each is created, with its files, when the first group or transaction comes.
        "offsets.topic.num.partitions": 8,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": 8,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        # The first member of a group waits for nobody; tests may use short sessions.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1_000,
        # A worker that rests for a holiday finds its position again (the default forgets it after a week).
        "offsets.retention.minutes": 525_600,
        # A dead worker's open transaction holds readers up until it is aborted: look every second, not every ten.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
        # A node that died without a word is missed, and may come back, after 4 s (the default is 9 s).
        "broker.session.timeout.ms": 4_000,
        "broker.heartbeat.interval.ms": 1_000,
        # Memory and threads for a laptop: the cleaner's table alone takes 128 MB by default.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 4,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


#: Dumps of all settings, a thousand lines at each start, are left out.
LOG_SETTINGS = """\
status=warn
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=info
rootLogger.appenderRef.console.ref=console
logger.settings.name=org.apache.kafka.common.config
logger.settings.level=warn
logger.server.name=kafka.server.KafkaConfig
logger.server.level=warn
"""


def write(node: Node, nodes: Sequence[Node]) -> None:
    """Write the node's files; its data is left alone."""
    node.scratch.mkdir(parents=True, exist_ok=True)
    node.properties.write_text(server_properties(node, nodes))
    node.log_settings.write_text(LOG_SETTINGS)
