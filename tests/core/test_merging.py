"""Two accounts become one: nothing that counted is lost or counted twice, and no word outweighs a newer one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from app.core import engine, facts, merging, transfers
from app.core.facts import Refused
from app.core.guardrails import consent
from app.core.moment import Moment
from app.core.purchases import is_paid, last_order_at, paid_orders
from app.core.row import (
    LEDGER_MAX,
    MAX_ALIVE,
    MAX_CARTS,
    MAX_COUPONS,
    MAX_ENTRIES,
    MAX_MERGED,
    MAX_ORDERS,
    MAX_SENT,
    MAX_VIEWS,
    Baseline,
    Cart,
    Consent,
    Coupon,
    Mark,
    Order,
    OrderLine,
    Row,
    Sent,
    View,
    ledgers_together,
    remember,
    remembers,
)
from app.core.rules import Catalogue, index
from app.core.transfers import Forget, History, NewerTransfer, NotATransfer, PassedOn
from app.rulebook import SHIPPED, load
from schemas import events as ev
from tests.core.shard import named
from tests.core.shop import (
    DAY,
    HOUR,
    MINUTE,
    Desk,
    at,
    baseline,
    cancelled,
    catalogue,
    event,
    issued,
    line,
    locked,
    paid,
    placed,
    redeemed,
    refunded,
    rule_text,
)

QUIET = catalogue(rule_text())
_numbers = itertools.count(1)


def known(*events: ev.Event, user: str = "u-2") -> Row:
    """The row of another account to which these events happened."""
    row = Row(user)
    for each in events:
        after = engine.step(row, each, Moment(0, 0, QUIET, {}, {}, []))
        assert isinstance(after, Row)
        row = after
    return replace(row, runs={}, entries={})


def history(when: str | int, account: str = "u-2", *through: str, name: str | None = None) -> History:
    instant = when if isinstance(when, int) else at(when)
    return History("u-1", (account, *through), name or f"m-{next(_numbers)}", instant, None)


def shipped(*rules: str) -> Catalogue:
    whole = load()
    return index({name: whole.rules[name] for name in rules}, whole.policy)


def absorb(desk: Desk, other: Row | None, when: str, *through: str, name: str | None = None) -> Desk:
    """The desk's user gets the history of another account."""
    told = history(when, other.user_id if other else "u-2", *through, name=name)
    desk.now = max(desk.now, told.occurred_at)
    desk.row = engine.absorb(desk.row, told, other, desk._moment(desk.now, desk.floor))
    return desk


def spent(row: Row) -> int:
    return row.old_spend_minor.get("CNY", 0) + sum(o.total_minor for o in row.orders.values() if is_paid(o))


def added(row: Row, other: Row) -> Row:
    return merging.absorbed(row, other, (other.user_id,))


# -- facts -----------------------------------------------------------------------------------------------------------


def test_orders_coupons_spend_and_instants_are_those_of_both() -> None:
    mine = known(paid("o-1", "03-01"), event(ev.UserRegistered, "02-01"), user="u-1")
    theirs = known(
        paid("o-2", "03-05"), issued("c-1", "03-02"), event(ev.UserRegistered, "01-01"), event(ev.UserLoggedIn, "03-06")
    )
    row = added(mine, theirs)
    assert row.user_id == "u-1"
    assert (set(row.orders), set(row.coupons)) == ({"o-1", "o-2"}, {"c-1"})
    assert (paid_orders(row), last_order_at(row)) == (2, at("03-05"))
    assert (row.registered_at, row.last_login_at, row.last_seen_at) == (at("01-01"), at("03-06"), at("03-06"))
    assert row.merged == {"u-2": None}
    nobody = added(Row("u-1"), Row("u-2"))
    assert (nobody.registered_at, nobody.last_login_at) == (None, None)


def test_the_newer_word_of_a_profile_wins_and_an_empty_one_is_filled() -> None:
    mine = Row("u-1", zone="Asia/Shanghai", zone_at=5, locale="zh-CN", locale_at=5)
    newer = Row("u-2", zone="Europe/London", zone_at=6, locale="en-GB", locale_at=6, birthday="--05-04")
    older = replace(newer, zone_at=4, locale_at=4)
    assert added(mine, newer).zone == "Europe/London"
    assert added(mine, newer).locale == "en-GB"
    assert (added(mine, older).zone, added(mine, older).locale) == ("Asia/Shanghai", "zh-CN")
    empty = added(Row("u-1"), older)
    assert (empty.zone, empty.zone_at, empty.locale, empty.birthday) == ("Europe/London", 4, "en-GB", "--05-04")
    assert added(replace(mine, birthday="--01-01"), newer).birthday == "--01-01"
    assert added(mine, Row("u-2")).zone == "Asia/Shanghai"


@pytest.mark.parametrize(
    ("mine", "theirs", "granted"),
    [
        ({"sms": (True, 1)}, {"sms": (False, 2)}, {"sms": False}),
        ({"sms": (False, 2)}, {"sms": (True, 1)}, {"sms": False}),
        ({"sms": (False, 1)}, {"sms": (True, 2)}, {"sms": True}),
        ({"sms": (True, 1)}, {"sms": (False, 1)}, {"sms": False}),
        ({"sms": (False, 1)}, {"sms": (True, 1)}, {"sms": False}),
        ({"sms": (False, 2)}, {"sms/cart": (True, 1)}, {"sms": False, "sms/cart": False}),
        ({"sms/cart": (True, 2)}, {"sms": (False, 2)}, {"sms": False, "sms/cart": False}),
        ({"sms/cart": (True, 3)}, {"sms": (False, 2)}, {"sms": False, "sms/cart": True}),
        ({"sms/cart": (True, 1)}, {"sms": (True, 2)}, {"sms": True, "sms/cart": True}),
        ({"sms/cart": (False, 1)}, {"push": (True, 2)}, {"sms/cart": False, "push": True}),
    ],
)
def test_a_no_is_never_overruled_by_an_older_yes(mine: Any, theirs: Any, granted: dict[str, bool]) -> None:
    def words(said: dict[str, tuple[bool, int]]) -> dict[str, Consent]:
        return {key: Consent(yes, when) for key, (yes, when) in said.items()}

    row = added(Row("u-1", consents=words(mine)), Row("u-2", consents=words(theirs)))
    counts = {key: consent.word(row, *key.partition("/")[::2])[1] for key in granted}
    assert {key: word is not None and word.granted for key, word in counts.items()} == granted


