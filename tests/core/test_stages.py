"""Life stages: every row of the shop's table, forwards by purchases and backwards by silence."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.row import NEVER
from app.rulebook import SHIPPED
from schemas import events as ev
from schemas.triggers import Evidence, StageChange
from tests.core.shop import DAY, OPEN, Desk, at, baseline, cancelled, catalogue, event, paid, refunded, rule_text

_SHOP = (SHIPPED / "shop.yaml").read_text()
TABLE = OPEN.replace("stages: []\n", "") + "usual_gap: 20d\n" + _SHOP[_SHOP.index("stages:") :]
#: A rule that says nothing here: the table is what is tested.
RULES = catalogue(rule_text(enter="{on: UserErased, key: user}", ends=None), gates=TABLE)


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


def test_who_has_had_the_only_purchase_taken_back_is_silent_since_the_stage_began() -> None:
    one = desk().say(paid("o-1", "03-01"), refunded("o-1", "03-10")).wait("03-30 12:00")
    assert moves(one) == [(None, "growth", "03-01")]
    assert moves(one.wait("12-01"))[1:] == [("growth", "decline", "03-31"), ("decline", "churned", "05-30")]


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


def test_an_order_that_was_taken_back_before_it_was_heard_of_moves_nobody() -> None:
    assert moves(desk().say(refunded("o-1", "03-02", goods_returned=False), paid("o-1", "03-01"))) == []


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
    one.catalogue = catalogue(rule_text(enter="{on: UserErased, key: user}", ends=None))
    one.wait("05-01")
    assert moves(one) == [(None, "growth", "03-01")]
    assert one.row.stage_due == NEVER
