"""The short form of the fault runs, in every `make test`: real workers on a Kafka of their own, killed, frozen, bereft
of their broker; then compared record by record with an undisturbed run. The long form is `make faults LONG=1`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC
from functools import cache
from typing import Any

import orjson
import pytest

from app.settings import load_settings
from schemas.instant import format_instant, parse_instant
from tests.catalogues import THREE
from tests.faults import brokers, logs, workers
from tests.faults.outcome import Left, Place, Verdict, Written, compare, undisturbed
from tests.faults.run import Fault, Ground, Line, run, shown
from tests.faults.stage import Stage
from tests.faults.stream import Shop

SEED = 20_260_301
SMALL: dict[str, object] = {"users": 80, "rate": 80}
on_kafka = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    for library in ("aiokafka", "faust"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # brokers go away on purpose here
    found = Ground()
    yield found
    found.forget()
    for library in ("aiokafka", "faust"):
        logging.getLogger(library).setLevel(logging.NOTSET)


async def survived(
    ground: Ground, act: Callable[[Stage, int], Awaitable[Verdict]], size: int, **options: object
) -> Line:
    """The fault's line of the table; nothing in it is anything but zero."""
    line = await run(ground, Fault(act.__name__, act, (size,), (), options=SMALL | options), (size,), SEED)
    assert line.clean, "\n".join([shown(line), *line.verdict.examples, line.failed])
    assert line.verdict.triggers > 100
    return line


class TestOnKafka:
    pytestmark = on_kafka

    async def test_a_worker_killed_again_and_again_loses_and_repeats_nothing(self, ground: Ground) -> None:
        assert (await survived(ground, workers.killed_alone, 3)).kills == 3

    async def test_a_worker_frozen_past_its_session_gets_nothing_through_when_it_thaws(self, ground: Ground) -> None:
        await survived(ground, workers.frozen, 1)

    async def test_a_broker_that_is_killed_costs_nothing_and_holds_up_no_worker_that_is_told_to_stop(
        self, ground: Ground
    ) -> None:
        line = await survived(ground, brokers.killed_then_sigterm, 1)
        assert line.kills == 2
        assert "SIGTERM with the broker killed: gone after " in line.told[0]

    async def test_a_new_row_version_is_rolled_out_back_and_out_again_and_the_old_release_refuses_it_once_finalised(
        self, ground: Ground
    ) -> None:
        [said] = (await survived(ground, workers.upgrade, 1, rules=THREE)).told
        assert "this worker reads up to 1" in said

    async def test_records_deleted_before_they_were_read_stop_their_shard_alone(self, ground: Ground) -> None:
        [said] = (await survived(ground, logs.deleted, 1)).told
        assert "were deleted by the topic's retention before they were read" in said


# ------------------------------------------------------------------------------------- the yardstick can tell, too


@cache
def the_run() -> Left:
    return a_run()


def a_run(days: int = 40) -> Left:
    key = {"LIFECYCLE_ERASURE_KEY": "of the fault runs"}
    settings = load_settings({"LIFECYCLE_CLOCK": "events", "LIFECYCLE_PARTITIONS": "1", **key})
    shop = Shop(SEED, settings.inputs, 1, users=40)
    made: dict[Place, list[Written]] = {(name, 0): [] for name in settings.inputs}
    for _, day in zip(range(days), shop.days(), strict=False):
        for message in day.events + day.clocks:
            log = made[message.input, 0]
            log.append(Written(len(log), message.key, message.value, (), day.ends // 1000))
    return undisturbed(settings, made)


def changed(left: Left, change: Callable[[list[Written]], Any], topic: str = "triggers.coupon") -> Left:
    """The same, with a change made to one topic."""
    outputs = {place: list(log) for place, log in left.outputs.items()}
    change(outputs[topic, 0])
    return Left(dict(left.rows), outputs)


def decided(hours: int) -> Callable[[list[Written]], None]:
    """The first trigger is decided so many hours later."""

    def change(log: list[Written]) -> None:
        body = orjson.loads(log[0].value or b"")
        at = parse_instant(body["decided_at"]) + hours * 3_600_000_000
        log[0] = log[0]._replace(value=orjson.dumps(body | {"decided_at": format_instant(at, UTC)}))

    return change


def test_the_same_seed_makes_the_same_days_and_the_same_run() -> None:
    one, other = the_run(), a_run()
    same = one == other  # said apart: a difference of so much would take minutes to be written out
    assert same, compare(one, other).examples
    assert compare(one, other).clean
    assert compare(one, other).triggers > 50


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda log: log.pop(3), "missing"),
        (lambda log: log.append(log[3]), "twice"),
        (lambda log: log.reverse(), "other"),
        (decided(-24 * 30), "early"),
        (decided(24 * 30), "stale"),
    ],
)
def test_whatever_is_wrong_is_counted_under_its_name(change: Callable[[list[Written]], Any], what: str) -> None:
    verdict = compare(the_run(), changed(the_run(), change))
    assert not verdict.clean
    assert getattr(verdict, what) >= 1
    assert verdict.examples


def test_a_trigger_that_should_have_been_cancelled_counts_as_early() -> None:
    whole = the_run()
    assert compare(changed(whole, lambda log: log.pop(3)), whole).early == 1


def test_a_row_that_differs_is_seen() -> None:
    whole = the_run()
    key = min(whole.rows)
    assert compare(whole, Left({**whole.rows, key: b"?"}, whole.outputs)).other == 1
    assert compare(whole, Left({k: v for k, v in whole.rows.items() if k != key}, whole.outputs)).other == 1
