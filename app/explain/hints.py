"""What is no mistake of a rule, but may not be meant: what the shop as a whole makes of it, and what it makes of time.

A reader checks a rule by itself; here it stands beside the night and the window of its shop, and beside what it is
about: a coupon that lives shorter than the rule thinks.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from app.core.guardrails import quiet_hours
from app.core.policy import Policy
from app.core.row import Coupon, Row, Run
from app.core.rules import Catalogue, Rule
from app.core.scope import Scope
from app.explain.language import listed
from schemas.instant import DAY, HOUR, MINUTE

#: News that is older than this is none; what a grant gives is as good later.
_OLD = 14 * DAY
#: A coupon may live as short as this: what is timed by its life comes in time all the same.
_SHORT_LIFE = HOUR
#: Names of product types less alike than this are two.
_ALIKE = 0.8
#: Some day on which one may be issued.
_A_DAY = 20_000 * DAY


def hints(catalogue: Catalogue) -> Iterator[str]:
    """A sentence for each rule, and each word of the shop, that may not be meant."""
    yield from _currencies(catalogue.policy)
    for rule in catalogue.rules.values():
        yield from (f"{rule.name}: {said}" for said in _of(rule, catalogue.policy))
    yield from _companions(catalogue.policy)


def _currencies(policy: Policy) -> Iterator[str]:
    currencies = sorted({offer.currency for offer in policy.offers.values() if offer.value and offer.currency})
    if len(currencies) > 1:
        yield (
            f"shop.yaml: its offers are in {listed(currencies, 'and')}. They go out as they stand there, whatever "
            "currency an order was in: if the shop has one currency, write that one."
        )


def _of(rule: Rule, policy: Policy) -> Iterator[str]:
    waits = dict(_waits(rule, policy))
    longest, limit = sum(waits.values()), rule.send.expires_after
    if limit < longest:
        yield (
            f"what is due may have to wait for {_span(longest)} ({listed(waits, 'and')}), and is "
            f"worth sending for {_span(limit)}: some of it is never sent. If that is not meant, write "
            f"'expires_after: {-(-longest // HOUR)}h' or more."
        )
    if rule.send.action == "contact" and limit > _OLD:
        yield (
            f"what is due may still be sent {limit // DAY} days later, be it no longer true by then. If that is not "
            "meant, write an 'expires_after' of hours, or of a few days."
        )
    if rule.key == "user" and rule.reentry == "every_key":
        yield "a user has but one key, so 'reentry: every_key' lets nobody enter twice. Write 'once', or 'after_exit'."
    late = [number for number, due in _after_the_coupon(rule, policy) if due]
    if late:
        yield (
            f"step {listed(map(str, late), 'and')} may come when the coupon has expired, and is then never sent. Time "
            "it by coupon.expires_at or coupon.validity; or if it is meant, say so: 'ends: [{at: coupon.expires_at}]'."
        )


def _after_the_coupon(rule: Rule, policy: Policy) -> Iterator[tuple[int, bool]]:
    """By step: whether it comes to one whose coupon lived but an hour, and nothing in the rule has an eye to that."""
    if rule.key not in ("coupon", "pack") or all(enter.on != "CouponIssued" for enter in rule.enter):
        return
    expires_at = _A_DAY + _SHORT_LIFE
    coupon = Coupon("coupon", issued_at=_A_DAY, valid_from=_A_DAY, expires_at=expires_at)
    run = Run(rule.name, rule.version, rule.key, "coupon", "issued", _A_DAY)
    scope = Scope(Row("user", coupons={"coupon": coupon}), run, policy, _A_DAY)
    if any(at(scope) <= expires_at for at in rule.end_at):
        return
    due = _A_DAY
    for number, step in enumerate(rule.steps, 1):
        due = step.at(scope) if step.at is not None else due + (step.after(scope) if step.after is not None else 0)
        then = Scope(scope.row, run, policy, due)
        yield number, due >= expires_at and (rule.check is None or rule.check(then))


def _companions(policy: Policy) -> Iterator[str]:
    """Any text may be a product type; what looks like one that is known, and is none, may be misspelt."""
    named = dict.fromkeys(name for pair in policy.companions.items() for name in pair)
    for name in (one for one in named if one not in policy.intervals):
        spelt = {other.lower(): other for other in policy.intervals}
        near = get_close_matches(name.lower().replace(" ", "_"), spelt, 1, _ALIKE)
        if near:
            yield (
                f"shop.yaml, companions: '{name}' has no interval, and looks like '{spelt[near[0]]}', which has "
                "one. If it is a product type of its own, all is well."
            )


def _waits(rule: Rule, policy: Policy) -> Iterator[tuple[str, int]]:
    """What a message of the rule may have to wait for, one after the other, and how long each may take, microseconds.
    Caps, pauses and a maximum rate may take any time."""
    quiet = policy.quiet
    night = (quiet.end_minute - quiet.start_minute) * MINUTE % DAY
    if night and quiet_hours.applies(rule, policy):
        yield f"the night, {_span(night)}", night
        if quiet.jitter:
            yield f"its turn in the morning, {_span(quiet.jitter)} at most", quiet.jitter
    competes = any((step.kind or rule.send.kind) == "marketing" and not step.at_once for step in rule.steps)
    if policy.window and competes and rule.send.action == "contact":
        yield f"something better, {_span(policy.window)}", policy.window


def _span(span: int) -> str:
    """'13 h 15 min', rounded up to minutes."""
    hours, minutes = divmod(-(-span // MINUTE), 60)
    return " ".join(part for part, said in ((f"{hours} h", hours), (f"{minutes} min", minutes)) if said)
