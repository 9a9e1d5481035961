"""The seeded simulation in short: fixed seeds, random ones for a few seconds, and the planted bugs.

A longer run: `make simulate SEEDS=10000`. A bug that it finds becomes a scenario in tests/scenarios.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from tests.simulation.history import story_of
from tests.simulation.oracle import Result
from tests.simulation.planted import PLANTS, planted, seeds_needed
from tests.simulation.play import Game, differences, outcome
from tests.simulation.simulate import chosen, main, problems_with, run, shrink

FIXED = range(1, 121)
WHOLE = range(1, 13)
RANDOM_SECONDS = 8


@pytest.mark.timeout(900)
def test_fixed_seeds_come_out_as_the_oracle_says() -> None:
    told: list[str] = []
    played, failed, _ = run(FIXED, write=told.append)
    assert (played, failed) == (len(FIXED), 0), "\n".join(told)


@pytest.mark.timeout(900)
def test_the_whole_catalogue_gives_the_same_bytes_disturbed_and_undisturbed() -> None:
    told: list[str] = []
    played, failed, _ = run(WHOLE, write=told.append, mode="whole")
    assert (played, failed) == (len(WHOLE), 0), "\n".join(told)


@pytest.mark.timeout(900)
def test_random_seeds_come_out_as_the_oracle_says(record_property: Callable[[str, object], None]) -> None:
    first = random.SystemRandom().randrange(10**6, 10**9)
    told: list[str] = []
    played, failed, _ = run(range(first, first + 10**6), RANDOM_SECONDS, told.append)
    record_property("told", f"seeds {first} to {first + played - 1}")
    assert played
    assert not failed, "\n".join(told)


@pytest.mark.parametrize("name", PLANTS)
@pytest.mark.timeout(900)
def test_a_planted_bug_is_found(name: str, record_property: Callable[[str, object], None]) -> None:
    found = seeds_needed(PLANTS[name])
    record_property("told", f"{PLANTS[name].about}: {found.by_any} seed(s), by the oracle alone {found.by_oracle}")
    assert found.by_any is not None
    assert found.by_oracle is not None


def test_a_plant_is_gone_after_its_block() -> None:
    before = {(plant.owner, name): getattr(plant.owner, name) for plant in PLANTS.values() for name in plant.changes}
    for plant in PLANTS.values():
        with planted(plant):
            assert all(getattr(plant.owner, name) is not before[plant.owner, name] for name in plant.changes)
    assert all(getattr(owner, name) is method for (owner, name), method in before.items())


@pytest.mark.timeout(900)
def test_a_number_is_how_many_and_a_list_which_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "12", "--from", "40", "--jobs", "2"]) == 0
    assert re.search(r"12 seeds in .*, first seed 40: none differ", capsys.readouterr().out)
    assert main(["--seeds", "3,9,", "--jobs", "1"]) == 0
    assert re.search(r"2 seeds in .*, first seed 3: none differ", capsys.readouterr().out)
    assert [*chosen("7,", 1)] == [7]
    with pytest.raises(SystemExit):
        main(["--seeds", "many"])


def test_a_seed_that_differs_is_told_and_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    with planted(PLANTS["twice"]):
        seed = next(seed for seed in FIXED if problems_with(story_of(seed)))
        assert main(["--seeds", f"{seed},", "--jobs", "1"]) == 1
    told = capsys.readouterr().out
    assert f"seed {seed}: CLOCK=" in told
    assert f"first seed {seed}: 1 differ" in told


def test_a_seed_always_tells_the_same_story() -> None:
    assert story_of(7) == story_of(7) != story_of(8)


def test_a_failing_story_is_made_shorter_and_fails_still() -> None:
    with planted(PLANTS["twice"]):
        story = next(story for story in map(story_of, FIXED) if problems_with(story))
        short = shrink(story)
        assert len(short.ops) < len(story.ops)
        assert problems_with(short)


def test_the_oracle_sees_what_is_missing_and_what_is_too_much() -> None:
    game = Game(next(story for story in map(story_of, FIXED) if story.clock == "events"))
    assert game.play() == []
    nothing = Result([], [], [])
    came = outcome(game.driver)
    assert len(came.decided) > 3
    assert len(differences(came, nothing)) == len(differences(nothing, came)) == sum(map(len, came))
