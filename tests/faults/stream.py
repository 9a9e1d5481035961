"""A shop's days without end: what its users do, made from a seed, a day at a time, as records ready to be published.

The same seed makes the same days. Users buy, use coupons, log in, send goods back; some events come twice, some days
late, some are broken. Each day closes with ClockAdvanced on every partition of every input, so that time moves on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import orjson

from app import processor
from schemas.instant import DAY, HOUR, MINUTE, format_instant, parse_instant

FIRST_DAY = parse_instant("2012-01-01T00:00:00Z")
_ZONES = ("Asia/Shanghai", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe")
_TYPES = ("milk_powder", "daily_goods", "diapers", "coffee", "cat_food", "eggs")
_SHOP = ZoneInfo("Asia/Shanghai")


def partition_of(key: bytes, partitions: int) -> int:
    """Where Java's and aiokafka's producers put a key."""
    return processor.partition_of(key, partitions, "murmur2")


class Message(NamedTuple):
    """A record to publish, to `partition` of the logical topic `input`."""

    input: str
    partition: int
    key: bytes | None
    value: bytes


class Day(NamedTuple):
    """`events` in the order in which they are published, then `clocks`: nothing older than `ends` follows."""

    ends: int
    events: list[Message]
    clocks: list[Message]


@dataclass
class _User:
    name: str
    gap: float
    """Mean days between two orders."""
    partition: int
    next_order: float = 0.0
    coupons: list[str] = field(default_factory=list)
    order: str | None = None


class Shop:
    """`days()` goes on for ever; `quiet(n)` is n more days without events, so that what is owed is due."""

    def __init__(self, seed: int, inputs: tuple[str, ...], partitions: int, users: int) -> None:
        self._dice = random.Random(seed)
        self._inputs, self._partitions = inputs, partitions
        self._number = 0
        self._day = FIRST_DAY
        self._held: list[tuple[int, Message]] = []
        """Events that will be published late, with the day on which they are."""
        self._silent = ""
        self._users = [self._user(number) for number in range(users)]

    def _user(self, number: int) -> _User:
        name = f"u{number}"
        gap = self._dice.choice((4, 12, 25, 45, 80))
        return _User(name, gap, partition_of(name.encode(), self._partitions), self._dice.uniform(0, gap))

    def read_by(self, inputs: tuple[str, ...], silent: str = "") -> None:
        """From now on these are the inputs that there are; on a silent one nothing comes but ClockAdvanced."""
        self._inputs, self._silent = inputs, silent

    def days(self) -> Iterator[Day]:
        """One day after the other."""
        while True:
            yield self._make_day(self._users)

    def quiet(self, days: int) -> Iterator[Day]:
        """What was held back comes late, and time passes."""
        for _ in range(days):
            yield self._make_day([])

    def _make_day(self, users: list[_User]) -> Day:
        found: list[tuple[int, Message]] = []
        for user in users:
            for at, topic, event in self._acts(user):
                if topic in self._inputs and topic != self._silent:
                    found.append((at, self._message(user, topic, at, event)))
        found.sort(key=lambda item: item[0])
        late = [message for day, message in self._held if day <= self._day]
        self._held = [(day, message) for day, message in self._held if day > self._day]
        events: list[Message] = []
        for _, message in found:
            self._publish(message, events)
        for message in late:
            events.insert(self._dice.randint(0, len(events)), message)
        self._day += DAY
        clock = orjson.dumps({"type": "ClockAdvanced", "occurred_at": self._day // 1000})
        clocks = [Message(name, p, None, clock) for name in self._inputs for p in range(self._partitions)]
        return Day(self._day, events, clocks)

    def _publish(self, message: Message, events: list[Message]) -> None:
        """Most once and at once; some twice, some broken, some days late."""
        dice = self._dice.random()
        if dice < 0.01:
            self._held.append((self._day + self._dice.randint(1, 4) * DAY, message))
            return
        events.append(message)
        if dice < 0.03:
            self._held.append((self._day + self._dice.randint(0, 2) * DAY, message))
        elif dice < 0.04:
            broken = (b"{", b"[1]", message.value.replace(b'"event_id"', b'"id"'), b'{"type":"Wow","user_id":"u1"}')
            events.append(message._replace(value=self._dice.choice(broken)))

    def _message(self, user: _User, input: str, at: int, event: dict[str, Any]) -> Message:
        self._number += 1
        body = {"event_id": f"e{self._number}", "user_id": user.name, "occurred_at": format_instant(at, _SHOP), **event}
        return Message(input, user.partition, user.name.encode(), orjson.dumps(body))

    # ---------------------------------------------------------------------------------------------- what a user does

    def _acts(self, user: _User) -> Iterator[tuple[int, str, dict[str, Any]]]:
        dice, noon = self._dice, self._day + 12 * HOUR
        if self._day == FIRST_DAY or dice.random() < 0.0003:
            yield from self._begin(user)
        if dice.random() < 0.3:
            yield self._some_time(), "logins", {"type": "UserLoggedIn", "device": "phone"}
        if dice.random() < 0.1:
            yield from self._browse()
        user.next_order -= 1
        if user.next_order <= 0:
            user.next_order = dice.expovariate(1 / user.gap) + 0.5
            yield from self._order(user)
        elif user.order and dice.random() < 0.02:
            yield self._some_time(), "orders", {"type": "OrderRefunded", "order_id": user.order}
            user.order = None
        if dice.random() < 0.05:
            coupon = self._coupon(noon)
            user.coupons.append(coupon["coupon_id"])
            yield noon, "coupons", {"type": "CouponIssued", **coupon}
        if user.coupons and dice.random() < 0.04:
            what = dice.choice(("CouponRedeemed", "CouponRevoked", "CouponLocked", "CouponReturned"))
            coupon_id = dice.choice(user.coupons)
            if what in ("CouponRedeemed", "CouponRevoked"):
                user.coupons.remove(coupon_id)
            yield self._some_time(), "coupons", {"type": what, "coupon_id": coupon_id}
        user.coupons = user.coupons[-6:]

    def _begin(self, user: _User) -> Iterator[tuple[int, str, dict[str, Any]]]:
        dice, at = self._dice, self._day + MINUTE
        yield at, "profiles", {"type": "UserErased"}
        yield at + MINUTE, "logins", {"type": "UserRegistered"}
        birthday = f"--{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"
        profile = {"type": "ProfileUpdated", "time_zone": dice.choice(_ZONES), "birthday": birthday}
        yield at + 2 * MINUTE, "profiles", profile
        if dice.random() < 0.5:
            consent = {"type": "ConsentChanged", "channel": "sms", "granted": dice.random() < 0.7}
            yield at + 3 * MINUTE, "profiles", consent
        user.coupons, user.order = [], None

    def _browse(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        dice, at, kind = self._dice, self._some_time(), self._dice.choice(_TYPES)
        seen = {"product_id": f"p{kind}", "product_type": kind, "category": kind}
        yield at, "browse", {"type": "ProductViewed", **seen, "dwell_seconds": dice.choice((5, 50))}
        if dice.random() < 0.4:
            lines = [{**seen, "quantity": 1, "unit_price": "43.00"}]
            yield at + 5 * MINUTE, "browse", {"type": "CartUpdated", "currency": "CNY", "lines": lines}

    def _some_time(self) -> int:
        # Whole minutes: many events share an instant, on several inputs.
        return self._day + self._dice.randrange(24 * 60) * MINUTE

    def _order(self, user: _User) -> Iterator[tuple[int, str, dict[str, Any]]]:
        dice, at = self._dice, self._some_time()
        order: dict[str, Any] = {
            "type": "OrderPaid", "order_id": f"o{self._number}", "currency": "CNY", "total": "258.00",
            "lines": [
                {"product_id": f"p{kind}", "product_type": kind, "quantity": dice.randint(1, 3), "unit_price": "43.00"}
                for kind in dice.sample(_TYPES, dice.randint(1, 3))
            ],
        }  # fmt: skip
        if user.coupons and dice.random() < 0.5:
            order["coupons_used"] = [user.coupons.pop()]
        if dice.random() < 0.3:
            coupon = self._coupon(at)
            user.coupons.append(coupon["coupon_id"])
            order["coupons_issued"] = [coupon]
        user.order = order["order_id"]
        if dice.random() < 0.3:
            placed = {name: value for name, value in order.items() if name != "coupons_issued"}
            yield at - 30 * MINUTE, "orders", {**placed, "type": "OrderPlaced"}
            if dice.random() < 0.3:
                return  # and never paid
        yield at, "orders", order

    def _coupon(self, at: int) -> dict[str, Any]:
        self._number += 1
        lasts = self._dice.choice((10, 20, 30, 60)) * DAY
        return {
            "coupon_id": f"c{self._number}", "kind": "amount", "value": "20.00", "currency": "CNY",
            "expires_at": format_instant(at + lasts, _SHOP),
        }  # fmt: skip
