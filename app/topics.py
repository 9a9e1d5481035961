"""Which topics there are, how they are made, and the look at them before a worker starts.

`topics.yaml` is the data. Topics that exist are never changed: what differs is said, with the command that mends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code

from app.processor import TRANSFERS
from app.settings import Settings

REQUEST_TIMEOUT_MS = 15_000
#: How long a new topic may take to be known to the brokers.
APPEAR_TIMEOUT_S = 20.0
CHANGELOG = "changelog"
INPUT = "input"
RULES = "rules"


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


#: `missing` only in a dry run: it would be created.
State = Literal["created", "missing", "already there", "differs"]


class Report(NamedTuple):
    """What `create_topics` did about one topic."""

    spec: Spec
    state: State
    advice: tuple[str, ...] = ()
    """Sentences about settings that differ, with the fix."""


class TopicProblem(Exception):
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
    own = {
        CHANGELOG: f"{settings.app_id}-state-changelog",
        RULES: f"{settings.app_id}-rules",
        TRANSFERS: f"{settings.app_id}-transfers",
    }
    return settings.topic_prefix + own.get(logical, logical)


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
            1 if group["kind"] == RULES else settings.partitions,
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

    Raises TopicProblem when the cluster cannot be reached or refuses, and, before anything is made, when topics that
    are there have another number of partitions: the new ones would be as wrong as the setting. Who makes topics at the
    same time is met as one who came before.
    """
    wanted = specs(settings)
    async with _admin(settings) as admin:
        there = await _partition_counts(admin)
        problems = _partition_problems(settings, wanted, there)
        if problems:
            raise TopicProblem(problems)
        missing = [spec for spec in wanted if spec.name not in there]
        if missing and not dry_run:
            made = await _create(admin, missing)
            if made != missing:
                # Somebody else was quicker, who may want something else: looked at as what was there before.
                missing = made
                problems = _partition_problems(settings, wanted, await _partition_counts(admin))
                if problems:
                    raise TopicProblem(problems)
        configs = await _configs(admin, [spec for spec in wanted if spec not in missing])
    reports = []
    for spec in wanted:
        if spec in missing:
            reports.append(Report(spec, "missing" if dry_run else "created"))
        else:
            advice = _differences(settings, spec, configs.get(spec.name, {}))
            reports.append(Report(spec, "differs" if advice else "already there", advice))
    return reports


async def check_topics(settings: Settings) -> None:
    """For a worker: raises TopicProblem unless every topic is there with its number of partitions."""
    await _check(settings, specs(settings))


async def check_inputs(settings: Settings) -> None:
    """For who only publishes: raises TopicProblem unless every input is there with LIFECYCLE_PARTITIONS partitions."""
    await _check(settings, [spec for spec in specs(settings) if spec.kind == INPUT])


async def check_triggers(settings: Settings) -> None:
    """For who only looks at what goes out: raises TopicProblem when there is no topic of triggers yet. Some may still
    come, with however many partitions."""
    wanted = [spec for spec in specs(settings) if spec.logical.startswith("triggers.")]
    async with _admin(settings) as admin:
        there = await _partition_counts(admin)
    if not any(spec.name in there for spec in wanted):
        raise TopicProblem(find_problems(settings, wanted, there))


async def _check(settings: Settings, wanted: list[Spec]) -> None:
    async with _admin(settings) as admin:
        there = await _partition_counts(admin)
    problems = find_problems(settings, wanted, there)
    if problems:
        raise TopicProblem(problems)


def find_problems(settings: Settings, wanted: Sequence[Spec], there: Mapping[str, int]) -> list[str]:
    """What is wrong with the topics of a cluster, given as name -> number of partitions."""
    problems = []
    missing = [spec.name for spec in wanted if spec.name not in there]
    if missing:
        problems.append(
            f"{_listed('Topic', missing)} on {settings.kafka_bootstrap}: run `lifecycle topics create`"
            f"{_inputs_hint(settings, missing)}."
        )
    return problems + _partition_problems(settings, wanted, there)


