"""Consent and suppression: a channel is used only if the user allowed it, or said nothing and the law lets us.

A word about a channel and category outweighs one about the channel; a quota is used up by one send each. What is
transactional needs no consent to marketing, but respects a user who closed the channel.
"""

from __future__ import annotations

from msgspec.structs import replace

from app.core.guardrails.verdict import Candidate, Verdict
from app.core.policy import Policy
from app.core.row import Consent, Row


def ask(candidate: Candidate) -> Candidate | Verdict:
    """Takes away the channels that may not be used; drops the candidate when none is left."""
    row, policy = candidate.scope.row, candidate.scope.policy
    family, marketing = candidate.rule.family, candidate.marketing
    allowed = tuple([c for c in candidate.channels if may(row, c, family, marketing, policy)])
    if len(allowed) == len(candidate.channels):
        return candidate
    if allowed:
        return replace(candidate, channels=allowed)
    return Verdict("dropped", "consent", f"The user allows none of the channels {', '.join(candidate.channels)}.")


def word(row: Row, channel: str, family: str) -> tuple[str, Consent | None]:
    """What the user said that concerns this channel and family, and where it stands."""
    key = f"{channel}/{family}"
    return (key, row.consents[key]) if key in row.consents else (channel, row.consents.get(channel))


def may(row: Row, channel: str, family: str, marketing: bool, policy: Policy) -> bool:
    """Whether the channel may be used now."""
    said = word(row, channel, family)[1] if row.consents else None
    default = policy.consent.get(channel, "denied")
    if said is None:
        return default == "allowed" or (default == "denied" and not marketing)
    if not said.granted:
        return False
    return default != "quota" if said.quota is None else said.quota > 0


def used(row: Row, channel: str, family: str) -> Row:
    """The row after one send on this channel: a quota is counted down."""
    key, said = word(row, channel, family)
    if said is None or said.quota is None:
        return row
    return replace(row, consents={**row.consents, key: replace(said, quota=said.quota - 1)})
