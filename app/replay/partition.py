"""The partition of a user: what every producer of a deployment must agree on, or a user's events land in two shards."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache

from aiokafka.partitioner import murmur2


def partitioner(name: str, partitions: int) -> Callable[[bytes], int]:
    """key -> partition number.

    `murmur2` is the default of Java and aiokafka (`murmur2_random` of librdkafka), `crc32` that of librdkafka.
    """
    if name == "crc32":
        return lru_cache(maxsize=65_536)(lambda key: zlib.crc32(key) % partitions)
    return lru_cache(maxsize=65_536)(lambda key: (murmur2(key) & 0x7FFFFFFF) % partitions)
