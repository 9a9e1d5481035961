"""One clock, in microseconds, and one only caller of it."""

from __future__ import annotations

import ast
import time
from pathlib import Path

from app import clock

ROOT = Path(__file__).parents[2]
WALL = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


def test_now_is_the_wall_clock_in_microseconds() -> None:
    before = time.time()
    at = clock.now()
    assert isinstance(at, int)
    assert before - 1 <= at / 1e6 <= time.time() + 1


def test_monotonic_never_goes_back() -> None:
    readings = [clock.monotonic() for _ in range(100)]
    assert readings == sorted(readings)


def test_nobody_else_asks_the_wall_clock() -> None:
    callers = {
        str(path.relative_to(ROOT))
        for folder in ("app", "agents", "schemas")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ".".join(ast.unparse(node).split(".")[-2:]) in WALL
    }
    assert callers == {"app/clock.py"}
