"""The contract on a real broker: what goes in wrong comes out explained, what goes in twice comes out the same, and
people who know nothing of us read the triggers."""

from __future__ import annotations

import asyncio
import random
import uuid
from datetime import UTC
from functools import partial
from typing import Any

import orjson
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from app import clock
from app.processor import partition_of
from app.replay.journey import load_journey
from app.replay.outgoing import Outgoing
from app.replay.publish import publish
from app.rulebook import SHIPPED
from schemas.instant import format_instant
from schemas.rejects import CODES
from tests.kafka import replay_twice
from tests.kafka.conftest import Consumed, Start, ToSend
from tests.kafka.harness import until
from tests.schemas.test_fuzz import mutate

AT = "2026-03-01T08:15:30+08:00"


def issued(number: int, user: str = "u-42", **more: object) -> dict[str, Any]:
    return {
        "event_id": f"e-{number}",
        "type": "CouponIssued",
        "user_id": user,
        "occurred_at": AT,
        "coupon_id": f"c-{number}",
        **more,
    }


def elsewhere(partitions: int) -> str:
    """A user who does not belong to partition 0."""
    return next(u for u in map(str, range(100)) if partition_of(u.encode(), partitions, "murmur2") != 0)


async def test_every_kind_of_bad_message_is_a_dead_letter_with_its_bytes_and_a_reason(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(inputs="orders,coupons", partitions=2, clock="wall")
    stranger = elsewhere(2)
    mine = next(u for u in map(str, range(100)) if partition_of(u.encode(), 2, "murmur2") == 0)
    key = mine.encode()

    def message(**more: object) -> bytes:
        return orjson.dumps({k: v for k, v in issued(1, mine, **more).items() if v is not None})

    paid = {
        "event_id": "e-paid", "type": "OrderPaid", "user_id": mine, "occurred_at": AT, "order_id": "o-1",
        "currency": "CNY", "total": "9.00", "lines": [],
    }  # fmt: skip
    refund = {
        "event_id": "e-refund", "type": "OrderRefunded", "user_id": mine, "occurred_at": AT, "order_id": "o-1",
        "amount": "9.00", "currency": "USD",
    }  # fmt: skip
    bad: dict[str, tuple[str, bytes | None, bytes]] = {
        "not_json": ("coupons", key, b'{"event_id": "e-1"'),
        "not_an_object": ("coupons", key, b"[1, 2]"),
        "unknown_type": ("coupons", key, message(type="CouponIssuedd")),
        "wrong_topic": ("orders", key, message()),
        "missing_field": ("coupons", key, message(coupon_id=None)),
        "bad_value": ("coupons", key, message(value=20.5, currency="CNY")),
        "bad_time": ("coupons", key, message(occurred_at="2026-03-01T08:15:30")),
        "no_key": ("coupons", None, message()),
        "key_mismatch": ("coupons", b"somebody-else", message()),
        "wrong_partition": ("coupons", stranger.encode(), orjson.dumps(issued(1, stranger))),
        "too_large": ("coupons", key, orjson.dumps(issued(1, mine, batch="x" * 1_100_000))),
        "cannot_apply": ("orders", key, orjson.dumps(refund)),
    }
    assert set(bad) == set(CODES)
    await produce(settings, "orders", [ToSend(key, orjson.dumps(paid), 0)])
    for topic, its_key, value in bad.values():
        # Compressed, a value larger than the topic's limit passes the broker.
        await produce(settings, topic, [ToSend(its_key, value, 0)], max_request_size=4_000_000, compression_type="gzip")
    good = await produce(settings, "coupons", [ToSend(key, orjson.dumps(issued(2, mine)), 0)])
    assert good
    worker = start(settings, unknown_types="reject")
    await until(lambda: worker.metric("lifecycle_rejects_total") == len(bad), 40, worker.log)

    found: list[Consumed] = await consume_all(settings, "dead-letters")
    by_code = {dict(record.headers)["dlq.reason_code"].decode(): record for record in found}
    assert set(by_code) == set(bad)
    assert len(found) == len(bad)
    for code, (topic, its_key, value) in bad.items():
        headers = {name: text.decode() for name, text in by_code[code].headers}
        assert (by_code[code].key, by_code[code].value) == (its_key, value), code
        assert headers["dlq.topic"] == topic
        assert headers["dlq.partition"] == "0"
        assert len(headers["dlq.reason"].split()) >= 4, headers["dlq.reason"]
    assert {name for name, _ in by_code["bad_value"].headers} == {
        "dlq.reason_code", "dlq.reason", "dlq.field", "dlq.topic", "dlq.partition", "dlq.offset", "dlq.rejected_at",
    }  # fmt: skip
    assert dict(by_code["bad_value"].headers)["dlq.field"] == b"value"
    # the flow went on: what was good, before and after, was applied
    for kind in ("OrderPaid", "CouponIssued"):
        await until(lambda kind=kind: worker.metric("lifecycle_events_total", type=kind) == 1, 10, worker.log)
    assert worker.stop()[0] == 0


async def test_ten_thousand_random_and_mutated_messages_stop_nothing(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(inputs="orders,logins,browse,coupons,profiles", partitions=2, clock="wall")
    dice = random.Random(20_260_301)
    sent = 0
    for topic in settings.inputs:
        messages = [ToSend(b"u-42", mutate(dice), dice.randrange(2)) for _ in range(1_600)]
        messages += [ToSend(dice.randbytes(4), dice.randbytes(dice.randrange(200)), 0) for _ in range(400)]
        await produce(settings, topic, messages)
        sent += len(messages)
    user = next(u for u in map(str, range(100)) if partition_of(u.encode(), 2, "murmur2") == 0)
    await produce(settings, "coupons", [ToSend(user.encode(), orjson.dumps(issued(7, user)), 0)])
    worker = start(settings)

    def handled() -> float:
        kinds = ("events", "ignored", "rejects", "duplicate_events")
        return sum(worker.metric(f"lifecycle_{kind}_total") for kind in kinds)

    await until(lambda: handled() >= sent + 1, 60, lambda: f"{handled()} of {sent + 1}\n{worker.log()[-3000:]}")
    assert worker.get("ready")[0] == 200, worker.log()[-3000:]
    rejected = await consume_all(settings, "dead-letters")
    assert len(rejected) == worker.metric("lifecycle_rejects_total") > 1_000
    assert worker.metric("lifecycle_events_total", type="CouponIssued") >= 1
    assert worker.stop()[0] == 0


async def test_a_replay_gives_the_same_bytes_in_the_same_order_whatever_the_batches(
    make_settings: Any, start: Start
) -> None:
    # Three households here; python -m tests.kafka.replay_twice plays as many as the demo.
    journey = load_journey(3)
    app_id = f"app-{uuid.uuid4().hex[:8]}"
    found = []
    for batch_max in replay_twice.BATCHES:
        # The same app id behind another prefix: the triggers' source names it.
        settings = await make_settings(clock="events", app_id=app_id, topic_prefix=f"b{batch_max}-{app_id}.")
        begin = partial(start, settings, batch_max=batch_max)
        found.append(await replay_twice.replayed(settings, journey, begin, within=120))
    ones, thousands = found
    assert replay_twice.differences(ones, thousands) == []
    filled = {topic for (topic, _), log in ones.records.items() if log}
    assert filled >= {"triggers.replenishment", "triggers.coupon", "triggers.winback", "decisions", "dead-letters"}
    place = next(place for place, log in ones.records.items() if len(log) > 1)
    turned = ones._replace(records={**ones.records, place: ones.records[place][::-1]})
    assert len(replay_twice.differences(ones, turned)) == 1


async def test_what_a_user_does_in_one_second_is_replayed_into_a_live_worker_in_that_order(
    make_settings: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(partitions=1, clock="wall")
    worker = start(settings, rules=SHIPPED)
    await until(lambda: "has changed over" in worker.log(), 30, worker.log)  # its rules are switched on
    users = [f"u-{number}" for number in range(8)]
    for user in users:  # whoever had bought before registering is not new, and would get no pack
        now = clock.now()
        registered = {"type": "UserRegistered", "occurred_at": format_instant(now, UTC)}
        order = {"order_id": f"o-{user}", "currency": "CNY", "total": "9.00", "lines": []}
        bought = {"type": "OrderPaid", "occurred_at": format_instant(now + 50_000, UTC), **order}
        events = [
            Outgoing(at, topic, user.encode(), orjson.dumps({"event_id": f"{topic}-{user}", "user_id": user, **event}))
            for at, topic, event in ((now, "logins", registered), (now + 50_000, "orders", bought))
        ]
        await publish(events, settings)

    async def welcomed() -> bool:
        rules = [orjson.loads(record.value)["rule"] for record in await consume_all(settings, "triggers.welcome")]
        return rules.count("welcome_pack") == len(users)

    await until(welcomed, 30, worker.log)
    assert worker.stop()[0] == 0


async def test_a_plain_cloudevents_reader_understands_a_trigger(
    make_settings: Any, produce: Any, consume_all: Any, start: Start
) -> None:
    settings = await make_settings(inputs="coupons", partitions=1, clock="events")
    later = b'{"type": "ClockAdvanced", "occurred_at": "2026-03-12T00:00:00+08:00"}'
    coupon = issued(4, value="20.00", currency="CNY", expires_at="2026-03-31T23:59:59+08:00")
    await produce(settings, "coupons", [ToSend(b"u-42", orjson.dumps(coupon), 0), ToSend(None, later, 0)])
    worker = start(settings)
    records: list[Consumed] = []

    async def fired() -> bool:
        records[:] = await consume_all(settings, "triggers.coupon")
        return bool(records)

    await until(fired, 30, worker.log)
    message = KafkaMessage(headers=dict(records[0].headers), key=records[0].key, value=records[0].value or b"")
    event = from_binary(message, JSONFormat(), CloudEvent)
    assert event.get_type() == "lifecycle.trigger.fired.v1"
    assert event.get_source() == f"/lifecycle-triggers/{settings.app_id}"
    assert event.get_subject() == "u-42"
    data: Any = event.get_data()
    assert data["trigger_id"] == event.get_id()
    assert data["reason"].startswith("Coupon c-4 (20.00 CNY off) from 1 March has not been used for 7 days")
    await asyncio.to_thread(worker.stop)
