"""Release: a step that has come due is asked at the gates, and what becomes of it is written down.

Each candidate has exactly one final decision record; a trigger and its `fired` record are put out together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from app.core import calendar, guardrails, ids, words
from app.core.guardrails import Candidate, Verdict, arbitration, consent, holdout, quiet_hours, rate
from app.core.items import items_of
from app.core.moment import Moment
from app.core.row import Fired, Row, Run, Sent
from app.core.rules import Rule
from app.core.scope import Scope, coupon_in_hand, coupon_of
from app.core.visits import with_sent
from schemas.instant import format_instant
from schemas.triggers import Decision, Entry, Evidence, Offer, Retraction, Trigger

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from app.core.facts import Happening

#: A candidate has exactly one final record. A deferral comes before it, a retraction after a fired one.
NOT_FINAL = frozenset({"deferred", "retracted"})


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


def candidate_of(row: Row, rule: Rule, run: Run, moment: Moment) -> Candidate:
    """The run's pending step, to be asked at the gates."""
    policy = moment.catalogue.policy
    scope = Scope(row, run, policy, moment.now)
    control = holdout.is_control(rule, row.user_id, policy)
    return Candidate(rule, scope, calendar.zone_of(row, policy.zone), rule.send.channels, control)


def ask(row: Row, rule: Rule, run: Run, moment: Moment) -> tuple[Row, Run, Candidate | None]:
    """Asks the gates in order. The run comes back with sequence 0 when the candidate is done, else deferred to its
    `timer_at`; or the candidate comes back, let through and at the end of its window: `settle` decides."""
    candidate = candidate_of(row, rule, run, moment)
    for gate in guardrails.CONTACT if rule.send.action == "contact" else guardrails.GRANT:
        answer = gate(candidate)
        if isinstance(answer, Verdict):
            return row, object_to(candidate, answer, moment), None
        candidate = answer
    if not arbitration.waits(candidate):
        if (full := turn(candidate, moment)) is not None:
            return row, object_to(candidate, full, moment), None
        return *conclude(candidate, (), moment), None
    if run.competing:
        return row, run, candidate
    until = arbitration.window_end(row, candidate)
    why = "It waits for what else may come to the user within the hour."
    run = object_to(candidate, Verdict("deferred", "arbitration", why, until), moment)
    return replace(row, window_until=until), replace(run, competing=True), None


def object_to(candidate: Candidate, verdict: Verdict, moment: Moment) -> Run:
    """Writes an objection down; the run after it."""
    run = candidate.scope.run
    _record(candidate, verdict.outcome, verdict.gate, verdict.reason, moment)
    if verdict.outcome == "deferred":
        slot = verdict.until if verdict.slot else 0
        return replace(run, sequence=run.sequence + 1, timer_at=verdict.until, competing=False, slot=slot)
    return replace(run, sequence=0, competing=False)


def turn(candidate: Candidate, moment: Moment) -> Verdict | None:
    """Asks the rule's maximum rate, the last of all gates; the slot that it takes is put out with the decisions."""
    name = candidate.rule.name
    if (left := moment.budgets.get(name)) is None:
        return None
    for item in moment.trace:  # what this very step has taken already
        if isinstance(item, rate.SlotTaken) and item.rule == name:
            left = left._replace(free_from=item.free_from)
    full, after = rate.ask(candidate, left)
    if after is not left:
        moment.trace.append(rate.SlotTaken(name, after.free_from))
    return full


def drop(row: Row, rule: Rule, run: Run, why: str, moment: Moment) -> None:
    """The final record of a deferred candidate whose run ends while it waits."""
    candidate = candidate_of(row, rule, run, moment)
    _decide(
        candidate.scope,
        candidate.zone,
        _facts(candidate),
        "dropped",
        "eligibility",
        f"While it waited, the run was {why}.",
        moment,
    )


def abandon(row: Row, run: Run, moment: Moment) -> None:
    """The final record of a deferred candidate whose rule, or step, is there no more."""
    policy = moment.catalogue.policy
    why = "While it waited, it was taken out of the catalogue."
    scope = Scope(row, run, policy, moment.now)
    _decide(scope, calendar.zone_of(row, policy.zone), {}, "dropped", "eligibility", why, moment)


def _record(candidate: Candidate, outcome: str, gate: str | None, reason: str, moment: Moment) -> None:
    _decide(candidate.scope, candidate.zone, _facts(candidate), outcome, gate, reason, moment)


def _decide(
    scope: Scope, zone: ZoneInfo, facts: dict[str, object], outcome: str, gate: str | None, reason: str, moment: Moment
) -> None:
    run, step = scope.run, scope.run.step + 1
    trigger = _trigger_id(scope.row, run, step)
    moment.trace.append(
        Decision(
            decision_id=ids.decision_id(trigger, run.sequence),
            sequence=run.sequence,
            final=outcome not in NOT_FINAL,
            rule=run.rule,
            rule_version=run.version,
            user_id=scope.row.user_id,
            entry=_entry(scope.row, run),
            run_id=_run_id(scope.row, run),
            step=step,
            outcome=outcome,
            gate=gate,
            reason=reason,
            facts=facts,
            evidence=_evidence(run, zone),
            due_at=format_instant(run.due_at, zone),
            decided_at=format_instant(scope.now, zone),
            trigger_id=trigger,
        )
    )
    moment.tally("decisions", run.rule, outcome)
    if gate is not None:
        moment.tally("gates", gate, outcome)


