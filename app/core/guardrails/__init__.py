"""The gates between an event and a message. One file a gate, each with its law; the order is product.md's.

At entry re-entry and the start policy are asked (`runs.entries`): whom they refuse is no candidate, and is counted. The
others are asked at the moment of release, and again after every deferral, in order; the first that objects decides.
Arbitration and holdout follow when these have let a candidate through (`release`).
"""

from __future__ import annotations

from app.core.guardrails import caps, consent, eligibility, quiet_hours, staleness
from app.core.guardrails.verdict import Candidate, Gate, Verdict

CONTACT: tuple[Gate, ...] = (consent.ask, eligibility.ask, staleness.ask, quiet_hours.ask, caps.ask)
#: Grants say nothing to anybody: they meet eligibility and staleness only.
GRANT: tuple[Gate, ...] = (eligibility.ask, staleness.ask)

__all__ = ["CONTACT", "GRANT", "Candidate", "Gate", "Verdict"]
