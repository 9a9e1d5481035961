"""Workers as processes, to be killed, frozen and stopped; and what a run of the simple job must end with.

How long something may take is written for a machine with nothing else to do, and is waited for PATIENCE times as long:
no test may fail because others run beside it. What is waited for is always the thing itself, never a while. Only what
SIGTERM may take is a promise to operators, busy machine or not.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from app.settings import PREFIX, Settings
from app.topics import physical
from tests.catalogues import THREE
from tests.kafka.simple_job import EVERY

ROOT = Path(__file__).parents[2]
PATIENCE = 4
_MARKERS_SECONDS = 2.0
"""What the markers of a transaction may take; it is left open if they are not there by then."""


def environment(settings: Settings, **more: object) -> dict[str, str]:
    """The environment of a worker with these settings; `more` are further settings in lower case."""
    given: dict[str, object] = {
        "kafka_bootstrap": settings.kafka_bootstrap,
        "app_id": settings.app_id,
        "topic_prefix": settings.topic_prefix,
        "inputs": ",".join(settings.inputs),
        "partitions": settings.partitions,
        "clock": settings.clock,
        "lateness": f"{settings.lateness // 1000}ms",
        "batch_max": settings.batch_max,
        "session_timeout": f"{settings.session_timeout // 1000}ms",
        "data_dir": settings.data_dir,
        "http_port": 0,
        "rules": THREE,
        "log_format": "text",
        **({"erasure_key": settings.erasure_key} if settings.erasure_key else {}),
        **more,
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**others, **{PREFIX + name.upper(): str(value) for name, value in given.items()}}


class Worker:
    """One worker process. `command` is what follows the interpreter; its log goes to a file and to `log()`."""

    SIMPLE = ("-m", "tests.kafka.simple_worker")
    REAL = ("-m", "app", "worker")

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        name: str = "worker",
        command: Iterable[str] = SIMPLE,
        options: Mapping[str, object] | None = None,
        **more: object,
    ) -> None:
        self.name = name
        self._path = directory / f"{name}.log"
        self._command = [sys.executable, *command, *([json.dumps(options)] if options else [])]
        self._env = environment(settings, **more)
        self._process: subprocess.Popen[bytes] | None = None
        self._from = 0

    def start(self) -> Worker:
        with self._path.open("ab") as log:
            self._from = log.tell()
            self._process = subprocess.Popen(self._command, cwd=ROOT, env=self._env, stdout=log, stderr=log)
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def log(self, whole: bool = False) -> str:
        """What it wrote since its last start, or ever."""
        return self._path.read_bytes()[0 if whole else self._from :].decode(errors="replace")

    def kill(self) -> None:
        """As the kernel would: no goodbye."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self, within: float = 30) -> tuple[int, float]:
        """SIGTERM; the exit code, and how many seconds it took."""
        began = time.monotonic()
        self.process.terminate()
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} was not gone {within} s after SIGTERM:\n{self.log()[-3000:]}") from None
        return code, time.monotonic() - began

    async def ended(self, within: float = 20) -> int:
        """Wait until it has ended by itself; the exit code."""
        try:
            return await asyncio.to_thread(self.process.wait, within * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} has not ended within {within * PATIENCE} s:\n{self.log()[-3000:]}"
            ) from None

    def close(self) -> None:
        """Whatever state it is in: gone."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def get(self, page: str) -> tuple[int, str]:
        """A page's status and text; (0, reason) when nobody answers."""
        port = re.search(r"Pages: http://\S+:(\d+)/ready", self.log())
        if port is None:
            return 0, "not listening yet"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/{page}", timeout=5 * PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metric(self, name: str, **labels: object) -> float:
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.get("metrics")[1].splitlines():
            if re.match(rf"{name}[{{ ]", line) and all(f'{key}="{value}"' in line for key, value in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    async def ready(self, within: float = 30) -> None:
        """Wait until /ready says yes."""
        await until(lambda: self.get("ready")[0] == 200, within, lambda: f"{self.get('ready')}\n{self.log()[-3000:]}")


async def until(
    check: Callable[[], bool | Awaitable[bool]], within: float, explain: Callable[[], object] = lambda: ""
) -> None:
    """Wait until `check` holds; an AssertionError with `explain` after `within` seconds (see above)."""
    ends = time.monotonic() + within * PATIENCE
    while True:
        found = check()
        if found if isinstance(found, bool) else await found:
            return
        if time.monotonic() > ends:
            raise AssertionError(f"not within {within * PATIENCE} s: {explain()}")
        await asyncio.sleep(0.05)


async def ends(
    consumer: AIOKafkaConsumer, settings: Settings, tps: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """Where the partitions end now, for a consumer that reads what is committed.

    A commit is answered before its markers are written, and until then nobody sees what it wrote: that moment is waited
    for. A transaction that somebody left open is not.
    """
    async with AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap, request_timeout_ms=60_000) as all_of_it:
        written: dict[TopicPartition, int] = await all_of_it.end_offsets(tps)
    give_up = time.monotonic() + _MARKERS_SECONDS
    while True:
        found: dict[TopicPartition, int] = await consumer.end_offsets(tps)
        if all(found[tp] >= end for tp, end in written.items()) or time.monotonic() > give_up:
            return found
        await asyncio.sleep(0.02)


async def applied_up_to_the_end(settings: Settings, within: float = 30) -> None:
    """Wait until the group has committed the ends of all inputs; a metric of lag may be a second old."""
    tps = [TopicPartition(physical(settings, name), p) for name in settings.inputs for p in range(settings.partitions)]
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        async with AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap, isolation_level="read_committed"
        ) as consumer:
            wanted = {tp: end for tp, end in (await ends(consumer, settings, tps)).items() if end}
        committed: dict[TopicPartition, int] = {}

        async def reached() -> bool:
            found = await admin.list_consumer_group_offsets(settings.topic_prefix + settings.app_id)
            committed.update({tp: meta.offset for tp, meta in found.items()})
            return all(committed.get(tp, 0) >= end for tp, end in wanted.items())

        await until(reached, within, lambda: (wanted, committed))
    finally:
        await admin.close()


