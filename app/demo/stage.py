"""What the demo starts and must stop: an embedded Kafka, a worker, a directory. After `close` none of it is left."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from app import clock, embedded
from app.embedded.ports import HOST, find_free
from app.settings import PREFIX, Settings, load_settings

_READY_S: Final = 180.0
_STOP_S: Final = 30.0
"""A worker ends by itself within 25 s of being told to, even when its brokers are gone."""
_LAST_LINES: Final = 6


class DemoProblem(Exception):
    """The demo cannot go on. The text says why, and what to do."""


class Stage:
    """Kafka and one worker under a directory of their own, on free ports of loopback.

    `keep` leaves the directory (Kafka's data and the logs) when everything is stopped.
    """

    def __init__(self, keep: bool) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="lifecycle-demo-"))
        self._keep = keep
        self._worker: subprocess.Popen[bytes] | None = None
        self._env: dict[str, str] = {}
        self._http_port = 0

    @property
    def settings(self) -> Settings:
        """The demo's own settings, whatever the environment says. Kafka must have been started."""
        return load_settings(self._env)

    @property
    def worker_log(self) -> Path:
        return self.directory / "worker.log"

    def start_kafka(self, progress: embedded.Progress) -> None:
        """Return when Kafka serves. Raises KafkaProblem."""
        cluster = embedded.up(self.directory, progress=progress)
        self._http_port = find_free(())
        ours = {
            "KAFKA_BOOTSTRAP": cluster.bootstrap,
            "APP_ID": "lifecycle-demo",
            "CLOCK": "events",  # the purchases say what time it is
            "START": "none",  # send what is due in the replayed year, too
            "DATA_DIR": str(self.directory),
            "HTTP_PORT": str(self._http_port),
            "LOG_FORMAT": "text",
        }
        self._env = {PREFIX + name: value for name, value in ours.items()}

    def start_worker(self) -> None:
        """Return when the worker has opened its shards. Raises DemoProblem when it ends or takes too long."""
        with self.worker_log.open("wb") as log:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "app", "worker"],
                cwd=Path(__file__).parents[2],
                env=_environment(self._env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the worker
            )
        give_up = clock.monotonic() + _READY_S
        while self.get("/ready")[0] != http.client.OK:
            self.require_worker()
            if clock.monotonic() > give_up:
                raise DemoProblem(f"The worker was not ready within {_READY_S:.0f} s.\n{self.last_words()}")
            time.sleep(0.1)

    def require_worker(self) -> None:
        """Raises DemoProblem, with the end of its log, when the worker has ended."""
        if self._worker is not None and self._worker.poll() is not None:
            raise DemoProblem(f"The worker ended with exit code {self._worker.returncode}.\n{self.last_words()}")

    def last_words(self) -> str:
        """The last lines of the worker's log, which is gone when the stage is closed without `keep`."""
        lines = self.worker_log.read_text(errors="replace").splitlines() if self.worker_log.exists() else []
        return "\n".join(["Its log ends:", *(f"  {line[:300]}" for line in lines[-_LAST_LINES:])])

    def get(self, page: str) -> tuple[int, bytes]:
        """Status and body of one of the worker's pages; status 0 while it does not answer."""
        connection = http.client.HTTPConnection(HOST, self._http_port, timeout=5)
        try:
            connection.request("GET", page)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def close(self) -> list[str]:
        """Stop everything, and look whether it is gone: a sentence for each thing that is left, normally none.

        Signals wait meanwhile: a second Ctrl-C must not leave half of it running.
        """
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._stop_worker()
            with contextlib.suppress(embedded.KafkaProblem):
                embedded.down(self.directory, erase=not self._keep)
            if not self._keep:
                shutil.rmtree(self.directory, ignore_errors=True)
            return self._left()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop_worker(self) -> None:
        if self._worker is None:
            return
        self._worker.terminate()
        try:
            self._worker.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._worker.pid, signal.SIGKILL)
            self._worker.wait(_STOP_S)

    def _left(self) -> list[str]:
        here = str(self.directory)
        left = [
            f"Process {process.pid} of the demo is still running: end it by hand."
            for process in psutil.Process().children(recursive=True) + _processes_in(here)
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]
        if self.directory.exists() and not self._keep:
            left.append(f"{here} could not be removed: remove it by hand.")
        return left


def _processes_in(directory: str) -> list[psutil.Process]:
    """Processes whose command line names the directory: a broker is detached, and so no child of ours."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(directory in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What a process of ours inherits: everything but the settings of the person who runs the demo."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}  # noqa: TID251
    return inherited | dict(ours)