def test_what_a_refusal_told_by_one_account_takes_away_is_gone_for_both() -> None:
    def said(when: str, granted: bool, quota: int | None = None) -> ev.ConsentChanged:
        return event(ev.ConsentChanged, when, channel="wechat_service", granted=granted, quota=quota)

    granted, refused = known(said("03-05", True, 2), user="u-1"), known(said("03-03", False))
    for one, other in ((granted, refused), (refused, granted)):
        row = added(one, other)
        word = row.consents["wechat_service"]
        assert (word.granted, word.quota, word.refused_at) == (True, 2, at("03-03"))
        late = engine.step(row, said("03-02", True, 5), Moment(0, 0, QUIET, {}, {}, []))
        assert isinstance(late, Row)
        assert late.consents["wechat_service"].quota == 2  # it was granted before the refusal


def test_contacts_entries_marks_and_what_was_sent_last_count_for_both() -> None:
    mine = Row(
        "u-1",
        sent=(Sent(at("03-01"), "push", "cart"),),
        entries={"welcome": 5, "gift": 1},
        marks={"UserLoggedIn": Mark(5, "e-5", "UserLoggedIn"), "CartUpdated": Mark(1, "e-1", "CartUpdated")},
        last_fired={"winback": ("r-1", 5)},
    )
    theirs = Row(
        "u-2",
        sent=(Sent(at("02-20"), "sms", "cart"), Sent(at("01-01"), "sms", "cart")),
        entries={"welcome": 4, "gift": 2, "first": 3},
        marks={"UserLoggedIn": Mark(4, "e-4", "UserLoggedIn"), "CartUpdated": Mark(2, "e-2", "CartUpdated")},
        last_fired={"winback": ("r-2", 6), "discount": ("r-2", 6)},
    )
    row = added(mine, theirs)
    assert [contact.channel for contact in row.sent] == ["sms", "push"]  # the one of January no cap can see any more
    assert row.entries == {"welcome": 5, "gift": 2, "first": 3}
    assert [mark.event_id for mark in row.marks.values()] == ["e-5", "e-2"]
    assert row.last_fired == {"winback": ("r-2", 6), "discount": ("r-2", 6)}


def test_looks_and_carts_are_added_up() -> None:
    mine = Row("u-1", views={"p-1": View("p-1", 5, 2, 10)}, carts={"": Cart("", 5), "a": Cart("a", 1)})
    theirs = Row(
        "u-2",
        views={"p-1": View("p-1", 4, 1, 41, "baby"), "p-2": View("p-2", 6, 1)},
        carts={"": Cart("", 4, (OrderLine("p", "t", 1, 1),)), "a": Cart("a", 2)},
    )
    row = added(mine, theirs)
    assert row.views == {"p-1": View("p-1", 5, 3, 41, "baby"), "p-2": View("p-2", 6, 1)}
    assert row.carts == {"": Cart("", 5), "a": Cart("a", 2)}


def test_an_order_of_which_both_were_told_is_one_order() -> None:
    ordered = placed("o-1", "03-01", line("milk", 2), pay_url="https://shop/pay")
    refund = refunded("o-1", "03-03", refund_id="r-1", lines={"milk": 1})
    mine, theirs = known(paid("o-1", "03-02", line("milk", 2)), user="u-1"), known(ordered, refund)
    for one, other in ((mine, theirs), (theirs, mine)):
        order = added(one, other).orders["o-1"]
        assert (order.placed_at, order.paid_at, order.pay_url) == (at("03-01"), at("03-02"), "https://shop/pay")
        assert order.refunds == ("r-1",)
        assert order.lines[0].returned == 1
    open_order = added(known(ordered, user="u-1"), known(ordered)).orders["o-1"]
    assert (open_order.paid_at, open_order.refunded_whole) == (None, False)
    cancelled = known(event(ev.OrderCancelled, "03-04", order_id="o-1"))
    assert paid_orders(added(mine, cancelled)) == 0


def test_a_refund_of_which_both_were_told_counts_once() -> None:
    def told(user: str, *refunds: str) -> Row:
        order = paid("o-1", "03-01", line("milk", 2), total="90.00")
        return known(order, *(refunded("o-1", "03-02", "45.00", refund_id=r) for r in refunds), user=user)

    def refunds(one: Row, other: Row) -> tuple[int, bool, tuple[str, ...]]:
        order = added(one, other).orders["o-1"]
        return order.refunded_minor, order.refunded_whole, order.refunds

    assert refunds(told("u-1", "r-1"), told("u-2", "r-1")) == (4_500, False, ("r-1",))
    assert refunds(told("u-1", "r-1"), told("u-2", "r-2")) == (9_000, True, ("r-1", "r-2"))
    assert refunds(told("u-1", "r-1"), told("u-2", "r-1", "r-2")) == (9_000, True, ("r-1", "r-2"))


def test_of_two_birthdays_the_one_named_last_wins_whoever_was_told_of_it() -> None:
    def told(user: str, *words: tuple[str, str]) -> Row:
        return known(*(event(ev.ProfileUpdated, when, birthday=day) for when, day in words), user=user)

    may = told("u-1", ("03-06", "--05-01"), ("03-10", "--05-01"))
    june = told("u-2", ("03-07", "--06-01"))
    named_last = [("--05-01", at("03-06"), at("03-10"))] * 2
    found = [added(one, other) for one, other in ((may, june), (june, may))]
    assert [(row.birthday, row.birthday_at, row.birthday_said_at) for row in found] == named_last
    same = added(may, told("u-2", ("03-01", "--05-01"), ("03-20", "--05-01")))
    assert (same.birthday, same.birthday_at, same.birthday_said_at) == ("--05-01", at("03-01"), at("03-20"))


def test_a_coupon_issued_to_one_account_and_used_with_the_other_is_used() -> None:
    mine = known(issued("c-1", "03-01", value="20"), user="u-1")
    used = known(redeemed("c-1", "03-02"))
    for one, other in ((mine, used), (used, mine)):
        coupon = added(one, other).coupons["c-1"]
        assert (coupon.issued_at, coupon.value) == (at("03-01"), "20")
        assert coupon.redeemed is not None
        assert coupon.redeemed.at == at("03-02")


