"""Metrics: the processor's counts land in counters, and a scraper can read every one."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from app import metrics as module
from app.metrics import MOST_NAMES, Metrics

ROOT = Path(__file__).parents[2]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_batchs_counts_land_in_the_counters_of_their_names() -> None:
    metrics = Metrics()
    counts = {
        ("events", "OrderPaid"): 3,
        ("ignored", "unknown_type", "PageScrolled"): 2,
        ("rejects", "bad_time"): 1,
        ("triggers", "winback"): 4,
        ("decisions", "winback", "deferred"): 5,
        ("late", "OrderPaid"): 6,
        ("duplicates", "OrderPaid"): 7,
        ("runs", "ended", "winback"): 8,
        ("steps", "passed", "winback"): 9,
        ("refused_entries", "reentry", "winback"): 10,
    }
    metrics.count(Counter(counts))
    metrics.count(Counter({("events", "OrderPaid"): 1}))
    assert value(metrics, "lifecycle_events_total", type="OrderPaid") == 4
    assert value(metrics, "lifecycle_ignored_total", kind="unknown_type", type="PageScrolled") == 2
    assert value(metrics, "lifecycle_rejects_total", code="bad_time") == 1
    assert value(metrics, "lifecycle_triggers_total", rule="winback") == 4
    assert value(metrics, "lifecycle_decisions_total", rule="winback", outcome="deferred") == 5
    assert value(metrics, "lifecycle_late_events_total", type="OrderPaid") == 6
    assert value(metrics, "lifecycle_duplicate_events_total", type="OrderPaid") == 7
    assert value(metrics, "lifecycle_runs_total", what="ended", rule="winback") == 8
    assert value(metrics, "lifecycle_steps_total", what="passed", rule="winback") == 9
    assert value(metrics, "lifecycle_refused_entries_total", gate="reentry", rule="winback") == 10
    assert value(metrics, "lifecycle_unnamed_counts_total") == 0


def test_a_count_without_a_metric_shows_and_stops_nothing() -> None:
    metrics = Metrics()
    metrics.count(Counter({("surprises",): 2, ("events",): 1, ("triggers", "a", "b"): 1, ("rejects", "no_key"): 1}))
    assert value(metrics, "lifecycle_unnamed_counts_total") == 4
    assert value(metrics, "lifecycle_rejects_total", code="no_key") == 1


def test_the_core_and_the_processor_count_nothing_that_has_no_metric() -> None:
    metrics = Metrics()
    calls = [
        words
        for path in [*(ROOT / "app" / "core").rglob("*.py"), *(ROOT / "app" / "processor").rglob("*.py")]
        for words in counted(ast.parse(path.read_text()))
    ]
    assert len(calls) > 8
    for words in calls:
        assert isinstance(words[0], ast.Constant)
        key = tuple(str(word.value) if isinstance(word, ast.Constant) else "x" for word in words)
        metrics.count(Counter({key: 1}))
        assert value(metrics, "lifecycle_unnamed_counts_total") == 0, key


def counted(tree: ast.AST) -> Iterator[list[ast.expr]]:
    """The words of each `moment.tally(...)` and each `self._counts[...]`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "tally":
            yield list(node.args)
        if (
            isinstance(node, ast.Subscript)
            and ast.unparse(node.value) == "self._counts"
            and isinstance(node.slice, ast.Tuple)
        ):
            yield list(node.slice.elts)


def test_a_shard_is_open_from_its_recovery_until_it_is_given_up() -> None:
    metrics = Metrics()
    assert value(metrics, "lifecycle_shards_open") == 0
    metrics.recovery_seconds.labels("0").set(0.4)
    metrics.recovery_seconds.labels("3").set(0.2)
    assert value(metrics, "lifecycle_shards_open") == 2
    metrics.forget(0)
    assert value(metrics, "lifecycle_shards_open") == 1


def test_upstream_cannot_make_labels_without_end() -> None:
    metrics = Metrics()
    for n in range(MOST_NAMES + 50):
        metrics.count(Counter({("ignored", "unmapped", f"Type{n}" + "x" * 100): 1}))
    samples = [
        s for family in metrics.registry.collect() for s in family.samples if s.name == "lifecycle_ignored_total"
    ]
    assert len(samples) == MOST_NAMES + 1
    assert value(metrics, "lifecycle_ignored_total", kind="unmapped", type="other") == 50
    assert max(len(s.labels["type"]) for s in samples) == 64
    metrics.count(Counter({("ignored", "unmapped", "Type3" + "x" * 100): 1}))
    assert (
        max(s.value for f in metrics.registry.collect() for s in f.samples if s.name == "lifecycle_ignored_total") == 50
    )


def test_a_shard_that_moved_away_leaves_no_gauge_behind() -> None:
    metrics = Metrics()
    for shard in ("1", "11"):
        metrics.timers_pending.labels(shard).set(5)
        metrics.consumer_lag.labels(shard, "orders").set(7)
        metrics.consumer_lag.labels(shard, "logins").set(8)
    metrics.forget(1)
    assert value(metrics, "lifecycle_timers_pending", shard="1") is None
    assert value(metrics, "lifecycle_consumer_lag_records", shard="1", input="logins") is None
    assert value(metrics, "lifecycle_timers_pending", shard="11") == 5
    assert value(metrics, "lifecycle_consumer_lag_records", shard="11", input="orders") == 7


def test_forget_knows_every_gauge_that_has_a_shard() -> None:
    metrics = Metrics()
    gauges = [g for g in vars(metrics).values() if "shard" in getattr(g, "_labelnames", ())]
    assert len(gauges) == 9
    for gauge in gauges:
        gauge.labels(**dict.fromkeys(gauge._labelnames, "0")).set(1)
    metrics.forget(0)
    assert [g for g in gauges if g._metrics] == []


def test_two_workers_in_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.transaction_aborts.inc()
    assert value(other, "lifecycle_transaction_aborts_total") == 0


def test_the_exposition_can_be_read_and_says_what_each_metric_means() -> None:
    families = {f.name: f for f in text_string_to_metric_families(Metrics().exposition().decode())}
    ours = {name: family for name, family in families.items() if name.startswith("lifecycle_")}
    assert {f.type for f in ours.values()} == {"counter", "gauge", "histogram"}
    assert [name for name, family in ours.items() if not family.documentation.endswith((".", ")"))] == []


def test_above_each_metric_stand_its_type_its_unit_and_its_meaning() -> None:
    lines = Path(module.__file__).read_text().splitlines()
    defined = [
        n for n, line in enumerate(lines) if re.match(r"        self\.\w+ = (self\._(counter|gauge)|Histogram)\(", line)
    ]
    assert len(defined) > 20
    kinds = {"_counter": "counter", "_gauge": "gauge", "Histogram": "histogram"}
    for n in defined:
        kind = next(word for name, word in kinds.items() if name in lines[n].split("=")[1])
        assert re.match(rf"        # {kind}, [^:]+: .+\.$", lines[n - 1]), lines[n]


def test_nobody_else_makes_a_metric() -> None:
    makers = {
        str(path.relative_to(ROOT))
        for folder in ("app", "agents")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text().splitlines()
        if re.match(
            r"\s*(from prometheus_client import .*\b(Counter|Gauge|Histogram|Summary|Info|Enum)\b|import prometheus)",
            line,
        )
    }
    assert makers == {"app/metrics.py"}
