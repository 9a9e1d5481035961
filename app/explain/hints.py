"""What is no mistake of a rule, but may not be meant: what the shop as a whole makes of it.

A reader checks a rule by itself; here it stands beside the night and the window of its shop.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.core.guardrails import quiet_hours
from app.core.policy import Policy
from app.core.rules import Catalogue, Rule
from app.explain.language import listed
from schemas.instant import DAY, HOUR, MINUTE


def hints(catalogue: Catalogue) -> Iterator[str]:
    """A sentence for each rule with something that may be lost before it can go out, and for offers that are not all
    in the shop's one currency."""
    currencies = sorted(
        {offer.currency for offer in catalogue.policy.offers.values() if offer.value and offer.currency}
    )
    if len(currencies) > 1:
        yield (
            f"shop.yaml: its offers are in {listed(currencies, 'and')}. They go out as they stand there, whatever "
            "currency an order was in: if the shop has one currency, write that one."
        )
    for rule in catalogue.rules.values():
        waits = dict(_waits(rule, catalogue.policy))
        longest, limit = sum(waits.values()), rule.send.expires_after
        if limit < longest:
            yield (
                f"{rule.name}: what is due may have to wait for {_span(longest)} ({listed(waits, 'and')}), and is "
                f"worth sending for {_span(limit)}: some of it is never sent. If that is not meant, write "
                f"'expires_after: {-(-longest // HOUR)}h' or more."
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
