"""Bytes become an event, or a value that says why not. `decode` never raises, whatever it is given.

Nothing here knows that Kafka exists: a record is a logical topic, a key, a value and a timestamp.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import orjson
from msgspec import Struct, ValidationError, convert

from schemas import segment
from schemas.checks import CHECKS, MAX_USER_ID_BYTES, TRACK_CHECKS, Check, expected, is_user_id
from schemas.envelope import (
    ce_source,
    encode_decision,
    encode_event,
    encode_outcome,
    encode_retraction,
    encode_stage_change,
    encode_trigger,
)
from schemas.events import EVENT_TYPES, INPUT_TOPICS, ClockAdvanced, Event
from schemas.explain import explain
from schemas.instant import DAY, HOUR, MINUTE, SECOND, Instant, parse_instant
from schemas.money import parse_amount, parse_amount_text
from schemas.nearest import nearest
from schemas.rejects import Ignored, RejectedMessage, dead_letter_headers

__all__ = [
    "DecodeOptions",
    "Ignored",
    "RejectedMessage",
    "ce_source",
    "dead_letter_headers",
    "decode",
    "did_you_mean",
    "encode_decision",
    "encode_event",
    "encode_outcome",
    "encode_retraction",
    "encode_stage_change",
    "encode_trigger",
]

Decoded = Event | ClockAdvanced | RejectedMessage | Ignored
Hook = Callable[[type, Any], Any]

KAFKA_DEFAULT_MAX_BYTES: Final = 1_048_576
_MAX_NAME: Final = 100


class DecodeOptions(Struct, frozen=True, kw_only=True):
    """How strictly to read.

    clock_skew: by how many microseconds an event may be ahead of its record's timestamp.
    assume_zone: the zone of local times that carry no offset; None refuses them.
    unknown_types: what to do with types that are not in the contract.
    max_bytes: the largest value that is read.
    """

    clock_skew: int = 5 * MINUTE
    assume_zone: tzinfo | None = None
    unknown_types: Literal["ignore", "reject"] = "ignore"
    max_bytes: int = KAFKA_DEFAULT_MAX_BYTES


class _Kind(NamedTuple):
    type: type[Event]
    check: Check | None


_KINDS: Final = {name: _Kind(event, CHECKS.get(event)) for name, event in EVENT_TYPES.items()}
_TRACK_KINDS: Final = {name: _Kind(event, TRACK_CHECKS.get(event)) for name, event in EVENT_TYPES.items()}
_KINDS_OF_TOPIC: Final = {
    topic: {name: kind for name, kind in _KINDS.items() if topic == kind.type.TOPIC} for topic in INPUT_TOPICS
}


def decode(topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, options: DecodeOptions) -> Decoded:
    """Read one record of the input `topic` (its logical name). A negative timestamp is none: nothing is ahead of it."""
    if value is None:
        return RejectedMessage("not_json", "The record has no value. An event is a JSON object.")
    if len(value) > options.max_bytes:
        return RejectedMessage(
            "too_large", f"The value has {len(value)} bytes; {options.max_bytes} are accepted. Send a smaller event."
        )
    try:
        raw = orjson.loads(value)
    except orjson.JSONDecodeError as problem:
        return RejectedMessage("not_json", f"The value is not JSON in UTF-8: {problem}.")
    if type(raw) is not dict:
        return RejectedMessage("not_an_object", "The value is JSON, but not an object. An event is a JSON object.")
    name = raw.get("type")
    if type(name) is not str:
        return _without_type(name)
    kinds = _KINDS_OF_TOPIC.get(topic)
    kind = kinds.get(name) if kinds is not None else None
    if kind is None:
        return _decode_rare(topic, name, key, raw, timestamp_ms, options)
    return _decode_event(kind, key, raw, timestamp_ms, options)


def _decode_event(
    kind: _Kind, key: bytes | None, raw: dict[str, Any], timestamp_ms: int, options: DecodeOptions
) -> Decoded:
    hook = _hook if options.assume_zone is None else _hook_assuming(options.assume_zone)
    try:
        event = convert(raw, kind.type, dec_hook=hook)
    except ValidationError:
        if not raw.get("user_id") and raw.get("anonymous_id"):
            return Ignored("anonymous", kind.type.TYPE)
        read = _convert_without_nulls(raw, kind.type, hook)
        if isinstance(read, RejectedMessage):
            return read
        event = read
    user_id = event.user_id
    if key != user_id.encode() or len(key) > MAX_USER_ID_BYTES or not user_id.isprintable():
        refusal = _check_user(key, user_id)
        if refusal is not None:
            return refusal
    if event.occurred_at > timestamp_ms * 1000 + options.clock_skew and timestamp_ms >= 0:
        return _ahead(event.occurred_at, timestamp_ms)
    if kind.check is not None:
        refusal = kind.check(event)
        if refusal is not None:
            return refusal
    return event


def did_you_mean(name: str) -> str | None:
    """The type of the contract that an unknown one most likely meant, or None."""
    return nearest(name[:_MAX_NAME], (*_KINDS, ClockAdvanced.TYPE))


def _hook(wanted: type, raw: Any) -> Any:
    """Reads what JSON has no type for. Called by the decoder for each such field."""
    if wanted is Instant:
        return parse_instant(raw)
    return parse_amount_text(raw) if type(raw) is str else parse_amount(raw)


@lru_cache(maxsize=16)
def _hook_assuming(zone: tzinfo) -> Hook:
    def hook(wanted: type, raw: Any) -> Any:
        return parse_instant(raw, zone) if wanted is Instant else parse_amount(raw)

    return hook


def _convert_without_nulls(raw: dict[str, Any], wanted: type[Any], hook: Hook) -> Any:
    """The second try of what the decoder refused: null counts as absent. Then the refusal stands."""
    pruned = _without_nulls(raw)
    for name, items in pruned.items():
        if type(items) is list:
            pruned[name] = [_without_nulls(item) if type(item) is dict else item for item in items]
    try:
        return convert(pruned, wanted, dec_hook=hook)
    except ValidationError as problem:
        return explain(problem, pruned)


def _without_nulls(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if value is not None}


def _decode_rare(
    topic: str, name: str, key: bytes | None, raw: dict[str, Any], timestamp_ms: int, options: DecodeOptions
) -> Decoded:
    """A type that does not live on this topic."""
    if name == ClockAdvanced.TYPE:
        return _decode_clock(raw, timestamp_ms, options)
    if name == segment.TRACK:
        return _decode_track(key, raw, timestamp_ms, options)
    kind = _KINDS.get(name)
    if kind is not None:
        return RejectedMessage("wrong_topic", f"{name} belongs on the topic {kind.type.TOPIC}, not on {topic}.", "type")
    name = name[:_MAX_NAME]
    if options.unknown_types == "ignore":
        return Ignored("unknown_type", name)
    meant = did_you_mean(name)
    hint = f" Did you mean {meant}?" if meant else ""
    return RejectedMessage("unknown_type", f"The contract has no type {name!r}.{hint}", "type")


def _decode_clock(raw: dict[str, Any], timestamp_ms: int, options: DecodeOptions) -> Decoded:
    hook = _hook if options.assume_zone is None else _hook_assuming(options.assume_zone)
    clock = _convert_without_nulls(raw, ClockAdvanced, hook)
    if isinstance(clock, ClockAdvanced) and clock.occurred_at > timestamp_ms * 1000 + options.clock_skew:
        return clock if timestamp_ms < 0 else _ahead(clock.occurred_at, timestamp_ms)
    result: Decoded = clock
    return result


def _decode_track(key: bytes | None, raw: dict[str, Any], timestamp_ms: int, options: DecodeOptions) -> Decoded:
    message = segment.translate(raw)
    if not isinstance(message, dict):
        return message
    result = _decode_event(_TRACK_KINDS[message["type"]], key, message, timestamp_ms, options)
    if isinstance(result, Event):
        return segment.bounded(result, raw["event"])
    return segment.where_it_came_from(result, raw["event"]) if isinstance(result, RejectedMessage) else result


def _without_type(name: object) -> RejectedMessage:
    if name is None:
        return RejectedMessage("missing_field", "`type` is required, but absent or null.", "type")
    return RejectedMessage("bad_value", "`type` must be text: the name of one of the contract's events.", "type")


def _check_user(key: bytes | None, user_id: str) -> RejectedMessage | None:
    if not is_user_id(user_id):
        return expected("user_id")
    if not key:
        return RejectedMessage("no_key", "The record has no key. Send the user_id in UTF-8 as its key.", "user_id")
    if key != user_id.encode():
        return RejectedMessage(
            "key_mismatch", "The record's key is not the event's user_id. Send that, in UTF-8, as the key.", "user_id"
        )
    return None


def _ahead(occurred_at: int, timestamp_ms: int) -> RejectedMessage:
    by = _length(occurred_at - timestamp_ms * 1000)
    return RejectedMessage(
        "bad_time",
        f"`occurred_at` is {by} ahead of the record's own timestamp. Check the sender's clock.",
        "occurred_at",
    )


def _length(of: int) -> str:
    """Microseconds as '46 days', in the largest unit of which there are two or more."""
    for unit, name in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if of >= 2 * unit:
            return f"{of // unit} {name}"
    return f"{of // SECOND} seconds"
