"""Users land where the clients of other languages put them."""

from __future__ import annotations

import zlib

import pytest
from aiokafka.partitioner import DefaultPartitioner

from app.replay.partition import partitioner

# Java: Utils.murmur2, from Kafka's own UtilsTest.
JAVA = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}


@pytest.mark.parametrize("partitions", [1, 4, 12, 50])
def test_murmur2_is_that_of_java_and_aiokafka(partitions: int) -> None:
    where = partitioner("murmur2", partitions)
    for key, number in JAVA.items():
        assert where(key) == (number & 0x7FFFFFFF) % partitions
    for n in range(200):
        key = f"cj-{n}".encode()
        assert where(key) == DefaultPartitioner()(key, list(range(partitions)), [])


def test_crc32_is_that_of_librdkafka() -> None:
    assert partitioner("crc32", 7)(b"123456789") == 0xCBF43926 % 7 == zlib.crc32(b"123456789") % 7