def test_a_coupon_that_was_given_back_after_its_use_is_free() -> None:
    mine = known(issued("c-1", "03-01"), redeemed("c-1", "03-02"), user="u-1")
    back = known(event(ev.CouponReturned, "03-03", coupon_id="c-1"))
    assert added(mine, back).coupons["c-1"].redeemed is None
    held = known(issued("c-1", "03-01"), locked("c-1", "03-02"), user="u-1")
    assert added(held, back).coupons["c-1"].locked_at is None
    assert added(held, known(redeemed("c-1", "03-04"))).coupons["c-1"].locked_at == at("03-02")
    later = known(issued("c-1", "03-01"), locked("c-1", "03-04"), user="u-1")
    assert added(later, back).coupons["c-1"].locked_at == at("03-04")


@pytest.mark.parametrize(("kind", "until", "due"), [
    (redeemed, "03-04", "03-08"), (locked, "03-04", "03-08"), (locked, "03-12", "03-12"),
])  # fmt: skip
def test_a_coupon_used_or_held_by_an_order_that_the_other_account_took_back_is_free_again(
    kind: Any, until: str, due: str
) -> None:
    desk = Desk(catalogue("coupon_unused"))
    desk.say(issued("c-1", "03-01"), issued("c-2", "03-01"), redeemed("c-2", "03-02", order_id="o-9"))
    desk.say(kind("c-1", "03-02", order_id="o-2")).wait(until)
    absorb(desk, known(paid("o-2", "03-02"), cancelled("o-2", "03-03")), until)
    coupon = desk.row.coupons["c-1"]
    assert (coupon.redeemed, coupon.locked_at, coupon.locked_by) == (None, None, None)
    assert desk.row.coupons["c-2"].redeemed is not None
    assert desk.timers == [("coupon_unused", "c-1", 1, at(due))]


def test_a_coupon_that_the_other_account_holds_for_an_order_waits() -> None:
    desk = absorb(Desk(catalogue("coupon_unused")).say(issued("c-1", "03-01")), known(locked("c-1", "03-02")), "03-03")
    assert desk.wait("04-01").triggers == []
    assert desk.say(event(ev.CouponReturned, "04-01", coupon_id="c-1")).timers != []


def test_a_run_that_two_orders_had_ended_stays_ended_when_one_of_them_was_taken_back() -> None:
    desk = Desk(QUIET).say(paid("o-1", "03-01"), paid("o-2", "03-02"), paid("o-3", "03-03"))
    before = [len(run.ends) for run in desk.row.runs["a_rule\x1f"]]
    assert before == [2, 1, 0]
    absorb(desk, known(cancelled("o-2", "03-04")), "03-05")
    assert [[mark.order_id for mark in run.ends] for run in desk.row.runs["a_rule\x1f"]] == [["o-3"], ["o-3"], []]


def test_a_history_meets_the_runs_of_the_rules_as_they_are_now() -> None:
    desk = Desk(catalogue(rule_text(), rule_text(rule="other", steps="[{after: 30d}]"))).say(paid("o-1", "03-01"))
    desk.catalogue = catalogue(rule_text(rule="other", version="2", on_change="restart", steps="[{after: 3d}]"))
    absorb(desk, known(event(ev.UserLoggedIn, "03-01")), "03-02")
    assert desk.tallies["runs", "exited", "a_rule"] == 1
    assert desk.timers == [("other", "", 1, at("03-04"))]
    assert desk.row.catalogue == desk.catalogue.fingerprint


# -- what comes every year, and who is new ---------------------------------------------------------------------------

MILESTONES = catalogue(*(Path(SHIPPED, f"{name}.yaml").read_text() for name in ("birthday", "anniversary")))
WELCOME = catalogue(Path(SHIPPED, "activation_nudge.yaml").read_text())


def registered(when: str) -> ev.UserRegistered:
    return event(ev.UserRegistered, when)


def born(when: str, birthday: str) -> ev.ProfileUpdated:
    return event(ev.ProfileUpdated, when, birthday=birthday)


def lived(rules: Catalogue, *events: ev.Event) -> Row:
    """The row of another account, with its runs, as it is when the account becomes part of this one."""
    return replace(Desk(rules).say(*events).row, user_id="u-2")


def years(desk: Desk) -> list[tuple[str, str]]:
    """What goes out in the next two years."""
    return sorted({(t.rule, t.decided_at[:10]) for t in desk.wait("2028-03-01").triggers})


def test_birthdays_and_anniversaries_of_the_old_account_come_again_to_the_new_one() -> None:
    desk = absorb(Desk(MILESTONES), lived(MILESTONES, registered("02-01"), born("02-02", "1990-05-04")), "03-05")
    assert years(desk) == [
        ("anniversary", "2027-01-25"), ("anniversary", "2028-01-25"),
        ("birthday", "2026-04-27"), ("birthday", "2027-04-27"),
    ]  # fmt: skip


def test_there_is_one_birthday_and_one_anniversary_where_both_accounts_had_them() -> None:
    desk = Desk(MILESTONES).say(registered("02-20"), born("02-21", "1990-06-08"))
    absorb(desk, lived(MILESTONES, registered("02-01"), born("02-02", "1990-05-04")), "03-05")
    assert years(desk) == [
        ("anniversary", "2027-02-13"), ("anniversary", "2028-02-13"),
        ("birthday", "2026-06-01"), ("birthday", "2027-06-01"),
    ]  # fmt: skip


YEARLY = {"steps": "[{at: user.anniversary - 7d}]", "repeat": "yearly", "enter": "{on: UserRegistered, key: user}"}


def test_what_came_every_year_does_not_come_again_when_it_had_ended_or_ends_here_or_may_not_begin() -> None:
    rules = catalogue(rule_text(**YEARLY))
    other = lived(rules, registered("02-01"))
    assert list(absorb(Desk(rules), other, "03-05").row.runs) == ["a_rule\x1f"]
    assert not absorb(Desk(rules), lived(rules, registered("02-01"), paid("o-1", "02-02")), "03-05").row.runs
    long_ago = replace(lived(rules, registered("02-01"), paid("o-1", "02-02")), orders={})  # summarised since
    assert not absorb(Desk(rules), long_ago, "03-05").row.runs
    ended_here = absorb(Desk(rules).say(paid("o-1", "02-03")), other, "03-05").row.runs
    assert all(run.ends for runs in ended_here.values() for run in runs)
    assert not absorb(Desk(rules, enters_from={"a_rule": at("02-15")}), other, "03-05").row.runs
    assert not absorb(Desk(QUIET), other, "03-05").row.runs  # nobody speaks of it any more


