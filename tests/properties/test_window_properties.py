"""The send window of whatever goes out is not empty, under any rule about something that expires soon.

Rules, nights, caps, windows, rates, pauses and how late a timer is looked at are drawn; coupons live for minutes or
days, so that they expire while a step waits for its instant, the morning, a cap, a lock or the end of a pause.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import event, given, note
from hypothesis import strategies as st

from app.core import engine
from app.core.problems import CatalogueError
from app.core.row import next_timer
from app.core.rules import Catalogue
from schemas import events as ev
from schemas.instant import parse_instant
from tests.core.shop import DAY, HOUR, MINUTE, OPEN, Desk, catalogue, rule_text
from tests.properties.histories import START
from tests.properties.test_catalogue_properties import FEW

_spans = st.sampled_from(["1min", "30min", "1h", "7h", "1d", "36h", "4d", "10d"])


def _steps(draw: st.DrawFn, key: str) -> str:
    first = ["{at_once: true}", f"{{after: {draw(_spans)}}}"]
    if key in ("coupon", "pack"):
        first += [f'{{at: "coupon.expires_at - {draw(_spans)}"}}', f'{{at: "coupon.valid_from + {draw(_spans)}"}}']
        first += ['{at: "coupon.expires_at"}']
    steps = [draw(st.sampled_from(first))]
    steps += [f"{{after: {span}, offer: winback_small}}" for span in draw(st.lists(_spans, max_size=2))]
    return f"[{', '.join(steps)}]"


def _send(draw: st.DrawFn) -> str:
    channels = draw(st.sampled_from(["push", "page", "push, page", "sms, push"]))
    words = [draw(st.sampled_from([f"channels: [{channels}]"] * 2 + ["action: grant"]))]
    words += [f"class: {draw(st.sampled_from(['marketing', 'marketing', 'transactional']))}"]
    words += [f"expires_after: {draw(_spans)}", f"on_cap: {draw(st.sampled_from(['defer', 'drop']))}"]
    words += draw(st.sampled_from([[], ["discount_every: 5d"], ["coupon_in_hand: instead"]]))
    return f"{{{', '.join(words)}}}"


@st.composite
def rules(draw: st.DrawFn, name: str) -> str:
    key = draw(st.sampled_from(["coupon", "coupon", "pack", "order", "user"]))
    kind = {"order": "OrderPlaced", "user": "OrderPlaced"}.get(key, "CouponIssued")
    ends = [None, f"[{{at: entered_at + {draw(_spans)}}}]"]
    if key != "user":
        ends += [f"[{{at: {'order.pay_deadline' if key == 'order' else 'coupon.expires_at'}}}]"]
    holds = "{from: CouponLocked, until: CouponReturned}" if key in ("coupon", "pack") else None
    settings = {
        "rule": name,
        "enter": f"{{on: {kind}, key: {key}}}",
        "ends": draw(st.sampled_from(ends)),
        "holds": draw(st.sampled_from([None, holds])),
        "steps": _steps(draw, key),
        "mode": draw(st.sampled_from(["live", "live", "shadow"])),
        "send": _send(draw),
        "reentry": "every_key" if key != "user" else "after_exit",
    }
    try:
        catalogue(rule_text(**settings))
    except CatalogueError:  # some of its steps would come after its end
        settings["ends"] = None
    return rule_text(**settings)


@st.composite
def shops(draw: st.DrawFn) -> Catalogue:
    hours = st.integers(0, 23).map(lambda hour: f'"{hour:02}:00"')
    night = f"from: {draw(hours)}, until: {draw(hours)}, jitter: {draw(st.sampled_from(['0s', '5min', '1h']))}"
    zones = st.sampled_from(["Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
    gates = OPEN.replace("arbitration: 0s", f"arbitration: {draw(st.sampled_from(['0s', '1h', '3h']))}")
    gates = gates.replace("caps: []", f"caps: {draw(st.sampled_from(['[]', '[{limit: 1, rolling: 1d}]']))}")
    shop = f"quiet_hours: {{{night}, exempt: [page]}}\nzone: {draw(zones)}\n"
    texts = [draw(rules(f"rule_{letter}")) for letter in "abc"]
    note("\n".join([*texts, gates, shop]))
    return catalogue(*texts, shop=shop, gates=gates)


def _happenings() -> st.SearchStrategy[list[tuple[int, Any]]]:
    """What happens, and when after the start: within the days of the clock changes, too."""
    soon = st.sampled_from([1, MINUTE, HOUR, 8 * HOUR, DAY, 3 * DAY, 12 * DAY]).flatmap(lambda top: st.integers(1, top))
    things = st.sampled_from(["1", "2", "3", "4"])

    def issue(name: str, after: int, life: int, pack: str | None) -> Any:
        times = lambda at: {"valid_from": at + after, "expires_at": at + after + life}  # noqa: E731
        return lambda at: (ev.CouponIssued, {"coupon_id": f"c-{name}", "pack_id": pack, **times(at)})

    def lock(name: str, span: int) -> Any:
        return lambda at: (ev.CouponLocked, {"coupon_id": f"c-{name}", "until": at + span})

    def place(name: str, span: int) -> Any:
        money = {"currency": "CNY", "total": Decimal(9), "lines": ()}
        return lambda at: (ev.OrderPlaced, {"order_id": f"o-{name}", "pay_deadline": at + span, **money})

    each = st.one_of(
        st.builds(issue, things, st.just(0) | soon, soon, st.sampled_from([None, "k"])),
        st.builds(lock, things, soon),
        st.builds(place, things, soon),
    )
    return st.lists(st.tuples(st.integers(0, 20 * DAY // MINUTE), each), min_size=1, max_size=12)


def _look(desk: Desk, until: int, late: int) -> None:
    """What is due by then is asked, each a little late."""
    while (due := next_timer(desk.row)) <= until:
        desk.now = max(desk.now, due + late)
        desk.row = engine.tick(desk.row, due, desk._moment(desk.now, due))
    desk.now = desk.floor = max(desk.now, until)


@FEW
@given(shops(), _happenings(), st.integers(0, 300), st.data())
def test_whatever_goes_out_can_be_sent(
    shop: Catalogue, happenings: list[tuple[int, Any]], first_day: int, data: st.DataObject
) -> None:
    desk, begun = Desk(shop), START + first_day * DAY
    late = data.draw(st.sampled_from([0, 0, 5_000_000, 7 * HOUR]))
    pause = data.draw(st.none() | st.integers(0, 20))
    paused = shop._replace(policy=shop.policy._replace(paused=True))
    for number, (minute, make) in enumerate(sorted(happenings, key=lambda one: one[0])):
        at = begun + minute * MINUTE + number
        if pause is not None and minute >= pause * DAY // MINUTE:
            desk.catalogue, pause = paused, None
        kind, fields = make(at)
        _look(desk, at, late)
        desk.say(kind(event_id=f"e-{number}", user_id="u-1", occurred_at=at, **fields))
    if desk.catalogue is paused:
        _look(desk, desk.now + data.draw(st.integers(0, 3 * DAY)), late)
        desk.catalogue = shop
        desk.row = engine.settle(desk.row, desk._moment(desk.now, desk.floor))
    _look(desk, begun + 60 * DAY, late)
    event(f"sent: {min(len(desk.triggers), 3)}")
    for trigger in desk.triggers:
        assert parse_instant(trigger.not_before) < parse_instant(trigger.expires_at), trigger
