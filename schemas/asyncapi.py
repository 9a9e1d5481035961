"""The whole contract as one AsyncAPI 3 document: every topic, what is on it, its key, its headers, an example of each.

It points to the schema files beside it and repeats nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from schemas.envelope import TRIGGER_FIRED, TRIGGER_RETRACTED, schema_id
from schemas.events import ANY_TOPIC, EVENT_TYPES, INPUT_TOPICS, ClockAdvanced
from schemas.published import MESSAGES, Message

FAMILIES: Final = (
    "replenishment",
    "coupon",
    "winback",
    "cart",
    "browse",
    "welcome",
    "order",
    "loyalty",
    "milestone",
)
"""The trigger families; each has a topic of its own."""

_INPUTS: Final = {
    "orders": "What was ordered, paid, shipped, refunded.",
    "logins": "Registrations and visits.",
    "browse": "Products seen, searches, carts, checkouts.",
    "coupons": "Coupons issued, redeemed, revoked.",
    "profiles": "Baselines, profiles, consent, merged and erased accounts.",
    "feedback": "What marketing systems did with triggers, and what they sent besides.",
}
_OUTPUTS: Final = {
    "decisions": (
        "decisions",
        ("Decision",),
        "One record per transition of a candidate: fired, or held and by which gate.",
    ),
    "stages": (
        "lifecycle.stages",
        ("StageChange",),
        "A user moved between life stages. A record without a value: the user is gone, or part of another account.",
    ),
    "outcomes": ("outcomes", ("Outcome",), "What came of fired and held-out candidates within the goal's window."),
}
_USER_KEY: Final = {"type": "string", "description": "user_id in UTF-8"}
_JSON_SCHEMA: Final = "application/schema+json;version=2020-12"
_KAFKA_BINDING: Final = "0.5.0"


def document(examples: Mapping[str, Any]) -> dict[str, Any]:
    """The AsyncAPI 3.0 document; `examples` has an example payload by message name."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:lifecycle-triggers:asyncapi:v1",
        "info": {
            "title": "lifecycle-triggers",
            "version": "1.0.0",
            "description": (
                "Upstream services publish what users do; marketing systems read when a user should hear from them. "
                "Every deployment serves one shop and may prefix all topic names. All input topics have the same "
                "number of partitions and the same partitioner, murmur2: librdkafka clients set "
                "partitioner=murmur2_random."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {**_input_channels(), **_output_channels()},
        "operations": _operations(),
        "components": {
            "messages": {message.name: _message(message, examples) for message in MESSAGES if _has_payload(message)}
            | {"DeadLetter": _dead_letter(examples)},
        },
    }


def _has_payload(message: Message) -> bool:
    return message.folder != "dead-letters"


def _input_channels() -> dict[str, Any]:
    return {topic: _channel(topic, _INPUTS[topic], (*_types_on(topic), ClockAdvanced.TYPE)) for topic in INPUT_TOPICS}


def _types_on(topic: str) -> tuple[str, ...]:
    return tuple(name for name, event in EVENT_TYPES.items() if topic in (event.TOPIC, ANY_TOPIC))


def _output_channels() -> dict[str, Any]:
    triggers = _channel(
        "triggers.{family}",
        "Act now, or don't any more. CloudEvents 1.0, Kafka protocol binding, binary mode.",
        ("TriggerFired", "TriggerRetracted"),
    )
    triggers["parameters"] = {"family": {"description": "The family of the rule.", "enum": list(FAMILIES)}}
    outputs = {name: _channel(topic, about, messages) for name, (topic, messages, about) in _OUTPUTS.items()}
    dead_letters = _channel("dead-letters", "Input that could not be used, byte for byte, and why.", ("DeadLetter",))
    return {"triggers": triggers, **outputs, "deadLetters": dead_letters}


def _channel(address: str, about: str, messages: tuple[str, ...]) -> dict[str, Any]:
    return {
        "address": address,
        "description": about,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _operations() -> dict[str, Any]:
    receive = {
        f"receive{topic.capitalize()}": {"action": "receive", "channel": {"$ref": f"#/channels/{topic}"}}
        for topic in INPUT_TOPICS
    }
    send = {
        f"send{name[0].upper()}{name[1:]}": {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
        for name in ("triggers", *_OUTPUTS, "deadLetters")
    }
    return {**receive, **send}


def _message(message: Message, examples: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": message.name,
        "title": message.name,
        "contentType": "application/json",
        "payload": {"schemaFormat": _JSON_SCHEMA, "schema": {"$ref": f"./{message.file}"}},
        "examples": [{"name": message.name, "payload": examples[message.name]}],
    }
    if message.folder == "triggers":
        fired = message.name == "TriggerFired"
        described["headers"] = _cloud_event_headers(TRIGGER_FIRED if fired else TRIGGER_RETRACTED, message.name)
    if message.name != ClockAdvanced.TYPE:
        described["bindings"] = {"kafka": {"key": _USER_KEY, "bindingVersion": _KAFKA_BINDING}}
    return described


def _cloud_event_headers(type_: str, name: str) -> dict[str, Any]:
    headers: dict[str, Any] = {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "description": "The same after any crash, replay or rebalance."},
        "ce_source": {"type": "string", "description": "/lifecycle-triggers/<app id>"},
        "ce_type": {"const": type_},
        "ce_subject": {"type": "string", "description": "The user."},
        "ce_time": {"type": "string", "format": "date-time", "description": "decided_at"},
        "ce_dataschema": {"const": schema_id(name)},
        "content-type": {"const": "application/json"},
    }
    return {"type": "object", "required": list(headers), "properties": headers}


def _dead_letter(examples: Mapping[str, Any]) -> dict[str, Any]:
    headers = next(message for message in MESSAGES if not _has_payload(message))
    return {
        "name": "DeadLetter",
        "title": "DeadLetter",
        "description": "Key and value are the original bytes, so that they can be sent again once mended.",
        "contentType": "application/octet-stream",
        "headers": {"schemaFormat": _JSON_SCHEMA, "schema": {"$ref": f"./{headers.file}"}},
        "payload": {"description": "The original value, untouched."},
        "examples": [{"name": "DeadLetter", "headers": examples[headers.name]}],
    }