@pytest.mark.parametrize(
    ("before", "nudged"),
    [
        ([registered("01-05")], False),
        ([event(ev.UserLoggedIn, "02-28")], False),
        ([paid("o-1", "02-28")], False),
        ([event(ev.ProductViewed, "02-28", product_id="p-1")], True),  # a visitor, who then registered
        ([registered("03-02")], True),
    ],
)
def test_whoever_was_here_before_registering_is_not_welcomed_as_new(before: list[ev.Event], nudged: bool) -> None:
    desk = Desk(WELCOME).say(registered("03-01"))
    absorb(desk, lived(WELCOME, *before), "03-02")
    desk.wait("04-10")
    assert bool(desk.triggers) is nudged
    if not nudged:
        assert desk.tallies["runs", "ended", "activation_nudge"] == 1


def test_of_orders_that_were_summarised_it_is_known_too_that_somebody_was_here() -> None:
    desk = Desk(WELCOME).say(registered("03-01"))
    absorb(desk, Row("u-2", old_orders=1, old_last_order_at=at("02-28")), "03-02")
    assert desk.wait("04-10").triggers == []


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_the_oldest_orders_of_both_are_summarised_and_nothing_is_counted_twice() -> None:
    mine = known(*(paid(f"o-{n}", at("03-01") + n * DAY) for n in range(0, 2 * MAX_ORDERS, 2)), user="u-1")
    theirs = known(*(paid(f"o-{n}", at("03-01") + n * DAY) for n in range(1, 2 * MAX_ORDERS + 8, 2)))
    row = added(mine, theirs)
    assert list(row.orders) == sorted(row.orders, key=lambda name: int(name[2:]) % 2)  # mine, then theirs
    newest = {f"o-{n}" for n in range(0, 2 * MAX_ORDERS, 2)} | {f"o-{n}" for n in range(1, 2 * MAX_ORDERS + 8, 2)}
    assert len(row.orders) == MAX_ORDERS
    assert set(row.orders) == set(sorted(newest, key=lambda name: int(name[2:]))[-MAX_ORDERS:])
    assert paid_orders(row) == len(newest) == 2 * MAX_ORDERS + 4
    assert sum(bool(order.lines) for order in row.orders.values()) <= 16
    again = added(row, theirs)  # whatever was summarised is known, and so is what is still there
    assert len(again.orders) == MAX_ORDERS
    assert facts.is_forgotten(again, "order", "o-0")


def _orders(numbers: range, prices: tuple[str, ...] = ("100.00",), **fields: Any) -> list[ev.Event]:
    """Orders, an hour apart; the same numbers are the same orders."""
    return [
        named(paid(f"o-{n}", at("01-01") + n * HOUR, total=prices[n % len(prices)], **fields), f"e-{n}")
        for n in numbers
    ]


@pytest.mark.parametrize("theirs_first", [False, True])
@pytest.mark.parametrize(("closed", "cases"), [(None, ("k",)), ("03-01", ("k",)), ("03-03", ())])
def test_an_open_case_of_an_order_that_one_account_has_summarised_goes_along(
    closed: str | None, cases: tuple[str, ...], theirs_first: bool
) -> None:
    """The one has many orders since; the other was told of the case, and perhaps the one that it is closed."""
    opened = named(event(ev.AfterSaleOpened, "03-02", order_id="o-0", case_id="k"), "e-opened")
    many = known(*_orders(range(40)), user="u-1")
    if closed is not None:
        end = named(event(ev.AfterSaleClosed, closed, order_id="o-0", case_id="k"), "e-closed")
        many = known(*_orders(range(40)), end, user="u-1")
    few = known(*_orders(range(3)), opened)
    row = added(few, many) if theirs_first else added(many, few)
    assert row.orders["o-0"].cases == cases
    assert row.orders["o-0"].paid_at is None
    assert paid_orders(row) == 40
    assert len(row.orders) == MAX_ORDERS


@pytest.mark.parametrize("theirs_first", [False, True])
def test_orders_that_both_accounts_know_and_have_summarised_count_once(theirs_first: bool) -> None:
    coupons = [issued(f"c-{n}", "01-01", expires_at="01-02") for n in range(MAX_COUPONS + 10)]
    gone = refunded("o-3", "01-03")  # known to both, and none of those that count
    orders = _orders(range(50), ("10.00", "70.00"))
    mine = known(*coupons, *orders[:20], gone, *orders[20:40], user="u-1")
    theirs = known(*coupons, *orders[:20], gone, *orders[20:])
    row = added(theirs, mine) if theirs_first else added(mine, theirs)
    assert (mine.old_orders, theirs.old_orders) == (7, 17)
    assert paid_orders(row) == paid_orders(theirs) == 49
    assert spent(row) == spent(theirs) == 25 * 1_000 + 24 * 7_000
    assert (paid_orders(added(row, mine)), spent(added(row, mine))) == (49, spent(theirs))


def test_of_orders_that_both_have_summarised_among_others_the_number_is_right_and_the_spend_their_share() -> None:
    coupons = [issued(f"c-{n}", "01-01", expires_at="01-02") for n in range(MAX_COUPONS + 2)]
    mine = known(*coupons, *_orders(range(40)), user="u-1")
    theirs = known(*coupons, *_orders(range(4)), *_orders(range(100, 138)))
    for row in (added(mine, theirs), added(theirs, mine)):
        assert paid_orders(row) == 78
        assert spent(row) == 78 * 10_000
    nothing_shared = known(*_orders(range(200, 240)))
    assert paid_orders(added(mine, nothing_shared)) == 80


def test_parts_of_an_order_that_both_have_summarised_count_once_whatever_part_was_the_last() -> None:
    def parts(*of: int) -> list[ev.Event]:
        return [named(paid(f"o-{part}", at("01-01") + HOUR, parent_order_id="whole"), f"e-{part}") for part in of]

    mine = known(*parts(0, 1), *_orders(range(10, 42)), user="u-1")
    theirs = known(*parts(1, 2), *_orders(range(110, 142)))
    assert (mine.old_orders, theirs.old_orders) == (1, 1)
    assert paid_orders(added(mine, theirs)) == 1 + 32 + 32
    assert facts.is_forgotten(mine, "order", "o-0")
    assert not facts.is_forgotten(mine, "order", "o-2")


