"""What leaves: CloudEvents that any SDK reads, plain JSON in the published order, and the same bytes every time."""

from __future__ import annotations

import msgspec
import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import (
    RejectedMessage,
    ce_source,
    dead_letter_headers,
    encode_decision,
    encode_outcome,
    encode_retraction,
    encode_stage_change,
    encode_trigger,
)
from schemas.rejects import CODES
from schemas.triggers import Decision, Outcome, Retraction, StageChange, Trigger
from tests.schemas.samples import example

SOURCE = ce_source("lifecycle-triggers")
TRIGGER = msgspec.convert(example("TriggerFired"), Trigger)
RETRACTION = msgspec.convert(example("TriggerRetracted"), Retraction)


def test_a_trigger_has_exactly_the_contracts_headers() -> None:
    _, headers = encode_trigger(TRIGGER, SOURCE)
    assert headers == (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"t-5d1c9f"),
        ("ce_source", b"/lifecycle-triggers/lifecycle-triggers"),
        ("ce_type", b"lifecycle.trigger.fired.v1"),
        ("ce_subject", b"u-42"),
        ("ce_time", b"2026-03-08T09:00:00+08:00"),
        ("ce_dataschema", b"urn:lifecycle-triggers:schema:TriggerFired:v1"),
        ("content-type", b"application/json"),
    )


def test_a_retraction_has_an_id_of_its_own_and_names_its_trigger() -> None:
    value, headers = encode_retraction(RETRACTION, SOURCE)
    assert dict(headers)["ce_type"] == b"lifecycle.trigger.retracted.v1"
    assert dict(headers)["ce_id"] == b"x-0b77e1"
    assert dict(headers)["ce_dataschema"] == b"urn:lifecycle-triggers:schema:TriggerRetracted:v1"
    assert orjson.loads(value)["retracts"] == TRIGGER.trigger_id


def test_a_plain_cloudevents_sdk_reads_a_trigger() -> None:
    value, headers = encode_trigger(TRIGGER, SOURCE)
    event = from_binary(KafkaMessage(headers=dict(headers), key=b"u-42", value=value), JSONFormat(), CloudEvent)
    assert event.get_specversion() == "1.0"
    assert event.get_id() == TRIGGER.trigger_id
    assert event.get_type() == "lifecycle.trigger.fired.v1"
    assert event.get_source() == SOURCE
    assert event.get_subject() == "u-42"
    time = event.get_time()
    assert time is not None
    assert time.isoformat() == TRIGGER.decided_at
    assert event.get_dataschema() == "urn:lifecycle-triggers:schema:TriggerFired:v1"
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == example("TriggerFired")


def test_a_plain_cloudevents_sdk_reads_a_retraction() -> None:
    value, headers = encode_retraction(RETRACTION, SOURCE)
    event = from_binary(KafkaMessage(headers=dict(headers), key=b"u-42", value=value), JSONFormat(), CloudEvent)
    assert (event.get_id(), event.get_data()) == (RETRACTION.retraction_id, example("TriggerRetracted"))


def test_fields_stand_in_the_published_order_and_facts_by_name() -> None:
    value, _ = encode_trigger(TRIGGER, SOURCE)
    assert list(orjson.loads(value)) == list(example("TriggerFired"))
    shuffled = msgspec.structs.replace(TRIGGER, facts=dict(reversed(TRIGGER.facts.items())))
    assert list(shuffled.facts) != list(TRIGGER.facts)
    assert encode_trigger(shuffled, SOURCE) == encode_trigger(TRIGGER, SOURCE)


# Facts are text, yes or no, null, and whole numbers of 63 bits at most: amounts end at 2^61 minor units (MAX_MINOR),
# counts, units, versions and priorities far below. There is no kind of variable that is a fraction, so none is tried:
# writers of JSON differ in how they spell 1e16, and in whether they write whole numbers beyond 64 bits at all.
@given(st.text(), st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers(0, 2**63) | st.text()))
def test_the_text_is_what_other_writers_of_json_write(reason: str, facts: dict[str, object]) -> None:
    trigger = msgspec.structs.replace(TRIGGER, reason=reason, facts=facts)
    value, _ = encode_trigger(trigger, SOURCE)
    assert value == orjson.dumps(msgspec.to_builtins(trigger, order="deterministic"))


def test_every_field_of_a_trigger_is_written_even_if_it_is_null() -> None:
    value, _ = encode_trigger(TRIGGER, SOURCE)
    assert orjson.loads(value)["offer"] is None


@pytest.mark.parametrize(
    ("name", "kind", "encode"),
    [
        ("Decision", Decision, encode_decision),
        ("StageChange", StageChange, encode_stage_change),
        ("Outcome", Outcome, encode_outcome),
    ],
)
def test_the_others_are_plain_json(name: str, kind: type, encode: object) -> None:
    value, headers = encode(msgspec.convert(example(name), kind))  # type: ignore[operator]
    assert headers == (("content-type", b"application/json"),)
    assert orjson.loads(value) == example(name)


def test_a_dead_letter_has_its_seven_headers() -> None:
    rejected = RejectedMessage(
        "bad_value", "`lines[0].quantity` must be a whole number, at least 1. It is 0.", "lines[0].quantity"
    )
    assert dead_letter_headers(rejected, "orders", 3, 1284, "2026-03-01T08:15:31+08:00") == (
        ("dlq.reason_code", b"bad_value"),
        ("dlq.reason", b"`lines[0].quantity` must be a whole number, at least 1. It is 0."),
        ("dlq.field", b"lines[0].quantity"),
        ("dlq.topic", b"orders"),
        ("dlq.partition", b"3"),
        ("dlq.offset", b"1284"),
        ("dlq.rejected_at", b"2026-03-01T08:15:31+08:00"),
    )


def test_a_dead_letter_without_a_field_has_an_empty_header() -> None:
    headers = dict(
        dead_letter_headers(RejectedMessage("not_json", "Not JSON."), "orders", 0, 0, "2026-03-01T00:00:00Z")
    )
    assert headers["dlq.field"] == b""
    assert len(headers) == 7


def test_the_codes_are_the_contracts() -> None:
    assert list(CODES) == [
        "not_json",
        "not_an_object",
        "unknown_type",
        "wrong_topic",
        "missing_field",
        "bad_value",
        "bad_time",
        "no_key",
        "key_mismatch",
        "wrong_partition",
        "too_large",
        "cannot_apply",
    ]
