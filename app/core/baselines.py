"""What was before our first event of a user, added up over the accounts that became one.

Each account has its own, so that a baseline that is told again replaces the former one of that account and no other.
"""

from __future__ import annotations

from msgspec.structs import replace

from app.core.row import MAX_MERGED, MAX_MINOR, Baseline, Row


def told(row: Row, account: str, baseline: Baseline) -> Row:
    """The row after somebody said what was before, of this account or of one that became part of it."""
    if account != row.user_id:
        return _added_up(row, row.alone, {**row.merged, account: baseline})
    return _added_up(row, baseline, row.merged) if row.merged else replace(row, baseline=baseline)


def joined(row: Row, others: dict[str, Baseline | None]) -> Row:
    """The row that these accounts became part of. Of too many the oldest lose their names, but no order."""
    alone = row.alone if row.merged else row.baseline
    if row.user_id in others:  # its own history, back from an account that it was part of for a while
        alone = together(alone, others[row.user_id])
    merged = dict(row.merged)
    for account, baseline in others.items():
        if account != row.user_id:
            merged[account] = baseline or merged.get(account)
    for account in list(merged)[: max(0, len(merged) - MAX_MERGED)]:
        alone = together(alone, merged.pop(account))
    return _added_up(row, alone, merged)


def _added_up(row: Row, alone: Baseline | None, merged: dict[str, Baseline | None]) -> Row:
    total = alone
    for baseline in merged.values():
        total = together(total, baseline)
    return replace(row, baseline=total, alone=alone, merged=merged)


def together(one: Baseline | None, other: Baseline | None) -> Baseline | None:
    """Both, as if they had been one account. Spend in another currency than the first one's is not added."""
    if one is None or other is None:
        return other if one is None else one
    firsts = [at for at in (one.first_order_at, other.first_order_at) if at is not None]
    lasts = [at for at in (one.last_order_at, other.last_order_at) if at is not None]
    currency = one.currency or other.currency
    spend = sum(baseline.spend_minor for baseline in (one, other) if baseline.currency == currency)
    return Baseline(
        min(one.registered_at, other.registered_at),
        one.orders + other.orders,
        min(firsts, default=None),
        max(lasts, default=None),
        min(spend, MAX_MINOR),
        currency,
    )
