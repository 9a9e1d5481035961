"""Every condition of the shipped rules is read quickly, and means what CEL's interpreter says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml

from app.core import expressions, fast_conditions
from app.core.policy import Policy
from app.core.row import Baseline, Consent, Coupon, Mark, Order, OrderLine, Row, Run, View
from app.core.scope import Scope
from app.rulebook import SHIPPED
from tests.core.shop import DAY, at


def _interpreted(text: str, key: str) -> Callable[[Scope], bool]:
    """The condition with a part that only the interpreter reads."""
    return expressions.condition(f"({text}) && 1 * 1 == 1", key)


def _scopes(key: str) -> list[Scope]:
    """Users of all sorts at some instants."""
    coupon = Coupon("c-1", at("03-01"), "e", "amount", "20.00", "CNY", 2000, None, "b", "p-1", at("03-02"), at("03-12"))
    used = Coupon("c-2", at("03-01"), redeemed=Mark(at("03-02"), "e", "CouponRedeemed"))
    order = Order("o-1", None, at("03-01"), at("03-01"), total_minor=5000, lines=(OrderLine("p", "milk", 1, 1),))
    rows = [
        Row("u-1"),
        Row("u-1", coupons={"c-1": coupon, "c-2": used}, orders={"o-1": order}, registered_at=at("01-01")),
        Row("u-1", orders={"o-1": order, "o-2": Order("o-2", None, at("03-05"))}, last_seen_at=at("03-06")),
        Row("u-1", baseline=Baseline(0, 7, None, at("02-01")), birthday="--05-04", stage="growth"),
        Row("u-1", views={"p": View("p", at("03-01"), 2, 41, "milk")}, consents={"push": Consent(True, 0)}),
    ]
    policy = Policy(intervals={"milk": 20 * DAY}, companions={"milk": "diapers"})
    keys = {"coupon": "c-1", "pack": "p-1", "order": "o-1", "product_type": "milk", "category": "milk"}
    run = Run("r", 1, key, keys.get(key, ""), "e-1", at("03-01"), "o-1", data={"units": 3})
    return [Scope(row, run, policy, now) for row in rows for now in (at("03-01"), at("03-08"), at("06-01"))]


def _shipped() -> list[tuple[str, str]]:
    found = []
    for path in sorted(SHIPPED.glob("*.yaml")):
        data = yaml.safe_load(path.read_text())
        if "rule" in data:
            entries = data["enter"] if isinstance(data["enter"], list) else [data["enter"]]
            texts = [entry.get("when") for entry in (*entries, *data.get("ends", []))] + [data.get("check")]
            found += [(text, entries[0].get("key", "user")) for text in texts if text]
    return found


@pytest.mark.parametrize(("text", "key"), _shipped())
def test_a_shipped_condition_is_quick_and_means_the_same(text: str, key: str) -> None:
    quick, slow = fast_conditions.translate(text), _interpreted(text, key)
    assert quick is not None
    assert [bool(quick(scope)) for scope in _scopes(key)] == [slow(scope) for scope in _scopes(key)]
