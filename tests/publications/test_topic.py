"""The records of the topic: what everybody who reads them, whenever, makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import NodeNotReadyError, UnknownError

from agents.catalogues import Catalogues
from app import committed
from app.metrics import Metrics
from app.processor import Record
from app.publications import topic
from app.publications.record import Publication, encode, key
from app.publications.topic import NotShown, Overtaken, Publisher, PublishingProblem, Unanswered, found
from app.settings import Settings, load_settings
from tests.publications.test_record import nudge, publication

ONE, NEWER = publication(1, None), publication(2, files=nudge(4, more="dream: true\n"))
THREE = publication(3, files=nudge(5))
GARBAGE = (key(4), b"{}")


def record(one: Publication) -> tuple[bytes, bytes]:
    return key(one.number), encode(one)


LOG = [record(ONE), (b"somebody's", b"{}"), (None, b"{}"), record(NEWER), (key(2), None), record(THREE), GARBAGE]


def worker(log: list[tuple[bytes | None, bytes | None]]) -> Catalogues:
    catalogues = Catalogues({}, "rules", Metrics(), lambda: None)
    for offset, (name, value) in enumerate(log):
        catalogues._add(Record(offset, 0, name, value))
    return catalogues


def test_no_number_is_given_twice_whatever_became_of_its_record() -> None:
    def next_number(log: list[tuple[bytes | None, bytes | None]]) -> int:
        return Publisher(load_settings({}), None, found(log)).next_number

    assert next_number([]) == 1
    assert next_number([record(ONE), record(NEWER), (key(2), None)]) == 3
    assert next_number([record(ONE), (key(2), None)]) == 3, "only the empty record is left after compaction"
    assert next_number(LOG) == 5


def test_of_a_number_the_first_record_counts_for_workers_and_publishers_and_none_is_taken_back() -> None:
    again = [*LOG, (key(3), None), record(publication(3, files=nudge(6))), (key(1), None)]
    for log in (LOG, again):
        assert found(log) == ([ONE, NEWER, THREE], {4: "it is not written as a publication (KeyError)"}, 4)
        offered = worker(log).needed(1)
        assert [loaded.publication.number for loaded in offered] == [1, 2, 3, 4]
        assert [loaded.catalogue is None for loaded in offered] == [False, True, False, True]
        assert offered[2].catalogue is not None
        assert offered[2].catalogue.rules["nudge"].version == 5


def test_what_a_worker_cannot_read_at_all_is_in_effect_at_once_because_nobody_knows_from_when_on_it_is() -> None:
    unread = worker([record(ONE), GARBAGE]).needed(1)[1]
    assert (unread.publication.since, unread.problem) == (0, "it is not written as a publication (KeyError)")


class Brokers:
    """Producer and consumer in one: a commit is answered, and the brokers get to marking it by and by."""

    def __init__(self) -> None:
        self.ends = [4, 4, 6]  # the record is at 4, and the mark itself takes an offset
        self.calls: list[str] = []
        self._txn_manager = SimpleNamespace(_transaction_waiter=asyncio.Future())

    async def begin_transaction(self) -> None:
        self.calls.append("begin")

    async def send_and_wait(self, *_: object, **__: object) -> SimpleNamespace:
        self.calls.append("send")
        return SimpleNamespace(offset=4)

    async def commit_transaction(self) -> None:
        self.calls.append("commit")

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        self.calls.append("look")
        if not self.ends:
            raise NodeNotReadyError
        return dict.fromkeys(tps, self.ends.pop(0))


async def test_it_is_published_once_everybody_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    brokers: Any = Brokers()
    monkeypatch.setattr(committed, "consumer", lambda settings: brokers)
    await Publisher(load_settings({}), brokers, found([])).write(ONE)
    assert brokers.calls == ["begin", "send", "commit", "look", "look", "look"]


@pytest.mark.parametrize(("ends", "why"), [([4] * 1_000_000, "TimeoutError"), ([4], "NodeNotReadyError")])
async def test_what_is_written_and_not_shown_yet_is_not_reported_as_unpublished(
    monkeypatch: pytest.MonkeyPatch, ends: list[int], why: str
) -> None:
    brokers: Any = Brokers()
    brokers.ends = ends
    monkeypatch.setattr(committed, "consumer", lambda settings: brokers)
    monkeypatch.setattr(topic, "_PATIENCE_S", 0.2)
    with pytest.raises(PublishingProblem) as caught:
        await Publisher(load_settings({}), brokers, found([])).write(ONE)
    said = f"It is published, but the brokers have not shown it yet ({why}): `lifecycle rules published` tells when"
    assert str(caught.value) == f"{said} they do."
    assert brokers.calls[:4] == ["begin", "send", "commit", "look"]


class Seeded:
    """A topic whose first publisher is stopped by a problem, and which shows what was written after some looks."""

    def __init__(self, problem: PublishingProblem, shown_after: int) -> None:
        self.problem, self.hidden, self.written = problem, shown_after, 0

    async def read(self, settings: Settings) -> list[Publication]:
        self.hidden -= 1
        return [] if self.hidden >= 0 else [ONE]

    @asynccontextmanager
    async def publisher(self, settings: Settings) -> AsyncIterator[Any]:
        async def write(*_: Publication) -> None:
            self.written += 1
            raise self.problem

        yield SimpleNamespace(published=[], next_number=1, write=write)


@pytest.mark.parametrize(
    ("problem", "written"),
    [(NotShown(TimeoutError()), 1), (Overtaken(), 3), (Unanswered(load_settings({}), UnknownError()), 3)],
)
async def test_a_worker_that_starts_waits_for_what_it_or_another_wrote_until_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, problem: PublishingProblem, written: int
) -> None:
    monkeypatch.setattr(topic, "_PAUSE_S", 0.0)

    async def seeded(shown_after: int) -> tuple[list[Publication], Seeded]:
        made = Seeded(problem, shown_after)
        monkeypatch.setattr(topic, "read", made.read)
        monkeypatch.setattr(topic, "publisher", made.publisher)
        return await topic.seed(load_settings({}), {}, 0), made

    published, made = await seeded(3)
    assert (published, made.written) == ([ONE], written)
    with pytest.raises(type(problem)):
        await seeded(1_000)
