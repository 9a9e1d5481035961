"""Looks at a product: how many visits they make, and what they came to at any instant that may still be asked about.

A late look belongs between those that were here before it. So the looks that an earlier one may still join are kept one
by one; of all older ones only their sum.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter

from msgspec.structs import replace

from app.core.row import Look, View
from schemas.instant import MINUTE

#: A look at a product this long after the last one is another visit.
VISIT_GAP = 30 * MINUTE
#: Looks at one product that are kept one by one; of more, the oldest are only counted.
MAX_LOOKS = 16
_NONE = (-1, 0, 0)
_at = itemgetter(0)


def added(view: View, look: Look, floor: int, bought: Sequence[int] = ()) -> View:
    """The product with one more look; none before `floor` (microseconds UTC) is expected any more. The new one is kept,
    so that one can ask what was known without it. What was looked at before it was bought is not counted on: the sum
    begins anew after each instant at which it was."""
    place = bisect_right(view.looks, look[0], key=_at)
    looks = (*view.looks[:place], look, *view.looks[place:])
    summed, settled = _summed(view), 0
    while (settled < place and looks[settled][0] < floor) or len(looks) - settled > MAX_LOOKS:
        at = looks[settled][0]
        if bought and any(summed[0] <= when < at for when in bought):
            summed = _NONE
        summed = _with(summed, looks[settled])
        settled += 1
    return _counted(replace(view, summed=summed, looks=looks[settled:]))


def _summed(view: View) -> tuple[int, int, int]:
    return view.summed if view.looks else (view.last_at, view.visits, view.dwell)


def settles(view: View, floor: int) -> bool:
    """Whether, with one more, looks that were kept one by one will only be counted."""
    return bool(view.looks) and (view.looks[0][0] < floor or len(view.looks) >= MAX_LOOKS)


def first(view: View) -> int:
    """The earliest look that can be told apart from those before it."""
    summed = view.summed[0] if view.looks else view.last_at
    return summed if summed >= 0 else view.looks[0][0]


def _with(summed: tuple[int, int, int], look: Look) -> tuple[int, int, int]:
    """(latest look, visits, longest look) with one more look, which may also be older than the latest."""
    last_at, visits, dwell = summed
    at = look[0]
    another = last_at < 0 or abs(at - last_at) >= VISIT_GAP
    return (max(at, last_at), visits + another, max(dwell, look[2]))


def _counted(view: View) -> View:
    """The view with what its sum and its looks come to."""
    summed = view.summed
    for look in view.looks:
        summed = _with(summed, look)
    last_at, visits, dwell = summed
    kept = view.summed if view.looks else _NONE
    return replace(view, last_at=last_at, visits=visits, dwell=dwell, summed=kept)


def as_of(view: View, now: int, since: int = -1) -> View | None:
    """What the looks after one instant had come to at another; None = the product had not been looked at."""
    if view.last_at <= now and since < 0:
        return view
    looks = view.looks[bisect_right(view.looks, since, key=_at) : bisect_right(view.looks, now, key=_at)]
    summed = _summed(view)
    then = _counted(replace(view, summed=_NONE if summed[0] <= since else summed, looks=looks))
    return then if then.visits else None


def after(view: View, at: int, event_id: str) -> list[tuple[int, str]]:
    """(instant, event id) of the looks that are known to have come after this one."""
    return [look[:2] for look in view.looks if look[:2] > (at, event_id)]


def without(view: View, event_id: str) -> View:
    """The product as if this look had not been heard of."""
    looks = tuple([look for look in view.looks if look[1] != event_id])
    return _counted(replace(view, summed=_summed(view), looks=looks))


def together(mine: View, theirs: View) -> View:
    """Looks of two accounts at one product: visits add up."""
    (last_at, visits, dwell), other = _summed(mine), _summed(theirs)
    summed = (max(last_at, other[0]), visits + other[1], max(dwell, other[2]))
    return _counted(replace(mine, summed=summed, looks=tuple(sorted({*mine.looks, *theirs.looks}))[-MAX_LOOKS:]))
