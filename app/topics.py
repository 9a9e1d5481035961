"""Which topics there are, how they are made, and the look at them before a worker starts.

`topics.yaml` is the data. Topics that exist are never changed: what differs is said, with the command that mends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from app.settings import Settings

REQUEST_TIMEOUT_MS = 15_000
#: How long a new topic may take to be known to the brokers.
APPEAR_TIMEOUT_S = 20.0
CHANGELOG = "changelog"
INPUT = "input"


class Spec(NamedTuple):
    """One topic as it should be."""

    logical: str
    name: str
    """As the broker knows it."""
    kind: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    why: str


class Report(NamedTuple):
    """What `create_topics` did about one topic."""

    spec: Spec
    state: Literal["created", "missing", "already there", "differs"]
    """`missing` only in a dry run: it would be created."""
    advice: tuple[str, ...] = ()
    """Sentences about what differs, with the fix."""


class TopicProblems(Exception):
    """The topics, or the way to them, are not as they must be: `problems` holds a sentence each, with the fix."""

    safe_to_log = True

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@cache
def _groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("topics.yaml").read_text(encoding="utf-8"))
    return groups


def physical(settings: Settings, logical: str) -> str:
    """The broker's name of a logical topic ("orders", "triggers.coupon", "changelog")."""
    name = f"{settings.app_id}-state-changelog" if logical == CHANGELOG else logical
    return settings.topic_prefix + name


def changelog(settings: Settings) -> str:
    """The broker's name of the state's changelog."""
    return physical(settings, CHANGELOG)


def specs(settings: Settings) -> list[Spec]:
    """Every topic of this deployment: the inputs it has, and all outputs."""
    # With three copies two must have a record before it counts; a single broker can't promise that.
    in_sync = {"min.insync.replicas": "2"} if settings.replication >= 3 else {}
    return [
        Spec(
            logical,
            physical(settings, logical),
            group["kind"],
            settings.partitions,
            settings.replication,
            {key: str(value) for key, value in group["config"].items()} | in_sync,
            group["why"],
        )
        for group in _groups()
        for logical in group["names"]
        if group["kind"] != INPUT or logical in settings.inputs
    ]


async def create_topics(settings: Settings, dry_run: bool = False) -> list[Report]:
    """Make the topics that are missing; say what differs in the others. Safe to repeat.

    Raises TopicProblems when the cluster cannot be reached or refuses.
    """
    wanted = specs(settings)
    async with _admin(settings) as admin:
        there = await _partition_counts(admin)
        configs = await _configs(admin, [spec for spec in wanted if spec.name in there])
        missing = [spec for spec in wanted if spec.name not in there]
        if missing and not dry_run:
            await _create(admin, missing)
    reports = []
    for spec in wanted:
        if spec in missing:
            reports.append(Report(spec, "missing" if dry_run else "created"))
        else:
            advice = _differences(settings, spec, there[spec.name], configs.get(spec.name, {}))
            reports.append(Report(spec, "differs" if advice else "already there", tuple(advice)))
    return reports


async def check_topics(settings: Settings) -> None:
    """Raises TopicProblems unless every topic is there with LIFECYCLE_PARTITIONS partitions."""
    async with _admin(settings) as admin:
        there = await _partition_counts(admin)
    problems = find_problems(settings, there)
    if problems:
        raise TopicProblems(problems)


def find_problems(settings: Settings, there: Mapping[str, int]) -> list[str]:
    """What is wrong with the topics of a cluster, given as name -> number of partitions."""
    wanted = specs(settings)
    problems = []
    missing = [spec.name for spec in wanted if spec.name not in there]
    if missing:
        problems.append(
            f"{_listed('Topic', missing)} on {settings.kafka_bootstrap}: run `lifecycle topics create`"
            f"{_inputs_hint(settings, missing)}."
        )
    counts = {spec.name: there[spec.name] for spec in wanted if spec.kind == INPUT and spec.name in there}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        problems.append(
            "All inputs must have the same number of partitions, or a user's events don't meet: "
            f"{told}. Copy the odd ones into new topics with the others' number, or leave them out of LIFECYCLE_INPUTS."
        )
    elif counts and set(counts.values()) != {settings.partitions}:
        problems.append(_wrong_inputs(settings, counts))
    for spec in wanted:
        if spec.kind != INPUT and spec.name in there and there[spec.name] != settings.partitions:
            problems.append(_wrong_output(settings, spec, there[spec.name]))
    return problems


def render(settings: Settings) -> str:
    """The topics as YAML, for tools that create topics themselves."""
    topics = [
        {
            "name": spec.name,
            "partitions": spec.partitions,
            "replication": spec.replication,
            "config": dict(spec.config),
        }
        for spec in specs(settings)
    ]
    return str(yaml.safe_dump({"topics": topics}, sort_keys=False))


# ---------------------------------------------------------------------------------------------------------- sentences


def _listed(noun: str, names: list[str]) -> str:
    return f"{noun} {names[0]} is missing" if len(names) == 1 else f"{noun}s {', '.join(names)} are missing"


def _inputs_hint(settings: Settings, missing: list[str]) -> str:
    inputs = {physical(settings, name) for name in settings.inputs}
    return ", or name only the inputs that exist in LIFECYCLE_INPUTS" if inputs.intersection(missing) else ""


