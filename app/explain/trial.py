"""A rule tried on events: the real engine in virtual time, one event or timer at a turn, told as timelines by user.

Nothing is decided here. What a turn changed is read from the row before and after it, and from what it put out.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import tzinfo
from typing import NamedTuple

import msgspec

from app.backtest.driver import DeadLetter, Driver
from app.core.calendar import zone_of
from app.core.ids import run_id
from app.core.row import NEVER, Row, Run, decode
from app.core.rules import Catalogue, index
from app.explain import refusals, timeline
from app.explain.timeline import BEGAN, Entry, local, thing
from app.processor import Output, Record
from app.replay.outgoing import EVERY_INPUT, Outgoing
from schemas import codec
from schemas.codec import DecodeOptions
from schemas.envelope import TRIGGER_RETRACTED
from schemas.events import INPUT_TOPICS, Event
from schemas.triggers import Decision, Trigger

_RETRACTED = ("ce_type", TRIGGER_RETRACTED.encode())


class Trial(NamedTuple):
    """What came of it."""

    events: int
    timelines: dict[str, list[Entry]]
    """By user, in the order of their first events."""
    touched: list[str]
    """Users that the rule did anything about."""
    triggers: int
    to_come: dict[str, list[Run]]
    """By user: steps that are still to come at the end."""
    zones: dict[str, tzinfo]
    """By user, of those that have a row."""
    rejected: list[DeadLetter]
    ended_at: int
    """The instant at which time stands."""


def only(catalogue: Catalogue, rule: str) -> Catalogue:
    """The catalogue with this rule alone."""
    return index({rule: catalogue.rules[rule]}, catalogue.policy)


def run(
    catalogue: Catalogue,
    events: Iterable[Outgoing],
    *,
    options: DecodeOptions,
    until: int | None = None,
    after: int = 0,
) -> Trial:
    """Sends the events, which must be in time order, and lets time pass until `until`, or `after` microseconds after
    the last event, or until nothing is left to come. Raises InvariantBroken when the rule fails on an event."""
    driver = Driver(catalogue, options=options, inputs=INPUT_TOPICS)
    driver.cut(batch=1)
    count = last = 0
    for event in events:
        for topic in INPUT_TOPICS if event.input == EVERY_INPUT else (event.input,):
            driver.send_record(topic, event.key, event.value)
        last = max(last, event.occurred_at)
        count += event.input != EVERY_INPUT
    teller = _Teller(driver, catalogue)
    end = max(until or last + after, last)
    for reached in (last, end):
        if last:  # else none of the events could be given a time
            driver.announce(reached + 1)
        teller.work()
    rows = {user: driver.row(user) for user in teller.timelines}
    to_come = {user: runs for user, row in rows.items() if row and (runs := timeline.alive(row, catalogue))}
    return Trial(
        events=count,
        timelines=teller.timelines,
        touched=list(teller.touched),
        triggers=len(driver.triggers),
        to_come=to_come,
        zones=teller.zones,
        rejected=driver.dead_letters,
        ended_at=end,
    )


class _Teller:
    """Works turn by turn and notes what each turn was about."""

    def __init__(self, driver: Driver, catalogue: Catalogue) -> None:
        self.driver = driver
        self.zones: dict[str, tzinfo] = {}
        self.timelines: dict[str, list[Entry]] = {}
        self.touched: dict[str, None] = {}
        self._default = catalogue.policy.zone
        self._catalogue = catalogue
        self._steps = {name: len(rule.steps) for name, rule in catalogue.rules.items()}
        self._runs: dict[str, dict[tuple[str, str, int], Run]] = {}
        self._before: dict[str, Row] = {}
        self._outputs = self._rows = 0
        self._counted: dict[tuple[str, ...], int] = {}
        self._committed = dict(driver.broker.committed)

    def work(self) -> None:
        while self.driver.work():
            self._tell()

    def _tell(self) -> None:
        applied = self._applied()
        outputs = [output for _, output in self.driver.broker.outputs[self._outputs :]]
        self._outputs += len(outputs)
        decisions, triggers = _read(outputs)
        event = next((e for e in applied if isinstance(e, Event)), None)
        if event is not None:
            twice = "published before: it changes nothing" if self._more("duplicates") else ""
            self._note(event.user_id, timeline.happened(event, self._zone(event.user_id), twice), touches=False)
        changes = self.driver.broker.changelog[0][self._rows :]
        self._rows += len(changes)
        began, again = self._more("runs", "entered"), self._more("refused_entries", "reentry")
        for key, value in changes:
            if not key.startswith(b"\x00") and value is not None:
                row = decode(value)
                decided = {decision.run_id for decision in decisions}
                fresh = self._compare(row, event, decided, began)
                if event is not None:
                    before = self._before.get(row.user_id)
                    turn = refusals.Turn(before, row, fresh, decided, began, again > 0)
                    for why in refusals.of(event, turn, self._catalogue):
                        self._note(row.user_id, Entry(event.occurred_at, BEGAN, "no entry", why), touches=False)
                self._before[row.user_id] = row
        for decision in decisions:
            its_own = [trigger for trigger in triggers if trigger.trigger_id == decision.trigger_id]
            for entry in timeline.decided([decision], its_own, [], self._zone(decision.user_id)):
                self._note(decision.user_id, entry)

    def _more(self, *what: str) -> int:
        """How many more of something this turn has counted."""
        count = sum(times for kind, times in self.driver.counts.items() if kind[: len(what)] == what)
        before, self._counted[what] = self._counted.get(what, 0), count
        return count - before

    def _applied(self) -> list[object]:
        """The messages that this turn took in."""
        found: list[object] = []
        for place, offset in self.driver.broker.committed.items():
            for record in self.driver.broker.log(place)[self._committed[place] : offset]:
                found.append(self._decoded(place[0], record))
            self._committed[place] = offset
        return found

    def _decoded(self, topic: str, record: Record) -> object:
        return codec.decode(topic, record.key, record.value, record.timestamp_ms, self.driver.plan.decode)

    def _zone(self, user: str) -> tzinfo:
        return self.zones.get(user, self._default)

    def _note(self, user: str, entry: Entry, touches: bool = True) -> None:
        self.timelines.setdefault(user, []).append(entry)
        if touches:
            self.touched[user] = None

    # -- what a turn changed in a row

    def _compare(self, row: Row, event: Event | None, decided: set[str], began: int) -> set[str]:
        """Notes what is different in the runs; where one is that was not there, as `run_key` says."""
        user = row.user_id
        zone = self.zones[user] = zone_of(row, self._default)
        before = self._runs.get(user, {})
        after = {(name, run.event_id, run.ordinal): run for name, runs in row.runs.items() for run in runs}
        self._runs[user] = after
        if event is None:
            return set()
        at, cause = event.occurred_at, event.TYPE
        for place, run in after.items():
            if place not in before:
                its_own = run_id(run.rule, user, run.kind, run.key, run.event_id, run.ordinal)
                self._note(user, Entry(at, BEGAN, "entered", self._entry(run, zone, its_own in decided)))
            else:
                for word, text in self._changes(before[place], run, cause, zone):
                    self._note(user, Entry(at, BEGAN, word, text))
        fresh = after.keys() - before.keys()
        for place, run in before.items():
            if place not in after and self._lives(run) and not decided:
                word = "replaced" if fresh else "ended"
                text = "by a new entry" if fresh else f"by {cause}"
                self._note(user, Entry(at, BEGAN, word, f"{run.rule}{thing(run.kind, run.key)}, {text}"))
        if began and not fresh and not decided:
            self._note(user, Entry(at, BEGAN, "entered", "and over at once: nothing of it is still to come"))
        return {name for name, _, _ in fresh}

    def _lives(self, run: Run) -> bool:
        return not run.ends and run.step < self._steps.get(run.rule, 0)

    def _entry(self, run: Run, zone: tzinfo, asked: bool) -> str:
        """`asked`: its first step was due as it was entered, and what became of that follows."""
        what = f"{run.rule}{thing(run.kind, run.key)}"
        if run.ends:
            return f"{what}, but {run.ends[0].kind} had ended it before"
        if run.step >= self._steps.get(run.rule, 0):
            return f"{what}: its step is due at once" if asked else f"{what}; no step of it is still to come"
        first = "step 1 is due at once, " if asked and run.step else ""
        held = ", but it waits now" if run.held else ""
        return f"{what}: {first}step {run.step + 1} is due {local(run.due_at, zone)}{held}"

    def _changes(self, old: Run, new: Run, cause: str, zone: tzinfo) -> Iterable[tuple[str, str]]:
        what = f"{new.rule}{thing(new.kind, new.key)}"
        due = f"step {new.step + 1} is due {local(new.due_at, zone)}"
        if new.ends and not old.ends:
            if old.step < self._steps.get(old.rule, 0):
                yield "ended", f"{what}, by {cause}"
        elif old.ends and not new.ends:
            yield "revived", f"{what}, by {cause}: {due}"
        elif new.held and not old.held:
            yield "waits", f"{what}, because of {cause}"
        elif old.held and not new.held:
            yield "goes on", f"{what}, because of {cause}: {due}"
        elif new.step == old.step and new.due_at != old.due_at < NEVER:
            yield "moved", f"{what}, because of {cause}: {due}"


def _read(outputs: Iterable[Output]) -> tuple[list[Decision], list[Trigger]]:
    """The decision records, and the triggers; a retraction has its record among the former."""
    decisions: list[Decision] = []
    triggers: list[Trigger] = []
    for output in outputs:
        value = output.value or b""
        if output.topic == "decisions":
            decisions.append(msgspec.json.decode(value, type=Decision))
        elif output.topic.startswith("triggers.") and _RETRACTED not in output.headers:
            triggers.append(msgspec.json.decode(value, type=Trigger))
    return decisions, triggers
