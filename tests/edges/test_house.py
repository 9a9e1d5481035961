"""The house rules are kept by machines: targets, banned calls, import directions."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_make_alone_lists_every_target_with_a_line() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    listed = re.findall(r"^make (\w+) +\S.*\.?$", make().stdout, re.MULTILINE)
    assert listed == phony[1].split()


def test_an_old_python_is_refused_with_what_to_do(tmp_path: Path) -> None:
    done = make("setup", f"VENV={tmp_path}/venv", "PYTHON=false")
    assert done.returncode != 0
    assert "No Python 3.11 or newer (with its venv module) among: false." in done.stderr
    assert "make setup PYTHON=/path/to/python3.11" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_ci_calls_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().rstrip().endswith("exec make test </dev/null")


def test_every_module_of_the_app_has_its_place_in_the_layers() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    placed = set(re.findall(r"app\.\w+", " ".join(config["layers"])))
    modules = {f"app.{path.stem}" for path in (ROOT / "app").glob("*.py") if path.stem != "__init__"}
    packages = {f"app.{path.parent.name}" for path in (ROOT / "app").glob("*/__init__.py")}
    assert (modules | packages) - placed == set()


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("app/core/x.py", "from datetime import datetime, UTC\nAT = datetime.now(UTC)\n"),
        ("agents/x.py", "import time\nAT = time.time()\n"),
        ("schemas/x.py", "import uuid\nID = uuid.uuid4()\n"),
        ("app/core/x.py", "import random\nX = random.random()\n"),
        ("app/cli/x.py", "import os\nX = os.environ\n"),
    ],
)
def test_the_clock_the_dice_and_the_environment_are_out_of_reach(path: str, line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", path, "-"],
        input=line, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "TID251" in done.stdout


@pytest.mark.parametrize(
    ("path", "line", "broken"),
    [
        ("app/core/x.py", "import asyncio\n", "The core and the contract are decidable with pencil and paper"),
        ("schemas/x.py", "import app.core\n", "Imports point one way"),
        ("app/cli/x.py", "import agents\n", "Imports point one way"),
        ("app/processor/x.py", "import faust\n", "The processor knows partitions, not Kafka"),
    ],
)
def test_an_import_in_the_wrong_direction_breaks_the_build(path: str, line: str, broken: str, tmp_path: Path) -> None:
    for folder in ("app", "app/core", "app/cli", "app/processor", "agents", "schemas"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "app" / "accounts.py").touch()
    command = [
        sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache", "--no-logo",
    ]  # fmt: skip
    kept = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert kept.returncode == 0, kept.stdout + kept.stderr
    (tmp_path / path).write_text(line)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(rf"{broken}.* BROKEN", done.stdout)
