"""What a field's type cannot say: an amount needs its currency, a coupon cannot end before it starts, a zone exists.

Each check takes one event and gives a `RejectedMessage`, or None if there is nothing to say against it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

from schemas import events
from schemas.instant import Instant
from schemas.money import is_currency
from schemas.rejects import RejectedMessage

Check = Callable[[Any], RejectedMessage | None]

TIME_ZONES: Final = frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())
"""The names of the IANA time zone database, from the package that all workers share rather than from the machine."""

MAX_USER_ID_BYTES: Final = 256
BIRTHDAY_PATTERN: Final = r"([0-9]{4}|-)-[0-9]{2}-[0-9]{2}"
CONTROL_CHARACTERS: Final = r"\u0000-\u001f\u007f-\u009f"

EXPECTED: Final = {
    "user_id": "1 to 256 bytes of UTF-8 text without control characters",
    "into": "the user_id of another account",
    "currency": "three capital letters of ISO 4217, such as CNY",
    "time_zone": "the name of an IANA time zone, such as Asia/Shanghai",
    "birthday": 'a date such as "1990-05-04", or "--05-04" without the year',
}
"""What to send, by the field's own name, where its type alone would not tell."""

_A_LEAP_YEAR: Final = 2000
_OLDEST_BIRTH: Final = 1900
_is_birthday: Final = re.compile(BIRTHDAY_PATTERN).fullmatch
_has_control_characters: Final = re.compile(f"[{CONTROL_CHARACTERS}]").search


def expected(field: str) -> RejectedMessage:
    """The refusal of a field whose own name tells what to send."""
    return RejectedMessage("bad_value", f"`{field}` must be {EXPECTED[field.rpartition('.')[2]]}.", field)


def is_user_id(user_id: str) -> bool:
    """Whether the text can be a user's key: not empty, at most 256 bytes of UTF-8, no control characters."""
    if not user_id or len(user_id.encode()) > MAX_USER_ID_BYTES:
        return False
    return user_id.isprintable() or _has_control_characters(user_id) is None


def _check_order(event: events.OrderPlaced) -> RejectedMessage | None:
    if not is_currency(event.currency):
        return expected("currency")
    if type(event) is events.OrderPaid:
        for index, coupon in enumerate(event.coupons_issued):
            if _check_coupon(coupon) is not None:
                return _check_coupon(coupon, f"coupons_issued[{index}].")
    return None


def _check_coupon(coupon: events.IssuedCoupon | events.CouponIssued, prefix: str = "") -> RejectedMessage | None:
    currency, value = coupon.currency, coupon.value
    if currency is not None and not is_currency(currency):
        return expected(f"{prefix}currency")
    if value is not None and coupon.kind == "percent":
        if not 0 < value <= 100:
            return RejectedMessage(
                "bad_value", f"`{prefix}value` of a percent coupon must be above 0 and at most 100.", f"{prefix}value"
            )
    elif value is not None and currency is None:
        return _without_currency(f"{prefix}value", prefix)
    if coupon.min_spend is not None and currency is None:
        return _without_currency(f"{prefix}min_spend", prefix)
    starts, ends = coupon.valid_from, coupon.expires_at
    if starts is None or ends is None or starts <= ends:
        return None
    return _out_of_order(starts, ends, f"{prefix}expires_at", f"{prefix}valid_from")


def _check_lock(event: events.CouponLocked) -> RejectedMessage | None:
    return _out_of_order(event.occurred_at, event.until, "until", "occurred_at")


def _check_deposit(event: events.DepositPaid) -> RejectedMessage | None:
    if not is_currency(event.currency):
        return expected("currency")
    return _out_of_order(event.balance_due_from, event.balance_due_until, "balance_due_until", "balance_due_from")


def _check_refund(event: events.OrderRefunded) -> RejectedMessage | None:
    return _check_money("amount", event.amount, event.currency)


def _check_refund_of_an_order(event: events.OrderRefunded) -> RejectedMessage | None:
    return _check_money("", None, event.currency)


def _check_cart(event: events.CartUpdated) -> RejectedMessage | None:
    return _check_money("", None, event.currency)


def _check_checkout(event: events.CheckoutStarted) -> RejectedMessage | None:
    return _check_money("total", event.total, event.currency)


def _check_baseline(event: events.CustomerBaseline) -> RejectedMessage | None:
    return _check_money("spend", event.spend, event.currency) or _out_of_order(
        event.first_order_at, event.last_order_at, "last_order_at", "first_order_at"
    )


def _check_profile(event: events.ProfileUpdated) -> RejectedMessage | None:
    if event.time_zone is not None and event.time_zone not in TIME_ZONES:
        return expected("time_zone")
    if event.birthday is not None and not is_birthday(event.birthday):
        return expected("birthday")
    return _check_money("acquisition_cost", event.acquisition_cost, event.currency)


def _check_merge(event: events.UserMerged) -> RejectedMessage | None:
    return expected("into") if event.into == event.user_id or not is_user_id(event.into) else None


@lru_cache(maxsize=1024)
def is_birthday(text: str) -> bool:
    """Whether the text is a date since 1900, or "--05-04" (also "--02-29") without a year."""
    if _is_birthday(text) is None:
        return False
    year = _A_LEAP_YEAR if text[0] == "-" else int(text[:4])
    try:
        date(year, int(text[-5:-3]), int(text[-2:]))
    except ValueError:
        return False
    return year >= _OLDEST_BIRTH


def _check_money(field: str, amount: Decimal | None, currency: str | None) -> RejectedMessage | None:
    if currency is not None:
        return None if is_currency(currency) else expected("currency")
    return None if amount is None else _without_currency(field)


def _without_currency(field: str, prefix: str = "") -> RejectedMessage:
    return RejectedMessage(
        "missing_field", f"`{field}` is money, so `{prefix}currency` must say in which one.", f"{prefix}currency"
    )


def _out_of_order(first: Instant | None, last: Instant | None, field: str, other: str) -> RejectedMessage | None:
    if first is None or last is None or first <= last:
        return None
    return RejectedMessage("bad_value", f"`{field}` must not be before `{other}`.", field)


CHECKS: Final[dict[type[events.Event], Check]] = {
    events.OrderPlaced: _check_order,
    events.OrderPaid: _check_order,
    events.DepositPaid: _check_deposit,
    events.OrderRefunded: _check_refund,
    events.CartUpdated: _check_cart,
    events.CheckoutStarted: _check_checkout,
    events.CouponIssued: _check_coupon,
    events.CouponLocked: _check_lock,
    events.CustomerBaseline: _check_baseline,
    events.ProfileUpdated: _check_profile,
    events.UserMerged: _check_merge,
}

TRACK_CHECKS: Final[dict[type[events.Event], Check]] = {**CHECKS, events.OrderRefunded: _check_refund_of_an_order}
"""The same for track calls, whose refunds need not say which currency they are in: it is their order's."""
