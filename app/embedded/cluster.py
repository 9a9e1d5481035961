"""A cluster on this machine, described by `cluster.json` in its directory and by which of its processes are alive.

Every change (start, stop, kill) is made under the directory's lock and written down before anything waits for it, so
that a `lifecycle` that was killed half way leaves a cluster that the next one can take over, start or stop.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.embedded import config, jars, java
from app.embedded.config import Node
from app.embedded.locks import locked
from app.embedded.ports import HOST, brokers_seen
from app.embedded.problem import KafkaProblem

if TYPE_CHECKING:
    import psutil

#: Java heap of a node, by the number of nodes.
HEAP_MB = {1: 512, 3: 384}
READY_TIMEOUT_S = 180
#: A clean stop takes under a second; nodes that have lost their quorum cannot hand over and are killed after this.
STOP_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker as it was when it was asked for."""

    id: int
    port: int
    pid: int | None
    """None when it does not run."""
    log: Path


class Cluster:
    """The embedded cluster in a directory. Brokers are numbered from 1. Raises KafkaProblem throughout."""

    def __init__(self, home: Path, cluster_id: str, nodes: Sequence[Node], pids: dict[int, int], cache_dir: Path):
        self.home = home
        self.cluster_id = cluster_id
        self.nodes = tuple(nodes)
        self.cache_dir = cache_dir
        self.fresh = False
        """Whether `up` had to start anything."""
        self._pids = pids

    # ------------------------------------------------------------------------------------------------ description

    @classmethod
    def load(cls, home: Path, cache_dir: Path) -> Cluster | None:
        """The cluster of a directory; None when there is none yet."""
        path = home / "cluster.json"
        try:
            told = json.loads(path.read_text())
            nodes = [Node(n["id"], n["port"], n["controller_port"], home / f"node-{n['id']}") for n in told["nodes"]]
            pids = {n["id"]: n["pid"] for n in told["nodes"] if n["pid"] is not None}
            return cls(home, told["cluster_id"], nodes, pids, cache_dir)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KafkaProblem(
                f"{path} cannot be read ({error}): remove {home} to start with an empty Kafka."
            ) from error

    def save(self) -> None:
        """Write the description; readers see the old one or the new one."""
        nodes = [
            {"id": n.id, "port": n.port, "controller_port": n.controller_port, "pid": self._pids.get(n.id)}
            for n in self.nodes
        ]
        draft = self.home / "cluster.json.new"
        draft.write_text(json.dumps({"kafka": jars.locked_version(), "cluster_id": self.cluster_id, "nodes": nodes}))
        draft.replace(self.home / "cluster.json")

    @property
    def bootstrap(self) -> str:
        """`host:port` of every broker, separated by commas."""
        return ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """All brokers, with the pids of those that run now."""
        return tuple(
            Broker(node.id, node.port, self._pids[node.id] if self._process(node) else None, node.log)
            for node in self.nodes
        )

    @property
    def running(self) -> tuple[int, ...]:
        """The ids of the brokers that run now, frozen ones included."""
        return tuple(broker.id for broker in self.brokers if broker.pid is not None)

    # ----------------------------------------------------------------------------------------------------- faults

    def start(self, i: int, wait: bool = True) -> None:
        """Start broker `i` on the port it had; with `wait`, return when it serves. Nothing happens if it runs."""
        with locked(self.home):
            self.spawn([self._node(i)])
        if wait:
            self.wait_ready(brokers=[i])

    def stop(self, i: int, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM: broker `i` hands its leaders over and ends; it is killed when that takes longer than `timeout_s`."""
        self.end([self._node(i)], signal.SIGTERM, timeout_s)

    def kill(self, i: int) -> None:
        """SIGKILL, and wait until broker `i` is gone."""
        self.end([self._node(i)], signal.SIGKILL, java.KILL_TIMEOUT_S)

    def freeze(self, i: int) -> None:
        """SIGSTOP: broker `i` keeps its connections and says nothing more until `thaw`."""
        self._require(i).suspend()

    def thaw(self, i: int) -> None:
        """SIGCONT."""
        self._require(i).resume()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S, brokers: Iterable[int] | None = None) -> None:
        """Return when each of `brokers` (default: all) answers and knows of at least as many as run.

        Raises KafkaProblem when one of them ends, with the reason from its log, or when time is up.
        """
        waiting = [self._node(i) for i in brokers] if brokers is not None else list(self.nodes)
        give_up = time.monotonic() + timeout_s
        while waiting:
            node = waiting[0]
            if self._process(node) is None:
                raise KafkaProblem(
                    f"Kafka broker {node.id} stopped while it started: {java.last_words(node)}. Its log is {node.log}."
                )
            if brokers_seen(node.port) >= len(self.running):
                waiting.pop(0)
            elif time.monotonic() > give_up:
                raise KafkaProblem(
                    f"Kafka broker {node.id} does not serve after {timeout_s:.0f} s. Its log is {node.log}; "
                    "`lifecycle kafka down` stops it."
                )
            else:
                time.sleep(0.05)

    # ------------------------------------------------------------------------------------------------------ parts

    def spawn(self, nodes: Sequence[Node]) -> None:
        """Start those of `nodes` that do not run. The caller holds the lock; jars and data are there."""
        class_path = [jars.home(self.cache_dir) / jar.file_name for jar in jars.locked_jars()]
        for node in nodes:
            if self._process(node) is None:
                config.write(node, self.nodes)
                aot = f"-XX:AOTCache={java.archive(self.cache_dir)}"
                self._pids[node.id] = java.spawn(node, class_path, HEAP_MB[len(self.nodes)], aot)
                self.save()

    def end(self, nodes: Sequence[Node], how: signal.Signals, timeout_s: float) -> None:
        """Signal all of `nodes` that run, then wait for each; whoever is left when time is up is killed."""
        with locked(self.home):
            self.end_unlocked(nodes, how, timeout_s)

    def end_unlocked(self, nodes: Sequence[Node], how: signal.Signals, timeout_s: float) -> None:
        """`end` for a caller that holds the lock."""
        alive = [process for node in nodes if (process := self._process(node)) is not None]
        give_up = time.monotonic() + timeout_s
        for process in alive[1:]:
            java.end(process, how, 0)
        for process in alive:
            left = max(0.0, give_up - time.monotonic())
            if not java.end(process, how, left) and not java.end(process, signal.SIGKILL, java.KILL_TIMEOUT_S):
                raise KafkaProblem(f"The Kafka process {process.pid} cannot be ended: end it by hand.")
        for node in nodes:
            self._pids.pop(node.id, None)
        self.save()

    def _node(self, i: int) -> Node:
        for node in self.nodes:
            if node.id == i:
                return node
        raise KafkaProblem(f"There is no broker {i}: this cluster has {', '.join(str(n.id) for n in self.nodes)}.")

    def _process(self, node: Node) -> psutil.Process | None:
        return java.find(self._pids.get(node.id), node.home)

    def _require(self, i: int) -> psutil.Process:
        process = self._process(self._node(i))
        if process is None:
            raise KafkaProblem(f"Broker {i} does not run.")
        return process
