"""The README says of the catalogue what the catalogue says of itself."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from app.cli import cli

README = Path(__file__).parents[2] / "README.md"


def test_the_table_of_rules_in_the_readme_is_that_of_the_shipped_catalogue() -> None:
    said = CliRunner().invoke(cli, ["rules", "list", "--markdown"], env={"LIFECYCLE_RULES": None})
    assert said.exit_code == 0
    assert said.stdout.strip() in README.read_text()
    assert said.stdout.count("\n") == 18 + 2
