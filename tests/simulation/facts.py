"""What a list of events says, read in one go: orders, coupons, and from them every entry into the three rules.

A pure function of the set of events: the order in which they were seen makes no difference. Part of the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import yaml

HOUR = 3_600_000_000
DAY = 24 * HOUR
NEVER = 253_370_764_800_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CATALOGUE = Path(__file__).parents[2] / "app" / "catalogue"

Event = dict[str, Any]


@lru_cache(maxsize=1)
def intervals() -> dict[str, int]:
    """By product type: how long a unit lasts."""
    return {name: days * DAY for name, days in yaml.safe_load((_CATALOGUE / "intervals.yaml").read_text()).items()}


# -- the clock on the wall


def _local(at: int, zone: ZoneInfo) -> datetime:
    return (_EPOCH + timedelta(microseconds=at)).astimezone(zone)


def _instant(day: date, hour: int, zone: ZoneInfo) -> int:
    return (datetime.combine(day, time(hour), zone) - _EPOCH) // timedelta(microseconds=1)


def is_quiet(at: int, zone: ZoneInfo) -> bool:
    """From nine in the evening to nine in the morning."""
    return not 9 <= _local(at, zone).hour < 21


def morning_after(at: int, zone: ZoneInfo) -> int:
    """The end of the night that `at` lies in."""
    local = _local(at, zone)
    return _instant(local.date() + timedelta(days=1 if local.hour >= 21 else 0), 9, zone)


def evening_before(at: int, zone: ZoneInfo) -> int:
    """The start of the night that `at` lies in."""
    local = _local(at, zone)
    return _instant(local.date() - timedelta(days=0 if local.hour >= 21 else 1), 21, zone)


def zone_of(seen: Sequence[Event]) -> ZoneInfo:
    """The zone of the latest profile that names one (of two at one instant, the one heard of last)."""
    named = [(e["at"], number, e["time_zone"]) for number, e in enumerate(seen) if e.get("time_zone")]
    return ZoneInfo(max(named)[2] if named else "Asia/Shanghai")


# -- orders


class Order(NamedTuple):
    """An order as all its events together tell it."""

    order_id: str
    paid: Event | None
    cancelled_at: int
    """-1: it was not."""
    received_at: int | None
    refunds: tuple[Event, ...]

    @property
    def at(self) -> tuple[int, str]:
        """Its place among the purchases; only of a paid order."""
        assert self.paid is not None
        return self.paid["at"], self.paid["event_id"]

    @property
    def cancelled(self) -> bool:
        """Cancelled for good: not paid again afterwards."""
        return self.cancelled_at >= 0 and (self.paid is None or self.cancelled_at >= self.paid["at"])

    def pieces(self, product_id: str, only_goods: bool) -> int:
        """How many pieces of a product were refunded (or came back)."""
        return sum(
            line["quantity"]
            for refund in self.refunds
            for line in refund.get("lines", ())
            if line["product_id"] == product_id and (refund.get("goods_returned", True) or not only_goods)
        )

    @property
    def whole_sum(self) -> bool:
        """The refunds add up to all that was paid."""
        total = Decimal(self.paid["total"]) if self.paid else Decimal(0)
        return 0 < total <= sum(Decimal(refund.get("amount", "0")) for refund in self.refunds)

    @property
    def refunded(self) -> bool:
        """All of it was refunded: as a whole, piece by piece, or sum by sum."""
        if any("amount" not in refund and not refund.get("lines") for refund in self.refunds):
            return True
        if self.paid is None:
            return False
        lines = self.paid["lines"]
        every_piece = bool(lines) and all(self.pieces(o["product_id"], False) >= o["quantity"] for o in lines)
        return every_piece or self.whole_sum

    @property
    def counts(self) -> bool:
        """It is a purchase."""
        return self.paid is not None and not self.cancelled and not self.refunded

    @property
    def undone(self) -> bool:
        """Cancelled or refunded, whether its payment was seen or not."""
        return self.cancelled or self.refunded

    @property
    def goods_gone(self) -> bool:
        """Nothing of it is with the customer."""
        for refund in self.refunds:
            if (
                not refund.get("lines")
                and refund.get("goods_returned", True)
                and ("amount" not in refund or self.whole_sum)
            ):
                return True
        return self.paid is None or self.cancelled

    def left(self, product_type: str) -> tuple[int, bool, int]:
        """Of a product type: (units for own use, whether some is by subscription, pieces for own use)."""
        units = pieces = 0
        subscribed = False
        for line in self.paid["lines"] if self.paid and not self.goods_gone else ():
            here = line["quantity"] - self.pieces(line["product_id"], True)
            if line.get("product_type") != product_type or line.get("gift") or here <= 0:
                continue
            if line.get("subscription"):
                subscribed = True
            else:
                units += here * line.get("units", 1)
                pieces += here
        return units, subscribed, pieces


def orders_of(seen: Sequence[Event]) -> dict[str, Order]:
    """By id."""
    found: dict[str, Order] = {}
    for event in seen:
        name = event.get("order_id")
        if name is None or event["topic"] != "orders":
            continue
        order = found.get(name, Order(name, None, -1, None, ()))
        match event["type"]:
            case "OrderPaid":
                order = order._replace(paid=order.paid or event)
            case "OrderCancelled":
                order = order._replace(cancelled_at=max(order.cancelled_at, event["at"]))
            case "OrderReceived":
                order = order._replace(received_at=min(order.received_at or NEVER, event["at"]))
            case "OrderRefunded":
                order = order._replace(refunds=(*order.refunds, event))
        found[name] = order
    return found


# -- coupons


class Coupon(NamedTuple):
    """A coupon as all events together tell it."""

    coupon_id: str
    entry: str
    issued_at: int
    valid_from: int
    expires: int
    key: str
    issuer: str | None
    """The order that issued it."""
    redeemed_at: int | None
    revoked_at: int | None
    locked_at: int | None


def coupons_of(seen: Sequence[Event], orders: dict[str, Order]) -> list[Coupon]:
    """Those whose issue has been seen."""
    return [
        Coupon(
            name,
            event["event_id"],
            event["at"],
            terms.get("valid_from", event["at"]),
            terms.get("expires_at", NEVER),
            terms.get("pack_id", name),
            event.get("order_id"),
            *_fate(name, seen, orders),
        )
        for name, terms, event in _issues(seen)
    ]


def _issues(seen: Sequence[Event]) -> Iterator[tuple[str, Event, Event]]:
    for event in seen:
        if event["type"] == "CouponIssued":
            yield event["coupon_id"], event, event
        for terms in event.get("coupons_issued", ()):
            yield terms["coupon_id"], terms, event


def _fate(name: str, seen: Sequence[Event], orders: dict[str, Order]) -> tuple[int | None, int | None, int | None]:
    """(when it was redeemed, when it was revoked, since when it is locked)."""
    mine = [event for event in seen if event.get("coupon_id") == name]
    returned = max((e["at"] for e in mine if e["type"] == "CouponReturned"), default=-1)
    used = [(e["at"], e.get("order_id")) for e in mine if e["type"] == "CouponRedeemed"]
    used += [(e["at"], e["order_id"]) for e in seen if e["type"] == "OrderPaid" and name in e.get("coupons_used", ())]
    redeemed = [at for at, order in used if at > returned and not _undone(orders, order)]
    revoked = [e["at"] for e in mine if e["type"] == "CouponRevoked"]
    locked = [
        e["at"]
        for e in mine
        if e["type"] == "CouponLocked" and e["at"] > returned and not _undone(orders, e.get("order_id"))
    ]
    free = redeemed or revoked or not locked
    return min(redeemed, default=None), min(revoked, default=None), None if free else max(locked)


def _undone(orders: dict[str, Order], name: str | None) -> bool:
    return name in orders and orders[name].undone


# -- runs


class RunNow(NamedTuple):
    """An entry into a rule, as it stands by what has been seen."""

    rule: str
    entry: str
    """The id of the event by which it was entered."""
    due: int
    """When its first step is due."""
    ends: tuple[int, ...]
    """When it was ended; empty = it is alive."""
    taken_back: bool
    """What it was entered by has been undone."""
    expires: int = NEVER
    locked_at: int | None = None

    @property
    def locked(self) -> bool:
        """Whether what it is about cannot be used now."""
        return self.locked_at is not None

    @property
    def alive(self) -> bool:
        """Whether something may come of it."""
        return not self.ends and not self.taken_back


def runs_now(user: str, seen: Sequence[Event]) -> dict[tuple[str, str, str], RunNow]:
    """All entries, by (rule, key, id of the event of entry; a pack has one entry)."""
    orders = orders_of(seen)
    return dict([*_winback(user, seen, orders), *_replenishment(orders), *_coupon_unused(seen, orders)])


def _winback(
    user: str, seen: Sequence[Event], orders: dict[str, Order]
) -> Iterator[tuple[tuple[str, str, str], RunNow]]:
    """Every purchase, and the last one before our first event, starts a silence of sixty days."""
    purchases = [order.at for order in orders.values() if order.counts]
    entries = [(order.at, not order.counts) for order in orders.values() if order.paid]
    entries += [((e["last_order_at"], e["event_id"]), False) for e in seen if "last_order_at" in e]
    for (at, event_id), undone in entries:
        ends = tuple(later[0] for later in purchases if later > (at, event_id))
        yield ("winback", user, event_id), RunNow("winback", event_id, at + 60 * DAY, ends, undone)


def _replenishment(orders: dict[str, Order]) -> Iterator[tuple[tuple[str, str, str], RunNow]]:
    """Every product type of an order that runs out."""
    paid = [order for order in orders.values() if order.paid]
    for order in paid:
        assert order.paid is not None
        types = {o["product_type"] for o in order.paid["lines"] if not o.get("gift") and not o.get("subscription")}
        for name in sorted(types & intervals().keys()):
            units, _, _ = order.left(name)
            ends = tuple(o.at[0] for o in paid if o.at > order.at and any(o.left(name)[:2]))
            start = max(order.at[0], order.received_at or 0)
            due = start + intervals()[name] * units - 3 * DAY
            yield ("replenishment", name, order.at[1]), RunNow("replenishment", order.at[1], due, ends, units == 0)


def _coupon_unused(seen: Sequence[Event], orders: dict[str, Order]) -> Iterator[tuple[tuple[str, str, str], RunNow]]:
    """Every coupon, or pack of coupons, from its first issue."""
    coupons = coupons_of(seen, orders)
    for key in sorted({coupon.key for coupon in coupons}):
        pack = sorted((c for c in coupons if c.key == key), key=lambda c: (c.issued_at, c.entry))
        left = [c for c in pack if c.redeemed_at is None and c.revoked_at is None]
        first = min([c for c in left if c.locked_at is None] or left or pack, key=lambda c: (c.expires, c.coupon_id))
        half = 7 * DAY if first.expires == NEVER else min(7 * DAY, (first.expires - first.valid_from) // 2)
        ends = {c.redeemed_at for c in pack if c.redeemed_at is not None}
        revoked = [c.revoked_at for c in pack if c.revoked_at is not None]
        if revoked and not left and not ends:
            ends.add(max(revoked))
        undone = pack[0].issuer is not None and orders[pack[0].issuer].undone
        locks = [c.locked_at for c in left if c.locked_at is not None]
        locked = max(locks + revoked) if locks and len(locks) == len(left) else None
        yield (
            ("coupon_unused", key, key),
            RunNow("coupon_unused", pack[0].entry, first.valid_from + half, tuple(ends), undone, first.expires, locked),
        )
