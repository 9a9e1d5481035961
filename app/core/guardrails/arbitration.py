"""Arbitration: of the marketing candidates that come to a user within one window, the most important goes out.

The window opens with the first and closes an hour later (policy). Who came first does not matter: priority does, and
of equals the rule's name. What fires at once, page by page, does not wait; what is transactional does not compete.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.core.guardrails.verdict import Candidate, Verdict
from app.core.row import Row


def waits(candidate: Candidate) -> bool:
    """Whether this candidate competes at all."""
    timed = not candidate.step.at_once
    contact = candidate.rule.send.action == "contact"
    return contact and timed and candidate.marketing and candidate.scope.policy.window > 0


def window_end(row: Row, candidate: Candidate) -> int:
    """When the user's open window closes; a new one opens when there is none."""
    now = candidate.scope.now
    return row.window_until if row.window_until > now else now + candidate.scope.policy.window


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The winner first."""
    return sorted(candidates, key=lambda c: (-c.rule.send.priority, c.rule.name, c.scope.run.key, c.scope.run.step))


def waits_for(winner: Candidate, until: int) -> Verdict:
    """What is said to all others when the winner's rule may not send more now."""
    why = f"'{winner.rule.name}' is more important, and waits for its turn."
    return Verdict("deferred", "arbitration", why, until)


def lost_to(winner: Candidate) -> Verdict:
    """What is said to all others."""
    return Verdict("dropped", "arbitration", f"'{winner.rule.name}' was more important in the same hour.")
