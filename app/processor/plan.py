"""What all shards of a deployment share, and which of them a key belongs to. Fixed while a worker runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple
from zlib import crc32

from aiokafka.partitioner import murmur2

from app.accounts import ErasureKeys
from app.core.rules import Catalogue
from schemas.codec import DecodeOptions


class Plan(NamedTuple):
    """What all shards of a deployment share."""

    inputs: tuple[str, ...]
    partitions: int
    partitioner: Literal["murmur2", "crc32"]
    clock: Literal["wall", "events"]
    lateness: int
    decode: DecodeOptions
    catalogue: Catalogue
    app_id: str
    erasure: ErasureKeys
    start: str
    """'none', 'state-only', 'since:<instant in microseconds>', or '' for each rule's own."""
    reject_ceiling: int = 1000
    """So many rejects in a row are an alarm: an upstream service is broken."""
    stop_at_ceiling: bool = False
    """Whether the shard then stops, too."""
    state_version: int | None = None
    """The row version that this deployment has finalised; None keeps what the state already has."""


def partition_of(key: bytes, partitions: int, partitioner: str) -> int:
    """Where a Kafka client with this partitioner puts a key: murmur2 as Java and aiokafka, crc32 as librdkafka."""
    return PARTITIONERS[partitioner](key) % partitions


def _murmur2(key: bytes) -> int:
    hashed: int = murmur2(key)
    return hashed & 0x7FFFFFFF


PARTITIONERS: dict[str, Callable[[bytes], int]] = {"murmur2": _murmur2, "crc32": crc32}
