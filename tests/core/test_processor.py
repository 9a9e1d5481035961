"""One shard: what is merged in which order, when timers fire under both clocks, and what a batch carries."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec
import orjson
import pytest
from aiokafka.partitioner import DefaultPartitioner

from app.backtest.driver import Driver
from app.core import engine, row
from app.core.row import NewerRow
from app.processor import (
    META_KEY,
    Fingerprint,
    InvariantBroken,
    Processor,
    RejectCeiling,
    partition_of,
    quarantine_key,
)
from app.processor.inputs import BUFFER
from app.processor.shard import IDLE_NOTE
from schemas import events as ev
from schemas.codec import DecodeOptions
from tests.core.shard import ECHO, Shard, named
from tests.core.shop import (
    DAY,
    HOUR,
    SECOND,
    at,
    cancelled,
    catalogue,
    event,
    issued,
    line,
    locked,
    paid,
    redeemed,
    refunded,
    returned,
    rule_text,
    terms,
)

COUPON, WINBACK = catalogue("coupon_unused"), catalogue("winback")
USERS = [f"u-{n}" for n in range(7)]


def login(when: str | int, name: str, user: str = "u-1") -> ev.UserLoggedIn:
    return named(event(ev.UserLoggedIn, when), name, user)


def order(when: str | int, name: str, user: str = "u-1") -> ev.OrderPaid:
    return named(paid(f"o-{name}", when), name, user)


def coupon(when: str | int, name: str, user: str = "u-1") -> ev.CouponIssued:
    return named(issued(f"c-{name}", when), name, user)


# -- the merge, CLOCK=events


def test_inputs_are_merged_by_the_time_of_their_events() -> None:
    shard = Shard().write(order("03-01", "b"), order("03-04", "d"), login("02-28", "a"), login("03-02", "c"))
    assert shard.clock("03-10").run().sent() == ["a", "b", "c", "d"]


def test_events_of_one_instant_come_in_the_order_of_the_inputs() -> None:
    shard = Shard().write(coupon("03-01", "3"), login("03-01", "2"), order("03-01", "1"))
    assert shard.clock("03-10").run().sent() == ["1", "2", "3"]


def test_an_input_keeps_the_order_of_its_own_records() -> None:
    shard = Shard(lateness=30 * DAY).write(order("03-04", "1"), order("03-01", "2"), login("03-02", "3"))
    assert shard.clock("03-10").run().sent() == ["3", "1", "2"]


def test_an_input_that_shows_nothing_makes_the_others_wait() -> None:
    shard = Shard().write(order("03-01", "a"), login("03-01", "b")).run()
    assert shard.sent() == []
    assert shard.committed == dict.fromkeys(shard.plan.inputs, 0)
    assert shard.clock("03-02", "orders", "coupons").run().sent() == ["a", "b"]


def test_the_end_of_a_topic_proves_nothing() -> None:
    shard = Shard().run(order("03-01", "a"), login("03-02", "b"), coupon("03-03", "c"))
    assert shard.sent() == ["a"]
    assert shard.processor.merged == at("03-01")
    assert shard.run(order("03-02 10:00", "a2")).sent() == ["a", "a2"]


@pytest.mark.parametrize(
    ("clocks", "goes_on"),
    [
        ({"orders": "03-01", "coupons": "03-01"}, False),  # an order of that very instant would come before the login
        ({"orders": at("03-01") + 1, "coupons": "03-01"}, True),  # a coupon of that instant comes after it
        ({"orders": at("03-01") + 1, "coupons": at("03-01") - 1}, False),
    ],
)
def test_an_input_that_says_how_far_it_is_lets_go_what_comes_before(clocks: dict[str, Any], goes_on: bool) -> None:
    shard = Shard().write(login("03-01", "a"))
    for name, when in clocks.items():
        shard.clock(when, name)
    assert shard.run().sent() == (["a"] if goes_on else [])


def test_what_comes_after_the_clock_of_its_own_input_stands_at_that_clock() -> None:
    shard = Shard(lateness=30 * DAY)
    shard.clock("03-03", "orders").write(order("03-01", "late"), login("03-02", "in time"))
    assert shard.clock("03-10").run().sent() == ["in time", "late"]


def test_a_clock_never_goes_back() -> None:
    shard = Shard(WINBACK).clock("03-03").clock("03-01").run()
    assert shard.processor.merged == at("03-03")
    assert shard.counts["events", "ClockAdvanced"] == 6


def test_what_cannot_be_used_or_is_ignored_stands_where_it_is_found() -> None:
    shard = Shard().write(("orders", b"{"), order("03-01", "a"), ("orders", (b"u-1", b'{"type": "Unheard"}')))
    shard.clock("03-10").run()
    assert [output.topic for output in shard.outputs] == ["dead-letters", "triggers.order", "decisions"]
    assert shard.counts["ignored", "unknown_type", "Unheard"] == 1
    assert shard.committed == {"orders": 4, "logins": 1, "coupons": 1}


def test_an_input_that_is_not_configured_is_not_waited_for() -> None:
    shard = Shard(inputs=("orders",)).run(order("03-01", "a"))
    assert shard.sent() == ["a"]


# -- timers, CLOCK=events


def due_order(**changes: Any) -> Shard:
    """A shard with a winback due on 04-30 12:00."""
    return Shard(WINBACK, **changes).run(paid("o-1", "03-01"), ("logins", at("03-01")), ("coupons", at("03-01")))


@pytest.mark.parametrize(
    ("lateness", "tick", "fires"), [(0, 0, False), (0, 1, True), (HOUR, 0, False), (HOUR, 1, True)]
)
def test_a_timer_fires_between_the_events_before_and_after_its_instant_and_the_lateness(
    lateness: int, tick: int, fires: bool
) -> None:
    shard = due_order(lateness=lateness)
    assert shard.clock(at("04-30") + lateness + tick).run().sent(lambda t: t["step"]) == [1] * fires


def test_a_timer_fires_at_its_own_instant_however_long_the_silence() -> None:
    shard = due_order(lateness=DAY).clock("12-31").run()
    assert shard.sent(lambda t: (t["step"], t["decided_at"][:16])) == [(1, "2026-04-30T12:00"), (2, "2026-05-30T12:00")]
    assert shard.processor.pending_timers == 0


def test_an_event_of_the_instant_of_a_timer_goes_first() -> None:
    shard = due_order().run(paid("o-2", "04-30"), ("logins", at("05-01")), ("coupons", at("05-01")))
    assert shard.clock("05-10").run().sent() == []


def test_the_next_event_of_an_input_shows_how_far_it_is() -> None:
    shard = due_order().write(paid("o-2", "05-01"), login("05-02", "x"), coupon("05-03", "y")).run()
    assert shard.sent(lambda t: t["step"]) == [1]
    assert [d["outcome"] for d in shard.decisions()] == ["fired"]


def test_timers_fire_in_the_order_due_user_rule_key_step() -> None:
    second = rule_text(
        rule="b_rule", enter="{on: CouponIssued, key: coupon}", ends=None, steps="[{after: 7d}, {after: 0s}]"
    )
    shard = Shard(catalogue("coupon_unused", second))
    shard.write(
        named(issued("c-2", "03-01"), "e1", "u-2"),
        named(issued("c-9", "03-01"), "e2", "u-1"),
        named(issued("c-3", "03-01"), "e3", "u-1"),
        named(issued("c-4", at("03-01") - SECOND), "e0", "u-3"),
    )
    shard.log["coupons"].sort(key=lambda record: orjson.loads(record.value)["event_id"])
    shard.log["coupons"] = [r._replace(offset=n) for n, r in enumerate(shard.log["coupons"])]
    shard.clock("03-09").run()
    assert shard.sent(lambda t: (t["user_id"], t["rule"], t["entry"]["key"], t["step"])) == [
        ("u-3", "b_rule", "c-4", 1),
        ("u-3", "coupon_unused", "c-4", 1),
        ("u-3", "b_rule", "c-4", 2),
        ("u-1", "b_rule", "c-3", 1),
        ("u-1", "b_rule", "c-9", 1),
        ("u-1", "coupon_unused", "c-3", 1),
        ("u-1", "coupon_unused", "c-9", 1),
        ("u-1", "b_rule", "c-3", 2),
        ("u-1", "b_rule", "c-9", 2),
        ("u-2", "b_rule", "c-2", 1),
        ("u-2", "coupon_unused", "c-2", 1),
        ("u-2", "b_rule", "c-2", 2),
    ]


def test_a_timer_that_was_moved_or_cancelled_does_not_fire_at_its_old_instant() -> None:
    shard = due_order().run(paid("o-2", "03-10"), ("logins", at("03-11")), ("coupons", at("03-11")))
    assert shard.clock("12-31").run().sent(lambda t: t["decided_at"][:10]) == ["2026-05-09", "2026-06-08"]
    shard = Shard(COUPON).run(issued("c-1", "03-01"), redeemed("c-1", "03-02")).clock("12-31").run()
    assert shard.outputs == []


def test_a_timer_that_comes_back_to_its_old_instant_fires_once() -> None:
    shard = Shard(COUPON).write(issued("c-1", "03-01"), locked("c-1", "03-02"), returned("c-1", "03-03"))
    shard.write(redeemed("c-1", "03-04"), returned("c-1", "03-05")).clock("03-20").run()
    assert shard.sent(lambda t: t["step"]) == [1, 2]


# -- the clock on the wall


def wall(of: Any = WINBACK, **changes: Any) -> Shard:
    return Shard(of, **({"clock": "wall", "lateness": 5 * SECOND, "start": "since:0"} | changes))


def test_nothing_happens_before_a_look() -> None:
    shard = wall(ECHO).write(order("03-01", "a")).fetch()
    assert shard.take() is None
    assert shard.look("03-01").run().sent() == ["a"]


def test_events_are_applied_up_to_the_end_and_merged_time_becomes_the_look() -> None:
    shard = wall().write(paid("o-1", "03-01")).look("03-02").run()
    assert shard.processor.merged == at("03-02")
    assert shard.processor.now == at("03-02")


@pytest.mark.parametrize(("tick", "fires"), [(-1, False), (0, True)])
def test_a_timer_fires_when_a_look_has_passed_it_and_the_lateness(tick: int, fires: bool) -> None:
    shard = wall().run(paid("o-1", "03-01"))
    shard.look("03-01 13:00").run()
    shard.look(at("04-30") + 5 * SECOND + tick).run()
    assert shard.sent(lambda t: t["decided_at"]) == ["2026-04-30T12:00:05+08:00"] * fires


def test_after_an_outage_the_backlog_is_read_before_any_timer_fires() -> None:
    shard = wall().write(paid("o-1", "03-01")).look("03-01 12:01").run()
    shard.write(paid("o-2", "04-29"))  # while the worker was away
    shard.reopen().look("05-01")
    assert shard.take() is None  # not fetched yet: nothing may fire
    assert shard.run().sent() == []
    assert shard.processor.merged == at("05-01")
    shard = wall().write(paid("o-1", "03-01")).look("03-01 12:01").run().reopen().look("04-30 13:00").run()
    assert shard.sent(lambda t: t["step"]) == [1]


def test_gates_use_the_wall_clock_so_that_after_an_outage_nothing_stale_goes_out() -> None:
    shard = wall().write(paid("o-1", "03-01")).look("03-01 12:01").run().reopen().look("05-20").run()
    (decision,) = shard.decisions()
    assert (decision["outcome"], decision["gate"]) == ("expired", "staleness")
    assert decision["due_at"] == "2026-04-30T12:00:00+08:00"
    assert decision["decided_at"] == "2026-05-20T12:00:00+08:00"
    shard.look("05-30 13:00").run()
    assert shard.sent(lambda t: t["step"]) == [2]


def test_quiet_hours_are_asked_of_the_wall_clock() -> None:
    night = catalogue("winback", shop="quiet_hours: {jitter: 0s}\n")
    shard = wall(night).write(paid("o-1", "03-01")).look("03-01 12:01").run().reopen().look("04-30 22:00").run()
    assert [d["outcome"] for d in shard.decisions()] == ["deferred"]
    shard.look("05-01 08:59").run()
    assert len(shard.decisions()) == 1
    shard.look("05-01 09:00:05").run()
    assert [d["outcome"] for d in shard.decisions()] == ["deferred", "fired"]
    assert shard.sent(lambda t: t["decided_at"]) == ["2026-05-01T09:00:05+08:00"]


def test_an_input_without_traffic_holds_nobody_up() -> None:
    shard = wall(inputs=("orders", "feedback")).run(paid("o-1", "03-01"))
    assert shard.look("03-01 12:01").run().processor.merged == at("03-01 12:01")


def test_an_input_whose_end_is_only_a_marker_of_a_transaction_holds_nobody_up() -> None:
    shard = wall().write(paid("o-1", "03-01")).look("03-01 12:01").run()
    shard.processor.look(at("04-30 13:00"), {"orders": 2, "logins": 1, "coupons": 0})
    assert shard.take() is None  # offset 1 of orders and 0 of logins may hold an event
    shard.processor.feed("orders", (), 2)
    assert shard.take() is None
    shard.processor.feed("logins", (), 1)
    assert shard.take() is not None
    assert shard.sent(lambda t: t["step"]) == [1]


def test_an_input_that_is_behind_makes_the_others_wait_so_that_a_backlog_is_not_applied_months_ahead() -> None:
    shard = wall(ECHO).write(order("03-02", "b"), login("03-01", "a")).look("03-05").fetch("orders", "coupons")
    shard.take()
    assert shard.sent() == []
    assert shard.fetch("logins").run().sent() == ["a", "b"]


def test_load_that_never_ends_does_not_keep_timers_from_firing() -> None:
    shard = wall().write(paid("o-1", "03-01")).look("03-01 12:01").run()
    shard.write(*[login(at("04-30") + n, f"x{n}", "u-2") for n in range(40)])
    fired_after = None
    for turn in range(30):
        shard.write(*[login(at("04-30 12:01") + 40 * turn + n, f"y{turn}-{n}", "u-2") for n in range(40)])
        shard.look(at("04-30 12:01") + turn * SECOND).fetch(most=40).take(limit=40)
        assert shard.fetched["logins"] < len(shard.log["logins"])
        if shard.sent() and fired_after is None:
            fired_after = turn
    assert fired_after is not None
    assert fired_after <= 3


def test_events_beyond_the_end_of_a_look_do_not_wait_for_its_timers() -> None:
    shard = wall(ECHO).look("03-01").write(order("03-01", "a")).fetch()
    assert shard.run().sent() == ["a"]


def test_a_look_back_in_time_changes_nothing() -> None:
    shard = wall().look("03-02").run().look("03-01").run()
    assert shard.processor.now == shard.processor.merged == at("03-02")


def test_a_look_of_some_inputs_waits_for_those() -> None:
    shard = wall().write(paid("o-1", "03-01"))
    shard.processor.look(at("03-02"), {"orders": 1})
    assert shard.run().processor.merged == at("03-02")


def test_what_an_input_says_of_its_time_is_counted_and_ignored() -> None:
    shard = wall().clock("12-31").write(paid("o-1", "03-01")).look("03-01 12:01").run()
    assert shard.counts["events", "ClockAdvanced"] == 3
    assert shard.processor.merged == at("03-01 12:01")
    assert shard.sent() == []


def test_timers_are_taken_a_few_at_a_time_and_time_moves_when_all_have_fired() -> None:
    shard = wall().write(*[named(paid(f"o-{u}", "03-01"), f"e-{u}", u) for u in USERS]).look("03-01 12:01").run()
    shard.look("04-30 13:00")
    taken = []
    while shard.processor.merged < at("04-30 13:00"):
        shard.take(limit=2)
        taken.append(len(shard.sent()))
    assert taken == [2, 4, 6, 7]
    assert shard.sent(lambda t: t["user_id"]) == USERS


def test_merged_time_survives_a_crash_though_nothing_else_happens() -> None:
    shard = wall().write(paid("o-1", "03-01")).look("03-01 12:01").run()
    shard.look(at("03-01 12:02") - 1).run()
    assert shard.batches[-1].offsets == {"orders": 1}
    shard.look("03-01 12:02").run()
    assert shard.batches[-1].offsets == {}
    assert shard.reopen().processor.merged == at("03-01 12:02")


# -- dead letters


def test_what_cannot_be_used_goes_on_untouched_with_every_header() -> None:
    shard = Shard(inputs=("orders",)).write(("orders", (b"u-1", b"{broken")), timestamp_ms=1_772_000_000_123).run()
    (letter,) = shard.outputs
    assert (letter.topic, letter.key, letter.value) == ("dead-letters", b"u-1", b"{broken")
    assert [name for name, _ in letter.headers] == [
        "dlq.reason_code",
        "dlq.reason",
        "dlq.field",
        "dlq.topic",
        "dlq.partition",
        "dlq.offset",
        "dlq.rejected_at",
    ]
    (said,) = shard.letters()
    assert said["dlq.reason_code"] == "not_json"
    assert (said["dlq.topic"], said["dlq.partition"], said["dlq.offset"]) == ("orders", "0", "0")
    assert said["dlq.rejected_at"] == "2026-02-25T06:13:20.123000+00:00"
    assert said["dlq.field"] == ""
    assert shard.counts == {("rejects", "not_json"): 1}
    assert shard.committed == {"orders": 1}


def test_under_the_wall_clock_the_rejection_has_the_instant_of_the_look() -> None:
    shard = wall(inputs=("orders",)).write(("orders", (None, None))).look("03-01").run()
    (said,) = shard.letters()
    assert said["dlq.rejected_at"] == "2026-03-01T04:00:00+00:00"
    assert shard.outputs[0].value is None


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 2**63 - 1, -(2**63)])
def test_no_timestamp_of_a_record_stops_the_shard(timestamp_ms: int) -> None:
    shard = Shard(inputs=("orders",)).write(("orders", b"{"), timestamp_ms=timestamp_ms).run()
    assert shard.letters()[0]["dlq.rejected_at"][:4] in ("1970", "9999")


@pytest.mark.parametrize(
    ("code", "field", "message"),
    [
        ("not_json", "", b"\xff"),
        ("not_an_object", "", b"[]"),
        ("unknown_type", "type", {"type": "OrderPayed"}),
        ("wrong_topic", "type", {"type": "UserLoggedIn"}),
        ("missing_field", "order_id", {"order_id": None}),
        ("bad_value", "total", {"total": 258}),
        ("bad_time", "occurred_at", {"occurred_at": "2026-03-01T12:00:00"}),
        ("no_key", "user_id", None),
        ("key_mismatch", "user_id", {"user_id": "u-2"}),
        ("wrong_partition", "", {"user_id": "u-9"}),
        ("too_large", "", b"x" * 5000),
        ("cannot_apply", "currency", {"type": "OrderRefunded", "amount": "1.00", "currency": "EUR"}),
    ],
)
def test_every_code_names_its_field_and_the_flow_goes_on(code: str, field: str, message: Any) -> None:
    options = DecodeOptions(unknown_types="reject", max_bytes=4096)
    shard = Shard(inputs=("orders",), decode=options, partitions=16, shard=partition_of(b"u-1", 16, "murmur2"))
    good = {"event_id": "e-1", "type": "OrderPaid", "user_id": "u-1", "occurred_at": "2026-03-01T12:00:00+08:00"}
    good |= {"order_id": "o-1", "currency": "CNY", "total": "258.00", "lines": []}
    key = b"u-1"
    if isinstance(message, bytes):
        value = message
    else:
        bad = {name: said for name, said in (good | {"event_id": "e-2"} | (message or {})).items() if said is not None}
        value = orjson.dumps(bad)
        key = None if message is None else b"u-9" if code == "wrong_partition" else b"u-1"
    shard.write(("orders", (b"u-1", orjson.dumps(good))), ("orders", (key, value)))
    shard.write(("orders", (b"u-1", orjson.dumps(good | {"event_id": "e-3", "order_id": "o-3"})))).run()
    (said,) = shard.letters()
    assert (said["dlq.reason_code"], said["dlq.field"], said["dlq.offset"]) == (code, field, "1")
    assert said["dlq.reason"].endswith((".", "?"))
    assert shard.sent() == ["e-1", "e-3"]


def test_a_user_in_the_wrong_partition_is_refused_with_the_cure() -> None:
    right = partition_of(b"u-1", 4, "murmur2")
    shard = Shard(partitions=4, shard=(right + 1) % 4).clock("03-10").run(order("03-01", "a"))
    shard.clock("03-10").run()
    (said,) = shard.letters()
    assert said["dlq.reason"] == (
        f"Keyed by this user it belongs to partition {right} (murmur2), and it came to {(right + 1) % 4}. "
        "Set the producer's partitioner to murmur2, as for all other inputs."
    )


def test_a_user_who_is_known_here_is_not_asked_for_the_partition_again() -> None:
    crc = partition_of(b"u-1", 4, "crc32")
    shard = Shard(inputs=("orders",), partitions=4, shard=crc, partitioner="crc32").run(order("03-01", "a"))
    assert shard.sent() == ["a"]
    assert shard.reopen(partitioner="murmur2").run(order("03-02", "b")).letters() == []


@pytest.mark.parametrize("key", [b"u-1", b"u-42", "用户".encode(), b"x" * 256])
def test_partitions_are_those_of_the_clients(key: bytes) -> None:
    every = list(range(12))
    assert partition_of(key, 12, "murmur2") == DefaultPartitioner()(key, every, every)
    assert partition_of(key, 12, "crc32") in every


def test_many_rejects_in_a_row_stop_the_shard_if_the_shop_wants_so() -> None:
    shard = Shard(inputs=("orders",), reject_ceiling=3, stop_at_ceiling=True)
    shard.run(("orders", b"{"), ("orders", b"{"), order("03-01", "a"), ("orders", b"{"), ("orders", b"{"))
    assert shard.processor.consecutive_rejects == 2
    with pytest.raises(
        RejectCeiling, match=r"3 messages in a row could not be used; the last one, at orders\[0\] offset 5"
    ):
        shard.run(("orders", b"{"))
    patient = Shard(inputs=("orders",), reject_ceiling=3).run(*[("orders", b"{")] * 5)
    assert patient.processor.consecutive_rejects == 5


def test_a_batch_says_how_many_were_rejected_in_a_row_as_the_processor_counts_them() -> None:
    shard = Shard(inputs=("orders",))
    shard.run(("orders", b"{"), order("03-01", "a"), ("orders", b"{"), ("orders", b"{"))
    assert shard.batches[-1].consecutive_rejects == shard.processor.consecutive_rejects == 2


def test_an_event_that_a_person_set_aside_goes_to_the_dead_letters() -> None:
    shard = Shard(inputs=("orders",))
    shard.changelog[quarantine_key("orders", 1)] = b"it breaks the rules"
    shard.changelog[quarantine_key("orders", 2)] = b"a mistake"
    shard.reopen()
    shard.processor.restore(quarantine_key("orders", 2), None)
    shard.run(order("03-01", "a"), order("03-02", "b"), order("03-03", "c"))
    assert shard.sent() == ["a", "c"]
    (said,) = shard.letters()
    assert (said["dlq.reason_code"], said["dlq.reason"]) == (
        "cannot_apply",
        "Set aside by a person: it breaks the rules",
    )


# -- when the core fails


@pytest.mark.parametrize("what", ["step", "tick"])
def test_a_failure_of_the_core_leaves_nothing_and_says_where(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = Shard(COUPON, inputs=("coupons",)).run(issued("c-0", "03-01"))
    before = dict(shard.changelog), dict(shard.committed), list(shard.outputs)

    def fails(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(engine, what, fails)
    with pytest.raises(InvariantBroken) as caught:
        shard.run(issued("c-1", "03-20"))
    place = "event at coupons[0] offset 1" if what == "step" else "timer due at 2026-03-08T04:00:00+00:00 in shard 0"
    assert place in str(caught.value)
    assert "ZeroDivisionError" in str(caught.value)
    assert (shard.changelog, shard.committed, shard.outputs) == before
    monkeypatch.undo()
    shard.reopen().run().clock("04-01").run()
    assert shard.sent(lambda t: (t["entry"]["key"], t["step"])) == [("c-0", 1), ("c-0", 2), ("c-1", 1)]


def test_what_is_due_and_breaks_the_rules_is_let_go_once_a_person_has_set_it_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    due, sound = at("03-08"), engine.tick

    def fails(row: Any, due_at: int, moment: Any) -> Any:
        if row.user_id == "u-1" and due_at == due:
            raise ZeroDivisionError("secret")
        return sound(row, due_at, moment)

    monkeypatch.setattr(engine, "tick", fails)
    shard = Shard(COUPON, inputs=("coupons",)).write(
        issued("c-0", "03-01"),
        named(issued("c-1", "03-01"), "e-2", "u-2"),
        issued("c-2", "03-02"),
    )
    with pytest.raises(InvariantBroken) as caught:
        shard.clock("03-10").run()
    assert str(caught.value).endswith(f"set it aside: lifecycle quarantine timer 0 {due}")
    assert shard.sent(lambda t: t["user_id"]) == []
    shard.changelog[quarantine_key("timer", due)] = b"it divides by zero"
    shard.reopen().run()
    assert shard.sent(lambda t: (t["user_id"], t["entry"]["key"])) == [("u-2", "c-1"), ("u-1", "c-2")]
    assert shard.counts["runs", "exited", "coupon_unused"] == 1
    final = [(d["entry"]["key"], d["outcome"]) for d in shard.decisions() if d["final"]]
    assert sorted(final) == [("c-0", "dropped"), ("c-1", "fired"), ("c-2", "fired")]
    monkeypatch.setattr(engine, "tick", lambda *_: 1 / 0)
    with pytest.raises(InvariantBroken):  # of another instant nobody spoke
        shard.clock("12-01").run()


def test_a_newer_row_is_refused_when_the_shard_is_opened() -> None:
    shard = Shard(inputs=("orders",)).run(order("03-01", "a"))
    shard.changelog[b"u-1"] = bytes([row.ROW_VERSION + 1]) + shard.changelog[b"u-1"][1:]
    with pytest.raises(NewerRow):
        shard.reopen()


# -- batches


def history() -> list[Any]:
    """Events of some users on all inputs, in no good order, with duplicates, refusals and clocks."""
    messages: list[Any] = []
    for number, user in itertools.product(range(30), USERS):
        day = at("01-01") + (number * (5 + USERS.index(user)) + USERS.index(user)) * DAY + number * HOUR
        name, goods = f"{user}-{number}", f"{('milk_powder', 'shoes', 'daily_goods')[number % 3]}"
        buy = paid(
            f"o-{name}",
            day,
            line(goods, quantity=1 + number % 3),
            line("daily_goods"),
            coupons_issued=(terms(f"c-{name}"),),
        )
        messages.append(named(buy, f"p-{name}", user))
        if number % 2:
            messages.append(named(paid(f"o-{name}", day), f"p-{name}", user))
            messages.append(named(redeemed(f"c-{name}", day + 5 * DAY), f"r-{name}", user))
        if number % 3 == 0:
            messages.append(named(refunded(f"o-{name}", day + 2 * DAY), f"f-{name}", user))
            messages.append(("orders", (user.encode(), b"{}")))
        if number % 4 == 0:
            messages.append(named(cancelled(f"o-{name}", day + 3 * DAY), f"x-{name}", user))
        messages.append(login(day - DAY, f"l-{name}", user))
        if user == USERS[-1]:
            messages += [(name, day) for name in ("orders", "logins", "coupons")]
    return [*messages, *[(name, at("12-31")) for name in ("orders", "logins", "coupons")]]


SHIPPED = catalogue("coupon_unused", "replenishment", "winback", shop="locale: en\n")
LATENESS = 40 * DAY


def played(limit: int = 5_000, fetch: int = 1_000_000, after: Callable[[Shard], None] | None = None) -> Shard:
    shard = Shard(SHIPPED, lateness=LATENESS)
    shard.write(*HISTORY)
    while True:
        before = dict(shard.fetched)
        shard.fetch(most=fetch)
        batch = shard.take(limit)
        if after is not None and batch is not None:
            after(shard)
            before = {}
        if batch is None and shard.fetched == before:
            return shard


HISTORY = history()


@pytest.fixture(scope="module")
def undisturbed() -> Shard:
    shard = played()
    assert len(shard.sent()) > 50
    assert {output.topic for output in shard.outputs} == {
        "triggers.coupon",
        "triggers.replenishment",
        "triggers.winback",
        "decisions",
        "dead-letters",
    }
    return shard


@pytest.mark.parametrize(("limit", "fetch"), [(1, 1), (1, 1_000_000), (7, 3), (7, 50), (5_000, 1), (5_000, 40)])
def test_batches_of_any_size_give_the_same_bytes_in_the_same_order(undisturbed: Shard, limit: int, fetch: int) -> None:
    cut = played(limit, fetch)
    assert cut.outputs == undisturbed.outputs
    assert cut.state() == undisturbed.state()
    assert cut.committed == undisturbed.committed
    assert cut.counts == undisturbed.counts
    assert max(len(batch.outputs) for batch in cut.batches) <= max(len(b.outputs) for b in undisturbed.batches)


@pytest.mark.parametrize(("limit", "fetch"), [(3, 2), (40, 11)])
def test_a_shard_that_is_opened_anew_after_every_batch_gives_the_same(
    undisturbed: Shard, limit: int, fetch: int
) -> None:
    cut = played(limit, fetch, after=lambda shard: shard.reopen())
    assert cut.outputs == undisturbed.outputs
    assert cut.state() == undisturbed.state()
    assert cut.committed == undisturbed.committed


def test_rows_that_are_not_kept_decoded_give_the_same(undisturbed: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.processor.shard.HOT_ROWS", 1)
    monkeypatch.setattr("app.processor.shard.STALE_TIMERS", 0)
    cut = played(10, 10)
    assert cut.outputs == undisturbed.outputs
    assert len(cut.processor._hot) <= 2
    assert len(cut.processor._heap) <= cut.processor.pending_timers + 10


def test_a_batch_carries_the_rows_that_changed_once_and_the_shards_own_record_last() -> None:
    shard = Shard(inputs=("orders",)).run(order("03-01", "a"), order("03-02", "b"), order("03-03", "c", "u-2"))
    (batch,) = shard.batches
    assert [key for key, _ in batch.rows] == [b"u-1", b"u-2", META_KEY]
    assert batch.offsets == {"orders": 3}
    assert batch.counts["events", "OrderPaid"] == 3
    assert shard.processor.rows_held == 2
    assert shard.processor.row("u-1").orders.keys() == {"o-a", "o-b"}
    assert shard.processor.row("u-3") is None
    assert shard.take() is None


def test_rows_of_a_batch_that_was_not_taken_are_counted_as_held() -> None:
    shard = Shard(inputs=("orders",)).write(order("03-01", "a")).fetch()
    shard.processor._activate()
    assert shard.processor.rows_held == 0
    shard.take()
    assert shard.processor.rows_held == 1


def test_an_input_says_how_much_room_it_has() -> None:
    shard = Shard()
    before = shard.processor.room("orders")
    shard.write(*[order("03-01", f"{n}") for n in range(5)]).fetch()
    assert before == BUFFER
    assert shard.processor.room("orders") == before - 5
    assert shard.processor.room("logins") == before


def test_a_record_of_the_changelog_that_was_deleted_is_gone() -> None:
    shard = Shard(inputs=("orders",)).run(order("03-01", "a"))
    rows = dict(shard.changelog)
    anew = Processor(shard.plan, 0)
    for key, value in [*rows.items(), (b"u-1", None), (b"u-9", None), (META_KEY, None)]:
        anew.restore(key, value)
    anew.restored()
    assert (anew.rows_held, anew.merged, anew.pending_timers) == (0, 0, 0)


def test_an_input_that_was_taken_out_of_the_settings_has_no_clock() -> None:
    shard = Shard(WINBACK).clock("03-01").run().reopen(inputs=("orders", "logins"))
    assert shard.clock("03-02", "orders", "logins").run().processor.merged == at("03-02")


def test_triggers_carry_the_source_of_the_deployment() -> None:
    shard = Shard(inputs=("orders",)).run(order("03-01", "a"))
    headers = dict(shard.outputs[0].headers)
    assert headers["ce_source"] == b"/lifecycle-triggers/shop"
    assert shard.outputs[0].key == shard.outputs[1].key == b"u-1"


def test_a_retraction_goes_to_the_topic_of_its_trigger() -> None:
    shard = Shard(inputs=("orders",)).run(order("03-01", "a"), named(refunded("o-a", "03-01 12:01"), "b"))
    assert [o.topic for o in shard.outputs] == ["triggers.order", "decisions", "triggers.order", "decisions"]
    assert dict(shard.outputs[2].headers)["ce_type"] == b"lifecycle.trigger.retracted.v1"


# -- how a rule starts


def test_history_that_is_loaded_sends_nothing_and_what_is_due_later_is_sent() -> None:
    shard = wall(start="").write(paid("o-1", "03-01")).look("05-15").run()
    assert (shard.sent(), shard.decisions()) == ([], [])
    shard.look("05-30 13:00").run()
    assert shard.sent(lambda t: t["step"]) == [2]


def test_the_instant_of_activation_is_kept_over_restarts() -> None:
    shard = wall(start="").look("05-15").run().reopen()
    shard.write(named(paid("o-1", "03-15"), "a", "u-1"), named(paid("o-2", "03-17"), "b", "u-2")).look(
        "05-16 13:00"
    ).run()
    assert shard.sent() == ["b"]
    assert shard.processor._meta.active_since == {"winback": at("05-15")}


def test_under_start_none_only_entries_from_now_on_count() -> None:
    shard = wall(start="none").write(paid("o-1", "04-01")).look("05-15").run()
    shard.look("12-31").run()
    assert shard.sent() == []
    shard.write(paid("o-2", "12-31 12:01")).look("12-31 12:02").run().look("2027-03-01 13:00").run()
    assert shard.sent(lambda t: t["step"]) == [1]


def test_under_since_what_was_due_from_then_on_is_sent() -> None:
    events = {"clock": "events", "lateness": 0}
    shard = wall(start=f"since:{at('05-15')}", **events).run(paid("o-1", "03-01")).clock("12-31").run()
    assert shard.sent(lambda t: t["step"]) == [2]


def test_a_rules_own_start_counts_unless_the_shop_overrides_it() -> None:
    rules = catalogue(rule_text(start="{since: 2026-03-12}", steps="[{after: 10d}, {after: 10d}]"))
    for start, steps in (("", [2]), ("since:0", [1, 2])):
        shard = Shard(rules, inputs=("orders",), start=start).run(paid("o-1", "03-01")).clock("12-31").run()
        assert shard.sent(lambda t: t["step"]) == steps


def test_under_events_a_new_deployment_sends_what_its_history_calls_for() -> None:
    assert due_order().clock("12-31").run().sent(lambda t: t["step"]) == [1, 2]


# -- versions of rows


def test_a_deployment_that_is_finalised_writes_the_newer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    shard = Shard(inputs=("orders",)).run(order("03-01", "a"))
    assert shard.changelog[b"u-1"][0] == row.ROW_VERSION
    meta = msgspec.msgpack.decode(shard.changelog[META_KEY])
    assert meta["row_version"] == row.ROW_VERSION
    monkeypatch.setattr(row, "FIELDS", {row.ROW_VERSION: len(row.Row.__struct_fields__)})
    monkeypatch.setattr(row, "ROW_VERSION", row.ROW_VERSION + 1)
    shard.reopen().run(order("03-02", "b"))
    assert shard.changelog[b"u-1"][0] == row.ROW_VERSION - 1
    shard.reopen(state_version=row.ROW_VERSION).run(order("03-03", "c"))
    assert shard.changelog[b"u-1"][0] == row.ROW_VERSION
    assert shard.sent() == ["a", "b", "c"]


def test_a_new_deployment_may_begin_with_an_older_version_while_older_workers_share_its_shards() -> None:
    shard = Shard(inputs=("orders",), state_version=1).run(order("03-01", "a"))
    assert shard.changelog[b"u-1"][0] == 1
    shard.reopen().run(order("03-02", "b"))
    assert shard.changelog[b"u-1"][0] == 1
    shard.reopen(state_version=row.ROW_VERSION).run(order("03-03", "c"))
    assert shard.changelog[b"u-1"][0] == row.ROW_VERSION
    shard.reopen(state_version=1).run(order("03-04", "d"))
    assert shard.changelog[b"u-1"][0] == row.ROW_VERSION  # what is finalised stays so
    assert shard.sent() == ["a", "b", "c", "d"]


def test_a_shard_that_was_finalised_by_a_newer_release_is_refused_before_a_row_of_it_is_met() -> None:
    shard = Shard(inputs=("orders",)).run(order("03-01", "a"))
    meta = msgspec.msgpack.decode(shard.changelog[META_KEY])
    shard.changelog[META_KEY] = msgspec.msgpack.encode(meta | {"row_version": row.ROW_VERSION + 1})
    with pytest.raises(row.NewerRow, match="A newer worker has finalised its format"):
        shard.reopen()


# -- its own record of where its inputs are


def test_the_shards_own_record_says_where_each_input_comes_next_as_the_committed_offsets_do() -> None:
    shard = Shard().run(login("03-01", "a"), login("03-02", "b"), order("03-03", "c")).clock("03-04").run()
    assert shard.committed == {"orders": 2, "logins": 3, "coupons": 1}
    assert shard.processor.read_up_to == shard.committed
    assert shard.reopen().processor.read_up_to == shard.committed
    assert msgspec.msgpack.decode(shard.changelog[META_KEY])["read_up_to"] == shard.committed


def test_an_input_that_gave_nothing_yet_is_recorded_where_it_began_and_one_that_was_set_elsewhere_there() -> None:
    shard = Shard()
    shard.committed["coupons"] = 7
    shard.reopen().run(order("03-03", "c")).clock("03-04", "orders", "logins").run()
    assert shard.processor.read_up_to["coupons"] == 7
    shard.committed["coupons"] = 3
    shard.reopen()
    assert shard.processor.read_up_to["coupons"] == 3
    assert Shard().processor.read_up_to == {"orders": 0, "logins": 0, "coupons": 0}


def test_the_record_applied_last_is_known_by_time_key_and_value_as_long_as_its_input_is_read_on_after_it() -> None:
    shard = Shard().run(login("03-01", "a"), login("03-02", "b")).clock("03-04").run()
    last = shard.log["logins"][2]
    known = shard.processor.applied["logins"]
    assert known == Fingerprint.of(last) == Fingerprint(2, last.timestamp_ms, crc32(last.value or b""))
    assert shard.reopen().processor.applied["logins"] == known
    assert Fingerprint.of(last._replace(key=b"k")) != known
    assert Fingerprint.of(last._replace(timestamp_ms=1)) != known
    shard.committed["logins"] = 1  # a person has set it back
    assert "logins" not in shard.reopen().processor.applied
    assert Shard().processor.applied == {}


def test_what_is_applied_to_its_end_is_read_up_to_behind_the_markers_of_transactions() -> None:
    shard = Shard(clock="wall", inputs=("orders", "coupons"))
    shard.processor.look(at("03-02"), {"orders": 0, "coupons": 0})
    shard.take()
    shard.processor.feed("coupons", (), 3)  # nothing but markers
    assert shard.take() is None  # which is not worth a batch of its own
    [record] = Shard().write(order("03-02", "a")).log["orders"]
    shard.processor.feed("orders", [record, record._replace(offset=2)], 4)
    assert shard.take(1) is not None
    assert shard.committed == shard.processor.read_up_to == {"orders": 2, "coupons": 3}
    assert shard.take() is not None
    assert shard.committed == shard.processor.read_up_to == {"orders": 4, "coupons": 3}
    assert shard.take() is None


@pytest.mark.parametrize("clock", ["wall", "events"])
def test_a_marker_that_comes_by_itself_is_noted_without_other_traffic_and_once(clock: str) -> None:
    driver = Driver(ECHO, clock=clock, at=at("03-01"))  # type: ignore[arg-type]
    driver.advance_time(at("03-02"))
    driver.run()
    driver.broker.mark(("coupons", 0))
    before = len(driver.broker.changelog[0])
    if clock == "wall":
        driver.advance_time(by=IDLE_NOTE)
    driver.run()
    assert driver.broker.committed["coupons", 0] == driver.broker.end(("coupons", 0))
    assert len(driver.broker.changelog[0]) == before + 1
    driver.run()
    assert len(driver.broker.changelog[0]) == before + 1


def test_the_record_of_an_older_release_knows_no_offsets() -> None:
    shard = Shard().run(order("03-03", "c"))
    processor = Processor(shard.plan, 0)
    processor.restore(META_KEY, msgspec.msgpack.encode({"merged": 5}))
    assert processor.read_up_to == {}
