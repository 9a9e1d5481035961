"""Whoever is erased is gone: row, timers and messages that are out; nothing brings them back but a new beginning."""

from __future__ import annotations

import orjson
import pytest

from app.accounts import ERASED_PREFIX, ErasureKeys, WrongErasureKey
from app.backtest.driver import IN_MEMORY
from app.core import engine
from app.core.ids import erased_mark, key_of
from app.main import build_plan
from app.settings import load_settings
from schemas import events as ev
from tests.core.shard import Shard, named
from tests.core.shop import Desk, at, catalogue, event, issued, paid, rule_text

RULES = catalogue(rule_text(steps="[{after: 1d}, {after: 10d}]", ends=None, start="{since: 2026-01-01}"))
INPUTS = ("orders", "logins", "coupons", "profiles")


def order(when: str | int, name: str, user: str = "u-1") -> ev.OrderPaid:
    return named(paid(f"o-{name}", when), name, user)


def erased(when: str | int, name: str = "x", user: str = "u-1") -> ev.UserErased:
    return named(event(ev.UserErased, when), name, user)


def registered(when: str | int, name: str = "r") -> ev.UserRegistered:
    return named(event(ev.UserRegistered, when), name)


def shard_of(*messages: ev.Event) -> Shard:
    return Shard(RULES, inputs=INPUTS).run(*messages)


MARK = ERASED_PREFIX + erased_mark("u-1", IN_MEMORY.fresh)


def test_row_and_timers_go_and_a_hash_without_a_name_stays() -> None:
    shard = shard_of(order("03-01", "a"), order("03-01", "b", "u-2")).clock("03-01 13:00").run()
    assert shard.processor.pending_timers == 2
    shard.run(erased("03-01 14:00")).clock("03-01 15:00").run()
    assert shard.changelog[b"u-1"] is None
    assert int.from_bytes(shard.changelog[MARK], "big") == at("03-01 14:00")
    assert b"u-1" not in MARK
    assert (shard.processor.pending_timers, shard.processor.rows_held) == (1, 1)
    assert shard.processor.row("u-1") is None
    assert shard.clock("04-01").run().sent(lambda t: t["user_id"]) == ["u-2", "u-2"]
    assert shard.counts["events", "UserErased"] == 1


@pytest.mark.parametrize("restart", [False, True])
def test_events_that_trickle_in_later_do_not_bring_the_user_back(restart: bool) -> None:
    shard = shard_of(order("03-01", "a"), erased("03-02")).clock("03-03").run()
    if restart:
        shard.reopen()
    shard.run(order("03-04", "late"), named(event(ev.UserLoggedIn, "03-04"), "l")).clock("04-01").run()
    assert shard.processor.row("u-1") is None
    assert shard.changelog[b"u-1"] is None
    assert shard.counts["ignored", "erased", "OrderPaid"] == shard.counts["ignored", "erased", "UserLoggedIn"] == 1
    assert [d["outcome"] for d in shard.decisions()] == []


@pytest.mark.parametrize(("tick", "back"), [(-1, False), (0, False), (1, True)])
def test_only_a_registration_after_the_erasure_begins_a_new_life(tick: int, back: bool) -> None:
    shard = Shard(RULES, inputs=("orders", "profiles", "logins"))  # at one instant the erasure goes first
    shard.run(order("03-01", "a"), erased("03-02")).clock("03-02", "orders", "profiles").run()
    shard.run(registered(at("03-02") + tick)).clock("03-03").run()
    found = shard.processor.row("u-1")
    assert (found is not None) is back
    if found is not None:
        assert (found.registered_at, found.orders) == (at("03-02") + 1, {})


def test_an_erasure_that_is_delivered_again_takes_no_new_life() -> None:
    shard = shard_of(order("03-01", "a"), erased("03-02")).clock("03-03").run()
    shard.run(registered("03-04")).clock("03-05").run().run(erased("03-02")).clock("03-06").run()
    assert shard.processor.row("u-1") is not None
    assert shard.counts["duplicates", "UserErased"] == 1
    shard.run(erased("03-07", "y")).clock("03-08").run()
    assert shard.processor.row("u-1") is None
    assert int.from_bytes(shard.changelog[MARK], "big") == at("03-07")


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_of_the_old_life_stays_unknown_when_a_new_one_has_begun(restarted: bool) -> None:
    shard = shard_of(order("03-01", "a"), erased("03-02")).clock("03-03").run()
    shard.run(registered("03-03 01:00")).clock("03-04").run()
    sent = len(shard.sent())
    if restarted:
        shard.reopen()
    shard.run(order("03-01", "a"), order("03-01 05:00", "late")).clock("03-05").run()
    assert (len(shard.sent()), shard.counts["ignored", "erased", "OrderPaid"]) == (sent, 2)
    assert shard.processor.row("u-1").orders == {}
    shard.run(order("03-05", "b")).clock("03-06").run()
    assert [*shard.processor.row("u-1").orders] == ["o-b"]


def test_an_erasure_leaves_what_others_did_before_it() -> None:
    shard = shard_of(order("03-01", "a"), erased("03-04")).clock("03-05").run()
    shard.run(named(order("03-02", "b"), "b", "u-2"), named(order("03-03", "c"), "c", "u-2")).clock("03-06").run()
    assert len(shard.processor.row("u-2").orders) == 2


def test_a_user_never_heard_of_may_be_erased() -> None:
    shard = shard_of(erased("03-02")).clock("03-03").run()
    assert shard.changelog[b"u-1"] is None
    assert shard.run(order("03-04", "a")).clock("03-05").run().counts["ignored", "erased", "OrderPaid"] == 1


