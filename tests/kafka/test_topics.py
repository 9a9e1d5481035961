"""Topics on the real broker: made once, never changed, and a worker that finds them wrong is told how to mend them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import CliRunner, Result

from app import topics
from app.cli import cli
from app.embedded.ports import find_free
from app.settings import Settings, load_settings
from tests.kafka.harness import until_known

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]


class Admin:
    """A plain admin client on the settings' cluster."""

    def __init__(self, settings: Settings) -> None:
        self._client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)

    async def __aenter__(self) -> AIOKafkaAdminClient:
        await self._client.start()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


async def make(settings: Settings, *wanted: NewTopic) -> None:
    async with Admin(settings) as admin:
        made = (await admin.create_topics(list(wanted))).to_object()
    assert [topic["error_code"] for topic in made["topic_errors"]] == [0] * len(wanted)


async def config(settings: Settings, logical: str) -> dict[str, str]:
    async with Admin(settings) as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, topics.physical(settings, logical))
        [response] = await admin.describe_configs([resource])
    [found] = response.to_object()["resources"]
    return {entry["config_names"]: entry["config_value"] for entry in found["config_entries"]}


def lifecycle(settings: Settings, *arguments: str, **env: str) -> Result:
    given = {
        "LIFECYCLE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "LIFECYCLE_TOPIC_PREFIX": settings.topic_prefix,
        "LIFECYCLE_APP_ID": settings.app_id,
        "LIFECYCLE_PARTITIONS": str(settings.partitions),
    } | env
    return CliRunner().invoke(cli, ["topics", "create", *arguments], env=given)


async def problems(settings: Settings) -> Sequence[str]:
    with pytest.raises(topics.TopicProblem) as told:
        await topics.check_topics(settings)
    return told.value.problems


async def test_topics_are_created_once_and_a_second_time_nothing_happens(make_settings) -> None:
    settings = await make_settings(create=False, partitions=3)
    dry = await topics.create_topics(settings, dry_run=True)
    assert {report.state for report in dry} == {"missing"}
    assert len(await problems(settings)) == 1, "a dry run creates nothing"
    first = await topics.create_topics(settings)
    assert {report.state for report in first} == {"created"}
    second = await topics.create_topics(settings)
    assert {report.state for report in second} == {"already there"}
    await topics.check_topics(settings)
    names = {report.spec.name for report in first}
    assert {f"{settings.topic_prefix}{name}" for name in ("orders", "triggers.winback", "dead-letters")} <= names
    assert f"{settings.topic_prefix}{settings.app_id}-state-changelog" in names


async def test_replayed_history_outlives_its_own_age_and_the_changelog_is_compacted(
    make_settings, produce, consume_all
) -> None:
    settings = await make_settings(partitions=1)
    inputs, changelog, triggers = [await config(settings, name) for name in ("orders", "changelog", "triggers.coupon")]
    assert (inputs["retention.ms"], inputs["message.timestamp.type"]) == ("-1", "CreateTime")
    assert changelog["cleanup.policy"] == "compact"
    assert triggers["message.timestamp.type"] == "LogAppendTime", "triggers about last year are kept a week from now"
    decade_ms = 1_400_000_000_000
    await produce(settings, "orders", [(b"u", b"old", None, decade_ms)])
    [record] = await consume_all(settings, "orders")
    assert (record.key, record.value, record.timestamp_ms) == (b"u", b"old", decade_ms)


async def test_inputs_with_another_partition_count_are_refused_and_nothing_is_made(make_settings) -> None:
    settings = await make_settings(create=False, partitions=4)
    orders = topics.physical(settings, "orders")
    await make(settings, NewTopic(orders, 6, 1))
    await until_known(settings, "orders", 6)
    told = (
        f"The input {orders} has 6 partitions, but LIFECYCLE_PARTITIONS is 4: set LIFECYCLE_PARTITIONS=6. If the "
        "number was changed after users were seen, their state is in other partitions now: go back to 4 partitions, or "
        "start anew under another LIFECYCLE_APP_ID."
    )
    with pytest.raises(topics.TopicProblem) as refused:
        await topics.create_topics(settings)
    assert refused.value.problems == [told]
    missing, wrong = await problems(settings)
    assert orders not in missing.partition(" are missing")[0].split(" ", 1)[1].split(", ")
    assert missing.endswith(
        f"on {settings.kafka_bootstrap}: run `lifecycle topics create`, or name only the inputs that exist in "
        "LIFECYCLE_INPUTS."
    )
    assert wrong == told


