"""The schema of rule files: as published, valid by itself, and never stricter than the reader."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from jsonschema import Draft202012Validator

from app import rulebook
from app.core.problems import located
from app.explain.schema import rule_schema
from tests.cli.shop import NUDGE, THANKS, run

PUBLISHED = Path(__file__).parents[2] / "schemas" / "rules" / "rule.v1.json"
VALIDATOR = Draft202012Validator(rule_schema())
STEPS = NUDGE[NUDGE.index("steps:") : NUDGE.index("check:")]


def test_the_published_file_is_what_the_command_prints() -> None:
    printed = run("rules", "schema").stdout_bytes
    assert PUBLISHED.read_bytes() == printed, "run: lifecycle rules schema > schemas/rules/rule.v1.json"
    assert orjson.loads(printed)["$id"] == "urn:lifecycle-triggers:schema:rule:v1"


def test_it_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(rule_schema())


@pytest.mark.parametrize(
    "text",
    [NUDGE, THANKS, *(p.read_text() for p in sorted(rulebook.SHIPPED.glob("*.yaml")) if "rule:" in p.read_text())],
    ids=lambda text: text.splitlines()[0],
)
def test_every_rule_that_the_reader_takes_fits(text: str) -> None:
    data, _ = located(text, "rule.yaml", [])
    assert [error.message for error in VALIDATOR.iter_errors(data)] == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("CouponIssued", "CouponIsued"),
        ("version: 3", "version: 0"),
        ("family: coupon", "family: coupons"),
        ("priority: 50", "priority: high"),
        ("[push, sms]", "[push, pigeon]"),
        ("expires_after: 36h", "expires_after: soon"),
        ("reentry: every_key", "reentry: always"),
        ("reentry: every_key", ""),
        ("check:", "chek:"),
        ("{after: 10d", "{afer: 10d"),
        (STEPS, "steps: []\n"),
        ("{after: 10d", "{"),
        ("{after: 10d", "{after: 10d, at: entered_at"),
        ("after: 10d", "after: 3 days"),
        ("after: 10d", "after: 3days"),
        ("after: 10d", "after: 1w"),
        ("{on: CouponRevoked}", "{}"),
        ("{on: CouponRevoked}", "{when: user.bought_before}"),
        ("{on: CouponRevoked}", "{on: CouponRevoked, at: coupon.expires_at}"),
        ("{at: coupon.expires_at}", "{at: coupon.expires_at, when: user.bought_before}"),
        ("{at: coupon.expires_at}", "{at: coupon.expires_at, same: user}"),
        ("mode: live", "goal: {}"),
        ("mode: live", "goal: {on: CouponRedeemed}"),
        ("mode: live", "goal: {on: CouponRedeemed, within: 7d, wihtin: 8d}"),
        ("mode: live", "recheck: [stok]"),
        ("[push, sms]", "[push, push]"),
    ],
)
def test_an_editor_is_told_of_a_slip(before: str, after: str) -> None:
    text = f"{NUDGE}mode: live\n"
    assert before in text
    right, _ = located(text, "rule.yaml", [])
    assert list(VALIDATOR.iter_errors(right)) == []
    data, _ = located(text.replace(before, after, 1), "rule.yaml", [])
    assert list(VALIDATOR.iter_errors(data)) != []


def test_every_setting_is_explained_to_who_completes_it() -> None:
    schema = rule_schema()
    parts = {"": schema, "send": schema["properties"]["send"]}
    parts |= {name: schema["properties"][name]["anyOf"][0] for name in ("enter", "ends", "steps")}
    silent = [
        f"{part} {name}".strip()
        for part, found in parts.items()
        for name, setting in found["properties"].items()
        if not setting.get("description") and "$ref" not in setting
    ]
    assert silent == [], "app/explain/schema.py says nothing about these"
