"""A file of events, one JSON object a line, as a stream in time order. The bytes of a line are never changed.

A line goes to the topic that its `"topic"` names, or else to that of its type; ClockAdvanced goes to every partition
of every input. Lines need not be sorted; those of the same time keep the file's order. A line without a readable time
stays behind its neighbour above, and is published as it is, so that the worker puts it into the dead letters with its
reason. A line whose topic cannot be told is reported, not published. Memory is bounded: beyond `RUN_BYTES` of lines the
rest is sorted through temporary files that together are as large as the input.
"""

from __future__ import annotations

import gzip
import heapq
import marshal
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import tzinfo
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

import orjson

from app.replay.outgoing import EVERY_INPUT, Outgoing
from schemas.events import EVENT_TYPES, INPUT_TOPICS, ClockAdvanced
from schemas.instant import BadInstant, parse_instant

RUN_BYTES: Final = 96 * 1024 * 1024
"""How many bytes of lines are sorted in memory at a time."""

LONGEST_LINE: Final = 1_000_000
"""Bytes. Kafka's own limit for a message is a little above."""


class BadLine(NamedTuple):
    """A line that cannot be published: its number (from 1) and a sentence that says why."""

    number: int
    why: str


class FileProblem(Exception):
    """The file cannot be read. The text is a sentence."""


class EventFile:
    """The events of a file.

    `topic` is the logical input for lines that don't tell theirs (None: report them); `assume_zone` reads times that
    have no offset; `report` hears of each line that cannot be published.
    """

    def __init__(
        self,
        path: Path,
        *,
        topic: str | None = None,
        assume_zone: tzinfo | None = None,
        report: Callable[[BadLine], None] = lambda _: None,
        run_bytes: int = RUN_BYTES,
    ) -> None:
        self._path = path
        self._topic = topic
        self._zone = assume_zone
        self._report = report
        self._run_bytes = run_bytes
        self._last_at = 0
        self.undated = 0
        """Lines published without a readable time."""

    def events(self) -> Iterator[Outgoing]:
        """All events in time order; the file is read to its end before the first. Raises FileProblem."""
        with ExitStack() as stack:
            runs: list[Iterator[tuple[Any, ...]]] = []
            run: list[tuple[Any, ...]] = []
            size = 0
            for entry, length in self._entries(stack):
                run.append(entry)
                size += length
                if size >= self._run_bytes:
                    runs.append(_spill(sorted(run), stack))
                    run, size = [], 0
            runs.append(iter(sorted(run)))
            for at, _, name, key, value in heapq.merge(*runs):
                yield Outgoing(at, name, key, value)

    def _entries(self, stack: ExitStack) -> Iterator[tuple[tuple[Any, ...], int]]:
        """(at, line number, input, key, value) of each line that can be published, and its length in bytes."""
        try:
            lines = stack.enter_context(_open(self._path))
            for number, line in enumerate(lines, start=1):
                value = line.strip()
                if not value:
                    continue
                try:
                    at, name, key = self._place(value)
                except ValueError as problem:
                    self._report(BadLine(number, str(problem)))
                    continue
                yield (at, number, name, key, value), len(value)
        except (OSError, EOFError, zlib.error) as problem:
            raise FileProblem(f"{self._path} cannot be read: {problem}.") from problem

    def _place(self, value: bytes) -> tuple[int, str, bytes | None]:
        """When, where to, and for whom. Raises ValueError with a sentence when it cannot be told where to."""
        if len(value) > LONGEST_LINE:
            raise ValueError(f"It has {len(value):,} bytes; Kafka takes {LONGEST_LINE:,} in a message.")
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError:
            found = None
        event: dict[str, Any] = found if isinstance(found, dict) else {}
        name = self._input_of(event)
        if name is None and not event:
            raise ValueError("It is not a JSON object: write each event on one line. With --topic it is sent as it is.")
        if name is None:
            what = f"Its type {str(event.get('type'))[:60]!r} is not one of ours"
            raise ValueError(f'{what}: name its topic with --topic, or in the line as "topic".')
        raw = event.get("occurred_at", event.get("timestamp"))
        try:
            self._last_at = parse_instant(cast("str | int", raw), self._zone)
        except BadInstant as problem:
            if name == EVERY_INPUT:
                raise ValueError(f"A ClockAdvanced needs a time. {problem}") from problem
            self.undated += 1
        user = event.get("user_id", event.get("userId"))
        return self._last_at, name, user.encode() if isinstance(user, str) and user else None

    def _input_of(self, event: dict[str, Any]) -> str | None:
        kind, told = event.get("type"), event.get("topic")
        if kind == ClockAdvanced.TYPE:
            return EVERY_INPUT
        if isinstance(told, str) and told in INPUT_TOPICS:
            return told
        known = EVENT_TYPES.get(kind) if isinstance(kind, str) else None
        return known.TOPIC if known else self._topic


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _spill(run: list[tuple[Any, ...]], stack: ExitStack) -> Iterator[tuple[Any, ...]]:
    """Write a sorted run to a temporary file and give it back as an iterator."""
    file = stack.enter_context(tempfile.TemporaryFile(prefix="lifecycle-replay-"))  # noqa: SIM115 - the stack closes it
    for entry in run:
        marshal.dump(entry, file)
    file.seek(0)
    return _read(file, len(run))


def _read(file: IO[bytes], count: int) -> Iterator[tuple[Any, ...]]:
    for _ in range(count):
        yield marshal.load(file)  # noqa: S302 - our own file, written above and already without a name
