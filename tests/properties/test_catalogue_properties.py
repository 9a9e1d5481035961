"""What holds of every life of a customer under the whole shipped catalogue, with all its gates."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.core import calendar
from app.core.row import NEVER, decode, encode, next_timer
from app.core.rules import Catalogue
from app.rulebook import load
from schemas import events as ev
from schemas.events import INPUT_TOPICS
from schemas.instant import parse_instant
from schemas.triggers import Trigger
from tests.core.shard import Shard
from tests.core.shop import DAY, HOUR, MINUTE, Desk
from tests.properties.histories import START

CATALOGUE = load()
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
END = START + 500 * DAY
ZONES = ["Asia/Shanghai", "Europe/Berlin", "America/New_York"]

_orders, _coupons = st.sampled_from(["o-1", "o-2", "o-3"]), st.sampled_from(["c-1", "c-2"])
_channels = st.sampled_from(["push", "sms", "wechat_service", "in_app"])
_lines = st.lists(
    st.builds(
        lambda kind, n: ev.Line(product_id=f"p-{kind}", product_type=kind, category="baby", quantity=n),
        st.sampled_from(["milk_powder", "diapers"]),
        st.integers(1, 2),
    ),
    max_size=2,
).map(tuple)


def _of(kind: Any, **fields: Any) -> st.SearchStrategy[tuple[Any, dict[str, Any]]]:
    return st.tuples(st.just(kind), st.fixed_dictionaries(fields))


_bought = {"order_id": _orders, "currency": st.just("CNY"), "total": st.just(Decimal(100)), "lines": _lines}
_said = st.one_of(
    _of(ev.UserRegistered),
    _of(ev.UserLoggedIn),
    _of(ev.OrderPlaced, **_bought),
    _of(ev.OrderPaid, **_bought, coupons_used=st.lists(_coupons, max_size=1).map(tuple)),
    _of(ev.OrderCancelled, order_id=_orders),
    _of(ev.OrderRefunded, order_id=_orders),
    _of(ev.AfterSaleOpened, order_id=_orders),
    _of(ev.AfterSaleClosed, order_id=_orders),
    _of(ev.CouponIssued, coupon_id=_coupons, expires_at=st.integers(70, 120).map(lambda day: START + day * DAY)),
    _of(ev.CouponLocked, coupon_id=_coupons),
    _of(ev.CouponReturned, coupon_id=_coupons),
    _of(
        ev.ProductViewed,
        product_id=st.sampled_from(["p-1", "p-2"]),
        category=st.just("baby"),
        dwell_seconds=st.just(50.0),
    ),
    _of(ev.CartUpdated, lines=_lines),
    _of(ev.CheckoutStarted, lines=_lines, order_id=_orders),
    _of(ev.ProfileUpdated, time_zone=st.sampled_from(ZONES), birthday=st.sampled_from([None, "--05-04", "1990-02-28"])),
    _of(ev.ConsentChanged, channel=_channels, granted=st.booleans(), quota=st.sampled_from([None, 1, 2])),
    _of(ev.Unsubscribed, channel=_channels),
    _of(ev.MessageSent, channel=_channels),
)


@st.composite
def lives(draw: st.DrawFn, most: int = 25, days: int = 60, least: int = 0) -> list[ev.Event]:
    """What a user does in two months, in the order in which it happens."""
    moments = st.tuples(st.integers(0, days), st.integers(0, 23 * 60), _said)
    count = draw(st.integers(least, most))
    found = draw(st.lists(moments, min_size=count, max_size=count))
    found.sort(key=lambda item: item[:2])
    return [
        kind(event_id=f"e-{n:03}", user_id="u-1", occurred_at=START + day * DAY + minute * MINUTE, **fields)
        for n, (day, minute, (kind, fields)) in enumerate(found)
    ]


def lived(life: list[ev.Event], catalogue: Catalogue = CATALOGUE) -> Desk:
    desk = Desk(catalogue)
    for each in life:
        desk.wait(each.occurred_at - 1).say(each)
    return desk.wait(END)


def contacts(desk: Desk) -> list[tuple[int, Trigger]]:
    """Marketing that was sent to the user, by its instant."""
    return [
        (parse_instant(trigger.decided_at), trigger)
        for trigger in desk.triggers
        if trigger.action == "contact" and trigger.class_ == "marketing"
    ]


@FEW
@given(lives())
def test_nobody_hears_more_often_from_all_senders_than_the_shop_allows(life: list[ev.Event]) -> None:
    desk = lived(life)
    others = [(each.occurred_at, each.channel) for each in life if isinstance(each, ev.MessageSent)]
    ours = [(at, trigger.channel) for at, trigger in contacts(desk)]
    for position, (at, channel) in enumerate(ours):
        before = ours[:position] + [other for other in others if other[0] <= at]
        zone = ZoneInfo(zone_at(life, at))
        today = [when for when, _ in before if calendar.local(when, zone).date() == calendar.local(at, zone).date()]
        assert len(today) < 2
        assert len([when for when, _ in before if when > at - 7 * DAY]) < 5
        sms = [when for when, used in before if used == "sms" and when > at - 3 * DAY]
        assert channel != "sms" or not sms


def zone_at(life: list[ev.Event], at: int) -> str:
    said = [each.time_zone for each in life if isinstance(each, ev.ProfileUpdated) and each.occurred_at <= at]
    return said[-1] if said else "Asia/Shanghai"


@FEW
@given(lives())
def test_no_message_goes_out_at_night_unless_its_channel_waits_for_the_user(life: list[ev.Event]) -> None:
    for trigger in lived(life).triggers:
        channels = {trigger.channel, *trigger.fallbacks}
        if trigger.action == "contact" and not channels <= {"page", "in_app", "chat_card"}:
            assert "09:00:00" <= trigger.not_before[11:19] < "21:00:00"
            assert "09:00:00" <= trigger.expires_at[11:19] <= "21:00:00"


@FEW
@given(lives())
def test_what_waits_for_a_better_one_goes_out_an_hour_apart(life: list[ev.Event]) -> None:
    at_once = {name for name, rule in CATALOGUE.rules.items() if rule.steps[0].at_once}
    timed = [at for at, trigger in contacts(lived(life)) if trigger.rule not in at_once]
    assert all(later - earlier >= HOUR for earlier, later in pairwise(timed))


@FEW
@given(lives())
def test_a_channel_that_the_user_closed_is_not_used(life: list[ev.Event]) -> None:
    desk = lived(life)
    for trigger in desk.triggers:
        at = parse_instant(trigger.decided_at)
        for channel in {trigger.channel, *trigger.fallbacks} - {None}:
            said = [
                isinstance(each, ev.ConsentChanged) and each.granted
                for each in life
                if isinstance(each, ev.ConsentChanged | ev.Unsubscribed)
                and each.channel == channel
                and each.occurred_at <= at
            ]
            assert not said or said[-1] or trigger.action == "grant"
            assert channel != "sms" or trigger.class_ == "transactional" or said


@FEW
@given(lives())
def test_every_candidate_of_every_rule_has_one_final_decision_and_ids_of_its_own(life: list[ev.Event]) -> None:
    desk = lived(life)
    finals = Counter(d.trigger_id for d in desk.decisions if d.final)
    assert finals == dict.fromkeys({d.trigger_id for d in desk.decisions}, 1)
    ids = [d.decision_id for d in desk.decisions] + [t.trigger_id for t in desk.triggers]
    ids += [back.retraction_id for back in desk.retractions]
    assert len(ids) == len(set(ids))
    by_candidate = sorted((str(d.trigger_id), d.sequence) for d in desk.decisions)
    for (one, first), (other, second) in pairwise(by_candidate):
        assert second == (first + 1 if one == other else 0)


@FEW
@given(lives())
def test_who_does_nothing_any_more_has_only_birthdays_ahead(life: list[ev.Event]) -> None:
    desk = lived(life)
    assert desk.row.stage_due == NEVER
    others = {name: runs for name, runs in desk.row.runs.items() if not CATALOGUE.rules[runs[0].rule].yearly}
    assert next_timer(replace(desk.row, runs=others)) == NEVER
    greeted = [(rule, key) for rule, key, _, when in desk.timers if END < when <= END + 2 * 366 * DAY]
    assert len(greeted) == len(desk.timers), "within a year or so, and not in the past"
    assert len(greeted) == len(set(greeted)), "each once"


@FEW
@given(lives(), st.data())
def test_a_shard_cut_and_restarted_anywhere_sends_the_same_bytes(life: list[ev.Event], data: st.DataObject) -> None:
    plain = Shard(CATALOGUE, inputs=INPUT_TOPICS).write(*life).clock(END).run()
    cut = Shard(CATALOGUE, inputs=INPUT_TOPICS).write(*life).clock(END)
    while cut.committed != plain.committed or cut.processor.merged < plain.processor.merged:
        cut.fetch(most=data.draw(st.integers(1, 4)))
        cut.take(data.draw(st.sampled_from([1, 3])))
        if data.draw(st.booleans()):
            cut.reopen()
    assert cut.outputs == plain.outputs
    assert cut.state() == plain.state()


@FEW
@given(lives())
def test_a_row_under_the_whole_catalogue_comes_back_as_it_was(life: list[ev.Event]) -> None:
    desk = Desk(CATALOGUE)
    for each in life:
        desk.wait(each.occurred_at - 1)
        desk.row = decode(encode(desk.row))
        desk.say(each)
    desk.row = decode(encode(desk.row))
    assert desk.wait(END).trace == lived(life).trace
