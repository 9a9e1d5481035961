"""Every scenario file of this directory, in every order of arrival that it allows.

Beside this file: the first three rules, by themselves and as they are shipped. In `catalogue`: the shipped rules,
one at a time, in a shop whose gates stand open but for the night. In `policy`: all of it in the shop as shipped.

`pytest tests/scenarios -k "coupon and lock"` runs some of them by the words of their names.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from app.backtest import scenario
from app.backtest.scenario import Scenario
from app.core.policy import CHANNELS
from app.core.rules import Catalogue, index
from app.rulebook import load
from tests.catalogues import THREE

_HERE = Path(__file__).parent


def _three() -> Catalogue:
    return load(THREE)


def _open() -> Catalogue:
    """The shipped catalogue where everything is allowed, nothing is counted and nothing competes."""
    shipped = load()
    policy = shipped.policy._replace(consent=dict.fromkeys(CHANNELS, "allowed"), caps=(), window=0)
    return index(shipped.rules, policy)


CATALOGUES = {"three": cache(_three), "shipped": cache(_open), "policy": cache(load)}
#: By folder: the catalogues on which its scenarios hold.
_HELD_BY = {"": ("three", "shipped"), "catalogue": ("shipped",), "policy": ("policy",)}
SCENARIOS = [
    (on, found)
    for folder, names in _HELD_BY.items()
    for path in sorted((_HERE / folder).glob("*.yaml"))
    for found in scenario.read(path.read_text(encoding="utf-8"), f"{folder}/{path.name}".strip("/"))
    for on in names
]


@pytest.mark.parametrize(("on", "given"), SCENARIOS, ids=[f"{one.file}: {one.name} ({on})" for on, one in SCENARIOS])
def test_what_is_given_leads_to_exactly_what_is_written(on: str, given: Scenario) -> None:
    problem = scenario.check(given, CATALOGUES[on]())
    if problem:
        pytest.fail(problem, pytrace=False)
