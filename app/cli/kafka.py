"""`lifecycle kafka up / down / status`: the embedded Apache Kafka, in words."""

from __future__ import annotations

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from app import embedded
from app.embedded.ports import HOST
from app.settings import Settings, SettingsError, load_settings

DEFAULT_PORT = 9092
NOT_RUNNING = 3
_HERE = frozenset({HOST, "localhost"})


class TerminalProgress(embedded.Progress):
    """A bar on a terminal, a line each quarter elsewhere. Goes to stderr."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._what = ""
        self._total = self._done = self._said = 0

    def note(self, text: str) -> None:
        self._console.print(f"{text}...", soft_wrap=True)

    def begin(self, what: str, total_bytes: int) -> None:
        self._what, self._total, self._done, self._said = what, total_bytes, 0, 0
        if not self._console.is_terminal:
            told = f"{what}, {total_bytes / 1e6:.0f} MB (once; kept in {embedded.default_cache()})..."
            self._console.print(told, soft_wrap=True)
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=self._console,
        )
        self._bar.add_task(what, total=total_bytes)
        self._bar.start()

    def advance(self, amount_bytes: int) -> None:
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], amount_bytes)
            return
        self._done += amount_bytes
        quarter = 4 * self._done // max(1, self._total)
        if quarter > self._said:
            self._said = quarter
            self._console.print(f"{self._what}: {self._done / 1e6:.0f} of {self._total / 1e6:.0f} MB")

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@click.group()
def command() -> None:
    """The embedded Apache Kafka on this machine: real, on loopback, with nothing to install.

    Its data is below LIFECYCLE_DATA_DIR. It goes on running when the terminal is closed, until `lifecycle kafka down`.
    """


@command.command()
@click.option("--brokers", type=click.Choice(["1", "3"]), default="1", show_default=True, help="3 to try failures.")
@click.option("--port", type=click.IntRange(1, 65_535), help=f"The first broker's port.  [default: {DEFAULT_PORT}]")
def up(brokers: str, port: int | None) -> None:
    """Start Kafka and wait until it serves. Nothing happens if it runs already.

    Where LIFECYCLE_KAFKA_BOOTSTRAP names another Kafka, that one is used and nothing is started. Exit code 0 when there
    is a Kafka to use afterwards, 1 when not.
    """
    settings = _settings()
    if settings.bootstrap_given and not _is_embedded(settings, int(brokers), port):
        click.echo(_used_instead(settings.kafka_bootstrap, port))
        return
    try:
        before = embedded.status(settings.data_dir)
        wanted = port or (None if before and before.running else DEFAULT_PORT)
        cluster = embedded.up(settings.data_dir, int(brokers), wanted, TerminalProgress())
    except embedded.KafkaProblem as problem:
        raise click.ClickException(str(problem)) from problem
    if cluster.fresh:
        click.echo(f"Kafka runs at {cluster.bootstrap} (data in {cluster.home}). Stop it with `lifecycle kafka down`.")
    else:
        click.echo(f"Kafka runs already at {cluster.bootstrap}.")
    if not settings.bootstrap_given and cluster.nodes[0].port != DEFAULT_PORT:
        click.echo(f"It is not on the usual port: export LIFECYCLE_KAFKA_BOOTSTRAP={cluster.bootstrap}")


@command.command()
@click.option("--erase", is_flag=True, help="Remove its data too: topics, events, states.")
def down(erase: bool) -> None:
    """Stop the embedded Kafka. Its data is kept unless --erase is given."""
    settings = _settings()
    try:
        running = embedded.down(settings.data_dir, erase)
    except embedded.KafkaProblem as problem:
        raise click.ClickException(str(problem)) from problem
    stopped = "Kafka has stopped" if running else "Kafka was not running"
    click.echo(f"{stopped}{'; its data is erased' if erase else ''}.")


@command.command()
@click.pass_context
def status(context: click.Context) -> None:
    """Say whether the embedded Kafka runs. Exit code 0 when every broker serves, 3 when not."""
    settings = _settings()
    try:
        cluster = embedded.status(settings.data_dir)
    except embedded.KafkaProblem as problem:
        raise click.ClickException(str(problem)) from problem
    if cluster is None or not cluster.running:
        click.echo("Kafka does not run. Start it with `lifecycle kafka up`.")
        context.exit(NOT_RUNNING)
    for broker in cluster.brokers:
        if broker.pid is None:
            click.echo(f"Broker {broker.id} does not run (its log: {broker.log}).")
        else:
            told = "serves" if embedded.serves(broker) else "runs but does not answer"
            click.echo(f"Broker {broker.id} {told} at {HOST}:{broker.port} (pid {broker.pid}, log {broker.log}).")
    if not embedded.answers(cluster):
        if len(cluster.running) < len(cluster.nodes):
            click.echo(f"Start what is missing with `lifecycle kafka up --brokers {len(cluster.nodes)}`.")
        context.exit(NOT_RUNNING)


def _used_instead(named: str, port: int | None) -> str:
    """That another Kafka is used. Raises ClickException when it does not answer, or is not what was asked for."""
    if port:
        raise click.ClickException(
            f"Nothing was started: LIFECYCLE_KAFKA_BOOTSTRAP names {named}, and all commands would go there. To use an "
            f"embedded Kafka on port {port}, set it to {HOST}:{port} and run this again."
        )
    if embedded.listens(named):
        return (
            f"LIFECYCLE_KAFKA_BOOTSTRAP names the Kafka at {named}: it answers and is used, and nothing was started. "
            "Unset it to use the embedded Kafka."
        )
    host, _, number = named.rpartition(":")
    here = f", or start it there with `lifecycle kafka up --port {number}`" if host in _HERE else ""
    raise click.ClickException(
        f"Nothing was started: LIFECYCLE_KAFKA_BOOTSTRAP names {named}, where nothing answers. Start that Kafka or "
        f"correct the address. For the embedded Kafka, unset it and run this again{here}."
    )


def _is_embedded(settings: Settings, brokers: int, port: int | None) -> bool:
    """Whether LIFECYCLE_KAFKA_BOOTSTRAP names the embedded Kafka itself, as it runs or as it is asked for."""
    try:
        cluster = embedded.status(settings.data_dir)
    except embedded.KafkaProblem:
        cluster = None
    running = cluster is not None and bool(cluster.running)
    first = port or (None if running else DEFAULT_PORT)
    ours = {str(first + place) for place in range(brokers)} if first else set()
    if cluster is not None and running:
        ours |= {str(node.port) for node in cluster.nodes}
    named = [server.rpartition(":") for server in settings.kafka_bootstrap.split(",")]
    return all(host in _HERE and number in ours for host, _, number in named)


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as problem:
        raise click.ClickException(str(problem)) from problem
