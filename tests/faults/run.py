"""The fault runs: each fault on a real Kafka, real workers under load, then a table; exit code 1 unless all is zero.

`python -m tests.faults [--long] [--only NAME]... [--seed N]`. The long form kills more than a hundred times.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from app import embedded
from tests.catalogues import THREE
from tests.faults import brokers, logs, rules, workers
from tests.faults.outcome import Verdict
from tests.faults.stage import Stage


class Fault(NamedTuple):
    """One line of the table. `short` and `long` are the sizes of each run of the two forms."""

    name: str
    act: Callable[[Stage, int], Awaitable[Verdict]]
    short: Sequence[int]
    long: Sequence[int]
    brokers: int = 1
    options: Mapping[str, Any] = {}


THREE_COPIES: Mapping[str, Any] = {"replication": 3, "rate": 100}

FAULTS = (
    Fault("nothing at all", workers.calm, (60,), (100,)),
    Fault("kill -9 at work", workers.killed_alone, (6,), (30, 30)),
    Fault("kill -9 of one or both", workers.killed, (6,), (20, 20)),
    Fault("freeze and thaw", workers.frozen, (1,), (4,)),
    Fault("replaced while frozen", workers.replaced_while_frozen, (1,), (3,)),
    Fault("join and leave", workers.joining_and_leaving, (5,), (16,), options={"rate": 150}),
    Fault("all workers and files lost", workers.all_lost, (2,), (5,)),
    Fault("deploy adds an input", workers.deploy, (5,), (10, 10), options={"inputs": "orders,logins,browse,profiles"}),
    Fault("upgrade, back, upgrade", workers.upgrade, (1,), (2,), options={"rules": THREE}),
    Fault("rules change under load", rules.changed_under_load, (2,), (5, 5)),
    Fault("broker stopped 20 s", brokers.stopped, (1,), (3,)),
    Fault("broker kill -9", brokers.killed, (2,), (8,)),
    Fault("broker silent 20 s", brokers.silent, (1,), (2,)),
    Fault("SIGTERM, broker down", brokers.sigterm, (1,), (3,)),
    Fault("late start, wall clock", logs.late_start, (20_000,), (200_000,), options={"clock": "wall", "rules": THREE}),
    Fault("deleted before read", logs.deleted, (2,), (2,)),
    Fault("upstream transaction hangs", logs.hanging, (1,), (1,), options={"rate": 100}),
    Fault("leaders killed in turn", brokers.leaders, (3,), (9,), brokers=3, options=THREE_COPIES),
    Fault("leaders silent in turn", brokers.leaders_silent, (1,), (3,), brokers=3, options=THREE_COPIES),
)


@dataclass
class Line:
    """What came of a fault's runs."""

    name: str
    runs: int = 0
    events: int = 0
    kills: int = 0
    torn: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    seconds: float = 0.0
    seeds: list[int] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    failed: str = ""

    @property
    def clean(self) -> bool:
        return self.verdict.clean and not self.failed


class Ground:
    """Where the runs take place: one cluster at a time, everything below one directory."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="lifecycle-faults-"))
        self._cluster: embedded.Cluster | None = None

    def cluster(self, count: int) -> embedded.Cluster:
        """A running cluster of so many brokers; another one is ended first."""
        if self._cluster is not None and len(self._cluster.nodes) != count:
            self.end()
        if self._cluster is None:
            self._cluster = embedded.up(self.directory / f"brokers-{count}", brokers=count)
        for node in self._cluster.nodes:  # an earlier run may have failed half way
            if node.id in self._cluster.running:
                self._cluster.thaw(node.id)
            else:
                self._cluster.start(node.id)
        return self._cluster

    def end(self) -> None:
        """No broker is left, and no data of theirs."""
        if self._cluster is not None:
            embedded.down(self._cluster.home.parent, erase=True)
            self._cluster = None

    def forget(self) -> None:
        """Nor the workers' logs."""
        self.end()
        shutil.rmtree(self.directory, ignore_errors=True)


