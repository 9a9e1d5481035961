"""Staleness: nothing is sent later than `expires_after` after it was due. Late news is no news."""

from __future__ import annotations

from app.core import words
from app.core.guardrails.verdict import Candidate, Verdict


def ask(candidate: Candidate) -> Candidate | Verdict:
    """Expires what waited too long (an outage, a night that outlasted it)."""
    late = candidate.scope.now - candidate.scope.run.due_at
    limit = candidate.rule.send.expires_after
    if late <= limit:
        return candidate
    return Verdict(
        "expired", "staleness", f"It was due {words.length(late)} ago and is worth sending for {words.length(limit)}."
    )
