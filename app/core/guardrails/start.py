"""Start policy: what a rule makes of the time before it was activated, so that history can be loaded.

`state-only` (the default) sends nothing that was due before; `since:T` nothing that was due before T; under `none`,
what happened before the activation begins no run, either.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.core.rules import Rule

DEFAULT = "state-only"
_SINCE = "since:"


def sends_from(policy: str, active_since: int) -> int:
    """What is due earlier is not sent."""
    return int(policy.removeprefix(_SINCE)) if policy.startswith(_SINCE) else active_since


def enters_from(policy: str, active_since: int) -> int | None:
    """What happened earlier begins no run; None when all may."""
    return active_since if policy == "none" else None


def lets_in(rule: Rule, entered_at: int, enters_from: Mapping[str, int]) -> bool:
    """Whether an entry of this instant begins a run."""
    return entered_at >= enters_from.get(rule.name, 0)
