"""Which shards this worker has: opened when the group says so, held still during a rebalance, closed when they go.

Takes the place of Faust's table manager, whose tables, standbys and recovery the shards replace. A shard's rows are
kept over a rebalance only if this worker had it in the generation right before: then nobody else can have written.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, cast

from faust.tables.manager import TableManager
from faust.types import TP
from mode import Service

from agents.catalogues import Catalogues
from agents.fetching import Chunk
from agents.shard import Shard
from agents.transport import Consumer, ConsumerThread
from agents.watch import Watch
from agents.wiring import Wiring
from app.metrics import Metrics

log = logging.getLogger(__name__)

_SETTLE_SECONDS: Final = 5.0
"""How long a rebalance, or the end of the worker, waits for the transactions under way."""


class Supervisor(TableManager):
    """The shards of this worker. `app` carries `wiring` and `metrics`."""

    mundane_level = "debug"

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._engine = app
        self._wiring: Wiring = app.wiring
        self._metrics: Metrics = app.metrics
        self.shards: dict[int, Shard] = {}
        topic = self._wiring.rules
        self._watch = Watch(self._wiring, self._metrics, lambda: list(self.shards.values()), lambda: self._thread)
        self._catalogues = Catalogues(self._wiring.client, topic, self._metrics, self._wake_all) if topic else None
        self._assigned: frozenset[int] | None = None
        self._generation = -1
        self._beyond: list[int] = []
        self._moving = True
        """True from the moment partitions are taken away until shards are permitted to work again."""
        self._changed = asyncio.Event()

    # ------------------------------------------------------------------------------------------------ Faust's side

    async def on_start(self) -> None:
        """There are no tables to wait for."""
        self._tables_finalized.set()
        self._tables_registered.set()

    async def on_stop(self) -> None:
        """Close every shard."""
        await self._engine._fetcher.stop()
        await self._close(list(self.shards))

    async def wait_until_recovery_completed(self) -> bool:
        """Shards open by themselves; the worker's pages are served meanwhile. True when the worker stops."""
        return bool(self.should_stop)

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """No shard begins another transaction until the group has settled."""
        self._moving = True
        for shard in self.shards.values():
            shard.forbid()

    async def suspend(self) -> None:
        """Wait until no transaction is under way; give up those that don't end."""
        self.on_partitions_revoked(set())
        waits = {asyncio.ensure_future(shard.settled()): n for n, shard in self.shards.items() if shard.alive}
        if not waits:
            return
        _, late = await asyncio.wait(waits, timeout=_SETTLE_SECONDS)
        for task in late:
            task.cancel()
        await self._close([waits[task] for task in late])

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Take note; the work is done outside, because the group's heartbeats stop until this returns."""
        self._recovery_started.set()
        numbers = self._complete(assigned)
        for number, shard in self.shards.items():
            shard.kept = shard.kept and number in numbers and shard.generation + 1 == generation_id
            shard.generation = generation_id
        self._assigned, self._generation = numbers, generation_id
        self._changed.set()

    def _complete(self, assigned: set[TP]) -> frozenset[int]:
        """The shards all of whose inputs are ours. While a deploy adds an input, a partition may come alone."""
        by_number: dict[int, set[str]] = {}
        for tp in assigned:
            by_number.setdefault(tp.partition, set()).add(tp.topic)
        wanted = set(self._wiring.inputs.values())
        self._beyond = sorted(n for n in by_number if n >= self._wiring.shards)
        if self._beyond:
            log.error("%s", self._too_many())
        partial = sorted(n for n, topics in by_number.items() if not wanted <= topics)
        if partial:
            log.warning(
                "Shards %s are left alone: this worker has only some of their inputs, because the workers of the group "
                "read different ones. That is normal while a new LIFECYCLE_INPUTS is rolled out.",
                partial,
                extra={"shards": str(partial)},
            )
        return frozenset(by_number).difference(partial, self._beyond)

    def _too_many(self) -> str:
        return (
            f"The inputs have got more partitions than LIFECYCLE_PARTITIONS ({self._wiring.shards}): partitions "
            f"{', '.join(map(str, self._beyond))} are not read. The state of users who moved there is elsewhere: copy "
            "the events into topics of the old size, or start anew under another LIFECYCLE_APP_ID."
        )

    # -------------------------------------------------------------------------------------------------- the shards

    @Service.task
    async def _follow_assignment(self) -> None:
        while not self.should_stop:
            await self._changed.wait()
            self._changed.clear()
            await self._take_over()

    @Service.task
    async def _keep_watch(self) -> None:
        await self._watch.run()

    @Service.task
    async def _follow_publications(self) -> None:
        if self._catalogues is not None:
            await self._catalogues.run()

    def _wake_all(self) -> None:
        for shard in self.shards.values():
            shard.wake()

    @property
    def _thread(self) -> ConsumerThread:
        return cast(Consumer, self._engine.consumer).thread

    async def _take_over(self) -> None:
        numbers, generation = self._assigned or frozenset(), self._generation
        self._resume_faust()
        await self._close([n for n, shard in self.shards.items() if not (shard.kept and shard.alive)])
        if self._changed.is_set() or generation != self._generation or self.should_stop:
            return  # the group moved on while we were closing
        self._moving = False
        opened = sorted(numbers.difference(self.shards))
        for number in opened:
            shard = Shard(number, generation, self._wiring, self._thread, self._metrics, self._catalogues)
            self.shards[number] = shard
            shard.start()
        for shard in self.shards.values():
            shard.permit()
        log.info(
            "This worker has the shards %s (generation %d); opening %s.",
            sorted(numbers),
            generation,
            opened or "none anew",
            extra={"generation": generation, "shards": str(sorted(numbers))},
        )

    def _resume_faust(self) -> None:
        app = self._engine
        app.flow_control.resume()
        app.consumer.resume_flow()
        self.add_future(app._fetcher.maybe_start())
        self.on_actives_ready()
        self.on_standbys_ready()
        app.on_rebalance_end()

    async def _close(self, numbers: list[int]) -> None:
        gone = [shard for n in numbers if (shard := self.shards.pop(n, None)) is not None]
        await asyncio.gather(*(shard.close() for shard in gone))

    def deliver(self, name: str, chunk: Chunk) -> None:
        """What an agent received goes to its shard, if that is (still) here."""
        shard = self.shards.get(chunk.tp.partition)
        if shard is not None:
            shard.deliver(name, chunk)

    # -------------------------------------------------------------------------------------------------- its health

    def ready(self) -> tuple[bool, str]:
        """Whether every shard of this worker is open and Kafka answers, and a sentence."""
        if self._assigned is None:
            return False, "Waiting for the consumer group."
        stopped = [shard for shard in self.shards.values() if shard.state == "stopped"]
        if stopped:
            return False, f"Shard {stopped[0].number} is stopped: {stopped[0].reason}"
        if self._beyond:
            return False, self._too_many()
        if (silent := self._watch.silent_seconds()) > self._wiring.session_timeout:
            # A worker that is cut off for so long loses its shards to the others.
            return False, f"Kafka has not answered for {silent:.0f} s."
        if self._moving:
            return False, "The group is rebalancing."
        closed = sorted(shard.number for shard in self.shards.values() if shard.state != "open")
        if closed:
            return False, f"Opening shards {', '.join(map(str, closed))}."
        return True, f"{len(self.shards)} shards are open."

    def live(self) -> tuple[bool, str]:
        """Whether the worker can still do its work without a restart, and a sentence."""
        if self.should_stop:
            return False, "The worker is stopping."
        return True, "The worker runs."
