"""What happened to a user, whatever the order in which it arrived: events become facts of the row.

Nothing here knows a rule. An event changes orders, coupons and profile once (by their own ids and states, even when
the event ledger has forgotten it) and yields happenings, which rules listen to, and reversals, which take back what an
order had started or ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from app.core import visits
from app.core.facts import coupons, orders, profile
from app.core.facts.coupons import freed_by, least_coupon, let_coupon_go
from app.core.facts.groups import groups_of, left_of
from app.core.facts.orders import in_its_currency, with_returns
from app.core.facts.profile import birthday_named
from app.core.facts.summaries import (
    MAX_FORGOTTEN,
    age_of,
    cases_of,
    counted,
    is_forgotten,
    least_order,
    let_lines_go,
    summarise,
)
from app.core.happenings import Facts, Group, Happening, Refused, Reversal, happening_of
from app.core.row import Row
from schemas import events as ev

#: Topics whose events are acts of the user: somebody is there.
_OF_THE_USER = frozenset({"orders", "logins", "browse"})
#: And those among them that the shop does, or time: nobody was there.
_OF_THE_SHOP = (ev.OrderShipped, ev.OrderReceived, ev.OrderCancelled, ev.OrderRefunded, ev.AfterSaleClosed)

HANDLERS: dict[type[ev.Event], Callable[[Row, Any], Facts | Refused]] = {
    **orders.HANDLERS,
    **coupons.HANDLERS,
    **profile.HANDLERS,
    ev.CartUpdated: visits.cart_updated,
    ev.CheckoutStarted: visits.checkout_started,
    ev.ConsentChanged: visits.consent_changed,
    ev.Unsubscribed: visits.unsubscribed,
    ev.MessageSent: visits.message_sent,
}


def apply(row: Row, event: ev.Event, floor: int = 0) -> Facts | Refused:
    """The facts after this event; none before `floor` (microseconds UTC) is expected any more. Unknown types of our own
    contract cannot come here: the codec made the event."""
    if (
        event.TOPIC in _OF_THE_USER
        and not isinstance(event, _OF_THE_SHOP)
        and event.occurred_at > (row.last_seen_at or 0)
    ):
        row = replace(row, last_seen_at=event.occurred_at)
    if isinstance(event, ev.ProductViewed):
        return visits.viewed(row, event, floor)
    handler = HANDLERS.get(type(event))
    if handler is None:
        return Facts(row, (happening_of(event),))
    return handler(row, event)


__all__ = [
    "MAX_FORGOTTEN",
    "Facts",
    "Group",
    "Happening",
    "Refused",
    "Reversal",
    "age_of",
    "apply",
    "birthday_named",
    "cases_of",
    "counted",
    "freed_by",
    "groups_of",
    "in_its_currency",
    "is_forgotten",
    "least_coupon",
    "least_order",
    "left_of",
    "let_coupon_go",
    "let_lines_go",
    "summarise",
    "with_returns",
]
