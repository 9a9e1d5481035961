"""What a gate is asked and what it may say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from app.core.rules import Rule
from app.core.scope import Scope


class Candidate(NamedTuple):
    """A step that has come due, at the moment of its release."""

    rule: Rule
    scope: Scope
    zone: ZoneInfo
    """The user's zone now; a user who moved while the step waited is asked about the new one."""


class Verdict(NamedTuple):
    """An objection. Passing is None."""

    outcome: Literal["dropped", "expired", "deferred"]
    gate: str
    reason: str
    until: int = 0
    """For `deferred`: when to ask again, everything anew."""


Gate = Callable[[Candidate], Verdict | None]
