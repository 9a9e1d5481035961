"""What the demo shows: a live panel on a terminal, a line now and then elsewhere; in the end a table and samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app import clock
from app.demo.tally import Tally, addressed, samples
from app.feed import Told
from app.replay.journey import Journey
from schemas.instant import SECOND, BadInstant, format_instant, parse_instant

_LATEST: Final = 8
_LINE_EVERY_S: Final = 2.0


@dataclass
class State:
    """How far the replay has come."""

    total: int
    """Events to publish and apply."""
    published: int = 0
    applied: int = 0
    seconds: float = 0.0
    """Since the first event was published."""
    merged: float | None = None
    """Where the worker's time stands, seconds since 1970."""
    triggers: int = 0
    latest: deque[Told] = field(default_factory=lambda: deque(maxlen=_LATEST))

    @property
    def in_time(self) -> list[Told]:
        """The latest triggers by when they were decided: each shard has a time of its own, and some are ahead."""
        return sorted(self.latest, key=decided_at)

    @property
    def rate(self) -> float:
        """Events applied a second."""
        return self.applied / self.seconds if self.seconds else 0.0

    @property
    def date(self) -> str:
        """The day in the replayed year."""
        return format_instant(int(self.merged) * SECOND, UTC)[:10] if self.merged else "..."


class Screen:
    """Prints to `console`; between `begin` and `end` also what moves."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = clock.monotonic()
        self._live: Live | None = None
        self._next_line = 0.0
        self._shown = 0
        """When the last trigger that was shown was decided."""

    def step(self, text: str) -> None:
        """A line with the seconds since the start."""
        self.console.print(f"[dim]{self.seconds:5.1f} s[/]  {text}", soft_wrap=True)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return clock.monotonic() - self._started

    def begin(self, state: State) -> None:
        """From now on `state` is shown."""
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=8, get_renderable=lambda: _panel(state))
            self._live.start()

    def update(self, state: State) -> None:
        """Elsewhere than on a terminal: a line every two seconds, and the latest trigger, unless its shard is behind
        the one before."""
        now = clock.monotonic()
        if self._live is not None or now < self._next_line:
            return
        self._next_line = now + _LINE_EVERY_S
        self.step(
            f"{state.date}: {state.published:,} published, {state.applied:,} of {state.total:,} events processed "
            f"({state.rate:,.0f}/s), {state.triggers:,} triggers"
        )
        if state.latest and decided_at(newest := state.in_time[-1]) >= self._shown:
            self._shown = decided_at(newest)
            self.console.print(Text("         ") + trigger_line(newest), soft_wrap=True)

    def end(self) -> None:
        """Nothing moves any more. Harmless when nothing did."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def data(journey: Journey) -> str:
    """What is replayed, and what of it was made up."""
    real, made_up = journey.counts, journey.simulated
    return (
        f"A year of {journey.households:,} households (The Complete Journey): {real['OrderPaid']:,} real orders with "
        f"{journey.lines:,} lines, {real['CouponIssued']:,} coupons, {real['CouponRedeemed']:,} redemptions.\n"
        f"         [yellow]Simulated[/], because the data has none: {made_up['UserLoggedIn']:,} logins, "
        f"{made_up['ProductViewed']:,} product views (on days with a real purchase only),\n"
        f"         and for each household a CustomerBaseline and a ProfileUpdated (the shop's time zone, English)."
    )


def decided_at(told: Told) -> int:
    """When a trigger or a retraction was decided, microseconds UTC; 0 when it does not say."""
    try:
        return parse_instant(str(told.body.get("decided_at")))
    except BadInstant:
        return 0


def trigger_line(told: Told) -> Text:
    """A trigger or a retraction in one line."""
    at = _short(told.body.get("decided_at"))
    step = "retracted" if told.retracted else f"step {told.body.get('step')}"
    return Text.assemble(
        (f"{at}  ", "dim"),
        (f"{told.rule:<14} ", "cyan"),
        f"{told.user_id:<8} {step:<10}",
        " ".join(told.reason.split()),
    )


def results(tally: Tally, fired: Sequence[Told]) -> RenderableType:
    """The table, what the gates did, how much users got, and five samples."""
    table = Table(title="What became of it", title_justify="left", title_style="bold")
    table.add_column("rule", style="cyan")
    for name in ("entered", "ended by the customer", "fired", "held back"):
        table.add_column(name, justify="right")
    for rule in tally.rules:
        counts = tally.rule(rule)
        table.add_row(rule, *(f"{n:,}" for n in (counts.entered, counts.ended, counts.fired, counts.held)))
    got = addressed(fired)
    contacts = (
        f"{got.messages:,} messages to {got.users:,} customers in the year, {got.messages / max(got.users, 1):.1f} on "
        f"average, {got.most} to the one who got most. Grants are no messages."
    )
    gates = (f"{gate} {', '.join(f'{n:,} {what}' for what, n in sorted(c.items()))}" for gate, c in tally.gates.items())
    notes = (
        "entered: runs begun. ended by the customer: bought or redeemed before the last step was due.",
        "fired: triggers, one a step. held back: due, but dropped or stale at a gate. The rest wait at the year's end.",
        f"The gates: {'; '.join(gates)}.",
        contacts,
    )
    return Group(table, *(Text(note, style="dim") for note in notes), *map(_sample, samples(fired)))


def _sample(told: Told) -> RenderableType:
    body = told.body
    first, last = (_short(body.get(name)) for name in ("not_before", "expires_at"))
    return Text.assemble(
        (f"\n{told.rule}", "cyan"), f" step {body.get('step')} for ", (told.user_id, "bold"),
        (f"  {_way(body)}, between {first} and {last} (their time)", "dim"),
        f"\n  {told.reason}", (f"\n  because of {_evidence(body)}; trigger {told.id}", "dim"),
    )  # fmt: skip


def _way(body: dict[str, Any]) -> str:
    return f"by {body['channel']}" if body.get("channel") else "for the coupon service"


def _evidence(body: dict[str, Any]) -> str:
    events = [f"{event.get('type')} {event.get('event_id')}" for event in body.get("evidence") or ()]
    return ", ".join(events) or "nothing"


def _short(at: object) -> str:
    """2017-05-15T09:09:19.715717-04:00 -> 2017-05-15 09:09"""
    return str(at)[:16].replace("T", " ")


def _panel(state: State) -> RenderableType:
    bars = Table.grid(padding=(0, 2))
    bars.add_row("published", ProgressBar(state.total, state.published, width=40), f"{state.published:,}")
    bars.add_row(
        "processed",
        ProgressBar(state.total, state.applied, width=40),
        f"{state.applied:,} of {state.total:,}  {state.rate:,.0f}/s  it is {state.date}",
    )
    lines = [trigger_line(told) for told in state.in_time]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(bars, Text(f"{state.triggers:,} triggers, the latest:", style="bold"), *lines)
