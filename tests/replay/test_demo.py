"""The demo shows what it promises, and leaves nothing running however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.settings import PREFIX

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]


class Demo:
    """A demo in a process of its own, with its temporary directory under `home`."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        # Whatever the person who runs it has set, the demo goes its own way.
        env |= {"TMPDIR": str(home), f"{PREFIX}KAFKA_BOOTSTRAP": "127.0.0.1:1", f"{PREFIX}APP_ID": "of-the-shop"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "demo", *options],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.said = ""

    def wait_for(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if words in line:
                return
        raise AssertionError(f"it never said {words!r}:\n{self.said}")

    def end(self) -> int:
        assert self.process.stdout is not None
        self.said += self.process.stdout.read()
        return self.process.wait(240)

    def worker(self) -> psutil.Process:
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if "worker" in child.cmdline():
                return child
        raise AssertionError("the worker is not there")

    def left(self) -> list[str]:
        """Processes and files that name the demo's directory."""
        running = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline", "environ"])
                   if str(self.home) in " ".join(p.info["cmdline"] or ()) + str(p.info["environ"])]  # fmt: skip
        return running + [str(path) for path in self.home.iterdir() if path.name.startswith("lifecycle-demo")]


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # Outside of the test's own directory, whose name would stand in the command line of this very process.
    with tempfile.TemporaryDirectory(prefix="of-a-test-") as name:
        yield Path(name)


def test_a_small_demo_fires_all_three_rules_shows_five_people_and_leaves_nothing(home: Path) -> None:
    demo = Demo(home, "--households", "40")
    assert demo.end() == 0, demo.said
    table = {m[1]: [int(n.replace(",", "")) for n in m[2].split("│")[1:5]]
             for m in re.finditer(r"│ (\w+) +(│[^\n]+)", demo.said)}  # fmt: skip
    assert {"replenishment", "coupon_unused", "winback", "at_risk", "repurchase_coupon"} <= table.keys()
    assert all(entered >= ended for entered, ended, _, _ in table.values())
    assert all(table[rule][2] > 0 for rule in ("replenishment", "coupon_unused", "winback"))
    samples = re.findall(r"step \d for (cj-\d+)  (?:by|for the) ", demo.said)
    assert len(set(samples)) == 5
    assert "Simulated" in demo.said
    assert "0 rejected" in demo.said
    assert demo.left() == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_everything_and_says_so(home: Path, how: signal.Signals) -> None:
    demo = Demo(home, "--households", "40")
    demo.wait_for("The worker is ready")
    worker = demo.worker()
    demo.process.send_signal(how)
    assert demo.end() == 130, demo.said
    assert "nothing is left running" in demo.said
    assert "Traceback" not in demo.said
    assert not worker.is_running()
    assert demo.left() == []


def test_when_the_worker_dies_the_demo_ends_with_its_last_words(home: Path) -> None:
    demo = Demo(home, "--households", "40")
    demo.wait_for("The worker is ready")
    demo.worker().kill()
    assert demo.end() == 1, demo.said
    assert "The worker ended with exit code -9" in demo.said
    assert "Its log ends:" in demo.said
    assert "Traceback" not in demo.said
    assert demo.left() == []


def test_kept_data_stays_and_nothing_runs(home: Path) -> None:
    demo = Demo(home, "--households", "2", "--keep")
    code = demo.end()
    (kept,) = home.glob("lifecycle-demo-*")
    assert (kept / "worker.log").exists()
    assert (kept / "kafka").is_dir()
    assert f"kept in {kept}" in demo.said
    # Two households hardly do everything that the rules wait for; the exit code says whether they did.
    assert code == (1 if "did not fire" in demo.said else 0)
    time.sleep(0.1)
    assert [one for one in demo.left() if one != str(kept)] == []
