"""Release: a step that has come due is asked at the gates, and what becomes of it is written down.

Each candidate has exactly one final decision record; a trigger and its `fired` record are put out together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from app.core import calendar, guardrails, ids, words
from app.core.guardrails import Candidate, Verdict, arbitration, caps, consent, holdout, quiet_hours, rate
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

    from app.core.happenings import Happening

#: A candidate has exactly one final record. A deferral comes before it, a retraction after a fired one.
NOT_FINAL = frozenset({"deferred", "retracted"})


class _Papers(NamedTuple):
    """What all records of a candidate say of it, worked out once."""

    trigger_id: str
    run_id: str
    entry: Entry
    evidence: tuple[Evidence, ...]
    facts: dict[str, object]
    due_at: str
    decided_at: str


def _papers(scope: Scope, zone: ZoneInfo, facts: dict[str, object]) -> _Papers:
    row, run = scope.row, scope.run
    # What the run is about, as published: a coupon without a pack is itself.
    kind = "coupon" if run.kind == "pack" and run.key in row.coupons else run.kind
    return _Papers(
        *ids.of_candidate(run.rule, row.user_id, run.kind, run.key, run.event_id, run.ordinal, run.step + 1),
        Entry(kind=kind, key=run.key or row.user_id),
        tuple(
            [
                Evidence(event_id=event_id, type=kind, occurred_at=format_instant(at, zone))
                for event_id, kind, at in run.evidence
            ]
        ),
        facts,
        format_instant(run.due_at, zone),
        format_instant(scope.now, zone),
    )


def _papers_of(candidate: Candidate) -> _Papers:
    scope, zone = candidate.scope, candidate.zone
    return _papers(scope, zone, words.facts(candidate.rule.facts, scope, zone))


def _papers_without_step(rule: Rule, scope: Scope) -> _Papers:
    """Of what goes out no more, or went out: the version that the run follows now may have no such step."""
    zone = calendar.zone_of(scope.row, scope.policy.zone)
    return _papers(scope, zone, words.facts(rule.facts, scope, zone))


def candidate_of(row: Row, rule: Rule, run: Run, moment: Moment) -> Candidate:
    """The run's pending step, to be asked at the gates."""
    policy = moment.catalogue.policy
    scope = Scope(row, run, policy, moment.now)
    control = holdout.is_control(rule, row.user_id, policy)
    step, zone = rule.steps[run.step], calendar.zone_of(row, policy.zone)
    marketing = (step.kind or rule.send.kind) == "marketing"
    return Candidate(rule, step, scope, zone, rule.send.channels, marketing, control)


def ask(row: Row, rule: Rule, run: Run, moment: Moment) -> tuple[Row, Run, Candidate | None]:
    """Asks the gates in order. The run comes back with sequence 0 when the candidate is done, else deferred to its
    `timer_at`; or the candidate comes back, let through and at the end of its window: `settle` decides."""
    candidate = candidate_of(row, rule, run, moment)
    answer = through(candidate)
    if isinstance(answer, Verdict):
        return row, object_to(candidate, answer, moment), None
    candidate = answer
    if not arbitration.waits(candidate):
        if (full := turn(candidate, moment)) is not None:
            return row, object_to(candidate, full, moment), None
        return *conclude(candidate, (), moment), None
    if run.competing:
        return row, run, candidate
    row, until = arbitration.joined(row, candidate)
    why = "It waits for what else may come to the user within the hour."
    run = object_to(candidate, Verdict("deferred", "arbitration", why, until), moment)
    return row, replace(run, competing=True), None


def through(candidate: Candidate) -> Candidate | Verdict:
    """The candidate as the gates before arbitration let it through, or the first objection. Nothing is written down."""
    for gate in guardrails.CONTACT if candidate.rule.send.action == "contact" else guardrails.GRANT:
        answer = gate(candidate)
        if isinstance(answer, Verdict):
            return answer
        candidate = answer
    return candidate


