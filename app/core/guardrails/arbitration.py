"""Arbitration: of the marketing candidates that come to a user within one window, the most important goes out.

The window opens with the first and closes an hour later (policy). Who came first does not matter: priority does, and
of equals the rule's name. What fires at once, page by page, does not wait; what is transactional does not compete.

What goes out is decided as if there were no ghosts (control group, shadow mode): they open no window for it, and win
nothing from it. A ghost meets all that is in the window, the real ones too, and is what it would have been: the best of
all, or else it lost to the best.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from app.core.guardrails.verdict import Candidate, Verdict
from app.core.row import Row


def waits(candidate: Candidate) -> bool:
    """Whether this candidate competes at all."""
    timed = not candidate.step.at_once
    contact = candidate.rule.send.action == "contact"
    return contact and timed and candidate.marketing and candidate.scope.policy.window > 0


def joined(row: Row, candidate: Candidate) -> tuple[Row, int]:
    """The row with the window that this candidate waits in, and when that closes; a new one opens when there is none.
    A ghost would have been in the one that is open, whoever opened it; what is sent sees no window of ghosts."""
    now = candidate.scope.now
    windows = (row.ghosts_until, row.window_until) if candidate.ghost else (row.window_until,)
    until = next((end for end in windows if end > now), now + candidate.scope.policy.window)
    return (replace(row, ghosts_until=until) if candidate.ghost else replace(row, window_until=until)), until


def rank(candidate: Candidate) -> tuple[int, str, str, int]:
    """The more important, the less."""
    run = candidate.scope.run
    return -candidate.rule.send.priority, candidate.rule.name, run.key, run.step


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The winner first."""
    return sorted(candidates, key=rank)


def waits_for(winner: Candidate, until: int) -> Verdict:
    """What is said to all others when the winner's rule may not send more now."""
    why = f"'{winner.rule.name}' is more important, and waits for its turn."
    return Verdict("deferred", "arbitration", why, until)


def lost_to(winner: Candidate) -> Verdict:
    """What is said to all others."""
    return Verdict("dropped", "arbitration", f"'{winner.rule.name}' was more important in the same hour.")
