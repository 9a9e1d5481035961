"""Rules that are published while workers run, on a real Kafka: whole or not at all, by one at a time, and taken up by
all shards at the same instant.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, STDOUT
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from app import clock, rulebook
from app.core.catalogue_file import PAUSES
from app.publications import topic as publishing
from app.publications.record import ALL, Publication, encode, key
from app.settings import Settings
from app.topics import RULES, create_topics, physical
from tests.catalogues import THREE
from tests.cli.shop import NUDGE, THANKS, shop
from tests.faults import rules as scene
from tests.faults.stage import Stage
from tests.kafka.harness import ROOT, Worker, environment, until, until_known

from .conftest import ConsumeAll, Kafka, MakeSettings, Produce, Start

pytestmark = pytest.mark.kafka


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "rules").mkdir()
    return shop(tmp_path / "rules")


async def rules(settings: Settings, *arguments: object) -> tuple[int, str]:
    return await asyncio.to_thread(scene.lifecycle, settings, "rules", *arguments)


async def said(settings: Settings, *arguments: object) -> str:
    code, text = await rules(settings, *arguments)
    assert code == 0, text
    return text


def event(kind: str, user: str, at: str, **fields: object) -> tuple[bytes, bytes]:
    body = {"event_id": f"{kind}-{user}-{at}", "type": kind, "user_id": user, "occurred_at": at, **fields}
    return user.encode(), orjson.dumps(body)


def clock_at(at: str) -> tuple[None, bytes]:
    return None, orjson.dumps({"type": "ClockAdvanced", "occurred_at": at})


def on_shards(worker: Worker, number: int) -> Callable[[], bool]:
    """Whether all open shards of a worker are at this number."""

    def check() -> bool:
        found = re.findall(r'^lifecycle_catalogue\{shard="\d+"\} (\S+)$', worker.get("metrics")[1], re.M)
        return bool(found) and {float(one) for one in found} == {number}

    return check


# -- the first one


async def test_the_first_worker_publishes_its_rules_and_the_others_run_those_whatever_they_came_with(
    make_settings: MakeSettings, start: Start, directory: Path
) -> None:
    settings = await make_settings(inputs="orders", partitions=2)
    assert "Nothing is published yet" in await said(settings, "published")
    first, other = start(settings, "first"), start(settings, "other")
    await asyncio.gather(first.ready(), other.ready())
    [only] = await publishing.read(settings)
    assert (only.number, only.effective_at, only.paused) == (1, None, {})
    assert only.files == rulebook.texts(THREE)
    late = start(settings, "late", rules=directory)
    await late.ready()
    assert await publishing.read(settings) == [only]
    assert f"The rules of {directory} are not the published ones; those are used (number 1)" in late.log()
    assert "are not the published ones" not in first.log() + other.log()
    told = (await said(settings, "published")).splitlines()
    assert told == [
        "Number 1, in effect from the beginning:",
        "  coupon_unused, version 1", "  replenishment, version 1", "  winback, version 1",
    ]  # fmt: skip


async def test_before_any_worker_a_person_may_publish_first(
    make_settings: MakeSettings, start: Start, directory: Path
) -> None:
    settings = await make_settings(inputs="orders", partitions=1)
    code, told = await rules(settings, "publish", directory, "--effective-at", "2030-01-01T00:00:00Z")
    assert (code, "leave --effective-at out" in told) == (2, True)
    assert "Number 1 takes effect from the beginning" in await said(settings, "publish", directory)
    worker = start(settings)
    await until(on_shards(worker, 1), 20, worker.log)
    assert [p.files["nudge.yaml"] for p in await publishing.read(settings)] == [NUDGE]


# -- what is refused


async def test_what_is_refused_has_written_nothing(make_settings: MakeSettings, directory: Path) -> None:
    settings = await make_settings(inputs="orders", partitions=1, clock="wall")
    code, told = await rules(settings, "pause", "--all")
    assert (code, "Nothing is published yet" in told) == (2, True)
    await said(settings, "publish", directory)
    before = await publishing.read(settings)

    shop(directory, nudge=NUDGE.replace("CouponIssued", "CouponIsued"), thanks=THANKS.replace("reentry", "rentry"))
    code, told = await rules(settings, "publish", directory)
    assert code == 2
    assert f"{directory}/nudge.yaml:5: 'CouponIsued' is no event. Did you mean 'CouponIssued'?" in told
    assert "There is no setting 'rentry' here" in told
    assert "3 mistakes. Nothing was published." in told

    shop(directory, nudge=NUDGE.replace("10d", "11d"), thanks=THANKS)
    code, told = await rules(settings, "publish", directory)
    assert code == 2
    assert "nudge.yaml:2: Version 3 of 'nudge' was published with another meaning: raise version to 4." in told

    shop(directory)
    for arguments, sentence in (
        (["publish", directory, "--effective-at", "2026-01-01T00:00:00Z"], "is past, and shards"),
        (["publish", directory, "--effective-at", "soon"], "--effective-at: "),
        (["publish", directory, "--number", "2"], "comes next anyway"),
        (["pause", "nugde"], "There is no rule 'nugde' in what is published. Did you mean nudge?"),
        (["pause"], "Name one rule, or --all."),
        (["publish", directory / "nowhere"], "There is no such directory"),
    ):
        code, told = await rules(settings, *arguments)
        assert (code, sentence in told) == (2, True), told
    assert "Nothing differs from number 1" in await said(settings, "publish", directory)
    assert "nudge is not paused; nothing was published." in await said(settings, "resume", "nudge")
    assert "Nothing was published (--dry-run)" in await said(settings, "pause", "nudge", "--dry-run")
    assert await publishing.read(settings) == before

    events = await make_settings(inputs="orders", partitions=1, clock="events")
    await said(events, "publish", directory)
    code, told = await rules(events, "pause", "nudge")
    assert (code, "Under CLOCK=events only events say what time it is" in told) == (2, True)


async def test_of_two_who_publish_at_the_same_moment_one_wins_and_the_other_is_told(
    make_settings: MakeSettings,
) -> None:
    settings = await make_settings(inputs="orders", partitions=1)
    files, now = rulebook.texts(THREE), clock.now()
    async with publishing.publisher(settings) as slow:
        async with publishing.publisher(settings) as quick:
            await quick.write(Publication(quick.next_number, None, files, {"winback": "hold"}, now))
        with pytest.raises(publishing.Overtaken, match="Somebody else published at the same moment"):
            await slow.write(Publication(slow.next_number, None, files, {"winback": "skip"}, now))
    assert [p.paused for p in await publishing.read(settings)] == [{"winback": "hold"}]
    command = (sys.executable, "-m", "app", "rules", "pause", "--all", "--way")
    env = environment(settings)
    run = asyncio.create_subprocess_exec
    ways = [await run(*command, way, env=env, stdout=PIPE, stderr=STDOUT, cwd=ROOT) for way in PAUSES]
    ends = [(await one.communicate())[0].decode() for one in ways]
    written = [p.paused[ALL] for p in (await publishing.read(settings))[1:]]
    assert len(written) == [one.returncode for one in ways].count(0) >= 1
    for one, told in zip(ways, ends, strict=True):
        assert one.returncode == 0 or "Somebody else published at the same moment" in told, told
        assert "Future exception" not in told


# -- pauses


async def test_a_pause_takes_effect_before_what_is_to_come_and_stays_with_it(
    make_settings: MakeSettings, directory: Path
) -> None:
    settings = await make_settings(inputs="orders", partitions=1, clock="events")
    await said(settings, "publish", directory)
    shop(directory, nudge=NUDGE.replace("10d", "11d").replace("version: 3", "version: 4"))
    await said(settings, "publish", directory, "--effective-at", "2026-06-01T00:00:00Z")
    told = await said(settings, "pause", "nudge", "--effective-at", "2026-03-01T00:00:00Z")
    assert "Number 2, which was to take effect from 2026-06-01 00:00:00 UTC, is replaced." in told
    assert "Published: number 3, number 4." in told
    found = {p.number: p for p in await publishing.read(settings)}
    assert [(found[n].files["nudge.yaml"] == NUDGE, found[n].paused) for n in (3, 4)] == [
        (True, {"nudge": "hold"}), (False, {"nudge": "hold"}),
    ]  # fmt: skip
    assert found[4].effective_at == found[2].effective_at
    every = await said(settings, "pause", "--all", "--way", "expire", "--effective-at", "2026-07-01T00:00:00Z")
    assert "paused       every rule (expire)" in every
    await said(settings, "resume", "thanks", "--effective-at", "2026-07-02T00:00:00Z")
    assert (await publishing.read(settings))[-1].paused == {"nudge": "hold"}
    (directory / "nudge.yaml").unlink()
    told = await said(settings, "publish", directory, "--effective-at", "2026-07-03T00:00:00Z")
    assert "removed      nudge: its runs in flight exit" in told
    again = await said(settings, "pause", "nudge", "--way", "skip", "--effective-at", "2026-07-02T12:00:00Z")
    assert "Published: number 8, number 9." in again, "what is to come may lack the rule"
    shown = await said(settings, "published")
    assert "lifecycle_catalogue tells which number it is at" in shown


# -- workers


async def test_under_the_wall_clock_all_shards_of_all_workers_change_over_within_seconds(
    make_settings: MakeSettings, start: Start, directory: Path
) -> None:
    settings = await make_settings(inputs="orders,coupons", partitions=4, clock="wall")
    await said(settings, "publish", directory)
    workers = [start(settings, name) for name in "ab"]
    for worker in workers:
        await until(on_shards(worker, 1), 30, worker.log)
    began = clock.monotonic()
    told = await said(settings, "pause", "thanks")
    assert "Number 2 takes effect from 20" in told
    for worker in workers:
        await until(on_shards(worker, 2), 20, worker.log)
    assert clock.monotonic() - began > 4

    def changed_over() -> int:
        return sum(w.log().count("has changed over to the rules published as number 2") for w in workers)

    await until(lambda: changed_over() >= 4, 20, lambda: "".join(w.log() for w in workers))
    assert changed_over() == 4
    assert "  thanks, version 1, paused (hold)" in (await said(settings, "published")).splitlines()


async def test_a_rule_switched_on_over_existing_history_sends_nothing_for_the_past(
    make_settings: MakeSettings, start: Start, produce: Produce, consume_all: ConsumeAll, directory: Path
) -> None:
    settings = await make_settings(inputs="orders,coupons", partitions=1, clock="events")
    (directory / "nudge.yaml").unlink()
    await said(settings, "publish", directory)
    shop(directory)
    await said(settings, "publish", directory, "--effective-at", "2026-02-01T00:00:00Z")
    ends = "2026-04-30T00:00:00Z"
    coupons = [
        event("CouponIssued", "u-1", at, coupon_id=name, value="20.00", currency="CNY", expires_at=ends)
        for name, at in (("c-old", "2026-01-10T02:00:00Z"), ("c-new", "2026-02-10T02:00:00Z"))
    ]
    worker = start(settings)
    await produce(settings, "coupons", [*coupons, clock_at("2026-04-01T00:00:00Z")])
    await produce(settings, "orders", [clock_at("2026-04-01T00:00:00Z")])
    await until(lambda: worker.metric("lifecycle_triggers_total", rule="nudge") == 2, 30, worker.log)
    await until(on_shards(worker, 2), 10, worker.log)
    entries = {orjson.loads(r.value or b"")["entry"]["key"] for r in await consume_all(settings, "triggers.coupon")}
    assert entries == {"c-new"}
    assert worker.metric("lifecycle_runs_total", what="entered", rule="nudge") == 1


async def put(settings: Settings, name: bytes, value: bytes | None) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
        await producer.send_and_wait(physical(settings, RULES), key=name, value=value, partition=0)


async def test_rules_that_a_worker_cannot_load_stop_its_shards_when_they_take_effect_and_until_others_do(
    make_settings: MakeSettings, start: Start, directory: Path
) -> None:
    settings = await make_settings(inputs="orders", partitions=2, clock="wall")
    await said(settings, "publish", directory)
    worker = start(settings)
    await until(on_shards(worker, 1), 20, worker.log)
    await put(settings, b"somebody's", b"{}")
    newer, now = {**rulebook.texts(directory), "nudge.yaml": NUDGE + "dream: true\n"}, clock.now()
    await put(settings, key(2), encode(Publication(2, now + 2_592_000_000_000, newer, {}, now)))
    await until(lambda: worker.metric("lifecycle_publications_refused_total") == 1, 20, worker.log)
    assert "number 2 cannot be loaded by this worker, whose shards stop when they take effect: nudge.yaml:22" in (
        worker.log()
    )
    effective = clock.now() + 6_000_000
    await put(settings, key(3), encode(Publication(3, effective, newer, {}, now)))
    await until(lambda: worker.metric("lifecycle_publications_refused_total") == 2, 20, worker.log)
    # The answer comes before the clock is asked: on a busy machine it may be time already.
    assert "stopped" not in worker.get("ready")[1] or clock.now() >= effective
    await until(lambda: "stopped" in worker.get("ready")[1], 20, worker.log)
    assert clock.now() >= effective
    assert (
        "the rules published as number 3, which are in effect, cannot be loaded by this worker (nudge.yaml:22: There "
        "is no setting 'dream' here."
    ) in worker.get("ready")[1]
    assert "Start workers of the release that published them" in worker.get("ready")[1]
    assert worker.get("live")[0] == 200
    shop(directory, nudge=NUDGE.replace("version: 3", "version: 4"))
    await said(settings, "publish", directory)
    await asyncio.sleep(5)  # it takes effect
    worker.stop()
    worker.start()
    await until(on_shards(worker, 4), 30, worker.log)


async def test_a_record_that_nobody_can_read_stops_shards_until_a_person_publishes_anew(
    make_settings: MakeSettings, start: Start, directory: Path
) -> None:
    settings = await make_settings(inputs="orders", partitions=1, clock="wall")
    await said(settings, "publish", directory)
    worker = start(settings)
    await until(on_shards(worker, 1), 20, worker.log)
    await put(settings, key(2), b"{}")
    await until(lambda: "stopped" in worker.get("ready")[1], 20, worker.log)
    assert (
        "number 2, which are in effect, cannot be loaded by this worker (it is not written as a publication"
        in (worker.get("ready")[1])
    )
    assert "Number 2 cannot be read by this release" in await said(settings, "published")
    told = await said(settings, "pause", "nudge")
    assert "Number 2 cannot be read by this release" in told
    assert "Published: number 3." in told
    await asyncio.sleep(5)  # it takes effect
    worker.stop()
    worker.start()
    await until(on_shards(worker, 3), 30, worker.log)


async def test_a_shard_whose_rules_are_gone_from_the_topic_stops_until_a_person_publishes_above_its_number(
    make_settings: MakeSettings, start: Start, produce: Produce, directory: Path
) -> None:
    settings = await make_settings(inputs="orders", partitions=1, clock="events")
    await said(settings, "publish", directory)
    await said(settings, "pause", "thanks", "--effective-at", "2026-01-01T00:00:00Z")
    worker = start(settings)
    await produce(settings, "orders", [clock_at("2026-02-01T00:00:00Z")])
    await until(on_shards(worker, 2), 20, worker.log)
    worker.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.delete_topics([physical(settings, RULES)])
    await admin.close()
    await until_known(settings, RULES, None)
    refused = start(settings, "refused")
    assert await refused.ended() == 2
    assert "run `lifecycle topics create`" in refused.log()
    await create_topics(settings)
    worker.start()  # publishes its own as number 1
    await until(lambda: "stopped" in worker.get("ready")[1], 20, worker.log)
    assert "its rules were published as number 2, which " in worker.get("ready")[1]
    worker.stop()
    assert "Number 3 takes effect from the beginning" in await said(settings, "publish", directory, "--number", "3")
    worker.start()
    await until(on_shards(worker, 3), 20, worker.log)


@pytest.mark.timeout(900)
async def test_rules_that_change_at_full_rate_on_two_workers_which_are_killed_meanwhile_are_shown_by_counts(
    kafka: Kafka, tmp_path: Path
) -> None:
    cluster: Any = SimpleNamespace(bootstrap=kafka.bootstrap)
    async with Stage(cluster, tmp_path, "changes", 20_260_301, users=80) as stage:
        verdict = await scene.changed_under_load(stage, 2)
    assert verdict.clean, verdict.examples
    assert verdict.triggers > 1000
    print("\n".join(stage.told))
    fired = scene.fired(stage.expected)

    def count(rule: str, version: int, *when: str) -> int:
        return sum(fired[rule, version, stretch] for stretch in when or scene.STRETCHES)

    # Added: only once it is there, and then.
    assert count("thanks", 1, "at first") == 0 < count("thanks", 1, "added")
    # Changed: nothing of the new version before; runs in flight are finished under the old one, or begin anew.
    assert count("replenishment", 2, "at first", "added") == count("winback", 2, "at first", "added") == 0
    assert count("replenishment", 1, "changed") > 0 < count("replenishment", 2, "changed")
    assert count("winback", 1, "changed", "paused", "resumed", "removed") == 0 < count("winback", 2)
    assert count("at_risk", 1, "changed", "paused", "resumed", "removed") == 0 < count("at_risk", 2)
    # Paused and resumed: what came due waited, and nobody was bombarded.
    assert count("coupon_unused", 1, "paused") == 0 < count("coupon_unused", 1, "resumed")
    assert count("coupon_unused", 1, "resumed") < 3 * count("coupon_unused", 1, "changed")
    # Removed.
    assert count("second_order_nudge", 1, "removed") == 0 < count("second_order_nudge", 1, "at first")
    assert stage.expected.counts["runs", "exited", "second_order_nudge"] > 0
