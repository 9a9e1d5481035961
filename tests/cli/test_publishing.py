"""What `lifecycle rules publish, pause, resume, published` write and say, without Kafka: records are in a list."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app import rulebook
from app.cli import asking, cli
from app.core.problems import CatalogueError
from app.core.rules import Catalogue
from app.publications import topic
from app.publications.record import ALL, Publication, encode, key, to_come
from app.settings import Settings
from app.topics import TopicProblem
from schemas.instant import parse_instant
from tests.cli.shop import NUDGE, POLICY, THANKS, shop

BY_NAME = (
    "{} paused by name: `lifecycle rules resume RULE` ends that of one, "
    "`lifecycle rules resume --all --by-name` of all."
)


class Desk:
    """Somebody who changes the rules, a second of the events' time later each time."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.seconds = str(directory), 0
        self.log: list[tuple[bytes | None, bytes | None]] = []
        self.breaks = False

    def say(self, *arguments: str, refused: bool = False, broken: bool = False) -> str:
        self.seconds += 1
        if self.log and arguments[0] not in ("published", "show") and not {"--number", "--effective-at"} & {*arguments}:
            arguments = (*arguments, "--effective-at", f"2026-03-01T00:00:{self.seconds:02}Z")
        told = CliRunner().invoke(cli, ["rules", *arguments])
        assert told.exit_code == (2 if refused else 1 if broken else 0), told.output
        return told.output

    @property
    def paused(self) -> dict[str, str]:
        return dict(topic.found(self.log).published[-1].paused)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(shop(tmp_path))

    class Publisher(topic.Publisher):
        async def write(self, *publications: Publication) -> None:
            if made.breaks:
                raise topic.PublishingProblem("The broker is gone.")
            made.log += [(key(p.number), encode(p)) for p in publications]

    @asynccontextmanager
    async def publisher(settings: Settings, dry_run: bool = False) -> AsyncIterator[topic.Publisher]:
        yield Publisher(settings, None, topic.found(made.log))

    async def read_all(settings: Settings) -> topic.Found:
        return topic.found(made.log)

    async def there(settings: Any) -> None: ...

    monkeypatch.setattr(topic, "publisher", publisher)
    monkeypatch.setattr(topic, "read_all", read_all)
    monkeypatch.setattr(asking, "check_topics", there)
    monkeypatch.setenv("LIFECYCLE_CLOCK", "events")
    made.say("publish", made.directory)
    return made


def test_the_end_of_a_pause_of_all_leaves_what_was_paused_by_its_name(desk: Desk) -> None:
    desk.say("pause", "nudge", "--way", "skip")
    desk.say("pause", "--all")
    assert desk.paused == {"nudge": "skip", ALL: "hold"}
    told = desk.say("resume", "--all")
    assert "stays paused nudge (skip)" in told
    assert "resumed      thanks" in told
    assert told.endswith(f"{BY_NAME.format('nudge is')}\n")
    assert desk.paused == {"nudge": "skip"}


def test_who_ends_a_pause_of_all_that_was_never_begun_or_is_over_ends_none_that_has_a_name(desk: Desk) -> None:
    desk.say("pause", "nudge")
    desk.say("pause", "thanks", "--way", "expire")
    assert BY_NAME.format("nudge and thanks are") in desk.say("resume", "--all", refused=True)
    assert desk.paused == {"nudge": "hold", "thanks": "expire"}
    assert "--by-name goes with --all." in desk.say("resume", "nudge", "--by-name", refused=True)
    told = desk.say("resume", "--all", "--by-name")
    assert desk.paused == {}
    assert BY_NAME.format("nudge is") not in told
    assert desk.say("resume", "--all") == "No rule is paused; nothing was published.\n"


def test_what_stands_as_it_is_asked_for_is_said_and_nothing_is_written(desk: Desk) -> None:
    assert desk.say("resume", "nudge") == "nudge is not paused; nothing was published.\n"
    desk.say("pause", "nudge", "--way", "skip")
    assert desk.say("pause", "nudge", "--way", "skip") == "nudge is paused (skip) already; nothing was published.\n"
    desk.say("pause", "--all")
    assert desk.say("pause", "--all") == "Every rule is paused (hold) already; nothing was published.\n"
    assert len(desk.log) == 3


def test_many_rules_are_counted_in_a_sentence(desk: Desk) -> None:
    more = {f"thanks{n}": THANKS.replace("rule: thanks", f"rule: thanks{n}") for n in range(6)}
    desk.say("publish", str(shop(Path(desk.directory), **more)))
    desk.say("pause", "--all")
    desk.say("resume", "nudge")
    assert BY_NAME.format("7 rules are") in desk.say("resume", "--all", refused=True)
    assert "What was held of 7 rules is asked again" in desk.say("resume", "--all", "--by-name")


