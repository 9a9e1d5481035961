"""The life stage that is published in the end does not hang on the order of arrival within a span of LATENESS."""

from __future__ import annotations

from decimal import Decimal
from itertools import groupby
from random import Random
from typing import Any

import orjson
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from app.core.rules import index
from app.rulebook import load
from schemas import events as ev
from schemas.events import INPUT_TOPICS
from tests.core.shard import Shard
from tests.core.shop import DAY, MINUTE
from tests.properties.histories import START

#: The shop's table, and nobody to be written to.
TABLE = index({}, load().policy)
LATENESS, DAYS = 3 * DAY, 240
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

_orders = st.integers(0, 9).map(lambda n: {"order_id": f"o-{n}"} | ({"parent_order_id": f"p-{n % 2}"} if n > 6 else {}))
_taken = st.integers(0, 9).map(lambda n: {"order_id": f"o-{n}"})
_HAPPENING = st.one_of(
    st.tuples(st.just(ev.OrderPaid), _orders),
    st.tuples(st.just(ev.OrderPaid), _orders),
    st.tuples(st.sampled_from([ev.OrderCancelled, ev.OrderRefunded]), _taken),
    st.tuples(st.just(ev.UserRegistered), st.just({})),
    st.tuples(
        st.just(ev.CustomerBaseline),
        st.sampled_from([0, 2, 5]).map(
            lambda n: {
                "registered_at": START - 400 * DAY,
                "orders": n,
                "last_order_at": START - (1 + 9 * n) * DAY if n else None,
            }
        ),
    ),
)


@st.composite
def lives(draw: st.DrawFn) -> list[ev.Event]:
    """What a customer buys and gives back in eight months, mostly in a few busy weeks. An order is paid once, what was
    before is told once."""
    weeks = draw(st.lists(st.integers(0, DAYS), min_size=1, max_size=4))
    minutes = st.builds(
        lambda day, minute: day * DAY // MINUTE + minute, st.sampled_from(weeks), st.integers(0, 9 * 1440)
    )
    count = draw(st.integers(1, 25))
    found = draw(st.lists(st.tuples(minutes, _HAPPENING), min_size=count, max_size=count))
    found.sort(key=lambda moment: moment[0])
    life: list[ev.Event] = []
    once: set[tuple[Any, ...]] = set()
    for number, (minute, (kind, fields)) in enumerate(found):
        which = (kind, fields.get("order_id"))
        if kind is ev.OrderPaid:
            fields = {"currency": "CNY", "total": Decimal(100), "lines": (), **fields}
        if which not in once:
            life.append(kind(event_id=f"e-{number:03}", user_id="u-1", occurred_at=START + minute * MINUTE, **fields))
        once.add(which)
    return life


def _span(each: ev.Event) -> int:
    return (each.occurred_at - START) // LATENESS


def published(arriving: list[ev.Event], days: int) -> list[str]:
    """The stages that are published when time stands still for all that happens within a span, until so many days after
    the last one."""
    shard = Shard(TABLE, inputs=INPUT_TOPICS, lateness=LATENESS)
    end = START
    for span, those in groupby(arriving, key=_span):
        end = START + (span + 1) * LATENESS
        shard.clock(end).run(*those)
    shard.clock(end + days * DAY).run()
    return [orjson.loads(output.value)["to"] for output in shard.outputs if output.topic == "lifecycle.stages"]


@MANY
@given(lives(), st.integers(0, 1 << 32), st.sampled_from([0, 1, 20, 31, 62, 100]))
def test_the_stage_in_the_end_is_the_same_in_any_order_of_arrival_within_the_lateness(
    life: list[ev.Event], seed: int, days: int
) -> None:
    dice = Random(seed)
    shuffled = sorted(life, key=lambda each: (_span(each), dice.random()))
    at_once, in_any = published(life, days), published(shuffled, days)
    event(f"shuffled: {shuffled != life}, stages: {min(len(at_once), 3)}, in the end: {at_once[-1:]}")
    assert in_any[-1:] == at_once[-1:]
