"""The Complete Journey data as events of the contract, in time order, the same bytes every time.

- OrderPaid is a basket, at the second it was paid; its channel is `store`.
- CouponIssued is a campaign that reached a household: one coupon each, valid for the campaign's days. Campaigns that
  began before the data does are issued when it begins, as a shop loads its open coupons on the day it goes live.
- CouponRedeemed is a redemption. The data names its day, not its basket: it is put at the household's first basket of
  that day in which a coupon was used, or else its first at all. All redemptions of a campaign are of the same coupon.

The rest are **stand-ins** for what the data does not hold, with `"channel": "simulated"` and `sim-` before their ids:

- CustomerBaseline and ProfileUpdated: the households were customers before, live in the shop's zone, speak English.
- UserLoggedIn and ProductViewed: a visit before the first purchase of each day on which a household really shopped, and
  a look at one of the things it then bought. So no trigger comes or stays away because of an invented visit.
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from app.replay.journey_data import ZONE, Basket, Redemption, Tables, load_tables
from app.replay.outgoing import Outgoing
from schemas.events import INPUT_TOPICS
from schemas.instant import DAY, HOUR, MINUTE, SECOND, format_instant

SIMULATED: Final = "simulated"
"""The channel of every stand-in."""


def _midnight(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=ZONE).timestamp()) * SECOND


BEGINS: Final = _midnight(2017, 1, 1)
"""The data's first midnight in the store's zone, microseconds since 1970."""

ENDS: Final = _midnight(2018, 1, 1)
"""The midnight after its last day: everything in the data happened before."""

_KNOWN_SINCE: Final = format_instant(_midnight(2016, 1, 1), ZONE)
_OPEN_COUPONS: Final = BEGINS + MINUTE
_VISIT: Final = (5 * MINUTE, 45 * MINUTE)


class Journey:
    """The events of some households.

    `events()` gives them in time order; at one instant in the order of the inputs. `counts` says how many of each type
    there are, stand-ins apart in `simulated`; `left_out` what of the data is not in them.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._firsts = _first_of_each_day(tables.baskets)
        self.left_out: Counter[str] = tables.left_out
        self.counts: Counter[str] = Counter(
            OrderPaid=len(tables.baskets), CouponIssued=len(tables.coupons), CouponRedeemed=len(tables.redemptions)
        )
        self.simulated: Counter[str] = Counter(
            CustomerBaseline=len(tables.households),
            ProfileUpdated=len(tables.households),
            UserLoggedIn=len(self._firsts),
            ProductViewed=len(self._firsts),
        )

    @property
    def households(self) -> int:
        return len(self._tables.households)

    @property
    def lines(self) -> int:
        """Order lines of all baskets."""
        return len(self._tables.lines)

    def __len__(self) -> int:
        return self.counts.total() + self.simulated.total()

    def events(self) -> Iterator[Outgoing]:
        """All events in time order. Their bytes are made as they are asked for, so that a year fits into memory."""
        return heapq.merge(
            self._orders(),
            self._logins(),
            self._views(),
            self._coupons(),
            self._profiles(),
            key=lambda event: (event.occurred_at, INPUT_TOPICS.index(event.input)),
        )

    def _orders(self) -> Iterator[Outgoing]:
        tables = self._tables
        described = {number: self._describe(number) | {"sku": str(number)} for number in tables.products}
        for basket in tables.baskets:
            lines = [
                {**described[line.product], "quantity": line.quantity, "unit_price": _money(line.unit_price)}
                for line in tables.lines[basket.first : basket.last]
            ]
            yield _event(
                "orders", "OrderPaid", f"cj-order-{basket.basket}", basket.household, basket.at, "store",
                order_id=str(basket.basket), currency="USD", total=_money(basket.total), lines=lines,
            )  # fmt: skip

    def _coupons(self) -> Iterator[Outgoing]:
        issued = [
            _event(
                "coupons", "CouponIssued", f"cj-issued-{coupon.campaign}-{coupon.household}", coupon.household,
                max(coupon.starts_at, _OPEN_COUPONS),
                coupon_id=_coupon_id(coupon.campaign, coupon.household),
                batch=f"campaign-{coupon.campaign}-{coupon.kind[-1]}",
                valid_from=format_instant(coupon.starts_at, ZONE), expires_at=format_instant(coupon.expires_at, ZONE),
            )
            for coupon in self._tables.coupons
        ]  # fmt: skip
        by_day: dict[tuple[int, int], list[Basket]] = {}
        for basket in self._tables.baskets:
            by_day.setdefault((basket.household, basket.day), []).append(basket)
        redeemed = [
            self._redeemed(redemption, by_day.get((redemption.household, redemption.day), []))
            for redemption in self._tables.redemptions
        ]
        return iter(sorted(issued + redeemed))

    @staticmethod
    def _redeemed(redemption: Redemption, baskets: list[Basket]) -> Outgoing:
        basket = next((b for b in baskets if b.used_coupon), baskets[0] if baskets else None)
        known = {"order_id": str(basket.basket)} if basket else {}
        return _event(
            "coupons", "CouponRedeemed",
            f"cj-redeemed-{redemption.campaign}-{redemption.household}-{redemption.upc}-{redemption.day}",
            redemption.household, basket.at if basket else _noon(redemption.day),
            coupon_id=_coupon_id(redemption.campaign, redemption.household), **known,
        )  # fmt: skip

    def _profiles(self) -> Iterator[Outgoing]:
        """Stand-ins: what a shop would load about its old customers on the day it goes live."""
        for household in self._tables.households:
            yield _event(
                "profiles", "CustomerBaseline", f"sim-baseline-{household}", household, BEGINS, SIMULATED,
                registered_at=_KNOWN_SINCE, orders=1,
            )  # fmt: skip
            yield _event(
                "profiles", "ProfileUpdated", f"sim-profile-{household}", household, BEGINS, SIMULATED,
                time_zone=ZONE.key, locale="en-US",
            )  # fmt: skip

    def _logins(self) -> Iterator[Outgoing]:
        """Stand-ins: the visits."""
        for at, basket in sorted((_visit(basket), basket) for basket in self._firsts):
            name = f"sim-login-{basket.household}-{basket.day}"
            yield _event("logins", "UserLoggedIn", name, basket.household, at, SIMULATED)

    def _views(self) -> Iterator[Outgoing]:
        """Stand-ins: in each visit a look at one of the things then bought, half-way to the purchase."""
        for at, basket in sorted(
            ((_visit(basket) + basket.at) // 2 // SECOND * SECOND, basket) for basket in self._firsts
        ):
            bought = self._tables.lines[basket.first : basket.last]
            seen = self._describe(bought[_hash(basket) % len(bought)].product)
            name = f"sim-view-{basket.household}-{basket.day}"
            yield _event("browse", "ProductViewed", name, basket.household, at, SIMULATED, **seen)

    def _describe(self, number: int) -> dict[str, Any]:
        product = self._tables.products[number]
        fields = {
            "product_id": str(number),
            "category": product.category,
            "product_type": product.product_type,
            "title": product.title,
        }
        return {name: value for name, value in fields.items() if value is not None}


def load_journey(households: int | None = None) -> Journey:
    """The events of the first `households` households by hash of their number (None = all 2,469).

    Raises JourneyProblem when the data set cannot be read or has fewer households.
    """
    return Journey(load_tables(households))


def _event(
    input: str, type: str, event_id: str, household: int, at: int, channel: str | None = None, **fields: Any
) -> Outgoing:
    user_id = f"cj-{household}"
    head = {"event_id": event_id, "type": type, "user_id": user_id, "occurred_at": _local(at)}
    if channel is not None:
        head["channel"] = channel
    return Outgoing(at, input, user_id.encode(), orjson.dumps(head | fields))


def _first_of_each_day(baskets: list[Basket]) -> list[Basket]:
    firsts: dict[tuple[int, int], Basket] = {}
    for basket in baskets:
        firsts.setdefault((basket.household, basket.day), basket)
    return list(firsts.values())


def _visit(basket: Basket) -> int:
    """When the stand-in visit before a purchase began: 5 to 45 minutes earlier, on the same local day."""
    earliest, latest = _VISIT
    lead = earliest + _hash(basket) * SECOND % (latest - earliest)
    return max(basket.at - lead, _midnight_of(basket.day))


def _hash(basket: Basket) -> int:
    return zlib.crc32(b"%d" % basket.basket)


def _coupon_id(campaign: int, household: int) -> str:
    return f"cj-coupon-{campaign}-{household}"


@lru_cache(maxsize=512)
def _midnight_of(day: int) -> int:
    """The instant at which a local day (days since 1970) begins."""
    date = datetime.fromtimestamp(day * DAY // SECOND, UTC)
    return _midnight(date.year, date.month, date.day)


def _noon(day: int) -> int:
    return _midnight_of(day) + DAY // 2


@lru_cache(maxsize=1024)
def _local_hour(hour: int) -> tuple[str, str]:
    text = format_instant(hour * HOUR, ZONE)
    return text[:14], text[19:]


def _local(at: int) -> str:
    """RFC 3339 in the store's zone; events come in bunches, so the hour is remembered. Whole seconds only."""
    hour, rest = divmod(at // SECOND, 3_600)
    before, offset = _local_hour(hour)
    return f"{before}{rest // 60:02}:{rest % 60:02}{offset}"


@lru_cache(maxsize=16384)
def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"
