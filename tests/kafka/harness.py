"""Workers as processes, to be killed, frozen and stopped; and what a run of the simple job must end with."""

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
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from app.settings import PREFIX, Settings
from tests.catalogues import THREE
from tests.kafka.simple_job import EVERY

ROOT = Path(__file__).parents[2]


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
            with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/{page}", timeout=5) as answer:
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
    """Wait until `check` holds; an AssertionError with `explain` after `within` seconds."""
    ends = time.monotonic() + within
    while True:
        found = check()
        if found if isinstance(found, bool) else await found:
            return
        if time.monotonic() > ends:
            raise AssertionError(f"not within {within} s: {explain()}")
        await asyncio.sleep(0.05)


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
