"""What is not an event: a message that cannot be used, with the reason, or one that is none of our business.

Both are values. A rejected message goes to `dead-letters` with its original bytes; an ignored one is counted.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

CODES: Final = {
    "not_json": "The value is not JSON in UTF-8.",
    "not_an_object": "The value is JSON, but not an object.",
    "unknown_type": "The type is not in the contract, and the worker is set to be strict about that.",
    "wrong_topic": "The type is in the contract, but belongs on another topic.",
    "missing_field": "A required field is absent or null.",
    "bad_value": "A field is there, but its value cannot be used.",
    "bad_time": "An instant cannot be used: no zone, before 2000, or ahead of the record's own timestamp.",
    "no_key": "The record has no key; it must be the user_id.",
    "key_mismatch": "The record's key is not the event's user_id.",
    "wrong_partition": "The producer's partitioner is not the one that all inputs share.",
    "too_large": "The value is larger than the worker accepts.",
    "cannot_apply": "The event is well formed, but the state refused it.",
}
"""Every dead-letter code and what it means."""


class RejectedMessage(Struct, frozen=True, gc=False):
    """A message that cannot be used. `reason` is a sentence for its sender, `field` a path such as
    `lines[0].quantity`, or empty."""

    code: str
    reason: str
    field: str = ""


class Ignored(Struct, frozen=True, gc=False):
    """A message that is well formed, but not for us. `kind` is unknown_type, anonymous or unmapped; `name` is the
    type (for Segment payloads the event) that it carries."""

    kind: str
    name: str


class DeadLetterHeaders(Struct, frozen=True, kw_only=True, rename=lambda name: f"dlq.{name}"):
    """The headers of a record on `dead-letters`, as UTF-8 text; its key and value are the original bytes."""

    reason_code: Annotated[str, Meta(extra_json_schema={"enum": list(CODES)})]
    reason: str
    field: str
    topic: str
    partition: Annotated[str, Meta(pattern="^[0-9]+$")]
    offset: Annotated[str, Meta(pattern="^[0-9]+$")]
    rejected_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


def dead_letter_headers(
    rejected: RejectedMessage, topic: str, partition: int, offset: int, rejected_at: str
) -> tuple[tuple[str, bytes], ...]:
    """The seven headers that travel with the original bytes. `rejected_at` is RFC 3339."""
    return (
        ("dlq.reason_code", rejected.code.encode()),
        ("dlq.reason", rejected.reason.encode("utf-8", "replace")),
        ("dlq.field", rejected.field.encode("utf-8", "replace")),
        ("dlq.topic", topic.encode()),
        ("dlq.partition", b"%d" % partition),
        ("dlq.offset", b"%d" % offset),
        ("dlq.rejected_at", rejected_at.encode()),
    )
