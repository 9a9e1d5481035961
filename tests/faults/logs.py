"""What happens to the logs: a backlog that cancels what is due, records deleted before they were read, an upstream
transaction that hangs.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from app import clock, topics
from schemas.instant import DAY, SECOND, format_instant
from tests.faults import outcome
from tests.faults.outcome import Verdict
from tests.faults.stage import Failed, Stage, shards, until
from tests.faults.stream import Message, partition_of

_SOON = 40 * SECOND
"""What is entered while the worker runs comes due so much later, while it is down."""
_HANGING_SECONDS = 60
"""The engine's own limit before it raises the alarm."""


# ----------------------------------------------------------------------------------------------- a backlog that cancels


async def late_start(stage: Stage, size: int) -> Verdict:
    """CLOCK=wall. Timers are set; the worker goes down; they come due; what cancels them is in the backlog, on another
    topic, behind `size` records. The worker starts late, and is killed once on its way."""
    stage.start("worker")
    await stage.ready()
    plot = Plot(stage, clock.now())
    await stage.load.send(plot.profiles() + plot.entries("seen"))
    await until(lambda: stage.workers["worker"].metric("lifecycle_timers_pending") >= plot.timers, 60, "no timers")
    stage.kill("worker")
    await stage.load.send(plot.entries("unseen"))  # and these are entered in the backlog itself
    filler = plot.filler(size)
    for start in range(0, len(filler), 5_000):
        await stage.load.send(filler[start : start + 5_000])
    await stage.load.send(plot.cancels())
    await asyncio.sleep(max(0.0, (plot.due + 8 * SECOND - clock.now()) / SECOND))
    started = clock.now()
    stage.again("worker")
    await stage.moves(500)
    stage.kill("worker")
    stage.again("worker")
    await stage.all_applied()
    await asyncio.sleep(12)  # looks at the clock go on: what is due, and what should not be, comes now
    await stage.stop()
    stage.load.events = plot.count
    return plot.verdict(await outcome.left_by(stage.settings), started)


_RULES = {"coupon": "coupon_unused", "order_coupon": "coupon_unused", "goods": "replenishment", "silence": "winback"}


