"""Wherever a command tells an instant, it says in which zone: what stands in two places can be compared."""

from __future__ import annotations

from collections import Counter
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from app.cli.dead_letters import said, table
from app.cli.letters import Letter
from app.cli.quarantine import Place, described_timer
from app.cli.redriving import Plan
from app.cli.watch import Lines
from app.core.row import NEVER
from app.explain.timeline import local, named, named_as
from app.feed import Told
from app.settings import load_settings
from schemas.instant import parse_instant

AT = "2026-03-01T09:00:01.5+08:00"
IN_UTC = "2026-03-01 01:00:01 UTC"


def test_an_instant_that_stands_by_itself_names_its_zone() -> None:
    at, zone = parse_instant(AT), ZoneInfo("Asia/Shanghai")
    assert [named(at), named(at, zone), named(NEVER)] == [IN_UTC, "2026-03-01 09:00:01 Asia/Shanghai", "never"]
    assert local(at, UTC) == IN_UTC.removesuffix(" UTC")


@pytest.mark.parametrize(("text", "words"), [(AT, IN_UTC), ("", ""), ("soon\x1b", "soon?")])
def test_what_a_message_has_for_an_instant_is_told_likewise_or_as_it_stands(text: str, words: str) -> None:
    assert named_as(text) == words


def test_a_trigger_is_watched_in_utc_whatever_the_zone_of_its_user() -> None:
    body = {"rule": "winback", "user_id": "u-1", "step": 1, "channel": "push", "reason": "So.", "decided_at": AT}
    assert Lines().line(Told("t-1", False, body)).startswith(f"[dim]{IN_UTC}[/]  [cyan]winback ")


def test_a_dead_letter_is_listed_and_redriven_in_utc() -> None:
    letter = Letter(AT, (0, 1), "not_json", "", "It is none.", "orders", 2, 3, None, None)
    assert table([letter])[1].startswith(f"{IN_UTC}  not_json  -      orders[2] offset 3  It is none.")
    plan = Plan({}, Counter({("not_json", "orders"): 1}), Counter(), Counter(), AT)
    assert next(said(plan)) == f"1 message to send, the oldest rejected {IN_UTC}:"


def test_a_timer_that_is_set_aside_is_told_in_utc() -> None:
    (told,) = described_timer(load_settings({}), Place("timer", 0, parse_instant(AT)))
    assert f"What is due in shard 0 at {IN_UTC}: where" in told
