"""Where a shard reads on when the group's offsets are not what they were: expired, deleted, or set by a person."""

from __future__ import annotations

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int16, Int32, Schema, String
from aiokafka.structs import OffsetAndMetadata

from app.core.row import decode
from app.settings import Settings
from app.topics import physical
from tests.faults import outcome
from tests.kafka.harness import Worker, until, until_known

from .conftest import MakeSettings, Produce, Start

pytestmark = pytest.mark.kafka


# -- what happens to a group's offsets


class _OffsetDeleteResponse(Response):
    API_KEY = 47
    API_VERSION = 0
    SCHEMA = Schema(
        ("error_code", Int16),
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(("name", String("utf-8")), ("partitions", Array(("partition", Int32), ("error_code", Int16)))),
        ),
    )


class _OffsetDeleteStruct(RequestStruct):
    API_KEY = 47
    API_VERSION = 0
    RESPONSE_TYPE = _OffsetDeleteResponse
    SCHEMA = Schema(
        ("group_id", String("utf-8")),
        ("topics", Array(("name", String("utf-8")), ("partitions", Array(Int32)))),
    )


class _OffsetDelete(Request[_OffsetDeleteStruct]):
    """As kafka-consumer-groups.sh --delete-offsets sends it, and as expiry leaves things; aiokafka does not have it."""

    API_KEY = 47

    def __init__(self, group: str, topics: list[tuple[str, list[int]]]) -> None:
        self._group, self._topics = group, topics

    def build(self, request_struct_class: type[_OffsetDeleteStruct]) -> _OffsetDeleteStruct:
        return request_struct_class(self._group, self._topics)


_OffsetDelete._CLASSES = (_OffsetDeleteStruct,)


def group_of(settings: Settings) -> str:
    return settings.topic_prefix + settings.app_id


