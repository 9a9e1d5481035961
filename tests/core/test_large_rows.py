"""However much is said about a user, the row can be written: beyond its bounds events are refused, one by one."""

from __future__ import annotations

import pytest

from app import processor
from app.core.row import decode
from app.processor import MAX_LETTER_BYTES, MAX_ROW_BYTES, META_KEY
from app.rulebook import load
from schemas.events import INPUT_TOPICS
from tests.core.giant import USER, giant_events
from tests.core.shard import Shard
from tests.core.shop import MINUTE, at, issued

#: max.message.bytes of the changelog in app/topics.yaml, less what a batch of one record has besides its value.
CHANGELOG_BYTES = 8_388_608 - 1_000


def giant(limit: int = 50) -> tuple[Shard, int, int]:
    """A shard that has met the user; the sizes of the largest row and of the last one."""
    shard = Shard(load(), inputs=INPUT_TOPICS)
    shard.write(*((topic, (USER.encode(), value)) for topic, value in giant_events())).clock("04-01")
    sizes: list[int] = []
    shard.fetch()
    while (batch := shard.take(limit)) is not None:
        sizes += [len(row) for key, row in batch.rows if key == USER.encode() and row is not None]
    return shard, max(sizes), sizes[-1]


def test_the_longest_that_can_be_said_of_a_user_fits_a_record_and_what_does_not_is_refused_in_words() -> None:
    shard, largest, _ = giant()
    assert 0.95 * MAX_ROW_BYTES < largest < CHANGELOG_BYTES
    refused = [letter for letter in shard.letters() if letter["dlq.reason_code"] == "cannot_apply"]
    assert refused == shard.letters() != []
    assert "would have more than 4194304 bytes" in refused[0]["dlq.reason"]
    shard.clock("03-01").clock(at("03-01") + 3 * 365 * 24 * 60 * MINUTE).run()  # all that was owed has come due
    assert max(len(row or b"") for key, row in shard.changelog.items() if key != META_KEY) < CHANGELOG_BYTES
    assert max(len(output.value or b"") for output in shard.outputs) < 1_048_576


def test_what_is_refused_hangs_on_no_batch_and_what_needs_no_more_room_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processor, "MAX_ROW_BYTES", 30_000)
    events = [issued(f"c-{n}", at("03-01") + n * MINUTE, batch="x" * 700, expires_at=None) for n in range(60)]
    found = []
    for limit in (1, 7, 5_000):
        shard = Shard(load(), inputs=INPUT_TOPICS).run(*events, limit=limit).clock("03-02").run(limit=limit)
        found.append((shard.outputs, shard.state()))
        assert len(shard.state()[b"u-1"]) <= 30_000
    assert found[0] == found[1] == found[2]
    row = decode(shard.state()[b"u-1"])
    assert 20 < len(row.coupons) < 60
    assert len(shard.letters()) == 60 - len(row.coupons)


def test_what_is_too_large_for_the_dead_letters_is_named_there_and_stays_where_it_is() -> None:
    shard = Shard(inputs=("orders",))
    fits, large = b"x" * MAX_LETTER_BYTES, b"x" * (MAX_LETTER_BYTES + 1)
    shard.run(("orders", (b"u-1", fits)), ("orders", (b"u-1", large))).clock("03-01").run()
    assert [output.value for output in shard.outputs] == [fits, None]
    assert [letter["dlq.reason_code"] for letter in shard.letters()] == ["too_large"] * 2
    assert [letter["dlq.offset"] for letter in shard.letters()] == ["0", "1"]