async def test_inputs_that_disagree_are_named_with_their_numbers(make_settings) -> None:
    settings = await make_settings(partitions=2, inputs="orders,browse")
    orders, browse = (topics.physical(settings, name) for name in ("orders", "browse"))
    async with Admin(settings) as admin:
        await admin.create_partitions({browse: NewPartitions(5)})
    await until_known(settings, "browse", 5)
    [told] = await problems(settings)
    assert f"or a user's events don't meet: {orders} has 2, {browse} has 5." in told
    with pytest.raises(topics.TopicProblem, match="same number of partitions"):
        await topics.check_inputs(settings)


async def test_a_changed_setting_is_refused_and_the_changelog_tells_why(make_settings) -> None:
    settings = await make_settings(partitions=2, inputs="orders")
    changed = await make_settings(
        create=False, partitions=3, inputs="orders", app_id=settings.app_id, topic_prefix=settings.topic_prefix
    )
    inputs, outputs = await problems(changed)
    assert inputs.startswith(f"The input {settings.topic_prefix}orders has 2 partitions, but LIFECYCLE_PARTITIONS is 3")
    assert outputs.endswith(
        f"{settings.app_id}-state-changelog have 2 partitions, but LIFECYCLE_PARTITIONS is 3: set "
        "LIFECYCLE_PARTITIONS=2 if every input has 2, else go back to as many inputs' partitions, or start anew under "
        "another LIFECYCLE_APP_ID."
    )


async def test_one_missing_output_is_enough_to_be_told_but_not_for_who_only_publishes(make_settings) -> None:
    settings = await make_settings(partitions=1, inputs="orders,coupons")
    decisions = topics.physical(settings, "decisions")
    async with Admin(settings) as admin:
        await admin.delete_topics([decisions])
    await until_known(settings, "decisions", None)
    [told] = await problems(settings)
    assert told == (
        f"Topic {settings.topic_prefix}decisions is missing on {settings.kafka_bootstrap}: run `lifecycle topics "
        "create`."
    )
    await topics.check_inputs(settings)


async def test_the_topic_of_the_rules_has_one_partition_whatever_the_others_have(make_settings) -> None:
    settings = await make_settings(partitions=3)
    rules = topics.physical(settings, topics.RULES)
    async with Admin(settings) as admin:
        there = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
        assert there[rules] == 1
        await admin.create_partitions({rules: NewPartitions(2)})
    await until_known(settings, topics.RULES, 2)
    [told] = await problems(settings)
    assert told.startswith(f"Topic {rules} has 2 partitions and must have one, or publications have no order")