class Plot:
    """Users of four kinds, each kind with its timer and its cancelling event; every other one is left uncancelled."""

    EACH = 25

    def __init__(self, stage: Stage, now: int) -> None:
        self._partitions = stage.settings.partitions
        self._dice = stage.dice
        self.due = now + _SOON
        # Noon for everybody, whenever this runs: quiet hours are not what is tried here.
        hours = 12 - datetime.fromtimestamp(now / SECOND, UTC).hour
        self.zone = "Etc/GMT" + (f"{-hours:+d}" if hours else "")
        self.timers = len(_RULES) * 2 * self.EACH
        self.count = 0

    def _users(self, when: str) -> list[tuple[str, str, bool]]:
        """(user, kind, cancelled)"""
        return [
            (f"{when}-{kind}-{number}{'-cancelled' if cancelled else ''}", kind, cancelled)
            for kind in _RULES
            for number in range(self.EACH)
            for cancelled in (False, True)
        ]

    def _everybody(self) -> list[tuple[str, str, bool]]:
        return self._users("seen") + self._users("unseen")

    def _message(self, input: str, user: str, at: int, **event: Any) -> Message:
        self.count += 1
        body = {"event_id": f"p{self.count}", "user_id": user, "occurred_at": format_instant(at, UTC), **event}
        key = user.encode()
        return Message(input, partition_of(key, self._partitions), key, orjson.dumps(body))

    def _shuffled(self, messages: list[Message]) -> list[Message]:
        self._dice.shuffle(messages)
        return messages

    def profiles(self) -> list[Message]:
        long_ago = self.due - 300 * DAY
        return [
            self._message("profiles", user, long_ago, type="ProfileUpdated", time_zone=self.zone)
            for user, _, _ in self._everybody()
        ]

    def entries(self, when: str) -> list[Message]:
        """What sets the timers, all of them due within seconds around `due`."""
        made = []
        for number, (user, kind, _) in enumerate(self._users(when)):
            due = self.due - number % 7 * SECOND
            coupon = {"coupon_id": f"c-{user}", "value": "20.00", "currency": "CNY"}
            coupon["expires_at"] = format_instant(due + 60 * DAY, UTC)
            if kind == "coupon":
                made.append(self._message("coupons", user, due - 7 * DAY, type="CouponIssued", **coupon))
            elif kind == "order_coupon":
                made.append(self._order(user, due - 7 * DAY, "one_off", coupons_issued=[coupon]))
            elif kind == "goods":
                made.append(self._order(user, due - 17 * DAY, "milk_powder"))
            else:
                last = due - 60 * DAY
                past = {"registered_at": last - DAY, "last_order_at": last, "first_order_at": last}
                told = {name: format_instant(at, UTC) for name, at in past.items()}
                made.append(self._message("profiles", user, last + DAY, type="CustomerBaseline", orders=1, **told))
        return self._shuffled(made)

    def _order(self, user: str, at: int, product_type: str, **more: Any) -> Message:
        line = {"product_id": "p1", "product_type": product_type, "quantity": 1, "unit_price": "43.00"}
        order = {"order_id": f"o{self.count}", "currency": "CNY", "total": "43.00", "lines": [line], **more}
        return self._message("orders", user, at, type="OrderPaid", **order)

    def cancels(self) -> list[Message]:
        """What happened minutes before the timers were due, to half of the users, and reached Kafka late."""
        made = []
        for user, kind, cancelled in self._everybody():
            at = self.due - 10 * SECOND - self._dice.randrange(0, 10 * SECOND)
            if not cancelled:
                continue
            if kind == "coupon":
                made.append(self._order(user, at, "one_off", coupons_used=[f"c-{user}"]))
            elif kind == "order_coupon":
                made.append(self._message("coupons", user, at, type="CouponRedeemed", coupon_id=f"c-{user}"))
            else:
                made.append(self._order(user, at, "milk_powder" if kind == "goods" else "one_off"))
        return self._shuffled(made)

    def filler(self, count: int) -> list[Message]:
        """Events of other users, in front of the cancelling ones, on their topics."""
        at = self.due - 20 * DAY
        return [
            self._message("orders", f"filler{n % 499}", at, type="OrderShipped", order_id=f"f{n}")
            if n % 2
            else self._message("coupons", f"filler{n % 499}", at, type="CouponLocked", coupon_id=f"f{n % 997}")
            for n in range(count)
        ]

    def verdict(self, left: outcome.Left, started: int) -> Verdict:
        """Just the uncancelled have their trigger, once, decided after the start, at noon, before its expiry."""
        verdict = Verdict()
        wanted = {(_RULES[kind], user) for user, kind, cancelled in self._everybody() if not cancelled}
        cancelled = {(_RULES[kind], user) for user, kind, gone in self._everybody() if gone}
        seen: dict[tuple[str, str], int] = {}
        for (topic, _), log in left.outputs.items():
            for record in log if topic.startswith("triggers.") else ():
                body = orjson.loads(record.value or b"{}")
                who = body["rule"], body["user_id"]
                seen[who] = seen.get(who, 0) + 1
                verdict.note("early", who in cancelled, f"cancelled, and yet sent: {body}")
                if who in wanted:
                    self._judge(body, started, verdict)
        verdict.triggers = len(wanted)
        absent = sorted(wanted - seen.keys())
        verdict.note("missing", len(absent), absent[:3])
        again = [who for who in wanted if seen.get(who, 0) > 1]
        verdict.note("twice", len(again), again[:3])
        verdict.decisions = sum(len(log) for (topic, _), log in left.outputs.items() if topic == "decisions")
        return verdict

    def _judge(self, body: dict[str, Any], started: int, verdict: Verdict) -> None:
        decided, due, expires = (datetime.fromisoformat(body[n]) for n in ("decided_at", "due_at", "expires_at"))
        before = decided.timestamp() < started / SECOND or decided < due
        verdict.note("early", before, f"decided in the past: {body}")
        verdict.note("stale", expires <= decided or not 9 <= decided.hour < 21, f"stale or at night: {body}")


# ------------------------------------------------------------------------------------------------- deleted before read


class Losses:
    """What was deleted, and what the shards were given of it before: an undisturbed run is given the same."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._before: dict[outcome.Place, list[outcome.Written]] = {}
        self._applied: dict[outcome.Place, int] = {}

    def topic(self, input: str, partition: int) -> TopicPartition:
        return TopicPartition(topics.physical(self._stage.settings, input), partition)

    async def delete(self, input: str, partition: int) -> None:
        """Everything of an input partition is gone, as if its retention were over."""
        tp = self.topic(input, partition)
        self._before[input, partition] = (await outcome.read(self._stage.settings, [input]))[input, partition]
        end = (await self._stage.ends([tp]))[tp]
        async with self._stage.admin() as admin:
            await admin.delete_records({tp: RecordsToDelete(before_offset=end)})

    async def mend(self, input: str, partition: int) -> None:
        """What the sentence asks for: the group's offset is set to where the log begins, the worker is restarted."""
        stage, tp = self._stage, self.topic(input, partition)
        await stage.stop()
        self._applied[input, partition] = (await stage.committed())[tp]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=stage.settings.kafka_bootstrap, enable_auto_commit=False,
            group_id=stage.settings.topic_prefix + stage.settings.app_id,
        )  # fmt: skip
        async with consumer:
            consumer.assign([tp])
            begins = (await consumer.beginning_offsets([tp]))[tp]
            give_up = clock.monotonic() + 30
            while True:
                try:
                    await consumer.commit({tp: OffsetAndMetadata(begins, "")})
                    break
                except KafkaError:  # a worker with a name of its own is a member until its session is over
                    if clock.monotonic() > give_up:
                        raise
                    await asyncio.sleep(0.5)
        stage.again("worker")
        await stage.ready()

    async def given(self) -> outcome.Logs:
        """The logs as the shards were given them: what was applied before the loss, and what is left."""
        found = await outcome.read(self._stage.settings, self._stage.settings.inputs)
        for place, before in self._before.items():
            found[place] = [r for r in before if r.offset < self._applied[place]] + found[place]
        return found


