"""Release: a step that has come due is asked at the gates, and what becomes of it is written down.

Each candidate has exactly one final decision record; a trigger and its `fired` record are put out together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec.structs import replace

from app.core import guardrails, ids, words
from app.core.guardrails import Candidate, Verdict, quiet_hours
from app.core.moment import Moment
from app.core.row import Fired, Row, Run
from app.core.rules import Rule
from app.core.scope import Scope, coupon_of
from schemas.instant import format_instant
from schemas.triggers import Decision, Entry, Evidence, Item, Retraction, Trigger

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from app.core.facts import Happening

#: A candidate has exactly one final record. A deferral comes before it, a retraction after a fired one.
NOT_FINAL = frozenset({"deferred", "retracted"})


class Outcome(NamedTuple):
    """What became of a candidate that no gate objected to."""

    outcome: Literal["fired", "retracted"]
    reason: str
    gate: str | None = None


def _trigger_id(row: Row, run: Run, step: int) -> str:
    return ids.trigger_id(run.rule, row.user_id, run.kind, run.key, run.event_id, run.ordinal, step)


def _run_id(row: Row, run: Run) -> str:
    return ids.run_id(run.rule, row.user_id, run.kind, run.key, run.event_id, run.ordinal)


def _entry(row: Row, run: Run) -> Entry:
    """What the run is about, as published: a coupon without a pack is itself."""
    kind = "coupon" if run.kind == "pack" and run.key in row.coupons else run.kind
    return Entry(kind=kind, key=run.key or row.user_id)


def _evidence(run: Run, zone: ZoneInfo) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(event_id=event_id, type=kind, occurred_at=format_instant(at, zone))
        for event_id, kind, at in run.evidence
    )


def ask(row: Row, rule: Rule, run: Run, moment: Moment) -> Run:
    """Asks the gates in order. The run with sequence 0 when the candidate is done, else deferred to its `timer_at`."""
    scope = Scope(row, run, moment.catalogue.policy, moment.now)
    candidate = Candidate(rule, scope, words.zone_of(row, moment.catalogue.policy.zone))
    for gate in guardrails.CONTACT if rule.send.action == "contact" else guardrails.GRANT:
        verdict = gate(candidate)
        if verdict is not None:
            _record(candidate, verdict, moment)
            if verdict.outcome == "deferred":
                return replace(run, sequence=run.sequence + 1, timer_at=verdict.until)
            return replace(run, sequence=0)
    return _fire(candidate, moment)


def drop(row: Row, rule: Rule, run: Run, why: str, moment: Moment) -> None:
    """The final record of a deferred candidate whose run ends while it waits."""
    scope = Scope(row, run, moment.catalogue.policy, moment.now)
    candidate = Candidate(rule, scope, words.zone_of(row, moment.catalogue.policy.zone))
    _record(candidate, Verdict("dropped", "eligibility", f"While it waited, the run was {why}."), moment)


def abandon(row: Row, run: Run, moment: Moment) -> None:
    """The final record of a deferred candidate whose rule, or step, is there no more."""
    policy = moment.catalogue.policy
    why = "While it waited, it was taken out of the catalogue."
    scope = Scope(row, run, policy, moment.now)
    _decide(scope, words.zone_of(row, policy.zone), {}, Verdict("dropped", "eligibility", why), moment)


def _record(candidate: Candidate, verdict: Verdict | Outcome, moment: Moment) -> None:
    _decide(candidate.scope, candidate.zone, _facts(candidate), verdict, moment)


def _decide(scope: Scope, zone: ZoneInfo, facts: dict[str, object], verdict: Verdict | Outcome, moment: Moment) -> None:
    run, step = scope.run, scope.run.step + 1
    trigger = _trigger_id(scope.row, run, step)
    moment.trace.append(
        Decision(
            decision_id=ids.decision_id(trigger, run.sequence),
            sequence=run.sequence,
            final=verdict.outcome not in NOT_FINAL,
            rule=run.rule,
            rule_version=run.version,
            user_id=scope.row.user_id,
            entry=_entry(scope.row, run),
            run_id=_run_id(scope.row, run),
            step=step,
            outcome=verdict.outcome,
            gate=verdict.gate,
            reason=verdict.reason,
            facts=facts,
            evidence=_evidence(run, zone),
            due_at=format_instant(run.due_at, zone),
            decided_at=format_instant(scope.now, zone),
            trigger_id=trigger,
        )
    )
    moment.tally("decisions", run.rule, verdict.outcome)


def _facts(candidate: Candidate) -> dict[str, object]:
    return {name.rpartition(".")[2]: words.fact(name, candidate.scope, candidate.zone) for name in candidate.rule.facts}


def _items(run: Run) -> tuple[Item, ...]:
    if run.kind != "product_type":
        return ()
    data = run.data
    return (
        Item(
            product_id=data.get("product_id"),
            product_type=run.key,
            title=data.get("title"),
            image_url=data.get("image_url"),
            quantity=data.get("quantity"),
        ),
    )


def _fire(candidate: Candidate, moment: Moment) -> Run:
    rule, scope, zone = candidate
    row, run, policy, now = scope
    send, step = rule.send, run.step + 1
    expires_at = now + send.expires_after
    if quiet_hours.applies(rule, policy):
        expires_at = quiet_hours.clip(expires_at, zone, policy.quiet)
    if run.kind in ("coupon", "pack"):
        expires_at = max(now, min(expires_at, coupon_of(scope).expires_at))
    reason = words.fill(rule.reason, scope, zone)
    trigger = Trigger(
        trigger_id=_trigger_id(row, run, step),
        rule=rule.name,
        rule_version=run.version,
        family=rule.family,
        step=step,
        user_id=row.user_id,
        action=send.action,
        class_=send.kind,
        mode=rule.mode,
        arm="treated",
        entry=_entry(row, run),
        run_id=_run_id(row, run),
        reason=reason,
        facts=_facts(candidate),
        evidence=_evidence(run, zone),
        channel=send.channels[0] if send.channels else None,
        fallbacks=send.channels[1:],
        locale=row.locale or policy.locale,
        collapse_key=send.collapse,
        offer=None,
        coupons=(coupon_of(scope).coupon_id,) if run.kind in ("coupon", "pack") else (),
        items=_items(run),
        recheck=(),
        priority=send.priority,
        due_at=format_instant(run.due_at, zone),
        decided_at=format_instant(now, zone),
        not_before=format_instant(now, zone),
        expires_at=format_instant(expires_at, zone),
    )
    moment.trace.append(trigger)
    moment.tally("triggers", rule.name)
    _record(candidate, Outcome("fired", reason), moment)
    alive = tuple(fired for fired in run.fired if fired.expires_at > now)
    return replace(
        run, sequence=0, fired=(*alive, Fired(trigger.trigger_id, run.step, run.due_at, expires_at, run.sequence, now))
    )


def retract(row: Row, rule: Rule, run: Run, why: str, happening: Happening, moment: Moment) -> None:
    """Takes back what went out and has not expired: a later fact made it wrong."""
    zone = words.zone_of(row, moment.catalogue.policy.zone)
    at = format_instant(moment.now, zone)
    evidence = (
        Evidence(event_id=happening.event_id, type=happening.source, occurred_at=format_instant(happening.at, zone)),
    )
    for fired in run.fired:
        if fired.expires_at <= moment.now:
            continue
        retraction = Retraction(
            retraction_id=ids.retraction_id(fired.trigger_id),
            retracts=fired.trigger_id,
            rule=rule.name,
            rule_version=run.version,
            family=rule.family,
            step=fired.step + 1,
            user_id=row.user_id,
            mode=rule.mode,
            entry=_entry(row, run),
            run_id=_run_id(row, run),
            reason=why,
            evidence=evidence,
            decided_at=at,
        )
        moment.trace.append(retraction)
        done = replace(run, step=fired.step, due_at=fired.due_at, sequence=fired.sequence + 1)
        candidate = Candidate(rule, Scope(row, done, moment.catalogue.policy, moment.now), zone)
        _record(candidate, Outcome("retracted", why), moment)
