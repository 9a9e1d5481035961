"""Where a fault happens: a real Kafka, an app of its own on it, real workers as processes, and a load that goes on.

Whatever happens, leaving the stage ends every process that it started. Workers are killed by their own process handle.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from app import rulebook, topics
from app.embedded import Cluster
from app.publications import topic as publishing
from app.settings import Settings, load_settings
from tests.faults import outcome
from tests.faults.outcome import Left, Verdict
from tests.faults.stream import Day, Message, Shop
from tests.kafka.harness import PATIENCE, Worker

INPUTS = ("orders", "logins", "browse", "coupons", "profiles")
SESSION_SECONDS = 6
#: After so many days without events nothing is owed any more: the longest timer of the shipped rules, and a night.
LAST_TIMERS_DAYS = 130
_PATIENCE_SECONDS = 90.0
"""Without any progress for so long, a run has failed."""


class Failed(AssertionError):
    """A fault that was not survived: what was waited for did not come."""


async def until(check: Any, within: float, what: Any = "") -> None:
    """Wait until `check()` (which may block, in a thread) is true. Raises Failed after PATIENCE * `within` seconds."""
    ends = time.monotonic() + within * PATIENCE
    while not await asyncio.to_thread(check):
        if time.monotonic() > ends:
            raise Failed(f"not within {within * PATIENCE:.0f} s: {what() if callable(what) else what}")
        await asyncio.sleep(0.1)


class Load:
    """Publishes the shop's days, about `rate` events a second, until it is told that it is enough.

    What is not acknowledged is sent again, so that broker faults cost duplicates at most: the log is what counts.
    """

    def __init__(self, settings: Settings, shop: Shop, rate: float) -> None:
        self.shop, self.rate = shop, rate
        self.events = 0
        self._settings = settings
        self._enough = False
        self._task: asyncio.Task[None] | None = None
        self._producer: AIOKafkaProducer | None = None

    def start(self) -> None:
        """Go on in the background until `finish`."""
        self._task = asyncio.create_task(self._run())

    async def publish(self, days: Iterator[Day], at_most: int | None = None) -> None:
        """Publish these days (the first `at_most`) now."""
        for number, day in enumerate(days):
            if at_most is not None and number >= at_most:
                return
            await self._publish(day)

    async def finish(self, quiet_days: int = LAST_TIMERS_DAYS) -> None:
        """Stop; then let time pass without events, so that all that is still owed comes due. Raises what stopped it."""
        self._enough = True
        if self._task is not None:
            await self._task
        quiet = list(self.shop.quiet(quiet_days))
        for start in range(0, len(quiet), 30):
            some = quiet[start : start + 30]
            # In one go: each partition's records keep their order.
            await self._publish(Day(some[-1].ends, [m for day in some for m in day.events + day.clocks], []))
        await self.close()

    async def close(self) -> None:
        """Stop, whatever is under way."""
        self._enough = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._drop_producer()

    async def _run(self) -> None:
        for day in self.shop.days():
            if self._enough:
                return
            began = time.monotonic()
            await self._publish(day)
            await asyncio.sleep(max(0.0, len(day.events) / self.rate - (time.monotonic() - began)))

    async def _publish(self, day: Day) -> None:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                await self.send(day.events)
                await self.send(day.clocks)
                self.events += sum(message.key is not None for message in day.events)
                return
            except (KafkaError, TimeoutError) as error:
                await self._drop_producer()
                if time.monotonic() > give_up:
                    raise Failed(f"nothing could be published for {_PATIENCE_SECONDS:.0f} s: {error!r}") from error
                await asyncio.sleep(0.5)

    async def send(self, messages: list[Message]) -> None:
        """Raises KafkaError or TimeoutError unless the brokers have all of them."""
        if self._producer is None:
            self._producer = AIOKafkaProducer(
                bootstrap_servers=self._settings.kafka_bootstrap, acks="all", linger_ms=2, request_timeout_ms=10_000
            )
            await self._producer.start()
        waiting = [
            await self._producer.send(
                topics.physical(self._settings, m.input), partition=m.partition, key=m.key, value=m.value
            )
            for m in messages
        ]
        try:
            async with asyncio.timeout(20):
                await asyncio.gather(*waiting)
        finally:
            for future in waiting:
                future.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        stopping = asyncio.ensure_future(producer.stop())
        await asyncio.wait([stopping], timeout=2)
        if not stopping.done():
            stopping.cancel()
            sender = producer._sender.sender_task
            if sender is not None:
                sender.cancel()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(producer.client.close(), 2)
        elif not stopping.cancelled():
            stopping.exception()


class Stage:
    """One app on `cluster`, its workers and its load. Use it with `async with`; the topics exist then."""

    def __init__(
        self,
        cluster: Cluster,
        directory: Path,
        name: str,
        seed: int,
        *,
        users: int = 240,
        rate: float = 150,
        **more: object,
    ) -> None:
        self.cluster, self.directory, self.name = cluster, directory, name
        self.dice = random.Random(seed)
        self.kills = 0
        self.torn = 0
        self.told: list[str] = []
        """What else is worth knowing about the run."""
        self.expected = Left({}, {})
        """What an undisturbed run leaves, once there was a verdict."""
        self.workers: dict[str, Worker] = {}
        self.given: dict[str, object] = {
            "kafka_bootstrap": cluster.bootstrap,
            "app_id": name,
            "topic_prefix": f"{name}-{seed}.",
            "inputs": ",".join(INPUTS),
            "partitions": 4,
            "clock": "events",
            "session_timeout": f"{SESSION_SECONDS}s",
            "batch_max": 400,
            "data_dir": directory,
            "http_port": 0,
            "erasure_key": "of the fault runs",  # one that shards make would be another in the undisturbed run
            **more,
        }
        self.change()
        self.shop = Shop(seed, self.settings.inputs, self.settings.partitions, users)
        self.load = Load(self.settings, self.shop, rate)
        directory.mkdir(parents=True, exist_ok=True)

    def change(self, **more: object) -> None:
        """Other settings for the workers that start from now on."""
        self.given |= more
        self.settings = load_settings({f"LIFECYCLE_{key.upper()}": str(value) for key, value in self.given.items()})

    async def __aenter__(self) -> Stage:
        await topics.create_topics(self.settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()
        await self.load.close()

    # ---------------------------------------------------------------------------------------------------- workers

    def start(self, name: str, static: bool = False, **more: object) -> Worker:
        """A real worker, a new process; one of that name must be gone. Static ones keep their place in the group."""
        if static:
            more["instance_id"] = f"{self.name}-{name}"
        files = self.directory / f"data-{name}"
        files.mkdir(exist_ok=True)
        rules = self.settings.rules or rulebook.SHIPPED
        options: dict[str, Any] = {"command": Worker.REAL, "data_dir": files, "rules": rules, **more}
        if self.settings.state_version is not None:
            options.setdefault("state_version", self.settings.state_version)
        worker = Worker(self.settings, self.directory, name, **options)
        assert name not in self.workers or self.workers[name].process.poll() is not None, f"{name} still runs"
        self.workers[name] = worker
        return worker.start()

    def kill(self, name: str) -> None:
        """kill -9."""
        self.workers[name].kill()
        self.kills += 1

    def again(self, name: str) -> None:
        """The same worker, started anew."""
        self.workers[name].start()

    def forget_files(self) -> None:
        """All local files of all workers are gone."""
        for name in self.workers:
            shutil.rmtree(self.directory / f"data-{name}")
            (self.directory / f"data-{name}").mkdir()

    async def ready(self, *names: str, within: float = 60) -> None:
        """Wait until these workers (default: all that run) have opened all their shards."""
        for name in names or [n for n, w in self.workers.items() if w.process.poll() is None]:
            worker = self.workers[name]
            await until(
                lambda worker=worker: self._is_ready(worker), within, lambda worker=worker: worker.log()[-3000:]
            )

    def _is_ready(self, worker: Worker) -> bool:
        if worker.process.poll() is not None:
            raise Failed(f"{worker.name} has ended with {worker.process.returncode}:\n{worker.log()[-3000:]}")
        return worker.get("ready")[0] == 200

    async def has_shards(self, name: str, count: int, within: float = 60) -> None:
        """Wait until a worker has so many shards open."""
        worker = self.workers[name]
        await until(lambda: shards(worker) == count, within, lambda: worker.log()[-3000:])

    async def moves(self, events: int = 300, within: float = 60) -> None:
        """Wait until some worker has applied so many events since it started."""
        await until(
            lambda: any(
                w.metric("lifecycle_events_total") >= events for w in self.workers.values() if w.process.poll() is None
            ),
            within,
            "no worker applies events",
        )

    async def pause(self, least: float, most: float) -> None:
        """A while that the dice decide."""
        await asyncio.sleep(self.dice.uniform(least, most))

    # -------------------------------------------------------------------------------------------------- the verdict

    async def verdict(
        self,
        given: Callable[[], Awaitable[outcome.Logs]] | None = None,
        seen: Callable[[Left], Left] = lambda left: left,
    ) -> Verdict:
        """End the load, wait until all of it has been applied, stop the workers; then compare with an undisturbed run
        over the same logs (or over what `given` says that the shards were given), both as they are `seen`."""
        await self.load.finish()
        await self.all_applied()
        logs = await (given() if given else outcome.read(self.settings, self.settings.inputs))
        published = await publishing.read(self.settings)
        self.expected = wanted = await asyncio.to_thread(outcome.undisturbed, self.settings, logs, published)
        await self._until_written(wanted)
        await self.stop()
        found = await outcome.left_by(self.settings)
        self.torn = outcome.count_torn(found, await outcome.left_by(self.settings, "read_uncommitted"))
        verdict = outcome.compare(seen(wanted), seen(found))
        if verdict.triggers < 50:
            raise Failed(f"only {verdict.triggers} triggers were expected: the load was too small to show anything")
        return verdict

    async def stop(self) -> None:
        """SIGTERM to every worker that runs. Raises Failed unless each ends with 0 within 30 s."""
        for name, worker in self.workers.items():
            if worker.process.poll() is None:
                code, seconds = await asyncio.to_thread(worker.stop)
                if code != 0:
                    raise Failed(f"{name} ended with {code} after {seconds:.0f} s:\n{worker.log()[-3000:]}")

    async def all_applied(self, skip: frozenset[tuple[str, int]] = frozenset()) -> None:
        """Wait until the group has committed the ends of all inputs. Raises Failed when nothing moves for long."""
        left, since = await self.backlog(skip), time.monotonic()
        while left:
            await asyncio.sleep(0.3)
            now = await self.backlog(skip)
            if now != left:
                left, since = now, time.monotonic()
            if time.monotonic() - since > _PATIENCE_SECONDS:
                told = "\n".join(f"{n}: {w.log()[-1500:]}" for n, w in self.workers.items())
                raise Failed(f"{left} records are not applied and nothing moves:\n{told}")

    async def backlog(self, skip: frozenset[tuple[str, int]] = frozenset()) -> int:
        """Records of the inputs beyond the group's committed offsets."""
        tps = {
            TopicPartition(topics.physical(self.settings, name), p): (name, p)
            for name in self.settings.inputs
            for p in range(self.settings.partitions)
            if (name, p) not in skip
        }
        ends = await self.ends(list(tps))
        committed = await self.committed()
        return sum(max(0, ends[tp] - committed.get(tp, 0)) for tp in tps)

    async def ends(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        """The last stable offsets."""
        async with AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka_bootstrap, isolation_level="read_committed"
        ) as consumer:
            found: dict[TopicPartition, int] = await consumer.end_offsets(tps)
            return found

    async def committed(self) -> dict[TopicPartition, int]:
        """The group's committed offsets."""
        async with self.admin() as admin:
            found = await admin.list_consumer_group_offsets(self.settings.topic_prefix + self.settings.app_id)
        return {tp: meta.offset for tp, meta in found.items()}

    @contextlib.asynccontextmanager
    async def admin(self) -> Any:
        """An admin client."""
        client = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka_bootstrap, request_timeout_ms=15_000)
        await client.start()
        try:
            yield client
        finally:
            await client.close()

    async def _until_written(self, wanted: Left) -> None:
        """Offsets may be committed a batch before the last timers have fired: wait for those, while something moves."""
        due = sum(map(len, wanted.outputs.values()))
        before, since = -1, time.monotonic()
        while True:
            found = sum(map(len, (await outcome.left_by(self.settings)).outputs.values()))
            if found >= due:
                return
            if found != before:
                before, since = found, time.monotonic()
            if time.monotonic() - since > 60:
                return  # the comparison says what is wrong
            await asyncio.sleep(0.5)


def shards(worker: Worker) -> int:
    """How many shards a worker has open; 0 when it does not answer."""
    return int(worker.metric("lifecycle_shards_open"))
