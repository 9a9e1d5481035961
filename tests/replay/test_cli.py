"""`lifecycle replay` says what it publishes, what it made up, and what it could not read."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from app.cli import cli
from app.replay.journey import load_journey
from schemas.instant import parse_instant

GOOD = b'{"event_id": "e-1", "type": "UserLoggedIn", "user_id": "u-1", "occurred_at": "2026-03-01T08:00:00Z"}'
EARLIER = GOOD.replace(b"08:00", b"07:00")


def run(*arguments: str, **env: str) -> Result:
    # The variable of the test run itself is none of the settings.
    return CliRunner().invoke(cli, ["replay", *arguments], env={"TEST_KAFKA_BOOTSTRAP": None, **env})


def test_a_dry_run_prints_the_lines_of_a_file_in_time_order(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(GOOD + b"\n" + EARLIER + b"\n")
    result = run(str(path), "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == EARLIER + b"\n" + GOOD + b"\n"


def test_until_leaves_out_what_happened_at_that_instant_or_later(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(GOOD + b"\n" + EARLIER + b"\n")
    assert run(str(path), "--dry-run", "--until", "2026-03-01T08:00:00Z").stdout_bytes == EARLIER + b"\n"


def test_lines_that_cannot_be_published_are_named_and_the_exit_code_says_so(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"nonsense\n" + GOOD + b"\n")
    result = run(str(path), "--dry-run")
    assert result.exit_code == 1
    assert "line 1: not published. It is not a JSON object" in result.stderr
    assert "1 of the lines could not be published" in result.stderr
    assert result.stdout_bytes == GOOD + b"\n"


def test_the_journey_says_what_is_real_and_what_is_simulated_and_stops_in_time() -> None:
    result = run("complete-journey", "--households", "2", "--dry-run", "--until", "2017-02-01T00:00:00-05:00")
    assert result.exit_code == 0, result.output
    journey = load_journey(2)
    assert f"real:      {journey.counts['OrderPaid']:,} OrderPaid" in result.stderr
    assert f"simulated: {journey.simulated['CustomerBaseline']:,} CustomerBaseline" in result.stderr
    printed = [orjson.loads(line) for line in result.stdout_bytes.splitlines()]
    until = parse_instant("2017-02-01T00:00:00-05:00")
    assert len(printed) == sum(event.occurred_at < until for event in journey.events()) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.jsonl"], "There is no file nowhere.jsonl. (The built-in data set is called complete-journey.)"),
        (["nowhere.jsonl", "--households", "3"], "--households is for complete-journey only"),
        (["complete-journey", "--topic", "orders"], "--topic is for files"),
        (["complete-journey", "--until", "soon"], "--until"),
        (["complete-journey", "--households", "9999"], "2,469 households, fewer than 9,999"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code != 0
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_wrong_settings_are_told() -> None:
    result = run("complete-journey", LIFECYCLE_PARTITIONS="many")
    assert result.exit_code == 1
    assert "LIFECYCLE_PARTITIONS" in result.stderr
