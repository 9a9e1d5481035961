"""Staleness: nothing is sent later than `expires_after` after it was due, nor once what it is about has expired. Late
news is no news."""

from __future__ import annotations

from app.core import words
from app.core.guardrails.verdict import Candidate, Verdict
from app.core.scope import coupon_of


def ask(candidate: Candidate) -> Candidate | Verdict:
    """Expires what waited too long (an outage, a night that outlasted it), and what comes when its coupon is over."""
    scope = candidate.scope
    late = scope.now - scope.run.due_at
    limit = candidate.rule.send.expires_after
    if late > limit:
        why = f"It was due {words.length(late)} ago and is worth sending for {words.length(limit)}."
        return Verdict("expired", "staleness", why)
    if scope.run.kind in ("coupon", "pack") and coupon_of(scope).expires_at <= scope.now:
        return Verdict("expired", "staleness", "Its coupon had expired by the time it could be sent.")
    return candidate