def _partition_problems(settings: Settings, wanted: Sequence[Spec], there: Mapping[str, int]) -> list[str]:
    problems = []
    counts = {spec.name: there[spec.name] for spec in wanted if spec.kind == INPUT and spec.name in there}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        problems.append(
            "All inputs must have the same number of partitions, or a user's events don't meet: "
            f"{told}. Copy the odd ones into new topics with the others' number, or leave them out of LIFECYCLE_INPUTS."
        )
    elif counts and set(counts.values()) != {settings.partitions}:
        problems.append(_wrong_inputs(settings, counts))
    outputs = [spec for spec in wanted if spec.kind not in (INPUT, RULES) and spec.name in there]
    for count in sorted({there[spec.name] for spec in outputs} - {settings.partitions}):
        problems.append(_wrong_outputs(settings, [spec for spec in outputs if there[spec.name] == count], count))
    problems += [
        f"Topic {spec.name} has {there[spec.name]} partitions and must have one, or publications have no order: delete "
        "it if it is still empty, then run `lifecycle topics create`."
        for spec in wanted
        if spec.kind == RULES and there.get(spec.name, 1) != 1
    ]
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
    head = "# Made by `lifecycle topics create --yaml`; the reasons are in app/topics.yaml.\n"
    return head + str(yaml.safe_dump({"topics": topics}, sort_keys=False))


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


def _wrong_outputs(settings: Settings, specs: list[Spec], count: int) -> str:
    told = f"Topic {specs[0].name} has" if len(specs) == 1 else f"Topics {', '.join(s.name for s in specs)} have"
    fix = f"set LIFECYCLE_PARTITIONS={count} if every input has {count}, else "
    if any(spec.kind in (CHANGELOG, TRANSFERS) for spec in specs):
        # What is known of each user is in the partition of the old number.
        fix += "go back to as many inputs' partitions, or start anew under another LIFECYCLE_APP_ID"
    else:
        fix += "delete what is no longer needed of it and run `lifecycle topics create`"
    return f"{told} {count} partitions, but LIFECYCLE_PARTITIONS is {settings.partitions}: {fix}."


def _differences(settings: Settings, spec: Spec, config: Mapping[str, str]) -> tuple[str, ...]:
    other = {key: value for key, value in spec.config.items() if key in config and not _same(config[key], value)}
    if not other:
        return ()
    told = ", ".join(f"{key} is {config[key]}, not {value}" for key, value in other.items())
    change = ",".join(f"{key}={value}" for key, value in other.items())
    sentence = (
        f"{told}: keep it if that is meant, or run kafka-configs.sh --bootstrap-server {settings.kafka_bootstrap} "
        f"--alter --entity-type topics --entity-name {spec.name} --add-config {change}"
    )
    return (sentence,)


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


# -------------------------------------------------------------------------------------------------------------- admin


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[Any]:
    """An admin client; whatever goes wrong on the way to the cluster becomes a TopicProblem."""
    client = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap, request_timeout_ms=REQUEST_TIMEOUT_MS, **settings.kafka_security
    )
    try:
        await client.start()
        yield client
    except (KafkaError, OSError, TimeoutError) as error:
        raise TopicProblem([_unreachable(settings, error)]) from error
    finally:
        await client.close()


def _unreachable(settings: Settings, error: Exception) -> str:
    # aiokafka's own words for "nobody answered" name addresses only, and hide a refused password among them.
    known = isinstance(error, KafkaConnectionError | TimeoutError)
    reason = "" if known else f" ({type(error).__name__}{f': {error}' if str(error) else ''})"
    where = f"No Kafka answers at {settings.kafka_bootstrap}{reason[:200]}."
    if not settings.bootstrap_given:
        return f"{where} Start the embedded one with `lifecycle kafka up`, or set LIFECYCLE_KAFKA_BOOTSTRAP=host:port."
    security = " and the LIFECYCLE_KAFKA_ settings of its security" if settings.kafka_security else ""
    return f"{where} Start it, or correct LIFECYCLE_KAFKA_BOOTSTRAP{security}."


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


async def _create(admin: Any, missing: list[Spec]) -> list[Spec]:
    """Those of the missing that we made: a broker hears a moment late of what others have made."""
    response = await admin.create_topics(
        [NewTopic(s.name, s.partitions, s.replication, topic_configs=dict(s.config)) for s in missing],
        timeout_ms=REQUEST_TIMEOUT_MS,
    )
    problems, others = [], set()
    for topic in response.to_object()["topic_errors"]:
        if topic["error_code"] == TopicAlreadyExistsError.errno:
            others.add(topic["topic"])
        elif topic["error_code"]:
            problems.append(_refused(topic["topic"], topic["error_code"], topic.get("error_message"), missing))
    if problems:
        raise TopicProblem(list(dict.fromkeys(problems)))
    await _appear(admin, {spec.name for spec in missing})
    return [spec for spec in missing if spec.name not in others]


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
