"""Shop policy: what the shop decided once for all rules (zones, quiet hours, intervals). Data, read from one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from zoneinfo import ZoneInfo

CHANNELS = ("push", "sms", "email", "wechat_service", "in_app", "page", "chat_card")
_DAY = 86_400_000_000
_MINUTE = 60_000_000


class QuietHours(NamedTuple):
    """A daily window in the user's zone in which no contact is delivered. Minutes after local midnight; the window
    may span midnight; from == to means none."""

    start_minute: int
    end_minute: int
    jitter: int
    """Microseconds over which releases after the window's end are spread, by user."""


class Policy(NamedTuple):
    """Defaults are rules.md's."""

    zone: ZoneInfo = ZoneInfo("Asia/Shanghai")
    locale: str = "zh-CN"
    quiet: QuietHours = QuietHours(21 * 60, 9 * 60, 15 * _MINUTE)
    quiet_exempt: frozenset[str] = frozenset({"page", "in_app", "chat_card"})
    """Channels that wait for the user to look: they have no quiet hours."""
    intervals: Mapping[str, int] = {}
    """How long one unit of a product type lasts, microseconds."""
    lead: int = 3 * _DAY
    """A replenishment reminder comes this long before the run-out, microseconds."""
