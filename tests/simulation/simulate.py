"""Seeded stories against the oracle: `make simulate SEEDS=10000` plays so many, `SEEDS=7,8,9` (or `SEEDS=7,`) these.

With `--rules whole` the whole shipped catalogue is played, and compared with itself undisturbed, byte by byte.
All processors are used. A story that differs is made shorter, printed and counted; the exit code says whether there was
one. A found bug becomes a scenario in tests/scenarios.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from functools import partial
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


class Played(NamedTuple):
    """What came of a seed."""

    seed: int
    differs: bool
    told: list[str]
    """The story made shorter, and its differences."""
    cpu_seconds: float


def play(seed: int, mode: str = "three") -> Played:
    """One seed, from its story to its report."""
    began, told = time.process_time(), list[str]()
    story = MODES[mode].story_of(seed)
    differs = bool(problems_with(story, mode))
    if differs:
        report(story, mode, told.append)
    return Played(seed, differs, told, time.process_time() - began)


class Tally(NamedTuple):
    """So far."""

    played: int
    failed: int
    cpu_seconds: float = 0.0


@contextmanager
def _playing(seeds: Iterable[int], mode: str, jobs: int) -> Iterator[Iterator[Played]]:
    """The seeds' results in their order, by so many processes."""
    one = partial(play, mode=mode)
    if jobs == 1:
        yield map(one, seeds)
        return
    with multiprocessing.Pool(jobs) as pool:
        yield pool.imap(one, seeds, chunksize=4)


def run(
    seeds: Iterable[int],
    seconds: float | None = None,
    write: Callable[[str], object] = print,
    mode: str = "three",
    jobs: int = 1,
    progress: Callable[[Tally], object] = lambda tally: None,
) -> Tally:
    """Plays these seeds, for at most so long. `seeds` is taken up as a whole when there are several jobs."""
    began, tally = time.monotonic(), Tally(0, 0)
    with _playing(seeds, mode, jobs) as playing:
        for came in playing:
            tally = Tally(tally.played + 1, tally.failed + came.differs, tally.cpu_seconds + came.cpu_seconds)
            for line in came.told:
                write(line)
            progress(tally)
            if seconds is not None and time.monotonic() - began > seconds:
                break
    return tally


class Progress:
    """A line now and then, for whoever waits."""

    EVERY_SECONDS = 10.0

    def __init__(self, total: int, write: Callable[[str], object]) -> None:
        self.began = self.last = time.monotonic()
        self.total, self.write = total, write

    def __call__(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self.last < self.EVERY_SECONDS:
            return
        self.last = now
        rate = tally.played / (now - self.began)
        self.write(
            f"{tally.played} of {self.total} seeds, {rate:.1f}/s, about {(self.total - tally.played) / rate:.0f} s to "
            f"go: {tally.failed or 'none'} differ"
        )


def chosen(text: str, first: int) -> Sequence[int]:
    """`7,8,9` (or `7,`) are these seeds; one number is how many, from `first` on."""
    which = [part for part in text.split(",") if part.strip()]
    if "," in text:
        return [int(each) for each in which]
    return range(first, first + int(text))


def _commit() -> str:
    found = subprocess.run(["git", "log", "-1", "--format=%h"], capture_output=True, text=True)
    return f"commit {found.stdout.strip()}" if found.returncode == 0 else "no commit"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when no seed differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.simulate", description=__doc__)
    parser.add_argument("--seeds", default="1000", help="how many, or which ones: 7,8,9")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument(
        "--rules", choices=MODES, default="three", help="three: against the oracle (default); whole: all"
    )
    parser.add_argument("--seconds", type=float, default=None, help="stop after so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all processors)")
    given = parser.parse_args(arguments)
    try:
        seeds = chosen(given.seeds, given.first)
    except ValueError:
        parser.error(f"--seeds takes a number or numbers with commas, not {given.seeds!r}")
    if not seeds:
        parser.error("there is no seed to play")
    where = f"{_commit()}, rules: {given.rules}, first seed {seeds[0]}"
    print(f"{len(seeds)} seeds on {given.jobs} processes; {where}", flush=True)
    write = partial(print, flush=True)
    began = time.monotonic()
    tally = run(seeds, given.seconds, write, given.rules, given.jobs, Progress(len(seeds), write))
    took = time.monotonic() - began
    print(
        f"{tally.played} seeds in {took:.0f} s ({tally.played / took:.1f}/s; {tally.cpu_seconds:.0f} s of CPU time); "
        f"{where}: {tally.failed or 'none'} differ"
    )
    return 1 if tally.failed or not tally.played else 0


if __name__ == "__main__":
    sys.exit(main())