async def test_other_retention_is_told_with_its_command_and_left_alone(make_settings) -> None:
    settings = await make_settings(create=False, partitions=1)
    orders = topics.physical(settings, "orders")
    await make(settings, NewTopic(orders, 1, 1, topic_configs={"retention.ms": "60000"}))
    [differing] = [report for report in await topics.create_topics(settings) if report.state != "created"]
    assert (differing.spec.logical, differing.state) == ("orders", "differs")
    [advice] = differing.advice
    assert advice.startswith("retention.ms is 60000, not -1: keep it if that is meant, or run kafka-configs.sh ")
    assert advice.endswith(f"--entity-name {orders} --add-config retention.ms=-1")
    assert (await config(settings, "orders"))["retention.ms"] == "60000"
    await topics.check_topics(settings)


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker has not yet heard of any topic when it is first asked, as after somebody else has just made some."""
    counted, asked = topics._partition_counts, []

    async def late(admin: Any) -> dict[str, int]:
        asked.append(admin)
        return {} if len(asked) == 1 else await counted(admin)

    monkeypatch.setattr(topics, "_partition_counts", late)


@pytest.mark.usefixtures("unheard")
async def test_a_topic_that_somebody_else_makes_meanwhile_is_looked_at_as_one_that_was_there(make_settings) -> None:
    settings = await make_settings(create=False, partitions=1)
    await make(settings, NewTopic(topics.physical(settings, "orders"), 1, 1, topic_configs={"retention.ms": "60000"}))
    [differing] = [report for report in await topics.create_topics(settings) if report.state != "created"]
    assert (differing.spec.logical, differing.state) == ("orders", "differs")


@pytest.mark.usefixtures("unheard")
async def test_a_topic_that_somebody_else_makes_otherwise_meanwhile_is_refused(make_settings) -> None:
    settings = await make_settings(create=False, partitions=2)
    await make(settings, NewTopic(topics.physical(settings, "orders"), 3, 1))
    with pytest.raises(topics.TopicProblem) as told:
        await topics.create_topics(settings)
    # The other inputs are made by then, with the partitions that the setting says.
    [problem] = told.value.problems
    assert problem.startswith("All inputs must have the same number of partitions")


async def test_the_command_prints_a_line_a_topic(make_settings) -> None:
    settings = await make_settings(create=False, partitions=2)
    # In a thread: the command has an event loop of its own.
    dry, done, again = [await asyncio.to_thread(lifecycle, settings, *more) for more in (["--dry-run"], [], [])]
    assert [told.exit_code for told in (dry, done, again)] == [0, 0, 0]
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["topic", "partitions", "copies", "kept"]
    assert len(lines) == len(topics.specs(settings))
    assert lines[-1].split() == [
        f"{settings.topic_prefix}{settings.app_id}-rules",
        "1",
        "1",
        "every",
        "publication",
        "created",
    ]
    assert lines[0].split() == [f"{settings.topic_prefix}orders", "2", "1", "for", "ever", "created"]
    assert all(line.endswith("would be created") for line in dry.stdout.splitlines()[1:])
    assert all(line.endswith("already there") for line in again.stdout.splitlines()[1:])
    refused = await asyncio.to_thread(lifecycle, settings, LIFECYCLE_PARTITIONS="9")
    assert refused.exit_code == 1
    assert "have 2 partitions, but LIFECYCLE_PARTITIONS is 9" in refused.stderr


async def test_more_copies_than_brokers_are_refused_with_the_setting_to_change(make_settings) -> None:
    settings = await make_settings(create=False, replication=3)
    with pytest.raises(topics.TopicProblem, match=r"too few brokers for 3 copies .* set LIFECYCLE_REPLICATION to"):
        await topics.create_topics(settings)


async def test_an_unreachable_broker_is_a_sentence_and_exit_code_1() -> None:
    port = find_free(())
    named = load_settings({"LIFECYCLE_KAFKA_BOOTSTRAP": f"127.0.0.1:{port}"})
    assert await problems(named) == [
        f"No Kafka answers at 127.0.0.1:{port}. Start it, or correct LIFECYCLE_KAFKA_BOOTSTRAP."
    ]
    told = await asyncio.to_thread(lifecycle, named)
    assert told.exit_code == 1
    assert (
        told.stderr == f"Error: No Kafka answers at 127.0.0.1:{port}. Start it, or correct LIFECYCLE_KAFKA_BOOTSTRAP.\n"
    )


def test_the_topics_for_other_tools_are_those_we_create() -> None:
    production = load_settings({"LIFECYCLE_REPLICATION": "3"})
    kept = (ROOT / "deploy" / "topics.yaml").read_text(encoding="utf-8")
    assert kept == topics.render(production), (
        "LIFECYCLE_REPLICATION=3 lifecycle topics create --yaml > deploy/topics.yaml"
    )
    assert all(spec.config["min.insync.replicas"] == "2" for spec in topics.specs(production))
