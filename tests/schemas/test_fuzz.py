"""Whatever arrives, decoding never raises: there is an event, a refusal with a reason, or something to ignore."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import DecodeOptions, Ignored, RejectedMessage, dead_letter_headers, decode
from schemas.events import EVENT_TYPES, INPUT_TOPICS, ClockAdvanced, Event
from schemas.rejects import CODES
from tests.schemas.samples import LONG_AFTER_MS, OPTIONS, example
from tests.schemas.test_segment import FRAME, ORDER

SEED = 20260301
STRICT = DecodeOptions(unknown_types="reject", max_bytes=100_000)
SAMPLES = [example(name) for name in [*EVENT_TYPES, "ClockAdvanced"]] + [
    {**FRAME, "event": event, "properties": ORDER}
    for event in ("Order Completed", "Order Refunded", "Cart Viewed", "Product Viewed", "Coupon Applied")
]
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 1.5, 1e300, -1e-300, 0.1 + 0.2, 2**63, 2**64 - 1, -(2**63), 10**40),
    *(946_684_799_999, 253_402_300_800_000),
    *("", "x", "\x00", "x" * 3000, "\u202e", "🧸", "`", "$.a", " - at `$.lines[0]", "track", "OrderPaid"),
    *("NaN", "Infinity", "-0", "0" * 30, "1e9999", "Asia/Shanghai", "--13-45", "2026-03-01", "2026-03-01T08:15:30"),
    *("9999-12-31T23:59:59.999999-23:59", "2000-01-01T00:00:00+23:59"),
    *([], {}, [[]], [{}], [None], {"a": None}, {"": {"": {}}}, [[[[[[[[]]]]]]]]),
]


def check(topic: str, key: bytes | None, value: bytes | None, options: DecodeOptions = OPTIONS) -> str:
    """Decode, and hold what came out against what may come out. Returns which of the four kinds it was."""
    result = decode(topic, key, value, LONG_AFTER_MS, options)
    if isinstance(result, RejectedMessage):
        assert result.code in CODES
        assert result.reason.strip().endswith((".", "?", ")")), result
        assert len(result.reason) < 2000
        headers = dead_letter_headers(result, topic, 0, 0, "2026-03-01T08:15:31+08:00")
        assert b"".join(header for _, header in headers).decode("utf-8")
        return result.code
    if isinstance(result, Ignored):
        assert result.kind in ("unknown_type", "anonymous", "unmapped")
        assert len(result.name) <= 100
        return result.kind
    assert isinstance(result, Event | ClockAdvanced)
    return "event"


def places(part: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON value at which something can be changed."""
    found: list[tuple[Any, Any]] = []
    pairs = list(part.items()) if isinstance(part, dict) else list(enumerate(part)) if isinstance(part, list) else []
    for key, value in pairs:
        found += [(part, key), *places(value)]
    return found


def mutate(dice: random.Random) -> bytes:
    """One of the published messages, changed in its structure or in its bytes."""
    message = json.loads(json.dumps(dice.choice(SAMPLES)))
    for _ in range(dice.choice((0, 1, 1, 1, 2, 5))):
        spots = places(message)
        if not spots:
            break
        holder, key = dice.choice(spots)
        what = dice.random()
        if what < 0.6:
            holder[key] = deepcopy(dice.choice(ODD))
        elif what < 0.8 and isinstance(holder, dict):
            del holder[key]
        elif isinstance(holder, dict):
            holder[str(dice.choice(ODD))[:50]] = deepcopy(dice.choice(ODD))
        else:
            holder.append(deepcopy(dice.choice(ODD)))
    value = bytearray(json.dumps(message, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass"))
    for _ in range(dice.choice((0, 0, 0, 1, 3))):
        at = dice.randrange(len(value))
        value[at : at + dice.choice((0, 1, 1, 4))] = dice.randbytes(dice.choice((0, 1, 1, 8)))
        if not value:
            break
    return bytes(value)


def test_twelve_thousand_mutated_messages_each_meet_one_of_the_four_ends() -> None:
    dice = random.Random(SEED)
    ends: dict[str, int] = {}
    for _ in range(12_000):
        value = mutate(dice)
        try:
            name = orjson.loads(value)["type"]
            topic = EVENT_TYPES[name].TOPIC if dice.random() < 0.95 else "orders"
        except (orjson.JSONDecodeError, KeyError, TypeError):
            topic = dice.choice(INPUT_TOPICS)
        key = dice.choice((b"u-42", b"u-42", b"u-42", b"u-42", b"u-42", b"", None, b"\xff", b"u-43"))
        end = check(topic, key, value, dice.choice((OPTIONS, OPTIONS, STRICT)))
        ends[end] = ends.get(end, 0) + 1
    expected = {"event", "unknown_type", "anonymous", "unmapped", "not_json", "not_an_object", "wrong_topic"}
    expected |= {"missing_field", "bad_value", "bad_time", "no_key", "key_mismatch"}
    assert expected - {"not_an_object"} <= set(ends), f"seed {SEED}: {ends}"
    assert ends["event"] > 1000, f"the mutations are too wild to reach the codec's depth: {ends}"
    assert ends["bad_value"] > 500, ends


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(INPUT_TOPICS), st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=200))
def test_random_bytes_never_raise(topic: str, key: bytes | None, value: bytes | None) -> None:
    check(topic, key, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(SAMPLES), st.dictionaries(st.sampled_from(sorted({key for s in SAMPLES for key in s})), JSON))
def test_any_json_in_any_field_never_raises(sample: dict[str, Any], changes: dict[str, Any]) -> None:
    name = sample["type"]
    topic = EVENT_TYPES[name].TOPIC if name in EVENT_TYPES else "orders"
    check(topic, b"u-42", json.dumps({**sample, **changes, "type": name}).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("depth", [10, 500, 1020, 1024, 5000, 200_000])
def test_deep_nesting_never_raises(depth: int) -> None:
    for nest in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        for field in (b"extra", b"attributes", b"user_id", b"occurred_at"):
            event = b'{"type":"ProfileUpdated","event_id":"e","user_id":"u-42","occurred_at":1772324130000,"%s":%s}'
            check("profiles", b"u-42", event % (field, nest), DecodeOptions(max_bytes=10_000_000))
        track = b'{"type":"track","event":"Order Completed","messageId":"e","userId":"u-42","properties":%s}'
        check("orders", b"u-42", track % nest, DecodeOptions(max_bytes=10_000_000))


def test_repeated_names_are_no_matter() -> None:
    value = b'{"type":"UserErased","event_id":"e","user_id":"u-1","user_id":"u-42","occurred_at":1772324130000}'
    assert check("profiles", b"u-42", value) == "event"