def test_both_kinds_of_pauses_may_be_ended_at_once(desk: Desk) -> None:
    desk.say("pause", "nudge")
    desk.say("pause", "--all")
    desk.say("resume", "--all", "--by-name")
    assert desk.paused == {}


def test_a_rule_that_is_resumed_out_of_a_pause_of_all_leaves_the_others_paused(desk: Desk) -> None:
    desk.say("pause", "--all", "--way", "expire")
    desk.say("resume", "thanks")
    assert desk.paused == {"nudge": "expire"}
    assert BY_NAME.format("nudge is") in desk.say("resume", "--all", refused=True)
    desk.say("resume", "--all", "--by-name")
    assert desk.paused == {}


def test_who_resumes_is_told_when_what_was_held_is_asked_again(desk: Desk) -> None:
    again = (
        "  What was held of {} is asked again within the hour, from 2026-03-01 01:00:00 UTC to "
        "2026-03-01 02:00:00 UTC: each user at an instant of its own. What is stale by then is not sent.\n"
    )
    at = ("--effective-at", "2026-03-01T09:00:00+08:00")
    desk.say("pause", "--all")
    assert again.format("nudge and thanks") in desk.say("resume", "--all", "--dry-run", *at)
    assert again.format("nudge") in desk.say("resume", "nudge", "--dry-run", *at)
    desk.say("pause", "--all", "--way", "skip")
    told = desk.say("resume", "--all", *at)
    assert "resumed      nudge" in told
    assert "asked again" not in told


# -- what is said of it


def test_what_could_not_be_written_is_not_said_to_take_effect(desk: Desk) -> None:
    desk.breaks = True
    told = desk.say("pause", "nudge", broken=True)
    assert told == "Error: The broker is gone.\n"


def test_instants_are_told_in_utc_and_say_so(desk: Desk) -> None:
    told = desk.say("pause", "nudge", "--effective-at", "2026-03-02T08:00:00+08:00")
    assert "Number 2 takes effect from 2026-03-02 00:00:00 UTC:" in told
    assert "Number 2, in effect from 2026-03-02 00:00:00 UTC:" in desk.say("published")
    told = desk.say("pause", "thanks", "--effective-at", "2026-03-01T00:00:00Z")
    assert "Number 2, which was to take effect from 2026-03-02 00:00:00 UTC, is replaced." in told


def test_a_publication_names_the_settings_that_it_changes(desk: Desk) -> None:
    shop(
        Path(desk.directory),
        shop=POLICY.replace('"21:00"', '"22:30"'),
        nudge=NUDGE.replace("version: 3", "version: 4").replace("priority: 50", "priority: 60"),
    )
    assert desk.say("publish", desk.directory).splitlines()[2:6] == [
        "  changed      nudge, version 3 to 4: runs in flight are finished under the version they entered",
        "               send.priority 50 -> 60",
        "  changed      shop.yaml, the shop's policy",
        "               quiet_hours.from 21:00 -> 22:30",
    ]


def coming(desk: Desk) -> list[tuple[int, dict[str, str]]]:
    """What is to come after the first day's first minute: the numbers, and which rules each pauses."""
    at = parse_instant("2026-03-01T00:01:00Z")
    return [(p.number, dict(p.paused)) for p in to_come(topic.found(desk.log).published, at)]


def test_a_pause_that_is_still_to_come_is_called_off_by_resuming_its_rule(desk: Desk) -> None:
    desk.say("pause", "nudge", "--effective-at", "2026-03-02T00:00:00Z")
    off = "Number 2, which was to take effect from 2026-03-02 00:00:00 UTC, is replaced; called off is:"
    told = [f"{off}\n", "  paused       nudge (hold)\n", "Nothing was published (--dry-run).\n"]
    assert desk.say("resume", "nudge", "--dry-run").endswith("".join(told))
    assert coming(desk) == [(2, {"nudge": "hold"})]
    assert desk.say("resume", "nudge").splitlines() == [
        "Number 3 takes effect from 2026-03-01 00:00:04 UTC:", "  unchanged    2 rules", off,
        "  paused       nudge (hold)", "Published: number 3.",
    ]  # fmt: skip
    assert coming(desk) == []
    assert desk.say("resume", "nudge") == "nudge is not paused; nothing was published.\n"


def test_the_end_of_a_pause_is_called_off_by_pausing_its_rule_again(desk: Desk) -> None:
    desk.say("pause", "nudge")
    desk.say("resume", "nudge", "--effective-at", "2026-03-02T00:00:00Z")
    assert "is replaced; called off is:\n  resumed      nudge\n" in desk.say("pause", "nudge")
    assert coming(desk) == []
    assert desk.paused == {"nudge": "hold"}


