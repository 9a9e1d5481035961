"""The three pages, asked over a real socket."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest

from app.http import HttpProblem, HttpServer
from app.metrics import Metrics


class Worker:
    """What the pages are asked about."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.live: tuple[bool, str] = (True, "Alive.")
        self.ready: tuple[bool, str] | Exception = (False, "Shard 2 is being restored.")
        self.server = HttpServer("127.0.0.1", 0, self.metrics, lambda: self.live, self._is_ready)

    def _is_ready(self) -> tuple[bool, str]:
        if isinstance(self.ready, Exception):
            raise self.ready
        return self.ready


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker()
    worker.url = f"http://127.0.0.1:{await worker.server.start()}"  # type: ignore[attr-defined]
    yield worker
    await worker.server.stop()


async def get(worker: Worker, path: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(worker.url + path) as answer:  # type: ignore[attr-defined]
        assert answer.headers["Server"] == "lifecycle"
        return answer.status, await answer.text(), answer.headers["Content-Type"]


async def test_metrics_are_served_as_prometheus_reads_them(worker: Worker) -> None:
    worker.metrics.count(Counter({("triggers", "winback"): 3}))
    status, text, kind = await get(worker, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    assert 'lifecycle_triggers_total{rule="winback"} 3.0' in text.splitlines()


async def test_live_and_ready_answer_with_a_sentence(worker: Worker) -> None:
    assert (await get(worker, "/live"))[:2] == (200, "Alive.\n")
    assert (await get(worker, "/ready"))[:2] == (503, "Shard 2 is being restored.\n")
    worker.live, worker.ready = (False, "Shard 1 stopped."), (True, "4 of 4 shards are open.")
    assert (await get(worker, "/live"))[:2] == (503, "Shard 1 stopped.\n")
    assert (await get(worker, "/ready"))[:2] == (200, "4 of 4 shards are open.\n")


async def test_a_check_that_fails_counts_as_not_well_and_quotes_nothing(worker: Worker) -> None:
    worker.ready = KeyError("u-42")
    assert (await get(worker, "/ready"))[:2] == (503, "The check itself failed: KeyError.\n")


@pytest.mark.parametrize("path", ["/", "/table", "/router", "/metrics/", "/../etc/passwd"])
async def test_nothing_else_is_served(worker: Worker, path: str) -> None:
    assert (await get(worker, path))[0] == 404


async def test_only_loopback_hears_us_by_default() -> None:
    from app.settings import load_settings

    assert load_settings({}).http_host == "127.0.0.1"


async def test_a_port_that_is_taken_is_said_with_the_fix(worker: Worker) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = HttpServer("127.0.0.1", port, worker.metrics, lambda: (True, ""), lambda: (True, ""))
        with pytest.raises(HttpProblem, match=f"^Port {port} on 127.0.0.1 is taken .* set LIFECYCLE_HTTP_PORT"):
            await server.start()


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_is_said_with_the_fix(worker: Worker, host: str) -> None:
    server = HttpServer(host, 0, worker.metrics, lambda: (True, ""), lambda: (True, ""))
    with pytest.raises(HttpProblem, match="is not an address of this machine: set LIFECYCLE_HTTP_HOST"):
        await server.start()


async def test_after_stop_the_port_is_free_and_stopping_again_is_harmless(worker: Worker) -> None:
    port = int(worker.url.rpartition(":")[2])  # type: ignore[attr-defined]
    await worker.server.stop()
    await worker.server.stop()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(worker, "/live")
