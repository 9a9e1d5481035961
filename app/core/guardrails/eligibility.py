"""Eligibility: the rule's own condition, asked again at the moment of release; the ends that are instants; and what
the shop holds back for everybody: open after-sale cases, its calendar."""

from __future__ import annotations

from app.core import ids
from app.core.guardrails.verdict import Candidate, Verdict
from app.core.row import Run
from app.core.rules import Rule
from app.core.scope import NO_COUPON, coupon_of
from schemas.instant import HOUR, MINUTE

#: An open after-sale case is asked about again after so long.
CASE_PAUSE = 12 * HOUR
#: What a pause held is asked again within so long of its end, spread by user.
PAUSE_SPREAD = HOUR
#: And so long before it is stale: under CLOCK=wall a timer fires a little after its instant.
PAUSE_MARGIN = MINUTE


def ask(candidate: Candidate) -> Candidate | Verdict:
    """Drops what no longer holds: the world may have changed between the timer's start and now."""
    rule, scope = candidate.rule, candidate.scope
    if scope.run.kind in ("coupon", "pack") and coupon_of(scope) is NO_COUPON:
        return Verdict("dropped", "eligibility", "The user has so many coupons that this one is no longer kept.")
    if rule.end_at and any(at(scope) <= scope.now for at in rule.end_at):
        return Verdict("dropped", "eligibility", "What it is about had ended by the time it could be sent.")
    if rule.paused is not None or scope.policy.paused:
        return _while_paused(candidate)
    if rule.check is not None and not rule.check(scope):
        return Verdict("dropped", "eligibility", f"The rule's condition did not hold: {rule.check_text}")
    if rule.send.action == "grant" or not candidate.marketing:
        return candidate
    for order in scope.row.orders.values():
        if order.cases:
            return _held(candidate, "The user has an open after-sale case.", scope.now + CASE_PAUSE)
    for period in scope.policy.calendar:
        if period.starts_at <= scope.now < period.ends_at and (not period.rules or rule.name in period.rules):
            if period.postpone:
                return _held(candidate, f"Postponed to the end of {period.name}.", period.ends_at)
            return Verdict("dropped", "eligibility", f"Muted during {period.name}.")
    return candidate


def _while_paused(candidate: Candidate) -> Verdict:
    """What a pause does with what comes due; nobody is bombarded when it ends, and it is no storm."""
    rule = candidate.rule
    way = rule.paused or "hold"
    if way == "skip":
        return Verdict("dropped", "eligibility", "The rule is paused, and skips what comes due.")
    if way == "expire":
        return Verdict("expired", "staleness", "The rule is paused.")
    held = _held(candidate, "The rule is paused.", stale_at(rule, candidate.scope.run))
    return held._replace(waits_for="pause")


def stale_at(rule: Rule, run: Run) -> int:
    """When a step is first stale. What a pause holds is asked then, unless the pause ends before (`runs.woken`): one
    record says that it waits, however long the pause is."""
    return run.due_at + rule.send.expires_after + 1


def asked_after_pause(rule: Rule, run: Run, user_id: str, now: int) -> int:
    """When what a pause held is asked again, now that it ends: each user of a rule has an instant of its own within the
    hour, so that the end is no storm. What is worth sending for less is asked within that, well before it is stale."""
    left = stale_at(rule, run) - PAUSE_MARGIN - now
    return now + int(max(0, min(PAUSE_SPREAD, left)) * ids.share_of(f"pause/{rule.name}", user_id))


def _held(candidate: Candidate, why: str, until: int) -> Verdict:
    """What the shop holds back waits as long as it is worth sending, not for ever."""
    run, now = candidate.scope.run, candidate.scope.now
    if now - run.due_at > candidate.rule.send.expires_after:
        return Verdict("expired", "staleness", why)
    return Verdict("deferred", "eligibility", why, until)
