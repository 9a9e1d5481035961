"""`lifecycle rules names`: the typed view as it is, and examples that the reader of a catalogue takes."""

from __future__ import annotations

from typing import get_args

import pytest

from app.core import expressions
from app.core.catalogue_file import KEYS
from app.core.scope import VARIABLES, Kind
from app.explain import names
from app.explain.names import Example
from tests.cli.shop import run, words

EXAMPLES = (*names.CONDITIONS, *names.TIMINGS)


def test_every_name_is_listed_with_its_kind_its_keys_and_its_meaning() -> None:
    said = words(run("rules", "names").stdout)
    for name, variable in VARIABLES.items():
        kind, keys = names.KINDS[variable.kind][0], ", ".join(sorted(variable.keys)) or "any"
        assert words(f" {name} {kind} {keys} {variable.about} ") in said
    assert set(names.KINDS) == set(get_args(Kind))


@pytest.mark.parametrize("key", KEYS)
def test_the_names_of_one_key_are_those_that_its_rules_may_use(key: str) -> None:
    table = run("rules", "names", "--key", key, "--markdown").stdout.splitlines()[2:]
    assert [row.split("`")[1] for row in table] == expressions.names_for(key)
    assert all(row.count("|") == 5 for row in table)
    listed = run("rules", "names", "--key", key).stdout
    assert ("  cart.size " in listed) == (key == "cart")


@pytest.mark.parametrize("one", names.CONDITIONS, ids=str)
def test_a_condition_of_the_list_is_one(one: Example) -> None:
    assert callable(expressions.condition(one.text, one.key))


@pytest.mark.parametrize("one", names.TIMINGS, ids=str)
def test_a_timing_of_the_list_is_one(one: Example) -> None:
    assert callable(expressions.timing(one.text, one.key, "instant"))


def test_the_examples_are_shown_and_what_they_use_is_in_the_list() -> None:
    said = words(run("rules", "names").stdout)
    assert all(f"{one.text} {one.about}" in said for one in EXAMPLES)
    functions = ("startsWith", "endsWith", "contains", "matches")
    for function in functions:
        assert callable(expressions.condition(f"coupon.batch.{function}('vip-')", "coupon"))
        assert function in said
    assert callable(expressions.condition("size(coupon.batch) > 3", "coupon"))


def test_lines_keep_to_the_width() -> None:
    assert max(map(len, names.lines(100))) <= 100
