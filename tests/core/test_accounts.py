"""Accounts that become one, over the shards that have them: exactly once, in order, in chains and in circles; and who
is erased is gone with all of them."""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from app.accounts import MERGED_PREFIX, Accounts
from app.backtest.driver import IN_MEMORY, Driver
from app.cli import letters, redriving
from app.core import engine, transfers
from app.core.purchases import paid_orders
from app.core.row import decode
from app.core.transfers import Forget, History, PassedOn
from app.processor import TRANSFERS, Batch, InvariantBroken, Processor, Record, partition_of, quarantine_key
from app.settings import load_settings
from schemas import events as ev
from schemas.codec import encode_event
from tests.core.shard import named, plan
from tests.core.shop import at, baseline, catalogue, event, issued, line, paid, rule_text

SHARDS = 3
RULES = catalogue(
    rule_text(steps="[{after: 1d}, {after: 10d}]", start="{since: 2026-01-01}"),
    shop='quiet_hours: {from: "00:00", until: "00:00"}\nstages: [{from: [""], to: growth, on: OrderPaid, orders: 1}]\n',
    gates="caps: []\narbitration: 0s\n",
)
_numbers = itertools.count(1)


def user(shard: int, number: int = 0) -> str:
    """A user of this shard; those of one shard are in the order of their numbers."""
    found = (f"u-{n:03}" for n in itertools.count() if partition_of(f"u-{n:03}".encode(), SHARDS, "murmur2") == shard)
    return next(itertools.islice(found, number, None))


A, B, C = user(0), user(1), user(2)
#: Another account of the first one's shard.
A2 = user(0, 1)


def order(who: str, when: str, name: str | None = None) -> ev.OrderPaid:
    name = name or f"{next(_numbers)}"
    return named(paid(f"o-{name}", when), f"e-{name}", who)


def merged(who: str, into: str, when: str, name: str | None = None) -> ev.UserMerged:
    return named(event(ev.UserMerged, when, into=into), name or f"m-{next(_numbers)}", who)


def erased(who: str, when: str) -> ev.UserErased:
    return named(event(ev.UserErased, when), f"x-{next(_numbers)}", who)


def deployment(clock: Any = "events", **changes: Any) -> Driver:
    return Driver(RULES, partitions=SHARDS, clock=clock, at=at("03-01"), **changes)


def told(driver: Driver, *messages: ev.Event, when: str | None = None) -> Driver:
    """These events are sent and applied, and time goes on to the last of them."""
    until = at(when) if when else max(message.occurred_at for message in messages)
    if driver.plan.clock == "wall":  # nothing is sent before it happened
        driver.advance_time(until)
    driver.send(*messages)
    driver.advance_time(until)
    return driver


def orders(driver: Driver, who: str) -> int:
    row = driver.row(who)
    return paid_orders(row) if row is not None else -1


def left(driver: Driver) -> dict[bytes, bytes]:
    """The last record of every key of all changelogs."""
    return {key: value for rows in driver.broker.rows for key, value in rows.items()}


def names(driver: Driver, *users: str) -> list[bytes]:
    """Keys of the changelogs and of the stages whose last record names one of these users."""
    latest = dict(left(driver))
    for _, output in driver.outputs("lifecycle.stages"):
        latest[b"stage of " + (output.key or b"")] = output.value or b""
        if output.value is None:
            del latest[b"stage of " + (output.key or b"")]
    return [key for key, value in latest.items() if any(who.encode() in key + value for who in users)]


# -- merging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["events", "wall"])
@pytest.mark.parametrize("into", [B, A2])
def test_the_history_and_all_that_is_said_later_count_for_the_other_account(clock: str, into: str) -> None:
    driver = told(deployment(clock), order(A, "03-01"), order(into, "03-02"))
    told(driver, merged(A, into, "03-03"), when="03-03 13:00")
    assert (orders(driver, A), orders(driver, into)) == (-1, 2)
    told(driver, order(A, "03-04"), order(into, "03-05"), order(A, "02-28"), when="03-05 13:00")
    assert (orders(driver, A), orders(driver, into)) == (-1, 5)
    assert driver.counts["transfers", "absorbed"] == 1
    assert driver.counts["transfers", "passed_on"] == 2
    assert driver.counts["transfers", "sent"] == (0 if into == A2 else 3)
    assert driver.counts["events", "OrderPaid"] == 5
    assert [t.user for t in driver.timers()] == [into]
    assert not driver.dead_letters
    driver.advance_time(at("05-01"))
    assert {(t.user_id, t.step) for t in driver.triggers if t.decided_at > "2026-03-06"} == {(into, 1), (into, 2)}


