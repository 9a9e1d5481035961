"""The stream processor put together: settings, rules, topics, shards, pages; and the run of a worker.

`lifecycle worker` calls `run_worker`; `faust -A app.main worker` finds `app` here, built when it is first asked for.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

import click
from faust.worker import Worker
from mode import Service

from agents.clients import NameTaken
from agents.engine import Engine
from agents.protocol import ProcessorFactory
from agents.wiring import REQUEST_TIMEOUT_MS, Wiring
from app import clock, logs, rulebook, topics
from app.accounts import ErasureKeys
from app.core import ids
from app.core.problems import CatalogueError
from app.http import HttpProblem, HttpServer
from app.metrics import Metrics
from app.processor import TRANSFERS, Plan, Processor
from app.publications import topic as publishing
from app.settings import Settings, SettingsError, load_settings, start_policy
from schemas.codec import DecodeOptions

log = logging.getLogger(__name__)

#: A shard holds a great many rows; looking through all of them again and again finds no garbage.
GC_THRESHOLDS: Final = (50_000, 50, 100)
#: What a person can mend: told as it is, without a traceback, and the exit code is 2.
PROBLEMS: Final = (
    SettingsError,
    CatalogueError,
    topics.TopicProblem,
    publishing.PublishingProblem,
    HttpProblem,
    NameTaken,
)

_STOP_SECONDS: Final = 25.0
"""A worker that was told to stop and has not after this is ended hard; exactly once makes that safe."""


def build_plan(settings: Settings) -> Plan:
    """What all shards share. Raises CatalogueError with all mistakes of the rules."""
    return Plan(
        inputs=settings.inputs,
        partitions=settings.partitions,
        partitioner=settings.partitioner,
        clock=settings.clock,
        lateness=settings.lateness,
        decode=DecodeOptions(
            clock_skew=settings.clock_skew, assume_zone=settings.assume_zone, unknown_types=settings.unknown_types
        ),
        catalogue=rulebook.load(settings.rules),
        app_id=settings.app_id,
        erasure=ErasureKeys(ids.key_of(settings.erasure_key) if settings.erasure_key else None, os.urandom(32)),
        start=start_policy(settings),
        reject_ceiling=settings.reject_ceiling,
        stop_at_ceiling=settings.on_reject_ceiling == "stop",
        state_version=settings.state_version,
    )


def build_wiring(settings: Settings, make: ProcessorFactory, **options: Any) -> Wiring:
    """The shards' connections. `options` replace fields of the Wiring."""
    session = settings.session_timeout / 1_000_000
    outputs = {
        spec.logical: spec.name
        for spec in topics.specs(settings)
        if spec.kind not in (topics.INPUT, topics.CHANGELOG, topics.RULES)
    }
    wiring = Wiring(
        client={
            "bootstrap_servers": settings.kafka_bootstrap,
            "client_id": settings.topic_prefix + settings.app_id,
            # The group's requests may rightly take as long as a rebalance.
            "request_timeout_ms": max(REQUEST_TIMEOUT_MS, int(session * 1000) + 10_000),
            "retry_backoff_ms": 200,  # transactions have their own, much shorter one
            **settings.kafka_security,
        },
        group=settings.topic_prefix + settings.app_id,
        inputs={name: topics.physical(settings, name) for name in (*settings.inputs, TRANSFERS)},
        outputs=outputs,
        changelog=topics.changelog(settings),
        rules=topics.physical(settings, topics.RULES),
        shards=settings.partitions,
        wall=settings.clock == "wall",
        batch_max=settings.batch_max,
        reject_ceiling=settings.reject_ceiling,
        make=make,
        session_timeout=session,
        instance_id=settings.instance_id,
    )
    return replace(wiring, **options)


async def _prepare(settings: Settings) -> None:
    """Before a worker starts: the topics are there, and some rules are published, be it by this worker.

    Raises TopicProblem or PublishingProblem.
    """
    await topics.check_topics(settings)
    own, now = rulebook.texts(settings.rules), clock.now()
    published = await publishing.seed(settings, own, now)
    latest = published[-1]
    if latest.files != own:
        log.info(
            "The rules of %s are not the published ones; those are used (number %d). `lifecycle rules publish DIR` "
            "publishes others.",
            settings.rules or "this release",
            latest.number,
            extra={"version": latest.number},
        )


