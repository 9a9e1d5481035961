"""Eligibility: the rule's own condition, asked again at the moment of release, and the ends that are instants."""

from __future__ import annotations

from app.core.guardrails.verdict import Candidate, Verdict
from app.core.scope import NO_COUPON, coupon_of


def ask(candidate: Candidate) -> Verdict | None:
    """Drops what no longer holds: the world may have changed between the timer's start and now."""
    rule, scope = candidate.rule, candidate.scope
    if scope.run.kind in ("coupon", "pack") and coupon_of(scope) is NO_COUPON:
        return Verdict("dropped", "eligibility", "The user has so many coupons that this one is no longer kept.")
    if any(at(scope) <= scope.now for at in rule.end_at):
        return Verdict("dropped", "eligibility", "What it is about had ended by the time it could be sent.")
    if rule.check is not None and not rule.check(scope):
        return Verdict("dropped", "eligibility", f"The rule's condition did not hold: {rule.check_text}")
    return None