async def until_known(settings: Settings, logical: str, partitions: int | None) -> None:
    """Wait until the broker knows that a topic has so many partitions (None: that it is gone). It hears of that a
    moment after the controller has said yes."""
    topic, admin = physical(settings, logical), AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    there: dict[str, int] = {}

    async def known() -> bool:
        there.clear()
        there.update({found["topic"]: len(found["partitions"]) for found in await admin.describe_topics()})
        return there.get(topic) == partitions

    await admin.start()
    try:
        await until(known, 20, lambda: f"{topic} has {there.get(topic)} partitions, not {partitions}")
    finally:
        await admin.close()


class Expected:
    """What the simple job must have written in the end, given every event it was sent."""

    def __init__(self) -> None:
        self.events: Counter[bytes] = Counter()
        self.cents: Counter[bytes] = Counter()

    def add(self, records: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Note the records, and give them back to be sent."""
        records = list(records)
        for key, value in records:
            self.events[key] += 1
            self.cents[key] += json.loads(value)["cents"]
        return records

    def triggers(self) -> Counter[bytes]:
        """Each trigger id, once."""
        return Counter(
            f"{user.decode()}-{n}".encode()
            for user, count in self.events.items()
            for n in range(EVERY, count + 1, EVERY)
        )

    def rows(self) -> dict[bytes, list[int]]:
        """For each user: events, cents."""
        return {user: [count, self.cents[user]] for user, count in self.events.items()}


def trigger_ids(consumed: Iterable[Any]) -> Counter[bytes]:
    """The ids in a trigger topic, with how often each is there."""
    return Counter(dict(record.headers)["ce_id"] for record in consumed)


def rows(consumed: Iterable[Any]) -> dict[bytes, list[int]]:
    """The rows that a changelog, read in order, ends with."""
    latest = {record.key: record.value for record in consumed}
    return {key: json.loads(value)[:2] for key, value in latest.items() if value is not None}
