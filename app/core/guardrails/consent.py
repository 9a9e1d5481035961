"""Consent and suppression: a channel is used only if the user allowed it, or said nothing and the law lets us.

A word about a channel and category outweighs one about the channel, but no older yes a later no to the whole channel.
A quota is used up by one send each. What is transactional needs no consent to marketing, but respects a user who
closed the channel. A ghost takes nothing from a quota; what ghosts would have sent is counted beside it, and uses it up
for ghosts alone.
"""

from __future__ import annotations

from msgspec.structs import replace

from app.core.guardrails.verdict import Candidate, Verdict
from app.core.policy import Policy
from app.core.row import Consent, Row
from app.core.visits import closed_since


def ask(candidate: Candidate) -> Candidate | Verdict:
    """Takes away the channels that may not be used; drops the candidate when none is left."""
    row, policy = candidate.scope.row, candidate.scope.policy
    family, marketing, ghost = candidate.rule.family, candidate.marketing, candidate.ghost
    allowed = tuple([c for c in candidate.channels if may(row, c, family, marketing, policy, ghost)])
    if len(allowed) == len(candidate.channels):
        return candidate
    if allowed:
        return replace(candidate, channels=allowed)
    return Verdict("dropped", "consent", f"The user allows none of the channels {', '.join(candidate.channels)}.")


def word(row: Row, channel: str, family: str) -> tuple[str, Consent | None]:
    """What the user said that concerns this channel and family, and where it stands."""
    key = f"{channel}/{family}"
    said = row.consents.get(key)
    if said is None or (said.granted and said.at <= closed_since(row.consents, channel)):
        return channel, row.consents.get(channel)
    return key, said


def may(row: Row, channel: str, family: str, marketing: bool, policy: Policy, ghost: bool) -> bool:
    """Whether the channel may be used now, or might be, if the candidate were no ghost."""
    said = word(row, channel, family)[1] if row.consents else None
    default = policy.consent.get(channel, "denied")
    if said is None:
        return default == "allowed" or (default == "denied" and not marketing)
    if not said.granted:
        return False
    if said.quota is None:
        return default != "quota"
    return said.quota > (said.unsent if ghost else 0)


def used(row: Row, channel: str, family: str, ghost: bool) -> Row:
    """The row after one send on this channel: a quota is counted down. A ghost's is counted beside it; what is sent
    uses up what was left for ghosts, too."""
    key, said = word(row, channel, family)
    if said is None or said.quota is None:
        return row
    quota, unsent = (said.quota, said.unsent + 1) if ghost else (said.quota - 1, min(said.unsent, said.quota - 1))
    return replace(row, consents={**row.consents, key: replace(said, quota=quota, unsent=unsent)})
