"""What a gate is asked and what it may say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from msgspec import Struct

from app.core.rules import Rule, Step
from app.core.scope import Scope


class Candidate(Struct, frozen=True, gc=False):
    """A step that has come due, at the moment of its release."""

    rule: Rule
    step: Step
    """The step of the rule that has come due."""
    scope: Scope
    zone: ZoneInfo
    """The user's zone now; a user who moved while the step waited is asked about the new one."""
    channels: tuple[str, ...]
    """Those that no gate has taken away yet, the preferred one first."""
    marketing: bool
    """Whether the gates of marketing are for it."""
    control: bool
    """Of the control group: it passes the same gates, and then nothing is sent."""

    @property
    def ghost(self) -> bool:
        """Decided like any other, and nothing comes of it for the user: it is of the control group, or its rule is in
        shadow mode. It meets what ghosts would have sent besides what was sent; for what is sent it is not there."""
        return self.control or self.rule.mode == "shadow"


class Verdict(NamedTuple):
    """An objection."""

    outcome: Literal["dropped", "expired", "deferred"]
    gate: str
    reason: str
    until: int = 0
    """For `deferred`: when to ask again, everything anew."""
    slot: int = 0
    """`until` is a slot of the rule's maximum rate, which the candidate holds if it comes back by then."""
    waits_for: str = ""
    """What may wake it before: see `Run`."""


Gate = Callable[[Candidate], Candidate | Verdict]
"""The candidate goes on (perhaps with fewer channels), or there is an objection."""
