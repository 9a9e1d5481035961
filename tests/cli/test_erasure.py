"""`lifecycle why` of a user who was erased: what came in vain is told as ignored, and what would begin anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from app.backtest.driver import Driver
from app.cli.why import Known, _known, passed_over, told
from app.explain.erasure import Erasure, Heard, erasure, said
from app.rulebook import load
from app.settings import load_settings
from schemas import events as ev
from tests.core.shop import at, event, paid, terms

ZONE = ZoneInfo("Asia/Shanghai")


def registered(when: str) -> ev.UserRegistered:
    return event(ev.UserRegistered, when)  # type: ignore[no-any-return]


def erased(when: str) -> ev.UserErased:
    return event(ev.UserErased, when)  # type: ignore[no-any-return]


def of(*heard: tuple[ev.Event, str], by_time: bool = False) -> Erasure:
    return erasure([Heard(each, at(written)) for each, written in heard], by_time)


def test_what_comes_after_the_erasure_is_ignored_whenever_it_happened() -> None:
    before, late, after = paid("o-1", "03-01"), paid("o-2", "03-02"), paid("o-3", "03-06")
    found = of((erased("03-05"), "03-05"), (before, "03-01"), (late, "03-07"), (after, "03-06"))
    assert found == Erasure(at("03-05"), None, frozenset({late.event_id, after.event_id}))
    [line] = said(found, ZONE)
    assert line == (
        "The user was erased on 2026-03-05 12:00:00: what was known is gone, and what comes is ignored. Only a later "
        "registration begins anew."
    )


def test_a_later_registration_begins_anew_and_an_earlier_one_does_not() -> None:
    old, anew, counts, late = registered("03-04"), registered("03-07"), paid("o-1", "03-08"), paid("o-2", "03-01")
    found = of(
        (erased("03-05"), "03-05"), (old, "03-06"), (anew, "03-07"), (counts, "03-08"), (late, "03-09"),
        (erased("03-05"), "03-09"),
    )  # fmt: skip
    assert found == Erasure(at("03-05"), at("03-07"), frozenset({old.event_id, late.event_id}))
    [line] = said(found, ZONE)
    assert line == (
        "The user was erased on 2026-03-05 12:00:00 and registered anew on 2026-03-07 12:00:00: what happened before "
        "the erasure is forgotten."
    )
    again = of((erased("03-05"), "03-05"), (anew, "03-07"), (erased("03-08"), "03-08"), (late, "03-09"))
    assert again == Erasure(at("03-08"), None, frozenset({late.event_id}))


def test_what_came_before_and_comes_once_more_has_been_taken() -> None:
    once = paid("o-1", "03-01")
    assert not of((once, "03-01"), (erased("03-05"), "03-05"), (once, "03-09")).ignored


def test_workers_that_go_by_the_events_time_take_what_happened_before_though_it_is_written_later() -> None:
    late, after = paid("o-1", "03-01"), paid("o-2", "03-06")
    found = of((erased("03-05"), "03-05"), (late, "03-07"), (after, "03-04"), by_time=True)
    assert found.ignored == {after.event_id}


def test_who_was_not_erased_has_no_such_line() -> None:
    assert of((paid("o-1", "03-01"), "03-01")) == Erasure()
    assert said(Erasure(), ZONE) == []


@pytest.mark.parametrize("rebirth", [False, True])
def test_the_engine_ignores_what_is_told_as_ignored(rebirth: bool) -> None:
    story: list[ev.Event] = [paid("o-1", "03-01"), erased("03-05"), registered("03-04"), paid("o-2", "03-06")]
    story += [registered("03-07"), paid("o-3", "03-08"), paid("o-4", "03-02")] if rebirth else []
    driver = Driver(load(), clock="wall")
    for number, each in enumerate(story):
        driver.send(each)
        driver.advance_time(at("03-09") + number)
    found = erasure([Heard(each, number) for number, each in enumerate(story)], by_time=False)
    assert sum(n for kind, n in driver.counts.items() if kind[:2] == ("ignored", "erased")) == len(found.ignored)
    assert (driver.row("u-1") is not None) == (found.anew_at is not None) == rebirth


def record(name: str, body: dict[str, Any], written: str, offset: int = 0) -> Any:
    value = orjson.dumps({"event_id": name, "user_id": "u-1", **body})
    return SimpleNamespace(
        key=b"u-1", value=value, timestamp=at(written) // 1000, partition=0, offset=offset, headers=()
    )


GONE = {"type": "UserErased", "occurred_at": "2026-03-05T12:00:00+08:00"}
LOCAL = {"type": "UserLoggedIn", "occurred_at": "2026-03-01T08:00:00"}


def known(found: dict[str, list[Any]], **settings: str) -> Known:
    given = {f"LIFECYCLE_{name.upper()}": value for name, value in settings.items()}
    return _known(load_settings(given), found, None, {})


def test_why_marks_what_was_ignored_and_closes_with_the_erasure() -> None:
    late = {"type": "UserLoggedIn", "occurred_at": "2026-03-04T12:00:00+08:00"}
    found = known({"profiles": [record("e-1", GONE, "03-05")], "logins": [record("e-2", late, "03-06")]})
    lines = told("u-1", found, None, ZONE, None)
    assert lines[1].endswith("UserLoggedIn (ignored, as the user had been erased)")
    assert lines[2].endswith("UserErased")
    assert lines[3].startswith("The user was erased on 2026-03-05 12:00:00: what was known is gone")


def test_of_what_was_ignored_no_start_policy_passed_anything_over() -> None:
    bought = paid("o-1", "03-01", coupons_issued=(terms("c-1"),))
    of_user = Known([bought], [], [], [], [], [], [], None, "", {"coupon_unused": at("03-09")})
    of_user = of_user._replace(reached=at("03-10"))
    assert passed_over(of_user, None, ZONE, load_settings({}), load())
    ignored = of_user._replace(erasure=Erasure(at("02-01"), None, frozenset({bought.event_id})))
    assert passed_over(ignored, None, ZONE, load_settings({}), load()) == []


# -- what this shell cannot read


def test_what_only_the_workers_settings_can_read_is_counted_with_its_reason() -> None:
    found = {"logins": [record("e-1", LOCAL, "03-01"), record("e-2", LOCAL, "03-01", 1)]}
    here = known(found)
    assert not here.nothing
    text = " ".join(told("u-1", here, None, ZONE, None)[1:])
    assert text.startswith(
        "Left out: 2 messages that the settings of this shell cannot read: `occurred_at`: 2026-03-01"
    )
    assert "If the workers have others (LIFECYCLE_ASSUME_ZONE, LIFECYCLE_CLOCK_SKEW), set them here" in text
    there = known(found, assume_zone="Asia/Shanghai")
    assert (len(there.events), there.unread) == (2, {})


def test_what_the_workers_could_not_read_either_is_told_by_its_dead_letter_alone() -> None:
    letter = record("e-1", LOCAL, "03-01")
    place = {"dlq.topic": "logins", "dlq.partition": "0", "dlq.offset": "7", "dlq.reason_code": "bad_time"}
    letter.headers = [(name, text.encode()) for name, text in place.items()]
    found = known({"logins": [record("e-1", LOCAL, "03-01", 7)], "dead-letters": [letter]})
    assert (len(found.unusable), found.unread) == (1, {})
