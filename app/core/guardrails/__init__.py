"""The gates between a due step and a message. One file a gate, each with its law; `ORDER` is theirs (product.md).

A gate is asked at the moment of release, and again after every deferral, in order; the first that objects decides.
"""

from __future__ import annotations

from app.core.guardrails import eligibility, quiet_hours, staleness
from app.core.guardrails.verdict import Candidate, Gate, Verdict

#: For contacts. Grants meet eligibility and staleness only: they say nothing to anybody.
CONTACT: tuple[Gate, ...] = (eligibility.ask, staleness.ask, quiet_hours.ask)
GRANT: tuple[Gate, ...] = (eligibility.ask, staleness.ask)

__all__ = ["CONTACT", "GRANT", "Candidate", "Gate", "Verdict"]
