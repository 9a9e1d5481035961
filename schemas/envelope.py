"""What leaves becomes bytes: triggers as CloudEvents 1.0 in Kafka binary mode, the rest as plain JSON.

The same value always gives the same bytes: fields in the published order, free-form facts sorted by name.
"""

from __future__ import annotations

from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Any, Final, NamedTuple, get_args, get_type_hints

import orjson
from msgspec import Struct, json, structs, to_builtins

from schemas.events import ClockAdvanced, Event
from schemas.instant import Instant, format_instant
from schemas.triggers import Decision, Outcome, Retraction, StageChange, Trigger

Headers = tuple[tuple[str, bytes], ...]
Encoded = tuple[bytes, Headers]

TRIGGER_FIRED: Final = "lifecycle.trigger.fired.v1"
TRIGGER_RETRACTED: Final = "lifecycle.trigger.retracted.v1"

_JSON: Final = ("content-type", b"application/json")


def schema_id(name: str) -> str:
    """The name that a published schema goes by, as its `$id` and in `ce_dataschema`."""
    return f"urn:lifecycle-triggers:schema:{name}:v1"


def ce_source(app_id: str) -> str:
    """The CloudEvents source of a deployment."""
    return f"/lifecycle-triggers/{app_id}"


def encode_trigger(trigger: Trigger, source: str) -> Encoded:
    """Value and headers of a trigger; `source` is the deployment's `ce_source`."""
    return _cloud_event(
        trigger, source, trigger.trigger_id, _FIRED_TYPE, trigger.user_id, trigger.decided_at, _FIRED_SCHEMA
    )


def encode_retraction(retraction: Retraction, source: str) -> Encoded:
    """Value and headers of a retraction; `source` is the deployment's `ce_source`."""
    return _cloud_event(
        retraction,
        source,
        retraction.retraction_id,
        _RETRACTED_TYPE,
        retraction.user_id,
        retraction.decided_at,
        _RETRACTED_SCHEMA,
    )


def encode_decision(decision: Decision) -> Encoded:
    """Value and headers of a decision."""
    return _value(decision), (_JSON,)


def encode_stage_change(change: StageChange) -> Encoded:
    """Value and headers of a user's move between life stages."""
    return _value(change), (_JSON,)


def encode_outcome(outcome: Outcome) -> Encoded:
    """Value and headers of what came of a candidate."""
    return _value(outcome), (_JSON,)


def encode_event(event: Event | ClockAdvanced, zone: tzinfo = UTC) -> bytes:
    """The value of an input record; instants are written in `zone`, and what has its default is left out."""
    return orjson.dumps({"type": event.TYPE, **_given(event, zone)})


class _Shape(NamedTuple):
    """How a value is written: its fields with their defaults, and which of them are instants or lists of values."""

    defaults: dict[str, object]
    instants: frozenset[str]


@lru_cache(maxsize=256)
def _shape(of: type[Struct]) -> _Shape:
    hints = get_type_hints(of)
    return _Shape(
        {field.name: field.default for field in structs.fields(of)},
        frozenset(name for name, hint in hints.items() if hint is Instant or Instant in get_args(hint)),
    )


def _given(value: Struct, zone: tzinfo) -> dict[str, Any]:
    shape = _shape(type(value))
    given: dict[str, Any] = {}
    for name, default in shape.defaults.items():
        item = getattr(value, name)
        if item == default and type(item) is type(default):
            continue
        if name in shape.instants:
            given[name] = format_instant(item, zone)
        elif isinstance(item, tuple):
            given[name] = [_given(entry, zone) if isinstance(entry, Struct) else entry for entry in item]
        else:
            given[name] = to_builtins(item)
    return given


_FIRED_TYPE: Final = ("ce_type", TRIGGER_FIRED.encode())
_FIRED_SCHEMA: Final = ("ce_dataschema", schema_id("TriggerFired").encode())
_RETRACTED_TYPE: Final = ("ce_type", TRIGGER_RETRACTED.encode())
_RETRACTED_SCHEMA: Final = ("ce_dataschema", schema_id("TriggerRetracted").encode())


#: Writes structs as they are, four times as fast as by way of dictionaries.
_encoder: Final = json.Encoder(order="deterministic")


def _value(message: Struct) -> bytes:
    return _encoder.encode(message)


def _cloud_event(
    message: Struct,
    source: str,
    id_: str,
    type_: tuple[str, bytes],
    subject: str,
    time: str,
    dataschema: tuple[str, bytes],
) -> Encoded:
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", id_.encode()),
        ("ce_source", source.encode()),
        type_,
        ("ce_subject", subject.encode()),
        ("ce_time", time.encode()),
        dataschema,
        _JSON,
    )
    return _value(message), headers
