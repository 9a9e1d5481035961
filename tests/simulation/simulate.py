"""Seeded stories against the oracle: `python -m tests.simulation.simulate --seeds 1000` (or `--seeds 7,8`).

With `--rules whole` the whole shipped catalogue is played, and compared with itself undisturbed, byte by byte.
A story that differs is made shorter, printed and counted; the exit code says whether there was one. A found bug becomes
a fixed seed in test_simulation.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC
from typing import NamedTuple

from schemas.instant import format_instant
from tests.simulation.history import Op, Story, full_story_of, story_of
from tests.simulation.play import problems_of, problems_without_oracle

#: Re-runs that shortening a story may cost.
SHRINK_RUNS = 400


class Mode(NamedTuple):
    """What is simulated: which stories, and how they are looked at."""

    story_of: Callable[[int], Story]
    problems_of: Callable[[Story], list[str]]


#: Three rules against the oracle, and the whole catalogue against itself undisturbed.
MODES = {
    "three": Mode(story_of, problems_of),
    "whole": Mode(full_story_of, problems_without_oracle),
}


def problems_with(story: Story, mode: str = "three") -> list[str]:
    """What differs; an exception of the engine is a difference, too."""
    try:
        return MODES[mode].problems_of(story)
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def shrink(story: Story, fails: Callable[[Story], object] = problems_with) -> Story:
    """A shorter story that fails as well: operations are left out, halves first, then one by one."""
    runs, size = 0, max(1, len(story.ops) // 2)
    while size:
        start = 0
        while start < len(story.ops) and runs < SHRINK_RUNS:
            shorter = story._replace(ops=story.ops[:start] + story.ops[start + size :])
            runs += 1
            if fails(shorter):
                story = shorter
            else:
                start += size
        size //= 2
    return story


def report(story: Story, mode: str = "three", write: Callable[[str], object] = print) -> None:
    """A failing story, shortened, for a person."""
    short = shrink(story, lambda shorter: problems_with(shorter, mode))
    write(f"seed {story.seed}: CLOCK={story.clock}, LATENESS={story.lateness} us, {story.partitions} partition(s)")
    for op in short.ops:
        write(f"  {_told(op)}")
    for problem in problems_with(short, mode):
        write(f"  => {problem}")


def _told(op: Op) -> str:
    if op.what == "clock":
        return f"clock {format_instant(op.number, UTC)}"
    if op.event is None:
        return str(op)
    rest = {k: v for k, v in op.event.items() if k not in ("topic", "at", "type", "user_id", "event_id")}
    at = format_instant(op.event["at"], UTC)
    return f"send {at} {op.event['type']} {op.event['user_id']} {op.event['event_id']} {rest or ''}"


def run(
    seeds: Iterable[int],
    seconds: float | None = None,
    write: Callable[[str], object] = print,
    mode: str = "three",
) -> tuple[int, int]:
    """Plays these seeds, for at most so long. (seeds played, seeds that differ)."""
    began, played, failed = time.monotonic(), 0, 0
    for seed in seeds:
        if seconds is not None and time.monotonic() - began > seconds:
            break
        story = MODES[mode].story_of(seed)
        played += 1
        if problems_with(story, mode):
            failed += 1
            report(story, mode, write)
    return played, failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Seeded stories against a naive oracle.")
    parser.add_argument("--seeds", default="1000", help="how many, or which ones: 7,8,9")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument(
        "--rules", choices=MODES, default="three", help="three: against the oracle (default); whole: all"
    )
    parser.add_argument("--seconds", type=float, default=None, help="stop after so long")
    given = parser.parse_args()
    which = given.seeds.split(",")
    seeds = [int(each) for each in which] if len(which) > 1 else range(given.first, given.first + int(which[0]))
    began = time.monotonic()
    played, failed = run(seeds, given.seconds, mode=given.rules)
    took = time.monotonic() - began
    print(f"{played} seeds from {seeds[0]} on in {took:.0f} s: {failed or 'none'} differ")
    return 1 if failed or not played else 0


if __name__ == "__main__":
    sys.exit(main())
