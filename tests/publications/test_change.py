"""What a publication changes, in words; and that no rule changes its meaning without a new version."""

from __future__ import annotations

from typing import Any

import pytest

from app.publications.change import differs, let_go, paused_by_file, refused, told
from app.publications.record import ALL
from tests.cli.shop import NUDGE, THANKS
from tests.publications.test_record import FILES, nudge, publication


def problems(files: dict[str, str], *published: dict[str, str]) -> list[str]:
    return [str(problem) for problem in refused(files, [publication(n, files=f) for n, f in enumerate(published, 1)])]


def test_a_rule_that_means_something_else_needs_a_version_above_all_that_were_published() -> None:
    assert problems(nudge(3), nudge(3)) == []
    assert problems(nudge(4, "11d"), nudge(3)) == []
    assert problems(nudge(3, "11d"), nudge(3)) == [
        "nudge.yaml:2: Version 3 of 'nudge' was published with another meaning: raise version to 4."
    ]
    assert problems(nudge(4, "11d"), nudge(3), nudge(7, "12d"), nudge(8)) == [
        "nudge.yaml:2: Version 4 of 'nudge' was published with another meaning: raise version to 9."
    ]
    assert problems(nudge(3), nudge(3), nudge(4, "11d")) == [
        "nudge.yaml:2: Version 3 of 'nudge' has been replaced by a later one: raise version to 5."
    ]


@pytest.mark.parametrize("change", [
    lambda text: "# a comment\n" + text,
    lambda text: text + "paused: hold\n",
    lambda text: text.replace("family: coupon\nabout", "family:   coupon\nabout"),
])  # fmt: skip
def test_what_is_no_part_of_the_meaning_needs_no_new_version(change: Any) -> None:
    assert problems({**FILES, "nudge.yaml": change(NUDGE)}, FILES) == []


def test_all_rules_that_need_a_version_are_told_at_once() -> None:
    other = {**nudge(3, "11d"), "renamed.yaml": THANKS.replace("expires_after: 1h", "expires_after: 2h")}
    del other["thanks.yaml"]
    assert [text.partition(":")[0] for text in problems(other, FILES)] == ["nudge.yaml", "renamed.yaml"]


def test_what_is_different_is_told_a_line_each() -> None:
    extra = THANKS.replace("rule: thanks", "rule: extra")
    before = publication(1, files={**FILES, "extra.yaml": extra}, paused={"thanks": "hold", "nudge": "hold"})
    files = {
        **nudge(4, "11d", "on_change: restart\n"),
        "new.yaml": THANKS.replace("rule: thanks", "rule: fresh"),
        "shop.yaml": FILES["shop.yaml"] + "locale: en\n",
    }
    after = publication(2, files=files, paused={"thanks": "hold", "fresh": "skip"})
    assert told(before, after) == [
        "added        fresh, version 1: nothing that was due before is sent, unless its start says so",
        "changed      nudge, version 3 to 4: runs in flight begin anew under it",
        "             steps[1].after 10d -> 11d",
        "             on_change not set -> restart",
        "removed      extra: its runs in flight exit",
        "changed      shop.yaml, the shop's policy",
        "             locale not set -> en",
        "paused       fresh (skip)",
        "resumed      nudge",
        "stays paused thanks (hold)",
        "unchanged    1 rule",
    ]
    assert differs(before, after)
    assert not differs(after, after._replace(number=9))


def test_a_file_of_policy_that_was_only_written_otherwise_is_told_as_that() -> None:
    after = publication(2, files={**FILES, "shop.yaml": "# a word\n" + FILES["shop.yaml"]})
    assert told(publication(1), after)[0] == "changed      shop.yaml, the shop's policy: only how it is written"


@pytest.mark.parametrize(("before", "after", "names"), [
    ({"nudge": "hold"}, {}, ["nudge"]),
    ({ALL: "hold"}, {}, ["nudge", "thanks"]),
    ({ALL: "hold"}, {"nudge": "hold"}, ["thanks"]),
    ({"nudge": "hold"}, {"nudge": "skip"}, []),
    ({"nudge": "skip", "thanks": "expire"}, {}, []),
])  # fmt: skip
def test_only_what_a_pause_held_is_let_go_with_its_end(before: Any, after: Any, names: list[str]) -> None:
    assert let_go(publication(1, paused=before), publication(2, paused=after)) == names


