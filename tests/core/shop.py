"""What the tests of the core speak with: events in a line, a desk that serves one user, catalogues as text.

Times are noon-ish in Shanghai unless a test is about the night: `at("03-01 12:00")` is of 2026 and of that zone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.core import catalogue_file, engine, policy_file
from app.core.facts import Refused
from app.core.moment import Moment
from app.core.row import NEVER, Row, next_timer
from app.core.rules import Catalogue
from app.rulebook import load
from schemas import events as ev
from schemas.instant import parse_instant
from schemas.triggers import Decision, Retraction, Trigger
from tests.catalogues import THREE

SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
#: A shop that holds nothing back: what is tested beside the gates is tested without them.
OPEN = """
caps: []
arbitration: 0s
consent: {push: allowed, in_app: allowed, page: allowed, chat_card: allowed, sms: allowed, email: allowed, \
wechat_service: allowed}
offers: {winback_small: {kind: amount, value: "10.00", currency: CNY}, winback_large: {kind: gift}}
stages: []
"""
NO_NIGHT = 'quiet_hours: {from: "00:00", until: "00:00"}\n'
INTERVALS = "milk_powder: 20\ndaily_goods: 30\n"

_numbers = itertools.count(1)


def at(text: str) -> int:
    """'03-01 12:00[:05]' of 2026 in Shanghai, or RFC 3339."""
    if "T" in text:
        return parse_instant(text)
    day, _, time = text.partition(" ")
    time = time or "12:00"
    day = day if len(day) > 5 else f"2026-{day}"
    return parse_instant(f"{day}T{time if time.count(':') == 2 else time + ':00'}+08:00")


def _when(when: str | int) -> int:
    return when if isinstance(when, int) else at(when)


def _id() -> str:
    return f"e-{next(_numbers):04}"


def line(product_type: str = "milk_powder", quantity: int = 1, **fields: Any) -> ev.Line:
    """A line of an order; the product is named after its type."""
    return ev.Line(**{"product_id": f"p-{product_type}", "product_type": product_type, "quantity": quantity, **fields})


def event(kind: type[Any], when: str | int, **fields: Any) -> Any:
    """Any event of user u-1, with an id of its own."""
    return kind(**{"event_id": _id(), "user_id": "u-1", "occurred_at": _when(when), **fields})


def placed(order: str, when: str | int, *lines: ev.Line, total: str = "100.00", **fields: Any) -> ev.OrderPlaced:
    return _order(ev.OrderPlaced, order, when, lines, total, fields)


def paid(order: str, when: str | int, *lines: ev.Line, total: str = "100.00", **fields: Any) -> ev.OrderPaid:
    return _order(ev.OrderPaid, order, when, lines, total, fields)


def _order(kind: Any, order: str, when: str | int, lines: tuple[ev.Line, ...], total: str, fields: Any) -> Any:
    return event(
        kind, when, **{"order_id": order, "currency": "CNY", "total": Decimal(total), "lines": lines, **fields}
    )


def cancelled(order: str, when: str | int, **fields: Any) -> ev.OrderCancelled:
    return event(ev.OrderCancelled, when, order_id=order, **fields)


def refunded(order: str, when: str | int, amount: str | None = None, **fields: Any) -> ev.OrderRefunded:
    if amount is not None:
        fields = {"currency": "CNY", **fields, "amount": Decimal(amount)}
    if "lines" in fields:
        fields["lines"] = tuple(ev.LineQuantity(product_id=f"p-{t}", quantity=n) for t, n in fields["lines"].items())
    return event(ev.OrderRefunded, when, order_id=order, **fields)


def received(order: str, when: str | int) -> ev.OrderReceived:
    return event(ev.OrderReceived, when, order_id=order)


def terms(coupon: str, value: str | None = "20.00", **fields: Any) -> ev.IssuedCoupon:
    """A coupon that an order issues."""
    return ev.IssuedCoupon(coupon_id=coupon, **_worth(value), **_instants(fields))


def issued(coupon: str, when: str | int, value: str | None = "20.00", **fields: Any) -> ev.CouponIssued:
    return event(ev.CouponIssued, when, coupon_id=coupon, **_worth(value), **_instants(fields))


def _worth(value: str | None) -> dict[str, Any]:
    return {} if value is None else {"value": Decimal(value), "currency": "CNY"}


def _instants(fields: dict[str, Any]) -> dict[str, Any]:
    return {n: _when(v) if n in ("valid_from", "expires_at") and v is not None else v for n, v in fields.items()}


def redeemed(coupon: str, when: str | int, **fields: Any) -> ev.CouponRedeemed:
    return event(ev.CouponRedeemed, when, coupon_id=coupon, **fields)


def revoked(coupon: str, when: str | int) -> ev.CouponRevoked:
    return event(ev.CouponRevoked, when, coupon_id=coupon)


def locked(coupon: str, when: str | int, **fields: Any) -> ev.CouponLocked:
    return event(ev.CouponLocked, when, coupon_id=coupon, **fields)


def returned(coupon: str, when: str | int, **fields: Any) -> ev.CouponReturned:
    return event(ev.CouponReturned, when, coupon_id=coupon, **fields)


def baseline(when: str | int, registered: str, orders: int, last: str | None = None, **fields: Any) -> Any:
    if last is not None:
        fields["last_order_at"] = at(last)
    return event(ev.CustomerBaseline, when, registered_at=at(registered), orders=orders, **fields)


# -- catalogues ------------------------------------------------------------------------------------------------------


def rule_text(**changes: Any) -> str:
    """A rule file that is right; each change replaces a setting, None takes it out."""
    settings = {
        "rule": "a_rule",
        "version": "1",
        "family": "winback",
        "about": "A rule of a test.",
        "enter": "{on: OrderPaid, key: user}",
        "ends": "[{on: OrderPaid}]",
        "steps": "[{after: 10d}]",
        "send": "{action: contact, channels: [push], priority: 10, expires_after: 36h}",
        "reason": "Because.",
        "reentry": "after_exit",
    } | changes
    return "".join(f"{name}: {value}\n" for name, value in settings.items() if value is not None)


def catalogue(*rules: str, shop: str = NO_NIGHT, intervals: str = INTERVALS, gates: str = OPEN) -> Catalogue:
    """A catalogue of these rule texts; a plain name is one of the three first rules."""
    texts = {
        f"{number}.yaml": text if "\n" in text else Path(THREE, f"{text}.yaml").read_text()
        for number, text in enumerate(rules)
    }
    return catalogue_file.read(texts, policy_file.read(gates + shop, intervals))


SHOP = load(THREE)
#: The shipped rules in a shop without a night, so that what is due goes out when it is due.
DAYLIGHT = catalogue("coupon_unused", "replenishment", "winback", intervals=(THREE / "intervals.yaml").read_text())


# -- one user --------------------------------------------------------------------------------------------------------


class Desk:
    """The engine with one user: events in whatever order they arrive, and time that passes when it is told to.

    Nothing is too late before time has passed, so that any order of arrival is allowed.
    """

    def __init__(self, catalogue: Catalogue = DAYLIGHT, **moment: Any) -> None:
        self.catalogue = catalogue
        self.row = Row("u-1")
        self.now = 0
        self.floor = 0
        self.moment = {"sends_from": {}, "enters_from": {}, **moment}
        self.trace: list[object] = []
        self.refused: list[Refused] = []

    def say(self, *events: ev.Event) -> Desk:
        """These events arrive. Merged time does not move: whatever happened earlier may still come."""
        for each in events:
            self.now = max(self.now, each.occurred_at)
            after = engine.step(self.row, each, self._moment(self.now, self.floor))
            if isinstance(after, Refused):
                self.refused.append(after)
            else:
                self.row = after
        return self

    def wait(self, until: str | int) -> Desk:
        """Timers due by then fire, each at its instant."""
        until = _when(until)
        while (due := next_timer(self.row)) <= until:
            self.row = engine.tick(self.row, due, self._moment(due, due))
        self.now = self.floor = max(self.now, until)
        return self

    def _moment(self, now: int, floor: int) -> Moment:
        return Moment(now, floor, self.catalogue, trace=self.trace, **self.moment)

    @property
    def triggers(self) -> list[Trigger]:
        return [item for item in self.trace if isinstance(item, Trigger)]

    @property
    def retractions(self) -> list[Retraction]:
        return [item for item in self.trace if isinstance(item, Retraction)]

    @property
    def decisions(self) -> list[Decision]:
        return [item for item in self.trace if isinstance(item, Decision)]

    @property
    def tallies(self) -> Counter[tuple[str, ...]]:
        return Counter(item for item in self.trace if isinstance(item, tuple))

    @property
    def sent(self) -> list[tuple[str, int, str]]:
        """What went out: (rule, step, when it was decided, as '03-01 12:00')."""
        return [(t.rule, t.step, t.decided_at[5:16].replace("T", " ")) for t in self.triggers]

    @property
    def timers(self) -> list[tuple[str, str, int, int]]:
        """(rule, key, step, instant) of all that is pending."""
        return sorted(
            (run.rule, run.key, run.step + 1, run.timer_at)
            for runs in self.row.runs.values()
            for run in runs
            if not run.ends and run.timer_at < NEVER
        )


def whatever_arrives_first(*events: ev.Event, until: str, catalogue: Catalogue = DAYLIGHT) -> set[tuple[Any, ...]]:
    """What is sent until then, which must be the same for every order in which the events arrive."""
    outcomes = []
    for order in itertools.permutations(events):
        desk = Desk(catalogue).say(*order).wait(until)
        outcomes.append({(t.rule, t.entry.key, t.step, t.due_at, t.reason) for t in desk.triggers})
        assert outcomes[-1] == outcomes[0], [f"{type(e).__name__} {e.event_id}" for e in order]
    return outcomes[0]
