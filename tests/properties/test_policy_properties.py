"""What holds of every life under the whole catalogue when the shop decides more: holdouts, quotas, rates."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import event, given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.core import calendar, ids
from app.core.policy import CHANNELS, Cap
from app.core.rules import Catalogue, Rate, index
from schemas import events as ev
from schemas.events import INPUT_TOPICS
from schemas.instant import parse_instant
from tests.core.shard import Shard
from tests.core.shop import DAY, HOUR, Desk
from tests.properties.histories import START
from tests.properties.test_catalogue_properties import CATALOGUE, END, FEW, contacts, lived, lives, zone_at


def busy() -> st.SearchStrategy[list[ev.Event]]:
    """Lives in which much happens in few days, so that gates have something to hold."""
    return lives(most=40, days=20, least=15)


def changed(rate: Rate | None = None, channels: tuple[str, ...] | None = None, **policy: Any) -> Catalogue:
    """The shipped catalogue in another shop, its rules with a maximum rate, or with other channels."""
    rules = {}
    for name, rule in CATALOGUE.rules.items():
        send = rule.send._replace(max_rate=rate, channels=channels or rule.send.channels)
        rules[name] = rule._replace(send=send)
    return index(rules, CATALOGUE.policy._replace(**policy))


@FEW
@given(lives(), st.floats(0, 1), st.sampled_from(["salt", "pepper"]))
def test_who_is_held_out_never_gets_anything_and_who_is_not_is_never_called_so(
    life: list[ev.Event], share: float, salt: str
) -> None:
    desk = lived(life, changed(holdout_share=share, holdout_salt=salt))
    held_out = ids.share_of(salt, "u-1") < share
    event(f"held out: {held_out}")
    assert not (desk.triggers if held_out else [d for d in desk.decisions if d.outcome == "control"])
    assert [t.arm for t in desk.triggers] == ["treated"] * len(desk.triggers)


@FEW
@given(busy(), st.lists(st.tuples(st.integers(0, 20), st.integers(1, 2)), min_size=1, max_size=3))
def test_no_more_goes_out_on_a_quota_than_was_granted(life: list[ev.Event], grants: list[tuple[int, int]]) -> None:
    wechat = {"user_id": "u-1", "channel": "wechat_service", "granted": True}
    said = [
        ev.ConsentChanged(event_id=f"q-{n}", occurred_at=START + day * DAY + n, quota=quota, **wechat)
        for n, (day, quota) in enumerate(grants)
    ]
    life = sorted([*life, *said], key=lambda each: each.occurred_at)
    desk = lived(life, changed(channels=("wechat_service",), window=0, caps=()))
    sent = [parse_instant(t.decided_at) for t in desk.triggers if t.class_ == "marketing" and t.action == "contact"]
    event(f"sent: {min(len(sent), 3)}")
    for number, at in enumerate(sent, 1):
        granted = [
            each.quota or 0
            for each in life
            if isinstance(each, ev.ConsentChanged)
            and each.channel == "wechat_service"
            and each.granted
            and each.occurred_at <= at
        ]
        assert number <= sum(granted)


@FEW
@given(
    busy(),
    st.lists(
        st.builds(
            Cap,
            st.integers(1, 2),
            st.integers(1, 7),
            st.booleans(),
            st.sampled_from([None, None, "push", "sms"]),
            st.sampled_from([None, None, "coupon", "winback"]),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_no_cap_is_exceeded_in_any_window_of_any_zone(life: list[ev.Event], caps: list[Cap]) -> None:
    """Each contact against all before it, ours and those of others, as the user's own calendar counts days."""
    desk = lived(life, changed(caps=tuple(caps), window=0, consent=dict.fromkeys(CHANNELS, "allowed")))
    event(f"held by a cap: {any(d.gate == 'cap' for d in desk.decisions)}")
    others = [(e.occurred_at, e.channel, e.campaign or "") for e in life if isinstance(e, ev.MessageSent)]
    ours = [(at, str(trigger.channel), trigger.family) for at, trigger in contacts(desk)]
    for position, (at, channel, family) in enumerate(ours):
        zone = ZoneInfo(zone_at(life, at))
        before = ours[:position] + [other for other in others if other[0] <= at]
        for cap in caps:
            if cap.channel in (None, channel) and cap.family in (None, family):
                day = calendar.local(at, zone).toordinal() - cap.days
                counted = [
                    when
                    for when, its_channel, its_family in before
                    if cap.channel in (None, its_channel)
                    and cap.family in (None, its_family)
                    and (calendar.local(when, zone).toordinal() > day if cap.calendar else when > at - cap.days * DAY)
                ]
                assert len(counted) < cap.limit


@FEW
@given(busy())
def test_what_waits_and_ends_meanwhile_has_its_one_end_too(life: list[ev.Event]) -> None:
    desk = lived(life, changed(window=6 * HOUR, consent=dict.fromkeys(CHANNELS, "allowed"), caps=()))
    event(f"ended while it waited: {any('While it waited' in d.reason for d in desk.decisions)}")
    finals = Counter(d.trigger_id for d in desk.decisions if d.final)
    assert finals == dict.fromkeys({d.trigger_id for d in desk.decisions}, 1)


@FEW
@given(lives(), st.data())
def test_an_event_that_comes_again_changes_nothing_under_the_whole_catalogue(
    life: list[ev.Event], data: st.DataObject
) -> None:
    desk = Desk(CATALOGUE)
    for position, each in enumerate(life):
        desk.wait(each.occurred_at - 1).say(each)
        before = desk.row
        desk.say(data.draw(st.sampled_from(life[: position + 1])))
        assert desk.row is before
    told = [item for item in desk.wait(END).trace if not (isinstance(item, tuple) and item[0] == "duplicates")]
    assert told == lived(life).trace


@FEW
@given(st.lists(lives(most=12), min_size=3, max_size=3), st.data())
def test_no_rule_exceeds_its_rate_and_every_candidate_has_one_end_however_the_batches_are_cut(
    of_users: list[list[ev.Event]], data: st.DataObject
) -> None:
    rules, history = changed(Rate(1, DAY)), []
    for number, life in enumerate(of_users):
        history += [replace(each, event_id=f"{number}-{each.event_id}", user_id=f"u-{number}") for each in life]
    history.sort(key=lambda each: each.occurred_at)
    plain = Shard(rules, inputs=INPUT_TOPICS).write(*history).clock(END).run()
    fired: dict[str, list[int]] = {}
    for decision in plain.decisions():
        if decision["outcome"] == "fired":
            fired.setdefault(decision["rule"], []).append(parse_instant(decision["decided_at"]))
    event(f"waited for a turn: {any('waits for its turn' in d['reason'] for d in plain.decisions())}")
    assert all(later - earlier >= DAY for instants in fired.values() for earlier, later in pairwise(sorted(instants)))
    finals = Counter(d["trigger_id"] for d in plain.decisions() if d["final"])
    assert finals == dict.fromkeys({d["trigger_id"] for d in plain.decisions()}, 1)
    cut = Shard(rules, inputs=INPUT_TOPICS).write(*history).clock(END)
    while cut.committed != plain.committed or cut.processor.merged < plain.processor.merged:
        cut.fetch(most=data.draw(st.integers(1, 6)))
        cut.take(data.draw(st.sampled_from([1, 4])))
        if data.draw(st.booleans()):
            cut.reopen()
    assert cut.outputs == plain.outputs
    assert cut.state() == plain.state()