async def deleted(stage: Stage, size: int) -> Verdict:
    """Retention overtakes a shard: while the worker is down, and (size 2) while it is frozen. The shard stops, says so,
    and jumps nowhere; a person sets the offset, as the sentence says, and it goes on."""
    losses = Losses(stage)
    stage.start("worker", static=True)
    await stage.load.publish(stage.shop.days(), 30 * size)
    await stage.all_applied()
    await stage.stop()
    await stage.load.publish(stage.shop.days(), 10 * size)
    await losses.delete("orders", 1)
    stage.again("worker")
    await _has_stopped(stage, losses.topic("orders", 1), "orders")
    await stage.all_applied(skip=_shard(stage, 1))
    await losses.mend("orders", 1)
    if size > 1:
        await stage.load.publish(stage.shop.days(), 10)
        await stage.all_applied()
        stage.workers["worker"].freeze()
        await stage.load.publish(stage.shop.days(), 8)
        await losses.delete("logins", 2)
        stage.workers["worker"].thaw()
        await _has_stopped(stage, losses.topic("logins", 2), "logins")
        await stage.all_applied(skip=_shard(stage, 2))
        await losses.mend("logins", 2)
    await stage.load.publish(stage.shop.days(), 10)
    return await stage.verdict(losses.given)


def _shard(stage: Stage, partition: int) -> frozenset[outcome.Place]:
    return frozenset((name, partition) for name in stage.settings.inputs)


async def _has_stopped(stage: Stage, tp: TopicPartition, input: str) -> None:
    """The metric, the alarm in the log, the sentence on /ready; nothing moves in that shard, and the others go on."""
    worker = stage.workers["worker"]
    metric = "lifecycle_offsets_out_of_range_total"
    await until(lambda: worker.metric(metric, input=input) >= 1, 60, lambda: worker.log()[-3000:])
    status, told = worker.get("ready")
    if status != 503 or not told.startswith(f"Shard {tp.partition} is stopped: {tp.topic}[{tp.partition}]: "):
        raise Failed(f"/ready says {status}: {told}")
    if "offset" not in told or "restart" not in told:
        raise Failed(f"the sentence does not say what to do: {told}")
    if f"Shard {tp.partition} is STOPPED: {tp.topic}[{tp.partition}]" not in worker.log():
        raise Failed(f"the log has no alarm:\n{worker.log()[-3000:]}")
    before = (await stage.committed())[tp]
    await until(lambda: shards(worker) == stage.settings.partitions - 1, 30, "the other shards do not go on")
    await asyncio.sleep(1)
    if (await stage.committed())[tp] != before:
        raise Failed(f"{tp} moved on in silence")
    stage.told.append(f"said: {told.strip()}")


# ------------------------------------------------------------------------------------------------ a hanging transaction


async def hanging(stage: Stage, size: int) -> Verdict:
    """An upstream producer leaves its transaction open: the alarm, and everything in order once it has ended."""
    del size
    stage.start("worker")
    stage.load.start()
    await stage.ready()
    await stage.moves(200)
    worker, topic = stage.workers["worker"], topics.physical(stage.settings, "logins")
    upstream = AIOKafkaProducer(
        bootstrap_servers=stage.settings.kafka_bootstrap, transactional_id=f"{stage.name}-upstream",
        transaction_timeout_ms=300_000,
    )  # fmt: skip
    async with upstream:
        await upstream.begin_transaction()
        # Nothing it says is usable: what counts is that it stands in the way.
        await upstream.send_and_wait(topic, partition=0, key=b"u0", value=b"{}")
        await until(
            lambda: worker.metric("lifecycle_hanging_transaction_seconds", input="logins") >= _HANGING_SECONDS,
            _HANGING_SECONDS + 45,
            "no alarm",
        )
        if f"An upstream transaction on {topic}[0] has been open for" not in worker.log():
            raise Failed("the metric is there, but no warning")
        await upstream.commit_transaction()
    await until(lambda: worker.metric("lifecycle_hanging_transaction_seconds") == 0, 60, "the alarm stays")
    return await stage.verdict()
