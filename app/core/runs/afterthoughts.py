"""A purchase that is heard of late (by itself, or with the account that it was made under), or taken back, changes what
runs that were entered after it were entered upon.

Who would not have entered, had it been known, exits, and what went out to the user is taken back; what waits is timed
by the rhythm that is known now. A grant stays given.
"""

from __future__ import annotations

from msgspec.structs import replace

from app.core import release
from app.core.happenings import Happening, payment_of
from app.core.moment import Moment
from app.core.purchases import is_paid
from app.core.row import Row, Run
from app.core.rules import Rule
from app.core.runs.ends import close
from app.core.runs.entries import let_in_anew
from app.core.runs.keeping import each_run, put
from app.core.runs.timing import by_the_rhythm
from app.core.scope import Scope
from schemas.events import OrderPaid, ProductViewed, UserRegistered

#: Events whose conditions can be asked again later, as of the entry, of rules with these keys: nothing in them is about
#: the event itself.
_KEYS = {
    OrderPaid.TYPE: frozenset({"user"}),
    UserRegistered.TYPE: frozenset({"user"}),
    ProductViewed.TYPE: frozenset({"category", "product_type"}),
}


def heard_late(row: Row, since: int, happening: Happening, moment: Moment) -> Row:
    """This happening tells of purchases since then, older than something that the user was known to have done."""
    for name in sorted(row.runs):
        runs = row.runs[name]
        left = [run for run in runs if not _exits(row, run, since, happening, moment)]
        if len(left) < len(runs):
            row = put(row, name, left, moment)
            freed = {name, runs[0].rule}  # as if they had never been entered
            row = replace(row, entries={key: at for key, at in row.entries.items() if key not in freed})
    return timed_anew(row, moment)


def timed_anew(row: Row, moment: Moment) -> Row:
    """What waits for its first step, by the purchases that count now."""
    return each_run(row, lambda run: _timed(row, run, moment), moment)


def taken_back(row: Row, before: Row, moment: Moment) -> Row:
    """A purchase counts no more (`before`, it did): what waits is timed anew, and the latest that counts, or looks at
    what is not bought after all, may be the entries that they were not with it."""
    row = timed_anew(row, moment)
    for happening in (*_latest_purchase(row), *_looks(row)):
        for rule, enter in moment.catalogue.entered_by.get(happening.kind, ()):
            if rule.key in _KEYS[happening.kind] and enter.when is not None and not rule.steps[0].at_once:
                row = let_in_anew(row, before, rule, enter, happening, moment)
    return row


def _latest_purchase(row: Row) -> list[Happening]:
    orders = [order for order in row.orders.values() if is_paid(order)]
    orders.sort(key=lambda order: (order.paid_at or 0, order.order_id))
    return [payment_of(order) for order in orders[-1:]]


def _looks(row: Row) -> list[Happening]:
    kind = ProductViewed.TYPE
    return [
        Happening(kind, at, event_id, kind, thing=view.product_id)
        for view in row.views.values()
        for at, event_id, _ in view.looks
    ]


def _exits(row: Row, run: Run, since: int, happening: Happening, moment: Moment) -> bool:
    """Whether the run would not have been entered; what is to be said of it then is said."""
    rule = moment.catalogue.rule_of(run)
    assert rule is not None  # `adapt` has let such runs exit
    concerned = rule.send.action == "contact" and run.entered_at > since
    if not concerned or _may_have_entered(row, rule, run, moment):
        return False
    if not run.ends:
        run = close(row, rule, run, "not to be entered: a purchase before it was heard of late", moment)
        moment.tally("runs", "exited", rule.name)
    why = "A purchase before it was entered was only heard of afterwards."
    release.retract(row, rule, run, why, happening, moment)
    return True


def _may_have_entered(row: Row, rule: Rule, run: Run, moment: Moment) -> bool:
    """Whether the condition of the entry holds by what is known now; who knows, if what it asks for is not kept."""
    kind = run.evidence[0][1] if run.evidence else ""
    if rule.key not in _KEYS.get(kind, ()):
        return True
    if kind == ProductViewed.TYPE and not any(look.event_id == run.event_id for look in _looks(row)):
        return True
    scope = Scope(row, run, moment.catalogue.policy, run.entered_at)
    asked = [enter.when for enter in rule.enter if enter.on == kind]
    return not asked or any(when is None or when(scope) for when in asked)


def _timed(row: Row, run: Run, moment: Moment) -> Run:
    rule = moment.catalogue.rule_of(run)
    assert rule is not None  # `adapt` has let such runs exit
    return by_the_rhythm(row, rule, run, moment)
