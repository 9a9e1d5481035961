"""What the shell asks of a processor: the part of a shard that decides, without Kafka, asyncio or a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from app.core.rules import Catalogue
from app.processor import Fingerprint, Record


class ProcessorFailed(Exception):
    """The processor raised: a defect, or rows it must not touch. The words name the records, not what is in them."""

    safe_to_log = True


class OutputLike(Protocol):
    """A record for one of the logical output topics, and for the shard's own partition unless another one is named."""

    @property
    def topic(self) -> str: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]: ...
    @property
    def partition(self) -> int | None: ...


class BatchLike(Protocol):
    """Everything of one transaction: it stands or falls together."""

    @property
    def rows(self) -> Sequence[tuple[bytes, bytes | None]]: ...
    @property
    def outputs(self) -> Sequence[OutputLike]: ...
    @property
    def offsets(self) -> Mapping[str, int]: ...
    @property
    def counts(self) -> Mapping[tuple[str, ...], int]: ...
    @property
    def consecutive_rejects(self) -> int: ...


class ShardProcessor(Protocol):
    """One shard's decisions. All calls come from one task, never at once; an exception from any of them is a bug."""

    @property
    def merged(self) -> int:
        """The instant (microseconds since 1970 UTC) up to which every input has been applied."""

    @property
    def read_up_to(self) -> Mapping[str, int]:
        """By input: the offset that comes next, as its changelog says; only of inputs that it knows."""

    @property
    def applied(self) -> Mapping[str, Fingerprint]:
        """By input: the record just before that offset, where its changelog knows it."""

    @property
    def catalogue_number(self) -> int:
        """Number of the published catalogue in effect; 0 = none yet."""

    @property
    def pending_timers(self) -> int: ...

    @property
    def rows_held(self) -> int: ...

    def restore(self, key: bytes, value: bytes | None) -> None: ...
    def restored(self) -> None: ...
    def feed(self, input: str, records: Sequence[Record], position: int) -> None: ...
    def room(self, input: str) -> int: ...
    def look(self, now: int, ends: Mapping[str, int]) -> None: ...
    def offer(self, number: int, effective_at: int, catalogue: Catalogue | str) -> None: ...
    def take(self, limit: int) -> BatchLike | None: ...


ProcessorFactory = Callable[[int], ShardProcessor]
"""Makes the processor of a shard, given the shard's number."""