def _wrong_inputs(settings: Settings, counts: Mapping[str, int]) -> str:
    count = next(iter(counts.values()))
    have = f"The input{'s' if len(counts) > 1 else ''} {', '.join(counts)} ha{'ve' if len(counts) > 1 else 's'}"
    return (
        f"{have} {count} partitions, but LIFECYCLE_PARTITIONS is {settings.partitions}: set LIFECYCLE_PARTITIONS="
        f"{count}. If the number was changed after users were seen, their state is in other partitions now: go back to "
        f"{settings.partitions} partitions, or start anew under another LIFECYCLE_APP_ID."
    )


def _wrong_output(settings: Settings, spec: Spec, count: int) -> str:
    fix = (
        f"it was made for {count}, and a deployment keeps its number: set LIFECYCLE_PARTITIONS={count}, or start anew "
        "under another LIFECYCLE_APP_ID"
        if spec.kind == "changelog"
        else "delete it when its content is no longer needed and run `lifecycle topics create`"
    )
    return f"Topic {spec.name} has {count} partitions, but LIFECYCLE_PARTITIONS is {settings.partitions}: {fix}."


def _differences(settings: Settings, spec: Spec, partitions: int, config: Mapping[str, str]) -> list[str]:
    advice = []
    if partitions != spec.partitions:
        wrong = _wrong_inputs(settings, {spec.name: partitions}) if spec.kind == INPUT else None
        advice.append(wrong or _wrong_output(settings, spec, partitions))
    other = {key: value for key, value in spec.config.items() if key in config and not _same(config[key], value)}
    if other:
        told = ", ".join(f"{key} is {config[key]}, not {value}" for key, value in other.items())
        change = ",".join(f"{key}={value}" for key, value in other.items())
        advice.append(
            f"{told}: keep it if that is meant, or run kafka-configs.sh --bootstrap-server {settings.kafka_bootstrap} "
            f"--alter --entity-type topics --entity-name {spec.name} --add-config {change}"
        )
    return advice


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


# -------------------------------------------------------------------------------------------------------------- admin


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[Any]:
    """An admin client; whatever goes wrong on the way to the cluster becomes a TopicProblems."""
    client = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap, request_timeout_ms=REQUEST_TIMEOUT_MS, **settings.kafka_security
    )
    try:
        await client.start()
        yield client
    except (KafkaError, OSError, TimeoutError) as error:
        raise TopicProblems([_unreachable(settings, error)]) from error
    finally:
        await client.close()


def _unreachable(settings: Settings, error: Exception) -> str:
    start = "" if settings.bootstrap_given else " Start the embedded one with `lifecycle kafka up`, or"
    set_it = "set LIFECYCLE_KAFKA_BOOTSTRAP" if not settings.bootstrap_given else " Correct LIFECYCLE_KAFKA_BOOTSTRAP"
    reason = type(error).__name__ if not str(error) else f"{type(error).__name__}: {str(error).splitlines()[0]}"
    security = ", and the LIFECYCLE_KAFKA_SECURITY_ settings" if settings.kafka_security else ""
    return (
        f"No Kafka can be reached at {settings.kafka_bootstrap} ({reason[:200].rstrip('.')}).{start} {set_it.strip()} "
        f"to the cluster's host:port{security}."
    )


async def _partition_counts(admin: Any) -> dict[str, int]:
    # All topics: asked for one by name that doesn't exist, a broker may create it.
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


async def _configs(admin: Any, wanted: list[Spec]) -> dict[str, dict[str, str]]:
    if not wanted:
        return {}
    keys = [ConfigResource(ConfigResourceType.TOPIC, spec.name, dict.fromkeys(spec.config, "")) for spec in wanted]
    found: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(keys):
        for resource in response.to_object()["resources"]:
            if resource["error_code"] == 0:
                found[resource["resource_name"]] = {
                    entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]
                }
    return found


async def _create(admin: Any, missing: list[Spec]) -> None:
    response = await admin.create_topics(
        [NewTopic(s.name, s.partitions, s.replication, topic_configs=dict(s.config)) for s in missing],
        timeout_ms=REQUEST_TIMEOUT_MS,
    )
    problems = []
    for topic in response.to_object()["topic_errors"]:
        # Somebody else may have been quicker.
        if topic["error_code"] and for_code(topic["error_code"]).__name__ != "TopicAlreadyExistsError":
            problems.append(_refused(topic["topic"], topic["error_code"], topic.get("error_message"), missing))
    if problems:
        raise TopicProblems(list(dict.fromkeys(problems)))
    await _appear(admin, {spec.name for spec in missing})


def _refused(name: str, code: int, message: str | None, missing: Iterable[Spec]) -> str:
    error = for_code(code).__name__
    if error == "InvalidReplicationFactorError":
        copies = next(iter(missing)).replication
        return (
            f"The cluster has too few brokers for {copies} copies of each topic: set LIFECYCLE_REPLICATION to at most "
            "the number of its brokers (1 for a single one)."
        )
    if error.endswith("AuthorizationFailedError"):
        return f"The cluster does not let this user create topics: grant it CREATE, or have {name} created for you."
    return f"Topic {name} was refused ({error}: {(message or 'no reason given').rstrip('.')})."


async def _appear(admin: Any, names: set[str]) -> None:
    """Return when every new topic has its leaders, so that the next client doesn't stumble over it."""
    async with asyncio.timeout(APPEAR_TIMEOUT_S):
        while True:
            ready = {
                topic["topic"]
                for topic in await admin.describe_topics()
                if topic["partitions"] and all(p["leader"] >= 0 for p in topic["partitions"])
            }
            if names <= ready:
                return
            await asyncio.sleep(0.05)