def test_the_row_and_the_stage_go_and_a_marker_says_where() -> None:
    driver = told(deployment(), order(A, "03-01"), merged(A, B, "03-03"))
    assert names(driver, A) == [MERGED_PREFIX + A.encode(), B.encode()]
    assert [o.value is None for _, o in driver.outputs("lifecycle.stages") if o.key == A.encode()] == [False, True]
    assert [o.value is None for _, o in driver.outputs("lifecycle.stages") if o.key == B.encode()] == [False]


def test_an_account_never_heard_of_leaves_a_marker_all_the_same() -> None:
    driver = told(deployment(), merged(A, B, "03-03"), order(A, "03-04"))
    assert (orders(driver, A), orders(driver, B)) == (-1, 1)


def test_the_same_event_twice_is_a_duplicate_wherever_it_is_told() -> None:
    driver = told(deployment(), order(A, "03-01", "a"), merged(A, B, "03-03", "m"))
    told(driver, order(A, "03-01", "a"), merged(A, B, "03-03", "m"), order(A, "03-04", "b"))
    told(driver, order(A, "03-04", "b"), merged(A, B, "03-05"))
    assert orders(driver, B) == 2
    assert driver.counts["duplicates", "OrderPaid"] == 2
    assert driver.counts["duplicates", "UserMerged"] == 2
    assert driver.counts["events", "UserMerged"] == 1


def test_an_account_is_part_of_one_other_at_most() -> None:
    driver = told(deployment(), order(A, "03-01"), merged(A, B, "03-03"), merged(A, C, "03-04"))
    assert [(letter.code, letter.field, letter.topic) for letter in driver.dead_letters] == [
        ("cannot_apply", "into", "profiles")
    ]
    assert (orders(driver, B), orders(driver, C)) == (1, -1)


@pytest.mark.parametrize(("middle", "end"), [(B, C), (A2, B), (B, A2)])
def test_an_account_that_is_told_to_be_part_of_whom_it_is_part_of_by_way_of_others_is_a_duplicate(
    middle: str, end: str
) -> None:
    driver = told(deployment(), *(order(who, "03-01") for who in (A, middle, end)))
    told(driver, merged(A, middle, "03-02"), merged(middle, end, "03-03"), merged(A, end, "03-04"))
    other = user(2, 7)
    told(driver, merged(other, end, "03-05"))
    told(driver, merged(A, other, "03-06"), merged(A, middle, "03-06"))
    assert not driver.dead_letters
    assert driver.counts["duplicates", "UserMerged"] == 3
    assert [orders(driver, who) for who in (A, middle, end)] == [-1, -1, 3]
    stranger = user(2, 8)
    told(driver, merged(A, stranger, "03-07"))
    [letter] = driver.dead_letters
    assert (letter.reason, letter.field, letter.key) == (
        "The account is part of another one already. Merge that one, if it is meant.",
        "into",
        A.encode(),
    )


@pytest.mark.parametrize("into", [B, A2])
def test_two_accounts_cannot_each_be_part_of_the_other(into: str) -> None:
    driver = told(deployment(), order(A, "03-01"), order(into, "03-01"), merged(A, into, "03-03"))
    told(driver, merged(into, A, "03-04"), order(A, "03-05"))
    assert [letter.reason for letter in driver.dead_letters] == [
        "The account that it is to become part of is itself part of this one."
    ]
    assert (orders(driver, A), orders(driver, into)) == (-1, 3)


