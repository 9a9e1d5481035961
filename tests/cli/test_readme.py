"""The README says of the catalogue what the catalogue says of itself, and its example is what comes out."""

from __future__ import annotations

import json
import re
from pathlib import Path

from click.testing import CliRunner

from app.cli import cli
from app.rulebook import SHIPPED, load
from schemas.events import INPUT_TOPICS
from tests.core.shard import Shard

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


def test_the_trigger_in_the_readme_is_what_comes_of_the_order_in_the_readme() -> None:
    order, trigger = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", README.read_text(), re.DOTALL)[:2])
    key, value = order["user_id"].encode(), json.dumps(order).encode()
    shard = Shard(load(), inputs=INPUT_TOPICS).run(("orders", (key, value))).clock("04-01").run()
    which = trigger["rule"], trigger["step"]
    (sent,) = (sent for sent in shard.sent(lambda sent: sent) if (sent["rule"], sent["step"]) == which)
    trigger_id = trigger.pop("trigger_id").removesuffix("…")
    assert sent["trigger_id"].startswith(trigger_id)
    assert len(trigger_id) == 8
    assert {name: sent[name] for name in trigger} == trigger
