"""What a row lets go of when there is too much of it, as seen by the rules."""

from __future__ import annotations

from app.core.row import MANY_RUN_KEYS, MAX_ALIVE, MAX_ENTRIES, MAX_RESTING, MAX_VIEWS
from schemas import events as ev
from tests.core.shop import HOUR, MINUTE, Desk, at, catalogue, event, line, paid, rule_text


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
    orders = MAX_RESTING + MANY_RUN_KEYS
    for number in range(orders):
        desk.say(paid(f"o-{number:03}", at("03-01") + number * MINUTE))
        resting = [key for key in desk.row.runs if key.startswith("a_rule")]
        assert len(resting) <= MAX_RESTING + MANY_RUN_KEYS / 2  # as many as are entered until they are looked through
    assert resting[0] > f"a_rule\x1fo-{orders - len(resting) - 1:03}"
    assert len(resting) >= MAX_RESTING
    assert len(desk.timers) == orders  # what is to come stays
    for number in (2, orders - 1):
        desk.say(event(ev.OrderCancelled, "03-02", order_id=f"o-{number:03}"))
    assert [retracted.entry.key for retracted in desk.retractions] == [f"o-{orders - 1:03}"]


CHECKOUT = rule_text(
    rule="checkout",
    enter="{on: CheckoutStarted, key: order}",
    ends="[{on: OrderPaid}]",
    steps="[{after: 1h}]",
    send="{action: contact, class: marketing, channels: [push]}",
    reentry="every_key",
)
REGISTERED = rule_text(rule="registered", enter="{on: UserRegistered, key: user}", ends=None, steps="[{after: 30d}]")


def begun(number: int, start: int) -> ev.CheckoutStarted:
    return event(ev.CheckoutStarted, start + number, order_id=f"k-{number:04}", lines=(line(),))


def test_of_too_many_runs_of_a_rule_those_entered_first_exit_and_no_other_rule_loses_any() -> None:
    desk = Desk(catalogue(CHECKOUT, REGISTERED)).say(event(ev.UserRegistered, "02-01"))
    for number in range(3 * MAX_ALIVE):
        desk.say(begun(number, at("03-01")))
        keys = [key for rule, key, *_ in desk.timers if rule == "checkout"]
        assert min(number + 1, MAX_ALIVE * 3 // 4) <= len(keys) <= MAX_ALIVE + MANY_RUN_KEYS
    assert sorted(keys) == [f"k-{number:04}" for number in range(3 * MAX_ALIVE - len(keys), 3 * MAX_ALIVE)]
    assert [key for rule, key, *_ in desk.timers if rule == "registered"] == [""]
    assert desk.tallies["runs", "exited", "checkout"] == 3 * MAX_ALIVE - len(keys)
    assert desk.decisions == []


def test_those_entered_first_exit_whatever_their_names_are() -> None:
    desk = Desk(catalogue(CHECKOUT))
    for number in range(MAX_ALIVE + 1):
        desk.say(event(ev.CheckoutStarted, at("03-01") + number, order_id=f"k-{9999 - number}", lines=(line(),)))
    keys = [key for _, key, *_ in desk.timers]
    assert sorted(keys) == [f"k-{9999 - number}" for number in range(MAX_ALIVE, MAX_ALIVE - len(keys), -1)]


def test_as_many_as_a_rule_may_have_stay_and_an_entry_of_long_ago_is_the_first_to_exit() -> None:
    desk = Desk(catalogue(CHECKOUT)).say(*(begun(number, at("03-01")) for number in range(1, MAX_ALIVE + 1)))
    assert len(desk.timers) == MAX_ALIVE
    desk.say(begun(0, at("03-01")))
    keys = [key for _, key, *_ in desk.timers]
    assert len(keys) == MAX_ALIVE * 3 // 4
    assert (min(keys), max(keys)) == (f"k-{MAX_ALIVE // 4 + 1:04}", f"k-{MAX_ALIVE:04}")


def test_what_waited_in_a_run_that_exits_for_others_gets_its_final_record() -> None:
    night = 'quiet_hours: {from: "21:00", until: "09:00"}\n'
    desk = Desk(catalogue(CHECKOUT, shop=night)).say(begun(0, at("03-01 22:00"))).wait("03-01 23:30")
    assert [decision.outcome for decision in desk.decisions] == ["deferred"]
    desk.say(*(begun(number, at("03-01 23:30")) for number in range(1, MAX_ALIVE + 2)))
    _, last = desk.decisions
    assert (last.entry.key, last.outcome, last.final) == ("k-0000", "dropped", True)
    assert last.reason == f"While it waited, the run was let go, as more than {MAX_ALIVE} of its rule were waiting."
