"""What `lifecycle replay` puts on a real Kafka, and what `lifecycle watch` reads from one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from click.testing import CliRunner

from app import clock, committed
from app.cli import cli
from app.feed import FeedProblem, Told, triggers
from app.replay import publish as publishing
from app.replay.files import EventFile
from app.replay.journey import ENDS, load_journey
from app.replay.outgoing import EVERY_INPUT, Outgoing
from app.replay.partition import partitioner
from app.replay.publish import Progress, PublishProblem, publish
from app.settings import PREFIX, Settings
from app.topics import TopicProblem, create_topics, physical
from schemas.envelope import ce_source, encode_retraction, encode_trigger
from schemas.events import INPUT_TOPICS
from schemas.instant import DAY, SECOND, format_instant, parse_instant
from schemas.triggers import Entry, Retraction, Trigger
from tests.kafka.harness import PATIENCE, ends, until

from .conftest import ConsumeAll, Consumed, Kafka, MakeSettings

pytestmark = pytest.mark.kafka

FIRST = parse_instant("2026-03-01T10:00:00Z")


def login(user: str, at: int) -> Outgoing:
    event = {
        "event_id": f"{user}-{at}",
        "type": "UserLoggedIn",
        "user_id": user,
        "occurred_at": format_instant(at, UTC),
    }
    return Outgoing(at, "logins", user.encode(), orjson.dumps(event))


def clock_of(record: Consumed) -> int | None:
    """The instant of a ClockAdvanced; None for every other record."""
    event = orjson.loads(record.value or b"{}")
    return parse_instant(event["occurred_at"]) if event.get("type") == "ClockAdvanced" else None


async def by_partition(consume_all: ConsumeAll, settings: Settings, name: str) -> dict[int, list[Consumed]]:
    found: dict[int, list[Consumed]] = {number: [] for number in range(settings.partitions)}
    for record in await consume_all(settings, name):
        found[record.partition].append(record)
    return found


async def test_every_partition_of_every_input_hears_of_each_event_day_and_of_the_end(
    make_settings: MakeSettings, consume_all: ConsumeAll
) -> None:
    settings = await make_settings(partitions=3)
    days = [FIRST, FIRST + DAY, FIRST + 5 * DAY]
    until = FIRST + 9 * DAY
    await publish([login("u-1", at) for at in days], settings, until=until)
    midnights = [at // DAY * DAY for at in days[1:]]
    for name in INPUT_TOPICS:
        for records in (await by_partition(consume_all, settings, name)).values():
            clocks = [at for record in records if (at := clock_of(record)) is not None]
            assert clocks == [*midnights, until]
            assert all(record.key is None for record in records if clock_of(record) is not None)


async def test_nothing_older_follows_a_clock_and_the_last_one_is_after_the_last_event(
    make_settings: MakeSettings, consume_all: ConsumeAll
) -> None:
    settings = await make_settings(partitions=2)
    journey = load_journey(3)
    done = await publish(journey.events(), settings)
    last = done.reached
    assert last is not None
    for name in INPUT_TOPICS:
        for records in (await by_partition(consume_all, settings, name)).values():
            times = [parse_instant(orjson.loads(record.value or b"")["occurred_at"]) for record in records]
            assert times == sorted(times)
            end = clock_of(records[-1])
            assert end is not None
            assert end > last


async def test_all_events_arrive_once_unchanged_in_the_partition_of_their_user(
    make_settings: MakeSettings, consume_all: ConsumeAll
) -> None:
    settings = await make_settings(partitions=4)
    events = list(load_journey(6).events())
    seen: list[int] = []
    before = clock.now() // 1000
    done = await publish(events, settings, until=ENDS, progress=lambda p: seen.append(p.events))
    after = clock.now() // 1000
    assert done.events == len(events) == seen[-1]
    where = partitioner("murmur2", 4)
    for name in INPUT_TOPICS:
        wanted = [event for event in events if event.input == name]
        for number, records in (await by_partition(consume_all, settings, name)).items():
            found = [(record.key, record.value) for record in records if clock_of(record) is None]
            assert found == [(e.key, e.value) for e in wanted if e.key is not None and where(e.key) == number]
            # The present, not 2017: or Kafka would delete the records as too old.
            assert all(before <= record.timestamp_ms <= after for record in records)


async def test_a_shop_on_crc32_gets_its_users_where_its_own_clients_put_them(
    make_settings: MakeSettings, consume_all: ConsumeAll
) -> None:
    settings = await make_settings(partitions=5, partitioner="crc32")
    users = [f"u-{n}" for n in range(20)]
    await publish([login(user, FIRST) for user in users], settings)
    where = partitioner("crc32", 5)
    found = {r.key: r.partition for r in await consume_all(settings, "logins") if r.key}
    assert found == {user.encode(): where(user.encode()) for user in users}


async def test_events_for_inputs_that_the_shop_has_not_are_counted_and_left_out(
    make_settings: MakeSettings, consume_all: ConsumeAll
) -> None:
    settings = await make_settings(inputs="orders,logins", partitions=1)
    done = await publish([login("u-1", FIRST), Outgoing(FIRST, "browse", b"u-1", b"{}")], settings)
    assert (done.events, done.left_out) == (1, {"browse": 1})


async def test_a_clock_in_the_stream_goes_to_every_partition_of_every_input(
    make_settings: MakeSettings, consume_all: ConsumeAll
) -> None:
    settings = await make_settings(partitions=2)
    at = FIRST + 3 * SECOND
    value = orjson.dumps({"type": "ClockAdvanced", "occurred_at": format_instant(at, UTC)})
    await publish([login("u-1", FIRST), Outgoing(at, EVERY_INPUT, None, value)], settings)
    for name in INPUT_TOPICS:
        for records in (await by_partition(consume_all, settings, name)).values():
            clocks = [found for record in records if (found := clock_of(record)) is not None]
            assert clocks[0] == at
            assert clocks[1] > at


async def test_a_bad_line_of_a_file_arrives_as_it_is(
    make_settings: MakeSettings, consume_all: ConsumeAll, tmp_path: Path
) -> None:
    settings = await make_settings(partitions=1)
    path = tmp_path / "events.jsonl"
    good, bad = login("u-1", FIRST).value or b"", b'{"type": "UserLoggedIn", "occurred_at": "soon", "user_id": 7}'
    path.write_bytes(b"\n".join([good, bad, b"{"]))
    await publish(EventFile(path, topic="logins").events(), settings)
    values = [r.value for r in await consume_all(settings, "logins") if r.key or r.value in (bad, b"{")]
    assert values == [good, bad, b"{"]


async def test_a_file_with_nothing_but_bad_lines_does_not_set_the_clock_to_1970(
    make_settings: MakeSettings, consume_all: ConsumeAll
) -> None:
    settings = await make_settings(partitions=1)
    await publish([Outgoing(0, "logins", None, b"{")], settings)
    assert [record.value for record in await consume_all(settings, "logins")] == [b"{"]


@pytest.mark.parametrize("time", ["wall", "events"])
async def test_no_clock_lies_in_the_future_where_workers_would_refuse_it(
    make_settings: MakeSettings, consume_all: ConsumeAll, tmp_path: Path, time: str
) -> None:
    settings = await make_settings(partitions=2, clock=time)
    ahead = clock.now() + 46 * DAY
    path = tmp_path / "events.jsonl"
    events = [login("u-1", at).value or b"" for at in (FIRST, ahead, ahead + 3 * DAY)]
    path.write_bytes(b"\n".join(events))
    done = await publish(EventFile(path).events(), settings, until=ahead + 9 * DAY)
    assert (done.events, done.ahead) == (3, 2)
    for name in INPUT_TOPICS:
        for records in (await by_partition(consume_all, settings, name)).values():
            assert [at for record in records if (at := clock_of(record)) is not None] == [FIRST + 1_000]

    env = {"TEST_KAFKA_BOOTSTRAP": None, **environment(settings), "LIFECYCLE_PARTITIONS": "2", "LIFECYCLE_CLOCK": time}
    path.write_bytes(events[1])
    command = ["replay", str(path), "--until", format_instant(ahead + DAY, UTC)]
    said = await asyncio.to_thread(CliRunner().invoke, cli, command, env=env)
    assert said.exit_code == 0, said.output
    assert "published 1 event (" in said.stderr
    assert "1 event in the future (by more than LIFECYCLE_CLOCK_SKEW): the worker refuses" in said.stderr
    assert "Time stands at the last event of before now, not at --until" in said.stderr
    path.write_bytes(events[0])
    said = await asyncio.to_thread(CliRunner().invoke, cli, command[:2], env=env)
    assert "in the future" not in said.stderr


async def test_unsorted_events_are_refused_before_they_do_harm(make_settings: MakeSettings) -> None:
    settings = await make_settings(partitions=1)
    with pytest.raises(ValueError, match="not in time order"):
        await publish([login("u-1", FIRST), login("u-1", FIRST - 1)], settings)


async def test_missing_topics_are_a_sentence_and_nothing_is_published(
    make_settings: MakeSettings,
) -> None:
    settings = await make_settings(create=False)
    with pytest.raises(TopicProblem, match="lifecycle topics create"):
        await publish([login("u-1", FIRST)], settings)


async def test_another_number_of_partitions_is_a_sentence(make_settings: MakeSettings) -> None:
    settings = await make_settings(partitions=2)
    with pytest.raises(TopicProblem, match="LIFECYCLE_PARTITIONS"):
        await publish([login("u-1", FIRST)], replace(settings, partitions=3))


async def test_brokers_that_stop_answering_are_a_sentence(
    kafka: Kafka, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kafka.cluster is None:
        pytest.skip("the broker is not ours to freeze")
    cluster = kafka.cluster
    settings = await make_settings(partitions=1)
    monkeypatch.setattr(publishing, "_PATIENCE_S", 1.0)

    def events() -> Iterator[Outgoing]:
        for n in range(20_000):
            if n == 10_000:
                cluster.freeze(1)
            yield login("u-1", FIRST + n * SECOND)

    try:
        with pytest.raises(PublishProblem, match="stopped answering"):
            await publish(events(), settings)
    finally:
        cluster.thaw(1)
    await until(lambda: makes_topics(make_settings), 30)


async def makes_topics(make_settings: MakeSettings) -> bool:
    """A broker that was silent for longer than its session is none for a moment, when it comes back to life."""
    try:
        await make_settings(partitions=1)
    except TopicProblem:
        return False
    return True


def test_a_rate_needs_time() -> None:
    assert Progress().rate == 0
    assert Progress(events=10, seconds=2).rate == 5


# ------------------------------------------------------------------------------------------------------------- watching


def a_trigger(name: str, rule: str = "winback") -> Trigger:
    return Trigger(
        trigger_id=name, rule=rule, rule_version=1, family="winback", step=1, user_id="u-1", action="contact",
        class_="marketing", entry=Entry(kind="user", key="u-1"), run_id="r", reason=f"Because of {name}.",
        channel="push", priority=1, due_at="2026-03-01T09:00:00+08:00", decided_at="2026-03-01T09:00:01+08:00",
        not_before="2026-03-01T09:00:00+08:00", expires_at="2026-03-02T09:00:00+08:00",
    )  # fmt: skip


def a_retraction(name: str) -> Retraction:
    return Retraction(
        retraction_id=name, retracts="t-1", rule="winback", rule_version=1, family="winback", step=1, user_id="u-1",
        entry=Entry(kind="user", key="u-1"), run_id="r", reason="Bought.", decided_at="2026-03-01T09:00:01+08:00",
    )  # fmt: skip


async def send(settings: Settings, topic: str, *messages: Trigger | Retraction, commit: bool = True) -> None:
    """Write in one transaction, as a worker does."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, transactional_id=f"{settings.app_id}-t")
    async with producer:
        await producer.begin_transaction()
        for message in messages:
            encode: Any = encode_trigger if isinstance(message, Trigger) else encode_retraction
            value, headers = encode(message, ce_source(settings.app_id))
            await producer.send_and_wait(physical(settings, topic), value, key=b"u-1", headers=list(headers))
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    tps = [TopicPartition(physical(settings, topic), number) for number in range(settings.partitions)]
    async with committed.consumer(settings) as consumer:
        await ends(consumer, settings, tps)  # whoever looks from now on finds it there