@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize("middle", [A2, B])
def test_a_chain_of_accounts_becomes_the_last_one(last_first: bool, middle: str) -> None:
    driver = told(deployment(), order(A, "03-01"), order(middle, "03-01"), order(C, "03-01"))
    merges = [merged(A, middle, "03-03"), merged(middle, C, "03-04")]
    for each in reversed(merges) if last_first else merges:
        told(driver, each)
    told(driver, order(A, "03-05"), order(middle, "03-05"), order(C, "03-05"))
    assert [orders(driver, who) for who in (A, middle, C)] == [-1, -1, 6]
    assert list(driver.row(C).merged) == ([middle, A] if last_first else [A, middle])  # type: ignore[union-attr]
    assert names(told(driver, erased(A, "03-06")), A, middle, C) == []


CIRCLES = [
    [(A, B), (B, A)],
    [(A, B), (B, C), (C, A)],
    [(A, A2), (A2, C), (C, A)],
    [(A2, A), (A, B), (B, C), (C, A2)],
]


@pytest.mark.parametrize("circle", CIRCLES)
@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("crash", [None, "inside", "after"])
def test_accounts_merged_in_a_circle_at_once_become_the_one_whose_id_comes_first(
    circle: list[tuple[str, str]], turn: int, crash: Any
) -> None:
    everybody = {who for pair in circle for who in pair}
    driver = told(deployment(), *(order(who, "03-01") for who in sorted(everybody)))
    driver.send(*(merged(who, into, "03-03") for who, into in circle), *(order(who, "03-04") for who in everybody))
    driver.announce(at("03-05"))
    for shard in range(turn, turn + SHARDS):  # each does what it can before it hears of the others
        if crash:
            driver.crash(crash, shard % SHARDS)
        while driver.work(shard % SHARDS):
            pass
    told(driver, *(order(who, "03-06") for who in everybody))
    first = min(everybody)
    assert {who: orders(driver, who) for who in everybody} == dict.fromkeys(everybody, -1) | {first: 3 * len(everybody)}
    assert set(driver.row(first).merged) == everybody - {first}  # type: ignore[union-attr]
    told(driver, merged(first, max(everybody), "03-07"))
    assert len(driver.dead_letters) == 1
    assert names(told(driver, erased(max(everybody), "03-08")), *everybody) == []


def test_someone_from_outside_is_caught_up_in_a_circle_and_comes_out_of_it() -> None:
    driver = told(deployment(), *(order(who, "03-01") for who in (A, B, C)))
    driver.send(merged(B, C, "03-03"), merged(C, B, "03-03"), merged(A, B, "03-03"))
    driver.announce(at("03-04"))
    driver.run()
    assert {who: orders(driver, who) for who in (A, B, C)} == {min(B, C): 3, max(B, C): -1, A: -1}


def test_what_the_other_shard_refuses_is_a_dead_letter_as_it_was_sent() -> None:
    driver = told(deployment(), order(A, "03-01", "a"), merged(A, B, "03-03"))
    refund = named(
        event(ev.OrderRefunded, "03-04", order_id="o-a", amount=paid("x", "03-01").total, currency="EUR"), "r", A
    )
    told(driver, refund)
    [letter] = driver.dead_letters
    assert (letter.code, letter.topic, letter.key) == ("cannot_apply", "orders", A.encode())
    assert orjson.loads(letter.value or b"")["user_id"] == A
    [(place, output)] = driver.outputs("dead-letters")
    assert (place, dict(output.headers)["dlq.partition"]) == (1, b"0")


def test_what_no_shard_wrote_is_a_dead_letter_too() -> None:
    driver = deployment()
    driver.broker.append((TRANSFERS, 0), -1, b"u", b"junk")
    driver.advance_time(at("03-02"))
    assert [letter.code for letter in driver.dead_letters] == ["cannot_apply"]


def test_a_message_that_a_person_set_aside_is_passed_over() -> None:
    driver = deployment()
    driver.broker.append((TRANSFERS, 0), -1, A.encode(), transfers.encode(History(A, (B,), "e", 5, b"no row")))
    driver.broker.changelog[0].append((quarantine_key(TRANSFERS, 0), b"broken"))
    driver.advance_time(at("03-02"))
    assert [letter.reason for letter in driver.dead_letters] == ["Set aside by a person: broken"]


