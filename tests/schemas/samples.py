"""The contract's examples as Python values, and one record's way through the codec, for all tests of this directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson

import schemas
from schemas.codec import Decoded, DecodeOptions, RejectedMessage, decode
from schemas.events import EVENT_TYPES
from schemas.instant import parse_instant
from schemas.rejects import CODES

SCHEMAS = Path(schemas.__file__).parent
OPTIONS = DecodeOptions()
LONG_AFTER_MS = parse_instant("2027-01-01T00:00:00Z") // 1000


def example(name: str) -> dict[str, Any]:
    """The published example of a message, as JSON."""
    message: dict[str, Any] = orjson.loads((SCHEMAS / "examples" / f"{name}.v1.json").read_bytes())
    return message


def changed(name: str, **fields: Any) -> dict[str, Any]:
    """The published example with some fields changed; those set to `...` are taken out."""
    return {field: value for field, value in {**example(name), **fields}.items() if value is not ...}


def read(message: object, *, topic: str | None = None, key: bytes | None = b"u-42", **options: Any) -> Decoded:
    """What the codec makes of a message, on its type's own topic unless told otherwise."""
    if topic is None:
        name = message.get("type") if isinstance(message, dict) else None
        topic = EVENT_TYPES[name].TOPIC if isinstance(name, str) and name in EVENT_TYPES else "orders"
    timestamp_ms = options.pop("timestamp_ms", LONG_AFTER_MS)
    return decode(
        topic, key, json.dumps(message).encode(), timestamp_ms, DecodeOptions(**options) if options else OPTIONS
    )


def refusal(message: object, **how: Any) -> RejectedMessage:
    """The refusal that a message must meet; its reason is a sentence, its code one of the contract's."""
    result = read(message, **how)
    assert isinstance(result, RejectedMessage), result
    assert result.code in CODES
    assert result.reason[0] in "`T" or result.reason[0].isupper()
    assert result.reason.endswith((".", "?")), result.reason
    return result
