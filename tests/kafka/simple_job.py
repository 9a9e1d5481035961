"""The job of the benchmark and of the engine's tests, with the processor's interface: one row a user, a trigger on
every tenth event of a user.

What it writes depends on each user's events alone, not on how inputs or batches interleave, so that any disturbed run
must end with exactly the rows and triggers of an undisturbed one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from app.processor import TRANSFERS, Batch, Fingerprint, Output, Record

BUFFER = 20_000
EVERY = 10
TOPIC = "triggers.coupon"


class SimpleJob:
    """Row: [events, cents, last event id]. `POISON` as an event id raises, like a defect of the rules would."""

    POISON = "poison"

    def __init__(self, inputs: Sequence[str], wall: bool, shard: int, buffer: int = BUFFER) -> None:
        self.shard = shard
        self.merged = 0
        self.pending_timers = 0
        self.read_up_to: dict[str, int] = {}  # it keeps no record of its own: the group's offsets are all there is
        self.applied: dict[str, Fingerprint] = {}
        self._wall, self._buffer = wall, buffer
        self._cold: dict[bytes, bytes] = {}
        self._rows: dict[bytes, list[Any]] = {}
        self._pending: dict[str, deque[Record]] = {name: deque() for name in (*inputs, TRANSFERS)}

    @property
    def rows_held(self) -> int:
        return len(self._cold)

    def restore(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._cold.pop(key, None)
        else:
            self._cold[key] = value

    def restored(self) -> None:
        pass

    def feed(self, input: str, records: Sequence[Record], position: int) -> None:
        self._pending[input].extend(records)

    def room(self, input: str) -> int:
        return self._buffer - len(self._pending[input])

    def look(self, now: int, ends: Mapping[str, int]) -> None:
        assert set(ends) == set(self._pending)
        self.merged = max(self.merged, now)

    def take(self, limit: int) -> Batch | None:
        if self._wall and not self.merged:
            return None
        offsets: dict[str, int] = {}
        outputs: list[Output] = []
        counts: Counter[tuple[str, ...]] = Counter()
        dirty: dict[bytes, list[Any]] = {}
        left = limit
        rows = self._rows
        for name, pending in self._pending.items():
            while pending and left > 0:
                record = pending.popleft()
                left -= 1
                offsets[name] = record.offset + 1
                key = record.key
                try:
                    event = orjson.loads(record.value or b"")
                    user, cents, event_id = event["user_id"].encode(), event["cents"], event["event_id"]
                except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                    counts["rejects", "not_json"] += 1
                    outputs.append(Output("dead-letters", key, record.value, (("dlq.reason_code", b"not_json"),)))
                    continue
                if event_id == self.POISON:
                    raise ValueError("a defect of the rules")
                row = rows.get(user)
                if row is None:
                    held = self._cold.get(user)
                    row = rows[user] = orjson.loads(held) if held else [0, 0, ""]
                row[0] += 1
                row[1] += cents
                row[2] = event_id
                dirty[user] = row
                counts["events", "OrderPaid"] += 1
                if row[0] % EVERY == 0:
                    body = orjson.dumps({"trigger_id": f"{user.decode()}-{row[0]}", "user_id": user.decode()})
                    outputs.append(Output(TOPIC, user, body, (("ce_id", f"{user.decode()}-{row[0]}".encode()),)))
                    counts["triggers", "tenth"] += 1
        if not offsets:
            return None
        encoded = [(user, orjson.dumps(row)) for user, row in dirty.items()]
        self._cold.update(encoded)
        return Batch(encoded, outputs, offsets, counts)


def event(user: int, number: int) -> tuple[bytes, bytes]:
    """Key and value of an order event of about 430 bytes."""
    name = f"u-{user}"
    body = {
        "event_id": f"e-{number}",
        "type": "OrderPaid",
        "user_id": name,
        "occurred_at": "2026-03-01T08:15:30+08:00",
        "channel": "app",
        "order_id": f"o-{number}",
        "currency": "CNY",
        "cents": 100 + number % 9_000,
        "total": "258.00",
        "lines": [
            {"product_id": f"p-{number % 5_000}", "sku": f"s-{number % 9_000}", "category": "baby",
             "product_type": "milk_powder", "quantity": 2, "unit_price": "129.00",
             "title": "Milk powder, stage 2, 900 g", "image_url": "https://img.example/p/900.jpg"}
        ],
        "coupons_used": ["c-3"],
    }  # fmt: skip
    return name.encode(), orjson.dumps(body)
