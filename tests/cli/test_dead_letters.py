"""`lifecycle dead-letters list` says which message it was, and nothing else of what the message says."""

from __future__ import annotations

import orjson
import pytest

from app.cli.dead_letters import table
from app.cli.letters import Letter, about


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"type": "UserLoggedIn", "event_id": "e-1", "user_id": "u-1", "phone": "138"}, "UserLoggedIn e-1"),
        ({"type": "track", "event": "Product Viewed", "messageId": "m-1"}, "track Product Viewed m-1"),
        ({"type": ["x"], "event_id": 7}, ""),
        ({"type": "x" * 500}, "x" * 128),
        (["UserLoggedIn"], ""),
    ],
)
def test_of_a_message_its_type_and_its_event_id_are_told(body: object, told: str) -> None:
    assert about(orjson.dumps(body)) == told


@pytest.mark.parametrize("value", [None, b"", b"{", b"\xff"])
def test_of_what_cannot_be_read_nothing_is_told(value: bytes | None) -> None:
    assert about(value) == ""


@pytest.mark.parametrize(
    ("key", "known", "told"),
    [
        (b"u-42", "UserLoggedIn e-1", "UserLoggedIn e-1, key u-42"),
        (None, "", "no key"),
        (b"u\x1b\xff", "x\n", "x?, key u?\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_the_table_says_which_message_it_was_under_its_reason(key: bytes | None, known: str, told: str) -> None:
    at = "2026-03-01T00:00:00Z"
    letter = Letter(at, (0, 1), "bad_time", "occurred_at", "It is late.", "logins", 2, 7, key, None, known)
    _, first, second = table([letter])
    assert first.endswith("logins[2] offset 7  It is late.")
    assert second.strip() == told
    assert second.index(told) == first.index("It is late.")