def test_what_either_has_summarised_stays_summarised() -> None:
    mine = known(*(paid(f"o-{n}", at("03-01") + n * DAY) for n in range(MAX_ORDERS + 1)), user="u-1")
    theirs = known(paid("o-0", "03-01"))
    assert paid_orders(added(mine, theirs)) == MAX_ORDERS + 1
    assert "o-0" not in added(mine, theirs).orders
    assert "o-0" not in added(theirs, mine).orders
    coupons = Row("u-1", forgotten=b"")
    facts_of = known(*(issued(f"c-{n}", at("03-01") + n) for n in range(MAX_COUPONS + 1)), user="u-1")
    gone = next(f"c-{n}" for n in range(MAX_COUPONS + 1) if f"c-{n}" not in facts_of.coupons)
    assert gone not in added(facts_of, known(issued(gone, "03-01"))).coupons
    assert gone not in added(known(issued(gone, "03-01")), facts_of).coupons
    assert coupons.coupons == {}


def test_all_bounds_hold_afterwards() -> None:
    def full(user: str, odd: int) -> Row:
        return Row(
            user,
            coupons={f"c-{n}": Coupon(f"c-{n}", n, expires_at=n) for n in range(odd, 2 * MAX_COUPONS, 2)},
            views={f"p-{n}": View(f"p-{n}", n) for n in range(odd, 2 * MAX_VIEWS, 2)},
            carts={f"k-{n}": Cart(f"k-{n}", n) for n in range(odd, 2 * MAX_CARTS, 2)},
            sent=tuple(Sent(n, "push", "cart") for n in range(odd, 2 * MAX_SENT, 2)),
            entries={"rule": odd} | {f"rule\x1f{n}": n for n in range(odd, 2 * MAX_ENTRIES, 2)},
            forgotten=bytes(range(8 * odd, 8 * odd + 8)) * facts.MAX_FORGOTTEN,
        )

    row = added(full("u-1", 0), full("u-2", 1))
    assert len(row.coupons) == MAX_COUPONS
    assert min(view.last_at for view in row.views.values()) == MAX_VIEWS
    assert min(cart.at for cart in row.carts.values()) == MAX_CARTS
    assert [contact.at for contact in row.sent] == list(range(MAX_SENT, 2 * MAX_SENT))
    assert sorted(row.entries.values())[:2] == [1, MAX_ENTRIES]
    assert len(row.entries) == MAX_ENTRIES + 1
    assert len(row.forgotten) % 8 == 0
    assert len(row.forgotten) <= 8 * facts.MAX_FORGOTTEN


def test_ledgers_are_joined_in_the_order_of_time() -> None:
    def ledger(*entries: tuple[int, int]) -> bytes:
        result = b""
        for number, hour in entries:
            result = remember(result, number.to_bytes(8, "big"), hour * HOUR)
        return result

    both = ledgers_together(ledger((1, 5), (2, 9)), ledger((3, 7), (1, 5)))
    assert both == ledger((1, 5), (3, 7), (2, 9))
    many = ledger(*((n, 0) for n in range(LEDGER_MAX)))
    assert len(ledgers_together(many, ledger((LEDGER_MAX, 1)))) == len(many)
    assert remembers(ledgers_together(many, ledger((LEDGER_MAX, 1))), LEDGER_MAX.to_bytes(8, "big"))


# -- what was before our first event ---------------------------------------------------------------------------------


def test_baselines_are_added_up_account_by_account() -> None:
    first = baseline("03-01", "2025-01-01", 3, "2026-01-05", spend=paid("x", "03-01").total, currency="CNY")
    mine, theirs = known(first, user="u-1"), known(replace(first, user_id="u-2", registered_at=at("2024-01-01")))
    row = added(replace(mine, user_id="u-1"), theirs)
    assert row.baseline is not None
    assert (row.baseline.orders, row.baseline.registered_at) == (6, at("2024-01-01"))
    assert row.baseline.spend_minor == 2 * mine.baseline.spend_minor  # type: ignore[union-attr]  # it has one
    assert row.alone == mine.baseline
    again = facts.apply(row, replace(first, user_id="u-2", orders=1))
    assert again.row.baseline.orders == 4  # type: ignore[union-attr]  # told anew of the other account
    again = facts.apply(row, replace(first, user_id="u-1", orders=1))
    assert again.row.baseline.orders == 4  # type: ignore[union-attr]  # and of this one
    more = added(again.row, known(user="u-3"))
    assert more.baseline == again.row.baseline
    assert more.merged == {"u-2": theirs.baseline, "u-3": None}
    assert added(more, replace(known(user="u-3"))).merged == more.merged
    assert added(more, known(user="u-2")).merged["u-2"] == theirs.baseline  # nothing is no newer word


def test_spend_in_another_currency_is_not_added() -> None:
    mine = Row("u-1", baseline=Baseline(5, 1, spend_minor=100, currency="CNY"))
    theirs = Row("u-2", baseline=Baseline(5, 1, 4, 6, spend_minor=7, currency="EUR"))
    assert added(mine, theirs).baseline == Baseline(5, 2, 4, 6, 100, "CNY")


def test_accounts_within_accounts_are_all_known() -> None:
    second = added(Row("u-2", baseline=Baseline(5, 2)), Row("u-3", baseline=Baseline(5, 3)))
    row = merging.absorbed(Row("u-1", baseline=Baseline(5, 1)), second, ("u-2", "u-4"))
    assert list(row.merged) == ["u-3", "u-4", "u-2"]
    assert row.baseline == Baseline(5, 6)
    home = merging.absorbed(row, Row("u-1", baseline=Baseline(5, 10)), ("u-1", "u-2"))
    assert home.baseline == Baseline(5, 16)
    assert "u-1" not in home.merged


def test_of_too_many_accounts_the_oldest_lose_their_names_and_no_order() -> None:
    row = Row("u-1")
    for number in range(MAX_MERGED + 2):
        row = added(row, Row(f"a-{number}", baseline=Baseline(5, 1)))
    assert len(row.merged) == MAX_MERGED
    assert "a-1" not in row.merged
    assert row.baseline == Baseline(5, MAX_MERGED + 2)


# -- runs, stages, duplicates ----------------------------------------------------------------------------------------


def test_what_the_history_brings_ends_what_waits() -> None:
    desk = Desk(catalogue(rule_text(), "coupon_unused")).say(paid("o-1", "03-01"), issued("c-1", "03-01"))
    absorb(desk, known(paid("o-2", "02-01")), "03-03")
    assert [timer[:3] for timer in desk.timers] == [("a_rule", "", 1), ("coupon_unused", "c-1", 1)]
    absorb(desk, known(paid("o-3", "03-02"), redeemed("c-1", "03-02")), "03-03")
    assert [(rule, due) for rule, _, _, due in desk.timers] == [("a_rule", at("03-12"))]  # of the purchase of 2 March
    assert desk.tallies["runs", "ended", "coupon_unused"] == 1
    assert [t.evidence[0].event_id for t in desk.wait("04-01").triggers] == [desk.row.orders["o-3"].paid_event_id]


