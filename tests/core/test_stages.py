"""Life stages: every row of the shop's table, forwards by purchases and backwards by silence."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from msgspec.structs import replace

from app.core.policy import StageMove
from app.core.row import MAX_ORDERS, NEVER
from app.rulebook import SHIPPED
from schemas import events as ev
from schemas.triggers import Evidence, StageChange
from tests.core.shop import DAY, OPEN, Desk, at, baseline, cancelled, catalogue, event, paid, refunded, rule_text

_SHOP = (SHIPPED / "shop.yaml").read_text()
TABLE = OPEN.replace("stages: []\n", "") + "usual_gap: 20d\n" + _SHOP[_SHOP.index("stages:") :]
#: A rule that says nothing here: the table is what is tested.
RULES = catalogue(rule_text(enter="{on: SearchPerformed, key: user}", ends=None), gates=TABLE)


def desk(**changes: Any) -> Desk:
    return Desk(RULES, **changes)


def registered(when: str) -> ev.UserRegistered:
    return event(ev.UserRegistered, when)


def moves(desk: Desk) -> list[tuple[str | None, str, str]]:
    return [(c.from_, c.to, c.decided_at[5:10]) for c in desk.trace if isinstance(c, StageChange)]


def test_a_registration_is_the_introduction_and_the_first_order_is_growth() -> None:
    first = paid("o-1", "03-02")
    one = desk().say(registered("03-01"), first)
    assert moves(one) == [(None, "introduction", "03-01"), ("introduction", "growth", "03-02")]
    (_, change) = (c for c in one.trace if isinstance(c, StageChange))
    assert change.reason == "OrderPaid, 1 order so far."
    assert change.facts == {"orders": 1}
    assert change.evidence == (
        Evidence(event_id=first.event_id, type="OrderPaid", occurred_at="2026-03-02T12:00:00+08:00"),
    )
    assert one.tallies["stages", "growth"] == 1


def test_whoever_buys_without_registering_is_in_growth_and_a_later_registration_changes_nothing() -> None:
    assert moves(desk().say(paid("o-1", "03-01"), registered("03-02"))) == [(None, "growth", "03-01")]


@pytest.mark.parametrize("orders", [5, 6, 7])
def test_the_sixth_order_is_maturity(orders: int) -> None:
    found = moves(desk().say(*(paid(f"o-{n}", f"03-0{n}") for n in range(1, orders + 1))))
    assert found == [(None, "growth", "03-01"), *([("growth", "maturity", "03-06")] if orders >= 6 else [])]


@pytest.mark.parametrize(("tick", "declined"), [(-1, False), (0, True), (1, True)])
def test_a_silence_beyond_the_users_rhythm_is_decline(tick: int, declined: bool) -> None:
    found = moves(desk().say(paid("o-1", "03-01")).wait(at("03-01") + 30 * DAY + tick))  # 1.5 x 20 days, at least 30
    assert found == [(None, "growth", "03-01"), *([("growth", "decline", "03-31")] if declined else [])]


def test_silence_goes_on_to_churned_and_no_further() -> None:
    one = desk().say(*(paid(f"o-{n}", f"03-0{n}") for n in range(1, 7))).wait("2027-03-01")
    assert moves(one)[2:] == [("maturity", "decline", "04-05"), ("decline", "churned", "05-05")]
    assert one.row.stage_due == NEVER
    assert (one.row.stage, one.row.stage_at) == ("churned", at("05-05"))


@pytest.mark.parametrize(("back", "source"), [("04-10", "decline"), ("06-01", "churned")])
def test_a_purchase_brings_back_from_every_silence(back: str, source: str) -> None:
    one = desk().say(paid("o-1", "03-01")).wait(back).say(paid("o-2", back))
    assert moves(one)[-1] == (source, "growth", back)
    assert one.row.stage_due == at(back) + 30 * DAY
    many = desk().say(*(paid(f"o-{n}", f"03-0{n}") for n in range(1, 7))).wait(back).say(paid("o-7", back))
    assert moves(many)[-1] == (source, "maturity", back)


def test_a_purchase_times_the_silence_anew() -> None:
    one = desk().say(paid("o-1", "03-01"), paid("o-2", "03-20")).wait("04-18")
    assert moves(one) == [(None, "growth", "03-01")]
    assert moves(one.wait("04-19"))[-1] == ("growth", "decline", "04-19")


@pytest.mark.parametrize("back", [refunded, cancelled])
def test_a_purchase_that_is_taken_back_times_the_silence_by_the_one_before(back: Any) -> None:
    one = desk().say(paid("o-1", "03-01"), paid("o-2", "03-20"), back("o-2", "03-21"))
    assert one.row.stage_due == at("03-31")
    assert moves(one.wait("03-31"))[-1] == ("growth", "decline", "03-31")


@pytest.mark.parametrize("back", [refunded, cancelled])
def test_who_has_had_the_only_purchase_taken_back_is_where_a_customer_begins(back: Any) -> None:
    one = desk().say(paid("o-1", "03-01"), back("o-1", "03-10"))
    assert moves(one) == [(None, "growth", "03-01"), ("growth", "introduction", "03-10")]
    assert moves(one.wait("12-01"))[2:] == []
    assert moves(one.say(paid("o-2", "12-02")))[2:] == [("introduction", "growth", "12-02")]


def test_a_baseline_that_knows_of_a_later_purchase_times_the_silence_anew() -> None:
    one = desk().say(paid("o-1", "03-01"), baseline("03-10", "2020-01-01", 3, "2026-03-08"))
    assert one.row.stage_due == at("03-08") + 30 * DAY


@pytest.mark.parametrize(("orders", "stage"), [(0, "introduction"), (1, "growth"), (5, "growth"), (6, "maturity")])
def test_who_was_here_before_us_comes_in_the_stage_of_the_baseline(orders: int, stage: str) -> None:
    last = "2026-03-01" if orders else None
    known_before = baseline("03-02", "2020-01-01", orders, last)
    assert moves(desk().say(known_before)) == [(None, stage, "03-02")]
    registered_first = moves(desk().say(registered("03-01"), known_before))
    assert registered_first[-1][1] == stage


def test_who_is_known_only_by_an_order_that_was_taken_back_is_where_a_customer_begins() -> None:
    one = desk().say(refunded("o-1", "03-02", goods_returned=False), paid("o-1", "03-01"))
    assert moves(one) == [(None, "introduction", "03-02")]


def test_a_change_has_an_id_of_its_own_that_hangs_on_what_happened() -> None:
    def ids() -> list[str]:
        return [
            c.stage_change_id
            for c in desk().say(paid("o-1", "03-01")).wait("12-01").trace
            if isinstance(c, StageChange)
        ]

    assert ids() == ids()
    assert len(set(ids())) == 3


def test_a_table_that_has_lost_its_row_for_silence_lets_the_timer_go() -> None:
    one = desk().say(paid("o-1", "03-01"))
    one.catalogue = catalogue(rule_text(enter="{on: SearchPerformed, key: user}", ends=None))
    one.wait("05-01")
    assert moves(one) == [(None, "growth", "03-01")]
    assert one.row.stage_due == NEVER


# -- the past as it is known now


ORDERS = [paid(f"o-{n}", f"03-0{n}") for n in range(1, 7)]
EARLIER = baseline("03-01", "2020-01-01", 5, "2026-02-20")


@pytest.mark.parametrize(("when", "stage"), [("02-20", "decline"), ("04-20", "churned")])
def test_an_older_order_that_is_heard_of_late_ends_no_silence_that_came_since(when: str, stage: str) -> None:
    one = desk().say(paid("o-2", "01-10")).wait(when)
    known, due = moves(one), one.row.stage_due
    assert known[-1][1] == stage
    one.say(paid("o-1", "01-05"))
    assert (moves(one), one.row.stage_due) == (known, due)


def test_a_newer_order_that_is_heard_of_when_its_own_silence_is_over_moves_nobody() -> None:
    one = desk().say(paid("o-1", "01-10")).wait("08-01")
    known = moves(one)
    assert known[-1][1] == "churned"
    assert moves(one.say(paid("o-2", "02-20")).wait("12-01")) == known


@pytest.mark.parametrize(("tick", "stage"), [(-1, "growth"), (0, "growth"), (1, "decline")])
def test_a_newer_order_that_is_heard_of_late_leads_to_what_has_come_of_it(tick: int, stage: str) -> None:
    one = desk().say(paid("o-1", "01-10")).wait(at("05-01") + 30 * DAY + tick)
    one.say(paid("o-2", "05-01"))
    assert moves(one)[3:] == [("churned", stage, "05-31")]


def test_an_older_order_that_is_heard_of_late_counts() -> None:
    assert moves(desk().say(*ORDERS[1:], ORDERS[0]))[-1] == ("growth", "maturity", "03-06")
    assert moves(desk().say(*ORDERS[2:], ORDERS[0])) == [(None, "growth", "03-03")]


@pytest.mark.parametrize("back", [refunded, cancelled])
def test_a_purchase_that_is_taken_back_is_one_less(back: Any) -> None:
    one = desk().say(*ORDERS, back("o-6", "03-07"))
    assert moves(one)[-1] == ("maturity", "growth", "03-07")
    assert one.trace[-1] == ("stages", "growth")
    (*_, change) = (c for c in one.trace if isinstance(c, StageChange))
    assert (change.facts, change.reason) == ({"orders": 5}, f"{change.evidence[0].type}, 5 orders so far.")
    assert moves(one.say(paid("o-7", "03-08")))[-1] == ("growth", "maturity", "03-08")
    seven = desk().say(*ORDERS, paid("o-7", "03-07"), back("o-3", "03-08"))
    assert seven.row.stage == "maturity"
    assert moves(seven.say(back("o-4", "03-09")))[-1] == ("maturity", "growth", "03-09")


def test_a_part_of_a_purchase_that_goes_back_moves_nobody() -> None:
    assert moves(desk().say(paid("o-1", "03-01"), refunded("o-1", "03-02", "40"))) == [(None, "growth", "03-01")]
    parts = [paid(f"o-1{part}", "03-01", parent_order_id="o-1") for part in "ab"]
    one = desk().say(*parts, refunded("o-1a", "03-02"))
    assert moves(one) == [(None, "growth", "03-01")]
    assert moves(one.say(refunded("o-1b", "03-03")))[-1] == ("growth", "introduction", "03-03")


@pytest.mark.parametrize(
    ("days", "tick", "stage"),
    [(30, 0, "growth"), (30, 1, "decline"), (60, 0, "decline"), (60, 1, "churned"), (90, 0, "churned")],
)
def test_what_is_left_when_a_purchase_is_taken_back_says_how_long_the_silence_is(
    days: int, tick: int, stage: str
) -> None:
    now = at("03-01") + days * DAY
    one = desk().say(paid("o-1", "03-01")).wait("03-20").say(paid("o-2", now - DAY)).wait(now + tick)
    assert one.row.stage == "growth"
    known = moves(one)
    one.say(cancelled("o-2", now))
    assert [(source, to) for source, to, _ in moves(one)[len(known) :]] == (
        [] if stage == "growth" else [("growth", stage)]
    )


def test_back_and_taken_back_is_one_move_to_where_the_customer_was() -> None:
    one = desk().say(paid("o-1", "01-01")).wait("05-01").say(paid("o-2", "05-01")).wait("05-02")
    assert moves(one.say(refunded("o-2", "05-02")).wait("12-01"))[2:] == [
        ("decline", "churned", "03-02"), ("churned", "growth", "05-01"), ("growth", "churned", "05-02")
    ]  # fmt: skip


def test_an_order_that_was_cancelled_before_it_was_heard_of_brings_nobody_back() -> None:
    one = desk().say(paid("o-1", "01-01")).wait("04-01")
    known = moves(one)
    assert moves(one.say(cancelled("o-2", "04-02 13:00"), paid("o-2", "04-02 12:00")).wait("12-01")) == known


def test_the_past_counts_what_a_row_keeps_as_sums_and_what_was_before_us() -> None:
    many = [paid(f"o-{n}", at("03-01") + n * DAY) for n in range(MAX_ORDERS + 3)]
    one = desk().say(*many, refunded("o-34", at("03-01") + 40 * DAY))
    assert (one.row.old_orders, one.row.stage) == (3, "maturity")
    told = desk().say(baseline("03-01", "2020-01-01", 5, "2026-02-20"), paid("o-1", "03-02"))
    assert told.row.stage == "maturity"
    assert told.say(refunded("o-1", "03-03")).row.stage == "growth"
    assert told.row.stage_due == at("02-20") + 30 * DAY


def test_the_silences_between_purchases_are_of_the_past_as_well() -> None:
    rows = '- {from: [churned], to: returned, on: OrderPaid}\n  - {from: ["", introduction, decline'
    table = TABLE.replace(", growth, decline, churned], to: maturity", ", growth, decline], to: maturity")
    table = table.replace('- {from: ["", introduction, decline, churned', rows)
    rules = catalogue(rule_text(enter="{on: SearchPerformed, key: user}", ends=None), gates=table)
    one = Desk(rules).say(paid("o-1", "01-01")).wait("05-01").say(paid("o-2", "05-01"))
    assert one.row.stage == "returned"
    one.say(paid("o-3", "05-03"), refunded("o-3", "05-04"))
    assert one.row.stage == "returned"
    assert one.say(refunded("o-2", "05-04")).row.stage == "churned"
    late = Desk(rules).wait("04-30").say(paid("o-2", "05-01"), paid("o-1", "01-01"))
    assert late.row.stage == "returned"


def test_a_table_without_a_word_for_it_leaves_everybody_where_they_are() -> None:
    rows = "stages: [{from: [''], to: growth, on: OrderPaid}]\n"
    rules = catalogue(rule_text(), gates=OPEN.replace("stages: []\n", rows))
    assert Desk(rules).say(paid("o-1", "03-01"), refunded("o-1", "03-02")).row.stage == "growth"


@pytest.mark.parametrize(
    ("rows", "lives"),
    [
        ([(("growth", "decline"), "decline", "at_risk")], ["growth", "decline"]),
        (
            [(("growth",), "decline", "at_risk"), (("decline",), "growth", "churned")],
            ["growth", "decline", "growth"],
        ),
    ],
)
def test_a_table_that_goes_round_by_silence_alone_comes_to_rest(rows: list[Any], lives: list[str]) -> None:
    """No file can hold one; the shard goes on all the same."""
    bought = StageMove(frozenset({""}), "growth", "OrderPaid", None, 0)
    silent = [StageMove(frozenset(source), to, None, silence, 0) for source, to, silence in rows]
    one = Desk(RULES._replace(policy=RULES.policy._replace(stages=(bought, *silent))))
    one.say(paid("o-1", "03-01")).wait("05-30")
    assert [to for _, to, _ in moves(one)] == lives
    assert one.row.stage_due == NEVER


def test_silences_that_are_over_all_at_once_are_each_gone_through() -> None:
    one = desk().say(paid("o-1", "03-01"))
    one.row = replace(one.row, stage_due=at("06-01"))
    assert [to for _, to, _ in moves(one.wait("06-01"))] == ["growth", "decline", "churned"]


@pytest.mark.parametrize("to", ["growth", "introduction"])
def test_a_row_by_an_event_may_lead_to_where_it_comes_from(to: str) -> None:
    rows = f"stages: [{{from: ['', growth, introduction], to: {to}, on: OrderPaid}}]\n"
    one = Desk(catalogue(rule_text(), gates=OPEN.replace("stages: []\n", rows)))
    assert moves(one.say(paid("o-1", "03-01"), paid("o-2", "03-02"))) == [(None, to, "03-01")]


@pytest.mark.parametrize(
    "life",
    [
        [paid("o-1", "03-01"), refunded("o-1", "03-02"), registered("02-20")],
        [paid("o-1", "03-01"), cancelled("o-1", "03-02")],
        [paid("o-1", "03-01"), paid("o-2", "03-02"), refunded("o-2", "03-03"), EARLIER],
        [paid("o-1", "03-01"), paid("o-2", "03-01"), refunded("o-1", "03-01"), EARLIER],
    ],
)
def test_whatever_arrives_first_the_stage_is_the_same(life: list[ev.Event]) -> None:
    found = set()
    for order in permutations(life):
        one = desk().say(*order)
        published = [c.to for c in one.trace if isinstance(c, StageChange)]
        assert published[-1] == one.row.stage
        found.add((one.row.stage, one.row.stage_due))
    assert len(found) == 1