async def forget(settings: Settings, *inputs: str) -> None:
    """The group's offsets of these inputs are gone. It must have no members."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        node = await admin.find_coordinator(group_of(settings))
        topics = [(physical(settings, name), list(range(settings.partitions))) for name in inputs]
        response = await admin._send_request(_OffsetDelete(group_of(settings), topics), node)
        assert response.error_code == 0, response
        assert all(code == 0 for _, partitions in response.topics for _, code in partitions), response
    finally:
        await admin.close()


async def set_offset(settings: Settings, input: str, offset: int) -> None:
    """As a person does it with kafka-consumer-groups.sh --reset-offsets."""
    async with AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, group_id=group_of(settings), enable_auto_commit=False
    ) as consumer:
        tp = TopicPartition(physical(settings, input), 0)
        consumer.assign([tp])
        await consumer.commit({tp: OffsetAndMetadata(offset, "")})


async def make_anew(settings: Settings, input: str) -> None:
    """The input's topic is deleted, which takes the group's offset along, and made again."""
    topic = physical(settings, input)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])
        await until_known(settings, input, None)  # else what is sent at once may go to the old one
        (answer,) = (await admin.create_topics([NewTopic(topic, settings.partitions, 1)])).topic_errors
        assert answer[1] == 0, answer
        await until_known(settings, input, settings.partitions)
    finally:
        await admin.close()


# -- and what the shard makes of it


def coupons(first: int, count: int) -> list[tuple[bytes, bytes]]:
    """Events that have an effect on top of their ids: each coupon has a state of its own in the row."""
    return [
        (
            b"u-%d" % (n % 7),
            orjson.dumps({
                "event_id": f"e-{n}", "type": "CouponIssued", "user_id": f"u-{n % 7}", "coupon_id": f"c-{n}",
                "occurred_at": f"2026-03-01T00:{n // 60:02}:{n % 60:02}Z", "value": "20.00", "currency": "CNY",
            }),
        )
        for n in range(first, first + count)
    ]  # fmt: skip


def logins(first: int, count: int) -> list[tuple[bytes, bytes]]:
    return [
        (
            b"u-%d" % (n % 7),
            orjson.dumps({
                "event_id": f"l-{n}", "type": "UserLoggedIn", "user_id": f"u-{n % 7}",
                "occurred_at": f"2026-03-01T00:{n // 60:02}:{n % 60:02}Z",
            }),
        )
        for n in range(first, first + count)
    ]  # fmt: skip


async def applied(worker: Worker, events: int, duplicates: int = 0) -> None:
    """It has read just so many events since its start, so many of which it knew."""

    def counted() -> tuple[float, float]:
        return worker.metric("lifecycle_events_total"), worker.metric("lifecycle_duplicate_events_total")

    await until(lambda: counted()[0] >= events and not lag(worker), 30, lambda: (counted(), worker.log()))
    assert counted() == (events, duplicates)


def lag(worker: Worker) -> float:
    return worker.metric("lifecycle_consumer_lag_records")


async def test_offsets_that_expired_are_replaced_by_the_shards_own_record_and_those_a_person_set_count(
    make_settings: MakeSettings, produce: Produce, start: Start
) -> None:
    settings = await make_settings(inputs="logins,coupons", partitions=1, clock="wall")
    await produce(settings, "coupons", coupons(0, 50))
    await produce(settings, "logins", logins(0, 40))
    worker = start(settings, "first")
    await applied(worker, 90)
    assert worker.stop()[0] == 0

    # one input was out of INPUTS for longer than its offset is kept
    await forget(settings, "coupons")
    await produce(settings, "coupons", coupons(50, 30))
    await produce(settings, "logins", logins(40, 10))
    worker = start(settings, "one-lost")
    await applied(worker, 40)
    topic = physical(settings, "coupons")
    assert f"The group's offset of {topic}[0] has expired or was deleted: the shard goes on at 50" in worker.log()
    assert "was set to" not in worker.log()
    assert worker.stop()[0] == 0

    # all workers were stopped for longer than offsets are kept
    await forget(settings, "coupons", "logins")
    await produce(settings, "coupons", coupons(80, 20))
    worker = start(settings, "all-lost")
    await applied(worker, 20)
    assert worker.log().count("has expired or was deleted") == 2
    assert worker.stop()[0] == 0

    # a person wants some events read again; they are known by their ids
    await set_offset(settings, "coupons", 90)
    worker = start(settings, "set-back")
    await applied(worker, 10, duplicates=10)
    assert f"The group's offset of {topic}[0] was set to 90, and that counts; the shard itself had come to 100." in (
        worker.log()
    )
    await produce(settings, "coupons", coupons(100, 5))
    await applied(worker, 15, duplicates=10)
    assert worker.stop()[0] == 0

    found = await outcome.left_by(settings)
    users = [decode(row) for (_, key), row in found.rows.items() if key.startswith(b"u-") and isinstance(row, bytes)]
    assert sum(len(row.coupons) for row in users) == 105
    assert sum(len(row.ledger) // 12 for row in users) == 105 + 50


async def test_where_the_shards_own_record_stands_must_still_be_there(
    make_settings: MakeSettings, produce: Produce, start: Start
) -> None:
    settings = await make_settings(inputs="logins,coupons", partitions=1, clock="wall")
    await produce(settings, "coupons", coupons(0, 20))
    worker = start(settings, "first")
    await applied(worker, 20)
    assert worker.stop()[0] == 0
    await forget(settings, "coupons", "logins")
    # of an input that has never given anything the shard knows as well where it began
    await produce(settings, "logins", logins(0, 10))
    topic = physical(settings, "logins")
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(4)})
    await admin.close()
    worker = start(settings, "late")
    await until(lambda: "stopped" in worker.get("ready")[1], 20, worker.log)
    assert f"{topic}[0]: the events from offset 0 to 3 were deleted" in worker.get("ready")[1]
    assert worker.metric("lifecycle_offsets_out_of_range_total", input="logins") == 1


async def test_a_topic_that_was_made_anew_and_has_grown_past_where_the_shard_stood_is_not_read_on_there(
    make_settings: MakeSettings, produce: Produce, start: Start
) -> None:
    settings = await make_settings(inputs="logins,coupons", partitions=1, clock="wall")
    await produce(settings, "coupons", coupons(0, 30))
    worker = start(settings, "first")
    await applied(worker, 30)
    assert worker.stop()[0] == 0
    await make_anew(settings, "coupons")
    await produce(settings, "coupons", coupons(1000, 50))
    said = f"{physical(settings, 'coupons')}[0]: the record before offset 30 is not the one that the shard applied"

    async def refused(name: str) -> None:
        worker = start(settings, name)
        await until(lambda: "stopped" in worker.get("ready")[1], 20, worker.log)
        assert said in worker.get("ready")[1]
        assert worker.metric("lifecycle_offsets_out_of_range_total", input="coupons") == 1
        assert worker.metric("lifecycle_events_total") == 0
        assert worker.stop()[0] == 0

    await refused("no-offset")
    await set_offset(settings, "coupons", 30)  # a broker that kept the group's offset
    await refused("same-offset")

    await set_offset(settings, "coupons", 0)  # a person says where to go on
    worker = start(settings, "from-its-beginning")
    await applied(worker, 50)


async def transact(settings: Settings, input: str, records: list[tuple[bytes, bytes]], abort: bool = False) -> None:
    """Sends each in a transaction of its own: the log ends with a marker."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, transactional_id=settings.app_id)
    async with producer:
        for key, value in records:
            await producer.begin_transaction()
            await producer.send_and_wait(physical(settings, input), key=key, value=value)
            await (producer.abort_transaction() if abort else producer.commit_transaction())


async def test_what_retention_took_after_it_was_read_is_not_missed_if_its_producer_is_transactional(
    make_settings: MakeSettings, produce: Produce, start: Start
) -> None:
    settings = await make_settings(inputs="logins,coupons,orders", partitions=1, clock="wall")
    worker = start(settings, "first")
    await applied(worker, 0)
    await transact(settings, "coupons", coupons(0, 3))
    await transact(settings, "logins", logins(0, 2), abort=True)
    await applied(worker, 3)
    await produce(settings, "orders", [(b"u-1", b"junk")])  # whatever it writes next, it notes where it is
    await until(lambda: worker.metric("lifecycle_rejects_total") == 1, 20, worker.log)
    assert worker.stop()[0] == 0

    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    emptied = [TopicPartition(physical(settings, name), 0) for name in ("logins", "coupons")]
    await admin.delete_records({tp: RecordsToDelete(-1) for tp in emptied})
    await admin.close()
    worker = start(settings, "a-month-later")
    await transact(settings, "coupons", coupons(3, 2))
    await applied(worker, 2)
    await produce(settings, "orders", [(b"u-1", b"junk")])
    await until(lambda: worker.metric("lifecycle_rejects_total") == 1, 20, worker.log)
    assert worker.stop()[0] == 0

    await forget(settings, "coupons", "orders")  # the record that was applied last lies before a marker
    worker = start(settings, "offsets-expired")
    await transact(settings, "coupons", coupons(5, 2))
    await applied(worker, 2)
    assert worker.log().count("has expired or was deleted") == 2
