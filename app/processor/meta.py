"""The record of the changelog that a shard keeps of itself: how far time has come and under which rules.

A field may be added, with a value that says what its absence meant; none changes its meaning.
"""

from __future__ import annotations

import msgspec

from app.accounts import Keyed
from app.core.row import ROW_VERSION
from app.processor.records import Fingerprint

#: In `Meta.unsettled`: nobody knows under which catalogue the runs were last looked after.
EVERY_RULE = "*"
BEGINNING = 0
"""Merged time before anything was seen."""


class Meta(msgspec.Struct):
    """How far a shard has come, as kept in the changelog."""

    merged: int = BEGINNING
    clocks: dict[str, int] = {}
    """By input: the instant that the input itself said it has reached (ClockAdvanced)."""
    active_since: dict[str, int] = {}
    """By rule: merged time when it first ran here."""
    catalogue: int = 0
    """Number of the published catalogue in effect; 0 = the one the worker came with."""
    row_version: int = ROW_VERSION
    """The version in which rows are written: raised only when the deployment is finalised."""
    slots: dict[str, int] = {}
    """By rule with a maximum rate: when its next slot is free here."""
    read_up_to: dict[str, int] = {}
    """By input: the offset that comes next; committed with the group's own, but it does not expire as that does."""
    applied: dict[str, Fingerprint] = {}
    """By input: the record that was applied last."""
    keyed: Keyed = Keyed()
    """The keys of the hashes that erased users left here."""
    unsettled: list[str] = []
    """Rules whose runs the last change-over has to look after before anything else happens; EVERY_RULE for all."""
    settled: str = ""
    """The users up to this one, in the order of their ids, have been looked after."""


def active_since(meta: bytes) -> dict[str, int]:
    """By rule, of a shard's own changelog record: merged time when the rule first ran there."""
    return msgspec.msgpack.decode(meta, type=Meta).active_since


def reached(meta: bytes) -> int:
    """Merged time, of a shard's own changelog record."""
    return msgspec.msgpack.decode(meta, type=Meta).merged
