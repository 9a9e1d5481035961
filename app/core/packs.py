"""Coupons by what is said of them: by their own ids and by those of their packs."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.latest import of_the_latest
from app.core.row import Coupon, Row


def coupons_of(row: Row, key: str) -> Sequence[Coupon]:
    """The coupon with this id, or those of the pack with this id."""
    return _by_key(row.coupons).get(key, ())


@of_the_latest
def _by_key(coupons: dict[str, Coupon]) -> dict[str, list[Coupon]]:
    found: dict[str, list[Coupon]] = {}
    for coupon in coupons.values():
        found.setdefault(coupon.coupon_id, []).append(coupon)
        if coupon.pack_id is not None and coupon.pack_id != coupon.coupon_id:
            found.setdefault(coupon.pack_id, []).append(coupon)
    return found
