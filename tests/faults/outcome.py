"""What a disturbed run left in Kafka, beside what an undisturbed one must have left: the same logs, straight through
the processor, without Kafka, kills or batches cut short.

Everything is read as a careful consumer reads it: committed records only. Under CLOCK=events even the order and the
bytes of each partition must be the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from app import rulebook
from app.core.row import decode, encode
from app.main import build_plan
from app.processor import META_KEY, TRANSFERS, Processor, Record
from app.publications.record import Loader, Publication
from app.settings import Settings
from app.topics import CHANGELOG, INPUT, RULES, physical, specs
from tests.kafka.harness import ends

Place = tuple[str, int]
"""A logical topic and a partition."""
Logs = Mapping[Place, Sequence["Written"]]


class Written(NamedTuple):
    """A record as it is in Kafka, or would be."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int = 0

    @property
    def content(self) -> tuple[object, ...]:
        """All that must be the same."""
        return self.key, self.value, self.headers

    def header(self, name: str) -> str:
        return dict(self.headers).get(name, b"").decode()


class Left(NamedTuple):
    """What is there in the end: the rows, and the records of each output topic and partition in order."""

    rows: Mapping[tuple[int, bytes], object]
    outputs: Logs
    counts: Mapping[tuple[str, ...], int] = MappingProxyType({})
    """What was counted, by the labels of the metrics; only the undisturbed run knows."""


@dataclass
class Verdict:
    """How what was found differs from the undisturbed run; all zero is the promise."""

    triggers: int = 0
    decisions: int = 0
    missing: int = 0
    """Ids of triggers, retractions and decisions that are not there."""
    twice: int = 0
    """Times that an id is there once more than it should be."""
    early: int = 0
    """Decided before it was due, before the undisturbed run decided it, or never by that: its end was published."""
    stale: int = 0
    """Decided after its own expiry, or later than the undisturbed run decided it."""
    other: int = 0
    """Rows, dead letters, contents or orders that differ."""
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.missing or self.twice or self.early or self.stale or self.other)

    def note(self, what: str, count: int, example: object) -> None:
        """Count something that is wrong, and keep the first few examples."""
        if count:
            setattr(self, what, getattr(self, what) + count)
            if len(self.examples) < 12:
                self.examples.append(f"{what}: {example}"[:600])

    def __add__(self, other: Verdict) -> Verdict:
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__}
        return Verdict(**sums)


async def read(
    settings: Settings, topics: Iterable[str], isolation: str = "read_committed"
) -> dict[Place, list[Written]]:
    """All records of these logical topics up to now."""
    names = {physical(settings, topic): topic for topic in topics}
    tps = [TopicPartition(name, p) for name in names for p in range(settings.partitions)]
    found: dict[Place, list[Written]] = {(names[tp.topic], tp.partition): [] for tp in tps}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, isolation_level=isolation, enable_auto_commit=False,
        auto_offset_reset="earliest", request_timeout_ms=60_000,
    )  # fmt: skip
    async with consumer:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        committed = isolation == "read_committed"
        up_to = await (ends(consumer, settings, tps) if committed else consumer.end_offsets(tps))
        waiting = list(tps)
        while waiting := [tp for tp in waiting if await consumer.position(tp) < up_to[tp]]:
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                place = found[names[tp.topic], tp.partition]
                place += [
                    Written(r.offset, r.key, r.value, tuple(r.headers), r.timestamp)
                    for r in records
                    if r.offset < up_to[tp]
                ]
    return found


def output_topics(settings: Settings) -> list[str]:
    """The logical names of all topics that workers write, the changelog left out."""
    return [spec.logical for spec in specs(settings) if spec.kind not in (INPUT, CHANGELOG, RULES)]


async def left_by(settings: Settings, isolation: str = "read_committed") -> Left:
    """What the workers have written up to now."""
    found = await read(settings, [*output_topics(settings), CHANGELOG], isolation)
    rows: dict[tuple[int, bytes], object] = {}
    for p in range(settings.partitions):
        for record in found.pop((CHANGELOG, p)):
            if record.key is not None:
                _keep(rows, p, record.key, record.value)
    return Left(rows, found)


def undisturbed(settings: Settings, inputs: Logs, published: Iterable[Publication] = ()) -> Left:
    """What one run over these logs without any disturbance leaves, under the rules that were published (default: the
    settings' own, as the first worker publishes them)."""
    plan = build_plan(settings)
    loader = Loader()
    own = Publication(1, None, rulebook.texts(settings.rules), {}, 0)
    offers = [loader.add(publication) for publication in published or (own,)]
    rows: dict[tuple[int, bytes], object] = {}
    outputs: dict[Place, list[Written]] = {
        (topic, p): [] for topic in output_topics(settings) for p in range(settings.partitions)
    }
    counts: Counter[tuple[str, ...]] = Counter()
    for p in range(settings.partitions):
        processor = Processor(plan, p)
        processor.restored()
        for publication, catalogue, problem in offers:
            assert catalogue is not None, problem
            processor.offer(publication.number, publication.since, catalogue)
        for name in plan.inputs:
            log = [Record(r.offset, r.timestamp_ms, r.key, r.value) for r in inputs[name, p]]
            processor.feed(name, log, log[-1].offset + 1 if log else 0)
        processor.feed(TRANSFERS, (), 0)  # nobody is merged in these runs
        while (batch := processor.take(10_000)) is not None:
            counts.update(batch.counts)
            for key, value in batch.rows:
                _keep(rows, p, key, value)
            for out in batch.outputs:
                outputs[out.topic, p].append(Written(-1, out.key, out.value, out.headers))
    return Left(rows, outputs, counts)


