"""What becomes of a dead letter that one shard had sent to another."""

from __future__ import annotations

import pytest

from app.cli.letters import Letter
from app.cli.redriving import Choice, _Judge
from app.core import transfers
from app.core.transfers import Forget
from app.processor import TRANSFERS
from app.settings import load_settings


@pytest.mark.parametrize(
    ("value", "code", "fate"),
    [
        (transfers.encode(Forget("u-2", 5)), None, ("set aside", "")),
        (transfers.encode(Forget("u-2", 5)), "cannot_apply", ("send", "")),
        (b"junk", "cannot_apply", ("refused", "cannot_apply: no shard wrote this")),
    ],
)
def test_what_was_set_aside_is_told_again_when_it_is_asked_for(
    value: bytes, code: str | None, fate: tuple[str, str]
) -> None:
    letter = Letter("", (0, 4), "cannot_apply", "", "Set aside by a person: broken", TRANSFERS, 3, 8, b"u-1", value)
    judge = _Judge(load_settings({}), Choice(code), {})
    assert judge.fate(letter) == fate
    assert judge.target(letter) == 3
