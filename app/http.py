"""Three pages for operators and nothing else: /metrics, /live, /ready. On loopback unless the settings say otherwise.

/live answers 503 when the process should be restarted, /ready when it is not to be counted on now; both say why.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from app.metrics import Metrics

#: Whether all is well, and a sentence that says so or what is missing.
Check = Callable[[], tuple[bool, str]]

_CLOSING_SECONDS: Final = 1.0


class HttpProblem(Exception):
    """The pages cannot be served; the words say what to do."""

    safe_to_log = True


class HttpServer:
    """`start()` listens and says on which port; `stop()` closes. Both belong to one event loop."""

    def __init__(self, host: str, port: int, metrics: Metrics, live: Check, ready: Check) -> None:
        self._host, self._port, self._metrics = host, port, metrics
        self._live, self._ready = live, ready
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; the port, which the system has chosen where the settings say 0. Raises HttpProblem."""
        app = web.Application()
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/live", self._serve_live)
        app.router.add_get("/ready", self._serve_ready)
        app.on_response_prepare.append(_hide_server)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_CLOSING_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise HttpProblem(_why_not(self._host, self._port, error)) from None
        self._runner = runner
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening; harmless when not started."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _serve_live(self, _: web.Request) -> web.Response:
        return _answer(self._live)

    async def _serve_ready(self, _: web.Request) -> web.Response:
        return _answer(self._ready)


def _answer(check: Check) -> web.Response:
    try:
        well, sentence = check()
    except Exception as error:
        well, sentence = False, f"The check itself failed: {type(error).__name__}."
    return web.Response(status=200 if well else 503, text=sentence + "\n", headers={"Cache-Control": "no-store"})


async def _hide_server(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "lifecycle"


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is taken by another program (another worker?):"
            " set LIFECYCLE_HTTP_PORT to another one, or to 0 for any free one."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Port {port} on {host} needs more rights than this user has: set LIFECYCLE_HTTP_PORT above 1023."
    return (
        f"{host} is not an address of this machine: set LIFECYCLE_HTTP_HOST to 127.0.0.1 (this machine only)"
        " or 0.0.0.0 (every interface)."
    )
