"""What `lifecycle watch` prints of a trigger: one line, in columns."""

from __future__ import annotations

import pytest
from rich.console import Console

from app.cli.watch import Lines
from app.feed import Told
from app.rulebook import SHIPPED


def told(rule: str, user: str, retracted: bool = False, **more: object) -> Told:
    body = {"rule": rule, "user_id": user, "step": 1, "channel": "push", "reason": "So it is.", **more}
    return Told("t-1", retracted, {"decided_at": "2026-03-01T01:00:00Z", **body})


def printed(*messages: Told) -> list[str]:
    """As somebody sees them, without the styles."""
    lines, out = Lines(), Console(highlight=False, soft_wrap=True)
    with out.capture() as captured:
        for message in messages:
            out.print(lines.line(message))
    return captured.get().splitlines()


def test_all_columns_begin_where_those_above_them_do() -> None:
    names = sorted({path.stem for path in SHIPPED.glob("*.yaml")} - {"shop", "intervals"})
    assert "post_purchase_offer" in names
    lines = printed(*(told(name, "c-1") for name in names), told("winback", "c-1", retracted=True))
    assert {line.index(" c-1 ") for line in lines} == {45}
    assert len({line.index("step 1") for line in lines}) == len({line.index("So it is.") for line in lines}) == 1
    assert "  retracted  So it is." in lines[-1]


@pytest.mark.parametrize("wide", [
    told("a_shop_s_own_rule_with_a_long_name", "u-1"), told("winback", "a-user-whose-id-is-long"),
    told("winback", "u-1", channel="wechat_service", mode="shadow"), told("winback", "u-1", step=1_000),
])  # fmt: skip
def test_a_column_stays_as_wide_as_it_once_was(wide: Told) -> None:
    before, first, after = printed(told("winback", "u-1"), wide, told("winback", "u-1", retracted=True))
    assert first.index("So it is.") == after.index("So it is.") > before.index("So it is.")


def test_what_looks_like_a_style_is_printed_as_it_stands() -> None:
    (line,) = printed(told("winback", "[red]u[/]", reason="[b]So[/b]\nit is."))
    assert "  [red]u[/]   step 1" in line
    assert line.endswith("  [b]So[/b] it is.")
