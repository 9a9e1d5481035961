"""The only caller of the wall clock. Time reaches everything else as an argument, so that a test can be any day."""

from __future__ import annotations

import time


def now() -> int:
    """The wall clock: microseconds since 1970-01-01T00:00:00Z. May jump; never measure a duration with it."""
    return time.time_ns() // 1_000


def monotonic() -> float:
    """Seconds from some fixed instant, never going back: the difference of two is a duration."""
    return time.monotonic()
