"""Holdout: some users get nothing, for good, so that what the others do can be compared.

Who that is hangs on a salted hash of the user, for all rules or for one: growing the share moves nobody out.
"""

from __future__ import annotations

from app.core import ids
from app.core.policy import Policy
from app.core.rules import Rule


def is_control(rule: Rule, user_id: str, policy: Policy) -> bool:
    """Whether this user is held out of this rule."""
    if policy.holdout_share > 0 and ids.share_of(policy.holdout_salt, user_id) < policy.holdout_share:
        return True
    return rule.holdout > 0 and ids.share_of(f"{policy.holdout_salt}/{rule.name}", user_id) < rule.holdout
