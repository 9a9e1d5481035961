"""The rules change while events stream at full rate on two workers: one is added, some are changed, paused, resumed and
removed, each by a command; workers are killed across the change-overs.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from pathlib import Path

import orjson
from click.testing import CliRunner

from app import rulebook
from app.cli import cli
from app.settings import PREFIX, Settings
from schemas.instant import DAY, format_instant, parse_instant
from tests.faults.outcome import Left, Verdict
from tests.faults.stage import Failed, Stage, until
from tests.faults.stream import FIRST_DAY, Day
from tests.kafka.harness import environment

ADDED, CHANGED, PAUSED, RESUMED, REMOVED, LAST = (FIRST_DAY + days * DAY for days in (30, 50, 70, 85, 100, 120))
#: The stretches of time between them.
STRETCHES = ("at first", "added", "changed", "paused", "resumed", "removed")

THANKS = """\
rule: thanks
version: 1
family: order
about: A word of thanks two days after each order.
enter: {on: OrderPaid, key: user}
steps: [{after: 2d}]
send: {action: contact, class: transactional, channels: [push], expires_after: 36h}
reason: "Thank you for {user.paid_orders} orders."
reentry: after_exit
"""


def lifecycle(settings: Settings, *arguments: object) -> tuple[int, str]:
    """A command as a person runs it: exit code, and all that it said."""
    env = {name: text for name, text in environment(settings).items() if name.startswith(PREFIX)}
    done = CliRunner().invoke(cli, [str(one) for one in arguments], env=env)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


async def say(stage: Stage, *arguments: object) -> str:
    """The same, which must succeed."""
    code, said = await asyncio.to_thread(lifecycle, stage.settings, "rules", *arguments)
    if code != 0:
        raise Failed(f"lifecycle rules {' '.join(map(str, arguments))} ended with {code}:\n{said}")
    return said


class Catalogue:
    """A directory of rules, to be edited. It begins as the shipped one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in rulebook.texts().items():
            (directory / name).write_text(text)

    def edit(self, rule: str, change: Callable[[str], str]) -> None:
        """Another meaning, and so another version."""
        path = self.directory / f"{rule}.yaml"
        text = path.read_text()
        after = change(text)
        assert after != text
        path.write_text(re.sub(r"^version: (\d+)$", lambda m: f"version: {int(m[1]) + 1}", after, flags=re.M))


async def changed_under_load(stage: Stage, size: int) -> Verdict:
    """`size` of the change-overs, in turn, have a worker killed across them."""
    stage.start("left", static=True)
    stage.start("right")
    await stage.ready()
    files = Catalogue(stage.directory / "rules")
    days, streamed = stage.shop.days(), 0.0
    for number, (at, change) in enumerate(_changes(files).items(), 2):
        at_text = format_instant(at, UTC)
        stage.told += (await say(stage, *change(), "--effective-at", at_text)).splitlines()
        await known(stage, number)
        began = time.monotonic()
        streaming = asyncio.create_task(stage.load.publish(_at_once(_until(days, at + 10 * DAY))))
        if number - 2 < size:
            await stage.pause(0.0, 0.6)
            victim = stage.dice.choice(("left", "right"))
            stage.kill(victim)
            stage.again(victim)
        await streaming
        streamed += time.monotonic() - began
    stage.told.append(f"{stage.load.events:,} events, {stage.load.events / streamed:,.0f} a second while they came")
    await stage.load.publish(_at_once(_until(days, LAST)))
    verdict = await stage.verdict()
    stage.told += table(stage.expected)  # and what was found is the same, byte for byte, or the verdict says so
    return verdict


def _changes(files: Catalogue) -> Mapping[int, Callable[[], tuple[object, ...]]]:
    """At each instant, what is done to the files before, and the command."""

    def add() -> tuple[object, ...]:
        (files.directory / "thanks.yaml").write_text(THANKS)
        return "publish", files.directory

    def change() -> tuple[object, ...]:
        files.edit("replenishment", lambda text: text.replace("policy.lead}", "policy.lead - 1d}"))
        files.edit("winback", lambda text: text.replace("{after: 30d,", "{after: 20d,") + "on_change: restart\n")
        files.edit("at_risk", lambda text: text.replace("priority: 30", "priority: 31") + "on_change: follow\n")
        return "publish", files.directory

    def remove() -> tuple[object, ...]:
        (files.directory / "second_order_nudge.yaml").unlink()
        return "publish", files.directory

    return {
        ADDED: add,
        CHANGED: change,
        PAUSED: lambda: ("pause", "coupon_unused"),
        RESUMED: lambda: ("resume", "coupon_unused"),
        REMOVED: remove,
    }


async def known(stage: Stage, number: int) -> None:
    """Wait until every worker has read the publication: under CLOCK=events nothing else says when that is."""
    workers = list(stage.workers.values())
    await until(
        lambda: all(worker.metric("lifecycle_published") >= number for worker in workers),
        30,
        lambda: "".join(worker.log()[-2000:] for worker in workers),
    )


def _until(days: Iterator[Day], end: int) -> Iterator[Day]:
    for day in days:
        yield day
        if day.ends >= end:
            return


def _at_once(days: Iterator[Day]) -> Iterator[Day]:
    """All of them without waiting in between, so that the workers are never without a backlog."""
    some = list(days)
    yield Day(some[-1].ends, [message for day in some for message in day.events + day.clocks], [])


def fired(left: Left) -> Counter[tuple[str, int, str]]:
    """Triggers by rule, version and the stretch of time in which they were decided."""
    found: Counter[tuple[str, int, str]] = Counter()
    starts = [format_instant(at, UTC)[:19] for at in (FIRST_DAY, ADDED, CHANGED, PAUSED, RESUMED, REMOVED)]
    for (topic, _), log in left.outputs.items():
        for record in log if topic.startswith("triggers.") else ():
            body = orjson.loads(record.value or b"{}")
            if "rule_version" not in body:
                continue  # a retraction
            at = format_instant(parse_instant(body["decided_at"]), UTC)
            stretch = [name for name, start in zip(STRETCHES, starts, strict=True) if at >= start][-1]
            found[body["rule"], body["rule_version"], stretch] += 1
    return found


def table(left: Left) -> list[str]:
    """The same for people: a line a rule and version, with the runs of the rule that were entered and made to exit."""
    found = fired(left)
    lines = [f"{'rule':<24}{'entered':>9}{'exited':>8}" + "".join(f"{name:>10}" for name in STRETCHES) + "  fired"]
    for rule, version in sorted({(rule, version) for rule, version, _ in found}):
        runs = [left.counts.get(("runs", what, rule), 0) for what in ("entered", "exited")]
        counts = "".join(f"{found[rule, version, name]:>10,}" for name in STRETCHES)
        lines.append(f"{f'{rule} v{version}':<24}{runs[0]:>9,}{runs[1]:>8,}{counts}")
    return lines
