"""The README says of the catalogue what the catalogue says of itself."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from app.cli import cli
from app.rulebook import SHIPPED

README = Path(__file__).parents[2] / "README.md"


def test_the_table_of_rules_in_the_readme_is_that_of_the_shipped_catalogue() -> None:
    said = CliRunner().invoke(cli, ["rules", "list", "--markdown"], env={"LIFECYCLE_RULES": None})
    assert said.exit_code == 0
    assert said.stdout.strip() in README.read_text()
    assert said.stdout.count("\n") == 18 + 2
    assert "| `cart_abandoned` | `triggers.cart` | contact |" in said.stdout


def test_the_rule_file_in_the_readme_is_the_shipped_one() -> None:
    shipped = (SHIPPED / "coupon_unused.yaml").read_text()
    assert f"```yaml\n{shipped}```\n" in README.read_text()