async def collect(settings: Settings, count: int, from_start: bool, ready: asyncio.Event | None = None) -> list[Told]:
    found: list[Told] = []
    async with asyncio.timeout(30 * PATIENCE):
        async for told in triggers(settings, from_start=from_start):
            if ready is not None:
                ready.set()
            if told is not None:
                found.append(told)
            if len(found) >= count:
                break
    return found


async def test_only_committed_triggers_are_shown_and_retractions_are_told_apart(make_settings: MakeSettings) -> None:
    settings = await make_settings(partitions=1)
    await send(settings, "triggers.winback", a_trigger("t-0"), commit=False)
    await send(settings, "triggers.winback", a_trigger("t-1"), a_retraction("x-1"))
    found = await collect(settings, 2, from_start=True)
    assert [(told.id, told.retracted, told.rule, told.user_id) for told in found] == [
        ("t-1", False, "winback", "u-1"),
        ("x-1", True, "winback", "u-1"),
    ]


async def test_without_from_start_only_what_comes_from_now_on_is_shown(make_settings: MakeSettings) -> None:
    settings = await make_settings(partitions=2)
    await send(settings, "triggers.winback", a_trigger("old"))
    ready = asyncio.Event()
    watching = asyncio.create_task(collect(settings, 1, from_start=False, ready=ready))
    await asyncio.wait_for(ready.wait(), 20 * PATIENCE)
    await send(settings, "triggers.winback", a_trigger("new"))
    assert [told.id for told in await watching] == ["new"]


