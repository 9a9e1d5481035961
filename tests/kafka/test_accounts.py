"""Accounts that become one, on a real Kafka: exactly once between shards, whatever is killed; and nothing is left that
names who was erased."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from click.testing import CliRunner

from app.accounts import MERGED_PREFIX
from app.backtest.driver import Driver
from app.cli import cli
from app.core.purchases import paid_orders
from app.core.row import decode
from app.processor import TRANSFERS, partition_of
from app.rulebook import load
from app.settings import PREFIX, Settings, load_settings
from app.topics import specs
from tests.catalogues import THREE
from tests.kafka.conftest import ConsumeAll, MakeSettings, Produce, Start
from tests.kafka.harness import environment, trigger_ids, until

pytestmark = pytest.mark.kafka

INPUTS = "orders,logins,profiles"
SHARDS = 2
END = "2026-06-30T00:00:00Z"
TRIGGERS = [spec.logical for spec in specs(load_settings({})) if spec.kind == "triggers"]
Sent = tuple[bytes, bytes]


def told(kind: str, user: str, name: str, at: str, **fields: object) -> Sent:
    body = {"event_id": name, "type": kind, "user_id": user, "occurred_at": at, **fields}
    return user.encode(), orjson.dumps(body)


def order(user: str, name: str, at: str) -> Sent:
    line = {"product_id": "p-1", "product_type": "milk_powder", "quantity": 1}
    return told("OrderPaid", user, f"e-{name}", at, order_id=f"o-{name}", currency="CNY", total="9.00", lines=[line])


def merge(user: str, into: str, at: str) -> Sent:
    return told("UserMerged", user, f"m-{user}", at, into=into)


def clock(at: str) -> list[tuple[None, bytes, int]]:
    value = orjson.dumps({"type": "ClockAdvanced", "occurred_at": at})
    return [(None, value, partition) for partition in range(SHARDS)]


def users_of(shard: int, partitions: int, count: int, stem: str) -> list[str]:
    names = (f"{stem}{number}" for number in range(100_000))
    found = (name for name in names if partition_of(name.encode(), partitions, "murmur2") == shard)
    return [next(found) for _ in range(count)]


async def rows(settings: Settings, consume_all: ConsumeAll) -> dict[bytes, bytes]:
    """The last record of every key of the changelog; what was deleted is left out."""
    latest = {record.key: record.value for record in await consume_all(settings, "changelog") if record.key is not None}
    return {key: value for key, value in latest.items() if value is not None}


class Story:
    """People with three accounts each, in two shards: pairs, chains in either order, circles told at one instant."""

    def __init__(self, people: int, dice: random.Random) -> None:
        self.orders: list[Sent] = []
        self.merges: list[Sent] = []
        self.person: dict[str, str] = {}
        """By account: whose it is in the end; of a circle, one of the two."""
        stems = ((0, "l-"), (1, "r-"), (0, "t-"))
        accounts = zip(*(users_of(shard, SHARDS, people, stem) for shard, stem in stems), strict=True)
        for number, (old, new, last) in enumerate(accounts):
            for n in range(6):  # before, around and after the merges
                who = dice.choice((old, new, last))
                self.orders.append(order(who, f"{number}-{n}", f"2026-03-{1 + 3 * n:02}T0{n}:00:00Z"))
            kind = number % 4
            day = 2 + number % 14  # all the time somebody is merged
            early, late = f"2026-03-{day:02}T01:00:00Z", f"2026-03-{day + 1:02}T01:00:00Z"
            chain = [merge(old, new, late if kind == 2 else early), merge(new, last, early if kind == 2 else late)]
            self.merges += chain if kind in (1, 2) else [merge(old, new, early)]
            self.merges += [merge(new, old, early)] if kind == 3 else []
            self.person |= dict.fromkeys((old, new), last if kind in (1, 2) else new) | {last: last}
        self.merges.sort(key=lambda sent: orjson.loads(sent[1])["occurred_at"])
        self.orders.sort(key=lambda sent: orjson.loads(sent[1])["occurred_at"])
        self.bought = Counter(self.person[orjson.loads(value)["user_id"]] for _, value in self.orders)
        self.alone = {user for user, times in Counter(self.person.values()).items() if times == 1}

    def known(self, changelog: dict[bytes, bytes]) -> Counter[str]:
        """How many orders each person has by these rows."""
        found: Counter[str] = Counter()
        for key, value in changelog.items():
            if not key.startswith(b"\x00"):
                found[self.person[key.decode()]] += paid_orders(decode(value))
        return found


async def test_merges_between_shards_are_exactly_once_whatever_is_killed(
    make_settings: MakeSettings, produce: Produce, consume_all: ConsumeAll, start: Start
) -> None:
    settings = await make_settings(inputs=INPUTS, partitions=SHARDS, clock="events", batch_max=10, session_timeout="6s")
    dice = random.Random(7)
    story = Story(120, dice)
    workers = [start(settings, name, instance_id=name) for name in ("a", "b")]
    await asyncio.gather(*(worker.ready() for worker in workers))
    await produce(settings, "profiles", story.merges + clock("2026-03-17T00:00:00Z"))
    await produce(settings, "logins", clock(END))
    for number, begin in enumerate(range(0, len(story.orders), 90)):
        victim = workers[number % 2]
        await victim.ready()
        await produce(settings, "orders", story.orders[begin : begin + 90])
        await asyncio.sleep(dice.uniform(0.0, 0.4))
        victim.kill()
        victim.start()
    await produce(settings, "profiles", clock(END))
    await produce(settings, "orders", clock(END))

    # The same logs in memory. Whoever is nobody else's has the same row, byte for byte, and the same triggers; what is
    # known of the merged is the same, whichever account of a circle stays.
    driver = Driver(load(THREE), clock="events", partitions=SHARDS, inputs=settings.inputs)
    for topic in settings.inputs:
        for record in await consume_all(settings, topic):
            driver.broker.append((topic, record.partition), record.timestamp_ms, record.key, record.value)
    driver.run()
    calm = {key: value for shard in driver.broker.rows for key, value in shard.items()}
    assert story.known(calm) == story.bought
    alone = {key: value for key, value in calm.items() if key.decode() in story.alone}
    assert len(alone) > 50
    changelog: dict[bytes, bytes] = {}

    async def done() -> bool:
        await asyncio.sleep(0.5)
        changelog.clear()
        changelog.update(await rows(settings, consume_all))
        return story.known(changelog) == story.bought and alone.items() <= changelog.items()

    await until(done, 90, lambda: (story.bought - story.known(changelog), story.known(changelog) - story.bought))
    await asyncio.sleep(1.0)
    came = [record for topic in TRIGGERS for record in await consume_all(settings, topic)]
    assert set(trigger_ids(came).values()) == {1}
    wanted = {t.trigger_id.encode() for t in driver.triggers if t.user_id in story.alone}
    assert wanted
    assert {dict(r.headers)["ce_id"] for r in came if (r.key or b"").decode() in story.alone} == wanted


async def _names(settings: Settings, consume_all: ConsumeAll, users: Iterable[str]) -> list[bytes]:
    """Keys of compacted topics whose last record names one of the users: nothing has to be compacted for that."""
    found = []
    for topic in ("changelog", "lifecycle.stages"):
        latest = {record.key or b"": record.value for record in await consume_all(settings, topic)}
        for key, value in latest.items():
            if value is not None and any(user.encode() in key + value for user in users):
                found.append(key)
    return found


async def test_after_an_erasure_nothing_names_the_user_and_nothing_late_brings_anybody_back(
    make_settings: MakeSettings, produce: Produce, consume_all: ConsumeAll, start: Start
) -> None:
    settings = await make_settings(inputs=INPUTS, partitions=SHARDS, clock="wall", lateness="0s")
    old, new = users_of(0, 2, 1, "old-")[0], users_of(1, 2, 1, "new-")[0]
    other = users_of(1, 2, 1, "other-")[0]
    worker = start(settings, start="none")
    await worker.ready()
    await produce(settings, "orders", [order(old, "1", _ago(9)), order(new, "2", _ago(9)), order(other, "3", _ago(9))])
    await until(lambda: worker.metric("lifecycle_events_total", type="OrderPaid") == 3, 30, worker.log)
    await produce(settings, "profiles", [merge(old, new, _ago(8))])
    await until(lambda: worker.metric("lifecycle_transfers_total", what="absorbed") == 1, 30, worker.log)
    before = await _names(settings, consume_all, [old, new])
    assert MERGED_PREFIX + old.encode() in before
    assert new.encode() in before
    code, out = await _why(settings, old)
    assert code == 0
    assert f"The account was merged into {new} on " in out
    assert f"Merged into this account: {old}." in (await _why(settings, new))[1]

    await produce(settings, "profiles", [told("UserErased", old, "x", _ago(7))])  # of the account that is no more
    await until(lambda: worker.metric("lifecycle_transfers_total", what="forgotten") == 1, 30, worker.log)
    assert await _names(settings, consume_all, [old, new]) == []
    transfers = [record for record in await consume_all(settings, TRANSFERS) if record.partition == 1]
    late = [(record.key, record.value, 1) for record in transfers]  # what was on its way comes once more
    assert late
    await produce(settings, TRANSFERS, late)
    await produce(settings, "orders", [order(old, "4", _ago(6)), order(new, "5", _ago(6)), order(other, "6", _ago(6))])
    await produce(settings, "profiles", [merge(old, new, _ago(5))])
    # All of that has been applied: what a killed worker had not read would be counted by the next one.
    await until(lambda: worker.metric("lifecycle_ignored_total", kind="erased") == 4, 30, worker.log)
    await until(lambda: worker.metric("lifecycle_transfers_total", what="dropped") == 1, 30, worker.log)
    await until(lambda: worker.metric("lifecycle_events_total", type="OrderPaid") == 4, 30, worker.log)
    _, out = await _why(settings, old)
    assert "order o-4, total 9.00 CNY, lines 1 x milk_powder (ignored, as the user had been erased)" in out
    assert "The user was erased on " in out
    worker.kill()
    worker = start(settings, "again", start="none")
    await worker.ready()
    await produce(settings, "orders", [order(old, "7", _ago(4)), order(other, "8", _ago(4))])
    await until(lambda: worker.metric("lifecycle_ignored_total", kind="erased") == 1, 30, worker.log)
    assert await _names(settings, consume_all, [old, new]) == []
    assert other.encode() in await rows(settings, consume_all)
    for spec in specs(settings):
        if spec.config["cleanup.policy"] == "delete" and spec.kind != "input":
            assert 0 < int(spec.config["retention.ms"]) <= 31 * 86_400_000, spec.logical


async def _why(settings: Settings, user: str) -> tuple[int, str]:
    env = {name: text for name, text in environment(settings).items() if name.startswith(PREFIX)}
    done = await asyncio.to_thread(CliRunner().invoke, cli, ["why", user], env=env)
    return done.exit_code, " ".join(done.stdout.split())


def _ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()
