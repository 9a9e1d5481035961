"""Two accounts of one person: whenever they are merged, what is known and what is said is as if they had been one."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.core import engine
from app.core.purchases import last_order_at, paid_orders
from app.core.row import Row, encode
from app.core.transfers import History
from schemas import events as ev
from tests.core.shop import DAY, Desk
from tests.properties.histories import RULES, START, histories

FEW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
END = START + 1200 * DAY


def thing_of(each: ev.Event) -> str:
    """What the event is about: all that is said of an order or a coupon is said of one account."""
    return getattr(each, "coupon_id", None) or getattr(each, "order_id", None) or each.event_id


def merge(into: Desk, other: Desk, at: int) -> None:
    told = History(into.row.user_id, (other.row.user_id,), "merge", at, None)
    into.now = max(into.now, other.now)
    into.row = engine.absorb(into.row, told, other.row, into._moment(into.now, into.floor))


def known(row: Row) -> dict[str, Any]:
    """What counts, whatever the order in which it was heard of."""
    return {
        "orders": {n: replace(o, paid_event_id="") for n, o in row.orders.items()},
        "coupons": {n: c for n, c in row.coupons.items() if c.issued_at is not None},
        "counts": (paid_orders(row), last_order_at(row), row.old_orders, row.old_spend_minor),
        "seen": (row.last_login_at, row.last_seen_at, row.registered_at, row.zone),
    }


def sent(desk: Desk) -> set[tuple[Any, ...]]:
    back = {retraction.retracts for retraction in desk.retractions}
    return {(t.trigger_id, t.rule, t.step, t.due_at, t.reason) for t in desk.triggers if t.trigger_id not in back}


@FEW
@given(histories(most=12), st.data())
def test_whenever_accounts_are_merged_all_is_as_if_they_had_been_one(
    history: list[ev.Event], data: st.DataObject
) -> None:
    history = [each for each in history if not isinstance(each, ev.CustomerBaseline)]  # is added up: see the core
    accounts = {thing: data.draw(st.sampled_from(["u-1", "u-2"])) for thing in map(thing_of, history)}
    arrival = data.draw(st.permutations(history))
    merged_after = data.draw(st.integers(0, len(history)))
    note(f"{accounts} merged after {merged_after} of {[(e.event_id, e.TYPE) for e in arrival]}")
    one, other = Desk(RULES), Desk(RULES)
    other.row = Row("u-2")
    for each in arrival[:merged_after]:
        (one if accounts[thing_of(each)] == "u-1" else other).say(each)
    merge(one, other, START)
    before = encode(one.row)
    merge(one, other, START)  # told again
    assert encode(one.row) == before
    one.say(*arrival[merged_after:])
    alone = Desk(RULES).say(*arrival)
    event(f"orders of the other: {min(len(other.row.orders), 3)}")
    assert known(one.row) == known(alone.row)
    assert sent(one.wait(END)) == sent(alone.wait(END))
