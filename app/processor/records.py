"""What crosses a shard's border: records in, batches out, the keys of its changelog, and why it may stop.

Values only: whoever moves records needs nothing else of the processor.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple
from zlib import crc32

#: The changelog record of the shard itself. No user id holds a control character, so none can be this.
META_KEY = b"\x00shard"
#: A person's decision to set one event aside: this, the input, a NUL, the offset; the value says why.
QUARANTINE_PREFIX = b"\x00quarantine\x00"
#: What shards tell each other of merged accounts: an output, and one more input, of which nobody can say how far it is.
TRANSFERS = "transfers"
#: In an input's place among those decisions: what is due at an instant (its offset), for whom the rules fail on it.
TIMER = "timer"


class Record(NamedTuple):
    """A record of an input partition."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class Fingerprint(NamedTuple):
    """By what a record is known again, should its topic have been deleted and made anew meanwhile."""

    offset: int
    timestamp_ms: int
    crc: int

    @classmethod
    def of(cls, record: Record) -> Fingerprint:
        return cls(record.offset, record.timestamp_ms, crc32(record.value or b"", crc32(record.key or b"")))


class Output(NamedTuple):
    """A record to write, to this shard's partition of the logical topic unless another one is named."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    partition: int | None = None


class Batch(NamedTuple):
    """Everything of one transaction."""

    rows: list[tuple[bytes, bytes | None]]
    outputs: list[Output]
    offsets: dict[str, int]
    counts: Counter[tuple[str, ...]]
    consecutive_rejects: int = 0
    """So many messages in a row could not be used when it was taken."""


class InvariantBroken(Exception):
    """The core failed on an event: a bug. The shard stops before anything of the batch is committed."""

    #: Its words name a place, never data: logs may show them.
    safe_to_log = True


class RulesNotLoaded(Exception):
    """Published rules are in effect that this worker cannot load; a person must act. Nothing of the batch was kept."""

    safe_to_log = True


class RejectCeiling(Exception):
    """So many messages were rejected in a row that the shop wants a person to look. Nothing of the batch was kept."""

    safe_to_log = True


def quarantine_key(input: str, offset: int) -> bytes:
    """The changelog key of a person's decision to set this event aside."""
    return QUARANTINE_PREFIX + f"{input}\x00{offset}".encode()
