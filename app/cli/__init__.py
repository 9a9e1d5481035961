"""The command line. Each command group lives in its own file of this package and is listed here.

Nothing here runs the stream processor: `app.__main__` adds the `worker` command, because only it may import both
this package and `app.main`.
"""

from __future__ import annotations

import importlib

import click

#: command name -> (module, one line of help). Modules are imported when their command is used, so that
#: `lifecycle kafka status` does not pay for what `lifecycle replay` needs.
COMMANDS: dict[str, tuple[str, str]] = {
    "kafka": ("app.cli.kafka", "The embedded Apache Kafka: up, down, status."),
    "topics": ("app.cli.topics", "Create all topics with their settings; safe to repeat."),
    "rules": ("app.cli.publishing", "The catalogue: check, list, show, try, publish, pause, resume."),
    "why": ("app.cli.why", "A user's timeline in words: what happened, what went out, what was held and why."),
    "dead-letters": ("app.cli.dead_letters", "Messages that could not be used: list, redrive."),
    "quarantine": ("app.cli.quarantine", "Set one event aside that stops a shard."),
    "replay": ("app.cli.replay", "Publish events from a file or a data set, in time order."),
    "watch": ("app.cli.watch", "Print triggers as they come, a line each."),
    "demo": ("app.cli.demo", "Kafka, a worker and a year of real purchases, start to end."),
}


class LazyGroup(click.Group):
    """A click group that imports a command's module when it is first used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(COMMANDS[cmd_name][0])
            command = module.command
            assert isinstance(command, click.Command)
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lifecycle-triggers")
def cli() -> None:
    """Reads what users do from Kafka and tells marketing systems when to act: once, on time, with the reason."""