def test_what_a_rules_own_file_held_is_let_go_when_its_pause_is_taken_out() -> None:
    held = publication(1, files=nudge(3, more="paused: hold\n"))
    assert let_go(held, publication(2)) == ["nudge"]
    assert let_go(held, held._replace(paused={"thanks": "hold"})) == []
    assert let_go(publication(1, paused={"nudge": "hold"}), publication(2, files=nudge(3, more="paused: skip\n"))) == []
    gone = publication(2, files={name: text for name, text in FILES.items() if name != "nudge.yaml"})
    assert let_go(held, gone) == []


@pytest.mark.parametrize(("way", "said"), [
    ("finish", "are finished under the version they entered"), ("follow", "follow it with their next step"),
    ("exit", "exit"),
])  # fmt: skip
def test_each_way_with_runs_in_flight_has_its_words(way: str, said: str) -> None:
    new = publication(2, files=nudge(4, "11d", f"on_change: {way}\n"))
    assert told(publication(1), new)[0] == f"changed      nudge, version 3 to 4: runs in flight {said}"


def test_a_pause_of_all_is_one_line() -> None:
    every = publication(2, paused={ALL: "hold"})
    assert told(publication(1), every) == ["paused       every rule (hold)", "unchanged    2 rules"]
    assert told(every, publication(3))[:2] == ["resumed      nudge", "resumed      thanks"]
    assert told(every, publication(3, paused={ALL: "hold"})) == [
        "stays paused nudge (hold)", "stays paused thanks (hold)", "unchanged    2 rules",
    ]  # fmt: skip
    assert [line[:12] for line in told(None, publication(1))] == ["added       ", "added       "]


def test_a_pause_of_all_leaves_those_of_single_rules_as_they_are() -> None:
    one = publication(1, paused={"nudge": "skip"})
    both = publication(2, paused={"nudge": "skip", ALL: "hold"})
    assert told(one, both) == ["paused       every rule (hold)", "stays paused nudge (skip)", "unchanged    2 rules"]
    assert told(both, one)[:2] == ["stays paused nudge (skip)", "resumed      thanks"]


def test_a_pause_that_a_rules_own_file_says_is_told_as_one() -> None:
    plain, paused = publication(1), publication(2, files=nudge(3, more="paused: skip\n"))
    assert told(plain, paused) == ["paused       nudge (skip, by nudge.yaml)", "unchanged    2 rules"]
    assert told(paused, paused)[0] == "stays paused nudge (skip, by nudge.yaml)"
    assert told(paused, plain)[0] == "resumed      nudge"
    assert told(plain, paused._replace(paused={"nudge": "hold"}))[0] == "paused       nudge (hold)"
    sentence = "'nudge' is paused by its own file: take `paused: skip` out of nudge.yaml, and publish it."
    assert paused_by_file(paused, "nudge") == paused_by_file(paused, ALL) == [sentence]
    assert paused_by_file(paused, "thanks") == paused_by_file(plain, ALL) == []
    assert paused_by_file(paused._replace(paused={ALL: "hold"}), "nudge") == []


def test_a_pause_that_a_rules_own_file_says_is_one_of_the_settings_that_change() -> None:
    plain, paused = publication(1), publication(2, files=nudge(4, more="paused: skip\n"))
    said = ["             paused not set -> skip", "paused       nudge (skip, by nudge.yaml)"]
    assert told(plain, paused)[1:3] == said
    named = {"nudge": "hold"}
    assert told(publication(1, paused=named), paused._replace(paused=named))[1:3] == [
        said[0], "stays paused nudge (hold)",
    ]  # fmt: skip
    hidden = publication(2, files=nudge(3, more="paused: skip\n"), paused=named)
    assert told(publication(1, paused=named), hidden) == ["stays paused nudge (hold)", said[0], "unchanged    2 rules"]


def test_all_that_is_told_stands_in_two_columns() -> None:
    before = publication(1, paused={"nudge": "hold", "thanks": "hold"})
    lines = told(before, publication(2, files=nudge(4, "11d"), paused={"nudge": "hold"}))
    assert [line[:12].rstrip() for line in lines] == ["changed", "", "stays paused", "resumed", "unchanged"]
    assert all(line[12] == " " != line[13] for line in lines)