def test_only_the_pause_of_what_is_to_come_is_called_off(desk: Desk) -> None:
    shop(Path(desk.directory), nudge=NUDGE.replace("version: 3", "version: 4").replace("priority: 50", "priority: 60"))
    desk.say("pause", "nudge", "--effective-at", "2026-03-02T00:00:00Z")
    desk.say("publish", desk.directory, "--effective-at", "2026-03-03T00:00:00Z")
    told = desk.say("resume", "nudge")
    assert "Number 3, which was to take effect from 2026-03-03 00:00:00 UTC, is replaced.\n" in told
    assert told.endswith("Published: number 4, number 5.\n")
    assert coming(desk) == [(5, {})]
    assert "version: 4" in topic.found(desk.log).published[-1].files["nudge.yaml"]


def test_a_pause_that_begins_earlier_than_it_was_to_is_not_called_off(desk: Desk) -> None:
    desk.say("pause", "nudge", "--effective-at", "2026-03-02T00:00:00Z")
    told = desk.say("pause", "nudge")
    assert "called off" not in told
    assert told.endswith("Published: number 3.\n")


def test_a_pause_of_all_that_is_to_come_is_called_off_beside_one_by_name_and_a_rule_is_taken_out_of_it(
    desk: Desk,
) -> None:
    every = ("pause", "--all", "--effective-at", "2026-03-02T00:00:00Z")
    desk.say("pause", "nudge")
    desk.say(*every)
    told = desk.say("resume", "--all")
    assert "is replaced; called off is:\n  paused       every rule (hold)\n" in told
    assert told.endswith(f"{BY_NAME.format('nudge is')}\n")
    assert (coming(desk), desk.paused) == ([], {"nudge": "hold"})
    desk.say(*every)
    desk.say("resume", "nudge")
    assert [paused for _, paused in coming(desk)] == [{"thanks": "hold"}]


def test_of_a_rule_that_will_be_gone_nothing_is_called_off_nor_begun(desk: Desk) -> None:
    desk.say("pause", "nudge")
    (Path(desk.directory) / "nudge.yaml").unlink()
    desk.say("publish", desk.directory, "--effective-at", "2026-03-02T00:00:00Z")
    assert desk.say("pause", "nudge") == "nudge is paused (hold) already; nothing was published.\n"


def test_who_resumes_what_its_own_file_will_pause_is_told_from_when_on_and_where(desk: Desk) -> None:
    shop(Path(desk.directory), nudge=NUDGE + "paused: skip\n")
    desk.say("publish", desk.directory, "--effective-at", "2026-03-02T00:00:00Z")
    told = desk.say("resume", "nudge", refused=True)
    assert told.startswith("Error: From 2026-03-02 00:00:00 UTC on 'nudge' is paused by its own file: take `paused: s")


def test_who_resumes_what_its_own_file_pauses_is_told_where(desk: Desk) -> None:
    shop(Path(desk.directory), nudge=NUDGE + "paused: skip\n")
    assert "paused       nudge (skip, by nudge.yaml)" in desk.say("publish", desk.directory)
    assert "  nudge, version 3, paused (skip, by nudge.yaml)\n" in desk.say("published")
    sentence = "'nudge' is paused by its own file: take `paused: skip` out of nudge.yaml, and publish it."
    assert sentence in desk.say("resume", "nudge", refused=True)
    assert sentence in desk.say("resume", "--all", refused=True)
    desk.say("pause", "nudge")
    told = desk.say("resume", "nudge")
    assert "paused       nudge (skip, by nudge.yaml)" in told
    assert told.endswith(f"{sentence}\n")
    shop(Path(desk.directory))
    assert "resumed      nudge" in desk.say("publish", desk.directory)


def test_pauses_outlive_a_number_that_a_person_gives_and_where_they_are_lost_it_is_said(desk: Desk) -> None:
    desk.say("pause", "nudge")
    assert "stays paused nudge (hold)" in desk.say("publish", desk.directory, "--number", "9")
    assert desk.paused == {"nudge": "hold"}
    desk.log.clear()
    told = desk.say("publish", desk.directory, "--number", "20")
    assert "Nobody knows any more which rules were paused: pause again those that are to be." in told


def test_what_nobody_can_read_is_named_and_the_next_number_is_above_it(desk: Desk) -> None:
    desk.log += [(key(2), b"{}"), (key(3), None)]
    for told in (desk.say("published"), desk.say("pause", "nudge")):
        assert "Number 2 cannot be read by this release: it is not written as a publication (KeyError)." in told
    assert topic.found(desk.log).latest == 4


