"""What a row lets go of when there is too much of it, as seen by the rules."""

from __future__ import annotations

from app.core.row import MAX_ENTRIES, MAX_RESTING, MAX_VIEWS
from schemas import events as ev
from tests.core.shop import HOUR, Desk, at, catalogue, event, line, paid, rule_text


def test_a_look_too_old_to_be_kept_enters_no_rule_of_its_type() -> None:
    rules = catalogue(rule_text(enter="{on: ProductViewed, key: product_type}", ends=None))
    desk = Desk(rules).say(
        *(
            event(ev.ProductViewed, at("03-01") + n * HOUR, product_id=f"p-{n}", product_type="milk")
            for n in range(MAX_VIEWS)
        )
    )
    assert [key for _, key, *_ in desk.timers] == ["milk"]
    desk.say(event(ev.ProductViewed, "02-01", product_id="old", product_type="soap"))
    assert [key for _, key, *_ in desk.timers] == ["milk"]


def test_of_too_many_keys_that_enter_once_the_earliest_are_forgotten() -> None:
    rules = catalogue(rule_text(enter="{on: OrderPaid, each: line, key: product_type}", ends=None, reentry="every_key"))
    desk = Desk(rules).say(paid("o-1", "03-01", line("first")))
    desk.say(paid("o-2", "03-02", *(line(f"t-{n}") for n in range(MAX_ENTRIES))))
    assert len(desk.row.entries) == MAX_ENTRIES
    assert "a_rule\x1ffirst" not in desk.row.entries


def test_of_too_many_runs_that_are_over_the_earliest_can_no_more_be_taken_back() -> None:
    rules = catalogue(
        rule_text(enter="{on: OrderPaid, key: order}", ends="[{on: OrderCancelled}]", steps="[{at_once: true}]",
                  send="{action: grant, expires_after: 10d}"),
        rule_text(rule="later", enter="{on: OrderPaid, key: order}", ends=None, steps="[{after: 30d}]"),
    )  # fmt: skip
    desk = Desk(rules)
    for number in range(MAX_RESTING + 3):
        desk.say(paid(f"o-{number:03}", at("03-01") + number * HOUR // 60))
    assert [key for key in desk.row.runs if key.startswith("a_rule")][:2] == ["a_rule\x1fo-003", "a_rule\x1fo-004"]
    assert len(desk.timers) == MAX_RESTING + 3  # what is to come stays, however much it is
    for number in (2, MAX_RESTING + 2):
        desk.say(event(ev.OrderCancelled, "03-02", order_id=f"o-{number:03}"))
    assert [retracted.entry.key for retracted in desk.retractions] == [f"o-{MAX_RESTING + 2:03}"]
