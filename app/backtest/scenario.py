"""Scenarios: what is given, when the clock says, then which triggers. YAML that a marketer reads, on the real engine.

A file holds `scenarios`, and above them what they share (`rules`, `zone`, `clock`, `lateness`, `about`)::

    scenarios:
      - name: A coupon that was not used for a week is worth a nudge
        given:
          - 2026-03-01 12:15: {CouponIssued: u-1, coupon: c-4, value: 20 CNY}
        the clock says: 2026-03-09
        triggers:
          - 2026-03-08 12:15: {coupon_unused: u-1, key: c-4, step: 1}

- **given**: events (see `notation`) in the order of their arrival, and between them what else happens: `the clock says:
  INSTANT`, `redelivered: EVENT_ID`, `the worker crashes: before | inside | after` (the commit of a batch), and under
  `clock: wall` also `the worker stops: INSTANT` and `the worker starts: INSTANT`.
- **triggers, retractions**: everything that goes out, by the instant of its decision; **decisions**: every other record
  (deferred, dropped, expired); **dead letters**: their codes. What is not listed must not happen. An instant counts as
  exactly as it is written: 08:15 is any second of that minute. An entry names rule and user, `step` (1 when left out),
  and any other field of the message that matters; of a `reason`, a part is enough.
- **timers**: how many steps are still to come in the end.
- **rules**: which rules are switched on (all when left out).
- **orders: both**: the events between two other entries may arrive in any order; all are tried, with one outcome. Each
  order is played twice: as topics that are merged by event time, and one event at a time while the lateness still
  allows all of them, so that no merge puts them in order again. One that reorders nothing of any user is a mistake.
- `clock: events` (the default) is exact; `clock: wall` has the worker look at a clock, with 5 s of lateness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, permutations
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import yaml

from app.backtest import notation
from app.backtest.driver import Driver
from app.backtest.notation import NotationError
from app.backtest.outcome import Expected, Seen, compare, expected, seen
from app.core import expressions
from app.core.rules import Catalogue, index
from app.rulebook import load
from schemas.events import EVENT_TYPES
from schemas.instant import SECOND

#: Up to so many events between two other entries, every order of arrival is tried; of more, all rotations both ways.
ALL_ORDERS_UP_TO = 4
_CLOCK, _STOP, _START = "the clock says", "the worker stops", "the worker starts"
_REDELIVER, _CRASH = "redelivered", "the worker crashes"
_SHARED = ("rules", "zone", "clock", "lateness", "about")
_OWN = (*_SHARED, "name", "given", _CLOCK, "triggers", "decisions", "retractions", "dead letters", "timers", "orders")


class Entry(NamedTuple):
    """Something given: an event, or what else happens ("the clock says", ...)."""

    kind: str
    """'event', or the words of the entry."""
    at: int
    event: Mapping[str, Any]
    argument: str = ""


class Scenario(NamedTuple):
    """One scenario, read."""

    file: str
    name: str
    rules: tuple[str, ...]
    """Those that are switched on; empty = all."""
    zone: ZoneInfo
    clock: str
    lateness: int | None
    given: tuple[Entry, ...]
    triggers: tuple[Expected, ...]
    decisions: tuple[Expected, ...]
    retractions: tuple[Expected, ...]
    dead_letters: tuple[str, ...]
    timers: int | None
    any_order: bool


class ScenarioError(ValueError):
    """A scenario file that cannot be read; the message says where and what to write instead."""


# -- reading


def read(text: str, file: str) -> list[Scenario]:
    """The scenarios of a file. Raises ScenarioError."""
    try:
        data = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  # BaseLoader makes text of everything
    except yaml.YAMLError as error:
        raise ScenarioError(f"{file} is no YAML: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("scenarios"), list):
        raise ScenarioError(f"{file} holds no scenarios: it is a mapping with a list called 'scenarios'.")
    shared = {name: value for name, value in data.items() if name != "scenarios"}
    scenarios = []
    for number, values in enumerate(data["scenarios"], 1):
        name = str(values.get("name", f"number {number}"))
        try:
            _known(shared, _SHARED)
            _known(values, _OWN)
            scenarios.append(_scenario(file, name, {**shared, **values}))
        except (NotationError, expressions.ExpressionError, ValueError) as error:
            raise ScenarioError(f"{file}, scenario '{name}': {error}") from error
    return scenarios


def _known(values: Any, allowed: Sequence[str]) -> None:
    for name in values:
        if name not in allowed:
            raise NotationError(f"There is no '{name}' here. It knows: {', '.join(allowed)}.")


def _scenario(file: str, name: str, values: Mapping[str, Any]) -> Scenario:
    zone = ZoneInfo(values.get("zone", "Asia/Shanghai"))
    given = [_entry(entry, number, zone) for number, entry in enumerate(values.get("given", ()), 1)]
    if _CLOCK in values:
        given.append(Entry(_CLOCK, notation.instant(values[_CLOCK], zone), {}))
    if not given:
        raise NotationError("Nothing is given.")
    lateness = values.get("lateness")
    any_order = values.get("orders") == "both"
    if any_order and not _reorders(given, values.get("clock", "events")):
        raise NotationError(
            "'orders: both' reorders nothing here: it is for two or more events of one user between two other entries "
            "(under 'clock: wall' of one topic, for a backlog is merged by event time). Leave it out."
        )
    return Scenario(
        file=file,
        name=name,
        rules=tuple(values.get("rules", ())),
        zone=zone,
        clock=values.get("clock", "events"),
        lateness=None if lateness is None else expressions.duration(lateness),
        given=tuple(given),
        triggers=tuple(expected(entry) for entry in values.get("triggers", ())),
        decisions=tuple(expected(entry) for entry in values.get("decisions", ())),
        retractions=tuple(expected(entry) for entry in values.get("retractions", ())),
        dead_letters=tuple(values.get("dead letters", ())),
        timers=None if "timers" not in values else int(values["timers"]),
        any_order=any_order,
    )


def _reorders(given: Sequence[Entry], clock: str) -> bool:
    """Whether some order of arrival is another one at the row: a backlog is merged by event time, whatever came first,
    except within a topic."""
    for part in _stretches(given):
        if part[0].kind == "event":
            places = {(e.event["user_id"], clock == "wall" and EVENT_TYPES[e.event["type"]].TOPIC) for e in part}
            if len(places) < len(part):
                return True
    return False


def _entry(entry: Mapping[str, Any], number: int, zone: ZoneInfo) -> Entry:
    if len(entry) != 1:
        raise NotationError(f"Entry {number} of 'given' is one instant with one event, such as '2026-03-01: {{...}}'.")
    words, value = next(iter(entry.items()))
    if words in (_REDELIVER, _CRASH):
        return Entry(words, 0, {}, value)
    if words in (_CLOCK, _STOP, _START):
        return Entry(words, notation.instant(value, zone), {})
    at = notation.instant(words, zone)
    return Entry("event", at, notation.event(value, at, number, zone))


# -- running


def arrivals(scenario: Scenario) -> Iterator[tuple[Entry, ...]]:
    """What is given, in every order of arrival that the scenario allows; as written first."""
    variants: list[tuple[Entry, ...]] = [()]
    for part in _stretches(scenario.given):
        orders = _orders(part) if part[0].kind == "event" and scenario.any_order else [part]
        variants = [(*before, *order) for before in variants for order in orders]
    yield from variants


def _stretches(given: Sequence[Entry]) -> list[tuple[Entry, ...]]:
    """Events that follow each other, and what else is given."""
    return [tuple(part) for _, part in groupby(given, lambda entry: entry.kind == "event")]


def _orders(events: tuple[Entry, ...]) -> list[tuple[Entry, ...]]:
    if len(events) <= ALL_ORDERS_UP_TO:
        return list(permutations(events))
    turned = [events[i:] + events[:i] for i in range(len(events))]
    return turned + [order[::-1] for order in turned]


def play(
    scenario: Scenario, given: Sequence[Entry], catalogue: Catalogue | None = None, *, one_by_one: bool = False
) -> Driver:
    """The driver after these entries. With `one_by_one`, events that follow each other are applied in exactly this
    order. Raises ScenarioError when a rule or an event that it names does not exist."""
    wall = scenario.clock == "wall"
    driver = Driver(
        _switched_on(scenario, catalogue or load()),
        clock="wall" if wall else "events",
        at=min(entry.at for entry in given if entry.at) - SECOND,
        lateness=scenario.lateness,
    )
    driver.run()
    working = True
    for part in _stretches(given):
        if part[0].kind != "event":
            for entry in part:
                working = _happens(driver, entry, working)
        elif one_by_one:
            _apply_one_by_one(driver, part)
        else:
            for entry in part:
                if wall and working and entry.at > driver.now:
                    driver.advance_time(entry.at)
                driver.now = max(driver.now, entry.at)
                driver.send(entry.event)
    if working:
        driver.run()
    return driver


def _happens(driver: Driver, entry: Entry, working: bool) -> bool:
    """What else is given; whether the worker works after it."""
    if entry.kind == _REDELIVER:
        _redeliver(driver, entry.argument)
    elif entry.kind == _CRASH:
        driver.crash(entry.argument)  # type: ignore[arg-type]  # a wrong word does what 'after' does not
    else:
        driver.advance_time(entry.at, working=entry.kind != _START)
        working = entry.kind != _STOP
    return working


def _apply_one_by_one(driver: Driver, events: Sequence[Entry]) -> None:
    """CLOCK=events: time comes as far as the earliest of these events and stands still there while they are applied in
    this order. Workers that look at a clock don't merge what they have not seen yet, and what comes late within
    LATENESS is not late: so each event meets a worker of that kind, which has lateness enough for all of them."""
    own = driver.plan
    driver.announce(min(entry.at for entry in events))
    driver.run()
    floor = driver.merged() - own.lateness - 1  # at one instant events go before timers
    latest = driver.merged()
    for entry in events:
        latest = max(latest, entry.at)
        driver.restart(own._replace(clock="wall", lateness=latest - floor))
        driver.now = latest
        driver.run()
        driver.send(entry.event)
        driver.run()
    driver.restart(own)


def _switched_on(scenario: Scenario, catalogue: Catalogue) -> Catalogue:
    if not scenario.rules:
        return catalogue
    unknown = [name for name in scenario.rules if name not in catalogue.rules]
    if unknown:
        raise ScenarioError(
            f"{scenario.file}: there is no rule '{unknown[0]}'. There are: {', '.join(catalogue.rules)}."
        )
    return index({name: catalogue.rules[name] for name in scenario.rules}, catalogue.policy)


def _redeliver(driver: Driver, event_id: str) -> None:
    for topic in driver.plan.inputs:
        for record in driver.broker.log((topic, 0)):
            if f'"{event_id}"'.encode() in (record.value or b""):
                driver.redeliver((topic, 0), record.offset)
                return
    raise ScenarioError(f"No event '{event_id}' was given that could be redelivered.")


def check(scenario: Scenario, catalogue: Catalogue | None = None) -> str | None:
    """Runs a scenario in all its orders of arrival. None when all is as expected, else what is not, for a person."""
    for number, given in enumerate(arrivals(scenario), 1):
        for one_by_one in (False, True) if scenario.any_order and scenario.clock == "events" else (False,):
            driver = play(scenario, given, catalogue, one_by_one=one_by_one)
            problem = _differences(scenario, driver)
            if problem:
                order = ", ".join(str(entry.event["event_id"]) for entry in given if entry.kind == "event")
                way = ", one by one" if one_by_one else ""
                return f"{scenario.file}: {scenario.name}\norder of arrival {number}{way}: {order}\n{problem}"
    return None


def _differences(scenario: Scenario, driver: Driver) -> str:
    problems = []
    fired = [seen("fired", trigger) for trigger in driver.triggers]
    records = [seen(decision.outcome, decision) for decision in driver.decisions]
    held = [record for record in records if record.kind not in ("fired", "retracted")]
    retracted = [seen("retracted", retraction) for retraction in driver.retractions]
    for title, wanted, got in (
        ("triggers", scenario.triggers, fired),
        ("decisions", scenario.decisions, held),
        ("retractions", scenario.retractions, retracted),
    ):
        problems += compare(title, wanted, got, scenario.zone)
    problems += _unmatched(fired, [record for record in records if record.kind == "fired"])
    codes = tuple(letter.code for letter in driver.dead_letters)
    if codes != scenario.dead_letters:
        reasons = "; ".join(f"{letter.code}: {letter.reason}" for letter in driver.dead_letters) or "none"
        problems.append(f"dead letters: expected {', '.join(scenario.dead_letters) or 'none'}; there are {reasons}")
    timers = driver.timers()
    if scenario.timers is not None and len(timers) != scenario.timers:
        left = ", ".join(f"{timer.rule} {timer.user} step {timer.step}" for timer in timers)
        problems.append(f"timers: expected {scenario.timers}, there are {len(timers)}: {left}")
    return "\n".join(problems)


def _unmatched(triggers: Sequence[Seen], decisions: Sequence[Seen]) -> list[str]:
    """Each trigger has its own decision record, with the same id."""
    ours, theirs = ([getattr(record.message, "trigger_id", "") for record in each] for each in (triggers, decisions))
    return [] if ours == theirs else [f"triggers {ours} and their decision records {theirs} are not the same"]