def _facts(candidate: Candidate) -> dict[str, object]:
    return {name.rpartition(".")[2]: words.fact(name, candidate.scope, candidate.zone) for name in candidate.rule.facts}


def conclude(candidate: Candidate, coupons: tuple[str, ...], moment: Moment) -> tuple[Row, Run]:
    """A candidate that all gates let through is charged, and fired, or held out with a record of what it would have
    been. `coupons` are those of the candidates it won against."""
    rule, scope, _, channels, control = candidate
    row, run, _, now = scope
    channel = channels[0] if channels else None
    if channel is not None and candidate.marketing:
        contact = Sent(now, channel, rule.family, "" if control else _trigger_id(row, run, run.step + 1), control)
        row = with_sent(row, contact)
    row = replace(row, last_fired={**row.last_fired, rule.name: (_run_id(row, run), now)})
    if control:
        _record(candidate, "control", "holdout", "The user is in the control group: it would have been sent.", moment)
        return row, replace(run, sequence=0, competing=False)
    if channel is not None:
        row = consent.used(row, channel, rule.family)
    offer, coupons = _offer(candidate, coupons)
    if offer is not None and rule.send.discount_every:
        row = replace(row, last_fired={**row.last_fired, "discount": (_run_id(row, run), now)})
    trigger = _trigger(candidate, offer, coupons)
    moment.trace.append(trigger)
    moment.tally("triggers", rule.name)
    _record(candidate, "fired", None, trigger.reason, moment)
    alive = tuple(fired for fired in run.fired if fired.expires_at > now)
    fired = Fired(trigger.trigger_id, run.step, run.due_at, _expires_at(candidate), run.sequence, now)
    return row, replace(run, sequence=0, competing=False, fired=(*alive, fired))


def _offer(candidate: Candidate, coupons: tuple[str, ...]) -> tuple[Offer | None, tuple[str, ...]]:
    """What the message may promise, and the coupons it names."""
    rule, scope = candidate.rule, candidate.scope
    row, run, policy, now = scope
    if run.kind in ("coupon", "pack"):
        coupons = tuple(dict.fromkeys((coupon_of(scope).coupon_id, *coupons)))
    name = candidate.step.offer
    offer = policy.offers.get(name) if name is not None else None
    if offer is None:
        return None, coupons
    if rule.send.coupon_instead and (held := coupon_in_hand(row, now)) is not None:
        return None, tuple(dict.fromkeys((held.coupon_id, *coupons)))
    last = row.last_fired.get("discount")
    if rule.send.discount_every and last is not None:
        other, at = last
        if other != _run_id(row, run) and now - at < rule.send.discount_every:
            return None, coupons
    return offer, coupons


def _expires_at(candidate: Candidate) -> int:
    """The end of the send window: clipped to the night, and to the life of what it is about."""
    rule, scope, zone = candidate[:3]
    now, policy = scope.now, scope.policy
    expires_at = now + rule.send.expires_after
    if rule.send.action == "contact" and not policy.quiet_exempt.issuperset(candidate.channels):
        expires_at = max(now, quiet_hours.clip(expires_at, zone, policy.quiet))
    if scope.run.kind in ("coupon", "pack"):
        expires_at = max(now, min(expires_at, coupon_of(scope).expires_at))
    for at in rule.end_at:
        expires_at = max(now, min(expires_at, at(scope)))
    return expires_at


def _trigger(candidate: Candidate, offer: Offer | None, coupons: tuple[str, ...]) -> Trigger:
    rule, scope, zone, channels, _ = candidate
    row, run, policy, now = scope
    send, step = rule.send, run.step + 1
    return Trigger(
        trigger_id=_trigger_id(row, run, step),
        rule=rule.name,
        rule_version=run.version,
        family=rule.family,
        step=step,
        user_id=row.user_id,
        action=send.action,
        class_=candidate.step.kind or send.kind,
        mode=rule.mode,
        arm="treated",
        entry=_entry(row, run),
        run_id=_run_id(row, run),
        reason=words.fill(rule.reason, scope, zone),
        facts=_facts(candidate),
        evidence=_evidence(run, zone),
        channel=channels[0] if channels else None,
        fallbacks=channels[1:],
        locale=row.locale or policy.locale,
        collapse_key=send.collapse,
        offer=offer,
        coupons=coupons,
        items=items_of(scope),
        recheck=rule.recheck,
        priority=send.priority,
        due_at=format_instant(run.due_at, zone),
        decided_at=format_instant(now, zone),
        not_before=format_instant(now, zone),
        expires_at=format_instant(_expires_at(candidate), zone),
    )


def retract(row: Row, rule: Rule, run: Run, why: str, happening: Happening, moment: Moment) -> None:
    """Takes back what went out and has not expired: a later fact made it wrong."""
    zone = calendar.zone_of(row, moment.catalogue.policy.zone)
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
        _record(candidate_of(row, rule, done, moment), "retracted", None, why, moment)
