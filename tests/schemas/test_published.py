"""The published files: equal to what the types say, valid by themselves, and never stricter than the codec."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from schemas import asyncapi, generate
from schemas.codec import (
    Ignored,
    RejectedMessage,
    dead_letter_headers,
    encode_decision,
    encode_event,
    encode_outcome,
    encode_retraction,
    encode_stage_change,
    encode_trigger,
)
from schemas.events import EVENT_TYPES, INPUT_TOPICS, ClockAdvanced, Event
from schemas.published import MESSAGES, Message
from tests.schemas.samples import SCHEMAS, example, read

INCOMING = [message for message in MESSAGES if message.comes_in]
VALIDATORS = {
    message.name: Draft202012Validator(
        orjson.loads((SCHEMAS / message.file).read_bytes()), format_checker=FormatChecker()
    )
    for message in MESSAGES
}


def by_name(message: Message) -> str:
    return message.name


# the files themselves


def test_the_files_are_what_the_types_say() -> None:
    stale = [path for path, content in generate.published_files().items() if (SCHEMAS / path).read_bytes() != content]
    assert stale == [], "run: python -m schemas.generate"
    assert generate.main(["--check"]) == 0


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    target = tmp_path / "schemas"
    shutil.copytree(SCHEMAS, target, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(generate, "HERE", target)
    return target


def test_a_file_that_was_changed_or_left_over_is_named_and_then_mended(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "events/OrderPaid.v1.json").write_text("{}")
    (copy / "events/OrderPayed.v1.json").write_text("{}")
    (copy / "asyncapi.yaml").unlink()
    assert generate.main(["--check"]) == 1
    said = capsys.readouterr().err
    for name in ("events/OrderPaid.v1.json", "events/OrderPayed.v1.json", "asyncapi.yaml"):
        assert f"schemas/{name} is not what the types say. Run: python -m schemas.generate" in said
    assert generate.main([]) == 0
    assert "2 of 40 files written, 1 removed" in capsys.readouterr().out
    assert generate.main(["--check"]) == 0


def test_the_generator_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--what"]) == 2
    assert "Usage" in capsys.readouterr().err


def test_every_message_has_one_schema_and_one_example_and_there_are_no_others() -> None:
    # The schema of rule files comes from their reader, and is kept equal where that is tested.
    schemas = {str(path.relative_to(SCHEMAS)) for path in SCHEMAS.glob("*/*.v1.json") if path.parent.name != "rules"}
    assert schemas == {message.file for message in MESSAGES} | {message.example for message in MESSAGES}


@pytest.mark.parametrize("message", MESSAGES, ids=by_name)
def test_every_schema_is_json_schema_2020_12(message: Message) -> None:
    schema = orjson.loads((SCHEMAS / message.file).read_bytes())
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:lifecycle-triggers:schema:{message.name}:v1"
    assert schema["description"] if message.type.__doc__ else True


@pytest.mark.parametrize("message", MESSAGES, ids=by_name)
def test_every_example_satisfies_its_schema(message: Message) -> None:
    VALIDATORS[message.name].validate(example(message.name))


def test_the_types_of_each_topic_are_the_contracts() -> None:
    assert {topic: [name for name, event in EVENT_TYPES.items() if topic == event.TOPIC] for topic in INPUT_TOPICS} == {
        "orders": [
            "OrderPlaced",
            "DepositPaid",
            "OrderPaid",
            "OrderCancelled",
            "OrderShipped",
            "OrderReceived",
            "OrderRefunded",
            "AfterSaleOpened",
            "AfterSaleClosed",
        ],
        "logins": ["UserRegistered", "UserLoggedIn", "UserCheckedIn"],
        "browse": ["ProductViewed", "SearchPerformed", "CartUpdated", "CheckoutStarted", "PageShared"],
        "coupons": ["CouponIssued", "CouponRedeemed", "CouponRevoked", "CouponLocked", "CouponReturned"],
        "profiles": ["CustomerBaseline", "ProfileUpdated", "ConsentChanged", "UserMerged", "UserErased"],
        "feedback": ["MessageSent", "MessageFailed", "MessageOpened", "MessageClicked", "Unsubscribed"],
    }


# round trips


@pytest.mark.parametrize("message", INCOMING, ids=by_name)
def test_an_incoming_example_survives_the_round_trip(message: Message) -> None:
    event = read(example(message.name))
    assert isinstance(event, Event | ClockAdvanced)
    again = orjson.loads(encode_event(event))
    VALIDATORS[message.name].validate(again)
    assert read(again) == event


ENCODERS: dict[str, Any] = {
    "TriggerFired": lambda message: encode_trigger(message, "/lifecycle-triggers/test"),
    "TriggerRetracted": lambda message: encode_retraction(message, "/lifecycle-triggers/test"),
    "Decision": encode_decision,
    "StageChange": encode_stage_change,
    "Outcome": encode_outcome,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_an_outgoing_example_survives_the_round_trip_byte_by_byte(name: str) -> None:
    message = next(message for message in MESSAGES if message.name == name)
    text = (SCHEMAS / message.example).read_bytes()
    value, _ = ENCODERS[name](msgspec.json.decode(text, type=message.type, strict=True))
    assert orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE) == text


def test_the_headers_of_a_dead_letter_satisfy_their_schema() -> None:
    rejected = read({"type": "OrderPaid"})
    assert isinstance(rejected, RejectedMessage)
    headers = dead_letter_headers(rejected, "orders", 3, 7, "2026-03-01T08:15:31+08:00")
    VALIDATORS["DeadLetterHeaders"].validate({name: value.decode() for name, value in headers})


# the schema and the codec agree


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([10**6, 10**6 + 1, 10**9 + 1, 2**63, 946_684_799_999, 946_684_800_000, 1_772_324_130_000])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["", "x", "x" * 257, "x" * 2049, "CNY", "cny", "258.00", "-1", "1e3", "percent", "a\nb", "--02-29", "UTC"]
        + ["2026-03-01T08:15:30", "2026-03-01T08:15:30Z", "1999-12-31T23:59:59Z", "2026-03-01 08:15:30.5+08:00", "x\n"]
    )
    | st.text(max_size=5)
)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=3), scalars, max_size=2)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """An incoming example with one to three places changed, taken out, or added."""
    name = draw(st.sampled_from([message.name for message in INCOMING]))
    message = example(name)
    for _ in range(draw(st.integers(1, 3))):
        place: Any = message
        while True:
            key = (
                draw(st.sampled_from(sorted(place)))
                if isinstance(place, dict)
                else draw(st.integers(0, len(place) - 1))
            )
            if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            break
        if isinstance(place, dict) and draw(st.integers(0, 3)) == 0:
            del place[key]
        else:
            place[key] = draw(values)
        if not message:
            break
    return name, message


@settings(max_examples=1500, deadline=None)
@given(mutated())
def test_what_the_schema_rejects_the_codec_rejects_too(case: tuple[str, dict[str, Any]]) -> None:
    name, message = case
    user_id = message.get("user_id")
    key = user_id.encode("utf-8", "replace") if isinstance(user_id, str) else b"u-42"
    topic = EVENT_TYPES[name].TOPIC if name in EVENT_TYPES else "orders"
    result = read(message, topic=topic, key=key)
    if not VALIDATORS[name].is_valid(message):
        assert isinstance(result, RejectedMessage | Ignored), (message, result)


@pytest.mark.parametrize("message", INCOMING, ids=by_name)
def test_whatever_a_schema_requires_the_codec_misses(message: Message) -> None:
    for field in VALIDATORS[message.name].schema["required"]:
        bare = {name: value for name, value in example(message.name).items() if name != field}
        result = read(bare, topic="orders" if message.type is ClockAdvanced else message.type.TOPIC)  # type: ignore[attr-defined]
        assert isinstance(result, RejectedMessage)
        assert (result.code, result.field) == ("missing_field", field)


# AsyncAPI


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text(encoding="utf-8"))
    return loaded


def references(part: object) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for value in part.values() for found in references(value)]
    return [found for value in part for found in references(value)] if isinstance(part, list) else []


def test_the_asyncapi_document_points_only_to_what_exists() -> None:
    api = document()
    found = references(api)
    assert len(found) > 80
    for reference in found:
        if reference.startswith("#/"):
            place: Any = api
            for step in reference[2:].split("/"):
                place = place[step]
        else:
            assert (SCHEMAS / reference).is_file(), reference


def test_the_asyncapi_document_has_every_topic_and_every_message() -> None:
    api = document()
    assert api["asyncapi"] == "3.0.0"
    addresses = [channel["address"] for channel in api["channels"].values()]
    assert addresses == [
        *INPUT_TOPICS,
        "triggers.{family}",
        "decisions",
        "lifecycle.stages",
        "outcomes",
        "dead-letters",
    ]
    assert api["channels"]["triggers"]["parameters"]["family"]["enum"] == list(asyncapi.FAMILIES)
    offered = {name for channel in api["channels"].values() for name in channel["messages"]}
    assert offered == set(api["components"]["messages"])
    assert {operation["action"] for operation in api["operations"].values()} == {"receive", "send"}
    assert len(api["operations"]) == len(api["channels"])


def test_the_clock_may_come_on_every_input() -> None:
    channels = document()["channels"]
    assert all("ClockAdvanced" in channels[topic]["messages"] for topic in INPUT_TOPICS)
