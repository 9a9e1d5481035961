"""Whatever minute of the day something is due at, each step of each shipped rule can still go out in the shop as
shipped: after a night, as late in the morning as anybody's, and after the hour in which it waits for what is better."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace as with_fields

from app.core.ids import share_of
from app.core.row import Row
from app.core.rules import index
from app.rulebook import load
from schemas import events as ev
from schemas.triggers import Trigger
from tests.core.shop import DAY, HOUR, MINUTE, Desk, at, event, issued, line, paid, placed

SHIPPED = load()
#: Who is the last in the morning, of a thousand.
LAST = max((f"u-{n}" for n in range(1_000)), key=lambda user: share_of("jitter", user))
#: Every quarter of an hour, and what lies close to the ends of the night.
MINUTES = sorted({*range(0, 24 * 60, 15), *(n * 60 + more for n in (9, 21) for more in (-16, -1, 1, 16))})
MONTH = 30 * DAY


def _registered(when: int) -> list[ev.Event]:
    return [event(ev.UserRegistered, when)]


def _order(when: int) -> list[ev.Event]:
    return [paid("o-1", when, line())]


#: By rule: a life in which something happens at this instant, and all that the rule has to say comes of it.
LIVES: dict[str, Callable[[int], list[ev.Event]]] = {
    "activation_nudge": _registered,
    "anniversary": _registered,
    "at_risk": _order,
    "birthday": lambda when: [event(ev.ProfileUpdated, when, birthday="1990-05-04")],
    "browse_abandoned": lambda when: [event(ev.ProductViewed, when, product_id="p", category="baby", dwell_seconds=60)],
    "cart_abandoned": lambda when: [event(ev.CartUpdated, when, lines=(line(),))],
    "checkout_reminder": lambda when: [placed("o-1", when)],
    "coupon_expiring": lambda when: [issued("c-1", when, expires_at=when + MONTH)],
    "coupon_unused": lambda when: [issued("c-1", when, expires_at=when + MONTH)],
    "first_order_gift": lambda when: [*_registered(when - HOUR), *_order(when)],
    "first_order_nudge": lambda when: [*_registered(when), event(ev.UserLoggedIn, when + HOUR)],
    "post_purchase_offer": _order,  # where no night is known, and at once
    "reactivated": lambda when: [*_order(when - 4 * MONTH), paid("o-2", when)],
    "replenishment": _order,
    "repurchase_coupon": _order,
    "second_order_nudge": _order,
    "welcome_pack": _registered,
    "winback": _order,
}


def live(names: tuple[str, ...], minute: int, life: Callable[[int], list[ev.Event]]) -> list[Trigger]:
    """What goes out within the year to a user to whom this happens at this minute of a day."""
    desk = Desk(index({name: SHIPPED.rules[name] for name in names}, SHIPPED.policy))
    desk.row = Row(LAST)
    for one in life(at("03-10 00:00") + minute * MINUTE):
        desk.wait(one.occurred_at - 1).say(with_fields(one, user_id=LAST))
    return desk.wait(at("2027-03-09")).triggers


def test_no_rule_is_left_out() -> None:
    assert LIVES.keys() == SHIPPED.rules.keys()
    assert share_of("jitter", LAST) > 0.99


@pytest.mark.parametrize("name", LIVES)
def test_what_is_due_at_any_minute_can_go_out(name: str) -> None:
    steps = list(range(1, len(SHIPPED.rules[name].steps) + 1))
    lost = {}
    for minute in MINUTES:
        sent = [trigger.step for trigger in live((name,), minute, LIVES[name])]
        if sent != steps:
            lost[f"{minute // 60:02}:{minute % 60:02}"] = sent
    assert lost == {}


def test_a_coupon_of_a_week_is_named_once_at_least() -> None:
    """Due at night, `coupon_unused` comes to speak of it within three days of its end, which it leaves to
    `coupon_expiring`."""
    names, silent = ("coupon_unused", "coupon_expiring"), 0
    for minute in MINUTES:
        sent = [t.rule for t in live(names, minute, lambda when: [issued("c-1", when, expires_at=when + 7 * DAY)])]
        assert sent.count("coupon_expiring") == 2
        silent += "coupon_unused" not in sent
    assert 0 < silent < len(MINUTES)
