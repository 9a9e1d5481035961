"""The demo from start to end: a real Kafka, a real worker, a year of real purchases. It leaves nothing running."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, NoReturn

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from app import clock, embedded
from app.demo.show import Screen, State, data, results
from app.demo.stage import DemoProblem, Stage
from app.demo.tally import RULES, Tally
from app.feed import Told, triggers
from app.replay.journey import ENDS, Journey, load_journey
from app.replay.publish import Progress, publish
from app.settings import Settings
from app.topics import create_topics, physical

_POLL_S: Final = 0.4
_SETTLED_S: Final = 1.5
"""With nothing left to read, the counters must stand still for so long."""
_STALLED_S: Final = 60.0


class Outcome(NamedTuple):
    """What came of the replay."""

    tally: Tally
    triggers: list[Told]
    published: Progress
    seconds: float
    """From the first event published to the last one applied."""


def run(households: int, keep: bool, screen: Screen, progress: embedded.Progress) -> bool:
    """Play the demo; whether all three rules fired and nothing was left running.

    Raises DemoProblem, KafkaProblem, TopicProblem, JourneyProblem, PublishProblem or FeedProblem, and
    KeyboardInterrupt; everything is stopped by then.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    stage = Stage(keep)
    try:
        outcome = _play(stage, households, screen, progress)
    finally:
        screen.end()
        left = stage.close()
        signal.signal(signal.SIGTERM, before)
        for sentence in left or ["Everything is stopped; nothing is left running."]:
            screen.step(sentence)
        if keep:
            screen.step(f"Kafka's data and the logs are kept in {stage.directory}")
    silent = [rule for rule in RULES if not outcome.tally.rule(rule).fired]
    if silent:
        screen.step(f"[red]These rules did not fire: {', '.join(silent)}.[/]")
    return not silent and not left


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _play(stage: Stage, households: int, screen: Screen, progress: embedded.Progress) -> Outcome:
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load_journey, households)  # while Kafka starts
        stage.start_kafka(progress)
        screen.step(f"Kafka serves at {stage.settings.kafka_bootstrap}.")
        journey = loading.result()
    settings = stage.settings
    asyncio.run(create_topics(settings))
    stage.start_worker()
    screen.step(f"The worker is ready (log: {stage.worker_log}).")
    screen.step(data(journey))
    outcome = asyncio.run(_Replay(stage, settings, journey, screen).run())
    screen.end()
    sent, events = outcome.published, outcome.tally.events
    screen.step(
        f"{sent.events:,} events published in {sent.seconds:.1f} s ({sent.rate:,.0f}/s); {events:,} processed in "
        f"{outcome.seconds:.1f} s ({events / outcome.seconds:,.0f}/s); {outcome.tally.rejects:,} rejected."
    )
    screen.console.print(results(outcome.tally, outcome.triggers))
    return outcome


class _Replay:
    """Publishes, listens and counts at the same time, until the worker has caught up with everything."""

    def __init__(self, stage: Stage, settings: Settings, journey: Journey, screen: Screen) -> None:
        self._stage, self._settings, self._journey, self._screen = stage, settings, journey, screen
        self._state = State(total=len(journey))
        self._triggers: list[Told] = []
        self._quiet = 0
        """How often in a row there was no trigger to read."""
        self._tally = Tally("")
        self._changed = self._started = clock.monotonic()

    async def run(self) -> Outcome:
        self._screen.begin(self._state)
        work = asyncio.create_task(self._publish_and_wait())
        tasks: list[asyncio.Task[Any]] = [work, *map(_task, (self._listen(), self._count()))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # only `work` ends by itself: what else does has failed
            return Outcome(self._tally, self._triggers, work.result(), self._changed - self._started)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _publish_and_wait(self) -> Progress:
        sent = await publish(self._journey.events(), self._settings, until=ENDS, progress=self._published)
        admin = AIOKafkaAdminClient(bootstrap_servers=self._settings.kafka_bootstrap)
        consumer = AIOKafkaConsumer(bootstrap_servers=self._settings.kafka_bootstrap)
        await admin.start()
        await consumer.start()
        try:
            while await self._behind(admin, consumer) or not self._settled():
                if clock.monotonic() - self._changed > _STALLED_S:
                    raise DemoProblem(f"The worker has stopped making progress.\n{self._stage.last_words()}")
                await asyncio.sleep(_POLL_S)
        finally:
            await consumer.stop()
            await admin.close()
        return sent

    async def _behind(self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> bool:
        """Whether the worker's group has not committed the end of every input yet."""
        settings = self._settings
        group = settings.topic_prefix + settings.app_id
        inputs = [
            TopicPartition(physical(settings, name), number)
            for name in settings.inputs
            for number in range(settings.partitions)
        ]
        committed = await admin.list_consumer_group_offsets(group, partitions=inputs)
        ends = await consumer.end_offsets(inputs)
        return any(committed[one].offset < end for one, end in ends.items() if end)

    def _settled(self) -> bool:
        """Whether nothing has been counted and no trigger has come for a while."""
        return clock.monotonic() - self._changed > _SETTLED_S and self._quiet >= 2

    def _published(self, progress: Progress) -> None:
        self._state.published = progress.events
        self._screen.update(self._state)

    async def _listen(self) -> None:
        async for told in triggers(self._settings, from_start=True):
            self._quiet = self._quiet + 1 if told is None else 0
            if told is not None:
                self._triggers.append(told)
                self._state.latest.append(told)

    async def _count(self) -> None:
        while True:
            self._stage.require_worker()
            heard = len(self._triggers)  # first: of what is shown together, no trigger may come of an event not counted
            status, body = await asyncio.to_thread(self._stage.get, "/metrics")
            if status:
                tally, now = Tally(body.decode()), clock.monotonic()
                if tally != self._tally:
                    self._changed, self._state.seconds = now, now - self._started
                self._tally = tally
                self._state.applied, self._state.merged = tally.events, tally.merged
                self._state.triggers = heard
            self._screen.update(self._state)
            await asyncio.sleep(_POLL_S)


def _task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work)