def test_what_waited_for_the_morning_gets_its_record_and_what_went_out_is_taken_back() -> None:
    night = catalogue(rule_text(steps="[{after: 1h}, {after: 9h}]"), shop="quiet_hours: {jitter: 0s}\n")
    desk = Desk(night).say(paid("o-1", "03-01")).wait("03-01 23:00")
    absorb(desk, known(paid("o-2", "03-01 12:30")), "03-01 23:30")
    assert [(d.step, d.outcome) for d in desk.decisions] == [
        (1, "fired"), (2, "deferred"), (2, "dropped"), (1, "retracted")
    ]  # fmt: skip
    assert desk.decisions[2].reason == "While it waited, the run was ended by OrderPaid."
    assert desk.retractions[0].evidence[0].type == "OrderPaid"


def test_a_silence_is_measured_by_the_rhythm_of_both() -> None:
    rules = catalogue(rule_text(steps="[{after: user.usual_gap}]"), shop="quiet_hours: {jitter: 0s}\nusual_gap: 30d\n")
    desk = Desk(rules).say(paid("o-1", "03-10"))
    assert desk.timers[0][3] == at("04-09")
    absorb(desk, known(*(paid(f"o-{n}", f"02-{n:02}") for n in (7, 17, 27))), "03-11")
    assert desk.timers[0][3] == at("03-10") + (11 + 10 + 10) * DAY // 3


def test_who_bought_with_the_other_account_a_week_before_is_not_back_and_it_is_taken_back() -> None:
    rules = shipped("reactivated")
    for bought, taken_back in (("02-22", True), ("03-01 12:10", False)):
        desk = Desk(rules).say(paid("o-1", "2025-06-01"), paid("o-3", "03-01"))
        absorb(desk, known(paid("o-2", bought)), "03-01 12:30")
        (trigger,) = desk.triggers
        assert [back.retracts for back in desk.retractions] == [trigger.trigger_id][:taken_back]
        assert [d.outcome for d in desk.decisions] == ["fired", "retracted"][: 1 + taken_back]
        # Which of their purchases it was stands nowhere: the merge is what told of it.
        assert [e.type for back in desk.retractions for e in back.evidence] == ["UserMerged"][:taken_back]


@pytest.mark.parametrize("more", [0, 1, MAX_ORDERS])
def test_a_purchase_that_is_merely_summed_up_with_the_other_account_is_one_before_the_entry_too(more: int) -> None:
    first = '{on: UserRegistered, key: user, when: "user.paid_orders == 0"}'
    rules = catalogue(rule_text(enter=first, ends=None, steps="[{after: 1h}]", send="{channels: [page]}"))
    desk = Desk(rules).say(event(ev.UserRegistered, "03-01 12:00")).wait("03-01 20:00")
    bought = [paid(f"o-{n}", at("03-01 12:10") + n * MINUTE) for n in range(more)]
    absorb(desk, known(paid("o-first", "02-01"), *bought), "03-01 20:30")
    assert [d.outcome for d in desk.decisions] == ["fired", "retracted"]


def test_no_merge_leaves_more_runs_of_a_rule_than_a_user_may_have() -> None:
    rules = catalogue(rule_text(enter="{on: CouponIssued, key: coupon}", ends=None, steps="[{after: 10d}]"))
    desk = Desk(rules)
    for account in ("u-2", "u-3", "u-4"):
        coupons = (issued(f"{account}-{n:03}", at("03-01") + n, expires_at="04-01") for n in range(MAX_COUPONS))
        absorb(desk, known(*coupons, user=account), "03-02")
    assert len(desk.timers) <= MAX_ALIVE
    assert len(desk.timers) + desk.tallies["runs", "exited", "a_rule"] == 3 * MAX_COUPONS


@pytest.mark.parametrize("reentry", ["once", "every_key"])
@pytest.mark.parametrize("theirs", [True, False])
def test_who_would_not_have_entered_exits_and_what_the_other_account_entered_stays_entered(
    reentry: str, theirs: bool
) -> None:
    first = '{on: OrderPaid, key: user, when: "user.paid_orders == 1"}'
    rules = catalogue(
        rule_text(enter=first, ends=None, steps="[{after: 10h}]", reentry=reentry), shop="quiet_hours: {jitter: 0s}\n"
    )
    desk = Desk(rules).say(paid("o-2", "03-02")).wait("03-02 22:30")
    name = "a_rule" if reentry == "once" else "a_rule\x1f"
    assert desk.row.entries == {name: at("03-02")}
    entries = {name: at("02-01")} if theirs else {}
    absorb(desk, replace(known(paid("o-1", "02-01")), entries=entries), "03-02 22:40")
    assert [(d.outcome, d.final) for d in desk.decisions] == [("deferred", False), ("dropped", True)]
    assert "a purchase before it was heard of late" in desk.decisions[-1].reason
    assert desk.row.entries == entries


def test_an_ended_run_and_one_that_has_begun_to_speak_are_left_as_they_are() -> None:
    rules = catalogue(rule_text(ends="[{on: UserLoggedIn}]", steps="[{after: 1d}, {after: 30d}]"))
    begun = Desk(rules).say(paid("o-1", "03-01")).wait("03-03")
    before = begun.row.runs
    assert absorb(begun, known(paid("o-2", "02-01")), "03-03").row.runs == before
    ended = Desk(rules).say(paid("o-1", "03-01"), event(ev.UserLoggedIn, "03-01 13:00"))
    before = ended.row.runs
    assert absorb(ended, known(event(ev.UserLoggedIn, "03-01 14:00")), "03-03").row.runs == before


def test_nothing_is_said_at_once_about_the_past_and_nobody_enters_twice() -> None:
    once = rule_text(rule="gift", steps="[{at_once: true}]", ends=None, reentry="once")
    each = rule_text(rule="thanks", steps="[{at_once: true}]", ends=None)
    first = rule_text(rule="first", ends=None, reentry="once")
    coupon = rule_text(rule="coupon", enter="{on: OrderPaid, key: order}", ends=None, reentry="every_key")
    desk = Desk(catalogue(once, each, first, coupon))
    other = replace(known(paid("o-1", "03-01")), entries={"gift": at("03-01")})
    absorb(desk, other, "03-02")
    assert desk.triggers == []
    assert [timer[:2] for timer in desk.timers] == [("coupon", "o-1")]
    assert [t.rule for t in desk.say(paid("o-2", "03-02")).triggers] == ["thanks"]


