"""The README says of the catalogue what the catalogue says of itself, and its example is what comes out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.cli import cli
from app.rulebook import SHIPPED, load
from schemas.events import INPUT_TOPICS
from tests.core.shard import Shard

README = Path(__file__).parents[2] / "README.md"
#: The blocks of JSON, in their order: an order and its trigger, a track call and its trigger, what cannot be used and
#: its headers.
EXAMPLES = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", README.read_text(), re.DOTALL)]


def record(body: dict[str, Any]) -> tuple[bytes, bytes]:
    """Key and value."""
    return str(body.get("user_id") or body["userId"]).encode(), json.dumps(body).encode()


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
    order, trigger = EXAMPLES[:2]
    shard = Shard(load(), inputs=INPUT_TOPICS).run(("orders", record(order))).clock("04-01").run()
    which = trigger["rule"], trigger["step"]
    (sent,) = (sent for sent in shard.sent(lambda sent: sent) if (sent["rule"], sent["step"]) == which)
    trigger_id = trigger.pop("trigger_id").removesuffix("…")
    assert sent["trigger_id"].startswith(trigger_id)
    assert len(trigger_id) == 8
    assert {name: sent[name] for name in trigger} == trigger


@pytest.mark.parametrize(("again", "visits"), [("12:30:00", 2), ("12:29:59", 1)])
def test_the_trigger_of_the_track_call_is_what_comes_of_a_second_visit_half_an_hour_later(
    again: str, visits: int
) -> None:
    call, trigger = EXAMPLES[2:4]
    second = {**call, "messageId": "m-2", "timestamp": call["timestamp"].replace("12:00:00", again)}
    shard = Shard(load(), inputs=INPUT_TOPICS).run(("browse", record(call)), ("browse", record(second)))
    sent = shard.clock("03-05").run().sent(lambda sent: {name: sent[name] for name in trigger})
    assert sent == ([trigger] if visits == 2 else [])
    assert shard.letters() == []


def test_the_headers_of_the_dead_letter_are_those_of_the_message_that_cannot_be_used() -> None:
    broken, headers = EXAMPLES[4:]
    shard = Shard(load(), inputs=INPUT_TOPICS).run(("orders", record(broken)))
    assert [(o.topic, o.key, o.value) for o in shard.outputs] == [("dead-letters", *record(broken))]
    (said,) = shard.letters()
    assert {name: said.pop(name) for name in headers} == headers
    text = README.read_text()
    assert all(f"`{name}`" in text for name in said)


def test_the_address_that_is_exported_is_that_of_the_port_that_kafka_is_started_on() -> None:
    (port, named) = re.search(
        r"lifecycle kafka up --port (\d+)\n +export LIFECYCLE_KAFKA_BOOTSTRAP=(\S+)\n", README.read_text()
    ).groups()  # type: ignore[union-attr]
    assert named == f"127.0.0.1:{port}"


def test_the_readme_and_the_policy_tell_the_shop_to_set_the_currency_of_its_offers() -> None:
    currencies = {offer.currency for offer in load().policy.offers.values() if offer.value}
    assert currencies == {"CNY"}
    assert "an offer goes out as it stands there (10.00 CNY)" in README.read_text()
    assert "set value and currency: they go out as they stand here" in (SHIPPED / "shop.yaml").read_text()
