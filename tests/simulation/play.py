"""Plays a story on the driver, asks the oracle what should have come out, and says where the two differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC
from functools import lru_cache
from typing import Any

from app.backtest.driver import Driver
from app.core.purchases import last_order_at, paid_orders
from app.core.rules import Catalogue
from app.processor import META_KEY, TRANSFERS, Output, partition_of
from app.rulebook import load
from schemas.events import INPUT_TOPICS
from schemas.instant import format_instant, parse_instant
from tests.catalogues import THREE
from tests.simulation.history import START, Op, Story
from tests.simulation.oracle import Decided, Result, Retracted, result_of
from tests.simulation.timeline import Entry, Phase, Shard, by_events

_INSTANTS = ("valid_from", "expires_at", "last_order_at", "registered_at")
_GARBAGE = b'{"type": "OrderPaid", "user_id": '


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """The rules that the oracle knows, read once."""
    return load(THREE)


def wire(event: dict[str, Any]) -> bytes:
    """An event of a story as the contract writes it."""
    told = {name: value for name, value in event.items() if name not in ("topic", "at")}
    told = {name: format_instant(v, UTC) if name in _INSTANTS else v for name, v in told.items()}
    told["occurred_at"] = format_instant(event["at"], UTC)
    if "coupons_issued" in told:
        told["coupons_issued"] = [
            {name: format_instant(v, UTC) if name in _INSTANTS else v for name, v in terms.items()}
            for terms in told["coupons_issued"]
        ]
    return json.dumps(told).encode()


@lru_cache(maxsize=1)
def whole_catalogue() -> Catalogue:
    """Everything that is shipped, read once."""
    return load()


class Game:
    """A story on its way."""

    def __init__(self, story: Story, rules: Catalogue | None = None) -> None:
        self.story = story
        self.rules = rules or catalogue()
        self.driver = Driver(
            self.rules,
            clock=story.clock,
            at=START,
            lateness=story.lateness,
            partitions=story.partitions,  # type: ignore[arg-type]
        )
        self.logs: list[dict[str, list[Entry]]] = [{t: [] for t in INPUT_TOPICS} for _ in range(story.partitions)]
        self.sent: list[tuple[tuple[str, int], int, dict[str, Any] | None]] = []
        self.garbage = 0
        self.phases: list[list[Phase]] = [[] for _ in range(story.partitions)]
        self.reopened: set[int] = set()
        self.behind: set[int] = set()  # shards that a paused input held up at the end of their last phase

    def play(self) -> list[str]:
        """The differences to what should have come out; none is good."""
        self._through()
        if self.story.clock == "events":
            wanted, problems = by_events(self.logs, self.story.lateness), self._undisturbed()
        else:
            wanted, problems = self._by_wall()
        return problems + differences(wanted, outcome(self.driver)) + self._own_laws()

    def play_without_oracle(self) -> list[str]:
        """CLOCK=events: only the differences to an undisturbed run, and the laws that hold whatever the rules say."""
        self._through()
        return self._undisturbed() + self._own_laws()

    def _through(self) -> None:
        self.driver.run()
        for op in self.story.ops:
            getattr(self, f"_{op.what}")(op)
        self.driver.resume()
        self.driver.cut(5_000, 5_000)
        if self.story.clock == "events":
            self._clock(Op("clock", number=self.story.end))
        self._run(Op("run"))

    # -- operations

    def _send(self, op: Op) -> None:
        assert op.event is not None
        if self.story.clock == "wall":
            self.driver.now = max(self.driver.now, op.event["at"])  # nothing is sent before it happened
        self._put(op.event["topic"], op.event["user_id"].encode(), wire(op.event), op.event)

    def _put(self, topic: str, key: bytes | None, value: bytes, event: dict[str, Any] | None) -> None:
        place, record = self.driver.send_record(topic, key, value)
        self.logs[place[1]][topic].append((record.offset, event))
        self.sent.append((place, record.offset, event))

    def _garbage(self, op: Op) -> None:
        self._put(op.words[0], b"u-0", _GARBAGE, None)
        self.garbage += 1

    def _marker(self, op: Op) -> None:
        for partition in range(self.story.partitions):
            self.driver.broker.mark((op.words[0], partition))

    def _again(self, op: Op) -> None:
        if op.number <= len(self.sent):
            place, offset, event = self.sent[-op.number]
            end = self.driver.broker.end(place)
            self.driver.redeliver(place, offset)
            self.logs[place[1]][place[0]].append((end, event))
            self.garbage += event is None

    def _clock(self, op: Op) -> None:
        if self.story.clock == "wall":
            self.driver.now = max(self.driver.now, op.number)
            return
        for partition, logs in enumerate(self.logs):
            for topic, log in logs.items():
                log.append((self.driver.broker.end((topic, partition)), op.number))
        self.driver.announce(op.number)

    def _cut(self, op: Op) -> None:
        self.driver.cut(op.number, int(op.words[0]))

    def _pause(self, op: Op) -> None:
        self.driver.pause(*op.words)

    def _resume(self, _: Op) -> None:
        self.driver.resume()

    def _rebalance(self, _: Op) -> None:
        self.driver.rebalance()
        self.reopened = set(range(self.story.partitions))

    def _crash(self, op: Op) -> None:
        for shard in range(self.story.partitions):
            when = op.words[0]
            held_up = shard in self.behind or self.driver.lagging(shard)
            if self.story.clock == "wall" and when == "after" and held_up:
                when = "inside"  # the oracle could not tell what such a batch had seen
            found = self._found(shard)
            self.driver.crash(when, shard)  # type: ignore[arg-type]
            if when == "after" and self.story.clock == "wall":
                self._note_phase(shard, found, lagging=False)
            self.reopened.add(shard)

    def _run(self, _: Op) -> None:
        found = [self._found(shard) for shard in range(self.story.partitions)]
        self.driver.run()
        for shard in range(self.story.partitions):
            if self.story.clock == "wall":
                self._note_phase(shard, found[shard], self.driver.lagging(shard))
        self.reopened = set()

    def _found(self, shard: int) -> int | None:
        """Merged time as a fresh worker finds it; None when the shard has been open all the time."""
        return self.driver.merged(shard) if self.story.clock == "wall" and shard in self.reopened else None

    def _note_phase(self, shard: int, reopened_at: int | None, lagging: bool) -> None:
        broker = self.driver.broker
        ends = {topic: broker.end((topic, shard)) for topic in INPUT_TOPICS}
        applied = {topic: broker.committed[topic, shard] for topic in INPUT_TOPICS}
        last = {topic: log[-1][0] + 1 if log else 0 for topic, log in self.logs[shard].items()}
        partial = lagging or any(applied[topic] < last[topic] for topic in INPUT_TOPICS)
        (self.behind.add if lagging else self.behind.discard)(shard)
        self.phases[shard].append(Phase(self.driver.now, ends, applied, partial, reopened_at))

    # -- what should have come out

    def _by_wall(self) -> tuple[Result, list[str]]:
        people, problems = [], []
        for logs, phases in zip(self.logs, self.phases, strict=True):
            shard = Shard(logs, self.story.lateness, START)
            for phase in phases:
                shard.play(phase)
            people += shard.people.values()
            problems += shard.problems
        return result_of(people), problems

    def _undisturbed(self) -> list[str]:
        """CLOCK=events: the same logs, read at once by a worker to whom nothing happens, give the same bytes."""
        calm = Driver(self.rules, lateness=self.story.lateness, at=START, partitions=self.story.partitions)
        for place, log in self.driver.broker._logs.items():
            if place[0] != TRANSFERS:  # what shards tell each other is work of this run
                calm.broker._logs[place], calm.broker._ends[place] = log, self.driver.broker._ends[place]
        calm.run()
        mixed = self._merged_across_shards()
        people = [sorted(known_of(driver, user) for user in mixed) for driver in (self.driver, calm)]
        # An erasure of which another shard tells may be heard of before or after a new life has begun; and which
        # account of a circle stays depends on what each has heard of the others.
        erased = any(e is not None and e["type"] == "UserErased" and e["user_id"] in mixed for _, _, e in self.sent)
        problems = []
        if people[0] != people[1] and not erased:
            problems.append(f"merged accounts: {people[0]}, and in the undisturbed run {people[1]}")
        for partition in range(self.story.partitions):
            ours, theirs = (_certain_outputs(driver, partition, mixed) for driver in (self.driver, calm))
            if ours != theirs:
                same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(theirs))
                problems.append(f"shard {partition}: from output {same} on it differs from the undisturbed run's")
            rows = [_certain_rows(driver, partition, mixed) for driver in (self.driver, calm)]
            if rows[0] != rows[1]:
                names = [k.decode() for k in rows[0].keys() | rows[1].keys() if rows[0].get(k) != rows[1].get(k)]
                problems.append(
                    f"shard {partition}: rows differ from the undisturbed run's: {', '.join(sorted(names))}"
                )
        return problems

    def _merged_across_shards(self) -> set[str]:
        """Users of whom another shard tells: when that is heard of is not for the events to say. What is known of them
        in the end must be the same, their messages and their bytes need not be."""
        merges = {(e["user_id"], e["into"]) for _, _, e in self.sent if e is not None and e["type"] == "UserMerged"}
        mixed = {user for pair in merges if len({self._shard_of(user) for user in pair}) == 2 for user in pair}
        while more := {user for pair in merges if mixed.intersection(pair) for user in pair} - mixed:
            mixed |= more
        return mixed

    def _shard_of(self, user: str) -> int:
        return partition_of(user.encode(), self.story.partitions, "murmur2")

    def _own_laws(self) -> list[str]:
        """What holds whatever the rules say."""
        problems = []
        # What an account is part of cannot be changed, and no account is part of itself: such merges are refused.
        letters = sum(letter.field != "into" for letter in self.driver.dead_letters)
        if letters != self.garbage:
            problems.append(f"{self.garbage} messages could not be used, and {letters} are in dead letters")
        ids = [trigger.trigger_id for trigger in self.driver.triggers]
        if len(set(ids)) < len(ids):
            problems.append("a trigger id was seen twice")
        decisions = self.driver.decisions
        if sorted(ids) != sorted(d.trigger_id or "" for d in decisions if d.outcome == "fired"):
            problems.append("triggers and their decision records are not the same")
        final = [d.trigger_id for d in decisions if d.final]
        if len(set(final)) < len(final):
            problems.append("a candidate has two final records")
        sequences = sorted((d.trigger_id or "", d.sequence) for d in decisions)
        if len(set(sequences)) < len(sequences):
            problems.append("two decision records have one id")
        return problems


def _certain_outputs(driver: Driver, partition: int, mixed: set[str]) -> list[Output]:
    keys = {user.encode() for user in mixed}
    return [o for p, o in driver.broker.outputs if p == partition and o.key not in keys]


def _certain_rows(driver: Driver, partition: int, mixed: set[str]) -> dict[bytes, bytes]:
    keys = {user.encode() for user in mixed}
    rows = {k: v for k, v in driver.broker.rows[partition].items() if k != META_KEY and k not in keys}
    return {k: v for k, v in rows.items() if not mixed or not k.startswith(b"\x00")}


def known_of(driver: Driver, user: str) -> str:
    """What counts of a user, whoever told of it first."""
    row = driver.row(user)
    if row is None:
        return ""
    orders = {n: (o.placed_at, o.paid_at, o.cancelled_at, o.refunded_minor, o.lines) for n, o in row.orders.items()}
    coupons = {n: (c.issued_at, c.redeemed, c.revoked, c.returned_at) for n, c in row.coupons.items()}
    counts = (paid_orders(row), last_order_at(row), row.registered_at, row.baseline)
    return f"{counts} {sorted(orders.items())} {sorted(coupons.items())}"


def outcome(driver: Driver) -> Result:
    """What did come out, in the oracle's words."""
    triggers = {trigger.trigger_id: trigger for trigger in driver.triggers}
    decided, retracted = [], []
    for d in driver.decisions:
        if d.outcome != "retracted":
            expires = parse_instant(triggers[d.trigger_id or ""].expires_at) if d.outcome == "fired" else 0
            at, due = parse_instant(d.decided_at), parse_instant(d.due_at)
            entry = d.evidence[0].event_id
            decided.append(
                Decided(
                    d.user_id, d.rule, d.entry.key, entry, d.step, d.sequence, d.outcome, d.gate or "", due, at, expires
                )
            )
    for r in driver.retractions:
        entry = triggers[r.retracts].evidence[0].event_id
        retracted.append(Retracted(r.user_id, r.rule, r.entry.key, entry, r.step, parse_instant(r.decided_at)))
    timers = [(t.at, t.user, t.rule, t.key or t.user, t.step) for t in driver.timers()]
    return Result(sorted(decided), sorted(retracted), sorted(timers))


def differences(wanted: Result, got: Result) -> list[str]:
    """One line each."""
    lines = []
    for name in Result._fields:
        ours, theirs = getattr(got, name), getattr(wanted, name)
        lines += [f"missing {name}: {_told(item)}" for item in _minus(theirs, ours)]
        lines += [f"too much {name}: {_told(item)}" for item in _minus(ours, theirs)]
    return lines


def _minus(these: Sequence[Any], those: Sequence[Any]) -> list[Any]:
    left = list(those)
    result = []
    for item in these:
        if item in left:
            left.remove(item)
        else:
            result.append(item)
    return result


def _told(item: tuple[Any, ...]) -> str:
    return " ".join(
        format_instant(part, UTC) if isinstance(part, int) and part > 10**12 else str(part) for part in item
    )


def problems_of(story: Story) -> list[str]:
    """Plays a story from the start."""
    return Game(story).play()


def problems_without_oracle(story: Story) -> list[str]:
    """Plays a story under the whole shipped catalogue."""
    return Game(story, whole_catalogue()).play_without_oracle()
