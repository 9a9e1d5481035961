"""A worker that runs the simple job: what the engine's tests and the benchmark start as a process of its own.

`python -m tests.kafka.simple_worker '{"buffer": 100, "wiring": {"look_idle": 0.05}}'`; settings from the environment.
"""

from __future__ import annotations

import itertools
import json
import sys

import click

from agents.fetching import Chunk
from agents.supervisor import Supervisor
from app import logs
from app.main import PROBLEMS, run_engine
from app.settings import load_settings
from tests.kafka.simple_job import BUFFER, SimpleJob


def _lose_a_chunk(number: int) -> None:
    """Between the consumer and the shards, the chunk with this number (from 1) disappears."""
    chunks = itertools.count(1)
    deliver = Supervisor.deliver

    def leaky(self: Supervisor, name: str, chunk: Chunk) -> None:
        if not chunk.records or next(chunks) != number:
            deliver(self, name, chunk)

    Supervisor.deliver = leaky  # type: ignore[method-assign]  # that is the fault


def main(options: dict[str, object]) -> int:
    settings = load_settings()
    logs.setup(settings.log_level, settings.log_format)
    buffer = options.get("buffer", BUFFER)
    assert isinstance(buffer, int)
    wiring = options.get("wiring", {})
    assert isinstance(wiring, dict)
    lose = options.get("lose", 0)
    assert isinstance(lose, int)
    if lose:
        _lose_a_chunk(lose)
    try:
        return run_engine(
            settings, lambda shard: SimpleJob(settings.inputs, settings.clock == "wall", shard, buffer), **wiring
        )
    except PROBLEMS as problem:
        click.echo(problem, err=True)
        return 2


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}))
