"""Shop policy: what the shop decided once for all rules (zones, quiet hours, intervals). Data, read from one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from schemas.triggers import Offer

CHANNELS = ("push", "sms", "email", "wechat_service", "in_app", "page", "chat_card")
FAMILIES = ("replenishment", "coupon", "winback", "cart", "browse", "welcome", "order", "loyalty", "milestone")
_DAY = 86_400_000_000
_MINUTE = 60_000_000


class QuietHours(NamedTuple):
    """A daily window in the user's zone in which no contact is delivered. Minutes after local midnight; the window
    may span midnight; from == to means none."""

    start_minute: int
    end_minute: int
    jitter: int
    """Microseconds over which releases after the window's end are spread, by user."""


class StageMove(NamedTuple):
    """A row of the life-stage table: from these stages to that one, on an event or after a silence."""

    source: frozenset[str]
    """'' is the stage of somebody not seen before."""
    to: str
    on: str | None
    """An event type; None for a silence."""
    silence: str | None
    """'decline' or 'churned': the silence that makes the move."""
    orders: int
    """At least so many paid orders."""


class Cap(NamedTuple):
    """At most `limit` contacts in a window: the last `days` calendar days of the user's zone (today included), or the
    last `days` x 24 hours. Of one channel or one family of rules, where named: what others sent is of a family when its
    campaign is the family's name."""

    limit: int
    days: int
    calendar: bool
    channel: str | None = None
    family: str | None = None


class Period(NamedTuple):
    """A stretch of the shop's calendar (a festival, a sale) in which rules are muted, or postponed to its end."""

    name: str
    starts_at: int
    ends_at: int
    rules: frozenset[str]
    """Empty = all marketing."""
    postpone: bool


Consent = Literal["allowed", "denied", "quota"]


class Policy(NamedTuple):
    """A policy in code holds nothing back but the night; `SHOP` is what a file of the shop starts from."""

    zone: ZoneInfo = ZoneInfo("Asia/Shanghai")
    locale: str = "zh-CN"
    quiet: QuietHours = QuietHours(21 * 60, 9 * 60, 15 * _MINUTE)
    quiet_exempt: frozenset[str] = frozenset({"page", "in_app", "chat_card"})
    """Channels that wait for the user to look: they have no quiet hours."""
    intervals: Mapping[str, int] = {}
    """How long one unit of a product type lasts, microseconds."""
    lead: int = 3 * _DAY
    """A replenishment reminder comes this long before the run-out, microseconds."""
    consent: Mapping[str, Consent] = dict.fromkeys(CHANNELS, "allowed")
    """What holds for a channel while the user has said nothing; a channel that is not named is denied."""
    caps: tuple[Cap, ...] = ()
    window: int = 0
    """How long the first of competing candidates waits for others, microseconds; 0 = not at all."""
    holdout_share: float = 0.0
    """Share of users who get nothing from any rule, so that lift can be measured."""
    holdout_salt: str = "holdout"
    calendar: tuple[Period, ...] = ()
    offers: Mapping[str, Offer] = {}
    """What a step may name as its offer."""
    companions: Mapping[str, str] = {}
    """By product type: the one that is bought with it."""
    usual_gap: int = 30 * _DAY
    """The median gap between purchases of the category: for users without a rhythm of their own, microseconds."""
    magic_number: int = 6
    """The order count after which the chance of a next order stops rising."""
    stages: tuple[StageMove, ...] = ()
    paused: bool = False
    """All rules wait."""


#: What holds when the shop's file says nothing of it (rules.md).
SHOP = Policy(
    consent={
        "push": "allowed",
        "in_app": "allowed",
        "page": "allowed",
        "chat_card": "allowed",
        "sms": "denied",
        "email": "denied",
        "wechat_service": "quota",
    },
    caps=(Cap(2, 1, True), Cap(5, 7, False), Cap(1, 3, False, channel="sms")),
    window=60 * _MINUTE,
)