async def run(ground: Ground, fault: Fault, sizes: Sequence[int], seed: int) -> Line:
    """All runs of a fault, each with a seed of its own."""
    line = Line(fault.name)
    began = time.monotonic()
    for number, size in enumerate(sizes):
        name = f"{fault.act.__module__.rpartition('.')[2]}-{fault.act.__name__}-{number}".replace("_", "-")
        line.seeds.append(seed + number)
        cluster = await asyncio.to_thread(ground.cluster, fault.brokers)
        stage = Stage(cluster, ground.directory / name, name, seed + number, **fault.options)
        try:
            async with stage:
                line.verdict += await fault.act(stage, size)
        except Exception as error:
            line.failed += f"{name}, seed {seed + number}: {type(error).__name__}: {error}\n"
        line.runs += 1
        line.events += stage.load.events
        line.kills += stage.kills
        line.torn += stage.torn
        line.told += stage.told
        if line.clean:
            shutil.rmtree(stage.directory, ignore_errors=True)
    line.seconds = time.monotonic() - began
    return line


HEAD = (
    f"{'fault':<28}{'runs':>5}{'events':>9}{'kills':>6}{'torn':>7}{'triggers':>9}{'decisions':>10}"
    f"{'missing':>8}{'twice':>6}{'early':>6}{'stale':>6}{'other':>6}{'seconds':>8}  seeds"
)


def shown(line: Line) -> str:
    """A line of the table."""
    v = line.verdict
    return (
        f"{line.name:<28}{line.runs:>5}{line.events:>9}{line.kills:>6}{line.torn:>7}{v.triggers:>9}{v.decisions:>10}"
        f"{v.missing:>8}{v.twice:>6}{v.early:>6}{v.stale:>6}{v.other:>6}{line.seconds:>8.0f}  "
        f"{','.join(map(str, line.seeds))}{'  FAILED' if not line.clean else ''}"
    )


def legend() -> str:
    """What the columns mean."""
    return (
        "torn: records of transactions that a kill left unfinished, and that no careful reader sees.\n"
        "early, stale: decided before or after the undisturbed run did, or not at all by that; or past its expiry.\n"
        "other: rows, dead letters, contents or orders that differ from the undisturbed run."
    )


async def run_all(chosen: Sequence[Fault], long: bool, seed: int) -> list[Line]:
    """Every chosen fault, one after the other; whatever happens, nothing is left running."""
    ground = Ground()
    lines: list[Line] = []
    try:
        print(f"{_commit()}, seed {seed}, logs below {ground.directory}\n\n{HEAD}", flush=True)
        for fault in chosen:
            if fault.act.__module__ == brokers.__name__:  # a broker that starts again loads all that earlier runs left
                ground.end()
            line = await run(ground, fault, fault.long if long else fault.short, seed)
            lines.append(line)
            print(shown(line), flush=True)
            for told in [*line.told, *line.verdict.examples, *line.failed.splitlines()]:
                print(f"    {told}", flush=True)
    finally:
        ground.end()
    total = Line("all", *(sum(getattr(line, name) for line in lines) for name in ("runs", "events", "kills", "torn")))
    total.seconds = sum(line.seconds for line in lines)
    for line in lines:
        total.verdict += line.verdict
        total.failed += line.failed
    print(f"{shown(total)}\n\n{legend()}", flush=True)
    if total.clean:
        ground.forget()
    return lines


def _commit() -> str:
    found = subprocess.run(["git", "log", "-1", "--format=%h"], capture_output=True, text=True)
    return f"commit {found.stdout.strip()}" if found.returncode == 0 else "no commit"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when all is zero."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="The fault runs on a real Kafka.")
    parser.add_argument("--long", action="store_true", help="the long form: more than a hundred kills")
    parser.add_argument("--only", action="append", metavar="NAME", help="only faults with this in their name")
    parser.add_argument("--seed", type=int, default=1, help="where the seeds begin")
    given = parser.parse_args(arguments)
    chosen = [f for f in FAULTS if not given.only or any(name in f.name for name in given.only)]
    if not chosen:
        parser.error(f"no fault is named so; there are: {'; '.join(fault.name for fault in FAULTS)}")
    for library in ("aiokafka", "faust", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # brokers go away on purpose here
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return int(not all(line.clean for line in asyncio.run(run_all(chosen, given.long, given.seed))))
    except KeyboardInterrupt:
        print("Told to stop before the end; nothing is left running.", file=sys.stderr)
        return 130