def object_to(candidate: Candidate, verdict: Verdict, moment: Moment) -> Run:
    """Writes an objection down; the run after it."""
    run = candidate.scope.run
    _decide(candidate.scope, _papers_of(candidate), verdict.outcome, verdict.gate, verdict.reason, moment)
    if verdict.outcome == "deferred":
        until, slot, waits_for = verdict.until, verdict.slot, verdict.waits_for
        return replace(run, sequence=run.sequence + 1, timer_at=until, competing=False, slot=slot, waits_for=waits_for)
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
    scope = Scope(row, run, moment.catalogue.policy, moment.now)
    why = f"While it waited, the run was {why}."
    _decide(scope, _papers_without_step(rule, scope), "dropped", "eligibility", why, moment)


def expire(row: Row, rule: Rule, run: Run, moment: Moment) -> Run:
    """The final record of a deferred candidate that waited for its coupon until it was stale; the run after it."""
    why = f"It could not be used, and was worth sending for {words.length(rule.send.expires_after)}."
    return object_to(candidate_of(row, rule, run, moment), Verdict("expired", "staleness", why), moment)


TAKEN_OUT = "While it waited, it was taken out of the catalogue."
SET_ASIDE = "The rules failed on it, and it was set aside."


def abandon(row: Row, run: Run, why: str, moment: Moment) -> None:
    """The final record of a candidate of which nothing can be asked: its rule, or step, is there no more, or fails."""
    policy = moment.catalogue.policy
    scope = Scope(row, run, policy, moment.now)
    papers = _papers(scope, calendar.zone_of(row, policy.zone), {})
    _decide(scope, papers, "dropped", "eligibility", why, moment)


def _decide(scope: Scope, papers: _Papers, outcome: str, gate: str | None, reason: str, moment: Moment) -> None:
    run = scope.run
    moment.trace.append(
        Decision(
            decision_id=ids.decision_id(papers.trigger_id, run.sequence),
            sequence=run.sequence,
            final=outcome not in NOT_FINAL,
            rule=run.rule,
            rule_version=run.version,
            user_id=scope.row.user_id,
            entry=papers.entry,
            run_id=papers.run_id,
            step=run.step + 1,
            outcome=outcome,
            gate=gate,
            reason=reason,
            facts=papers.facts,
            evidence=papers.evidence,
            due_at=papers.due_at,
            decided_at=papers.decided_at,
            trigger_id=papers.trigger_id,
        )
    )
    moment.tally("decisions", run.rule, outcome)
    if gate is not None:
        moment.tally("gates", gate, outcome)


def conclude(candidate: Candidate, coupons: tuple[str, ...], moment: Moment) -> tuple[Row, Run]:
    """A candidate that all gates let through is charged, and fired, or held out with a record of what it would have
    been. `coupons` are those of the candidates it won against. What a ghost is charged counts for ghosts only."""
    rule, scope, channels, ghost = candidate.rule, candidate.scope, candidate.channels, candidate.ghost
    row, run, now = scope.row, scope.run, scope.now
    papers = _papers_of(candidate)
    channel = channels[0] if channels else None
    if channel is not None and candidate.marketing:
        contact = Sent(now, channel, rule.family, "" if candidate.control else papers.trigger_id, ghost)
        row = with_sent(row, contact)
    if channel is not None:
        row = consent.used(row, channel, rule.family, ghost)
    last_fired = {**row.last_fired, caps.last_key(rule.name, ghost): (papers.run_id, now)}
    if candidate.control:
        why = "The user is in the control group: it would have been sent."
        _decide(scope, papers, "control", "holdout", why, moment)
        return replace(row, last_fired=last_fired), replace(run, sequence=0, competing=False)
    offer, coupons = _offer(candidate, coupons, papers.run_id)
    if offer is not None and rule.send.discount_every:
        last_fired[caps.last_key("discount", ghost)] = (papers.run_id, now)
    expires_at = _expires_at(candidate)
    trigger = _trigger(candidate, papers, offer, coupons, format_instant(expires_at, candidate.zone))
    moment.trace.append(trigger)
    moment.tally("triggers", rule.name)
    _decide(scope, papers, "fired", None, trigger.reason, moment)
    alive = [fired for fired in run.fired if fired.expires_at > now]
    said = run.ordinal, run.version, rule.family, rule.mode
    fired = Fired(papers.trigger_id, run.step, run.due_at, expires_at, run.sequence, now, *said)
    return replace(row, last_fired=last_fired), replace(run, sequence=0, competing=False, fired=(*alive, fired))


