"""A seed becomes a story: users, what they do, when it arrives, and what breaks on the way.

The story is a flat list of operations, so that a failing one can be made shorter by leaving operations out. Times
prefer the edges: exactly when something is due, a microsecond before and after, the ends of the night.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from schemas.events import EVENT_TYPES
from tests.simulation.facts import DAY, HOUR, NEVER

SECOND = 1_000_000
MINUTE = 60 * SECOND
START = 1_767_225_600 * SECOND
"""2026-01-01T00:00:00Z."""
ZONES = ("Asia/Shanghai", "America/New_York", "Europe/London", "Australia/Lord_Howe")
TYPES = ("milk_powder", "daily_goods", "diapers", "garden_gnome")

Event = dict[str, Any]


class Op(NamedTuple):
    """One thing that happens to the deployment. `what` names it, the rest is its own."""

    what: str
    """send, garbage, marker, again, clock, run, cut, pause, resume, crash, rebalance."""
    event: Event | None = None
    number: int = 0
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = {k: v for k, v in (self.event or {}).items() if k != "topic"}
        return " ".join(str(part) for part in (self.what, told or "", self.number or "", *self.words) if part != "")


class Story(NamedTuple):
    """A deployment and all that happens to it."""

    seed: int
    clock: str
    lateness: int
    partitions: int
    end: int
    ops: tuple[Op, ...]


def story_of(seed: int) -> Story:
    """The story of a seed: always the same one. It speaks of what the oracle understands: orders, coupons, profiles."""
    return _Author(seed).write()


def full_story_of(seed: int) -> Story:
    """A story of all kinds of events, for the whole catalogue under CLOCK=events."""
    return _Author(seed, full=True).write()


class _Author:
    def __init__(self, seed: int, full: bool = False) -> None:
        self.seed = seed
        self.full = full
        self.dice = random.Random(seed)
        self.clock = "events" if full else self.dice.choice(("events", "events", "wall"))
        if self.clock == "events":
            self.lateness = self.dice.choice((0, 0, 5 * SECOND, HOUR, 2 * DAY))
        else:
            self.lateness = self.dice.choice((0, 5 * SECOND, 5 * SECOND, HOUR))
        self.span = self.dice.choice((40, 100, 200)) * DAY
        self.events: list[Event] = []
        self.edges: list[int] = []
        self.coupons = 0
        self.users: list[str] = []

    def write(self) -> Story:
        for number in range(self.dice.randint(1, 3)):
            self.users.append(f"u-{self.dice.randint(1, 99)}-{number}")
            self._user(self.users[-1])
        self.events.sort(key=lambda e: (e["at"], e["event_id"]))
        arriving = sorted(((self._arrival(e["at"]), e["event_id"], e) for e in self.events), key=lambda a: a[:2])
        ops = self._ops_by_events(arriving) if self.clock == "events" else self._ops_by_wall(arriving)
        end = max([START + self.span, *(at for at, _, _ in arriving)]) + self.lateness + 100 * DAY
        return Story(self.seed, self.clock, self.lateness, self.dice.choice((1, 1, 2, 3)), end, tuple(ops))

    # -- chances

    def _often(self, share: float) -> bool:
        return self.dice.random() < share

    def _arrival(self, at: int) -> int:
        """When an event arrives: mostly at once, often within the lateness, seldom much later, sometimes just after
        something that it should have prevented."""
        throw = self.dice.random()
        if throw < 0.6:
            return at
        if throw < 0.85:
            return at + self.dice.randint(0, max(self.lateness, 1))
        edges = [edge for edge in self.edges if at <= edge < at + 20 * DAY]
        if throw < 0.92 and edges:
            return self.dice.choice(edges) + self.lateness + self.dice.randint(0, 40 * HOUR)
        return at + self.dice.choice((MINUTE, HOUR, 12 * HOUR, DAY, 5 * DAY, 30 * DAY)) + self.dice.randint(0, HOUR)

    def _time(self, after: int, within: int | None = None) -> int:
        """An instant after another one: often on an edge."""
        last = START + self.span
        if within is not None:
            last = min(last, after + within)
        edges = [edge for edge in self.edges if after < edge <= last]
        if edges and self._often(0.4):
            exact = (-1, 0, 0, 1, -self.lateness, self.lateness, self.lateness + 1)
            shift = self.dice.choice((*exact, SECOND, HOUR, self.dice.randint(0, 14 * HOUR)))
            return max(after + 1, self.dice.choice(edges) + shift)
        at = self.dice.randint(after + 1, max(last, after + 2))
        if self._often(0.3):
            at = at // HOUR * HOUR + self.dice.choice((-1, 0, 1))
        return max(at, after + 1)

    # -- what users do

    def _tell(self, kind: str, user: str, at: int, **fields: Any) -> Event:
        topic = EVENT_TYPES[kind].TOPIC
        number = self.dice.randint(10_000, 99_999)  # ids are in no order, as those of upstream services
        event = {"event_id": f"e-{number}-{len(self.events)}", "type": kind, "user_id": user, "at": at, **fields}
        self.events.append({**event, "topic": topic})
        return self.events[-1]

    def _user(self, user: str) -> None:
        first = START + self.dice.randint(0, 10 * DAY)
        if self._often(0.3):
            self._tell("CustomerBaseline", user, first, **self._baseline(first))
        for _ in range(self.dice.choice((0, 0, 1, 2))):
            self._tell("ProfileUpdated", user, self._time(START), time_zone=self.dice.choice(ZONES))
        for _ in range(self.dice.randint(0, 3)):
            self._tell("UserLoggedIn", user, self._time(START))
        for _ in range(self.dice.randint(3, 20) if self.full else 0):
            self._anything(user)
        coupons = [self._coupon(user) for _ in range(self.dice.randint(0, 3))]
        if self._often(0.2):
            coupons += self._pack(user)
        at = first
        for number in range(self.dice.randint(0, 5)):
            at = self._time(at, within=70 * DAY)
            coupons += self._order(user, f"o-{user}-{number}", at, coupons)
        for coupon in coupons:
            self._fate(user, coupon)

    def _anything(self, user: str) -> None:
        """What only the whole catalogue listens to."""
        thing, order = self.dice.choice(TYPES), f"o-{user}-{self.dice.randint(0, 2)}"
        line = {"product_id": "p-1", "product_type": thing, "category": thing, "quantity": 1}
        channel = self.dice.choice(("push", "sms", "email", "wechat_service"))
        kind, fields = self.dice.choice(
            (
                ("UserRegistered", {}),
                ("UserLoggedIn", {}),
                ("UserCheckedIn", {}),
                ("ProductViewed", {"product_id": "p-1", "category": thing, "dwell_seconds": 50.0}),
                ("ProductViewed", {"product_id": "p-2", "product_type": thing}),
                ("CartUpdated", {"lines": [line]}),
                ("CartUpdated", {"lines": []}),
                ("CheckoutStarted", {"lines": [line], "order_id": order}),
                ("OrderPlaced", {"order_id": order, "currency": "CNY", "total": "90.00", "lines": [line]}),
                ("AfterSaleOpened", {"order_id": order}),
                ("AfterSaleClosed", {"order_id": order}),
                ("ConsentChanged", {"channel": channel, "granted": self._often(0.7), "quota": 2}),
                ("MessageSent", {"channel": channel}),
                ("Unsubscribed", {"channel": channel}),
                ("ProfileUpdated", {"birthday": "--03-01"}),
                ("UserErased" if self._often(0.2) else "UserLoggedIn", {}),
                ("UserMerged", {"into": self._another()}) if self._often(0.2) else ("UserCheckedIn", {}),
            )
        )
        self._tell(kind, user, self._time(START), **fields)

    def _another(self) -> str:
        """Whom an account is merged into; no throw of the dice, so that the rest of a seed's story stays as it was."""
        others = [*self.users[:-1], "u-of-another"]
        return others[len(self.events) % len(others)]

    def _baseline(self, first: int) -> dict[str, Any]:
        if self._often(0.2):
            return {"registered_at": first - 200 * DAY, "orders": 0}
        last = first - self.dice.randint(0, 80) * DAY - self.dice.randint(0, DAY)
        self.edges += [last + 60 * DAY, last + 90 * DAY]
        return {"registered_at": last - 100 * DAY, "orders": self.dice.randint(1, 9), "last_order_at": last}

    def _terms(self, user: str, at: int) -> dict[str, Any]:
        self.coupons += 1
        terms: dict[str, Any] = {"coupon_id": f"c-{user}-{self.dice.randint(10, 99)}-{self.coupons}"}
        if self._often(0.3):
            terms["valid_from"] = at + self.dice.randint(-5, 10) * DAY
        valid_from = terms.get("valid_from", at)
        if self._often(0.6):
            terms["expires_at"] = valid_from + self.dice.choice((4, 6, 8, 14, 20, 40)) * DAY + self.dice.randint(0, 2)
        span = terms.get("expires_at", valid_from + 99 * DAY) - valid_from
        due = valid_from + min(7 * DAY, span // 2)
        self.edges += [due, due + 10 * DAY, valid_from + span]
        return terms

    def _coupon(self, user: str) -> dict[str, Any]:
        at = self._time(START)
        event = self._tell("CouponIssued", user, at, **self._terms(user, at))
        return {"coupon_id": event["coupon_id"], "at": at}

    def _pack(self, user: str) -> list[dict[str, Any]]:
        """Coupons of one pack, each issued by an event of its own."""
        at, pack, coupons = self._time(START), f"k-{user}-{len(self.events)}", []
        for _ in range(self.dice.randint(2, 3)):
            event = self._tell("CouponIssued", user, at, **self._terms(user, at), pack_id=pack)
            coupons.append({"coupon_id": event["coupon_id"], "at": at})
            at += self.dice.choice((0, 0, 1, SECOND, 2 * DAY))
        return coupons

    def _order(self, user: str, order: str, at: int, coupons: list[dict[str, Any]]) -> list[dict[str, Any]]:
        lines = [
            {
                "product_id": f"p-{number}",
                "product_type": (name := self.dice.choice(TYPES)),
                "quantity": self.dice.randint(1, 3),
                "units": self.dice.choice((1, 1, 2)),
                **self.dice.choice(({}, {}, {}, {}, {"gift": True}, {"subscription": True})),
            }
            for number in range(self.dice.randint(1, 3))
        ]
        free = [c for c in coupons if c["at"] < at and c.get("spent", 0) < at]
        used = [c["coupon_id"] for c in free if self._often(0.3)]
        issued = [self._terms(user, at) for _ in range(self.dice.choice((0, 0, 1, 2)))]
        if len(issued) > 1 and self._often(0.5):
            issued = [{**terms, "pack_id": f"k-{order}"} for terms in issued]
        content = {"order_id": order, "currency": "CNY", "total": "90.00", "lines": lines}
        if self._often(0.3):
            self._tell("OrderPlaced", user, at - self.dice.randint(1, 3 * HOUR), **content)
        self._tell("OrderPaid", user, at, **content, coupons_used=used, coupons_issued=issued)
        self.edges += [at + 60 * DAY, at + 90 * DAY]
        intervals = {"milk_powder": 20, "daily_goods": 30, "diapers": 14}
        for name in {str(line["product_type"]) for line in lines} & intervals.keys():
            units = sum(line["quantity"] * line["units"] for line in lines if line["product_type"] == name)
            self.edges.append(at + (intervals[name] * units - 3) * DAY)
        undone_at = self._aftermath(user, order, at, lines, used)
        for coupon in coupons:
            if coupon["coupon_id"] in used:  # an order that is undone sets its coupons free
                coupon["spent"] = undone_at or NEVER
        return [{"coupon_id": terms["coupon_id"], "at": at} for terms in issued]

    def _aftermath(self, user: str, order: str, at: int, lines: list[dict[str, Any]], used: list[str]) -> int | None:
        """What becomes of an order; when it was undone as a whole, if it was."""
        for _ in range(self.dice.choice((0, 0, 1, 1, 2))):
            self._tell("OrderReceived", user, self._time(at, within=9 * DAY), order_id=order)
        when = self._time(at, within=70 * DAY)
        undone = self._refunds(user, order, when, lines)
        for coupon in used:
            if self._often(0.5):
                self._tell("CouponRedeemed", user, at, coupon_id=coupon, order_id=order)
            if undone and self._often(0.5):
                self._tell("CouponReturned", user, when, coupon_id=coupon, order_id=order)
            if self._often(0.3):
                lock = at - self.dice.randint(1, 20 * HOUR)
                self._tell("CouponLocked", user, lock, coupon_id=coupon, order_id=order)
        return when if undone else None

    def _refunds(self, user: str, order: str, when: int, lines: list[dict[str, Any]]) -> bool:
        """Whether the order was undone as a whole."""
        throw = self.dice.random()
        if throw < 0.1:
            self._tell("OrderCancelled", user, when, order_id=order)
        elif throw < 0.2:
            self._tell("OrderRefunded", user, when, order_id=order, goods_returned=self._often(0.7))
        elif throw < 0.25:
            for number, amount in enumerate(("40.00", "50.00")):
                fields = {"refund_id": f"r-{order}-{number}", "amount": amount, "currency": "CNY"}
                self._tell("OrderRefunded", user, when + number * HOUR, order_id=order, **fields)
        elif throw < 0.35:  # without an id of its own, so only its event id tells it from a second one
            self._tell("OrderRefunded", user, when, order_id=order, amount="45.00", currency="CNY")
        elif throw < 0.55:
            goods = self._often(0.8)
            for line in lines:
                if self._often(0.6):
                    back = [{"product_id": line["product_id"], "quantity": self.dice.randint(1, line["quantity"])}]
                    self._tell("OrderRefunded", user, when, order_id=order, lines=back, goods_returned=goods)
        return throw < 0.25

    def _fate(self, user: str, coupon: dict[str, Any]) -> None:
        """What becomes of a coupon that no order used."""
        if "spent" in coupon or self._often(0.4):
            return
        name, at = coupon["coupon_id"], coupon["at"]
        for kind in self.dice.choice(
            (
                ("CouponRedeemed",),
                ("CouponRevoked",),
                ("CouponLocked", "CouponReturned"),
                ("CouponLocked", "CouponRedeemed"),
                ("CouponLocked", "CouponReturned", "CouponRedeemed"),
                ("CouponRedeemed", "CouponReturned"),
                ("CouponLocked",),
                ("CouponLocked", "OrderCancelled"),
            )
        ):
            at = self._time(at, within=20 * DAY)
            thing = {"order_id": f"o-of-{name}"} if kind == "OrderCancelled" or self._often(0.5) else {}
            self._tell(kind, user, at, **thing, **({} if kind == "OrderCancelled" else {"coupon_id": name}))

    # -- what happens to the deployment

    def _ops_by_events(self, arriving: list[tuple[int, str, Event]]) -> list[Op]:
        """Under CLOCK=events nothing but the logs counts, so anything may happen at any moment."""
        ops: list[Op] = []
        for at, _, event in arriving:
            ops.append(Op("send", event))
            if self._often(0.25):
                ops.append(Op("clock", number=at - self.dice.choice((0, self.lateness, self.lateness, DAY))))
            ops += self._mishaps()
            if self._often(0.2):
                ops.append(Op("pause", words=(self.dice.choice(("orders", "coupons", "logins", "profiles")),)))
            if self._often(0.2):
                ops.append(Op("resume"))
            if self._often(0.3):
                ops.append(Op("run"))
            if self._often(0.2):
                ops.append(Op("crash", words=(self.dice.choice(("before", "inside", "inside", "after", "after")),)))
        return ops

    def _mishaps(self) -> list[Op]:
        """What upstream services do to us, and how much is taken at a time."""
        ops: list[Op] = []
        if self._often(0.15):
            ops.append(Op("again", number=self.dice.choice((1, 1, 2, 3, 5, 8, 20))))
        if self._often(0.05):
            ops.append(Op("garbage", words=(self.dice.choice(("orders", "coupons", "browse")),)))
        if self._often(0.05):
            topics = ("orders", "coupons", "browse") if self.clock == "events" else ("browse", "logins")
            ops.append(Op("marker", words=(self.dice.choice(topics),)))
        if self._often(0.1):
            ops += [Op("run"), Op("rebalance")] if self.clock == "events" else [Op("rebalance")]
            ops += [Op("again", number=number) for number in range(self.dice.randint(0, 4), 0, -1)]
        if self._often(0.1):
            ops.append(
                Op("cut", number=self.dice.choice((1, 1, 2, 3, 7, 5000)), words=(str(self.dice.choice((1, 2, 5000))),))
            )
        return ops

    def _ops_by_wall(self, arriving: list[tuple[int, str, Event]]) -> list[Op]:
        """Under CLOCK=wall: the clock moves, what has arrived is sent, something breaks, and the worker catches up,
        save for inputs that are paused."""
        ops: list[Op] = []
        now, left = START, list(arriving)
        paused = False
        while left or now < START + self.span + 20 * DAY:
            now = self._next_look(now)
            ops.append(Op("clock", number=now))
            while left and left[0][0] <= now:
                ops.append(Op("send", left.pop(0)[2]))
                ops += self._mishaps()
            if self._often(0.15):
                paused = not paused
                ops.append(Op("pause", words=(self.dice.choice(("orders", "coupons")),)) if paused else Op("resume"))
            if self._often(0.3):
                ops.append(Op("crash", words=(self.dice.choice(("before", "inside", "after")),)))
            ops.append(Op("run"))
        return ops

    def _next_look(self, now: int) -> int:
        throw = self.dice.random()
        edges = sorted(edge for edge in self.edges if edge + self.lateness >= now)
        if throw < 0.5 and edges:
            return max(now, edges[0] + self.lateness + self.dice.choice((-1, 0, 0, 1, HOUR)))
        if throw < 0.9:
            return now + self.dice.randint(1, 36 * HOUR)
        return now + self.dice.randint(1, 20) * DAY
