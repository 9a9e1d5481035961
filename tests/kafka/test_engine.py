"""The engine on a real Kafka, with the simple job: what it promises when workers die, join, leave, freeze and stop."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from app.settings import Settings
from app.topics import changelog, physical
from tests.kafka.conftest import Kafka, MakeSettings
from tests.kafka.harness import Expected, Worker, applied_up_to_the_end, rows, trigger_ids, until
from tests.kafka.simple_job import TOPIC, SimpleJob, event

pytestmark = pytest.mark.kafka

Start = Callable[..., Worker]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """`start(settings, "a")`: a worker, ended with the test."""
    workers: list[Worker] = []

    def begin(settings: Settings, name: str = "worker", **more: Any) -> Worker:
        worker = Worker(settings, tmp_path, name, **more)
        workers.append(worker)
        return worker.start()

    yield begin
    for worker in workers:
        worker.close()


def orders(first: int, count: int, users: int) -> list[tuple[bytes, bytes]]:
    return [event(number * 7 % users, number) for number in range(first, first + count)]


async def finished(expected: Expected, settings: Settings, consume_all: Any, within: float = 40) -> None:
    """Wait until every row is as expected; then the triggers must be, too, each exactly once."""
    found: dict[bytes, list[int]] = {}

    async def same() -> bool:
        await asyncio.sleep(0.4)  # reading it all is work that the worker could be doing
        found.clear()
        found.update(rows(await consume_all(settings, "changelog")))
        return found == expected.rows()

    await until(same, within, lambda: _difference(expected.rows(), found))
    assert trigger_ids(await consume_all(settings, TOPIC)) == expected.triggers()


def _difference(wanted: dict[bytes, list[int]], found: dict[bytes, list[int]]) -> str:
    wrong = {user: (row, found.get(user)) for user, row in wanted.items() if found.get(user) != row}
    return f"{len(wrong)} of {len(wanted)} rows differ, e.g. (wanted, found) {list(wrong.items())[:3]}"


async def test_killed_again_and_again_in_the_middle_nothing_is_lost_and_nothing_is_there_twice(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(
        inputs="orders,logins", partitions=2, batch_max=150, session_timeout="6s", clock="wall"
    )
    expected = Expected()
    await produce(settings, "orders", expected.add(orders(0, 12_000, 997)))
    await produce(settings, "logins", expected.add(orders(12_000, 8_000, 997)))
    chance = random.Random(5)
    worker = start(settings, instance_id="only-one")
    sent, in_the_middle = 20_000, 0
    for _ in range(12):
        await until(lambda: worker.metric("lifecycle_events_total") > 500, 30, worker.log)
        await asyncio.sleep(chance.uniform(0, 0.1))
        worker.kill()
        # On a busy machine we may come when it has applied everything: then once more.
        in_the_middle += rows(await consume_all(settings, "changelog")) != expected.rows()
        worker.start()
        if in_the_middle == 3:
            break
        await produce(settings, "orders", expected.add(orders(sent, 4_000, 997)))
        sent += 4_000
    assert in_the_middle == 3
    await finished(expected, settings, consume_all)
    # It goes on from the restored rows.
    await produce(settings, "orders", expected.add(orders(sent, 2_000, 997)))
    await finished(expected, settings, consume_all)
    assert worker.metric("lifecycle_recovery_records") > 0
    assert worker.metric("lifecycle_transaction_aborts_total") == 0


async def test_workers_join_and_leave_while_events_flow(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(inputs="orders,logins", partitions=4, batch_max=200)
    expected = Expected()
    enough = asyncio.Event()

    async def keep_sending() -> None:
        for part in itertools.count():
            await produce(settings, ("orders", "logins")[part % 2], expected.add(orders(part * 1000, 1000, 499)))
            await asyncio.sleep(0.2)
            if enough.is_set() and part >= 29:
                return

    first = start(settings, "first")
    await first.ready()
    sending = asyncio.create_task(keep_sending())
    second = start(settings, "second")
    await until(lambda: shards(second) == 2 and shards(first) == 2, 30, lambda: first.log() + second.log())
    third = start(settings, "third")
    await until(lambda: shards(first) + shards(second) + shards(third) == 4 and shards(third) > 0, 30, third.log)
    assert first.stop()[0] == 0
    await until(lambda: shards(second) + shards(third) == 4, 30, second.log)
    await until(lambda: third.metric("lifecycle_events_total") > 0, 30, third.log)
    enough.set()
    await sending
    await finished(expected, settings, consume_all)
    told = first.log() + second.log() + third.log()
    assert "drops what it holds" not in told, told


def shards(worker: Worker) -> int:
    return int(worker.metric("lifecycle_shards_open"))


async def test_a_frozen_worker_that_comes_back_to_life_gets_nothing_through(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(inputs="orders", partitions=2, batch_max=100, session_timeout="6s")
    expected = Expected()
    frozen, other = start(settings, "frozen"), start(settings, "other")
    await until(lambda: shards(frozen) == 1 and shards(other) == 1, 30, frozen.log)
    sending = asyncio.create_task(produce(settings, "orders", expected.add(orders(0, 20_000, 499))))
    await until(lambda: frozen.metric("lifecycle_events_total") > 500, 20, frozen.log)
    frozen.freeze()
    await sending
    await until(lambda: shards(other) == 2, 30, other.log)
    await produce(settings, "orders", expected.add(orders(20_000, 5_000, 499)))
    await asyncio.sleep(1)
    frozen.thaw()
    await finished(expected, settings, consume_all)
    await until(lambda: shards(frozen) + shards(other) == 2 and frozen.get("ready")[0] == 200, 30, frozen.log)


@pytest.mark.parametrize("clock", ["wall", "events"])
async def test_compressed_messages_of_every_kind_are_read(
    make_settings: Any, produce: Any, consume_all: Any, start: Start, clock: str
) -> None:
    settings = await make_settings(inputs="orders,logins", partitions=1, clock=clock)
    expected = Expected()
    for number, codec in enumerate(("gzip", "snappy", "lz4", "zstd")):
        await produce(
            settings, "orders", expected.add(orders(number * 500, 500, 40)), compression_type=codec, linger_ms=50
        )
    worker = start(settings)
    await finished(expected, settings, consume_all)
    assert worker.metric("lifecycle_events_total") == 2000


async def test_dead_letters_keep_their_bytes_however_large_they_are_together(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(inputs="orders", partitions=1)
    chance = random.Random(7)
    bad = [(b"k%d" % n, chance.randbytes(chance.choice((0, 1, 300, 400_000)))) for n in range(12)]
    bad += [(None, b"\xff\x00"), (b"\x80", b"{"), (b"empty", None)]
    expected = Expected()
    for record in bad:
        await produce(settings, "orders", [record])
        await produce(settings, "orders", expected.add([event(1, len(expected.events))]))
    start(settings)
    await finished(expected, settings, consume_all)
    assert [(r.key, r.value) for r in await consume_all(settings, "dead-letters")] == bad


async def test_sigterm_ends_a_working_worker_in_seconds_and_the_next_one_goes_on(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(inputs="orders", partitions=2, batch_max=100)
    expected = Expected()
    await produce(settings, "orders", expected.add(orders(0, 20_000, 499)))
    worker = start(settings)
    await until(lambda: worker.metric("lifecycle_events_total") > 1000, 30, worker.log)
    code, seconds = worker.stop()
    assert code == 0
    assert seconds < 15
    assert "Traceback" not in worker.log()
    worker.start()
    await finished(expected, settings, consume_all)


async def test_a_worker_is_not_ready_while_kafka_does_not_answer_and_is_again_once_it_does(
    kafka: Kafka, make_settings: MakeSettings, start: Start
) -> None:
    if kafka.cluster is None:
        pytest.skip("the broker is not ours to freeze")
    settings = await make_settings(inputs="orders", partitions=2, session_timeout="6s")
    worker = start(settings)
    await worker.ready()
    kafka.cluster.freeze(1)
    try:
        await until(lambda: worker.get("ready")[0] == 503, 30, worker.log)
        assert re.fullmatch(r"Kafka has not answered for \d+ s\.", worker.get("ready")[1].strip())
        assert worker.get("live")[0] == 200
    finally:
        kafka.cluster.thaw(1)
    await worker.ready(within=60)


async def test_a_defect_of_the_rules_stops_its_shard_alone_and_names_the_events(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(inputs="orders", partitions=2)
    expected = Expected()
    poison = event(0, 0)[1].replace(b'"e-0"', f'"{SimpleJob.POISON}"'.encode())
    await produce(settings, "orders", [(b"u-0", poison, 0)])
    fine = [(*record, 1) for record in expected.add(orders(1, 500, 20))]
    await produce(settings, "orders", fine)
    worker = start(settings)
    await finished(expected, settings, consume_all)
    await until(lambda: "stopped" in worker.get("ready")[1], 10, worker.log)
    status, reason = worker.get("ready")
    assert status == 503
    assert f"{physical(settings, 'orders')}[0] offsets 0 to 0" in reason
    assert worker.get("live")[0] == 200
    assert worker.metric("lifecycle_shards_open") == 1
    await until(lambda: worker.metric("lifecycle_consumer_lag_records", shard=1) == 0, 10, worker.log)
    assert [r for r in await consume_all(settings, "changelog", "read_uncommitted") if r.partition == 0] == []


@pytest.mark.parametrize("more", [True, False], ids=["and_more_follows", "and_it_was_the_last"])
async def test_what_gets_lost_on_the_way_to_a_shard_is_missed_and_read_again(
    make_settings: Any, produce: Any, consume_all: Any, start: Start, more: bool
) -> None:
    settings = await make_settings(inputs="orders", partitions=1)
    expected = Expected()
    await produce(settings, "orders", expected.add(orders(0, 50, 5)))
    worker = start(settings, options={"lose": 2, "wiring": {"lost_after": 2.0 if not more else 60.0}})
    await finished(expected, settings, consume_all)
    await produce(settings, "orders", expected.add(orders(50, 50, 5)), linger_ms=100)
    if more:
        await asyncio.sleep(1)
        await produce(settings, "orders", expected.add(orders(100, 50, 5)), linger_ms=100)
    await finished(expected, settings, consume_all)
    assert "drops what it holds and opens again: ChunkLost" in worker.log()


async def test_an_upstream_transaction_that_hangs_raises_the_alarm(
    make_settings: Any, produce: Any, start: Start
) -> None:
    settings = await make_settings(inputs="orders", partitions=1)
    topic = physical(settings, "orders")
    upstream = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, transactional_id=topic)
    await upstream.start()
    await upstream.begin_transaction()
    await upstream.send_and_wait(topic, key=b"u-1", value=event(1, 1)[1])
    await produce(settings, "orders", [event(2, 2)])
    worker = start(settings, options={"wiring": {"hanging_after": 1.0}})
    await until(lambda: worker.metric("lifecycle_hanging_transaction_seconds", input="orders") > 1, 20, worker.log)
    assert f"An upstream transaction on {topic}[0]" in worker.log()
    assert worker.metric("lifecycle_events_total") == 0
    await upstream.commit_transaction()
    await upstream.stop()
    await until(lambda: worker.metric("lifecycle_events_total") == 2, 10, worker.log)
    await until(lambda: worker.metric("lifecycle_hanging_transaction_seconds", input="orders") == 0, 10, worker.log)


async def test_events_deleted_by_retention_before_they_were_read_stop_the_shard_instead_of_a_silent_jump(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(inputs="orders", partitions=1)
    expected = Expected()
    await produce(settings, "orders", expected.add(orders(0, 100, 20)))
    worker = start(settings)
    await finished(expected, settings, consume_all)
    worker.stop()
    await produce(settings, "orders", orders(100, 100, 20))
    topic = physical(settings, "orders")
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(150)})
    await admin.close()
    before = await consume_all(settings, "changelog")
    worker.start()
    await until(lambda: "stopped" in worker.get("ready")[1], 20, worker.log)
    assert f"{topic}[0]: the events from offset 100 to 149 were deleted" in worker.get("ready")[1]
    assert worker.metric("lifecycle_offsets_out_of_range_total", input="orders") == 1
    assert worker.get("live")[0] == 200
    assert await consume_all(settings, "changelog") == before


async def test_rows_without_committed_offsets_stop_the_shard_instead_of_counting_events_again(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(inputs="orders", partitions=1)
    expected = Expected()
    await produce(settings, "orders", expected.add(orders(0, 100, 20)))
    worker = start(settings)
    await finished(expected, settings, consume_all)
    worker.stop()
    # The offsets of a group that nobody uses for a week are deleted; another group has none in the same way.
    other = start(settings, "other", options={"wiring": {"group": settings.app_id + "-other"}})
    await until(lambda: "stopped" in other.get("ready")[1], 20, other.log)
    assert "its group has no committed offsets" in other.get("ready")[1]
    assert rows(await consume_all(settings, "changelog")) == expected.rows()


async def test_an_input_added_worker_by_worker_is_read_from_its_start_without_a_shard_being_torn(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(inputs="orders,logins", partitions=2, session_timeout="6s")
    expected = Expected()
    await produce(settings, "orders", expected.add(orders(0, 500, 40)))
    await produce(settings, "logins", expected.add(orders(500, 500, 40)))
    old = start(settings, "old", inputs="orders")
    await until(lambda: old.metric("lifecycle_events_total") == 500, 30, old.log)
    new = start(settings, "new")
    await until(lambda: shards(old) == 1 and shards(new) == 1, 30, lambda: old.log() + new.log())
    assert "has only some of their inputs" in new.log()
    await produce(settings, "orders", expected.add(orders(1000, 500, 40)))
    await applied_up_to_the_end(replace(settings, inputs=("orders",)))
    assert old.stop()[0] == 0
    await finished(expected, settings, consume_all)
    assert shards(new) == 2


@pytest.mark.parametrize("command", ["lifecycle", "faust"])
async def test_the_shipped_rules_fire_through_the_worker_however_it_is_started(
    make_settings: Any, produce: Any, consume_all: Any, start: Start, command: str
) -> None:
    settings = await make_settings(inputs="coupons", partitions=1, clock="events")
    issued = {
        "event_id": "e-1",
        "type": "CouponIssued",
        "user_id": "u-42",
        "occurred_at": "2026-03-01T08:15:30+08:00",
        "coupon_id": "c-4",
        "value": "20.00",
        "currency": "CNY",
        "expires_at": "2026-03-31T23:59:59+08:00",
    }
    later = {"event_id": "t-1", "type": "ClockAdvanced", "occurred_at": "2026-03-12T00:00:00+08:00"}
    at = 1_775_000_000_000
    await produce(
        settings,
        "coupons",
        [(b"u-42", orjson.dumps(issued), 0, at), (b"u-42", b"{", 0, at), (None, orjson.dumps(later), 0, at)],
    )
    commands = {
        "lifecycle": Worker.REAL,
        "faust": ("-m", "faust", "--loop", "uvloop", "-A", "app.main", "worker", "-l", "info"),
    }
    worker = start(settings, command=commands[command])
    found: list[Any] = []

    async def fired() -> bool:
        found[:] = await consume_all(settings, "triggers.coupon")
        return bool(found)

    await until(fired, 30, worker.log)
    [trigger] = found
    assert trigger.key == b"u-42"
    assert orjson.loads(trigger.value)["rule"] == "coupon_unused"
    [dead] = await consume_all(settings, "dead-letters")
    assert (dead.key, dead.value) == (b"u-42", b"{")
    await until(lambda: worker.metric("lifecycle_triggers_total", rule="coupon_unused") == 1, 10, worker.log)
    assert worker.stop()[0] == 0


async def test_a_topic_that_is_missing_ends_the_worker_with_a_sentence(make_settings: Any, start: Start) -> None:
    settings = await make_settings(inputs="orders", create=False)
    worker = start(settings)
    assert await worker.ended() == 2
    assert changelog(settings) in worker.log()
    assert "lifecycle topics create" in worker.log()
    assert "Traceback" not in worker.log()


async def test_a_broker_out_of_reach_ends_the_worker_with_a_sentence(make_settings: Any, start: Start) -> None:
    settings = await make_settings(inputs="orders", create=False)
    worker = start(settings, kafka_bootstrap="127.0.0.1:1")
    assert await worker.ended() == 2
    assert "No Kafka answers at 127.0.0.1:1" in worker.log()
    assert "Traceback" not in worker.log()


async def test_wrong_settings_are_all_told_at_once(make_settings: Any, tmp_path: Path) -> None:
    settings = await make_settings(create=False)
    worker = Worker(settings, tmp_path, command=Worker.REAL, partitions="many", clock="sun").start()
    assert await worker.ended() == 2
    assert "LIFECYCLE_PARTITIONS is 'many'" in worker.log()
    assert "LIFECYCLE_CLOCK is 'sun'" in worker.log()
    assert "Traceback" not in worker.log()


async def test_a_worker_that_finds_its_port_taken_ends_without_taking_shards_from_another(
    make_settings: Any, tmp_path: Path
) -> None:
    settings = await make_settings(partitions=2)
    first = Worker(settings, tmp_path, "first", Worker.REAL).start()
    try:
        await first.ready()
        port = re.search(r"Pages: http://\S+:(\d+)/ready", first.log())
        assert port is not None
        second = Worker(settings, tmp_path, "second", Worker.REAL, http_port=port[1]).start()
        assert await second.ended() == 2
        assert f"Port {port[1]} on 127.0.0.1 is taken by another program" in second.log()
        await asyncio.sleep(1.0)
        assert first.log().count("This worker has the shards") == 1
        assert first.stop()[0] == 0
    finally:
        first.close()


def test_faust_finds_the_app_and_serves_none_of_its_own_pages(tmp_path: Path) -> None:
    assert os.access(tmp_path, os.W_OK)
    from app.main import build_app
    from app.settings import load_settings

    app = build_app(load_settings({"LIFECYCLE_DATA_DIR": str(tmp_path)}))
    assert sorted(agent.fun.__name__ for agent in app.agents.values()) == sorted(
        ["orders", "logins", "browse", "coupons", "profiles", "feedback", "transfers"]
    )
    assert list(app.boot_strategy.web_server()) == []
    assert list(app.boot_strategy.kafka_producer()) == []
