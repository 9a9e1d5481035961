"""A worker whose rules have a defect: they fail on every event whose id begins with 'poison', and on what is due for
users whose names do. Else it is the real one.

`python -m tests.kafka.defective_worker`; settings from the environment.
"""

from __future__ import annotations

import sys
from typing import Any

from app.core import engine
from app.main import run_worker

POISON = "poison"
_sound = engine.step


def _step(row: Any, event: Any, moment: Any) -> Any:
    if event.event_id.startswith(POISON):
        raise ZeroDivisionError("a defect")
    return _sound(row, event, moment)


_sound_tick = engine.tick


def _tick(row: Any, due_at: int, moment: Any) -> Any:
    if row.user_id.startswith(POISON):
        raise ZeroDivisionError("a defect")
    return _sound_tick(row, due_at, moment)


if __name__ == "__main__":
    engine.step = _step
    engine.tick = _tick
    sys.exit(run_worker())