def _offer(candidate: Candidate, coupons: tuple[str, ...], run_id: str) -> tuple[Offer | None, tuple[str, ...]]:
    """What the message may promise, and the coupons it names."""
    rule, scope = candidate.rule, candidate.scope
    row, run, policy, now = scope.row, scope.run, scope.policy, scope.now
    if run.kind in ("coupon", "pack"):
        coupons = tuple(dict.fromkeys((coupon_of(scope).coupon_id, *coupons)))
    name = candidate.step.offer
    offer = policy.offers.get(name) if name is not None else None
    if offer is None:
        return None, coupons
    if rule.send.coupon_instead and (held := coupon_in_hand(row, now)) is not None:
        return None, tuple(dict.fromkeys((held.coupon_id, *coupons)))
    last = caps.last_of(candidate, "discount")
    if rule.send.discount_every and last is not None:
        other, at = last
        if other != run_id and now - at < rule.send.discount_every:
            return None, coupons
    return offer, coupons


def _expires_at(candidate: Candidate) -> int:
    """The end of the send window: clipped to the night, and to the life of what it is about. It comes after now: the
    gates have let through nothing that is over, or comes at night."""
    rule, scope, zone = candidate.rule, candidate.scope, candidate.zone
    policy = scope.policy
    expires_at = scope.now + rule.send.expires_after
    if rule.send.action == "contact" and not policy.quiet_exempt.issuperset(candidate.channels):
        expires_at = quiet_hours.clip(expires_at, zone, policy.quiet)
    if scope.run.kind in ("coupon", "pack"):
        expires_at = min(expires_at, coupon_of(scope).expires_at)
    return min([expires_at, *(at(scope) for at in rule.end_at)])


def _trigger(
    candidate: Candidate, papers: _Papers, offer: Offer | None, coupons: tuple[str, ...], expires_at: str
) -> Trigger:
    rule, scope, channels = candidate.rule, candidate.scope, candidate.channels
    row, run = scope.row, scope.run
    send = rule.send
    return Trigger(
        trigger_id=papers.trigger_id,
        rule=rule.name,
        rule_version=run.version,
        family=rule.family,
        step=run.step + 1,
        user_id=row.user_id,
        action=send.action,
        class_=candidate.step.kind or send.kind,
        mode=rule.mode,
        arm="treated",
        entry=papers.entry,
        run_id=papers.run_id,
        reason=words.fill(rule.reason, scope, candidate.zone),
        facts=papers.facts,
        evidence=papers.evidence,
        channel=channels[0] if channels else None,
        fallbacks=channels[1:],
        locale=row.locale or scope.policy.locale,
        collapse_key=send.collapse,
        offer=offer,
        coupons=coupons,
        items=items_of(scope),
        recheck=rule.recheck,
        priority=send.priority,
        due_at=papers.due_at,
        decided_at=papers.decided_at,
        not_before=papers.decided_at,
        expires_at=expires_at,
    )


def retract(row: Row, rule: Rule, run: Run, why: str, happening: Happening, moment: Moment) -> None:
    """Takes back what went out and has not expired: a later fact made it wrong. It goes where the trigger went, and
    says of it what the trigger said, whatever the rule has become since."""
    zone = calendar.zone_of(row, moment.catalogue.policy.zone)
    evidence = (
        Evidence(event_id=happening.event_id, type=happening.source, occurred_at=format_instant(happening.at, zone)),
    )
    for fired in run.fired:
        if fired.expires_at <= moment.now:
            continue
        done = replace(
            run,
            version=fired.version or run.version,
            ordinal=fired.ordinal,
            step=fired.step,
            due_at=fired.due_at,
            sequence=fired.sequence + 1,
        )
        scope = Scope(row, done, moment.catalogue.policy, moment.now)
        papers = _papers_without_step(rule, scope)._replace(trigger_id=fired.trigger_id)
        retraction = Retraction(
            retraction_id=ids.retraction_id(fired.trigger_id),
            retracts=fired.trigger_id,
            rule=rule.name,
            rule_version=done.version,
            family=fired.family or rule.family,
            step=fired.step + 1,
            user_id=row.user_id,
            mode=fired.mode or rule.mode,
            entry=papers.entry,
            run_id=papers.run_id,
            reason=why,
            evidence=evidence,
            decided_at=papers.decided_at,
        )
        moment.trace.append(retraction)
        _decide(scope, papers, "retracted", None, why, moment)
