"""Every metric of the project: its type, its unit and its meaning stand above its name, and nowhere else is one made.

No label carries a user. Names end in their unit; `_total` marks counters.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.process_collector import ProcessCollector

from app.processor import TRANSFERS
from app.settings import INPUTS

#: Upstream chooses the names of types we don't know: past so many of them the rest count as `other`.
MOST_NAMES: Final = 200
_LONGEST_NAME: Final = 64

_BATCH_EVENTS: Final = (1, 5, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000)
_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


# A `_created` series beside every counter says nothing that a scraper keeps.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """All metrics of one worker, in `registry`. A gauge with a shard lives from the shard's opening to `forget`."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._names: dict[str, set[str]] = {}
        self._define_counters()
        self._define_gauges()
        self._define_histograms()
        self._counters: Mapping[str, Counter] = {
            "events": self.events,
            "ignored": self.ignored,
            "rejects": self.rejects,
            "triggers": self.triggers,
            "decisions": self.decisions,
            "gates": self.gates,
            "late": self.late_events,
            "duplicates": self.duplicates,
            "refused_entries": self.refused_entries,
            "runs": self.runs,
            "steps": self.steps,
            "stages": self.stages,
            "transfers": self.transfers,
            "shed": self.rows_shed,
        }

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"lifecycle_{name}_total", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"lifecycle_{name}", meaning, labels, registry=self.registry)

    def _define_counters(self) -> None:
        # counter, events: read, valid and handed to the core, by type.
        self.events = self._counter("events", "Events applied, by type.", "type")
        # counter, messages: not ours to act on, by why (unknown_type, anonymous, unmapped) and by the type they name.
        self.ignored = self._counter("ignored", "Messages counted and ignored, by kind and type.", "kind", "type")
        # counter, messages: sent to the dead-letter topic, by reason code.
        self.rejects = self._counter("rejects", "Messages sent to dead-letters, by reason code.", "code")
        # counter, triggers: written to a trigger topic, by rule.
        self.triggers = self._counter("triggers", "Triggers written, by rule.", "rule")
        # counter, decisions: written to the decisions topic, by rule and outcome.
        self.decisions = self._counter("decisions", "Decisions written, by rule and outcome.", "rule", "outcome")
        # counter, objections: candidates that a gate held or dropped, by gate and outcome.
        self.gates = self._counter("gates", "Candidates that a gate held or dropped, by outcome.", "gate", "outcome")
        # counter, events: older than the newest one applied to their user, by type. Applied where they belong.
        self.late_events = self._counter("late_events", "Events that came late, by type.", "type")
        # counter, events: whose event id the user's row already knew, by type; they changed nothing.
        self.duplicates = self._counter("duplicate_events", "Events seen before, by type.", "type")
        # counter, runs: of a rule, by what happened: entered, ended, expired, exited, taken_back, revived.
        self.runs = self._counter("runs", "Runs of rules, by what happened and rule.", "what", "rule")
        # counter, entries: refused by re-entry (asked before the rule's own condition) or the start policy, by rule.
        self.refused_entries = self._counter(
            "refused_entries", "Entries that re-entry or the start policy refused, by rule.", "gate", "rule"
        )
        # counter, steps: of runs, passed over: before_start = due before the rule may send, passed = when it was past.
        self.steps = self._counter("steps", "Steps of runs that were passed over, by rule.", "what", "rule")
        # counter, moves: of users into a life stage.
        self.stages = self._counter("stages", "Moves of users between life stages, by the stage entered.", "to")
        # counter, messages: of merged accounts, by what became of them: sent, absorbed, passed_on, dropped, forgotten.
        self.transfers = self._counter("transfers", "What was said of merged accounts, by what became of it.", "what")
        # counter, rows: that grew too large and let go of their oldest detail, by what made them grow: event, merge.
        self.rows_shed = self._counter("rows_shed", "Rows that let go of detail to fit, by what made them grow.", "why")
        # counter, items: counted by the processor under a name this file does not know; above 0 it is a defect.
        self.unnamed_counts = self._counter("unnamed_counts", "Counts without a metric (a defect when above 0).")
        # counter, transactions: aborted or given up; the shard was opened again from its changelog.
        self.transaction_aborts = self._counter("transaction_aborts", "Kafka transactions that did not commit.")
        # counter, publications: of rules, that this worker could not load; shards that need one stop.
        self.publications_refused = self._counter("publications_refused", "Published rules that could not be loaded.")
        # counter, times: the retention of an input overtook us and records were gone before they were read.
        self.offsets_out_of_range = self._counter(
            "offsets_out_of_range",
            "Places to read on that are gone: records lost to retention, or a topic made anew.",
            "input",
        )
        for name in (*INPUTS, TRANSFERS):  # there from the start, so that an alert sees the first one as an increase
            self.offsets_out_of_range.labels(name)

    def _define_gauges(self) -> None:
        # gauge, shards: open in this worker: restored and applying events.
        self.shards_open = self._gauge("shards_open", "Shards open in this worker.")
        self.shards_open.set_function(lambda: sum(len(family.samples) for family in self.recovery_seconds.collect()))
        # gauge, timers: waiting in the rows of a shard.
        self.timers_pending = self._gauge("timers_pending", "Timers waiting.", "shard")
        # gauge, rows: users that a shard holds in memory.
        self.rows_held = self._gauge("rows_held", "User rows held in memory.", "shard")
        # gauge, seconds since 1970 (UTC): the instant up to which all inputs of a shard have been applied.
        self.merged_time = self._gauge("merged_time_seconds", "Instant up to which all inputs are applied.", "shard")
        # gauge, records: in Kafka and not yet applied, per shard and input.
        self.consumer_lag = self._gauge("consumer_lag_records", "Records not yet applied.", "shard", "input")
        # gauge, messages: rejected in a shard since the last good one. High: an upstream service broke.
        self.consecutive_rejects = self._gauge("consecutive_rejects", "Rejected messages in a row.", "shard")
        # gauge, seconds: how long an open upstream transaction has kept us from an input's newest records; 0 = none.
        self.hanging_transaction = self._gauge(
            "hanging_transaction_seconds", "Age of an upstream transaction that holds readers back.", "shard", "input"
        )
        # gauge, number: of the published catalogue in effect in a shard.
        self.catalogue = self._gauge("catalogue", "Number of the published rules in effect.", "shard")
        # gauge, number: the latest one that this worker has read, whether or not it is in effect yet.
        self.published = self._gauge("published", "Latest number of published rules known to this worker.")
        # gauge, seconds: how long the last opening of a shard took, changelog read included.
        self.recovery_seconds = self._gauge("recovery_seconds", "Duration of a shard's last opening.", "shard")
        # gauge, records: how many changelog records that opening read.
        self.recovery_records = self._gauge("recovery_records", "Changelog records read at the last opening.", "shard")

    def _define_histograms(self) -> None:
        # histogram, events and timers: in one transaction.
        self.batch_events = Histogram(
            "lifecycle_batch_events", "Events and timers in one batch.", buckets=_BATCH_EVENTS, registry=self.registry
        )
        # histogram, seconds: from the start of a batch to its transaction's commit.
        self.batch_seconds = Histogram(
            "lifecycle_batch_seconds", "Duration of a batch, commit included.", buckets=_SECONDS, registry=self.registry
        )

    def count(self, counts: Counts[tuple[str, ...]]) -> None:
        """Add a shard's counts of a batch (app.processor.Batch.counts): the first word names the metric, the others its
        labels.

        Call it when the batch's transaction is committed. A name unknown here is never an error in production: it
        shows in `lifecycle_unnamed_counts_total`.
        """
        for (kind, *labels), times in counts.items():
            counter = self._counters.get(kind)
            if counter is None or len(labels) != len(counter._labelnames):
                self.unnamed_counts.inc(times)
                continue
            bounded = (self._bounded(f"{kind}.{place}", label) for place, label in enumerate(labels))
            counter.labels(*bounded).inc(times)

    def _bounded(self, place: str, label: str) -> str:
        names = self._names.setdefault(place, set())
        name = label[:_LONGEST_NAME]
        if name in names or len(names) < MOST_NAMES:
            names.add(name)
            return name
        return "other"

    def forget(self, shard: int) -> None:
        """Drop the gauges of a shard that this worker no longer has."""
        for gauge in (
            self.timers_pending,
            self.rows_held,
            self.merged_time,
            self.consumer_lag,
            self.consecutive_rejects,
            self.hanging_transaction,
            self.catalogue,
            self.recovery_seconds,
            self.recovery_records,
        ):
            gauge.remove_by_labels({"shard": str(shard)})

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)
