"""The `lifecycle` command, with `worker` added: only this file may import both the command line and the engine."""

from __future__ import annotations

import sys

import click

from app.cli import cli


@click.command("worker")
def worker() -> None:
    """Run the stream processor until it is stopped. All settings come from the environment."""
    from app.main import run_worker

    sys.exit(run_worker())


cli.add_command(worker)


def main() -> None:
    """The console script."""
    cli(prog_name="lifecycle")


if __name__ == "__main__":
    main()
