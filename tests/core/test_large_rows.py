"""However much is said about a user, the row can be written, and what is said next is taken: the oldest detail makes
room for it. Only an event that is itself too large is refused."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.purchases import paid_orders
from app.core.row import MAX_ORDERS, MAX_REFUNDS, decode, encode
from app.processor import MAX_LETTER_BYTES, MAX_ROW_BYTES, META_KEY, bounds
from app.rulebook import load
from schemas import events as ev
from schemas.events import INPUT_TOPICS
from tests.core.giant import USER, giant_events
from tests.core.shard import Shard, named
from tests.core.shop import MINUTE, at, event, issued, line, paid, redeemed, revoked
from tests.core.test_shedding import widest

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


def test_the_longest_that_can_be_said_of_a_user_fits_a_record_and_nothing_of_it_is_refused() -> None:
    shard, largest, _ = giant()
    assert 0.9 * MAX_ROW_BYTES < largest <= MAX_ROW_BYTES
    assert shard.letters() == []
    assert 0 < shard.counts["shed", "event"] < 20
    row = shard.processor.row(USER)
    assert row is not None
    assert paid_orders(row) == MAX_ORDERS  # each is its own parent
    spent = sum(order.total_minor - order.refunded_minor for order in row.orders.values())
    refunds = 8 * MAX_REFUNDS + 2 * (MAX_ORDERS - 8)
    assert spent + row.old_spend_minor.get("CNY", 0) == MAX_ORDERS * 99_999_999_999 - 100 * refunds
    shard.clock("03-01").clock(at("03-01") + 3 * 365 * 24 * 60 * MINUTE).run()  # all that was owed has come due
    assert max(len(row or b"") for key, row in shard.changelog.items() if key != META_KEY) < CHANGELOG_BYTES
    assert max(len(output.value or b"") for output in shard.outputs) < 1_048_576


def test_what_makes_room_hangs_on_no_batch_and_the_newest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_ROW_BYTES", 30_000)
    events = [issued(f"c-{n}", at("03-01") + n * MINUTE, batch="x" * 700, expires_at=None) for n in range(60)]
    found = []
    for limit in (1, 7, 5_000):
        shard = Shard(load(), inputs=INPUT_TOPICS).run(*events, limit=limit).clock("03-02").run(limit=limit)
        found.append((shard.outputs, shard.state()))
        assert len(shard.state()[b"u-1"]) <= 30_000
    assert found[0] == found[1] == found[2]
    row = decode(shard.state()[b"u-1"])
    assert 15 < len(row.coupons) < 60
    assert list(row.coupons) == [f"c-{n}" for n in range(60 - len(row.coupons), 60)]
    assert {name.partition("\x1f")[2] for name in row.runs} == set(row.coupons)
    assert shard.letters() == []


def full(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Shard:
    """A user whose row is as large as it may be."""
    coupons = [issued(f"c-{n}", at("03-01") + n * MINUTE) for n in range(20)]
    shard = Shard(load(), inputs=INPUT_TOPICS, **changes).run(*coupons).clock("03-02").run()
    monkeypatch.setattr(bounds, "MAX_ROW_BYTES", len(shard.state()[b"u-1"]) + 8)
    return shard


def test_whatever_ends_a_run_or_a_consent_is_taken_by_a_row_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [
        event(ev.Unsubscribed, "03-02 12:01", channel="push"),
        event(ev.ConsentChanged, "03-02 12:02", channel="in_app", granted=False),
        redeemed("c-18", "03-02 12:03"),
        revoked("c-19", "03-02 12:04"),
        paid("o-9", "03-02 12:05", line(), coupons_used=("c-17",)),
    ]
    shard = full(monkeypatch).run(*said).clock("04-01").run()
    assert shard.letters() == []
    contacts = [t for t in shard.sent(lambda trigger: trigger) if t["action"] == "contact"]
    assert not {contact["channel"] for contact in contacts} & {"push", "in_app"}
    assert not {contact["entry"]["key"] for contact in contacts} & {"c-17", "c-18", "c-19"}
    assert len(shard.state()[b"u-1"]) <= bounds.MAX_ROW_BYTES


def test_an_event_that_is_itself_too_large_is_refused_in_words_and_is_no_sign_of_a_broken_sender(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shard = full(monkeypatch, stop_at_ceiling=True, reject_ceiling=3)
    before = shard.state()[b"u-1"]
    large = [paid(f"o-{n}", at("03-02") + n, *[line(title="x" * 2_000)] * 5) for n in range(5)]
    shard.run(*large).clock("03-03").run()
    assert [letter["dlq.reason_code"] for letter in shard.letters()] == ["cannot_apply"] * 5
    assert "would have more than 4194304 bytes, though all detail made room" in shard.letters()[0]["dlq.reason"]
    assert shard.processor.consecutive_rejects == 0
    assert shard.state()[b"u-1"] == before
    shard.run(named(paid("o-8", "03-03", *[line(title="x" * 2_000)] * 5), "e", "u-2")).clock("03-04").run()
    assert (len(shard.letters()), list(shard.state())) == (6, [b"u-1"])  # nor does a new row hold it


def test_the_widest_accounts_become_one_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    shard = Shard(load(), inputs=INPUT_TOPICS)
    for user in ("u-1", "u-2"):
        shard.changelog[user.encode()] = encode(widest(user))
    shard.reopen().run(event(ev.UserMerged, "03-02", into="u-2")).clock("03-03").run()
    assert list(shard.state()) == [b"u-1", b"u-2"]
    assert shard.state()[b"u-1"] is None
    assert len(shard.state()[b"u-2"]) <= MAX_ROW_BYTES
    shard.run(named(paid("o-1", "03-04"), "e", "u-2")).clock("03-05").run()
    assert (shard.letters(), "o-1" in decode(shard.state()[b"u-2"]).orders) == ([], True)


def test_what_is_too_large_for_the_dead_letters_is_named_there_and_stays_where_it_is() -> None:
    shard = Shard(inputs=("orders",))
    fits, large = b"x" * MAX_LETTER_BYTES, b"x" * (MAX_LETTER_BYTES + 1)
    shard.run(("orders", (b"u-1", fits)), ("orders", (b"u-1", large))).clock("03-01").run()
    assert [output.value for output in shard.outputs] == [fits, None]
    assert [letter["dlq.reason_code"] for letter in shard.letters()] == ["too_large"] * 2
    assert [letter["dlq.offset"] for letter in shard.letters()] == ["0", "1"]
