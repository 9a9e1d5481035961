"""The Complete Journey data goes through the contract whole, in order, and what was made up says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from app.replay.journey import BEGINS, ENDS, SIMULATED, Journey, load_journey
from app.replay.journey_data import JourneyProblem, load_tables, product_types
from app.replay.outgoing import Outgoing
from schemas.codec import DecodeOptions, decode
from schemas.events import INPUT_TOPICS, CouponIssued, CouponRedeemed, Event, OrderPaid
from schemas.instant import DAY

NOW_MS = 1_790_000_000_000


@pytest.fixture(scope="module")
def decoded(events: list[Outgoing]) -> list[Event]:
    found = []
    for event in events:
        read = decode(event.input, event.key, event.value, NOW_MS, DecodeOptions())
        assert isinstance(read, Event), read
        found.append(read)
    return found


def test_every_event_is_valid_and_says_the_same_time_user_and_topic_as_its_record(
    events: list[Outgoing], decoded: list[Event]
) -> None:
    for outgoing, event in zip(events, decoded, strict=True):
        assert event.occurred_at == outgoing.occurred_at
        assert outgoing.key == event.user_id.encode()
        assert outgoing.input == event.TOPIC


def test_events_come_in_time_order_and_at_one_instant_in_the_order_of_the_inputs(events: list[Outgoing]) -> None:
    order = [(event.occurred_at, INPUT_TOPICS.index(event.input)) for event in events]
    assert order == sorted(order)
    assert order[0][0] == BEGINS
    assert order[-1][0] < ENDS


def test_the_same_bytes_come_out_in_another_process_with_another_hash_seed(events: list[Outgoing]) -> None:
    code = (
        "import hashlib; from app.replay.journey import load_journey; h = hashlib.sha256()\n"
        "for e in load_journey(5).events(): h.update(repr(e).encode())\nprint(h.hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_no_event_id_comes_twice(decoded: list[Event]) -> None:
    assert len({event.event_id for event in decoded}) == len(decoded)


def test_the_counts_told_are_those_of_the_stream(journey: Journey, decoded: list[Event]) -> None:
    counted = Counter(event.TYPE for event in decoded)
    assert counted == journey.counts + journey.simulated
    assert len(journey) == len(decoded)


def test_every_basket_with_goods_in_it_is_an_order(
    raw: dict[str, Any], chosen: set[int], decoded: list[Event], journey: Journey
) -> None:
    sales = raw["transactions"]
    baskets = set(sales[sales["household_id"].isin(chosen)]["basket_id"])
    orders = {int(event.order_id) for event in decoded if isinstance(event, OrderPaid)}
    assert orders <= baskets
    assert len(baskets - orders) == journey.left_out["baskets with nothing left"]
    empty = sales[sales["basket_id"].isin(baskets - orders)].merge(raw["products"], on="product_id", how="left")
    assert ((empty["quantity"] == 0) | (empty["department"] == "COUPON")).all()


def test_every_line_is_there_but_those_that_say_they_were_left_out(
    raw: dict[str, Any], chosen: set[int], decoded: list[Event], journey: Journey
) -> None:
    sales = raw["transactions"]
    of_chosen = sales[sales["household_id"].isin(chosen)]
    lines = [line for event in decoded if isinstance(event, OrderPaid) for line in event.lines]
    left_out = (
        journey.left_out["lines at quantity 0 and no price"] + journey.left_out["lines that are coupons, not goods"]
    )
    assert len(lines) == len(of_chosen) - left_out == journey.lines
    assert left_out < len(of_chosen) / 100


def test_what_was_paid_adds_up_to_the_data_to_the_cent(raw: dict[str, Any], decoded: list[Event]) -> None:
    orders = {int(event.order_id): event.total for event in decoded if isinstance(event, OrderPaid)}
    sales = raw["transactions"]
    sales = sales[sales["basket_id"].isin(orders)]
    paid = (sales["sales_value"] - sales["coupon_disc"]).groupby(sales["basket_id"]).sum()
    for basket, expected in paid.items():
        assert orders[basket] == max(Decimal(0), Decimal(f"{expected:.2f}")), basket


def test_a_tank_of_gasoline_is_one_piece_at_the_price_of_the_whole(raw: dict[str, Any], decoded: list[Event]) -> None:
    fuel = {
        str(number)
        for number, kind in zip(raw["products"]["product_id"], raw["products"]["product_type"], strict=True)
        if str(kind).startswith("GASOLINE")
    }
    lines = [line for event in decoded if isinstance(event, OrderPaid) for line in event.lines]
    tanks = [line for line in lines if line.product_id in fuel]
    assert tanks
    assert all(line.quantity == 1 for line in tanks)
    assert max(line.unit_price or 0 for line in tanks) > 10
    assert max(line.quantity for line in lines) < 200


def test_redemptions_are_those_of_the_data_and_each_falls_on_an_order_of_its_day(
    raw: dict[str, Any], chosen: set[int], decoded: list[Event]
) -> None:
    table = raw["coupon_redemptions"]
    table = table[table["household_id"].isin(chosen)]
    expected = Counter(
        f"cj-coupon-{campaign}-{household}"
        for campaign, household in zip(table["campaign_id"], table["household_id"], strict=True)
    )
    redeemed = [event for event in decoded if isinstance(event, CouponRedeemed)]
    assert Counter(event.coupon_id for event in redeemed) == expected
    orders = {event.order_id: event for event in decoded if isinstance(event, OrderPaid)}
    for event in redeemed:
        assert event.order_id is not None
        assert orders[event.order_id].occurred_at == event.occurred_at
        assert orders[event.order_id].user_id == event.user_id


def test_each_household_gets_one_coupon_a_campaign_valid_for_the_campaign(
    raw: dict[str, Any], chosen: set[int], decoded: list[Event]
) -> None:
    members = raw["campaigns"]
    expected = {
        f"cj-coupon-{campaign}-{household}"
        for campaign, household in zip(members["campaign_id"], members["household_id"], strict=True)
        if household in chosen
    }
    issued = [event for event in decoded if isinstance(event, CouponIssued)]
    assert {event.coupon_id for event in issued} == expected
    assert len(issued) == len(expected)
    days = {
        row.campaign_id: (row.end_date - row.start_date).days + 1 for row in raw["campaign_descriptions"].itertuples()
    }
    for event in issued:
        assert event.valid_from is not None
        assert event.expires_at is not None
        assert event.occurred_at >= event.valid_from
        campaign = int(event.coupon_id.split("-")[2])
        # An hour more or less where the clocks change in between.
        assert abs(event.expires_at - event.valid_from - days[campaign] * DAY) <= DAY / 24 + 1_000_000


def test_whatever_is_made_up_says_so_twice_and_nothing_else_does(journey: Journey, decoded: list[Event]) -> None:
    for event in decoded:
        made_up = event.TYPE in journey.simulated
        assert event.event_id.startswith("sim-") is made_up
        assert (event.channel == SIMULATED) is made_up


def test_made_up_visits_fall_on_days_with_a_real_purchase_and_come_before_it(decoded: list[Event]) -> None:
    orders: dict[str, list[int]] = {}
    for event in decoded:
        if isinstance(event, OrderPaid):
            orders.setdefault(event.user_id, []).append(event.occurred_at)
    for event in decoded:
        if event.TYPE in ("UserLoggedIn", "ProductViewed"):
            assert any(0 <= at - event.occurred_at <= 45 * 60_000_000 for at in orders[event.user_id])


def test_more_households_include_the_fewer() -> None:
    few, more = load_tables(3).households, load_tables(8).households
    assert set(few) < set(more)
    assert len(more) == 8


def test_more_households_than_there_are_is_told_in_a_sentence() -> None:
    with pytest.raises(JourneyProblem, match="2,469 households, fewer than 2,470"):
        load_journey(2_470)


def test_the_times_of_the_data_are_utc_and_the_store_is_in_new_york(raw: dict[str, Any]) -> None:
    sales, redemptions = raw["transactions"], raw["coupon_redemptions"]
    redeemed = set(zip(redemptions["household_id"], redemptions["redemption_date"], strict=True))
    local = set(zip(sales["household_id"], sales["date"], strict=True))
    assert redeemed <= local
    as_written = set(zip(sales["household_id"], sales["transaction_timestamp"].dt.normalize(), strict=True))
    assert len(redeemed - as_written) > len(redeemed) / 20
    assert (sales.groupby("date")["week"].nunique() == 1).all()


def test_every_name_in_the_mapping_is_one_of_the_data(raw: dict[str, Any]) -> None:
    products = raw["products"]
    known = set(products["product_category"]) | set(products["product_category"] + " > " + products["product_type"])
    assert product_types().keys() <= known