class Pages(Service):
    """The operators' pages, up as long as the worker is, and before it joins the group: a worker that finds its port
    taken must not take shards from others on its way out."""

    mundane_level = "debug"

    def __init__(self, settings: Settings, engine: Engine) -> None:
        super().__init__()
        self._settings, self._engine = settings, engine
        self._server: HttpServer | None = None

    async def listen(self) -> None:
        """Serve the pages. Raises HttpProblem."""
        host, shards = self._settings.http_host, self._engine.shards
        self._server = HttpServer(host, self._settings.http_port, self._engine.metrics, shards.live, shards.ready)
        port = await self._server.start()
        log.info("Pages: http://%s:%d/ready, /live, /metrics", host, port, extra={"port": port})

    async def on_stop(self) -> None:
        """Close."""
        if self._server is not None:
            await self._server.stop()


def build_app(settings: Settings, make: ProcessorFactory | None = None, **options: Any) -> Engine:
    """The Faust app of this deployment. `make` replaces the processor, `options` fields of the Wiring.

    Raises CatalogueError; the rest is checked when it starts.
    """
    prepare: Callable[[], Awaitable[None]]
    if make is None:
        make, prepare = partial(Processor, build_plan(settings)), partial(_prepare, settings)
    else:  # one of its own has its own rules
        options, prepare = {"rules": None, **options}, partial(topics.check_topics, settings)

    async def check() -> None:
        await prepare()
        await pages.listen()

    engine = Engine(
        build_wiring(settings, make, **options),
        Metrics(),
        check=check,
        logging_config=logs.config(settings.log_level, settings.log_format),
    )
    pages = Pages(settings, engine)
    engine.service(cast(Any, pages))
    return engine


class _Worker(Worker):
    """Faust's worker, with a bound on how long it takes to stop."""

    mundane_level = "debug"

    def _schedule_shutdown(self, signal: Any) -> None:
        if not self._signal_stop_time:
            threading.Thread(target=self._end_hard, name="deadline", daemon=True).start()
        super()._schedule_shutdown(signal)

    def _end_hard(self) -> None:
        threading.Event().wait(_STOP_SECONDS)
        log.error("Not stopped after %.0f s (brokers out of reach?): ending now.", _STOP_SECONDS)
        os._exit(1)

    async def _sentinel_task(self) -> None:
        """mode waits a second here, for nothing of ours."""

    def run(self) -> None:
        """Until a signal stops it. Raises what crashed it."""
        self._starting_fut = asyncio.ensure_future(self.start(), loop=self.loop)
        try:
            self.loop.run_until_complete(self._starting_fut)
        except asyncio.CancelledError:
            pass
        finally:
            self._starting_fut.cancel()
            self.on_worker_shutdown()
            self.stop_and_shutdown()


def run_worker() -> int:
    """The `worker` command: run until stopped. The exit code: 0 stopped, 1 crashed, 2 could not start (said why)."""
    try:
        settings = load_settings()
        logs.setup(settings.log_level, settings.log_format)
        return run_engine(settings)
    except PROBLEMS as problem:
        click.echo(problem, err=True)
        return 2


def run_engine(settings: Settings, make: ProcessorFactory | None = None, **options: Any) -> int:
    """Run a worker in this process on uvloop. Raises one of PROBLEMS; the exit code is 0, or 1 after a crash."""
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    gc.set_threshold(*GC_THRESHOLDS)
    engine = build_app(settings, make, **options)
    worker = _Worker(engine, loop=loop, override_logging=False, redirect_stdouts=False, quiet=True)
    worker.spinner = None
    try:
        worker.run()
    except PROBLEMS:
        raise
    except Exception as exc:
        log.critical("The worker crashed.", exc_info=exc)
        return 1
    return 0


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return asyncio.new_event_loop()


def __getattr__(name: str) -> Any:
    """`app`, for Faust's own command line."""
    if name != "app":
        raise AttributeError(name)
    try:
        engine = build_app(load_settings())
    except PROBLEMS as problem:
        raise SystemExit(str(problem)) from None
    globals()["app"] = engine
    return engine
