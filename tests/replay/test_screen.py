"""What the demo shows on the way goes forward, and its numbers are of one moment."""

from __future__ import annotations

import asyncio
import io
from typing import Any, cast

import pytest
from rich.console import Console

from app.demo import run, show
from app.demo.show import Screen, State, decided_at
from app.feed import Told
from app.settings import load_settings


def told(name: str, at: object) -> Told:
    return Told(name, False, {"rule": "winback", "user_id": name, "step": 1, "reason": "Because.", "decided_at": at})


def test_no_trigger_is_shown_that_is_older_than_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "_LINE_EVERY_S", 0.0)
    out = io.StringIO()
    screen, state = Screen(Console(file=out, width=200)), State(total=9)
    for turn in (
        [told("a", "2017-11-14T09:00:00-05:00"), told("b", "2017-11-13T09:00:00-05:00")],
        [told("c", "2017-11-12T09:00:00-05:00")],
        [told("d", "2017-11-14T10:00:00-04:00")],  # the same instant as the first
        [told("e", "2018-01-01T09:00:00-05:00")],
        [told("f", "2017-11-20T09:00:00-05:00")],
    ):
        state.latest.clear()
        state.latest.extend(turn)
        screen.update(state)
    lines = out.getvalue().splitlines()
    assert [line.split()[3] for line in lines if "winback" in line] == ["a", "d", "e"]
    assert sum("events processed" in line for line in lines) == 5


def test_the_panel_shows_the_latest_triggers_in_time() -> None:
    state = State(total=9)
    state.latest.extend([told("b", "2017-11-14T09:00:00-05:00"), told("x", None), told("a", "2017-11-13T09:00:00Z")])
    assert [each.id for each in state.in_time] == ["x", "a", "b"]
    assert decided_at(told("x", "soon")) == 0


async def test_no_trigger_is_counted_of_an_event_that_is_not() -> None:
    class Stage:
        """A worker that has applied two events when it is asked; two more triggers come while it answers."""

        def require_worker(self) -> None: ...

        def get(self, _: str) -> tuple[int, bytes]:
            replay._triggers += [told("b", None), told("c", None)]
            return 200, b'lifecycle_events_total{type="OrderPaid"} 2.0\n'

    class Silent(Screen):
        def update(self, state: State) -> None:
            shown.append((state.applied, state.triggers))
            first.set()

    shown: list[tuple[int, int]] = []
    first = asyncio.Event()
    journey = cast(Any, range(4))
    replay = run._Replay(cast(Any, Stage()), load_settings({}), journey, Silent(Console(file=io.StringIO())))
    replay._triggers.append(told("a", None))
    counting = asyncio.create_task(replay._count())
    await asyncio.wait_for(first.wait(), 10)
    counting.cancel()
    assert shown[0] == (2, 1)
