"""Who the user is: registered, logged in, with a history from before our first event, and the profile's words.

The newest word wins, by its own time; of instants of registration the earliest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from app.core import baselines
from app.core.facts.summaries import minor
from app.core.happenings import Facts, happening_of
from app.core.row import Baseline, Row
from schemas import events as ev


def _registered(row: Row, event: ev.UserRegistered) -> Facts:
    if row.registered_at is not None and row.registered_at < event.occurred_at:
        return Facts(row)
    return Facts(replace(row, registered_at=event.occurred_at), (happening_of(event),))


def _logged_in(row: Row, event: ev.UserLoggedIn) -> Facts:
    return Facts(replace(row, last_login_at=max(event.occurred_at, row.last_login_at or 0)), (happening_of(event),))


def _baseline(row: Row, event: ev.CustomerBaseline) -> Facts:
    spend = minor(event.spend, event.currency) if event.spend is not None and event.currency is not None else 0
    baseline = Baseline(
        event.registered_at, event.orders, event.first_order_at, event.last_order_at, spend, event.currency
    )
    registered = min(event.registered_at, row.registered_at or event.registered_at)
    row = baselines.told(row, event.user_id, baseline)
    return Facts(replace(row, registered_at=registered), (happening_of(event),))


def _profile(row: Row, event: ev.ProfileUpdated) -> Facts:
    at, before = event.occurred_at, row.zone
    if event.time_zone is not None and at >= row.zone_at:
        row = replace(row, zone=event.time_zone, zone_at=at)
    if event.locale is not None and at >= row.locale_at:
        row = replace(row, locale=event.locale, locale_at=at)
    if event.birthday is not None:
        first, last = birthday_named(row)
        if event.birthday == row.birthday:
            row = replace(row, birthday_at=min(at, first), birthday_said_at=max(at, last))
        elif (at, event.birthday) > (last, row.birthday or ""):
            row = replace(row, birthday=event.birthday, birthday_at=at, birthday_said_at=at)
    return Facts(row, (happening_of(event),), (), None if row.zone == before else "")


def birthday_named(row: Row) -> tuple[int, int]:
    """When the profile first and last named the birthday that is known."""
    return row.birthday_at, max(row.birthday_at, row.birthday_said_at)


HANDLERS: dict[type[ev.Event], Callable[[Row, Any], Facts]] = {
    ev.UserRegistered: _registered,
    ev.UserLoggedIn: _logged_in,
    ev.CustomerBaseline: _baseline,
    ev.ProfileUpdated: _profile,
}