async def test_a_trigger_topic_that_appears_later_is_read_from_its_start(make_settings: MakeSettings) -> None:
    settings = await make_settings(create=False, partitions=1)
    ready = asyncio.Event()
    watching = asyncio.create_task(collect(settings, 1, from_start=False, ready=ready))
    await asyncio.wait_for(ready.wait(), 20 * PATIENCE)
    await create_topics(settings)
    await send(settings, "triggers.winback", a_trigger("t-1"))
    assert [told.id for told in await watching] == ["t-1"]


async def test_no_kafka_is_a_sentence(make_settings: MakeSettings) -> None:
    settings = await make_settings(create=False)
    with pytest.raises(FeedProblem, match=r"No Kafka answers at 127\.0\.0\.1:1: "):
        await collect(replace(settings, kafka_bootstrap="127.0.0.1:1"), 1, from_start=True)


def environment(settings: Settings) -> dict[str, str]:
    """For a command of ours: this process's, without settings of its own, and where the Kafka of the test is."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    ours = {"KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "TOPIC_PREFIX": settings.topic_prefix}
    return inherited | {PREFIX + name: value for name, value in ours.items()}


async def test_watch_prints_a_line_a_trigger_picks_by_rule_and_ends_clean_on_ctrl_c(
    make_settings: MakeSettings,
) -> None:
    settings = await make_settings(partitions=1)
    await send(settings, "triggers.winback", a_trigger("t-1"), a_trigger("t-2", rule="other"), a_retraction("x-1"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "watch", "--from-start", "--rule", "winback", "--user", "u-1",
        env=environment(settings),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    lines = [(await asyncio.wait_for(process.stdout.readline(), 30 * PATIENCE)).decode() for _ in range(2)]
    process.send_signal(signal.SIGINT)
    rest, errors = await asyncio.wait_for(process.communicate(), 20 * PATIENCE)
    shown = [
        word for word in ("2026-03-01 01:00:01 UTC", "winback", "u-1", "step 1", "push", "t-1.") if word in lines[0]
    ]
    assert len(shown) == 6, (lines, errors)
    assert "retracted" in lines[1]
    assert (process.returncode, rest) == (0, b"")
    assert b"Traceback" not in errors


async def test_watch_refuses_a_rule_that_is_none_whether_or_not_any_are_published(make_settings: MakeSettings) -> None:
    for settings in (await make_settings(partitions=1), await make_settings(create=False)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "watch", "--rule", "winbak", env=environment(settings),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, errors = await asyncio.wait_for(process.communicate(), 30 * PATIENCE)
        assert (process.returncode, out) == (2, b"")
        assert b"There is no rule 'winbak'. Did you mean winback?" in errors


async def test_watch_before_the_topics_are_made_says_how_to_make_them(make_settings: MakeSettings) -> None:
    settings = await make_settings(create=False)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "watch", env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(process.communicate(), 30 * PATIENCE)
    assert (process.returncode, out) == (1, b"")
    assert b"triggers.winback" in errors
    assert b"are missing on " in errors
    assert b"run `lifecycle topics create`." in errors
