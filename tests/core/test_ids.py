"""Ids are functions of what they name: the same everywhere, different for everything that differs."""

from __future__ import annotations

import inspect

import pytest

from app.core import ids

RUN = ("coupon_unused", "u-1", "pack", "c-1", "e-1", 0)


def test_ids_never_change_from_one_version_to_the_next() -> None:
    assert ids.event_hash("e-1").hex() == "317386494bf10d9f"
    assert ids.run_id(*RUN) == "8f9043b0bb4695b8e15824f7d85b85f7"
    assert ids.trigger_id(*RUN, 1) == "9938dc004d22a532ee570c8c6bf37730"
    assert ids.retraction_id("t-1") == "dcb579d20ff12a7e42b76d7a6c05f5d1"
    assert ids.decision_id("t-1", 0) == "db46b4f5da1db66b158108cf2bd639b8"
    assert ids.share_of("salt", "u-1") == 0.07334983708275616


def test_a_trigger_id_depends_on_each_of_its_parts_and_on_nothing_else() -> None:
    assert list(inspect.signature(ids.trigger_id).parameters) == [
        "rule",
        "user_id",
        "kind",
        "key",
        "event_id",
        "ordinal",
        "step",
    ]
    parts: list[str | int] = [*RUN, 1]
    seen = {ids.trigger_id(*parts)}
    for position, part in enumerate(parts):
        changed = parts.copy()
        changed[position] = part + 1 if isinstance(part, int) else part + "x"
        seen.add(ids.trigger_id(*changed))
    assert len(seen) == 8


def test_parts_that_read_alike_when_joined_are_kept_apart() -> None:
    assert ids.trigger_id("a", "bc", "k", "1", "e", 0, 1) != ids.trigger_id("ab", "c", "k", "1", "e", 0, 1)
    assert ids.trigger_id("r", "u", "k", "1:1", "e", 0, 1) != ids.trigger_id("r", "u", "k", "1", ":1e", 0, 1)
    assert ids.share_of("ab", "c") != ids.share_of("a", "bc")


def test_ids_of_different_kinds_never_meet() -> None:
    assert len({ids.run_id(*RUN), ids.trigger_id(*RUN, 0), ids.retraction_id("t"), ids.decision_id("t", 0)}) == 4


def test_an_event_id_is_remembered_in_eight_bytes() -> None:
    assert len(ids.event_hash("x" * 256)) == ids.EVENT_HASH_BYTES == 8


@pytest.mark.parametrize("salt", ["jitter", "holdout:winback"])
def test_shares_are_even_and_one_users_own(salt: str) -> None:
    shares = [ids.share_of(salt, f"u-{n}") for n in range(2000)]
    assert all(0 <= share < 1 for share in shares)
    assert ids.share_of(salt, "u-7") == shares[7]
    for part in range(10):
        assert 140 < sum(part <= share * 10 < part + 1 for share in shares) < 260


def test_shares_under_two_salts_have_nothing_to_do_with_each_other() -> None:
    both = sum(ids.share_of("a", f"u-{n}") < 0.5 and ids.share_of("b", f"u-{n}") < 0.5 for n in range(2000))
    assert 400 < both < 600


def test_the_records_of_a_candidate_name_the_ids_of_its_trigger_and_of_its_run() -> None:
    assert ids.of_candidate(*RUN, 2) == (ids.trigger_id(*RUN, 2), ids.run_id(*RUN))