def _keep(rows: dict[tuple[int, bytes], object], partition: int, key: bytes, value: bytes | None) -> None:
    if value is None:
        rows.pop((partition, key), None)
    elif key == META_KEY:  # decoded: its maps are filled in the order in which things were read
        rows[partition, key] = msgspec.msgpack.decode(value)
    else:
        rows[partition, key] = value


def in_version(left: Left, version: int) -> Left:
    """The same, with the rows as a row version has them: what only later ones know is left out."""
    rows = {
        place: encode(decode(row), version) if isinstance(row, bytes) and not place[1].startswith(b"\x00") else row
        for place, row in left.rows.items()
    }
    return Left(rows, left.outputs)


def compare(wanted: Left, found: Left) -> Verdict:
    """The verdict, with a few examples of what is wrong."""
    verdict = Verdict()
    _compare_rows(wanted, found, verdict)
    for place, records in wanted.outputs.items():
        if place[0].startswith("triggers.") or place[0] == "decisions":
            _compare_ids(place, records, found.outputs[place], verdict)
        else:
            wrong = _first_difference(records, found.outputs[place])
            verdict.note("other", wrong is not None, f"{place}: {wrong}")
    verdict.triggers = sum(len(log) for place, log in wanted.outputs.items() if place[0].startswith("triggers."))
    verdict.decisions = sum(len(log) for place, log in wanted.outputs.items() if place[0] == "decisions")
    return verdict


def _compare_rows(wanted: Left, found: Left, verdict: Verdict) -> None:
    wrong = [key for key in wanted.rows.keys() | found.rows.keys() if wanted.rows.get(key) != found.rows.get(key)]
    if wrong:
        key = min(wrong)
        verdict.note(
            "other", len(wrong), f"row {key}: wanted {wanted.rows.get(key)!r:.250}, found {found.rows.get(key)!r:.250}"
        )


def _compare_ids(place: Place, wanted: Sequence[Written], found: Sequence[Written], verdict: Verdict) -> None:
    due = {identity(record): record for record in wanted}
    times = Counter(map(identity, found))
    missing = [key for key in due if key not in times]
    verdict.note("missing", len(missing), f"{place}: {missing[:3]}")
    twice = {key: n - 1 for key, n in times.items() if n > 1}
    verdict.note("twice", sum(twice.values()), f"{place}: {list(twice)[:3]}")
    verdict.note("twice", len(wanted) - len(due), f"{place}: the undisturbed run itself repeats an id")
    for record in found:
        judge(place, record, due.get(identity(record)), verdict)
    if not missing and not twice and len(due) == len(times):
        wrong = _first_difference(wanted, found)
        verdict.note("other", wrong is not None, f"{place}: {wrong}")


def identity(record: Written) -> str:
    """The id of a trigger, a retraction or a decision."""
    found = record.header("ce_id")
    return found or str(orjson.loads(record.value or b"{}").get("decision_id"))


def judge(place: Place, record: Written, wanted: Written | None, verdict: Verdict) -> None:
    """Whether this came too early or too late, by its own words and by what the undisturbed run did."""
    body = orjson.loads(record.value or b"{}")
    decided = _instant(body, "decided_at")
    if wanted is None:
        verdict.note("early", 1, f"{place}: the undisturbed run has no {record.value!r}")
        return
    should = _instant(orjson.loads(wanted.value or b"{}"), "decided_at")
    due, expires = _instant(body, "due_at"), _instant(body, "expires_at")
    early = (due is not None and decided < due) or decided < should
    stale = (expires is not None and expires < decided) or decided > should
    verdict.note("early", early, f"{place}: {record.value!r}, should be decided at {should}")
    verdict.note("stale", stale, f"{place}: {record.value!r}, should be decided at {should}")


def _instant(body: Mapping[str, Any], name: str) -> Any:
    return datetime.fromisoformat(body[name]) if name in body else None


def _first_difference(wanted: Sequence[Written], found: Sequence[Written]) -> str | None:
    for number, (one, other) in enumerate(zip_longest(wanted, found)):
        if one is None or other is None or one.content != other.content:
            return f"record {number} of {len(wanted)} (found {len(found)}): wanted {one!r:.200}, found {other!r:.200}"
    return None


def count_torn(committed: Left, uncommitted: Left) -> int:
    """Records of transactions that never committed: kills that hit in the middle leave some."""
    sizes: Counter[str] = defaultdict(int)  # type: ignore[assignment]
    for left, sign in ((uncommitted, 1), (committed, -1)):
        for (topic, _), log in left.outputs.items():
            sizes[topic] += sign * len(log)
    return sum(sizes.values())
