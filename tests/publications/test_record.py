"""Publications: what a record holds, which one is in effect when, and what a worker makes of them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.publications.record import ALL, Loader, NoPublication, Publication, decode, encode, in_effect, key, to_come
from tests.cli.shop import NUDGE, POLICY, THANKS

FILES = {"nudge.yaml": NUDGE, "thanks.yaml": THANKS, "shop.yaml": POLICY, "intervals.yaml": "{}\n"}
SINCE = 1_772_323_200_000_000


def publication(number: int, since: int | None = SINCE, **changes: Any) -> Publication:
    return Publication(**{
        "number": number, "effective_at": since, "files": FILES, "paused": {}, "published_at": SINCE - 1, **changes,
    })  # fmt: skip


def nudge(version: int, steps: str = "10d", more: str = "") -> dict[str, str]:
    text = NUDGE.replace("version: 3", f"version: {version}").replace("after: 10d", f"after: {steps}") + more
    return {**FILES, "nudge.yaml": text}


def test_a_record_comes_back_as_it_was_written() -> None:
    for one in (publication(1, None), publication(12, paused={"nudge": "skip", ALL: "hold"})):
        assert decode(encode(one)) == one
    body = orjson.loads(encode(publication(7)))
    assert (body["number"], body["effective_at"]) == (7, "2026-03-01T00:00:00+00:00")
    assert decode(orjson.dumps({**body, "more": 1})).number == 7
    assert key(7) < key(12) < key(100)


@pytest.mark.parametrize("change", [
    {"number": "x"}, {"effective_at": "soon"}, {"paused": {"nudge": "never"}}, {"files": {"nudge.yaml": NUDGE}},
    {"files": None}, {"published_at": None},
])  # fmt: skip
def test_what_is_no_publication_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(NoPublication, match="it is not written as a publication"):
        decode(orjson.dumps(orjson.loads(encode(publication(1))) | change))


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"{}"])
def test_bytes_that_are_none_are_refused(value: bytes | None) -> None:
    with pytest.raises(NoPublication):
        decode(value)


def test_the_latest_number_that_is_due_is_in_effect() -> None:
    found = [publication(1, None), publication(2, 100), publication(3, 300), publication(4, 200)]
    assert [getattr(in_effect(found, at), "number", 0) for at in (0, 99, 100, 199, 200, 300)] == [1, 1, 2, 2, 4, 4]
    assert in_effect(found[1:], 99) is None


def test_what_is_to_come_leaves_out_what_a_later_number_replaces_before_its_time() -> None:
    found = [publication(1, None), publication(2, 100), publication(3, 300), publication(4, 200), publication(5, 400)]
    assert [p.number for p in to_come(found, 50)] == [2, 4, 5]
    assert [p.number for p in to_come(found, 200)] == [5]
    assert to_come([publication(2, 100), publication(3, 100)], 0) == [publication(3, 100)]
    assert to_come([], 0) == []


def test_each_catalogue_carries_the_versions_of_the_earlier_ones() -> None:
    loader = Loader()
    loader.add(publication(1, None, files=nudge(3)))
    loader.add(publication(2, files=nudge(4, "11d")))
    catalogue = loader.add(publication(3, files=nudge(5, "12d"))).catalogue
    assert catalogue is not None
    assert set(catalogue.earlier) == {("nudge", 3), ("nudge", 4)}
    assert catalogue.rules["nudge"].version == 5


def test_a_pause_goes_before_what_the_file_says_and_a_rules_own_before_that_of_all() -> None:
    loader = Loader()
    files = nudge(3, more="paused: expire\n")
    ways = [
        loader.add(publication(number, files=files, paused=paused)).catalogue
        for number, paused in enumerate([{}, {"nudge": "skip"}, {ALL: "hold"}, {ALL: "hold", "nudge": "skip"}], 1)
    ]
    assert [(c.rules["nudge"].paused, c.rules["thanks"].paused) for c in ways if c is not None] == [
        ("expire", None), ("skip", None), ("hold", "hold"), ("skip", "hold"),
    ]  # fmt: skip


def test_one_that_cannot_be_read_has_a_reason_and_the_next_one_is_read_again() -> None:
    loader = Loader()
    loader.add(publication(1, None, files=nudge(3)))
    newer = loader.add(publication(2, files=nudge(4, more="dream: true\ncolour: red\n")))
    assert newer.catalogue is None
    assert newer.problem.startswith("nudge.yaml:22: There is no setting 'dream' here.")
    assert newer.problem.endswith("and 1 more")
    later = loader.add(publication(3, files=nudge(5)))
    assert later.catalogue is not None
    assert set(later.catalogue.earlier) == {("nudge", 3)}
