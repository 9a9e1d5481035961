"""What an event costs: the three rules of the first release and the whole catalogue, on the same purchases in one run.

A year of The Complete Journey goes through the real processor, without Kafka; the two catalogues take turns, so that
whatever else the machine does meets both. CPU time counts, not the clock on the wall. The numbers depend on the
machine; the ratio travels.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import statistics
import time
from typing import NamedTuple

from app.backtest.driver import IN_MEMORY
from app.core.rules import Catalogue
from app.main import GC_THRESHOLDS
from app.processor import Plan, Processor, Record
from app.replay.journey import load_journey
from app.rulebook import load
from schemas.codec import DecodeOptions, encode_event
from schemas.events import INPUT_TOPICS, ClockAdvanced
from schemas.instant import DAY
from tests.catalogues import THREE

BATCH = 5_000
Logs = dict[str, list[Record]]


class Cost(NamedTuple):
    """One pass over all events."""

    seconds: float
    """Of CPU."""
    outputs: int
    """Triggers, decisions and the rest."""
    digest: str
    """Of all outputs in their order."""


def record(households: int) -> tuple[Logs, int]:
    """The inputs as a worker would fetch them, with the clock once a day, and how many events there are."""
    logs: Logs = {name: [] for name in INPUT_TOPICS}
    events, today = 0, 0

    def tell(at: int) -> None:
        for log in logs.values():
            log.append(Record(len(log), at // 1000, None, encode_event(ClockAdvanced(occurred_at=at))))

    for event in load_journey(households).events():
        if event.occurred_at // DAY != today:
            if today:
                tell(event.occurred_at // DAY * DAY)
            today = event.occurred_at // DAY
        log = logs[event.input]
        log.append(Record(len(log), event.occurred_at // 1000, event.key, event.value))
        events += 1
    tell((today + 1) * DAY)
    return logs, events


def run(catalogue: Catalogue, logs: Logs) -> Cost:
    """One shard takes all of it, in batches as a worker cuts them."""
    processor = Processor(
        Plan(
            inputs=INPUT_TOPICS,
            partitions=1,
            partitioner="murmur2",
            clock="events",
            lateness=0,
            decode=DecodeOptions(),
            catalogue=catalogue,
            app_id="bench",
            erasure=IN_MEMORY,
            start="none",
        ),
        0,
    )
    processor.restored()
    for name, records in logs.items():
        processor.feed(name, records, len(records))
    outputs, digest, seconds = 0, hashlib.sha256(), 0.0
    gc.collect()
    while True:
        begun = time.process_time()
        batch = processor.take(BATCH)
        seconds += time.process_time() - begun
        if batch is None:
            return Cost(seconds, outputs, digest.hexdigest())
        outputs += len(batch.outputs)
        for output in batch.outputs:
            digest.update(repr(tuple(output)).encode())


def show(events: int, costs: dict[str, list[Cost]], rules: dict[str, int]) -> None:
    print(f"\n{'catalogue':<14} {'rules':>5} {'events':>8} {'outputs/event':>13} {'us CPU/event':>13} {'median':>7}")
    for name, each in costs.items():
        spent = [1e6 * cost.seconds / events for cost in each]
        least, median = min(spent), statistics.median(spent)
        outputs = each[0].outputs / events
        print(f"{name:<14} {rules[name]:>5} {events:>8,} {outputs:>13.2f} {least:>13.1f} {median:>7.1f}")
    three, whole = ([cost.seconds for cost in each] for each in costs.values())
    print(
        f"An event costs the whole catalogue {min(whole) / min(three):.2f} times what it costs the three rules "
        f"(of the medians: {statistics.median(whole) / statistics.median(three):.2f})."
    )


def main(options: argparse.Namespace) -> int:
    before = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)  # as a worker has it
    print(f"reading the purchases of {options.households} households ...", flush=True)
    logs, events = record(options.households)
    catalogues = {"three rules": load(THREE), "the whole one": load()}
    costs: dict[str, list[Cost]] = {name: [] for name in catalogues}
    for turn in range(options.turns):
        for name, catalogue in catalogues.items():
            cost = run(catalogue, logs)
            costs[name].append(cost)
            print(
                f"  turn {turn + 1} of {options.turns}, {name}: {cost.seconds:.1f} s for {events:,} events", flush=True
            )
    gc.set_threshold(*before)
    show(events, costs, {name: len(catalogue.rules) for name, catalogue in catalogues.items()})
    same = all(len({cost.digest for cost in each}) == 1 for each in costs.values())
    if not same:
        print("WRONG: the same events and rules gave other outputs in another turn.")
    return 0 if same else 1