def test_what_is_published_is_shown_as_it_is_in_effect_with_its_pause(desk: Desk) -> None:
    asked = ("show", "thanks", "--published")
    desk.log.clear()
    nothing = CliRunner().invoke(cli, ["rules", *asked])
    assert (nothing.exit_code, "Nothing is published yet" in nothing.output) == (1, True)
    desk.say("publish", desk.directory)
    shown = CliRunner().invoke(cli, ["rules", *asked])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("thanks, version 1 (family order, shadow)\n")
    assert "paused" not in shown.output
    desk.say("pause", "thanks", "--way", "skip")
    assert "It is paused: what comes due is dropped." in " ".join(
        CliRunner().invoke(cli, ["rules", *asked]).output.split()
    )
    other = CliRunner().invoke(cli, ["rules", "show", "winback", "--published"])
    assert "There is no rule 'winback' in what is published. There are: nudge, thanks.\n" in other.output


def test_a_pause_that_stands_in_the_file_is_shown_of_what_is_published_and_what_was_said_since_goes_before_it(
    desk: Desk,
) -> None:
    shop(Path(desk.directory), nudge=NUDGE + "paused: skip\n")
    desk.say("publish", desk.directory)
    assert "nudge, version 3 (family" in desk.say("show", "nudge", "--published")
    assert "It is paused: what comes due is dropped." in " ".join(desk.say("show", "nudge", "--published").split())
    desk.say("pause", "nudge", "--way", "hold")
    assert "dropped" not in desk.say("show", "nudge", "--published")


def test_who_is_shown_what_is_published_is_told_why_the_workers_may_be_elsewhere(desk: Desk) -> None:
    desk.log.append((key(2), b"{}"))
    doubts = (
        "Number 2 cannot be read by this release: it is not written as a publication (KeyError).",
        "This goes by the wall clock, and events say what time it is: each shard's metric lifecycle_catalogue",
    )
    shown, none = desk.say("show", "thanks", "--published"), desk.say("show", "x", "--published", broken=True)
    assert "\nSo number 1 of what is published has it.\n" in shown
    published = desk.say("published")
    desk.log = [(key(2), b"{}")]
    nothing, neither = desk.say("show", "thanks", "--published", broken=True), desk.say("published")
    for told in (shown, none, published, nothing, neither):
        assert all(doubt in told for doubt in doubts), told
    sentence = "Nothing of what is published can be read by this release: the first worker that starts publishes its"
    refused = desk.say("pause", "--all", refused=True)
    for told in (nothing, neither, refused):
        assert sentence in told, told


def test_the_wall_clock_of_a_shop_that_goes_by_it_is_no_doubt(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFECYCLE_CLOCK", "wall")
    assert desk.say("show", "thanks", "--published").endswith("So number 1 of what is published has it.\n")


def test_what_the_client_would_log_is_no_part_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these commands says in one sentence that nobody answers."""

    async def nobody(settings: Settings) -> None:
        logging.getLogger("aiokafka").error("Unable connect to ...")
        raise TopicProblem(["Nobody answers."])

    monkeypatch.setattr(asking, "check_topics", nobody)
    for arguments in (("published",), ("show", "thanks", "--published")):
        logging.getLogger("aiokafka").setLevel(logging.NOTSET)
        told = CliRunner().invoke(cli, ["rules", *arguments])
        assert (told.exit_code, told.output) == (1, "Error: Nobody answers.\n")
        assert not logging.getLogger("aiokafka").isEnabledFor(logging.ERROR), arguments


def test_what_is_published_is_shown_with_the_shops_numbers_of_then_where_this_release_reads_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = NUDGE.replace("{after: 10d, offer: bigger}", "{after: user.usual_gap}").replace("version: 3", "version: 4")
    shop(Path(desk.directory), nudge=timed, shop=f"{POLICY}usual_gap: 17d\n")
    desk.say("publish", desk.directory)
    shop(Path(desk.directory), nudge=timed, shop=f"{POLICY}usual_gap: 18d\n")
    assert "(the shop's usual gap: 17 days)" in " ".join(desk.say("show", "nudge", "--published").split())

    def of_another_release(files: Mapping[str, str]) -> Catalogue:
        raise CatalogueError([])

    monkeypatch.setattr(rulebook, "compiled", of_another_release)
    shown = desk.say("show", "nudge", "--published")
    assert "user.usual_gap: the user's own gap between purchases" in shown
    assert "usual gap: " not in shown


def test_a_topic_that_cannot_be_read_is_a_sentence(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(settings: Settings) -> topic.Found:
        raise topic.PublishingProblem("Kafka does not answer.")

    monkeypatch.setattr(topic, "read_all", silent)
    result = CliRunner().invoke(cli, ["rules", "show", "thanks", "--published"])
    assert (result.exit_code, result.output) == (1, "Error: Kafka does not answer.\n")
