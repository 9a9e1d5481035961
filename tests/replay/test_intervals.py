"""The shipped intervals are what the data says, and fit the types that a replay gives."""

from __future__ import annotations

import math
from importlib import resources
from typing import Any

import pytest
import yaml

from app.replay.journey_data import product_types

BY_HAND = {"milk_powder": 20, "daily_goods": 30}


@pytest.fixture(scope="module")
def intervals() -> dict[str, int]:
    found: dict[str, int] = yaml.safe_load(resources.files("app.catalogue").joinpath("intervals.yaml").read_text())
    return found


def test_every_type_of_the_mapping_has_an_interval(intervals: dict[str, int]) -> None:
    assert intervals.keys() == set(product_types().values()) | BY_HAND.keys()


def test_intervals_are_the_medians_of_days_a_piece_lasts_in_the_first_242_days(
    raw: dict[str, Any], intervals: dict[str, int]
) -> None:
    products, sales = raw["products"], raw["transactions"]
    names = products["product_category"] + " > " + products["product_type"]
    types = names.map(product_types()).fillna(products["product_category"].map(product_types()))
    sales = sales.merge(products.assign(type=types)[["product_id", "type"]], on="product_id")
    sales = sales.assign(day=(sales["date"] - sales["date"].min()).dt.days)
    sales = sales[sales["type"].notna() & (sales["quantity"] > 0) & (sales["day"] < 242)]
    bought = sales.groupby(["type", "household_id", "day"], as_index=False)["quantity"].sum()
    gap = bought.groupby(["type", "household_id"])["day"].shift(-1) - bought["day"]
    lasts = (gap / bought["quantity"]).groupby(bought["type"]).median()
    measured = {name: math.floor(days + 0.5) for name, days in lasts.items() if name not in BY_HAND}
    assert {**BY_HAND, **measured} == intervals

    usual = gap.groupby(bought["type"]).median().drop("milk_powder")
    assert usual.between(14, 90).all()
    repeated = bought.groupby(["type", "household_id"]).size() >= 2
    assert (repeated.groupby("type").sum() >= 80).all()