def test_another_key_makes_another_mark() -> None:
    assert erased_mark("u-1", b"a") != erased_mark("u-1", b"b") != erased_mark("u-2", b"b")
    assert key_of("a" * 100) != key_of("a" * 101)


def keys(given: str | None, fresh: bytes) -> ErasureKeys:
    return ErasureKeys(key_of(given) if given else None, fresh)


def test_a_key_that_a_shard_made_stays_its_own_whoever_opens_it_and_begins_with_its_first_erasure() -> None:
    shard = Shard(RULES, inputs=INPUTS, erasure=keys(None, b"one")).run(order("03-01", "a"))
    shard.reopen(erasure=keys(None, b"two")).run(erased("03-02")).clock("03-03").run()
    assert ERASED_PREFIX + erased_mark("u-1", b"two") in shard.changelog
    shard.reopen(erasure=keys(None, b"three")).run(order("03-04", "b"), erased("03-04", "y", "u-2")).clock(
        "03-05"
    ).run()
    assert ERASED_PREFIX + erased_mark("u-2", b"two") in shard.changelog
    shard.reopen(erasure=keys("a secret of the deployment", b"four"))
    shard.run(erased("03-05", "z", "u-3")).clock("03-06").run()
    assert ERASED_PREFIX + erased_mark("u-3", key_of("a secret of the deployment")) in shard.changelog
    shard.reopen().run(*(order("03-07", f"late-{user}", user) for user in ("u-1", "u-2", "u-3"))).clock("03-08").run()
    assert shard.counts["ignored", "erased", "OrderPaid"] == 4
    assert shard.processor.rows_held == 0


@pytest.mark.parametrize("other", [None, "another secret of it"])
def test_under_another_key_than_that_of_its_erased_users_a_shard_does_not_open(other: str | None) -> None:
    shard = Shard(RULES, inputs=INPUTS, erasure=keys("a secret of the deployment", b"one"))
    shard.run(order("03-01", "a")).clock("03-02").run()
    shard.reopen(erasure=keys(other, b"two")).reopen(erasure=keys("a secret of the deployment", b"two"))
    shard.run(erased("03-03")).clock("03-04").run()
    with pytest.raises(WrongErasureKey, match="another LIFECYCLE_ERASURE_KEY than this worker has") as refused:
        shard.reopen(erasure=keys(other, b"two"))
    assert refused.value.safe_to_log
    shard.reopen(erasure=keys("a secret of the deployment", b"two")).run(order("03-05", "b")).clock("03-06").run()
    assert shard.counts["ignored", "erased", "OrderPaid"] == 1


def test_a_worker_has_the_key_of_its_settings_or_a_random_one_and_shows_neither() -> None:
    one, two = (build_plan(load_settings({"LIFECYCLE_APP_ID": "shop"})).erasure for _ in range(2))
    assert (one.given, len(one.fresh), one.fresh != two.fresh) == (None, 32, True)
    given = build_plan(load_settings({"LIFECYCLE_ERASURE_KEY": "correct horse battery"})).erasure
    assert given.given == key_of("correct horse battery")
    assert repr(given) == "ErasureKeys()"


def test_what_waits_is_dropped_and_what_is_out_is_taken_back() -> None:
    night = catalogue(
        rule_text(steps="[{after: 1h}, {after: 9h}]", ends=None, start="{since: 2026-01-01}"),
        shop="quiet_hours: {jitter: 0s}\n",
    )
    shard = Shard(night, inputs=INPUTS).run(order("03-01", "a")).clock("03-01 23:00").run()
    shard.run(erased("03-01 23:30")).clock("03-05").run()
    last = [(d["step"], d["outcome"], d["final"]) for d in shard.decisions()]
    assert last == [(1, "fired", True), (2, "deferred", False), (2, "dropped", True), (1, "retracted", False)]
    out = [orjson.loads(o.value) for o in shard.outputs if o.topic == "triggers.winback"]
    assert [each.get("retracts") for each in out] == [None, out[0]["trigger_id"]]
    assert out[1]["reason"] == "The user is gone."
    assert out[1]["evidence"][0]["event_id"] == "x"
    assert shard.decisions()[2]["reason"] == "While it waited, the run was given up (UserErased)."


def test_what_has_expired_is_not_taken_back() -> None:
    shard = shard_of(order("03-01", "a")).clock("03-04").run().run(erased("03-04")).clock("03-05").run()
    assert [d["outcome"] for d in shard.decisions()] == ["fired"]


def test_what_waits_for_a_rule_that_is_gone_gets_its_record_too() -> None:
    night = "quiet_hours: {jitter: 0s}\n"
    shard = Shard(
        catalogue(rule_text(steps="[{after: 10h}]", ends=None, start="{since: 2026-01-01}"), shop=night), inputs=INPUTS
    )
    shard.run(order("03-01", "a")).clock("03-01 23:00").run()
    shard.reopen(catalogue=catalogue("coupon_unused", shop=night)).run(erased("03-01 23:30")).clock("03-02").run()
    assert [(d["outcome"], d["final"]) for d in shard.decisions()] == [("deferred", False), ("dropped", True)]


def test_an_ended_run_of_the_user_is_only_taken_back() -> None:
    rules = catalogue(rule_text(steps="[{after: 1d}]", ends="[{on: UserLoggedIn}]"), "coupon_unused")
    desk = Desk(rules).say(paid("o-1", "03-01"), issued("c-1", "03-01")).wait("03-02 13:00")
    desk.say(event(ev.UserLoggedIn, "03-02 13:00"))
    before = len(desk.decisions)
    engine.erase(desk.row, erased("03-02 14:00"), desk._moment(at("03-02 14:00"), at("03-02 14:00")))
    assert [d.outcome for d in desk.decisions[before:]] == ["retracted"]
