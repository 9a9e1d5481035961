"""Every scenario file beside this one, in every order of arrival that it allows.

`pytest tests/scenarios -k "coupon and lock"` runs some of them by the words of their names.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from app.backtest import scenario
from app.backtest.scenario import Scenario
from app.core.rules import Catalogue
from app.rulebook import load
from tests.catalogues import THREE

_FILES = sorted(Path(__file__).parent.glob("*.yaml"))
_SCENARIOS = [found for path in _FILES for found in scenario.read(path.read_text(encoding="utf-8"), path.name)]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load(THREE)


@pytest.mark.parametrize("given", _SCENARIOS, ids=[f"{one.file}: {one.name}" for one in _SCENARIOS])
def test_what_is_given_leads_to_exactly_what_is_written(given: Scenario, catalogue: Catalogue) -> None:
    problem = scenario.check(given, catalogue)
    if problem:
        pytest.fail(problem, pytrace=False)
