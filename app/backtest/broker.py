"""Kafka as far as a shard can see it, in memory: logs with offsets, and one transaction a batch, all of it or nothing.

Nothing here knows what a record means. What a batch holds becomes visible in `commit` and nowhere else, so that an
aborted one leaves no trace, as for a read-committed consumer.
"""

from __future__ import annotations

from collections import Counter

from app.processor import TRANSFERS, Batch, Output, Record

Place = tuple[str, int]
"""An input and its partition."""


class Broker:
    """The input logs, and by partition the committed offsets, the changelog and the outputs."""

    def __init__(self, inputs: tuple[str, ...], partitions: int) -> None:
        places = [(name, partition) for name in (*inputs, TRANSFERS) for partition in range(partitions)]
        self._logs: dict[Place, list[Record]] = {place: [] for place in places}
        self._ends: dict[Place, int] = dict.fromkeys(places, 0)
        self.committed: dict[Place, int] = dict.fromkeys(places, 0)
        self.changelog: list[list[tuple[bytes, bytes | None]]] = [[] for _ in range(partitions)]
        self.rows: list[dict[bytes, bytes]] = [{} for _ in range(partitions)]
        """What compaction would leave of the changelog."""
        self.outputs: list[tuple[int, Output]] = []
        """(partition, record) in the order of their commits."""
        self.counts: Counter[tuple[str, ...]] = Counter()

    def append(self, place: Place, timestamp_ms: int, key: bytes | None, value: bytes | None) -> Record:
        """Writes a record to the end of an input partition."""
        record = Record(self._ends[place], timestamp_ms, key, value)
        self._logs[place].append(record)
        self._ends[place] += 1
        return record

    def mark(self, place: Place) -> None:
        """Leaves a transaction marker: an offset that no consumer is ever given."""
        self._ends[place] += 1

    def end(self, place: Place) -> int:
        """The offset after the last record (and marker) of an input partition."""
        return self._ends[place]

    def log(self, place: Place) -> list[Record]:
        """All records of an input partition."""
        return self._logs[place]

    def read(self, place: Place, position: int, limit: int) -> tuple[list[Record], int]:
        """At most `limit` records from an offset on, and the offset to go on from; markers are passed."""
        log = self._logs[place]
        first = min(position, len(log))
        while first > 0 and log[first - 1].offset >= position:
            first -= 1
        records = log[first : first + limit]
        if first + limit >= len(log):
            return records, self._ends[place]
        return records, records[-1].offset + 1 if records else position

    def commit(self, partition: int, batch: Batch) -> None:
        """The end of a transaction: rows, outputs and offsets of a batch become visible together."""
        self.changelog[partition] += batch.rows
        for key, value in batch.rows:
            if value is None:
                self.rows[partition].pop(key, None)
            else:
                self.rows[partition][key] = value
        for output in batch.outputs:
            place = partition if output.partition is None else output.partition
            self.outputs.append((place, output))
            if output.topic == TRANSFERS:
                self.append((TRANSFERS, place), -1, output.key, output.value)
        for name, offset in batch.offsets.items():
            self.committed[name, partition] = offset
        self.counts += batch.counts
