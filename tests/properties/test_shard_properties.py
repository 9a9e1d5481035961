"""What holds of every log of events, by a shard with several inputs and users."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from schemas import events as ev
from schemas.codec import encode_event
from schemas.events import INPUT_TOPICS
from tests.core.shard import Shard
from tests.core.shop import DAY
from tests.properties.histories import LATENESS, NIGHTLY, RULES, START, histories, shuffled_days

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
END = START + 400 * DAY


def shard(of: Any = NIGHTLY, **changes: Any) -> Shard:
    return Shard(of, **({"inputs": INPUT_TOPICS} | changes))


def timed(done: Shard) -> set[tuple[Any, ...]]:
    """What is sent and when, and what is taken back of it."""
    of_trigger = ("trigger_id", "retracts", "user_id", "rule", "step", "due_at", "reason")
    return set(done.sent(lambda t: tuple(t.get(name) for name in of_trigger)))


@FEW
@given(st.data())
def test_shuffling_arrival_within_the_lateness_keeps_what_is_sent(data: st.DataObject) -> None:
    history = data.draw(histories(users=3, most=20))
    arrival = shuffled_days(data.draw, history)
    note(str(arrival))
    in_order = shard(RULES, lateness=LATENESS).write(*history).clock(END).run()
    shuffled = shard(RULES, lateness=LATENESS).write(*arrival).clock(END).run()
    assert timed(shuffled) == timed(in_order)
    assert shuffled.processor.pending_timers == in_order.processor.pending_timers == 0


@FEW
@given(histories(users=3, most=20), st.data())
def test_batches_fetches_and_restarts_at_any_point_change_not_a_byte(
    history: list[ev.Event], data: st.DataObject
) -> None:
    plain = shard().write(*history).clock(END).run()
    cut = shard().write(*history).clock(END)
    while cut.committed != plain.committed or cut.processor.merged < plain.processor.merged:
        cut.fetch(most=data.draw(st.integers(1, 4)))
        cut.take(data.draw(st.sampled_from([1, 2, 7])))
        if data.draw(st.booleans()):
            cut.reopen()
    assert cut.outputs == plain.outputs
    assert cut.state() == plain.state()


@FEW
@given(histories(users=2, most=16), st.data())
def test_events_that_are_sent_again_change_not_a_byte(history: list[ev.Event], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(history), max_size=6)) if history else []
    repeated = sorted([*history, *again], key=lambda each: each.occurred_at)
    plain = shard(lateness=LATENESS).write(*history).clock(END).run()
    twice = shard(lateness=LATENESS).write(*repeated).clock(END).run()
    assert twice.outputs == plain.outputs
    assert twice.state() == plain.state()


@FEW
@given(histories(users=3, most=20), st.integers(1, 40))
def test_under_the_wall_clock_what_is_sent_is_never_early_and_never_stale(history: list[ev.Event], days: int) -> None:
    """The worker looks every few days only, with all that was written meanwhile before it."""
    done = shard(RULES, clock="wall", lateness=0, start="since:0")
    written = 0
    for look in range(START, END, days * DAY):
        while written < len(history) and history[written].occurred_at <= look:
            done.write(history[written])
            written += 1
        done.look(look).run()
    for trigger in [orjson.loads(o.value) for o in done.outputs if "fired" in str(dict(o.headers).get("ce_type"))]:
        assert trigger["due_at"] <= trigger["decided_at"] < trigger["expires_at"]
    for decision in done.decisions():
        assert decision["due_at"] <= decision["decided_at"]
    finals = [d["trigger_id"] for d in done.decisions() if d["final"]]
    assert len(finals) == len(set(finals))


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=6,
)


@FEW
@given(histories(most=4), st.data())
def test_no_message_however_mutated_stops_the_flow(history: list[ev.Event], data: st.DataObject) -> None:
    bad: list[Any] = []
    for each in history:
        fields = orjson.loads(encode_event(each))
        fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(_json)
        bad.append((each.TOPIC, (each.user_id.encode(), orjson.dumps(fields))))
    bad.append((data.draw(st.sampled_from(INPUT_TOPICS)), (data.draw(st.none() | st.binary()), data.draw(st.binary()))))
    good = ev.OrderPaid(
        event_id="good",
        user_id="u-9",
        occurred_at=END - DAY,
        order_id="o-1",
        currency="CNY",
        total=Decimal(1),
        lines=(),
    )
    done = shard().write(*bad, good).clock(END).run()
    assert done.processor.row("u-9").orders.keys() == {"o-1"}
    assert sum(done.committed.values()) == len(bad) + 1 + len(INPUT_TOPICS)