def test_what_the_history_brings_is_still_spoken_of_under_the_other_account() -> None:
    rules = catalogue("coupon_unused", "replenishment", "winback")
    theirs = Desk(rules).say(paid("o-1", "03-01", line("milk_powder")), issued("c-1", "03-02", pack_id="pack"))
    theirs.row = replace(theirs.row, user_id="u-2")
    wanted = theirs.timers
    assert [timer[:2] for timer in wanted] == [
        ("coupon_unused", "pack"), ("replenishment", "milk_powder"), ("winback", "")
    ]  # fmt: skip
    desk = absorb(Desk(rules), theirs.row, "03-03")
    assert desk.timers == wanted
    assert desk.wait("03-20").sent[0][:2] == ("coupon_unused", 1)
    late = absorb(Desk(rules).wait("03-10"), theirs.row, "03-10")
    assert [timer[:3] for timer in late.timers] == [
        ("coupon_unused", "pack", 2), ("replenishment", "milk_powder", 1), ("winback", "", 1)
    ]  # fmt: skip  # what was due before it was heard of is passed over


def test_what_both_accounts_were_told_enters_once() -> None:
    rules = catalogue("coupon_unused", "winback")
    both = (paid("o-1", "03-01"), issued("c-1", "03-02"))
    desk = Desk(rules).say(*both)
    entered = dict(desk.tallies)
    absorb(desk, known(*both, redeemed("c-2", "03-02")), "03-03")
    assert {key: times for key, times in desk.tallies.items() if key[0] == "runs"} == {
        key: times for key, times in entered.items() if key[0] == "runs"
    }


def test_a_history_that_brings_no_purchase_starts_no_silence() -> None:
    desk = Desk(QUIET)
    assert absorb(desk, known(event(ev.UserLoggedIn, "03-01")), "03-02").timers == []
    assert absorb(desk, None, "03-02").timers == []
    assert list(desk.row.merged) == ["u-2"]


def test_the_same_history_twice_changes_nothing() -> None:
    desk = absorb(Desk(QUIET), known(paid("o-1", "03-01")), "03-02", name="m")
    before = desk.row
    assert absorb(desk, known(paid("o-1", "03-01")), "03-02", name="m").row is before
    assert desk.tallies["duplicates", "UserMerged"] == 1
    unknown = engine.absorb(None, history("03-02"), None, desk._moment(0, 0))
    assert (unknown.user_id, unknown.merged) == ("u-1", {"u-2": None})


def test_an_account_that_this_one_is_part_of_cannot_become_part_of_it() -> None:
    desk = absorb(Desk(QUIET).say(paid("o-1", "03-01")), None, "03-02")
    refused = engine.leave(desk.row, event(ev.UserMerged, "03-03", into="u-2"), desk._moment(0, 0))
    assert refused == Refused("The account that it is to become part of is itself part of this one.", "into")
    assert desk.tallies["runs", "exited", "a_rule"] == 0
    assert engine.leave(desk.row, event(ev.UserMerged, "03-03", into="u-3"), desk._moment(0, 0)) is None
    assert desk.tallies["runs", "exited", "a_rule"] == 1


def test_the_runs_of_the_account_exit_with_the_reason() -> None:
    desk = Desk(catalogue(rule_text(steps="[{after: 1d}, {after: 9d}]", ends=None))).say(paid("o-1", "03-01"))
    desk.wait("03-02 13:00")
    assert engine.leave(desk.row, event(ev.UserMerged, "03-02", into="u-2"), desk._moment(desk.now, 0)) is None
    assert desk.retractions[0].reason == "The account was merged into another one."


def guest(desk: Desk, *events: ev.Event) -> Row:
    """The row of a guest who becomes part of another account a moment after this; the desk has what was said."""
    desk.say(*events)
    merged = event(ev.UserMerged, desk.now + MINUTE, into="u-1")
    assert engine.leave(desk.row, merged, desk._moment(desk.now + MINUTE, desk.floor)) is None
    return replace(desk.row, user_id="u-2")


def test_what_was_given_for_an_order_of_the_other_account_stays_given_and_is_taken_back_with_the_order() -> None:
    rules = shipped("repurchase_coupon", "post_purchase_offer")
    for back_at, taken_back in (("03-02", True), ("03-04 11:59:59.999999", True), ("03-04 12:00", False)):
        theirs, desk = Desk(rules), Desk(rules)
        row = guest(theirs, paid("o-1", "03-01", line("milk_powder")))
        grant, contact = sorted(theirs.triggers, key=lambda t: t.action, reverse=True)
        assert [(t.action, t.rule) for t in (grant, contact)] == [
            ("grant", "repurchase_coupon"), ("contact", "post_purchase_offer")
        ]  # fmt: skip
        assert [back.retracts for back in theirs.retractions] == [contact.trigger_id]
        absorb(desk, row, "03-01 12:01").say(cancelled("o-1", back_at))
        assert desk.triggers == []
        assert [back.retracts for back in desk.retractions] == [grant.trigger_id][:taken_back]
        assert [(d.outcome, d.trigger_id) for d in desk.decisions] == [("retracted", grant.trigger_id)][:taken_back]
        assert absorb(Desk(rules), desk.row, "03-05").retractions == []


def test_what_was_given_for_one_order_under_both_names_is_given_once() -> None:
    rules = shipped("repurchase_coupon")
    theirs, desk = Desk(rules), Desk(rules).say(paid("o-1", "03-01", line("milk_powder")))
    absorb(desk, guest(theirs, paid("o-1", "03-01", line("milk_powder"))), "03-01 12:01")
    (mine,), (given,) = desk.triggers, theirs.triggers
    assert [back.retracts for back in desk.retractions] == [given.trigger_id]
    desk.say(cancelled("o-1", "03-02"))
    assert [back.retracts for back in desk.retractions] == [given.trigger_id, mine.trigger_id]


