"""Rejects in a row on a real Kafka: an alarm, and a stop where the shop chose so; what is ignored is no reject."""

from __future__ import annotations

import orjson
import pytest

from tests.kafka.harness import until

from .conftest import ConsumeAll, MakeSettings, Produce, Start

pytestmark = pytest.mark.kafka

BAD = (b"u-1", b"{")


def said(number: int, kind: str = "UserLoggedIn") -> tuple[bytes, bytes]:
    body = {"event_id": f"e-{number}", "type": kind, "user_id": "u-1", "occurred_at": "2026-03-01T00:00:00Z"}
    return b"u-1", orjson.dumps(body)


async def test_rejects_in_a_row_raise_the_alarm_and_stop_the_shard_only_where_the_shop_chose_so(
    make_settings: MakeSettings, produce: Produce, consume_all: ConsumeAll, start: Start
) -> None:
    settings = await make_settings(inputs="logins", partitions=1)
    await produce(settings, "logins", [said(1), *[BAD] * 9, said(2), *[BAD] * 9])
    choice = {"reject_ceiling": 10, "on_reject_ceiling": "stop"}
    worker = start(settings, "strict", **choice)
    await until(lambda: worker.metric("lifecycle_rejects_total") == 18, 30, worker.log)
    assert worker.get("ready")[0] == 200  # nine in a row, twice
    # what is ignored breaks no row of rejects, and adds nothing to it
    await produce(settings, "logins", [said(n, "NobodyKnowsThis") for n in range(3, 30)])
    await until(lambda: worker.metric("lifecycle_ignored_total") == 27, 30, worker.log)
    assert worker.get("ready")[0] == 200
    await produce(settings, "logins", [BAD, said(30)])
    await until(lambda: "stopped" in worker.get("ready")[1], 30, worker.log)
    sentence = worker.get("ready")[1]
    assert "10 messages in a row could not be used" in sentence
    assert "start with LIFECYCLE_ON_REJECT_CEILING=alarm" in sentence
    assert "STOPPED" in worker.log()
    worker.stop()
    assert len(await consume_all(settings, "dead-letters")) == 18

    await produce(settings, "logins", [*[BAD] * 12, said(31)])
    patient = start(settings, "patient", reject_ceiling=10)
    await until(lambda: patient.metric("lifecycle_events_total") == 2, 30, patient.log)
    await produce(settings, "logins", [BAD] * 12)
    await until(lambda: patient.metric("lifecycle_rejects_total") == 25, 30, patient.log)
    assert patient.get("ready")[0] == 200
    assert "12 messages in a row could not be used: an upstream service has most likely" in patient.log()
    assert patient.metric("lifecycle_consecutive_rejects") == 12
    assert len(await consume_all(settings, "dead-letters")) == 18 + 25