@pytest.mark.parametrize("erased_meanwhile", [False, True])
def test_a_history_on_which_the_rules_failed_and_that_was_set_aside_is_whole_when_it_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, erased_meanwhile: bool
) -> None:
    driver = told(deployment(), *(order(A, "03-01") for _ in range(3)), order(B, "03-01"))
    with monkeypatch.context() as defect:
        defect.setattr(engine, "absorb", lambda *_: 1 // 0)
        driver.send(merged(A, B, "03-02"), order(A, "03-03"))
        driver.announce(at("03-04"))
        with pytest.raises(InvariantBroken, match=r"lifecycle quarantine transfers 1 0$"):
            driver.run()
    driver.broker.changelog[1].append((quarantine_key(TRANSFERS, 0), b"a defect"))
    driver.crash()
    told(driver, order(A, "03-05"))
    assert orders(driver, B) == 3  # what is said later is passed on all the same
    if erased_meanwhile:
        told(driver, erased(B, "03-06"))
    [(partition, output)] = driver.outputs("dead-letters")
    letter = letters.letter(SimpleNamespace(**output._asdict() | {"partition": partition, "offset": 0}))
    judge = redriving._Judge(load_settings({"LIFECYCLE_PARTITIONS": str(SHARDS)}), redriving.Choice("cannot_apply"), {})
    assert judge.fate(letter) == ("send", "")
    for _ in range(2):
        driver.broker.append((letter.topic, judge.target(letter)), -1, letter.key, letter.value)  # type: ignore[arg-type]
    driver.run()
    if erased_meanwhile:
        assert names(driver, A, B) == []
        return
    assert orders(driver, B) == 6
    assert driver.counts["duplicates", "UserMerged"] == 1
    assert names(told(driver, erased(B, "03-06")), A, B) == []


def test_a_baseline_of_the_old_account_is_added_and_not_put_in_place_of_the_other() -> None:
    driver = told(
        deployment(),
        named(baseline("03-01", "2025-01-01", 3, "2026-01-05"), "b-1", A),
        named(baseline("03-01", "2025-01-01", 4, "2026-01-05"), "b-2", B),
        merged(A, B, "03-03"),
    )
    assert orders(driver, B) == 7
    told(driver, named(baseline("03-04", "2025-01-01", 5, "2026-01-05"), "b-3", A))
    assert orders(driver, B) == 9


def test_under_the_wall_clock_a_backlog_of_transfers_is_applied_before_timers() -> None:
    driver = told(deployment("wall"), order(B, "03-01"), order(A, "03-01"))
    driver.advance_time(at("03-01 14:00"))
    driver.send(merged(A, B, "03-01 13:00"), order(A, "03-01 14:00"))
    while driver.work(0):  # its shard works on; the other one's worker is down until the next day
        pass
    driver.advance_time(at("03-02 12:30"), working=False)
    driver.run()
    assert [t.user_id for t in driver.triggers] == []  # B's reminder of noon was ended by the order at 14:00
    driver.advance_time(at("03-02 15:00"))
    assert [(t.user_id, t.step) for t in driver.triggers] == [(B, 1)]


def test_transfers_hold_nobody_up_under_the_clock_of_events() -> None:
    shard = Processor(plan(RULES, partitions=SHARDS, inputs=("orders",)), 1)
    shard.restored()
    shard.feed("orders", [Record(0, -1, B.encode(), b"")], 1)
    assert shard.take(10) is not None


def test_a_history_for_which_there_is_no_room_is_added_without_its_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.processor.bounds.MAX_ROW_BYTES", 4_000)
    long = line("milk", title="x" * 2_000)
    driver = told(deployment(), *(named(paid(f"o-{who}", "03-01", long), f"e-{who}", who) for who in (A, B)))
    told(driver, named(issued("c-1", "03-01"), "c", A), merged(A, B, "03-03"), named(paid(f"o-{A}", "03-01"), "e", A))
    row = driver.row(B)
    assert row is not None
    assert (paid_orders(row), len(row.coupons)) == (2, 1)
    assert [order.lines for order in row.orders.values()] == [(), ()]
    assert not driver.dead_letters
    assert list(row.merged) == [A]


def restarted(driver: Driver, version: int, *shards: int) -> Driver:
    """The workers of these shards (default: all) with LIFECYCLE_STATE_VERSION set."""
    driver.plan = driver.plan._replace(state_version=version)
    driver.rebalance(*shards)
    return driver


def test_before_the_state_is_finalised_accounts_are_not_merged_and_can_be_afterwards() -> None:
    driver = told(restarted(deployment(), 1), *(order(who, "03-01", f"o-{who}") for who in (A, B)))
    told(driver, merged(A, B, "03-02"), merged(C, B, "03-02"))
    assert {(letter.code, letter.topic) for letter in driver.dead_letters} == {("cannot_apply", "profiles")}
    assert "LIFECYCLE_STATE_VERSION=2, restart all workers" in driver.dead_letters[0].reason
    assert (orders(driver, A), orders(driver, B), orders(driver, C)) == (1, 1, -1)
    assert {key for key in left(driver) if not key.startswith(b"\0shard")} == {A.encode(), B.encode()}
    assert {value[0] for key, value in left(driver).items() if not key.startswith(b"\0")} == {1}
    restarted(driver, 2)
    told(driver, merged(A, B, "03-03"))
    assert (orders(driver, A), orders(driver, B)) == (-1, 2)


def test_a_message_of_a_finalised_shard_finalises_the_next_one() -> None:
    driver = told(restarted(deployment(), 1), *(order(who, "03-01", f"o-{who}") for who in (A, B)))
    restarted(driver, 2, 0)  # the other shard's worker is still to be restarted
    told(driver, merged(A, B, "03-03"))
    row = left(driver)[B.encode()]
    assert (orders(driver, B), row[0], decode(row).merged) == (2, 2, {A: None})


# -- erasing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [A, A2, B])
def test_an_erasure_leaves_nothing_that_names_any_of_the_accounts(who: str) -> None:
    driver = told(deployment(), order(A, "03-01"), order(A2, "03-01"), order(B, "03-01"), order(C, "03-01"))
    told(driver, merged(A, B, "03-02"), merged(A2, B, "03-02"))
    assert len(names(driver, A, A2, B)) == 4  # two markers, the row, and its stage
    told(driver, erased(who, "03-03"))
    assert names(driver, A, A2, B) == []
    assert driver.counts["transfers", "forgotten"] == 2
    told(driver, order(A, "03-04"), order(B, "03-04"), named(event(ev.UserRegistered, "02-01"), "r", A2))
    for shard in range(SHARDS):
        driver.crash("before", shard)
    told(driver, order(A, "03-05"), merged(A2, B, "03-05"))
    assert names(driver, A, A2, B) == []
    assert orders(driver, C) == 1


def test_a_history_that_comes_after_the_erasure_is_dropped_and_its_marker_goes() -> None:
    driver = told(deployment(), order(A, "03-01"), order(B, "03-01"), order(C, "03-01"), erased(C, "03-02"))
    told(driver, merged(A, B, "03-03"), merged(B, C, "03-03"), order(A, "03-04"))
    assert names(driver, A, B, C) == []
    assert driver.counts["transfers", "dropped"] >= 1
    assert [orders(driver, who) for who in (A, B, C)] == [-1, -1, -1]


@pytest.mark.parametrize("inner", [A, A2])
def test_with_a_history_that_is_dropped_the_accounts_within_it_are_forgotten(inner: str) -> None:
    driver = told(deployment(), order(inner, "03-01"), order(B, "03-01"), order(C, "03-01"), merged(inner, B, "03-02"))
    driver.send(merged(B, C, "03-03"), erased(C, "03-04"))
    driver.announce(at("03-05"))
    while driver.work(2):  # the erasure is here before the history
        pass
    driver.run()
    assert names(driver, inner, B, C) == []
    told(driver, named(event(ev.UserRegistered, "03-07"), "r-new", B), order(inner, "03-08"))
    assert orders(driver, B) == 0


def test_what_comes_back_from_an_erased_account_takes_the_markers_of_its_way_along() -> None:
    driver = told(deployment(), order(A, "03-01"), merged(A, B, "03-03"), erased(B, "03-05"))
    assert names(driver, A, B) == []
    stray = Accounts(IN_MEMORY)
    stray.merge(A2, B, at("03-03"))  # as an earlier release may have left it
    [_, marker] = stray.taken()
    driver.broker.commit(0, Batch([marker], [], {}, Counter()))
    driver.crash()
    told(driver, erased(A2, "03-04"), when="03-06")
    assert names(driver, A2) == []
    driver.broker.commit(0, Batch([marker], [], {}, Counter()))
    driver.crash()
    told(driver, named(event(ev.UserRegistered, "03-07"), "r", B))
    told(driver, erased(A2, "03-04"), when="03-08")
    assert names(driver, A2) == []
    assert orders(driver, B) == 0  # whose new life is none of A2's
    driver.broker.commit(0, Batch([marker], [], {}, Counter()))
    driver.crash()
    told(driver, erased(A2, "03-09"))
    assert names(driver, A2, B) == []


def test_a_new_life_begins_without_what_was_merged_before_the_erasure() -> None:
    driver = told(deployment(), order(A, "03-01"), order(B, "03-01"))
    driver.send(merged(A, B, "03-02"))
    driver.announce(at("03-02 13:00"))
    driver.work(0)  # the history is on its way
    driver.send(erased(B, "03-03"), named(event(ev.UserRegistered, "03-04"), "r", B))
    driver.announce(at("03-05"))
    late = driver.broker.log((TRANSFERS, 1)).pop()
    driver.broker._ends[TRANSFERS, 1] -= 1
    driver.run()
    assert orders(driver, B) == 0
    driver.broker.append((TRANSFERS, 1), -1, late.key, late.value)
    driver.run()
    assert orders(driver, B) == 0
    assert names(driver, A) == []
    told(driver, order(C, "03-06"), merged(C, B, "03-07"))
    assert orders(driver, B) == 1  # a later merge counts


def test_an_event_on_its_way_does_not_begin_a_new_life() -> None:
    driver = told(deployment(), order(A, "03-01"), order(B, "03-01"), merged(A, B, "03-02"), erased(B, "03-03"))
    registered = named(event(ev.UserRegistered, "03-05"), "r", A)
    record = driver.send_record("logins", A.encode(), b"", partition=2)[1]

    passed = PassedOn(
        B, (A,), registered.occurred_at, "logins", 0, record.offset, -1, A.encode(), encode_event(registered)
    )
    driver.broker.append((TRANSFERS, 1), -1, B.encode(), transfers.encode(passed))
    told(driver, order(C, "03-06"))
    assert orders(driver, B) == -1
    assert driver.counts["ignored", "erased", "UserRegistered"] == 1


def test_of_too_many_accounts_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.baselines.MAX_MERGED", 1)
    driver = told(deployment(), order(A, "03-01"), order(A2, "03-01"), merged(A, B, "03-02"))
    told(driver, merged(A2, B, "03-03"))
    assert orders(driver, B) == 2
    assert names(driver, A) == []
    assert told(driver, order(A, "03-04")).counts["ignored", "erased", "OrderPaid"] == 1


def test_to_forget_an_account_that_is_not_part_of_another_changes_nothing() -> None:
    driver = told(deployment(), order(A, "03-01"))
    driver.broker.append((TRANSFERS, 0), -1, A.encode(), transfers.encode(Forget(A, at("03-02"))))
    driver.advance_time(at("03-03"))
    assert orders(driver, A) == 1
    assert driver.broker.committed[TRANSFERS, 0] == 1


def test_markers_come_back_with_the_changelog() -> None:
    accounts = Accounts(IN_MEMORY)
    accounts.merge("a", "b", 5)
    accounts.merge("c", "b", 6)
    accounts.erase("c", 7)
    again = Accounts(IN_MEMORY)
    assert all(again.restore(key, value) for key, value in accounts.taken() if key.startswith(b"\x00"))
    assert (again.merged, again.erased_at("c"), again.erased_at("a")) == ({"a": ("b", 5)}, 7, None)
    assert not again.restore(b"u-1", b"row")
    assert accounts.taken() == []