def test_what_is_given_again_and_again_goes_no_further_under_the_other_account() -> None:
    steps = "[{at_once: true}, {after: 1d}]"
    rules = catalogue(rule_text(enter="{on: OrderPaid, key: order}", ends=None, steps=steps, send="{action: grant}"))
    theirs = Desk(rules)
    desk = absorb(Desk(rules), guest(theirs, paid("o-1", "03-01")), "03-01 12:01")
    assert [t.step for t in theirs.triggers] == [1]
    assert theirs.tallies["runs", "exited", "a_rule"] == 1
    assert desk.timers == []


@pytest.mark.parametrize(
    ("mine", "given", "merged_at", "gift"),
    [
        ((), False, "03-04 11:59:59.999999", True),
        ((), False, "03-04 12:00", True),
        ((), False, "03-04 12:00:00.000001", False),
        ((), True, "03-01 12:01", False),
        ((paid("o-0", "02-20"),), False, "03-01 12:01", False),
    ],
)
def test_the_first_order_of_a_guest_brings_its_gift_once_it_is_known_whose_it_is(
    mine: tuple[ev.Event, ...], given: bool, merged_at: str, gift: bool
) -> None:
    rules = shipped("first_order_gift")
    desk = Desk(rules).say(event(ev.UserRegistered, "02-01"), *mine)
    before = len(desk.triggers)
    theirs = Desk(rules).say(*[event(ev.UserRegistered, "02-01")][:given])
    absorb(desk, guest(theirs, paid("o-1", "03-01")), merged_at)
    assert [t.rule for t in theirs.triggers] == ["first_order_gift"][:given]
    assert [(t.rule, t.evidence[0].event_id) for t in desk.triggers[before:]] == [
        ("first_order_gift", desk.row.orders["o-1"].paid_event_id)
    ][:gift]
    assert len(desk.decisions) == len(desk.triggers), "no record of what is not owed"


STAGES = (
    'stages: [{from: [""], to: introduction, on: UserRegistered}, {from: ["", introduction, growth], to: maturity, '
    "on: OrderPaid, orders: 3}, {from: ['', introduction, decline], to: growth, on: OrderPaid, orders: 1}, "
    "{from: [growth, maturity], to: decline, silence: at_risk}]\n"
)


@pytest.mark.parametrize(
    ("mine", "theirs", "orders", "stage"),
    [
        (("", []), ("introduction", []), 0, "introduction"),
        (("", []), ("growth", ["03-01"]), 1, "growth"),
        (("introduction", []), ("", []), 0, "introduction"),
        (("growth", ["03-02"]), ("growth", ["03-01"]), 2, "growth"),
        (("growth", ["03-01", "03-02"]), ("growth", ["03-03"]), 3, "maturity"),
        (("decline", ["01-01"]), ("growth", ["03-01"]), 2, "growth"),
        (("growth", ["03-01"]), ("decline", ["01-01", "01-02", "01-03"]), 4, "maturity"),
        (("decline", ["01-02"]), ("decline", ["01-01", "01-03", "01-04"]), 4, "decline"),
        (("introduction", []), ("", ["03-01"]), 1, "growth"),
    ],
)
def test_the_stage_is_that_of_both(mine: Any, theirs: Any, orders: int, stage: str) -> None:
    rules = catalogue(rule_text(), gates=STAGES)
    desk = Desk(rules)
    desk.row = replace(known(*(paid(f"m-{n}", n) for n in mine[1]), user="u-1"), stage=mine[0], catalogue=0)
    other = replace(known(*(paid(f"t-{n}", n) for n in theirs[1])), stage=theirs[0])
    absorb(desk, other, "03-05")
    assert (desk.row.stage, paid_orders(desk.row)) == (stage, orders)
    changes = [item for item in desk.trace if type(item).__name__ == "StageChange"]
    assert [(change.from_ or "", change.to) for change in changes] == ([(mine[0], stage)] if stage != mine[0] else [])  # type: ignore[attr-defined]
    assert (desk.row.stage_due < 10**17) is (stage in ("growth", "maturity"))


# -- what shards tell each other -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        History("u-1", ("u-2",), "e-1", 5, b"row"),
        History("u-1", (), "e-1", 5, None),
        PassedOn("u-1", ("u-2", "u-3"), 7, "orders", 3, 8, -1, None, b"{}"),
        Forget("u-1", 5),
    ],
)
def test_messages_between_shards_are_read_as_they_were_written(message: transfers.Message) -> None:
    assert transfers.decode(transfers.encode(message)) == message


@pytest.mark.parametrize("data", [None, b"", b"\x00", b"{}", b"\x00\x01", b"\x00\x01\x93\xa5other\x01\x02"])
def test_what_no_shard_wrote_is_not_taken_for_a_message(data: bytes | None) -> None:
    with pytest.raises(NotATransfer):
        transfers.decode(data)


def test_a_message_of_a_newer_version_is_refused_with_a_sentence() -> None:
    with pytest.raises(NewerTransfer, match="run that version"):
        transfers.decode(b"\x00\x02\x90")


def test_an_order_is_what_both_say_whoever_says_it() -> None:
    one, other = Order("o-1", paid_at=5, lines=()), Order("o-1", cancelled_at=9)
    assert added(Row("u-1", orders={"o-1": one}), Row("u-2", orders={"o-1": other})).orders["o-1"].cancelled_at == 9


def test_a_refund_that_names_no_currency_is_in_that_of_the_order_whichever_account_was_told_of_it() -> None:
    bought = paid("o-1", "03-01", total="100", currency="JPY")
    for amounts, undone in (((100,), True), ((99,), False), ((60, 40), True)):
        back = [refunded("o-1", "03-02", str(n), currency=None, user_id="u-2") for n in amounts]
        one, other = known(bought, user="u-1"), known(*back)
        for row in (added(one, other), added(other, one)):
            order = row.orders["o-1"]
            assert (order.refunded_minor, order.refunded_unnamed, order.refunded_whole) == (sum(amounts), 0, undone)
    early = refunded("o-1", "03-02", "60", currency=None, refund_id="r-1")
    one, other = known(early, user="u-1"), known(refunded("o-1", "03-03", "40", currency=None, refund_id="r-2"))
    assert added(one, other).orders["o-1"].refunded_unnamed == 1_000_000
    assert added(one, known(early)).orders["o-1"].refunded_unnamed == 600_000


def test_a_lock_lapses_when_it_does_whichever_account_was_told_of_it() -> None:
    given, held = issued("c-1", "03-01"), locked("c-1", "03-02", until=at("03-03"))
    for one, other in ((known(given, user="u-1"), known(held)), (known(held, user="u-1"), known(given))):
        assert added(one, other).coupons["c-1"].locked_until == at("03-03")
