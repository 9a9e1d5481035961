"""The largest row, and messages too large even for the dead letters, on a real broker: nothing of it stops a shard."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from app.processor import MAX_LETTER_BYTES, MAX_ROW_BYTES
from tests.core.giant import USER, giant_events
from tests.kafka.harness import Worker, until

from .conftest import ConsumeAll, MakeSettings, Produce, ToSend

pytestmark = pytest.mark.kafka


async def test_the_largest_row_is_written_and_read_back_and_no_message_is_too_large_to_be_refused(
    make_settings: MakeSettings, produce: Produce, consume_all: ConsumeAll, tmp_path: Path
) -> None:
    settings = await make_settings(partitions=1, clock="wall")
    sent = 0
    by_topic: dict[str, list[ToSend]] = {}
    for topic, value in giant_events():
        by_topic.setdefault(topic, []).append(ToSend(USER.encode(), value, 0))
        sent += 1
    for topic, records in by_topic.items():
        await produce(settings, topic, records, max_request_size=4_000_000, compression_type="gzip")
    huge = ToSend(b"u-2", b" " * (MAX_LETTER_BYTES + 1), 0)
    login = {"event_id": "l", "type": "UserLoggedIn", "user_id": "u-2", "occurred_at": "2026-03-01T00:00:00Z"}
    await produce(settings, "logins", [huge], max_request_size=20_000_000, compression_type="gzip")
    await produce(settings, "logins", [ToSend(b"u-2", orjson.dumps(login), 0)])

    worker = Worker(settings, tmp_path, command=Worker.REAL, rules="app/catalogue")
    try:
        worker.start()

        def handled() -> float:
            return worker.metric("lifecycle_events_total") + worker.metric("lifecycle_rejects_total")

        await until(lambda: handled() >= sent + 2, 120, lambda: f"{handled()} of {sent + 2}: {worker.log()[-3000:]}")
        assert worker.get("ready")[0] == 200, worker.log()
        letters = await consume_all(settings, "dead-letters")
        codes = [dict(letter.headers)["dlq.reason_code"] for letter in letters]
        assert sorted(set(codes)) == [b"too_large"], [dict(letter.headers)["dlq.reason"] for letter in letters]
        assert [letter.value for letter, code in zip(letters, codes, strict=True) if code == b"too_large"] == [None]
        rows = [len(r.value or b"") for r in await consume_all(settings, "changelog") if r.key == USER.encode()]
        assert 0.7 * MAX_ROW_BYTES < max(rows) <= MAX_ROW_BYTES
        assert worker.stop()[0] == 0
        worker.start()
        await worker.ready(within=60)
        await until(lambda: worker.metric("lifecycle_rows_held") == 2, 10, worker.log)
        assert worker.stop()[0] == 0
    finally:
        worker.close()
