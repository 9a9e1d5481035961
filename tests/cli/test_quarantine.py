"""What is told of an event before a person sets it aside: what it is, and not whose."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.cli.quarantine import Place, described
from app.core import transfers
from app.core.transfers import Forget, History, PassedOn
from app.processor import TRANSFERS
from app.settings import load_settings

SETTINGS = load_settings({})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (transfers.encode(History("u-1", ("u-2",), "e-1", 0, None)), "the history of an account that was merged 1970-"),
        (transfers.encode(PassedOn("u-1", ("u-2",), 5, "orders", 3, 8, -1, b"u-2", b"{}")), "from orders[3] offset 8"),
        (transfers.encode(Forget("u-2", 5)), "an account that is to be forgotten"),
        (b"junk", "nothing that a shard wrote"),
        (b"\x00\x09", "this worker reads up to 1"),
    ],
)
def test_what_shards_told_each_other_is_told_in_words(value: bytes, told: str) -> None:
    record = SimpleNamespace(offset=7, timestamp=0, key=b"u-1", value=value)
    lines = "\n".join(described(SETTINGS, Place(TRANSFERS, 0, 7), record))
    assert told in lines
    assert "u-1" not in lines
    assert "u-2" not in lines
