"""Maximum rate: a rule releases at most so many candidates in any stretch of so long, whoever they are for.

It is the rate of the whole deployment; whoever calls has cut it into equal shares. A share is a row of slots, evenly
spaced, and its state is one instant: when the next slot is free. Who comes before that is given a slot of its own and
goes out when it comes back with it, so that a storm is asked twice and not over and over. A slot is void when another
gate holds its candidate back meanwhile, or when its candidate comes too late with it: after a standstill all who waited
would come at once. It is then given another one, once; with that one it goes out however late it comes.

The rate protects the services behind a trigger, so grants meet it as well. A ghost (of the control group, or of a rule
in shadow mode) sends nothing and takes nobody's slot; it waits as long as it would have had to, so that both arms of a
comparison wait alike.
"""

from __future__ import annotations

from typing import NamedTuple

from app.core import words
from app.core.guardrails.verdict import Candidate, Verdict
from app.core.row import NEVER
from app.core.rules import Rate


class Budget(NamedTuple):
    """What is left of a rule's rate here and now. Microseconds."""

    spacing: int
    """From one slot to the next."""
    tolerance: int
    """A slot is good for so long after its instant, the first one that a candidate is given."""
    free_from: int = 0
    """When the next slot is free."""
    limit: str = "The rule sends no more now"
    """The rate in words: it holds for runs of earlier versions of the rule, too."""


class SlotTaken(NamedTuple):
    """A change of a budget, for whoever keeps it."""

    rule: str
    free_from: int


def budget(rate: Rate, shares: int, tolerance: int) -> Budget:
    """One of so many equal shares of a rate. A share of less than one candidate is one in a longer stretch, so that up
    to one of each share may come in the same instant.

    Slots may be used `tolerance` late, so a stretch sees those of `tolerance` before it, too: they are spaced for that.
    """
    each, stretch = rate.most // shares, rate.window + tolerance
    spacing = -(-stretch // each) if each else -(-stretch * shares // rate.most)
    limit = f"The rule sends at most {rate.most:,} in {words.length(rate.window)}"
    return Budget(spacing, tolerance, limit=limit)


def ask(candidate: Candidate, left: Budget) -> tuple[Verdict | None, Budget]:
    """What there is to object, and the budget after it. Asked last, when everything else lets the candidate out."""
    rule, run, now = candidate.rule, candidate.scope.run, candidate.scope.now
    held = run.sequence and run.slot
    if held and now <= run.slot:
        return None, left  # it comes back with its slot
    slot = max(now, left.free_from)
    after = left if candidate.ghost else left._replace(free_from=slot + left.spacing)
    if slot == now:
        return None, after
    if rule.send.on_cap == "drop" or slot > run.due_at + rule.send.expires_after:
        return Verdict("dropped", "cap", f"{left.limit}; its turn would come too late."), left
    good_until = NEVER if held else slot + left.tolerance
    return Verdict("deferred", "cap", f"{left.limit}; it waits for its turn.", slot, good_until), after
