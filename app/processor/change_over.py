"""One catalogue is in effect at each instant of merged time. When another takes over, its predecessor's timers have
fired, and runs that it ends, takes over or begins anew are looked after before anything else happens.
"""

from __future__ import annotations

from app.core import engine
from app.core.guardrails import rate, start
from app.core.row import decode, run_key
from app.core.rules import Catalogue
from app.processor.meta import BEGINNING, EVERY_RULE
from app.processor.records import RulesNotLoaded
from app.processor.timers import Timers

#: How many users a change-over looks at for each one that a batch may adapt: most need nothing.
LOOKED_AT = 20


class ChangeOver(Timers):
    """The rules in effect in one shard."""

    def offer(self, number: int, effective_at: int, catalogue: Catalogue | str) -> None:
        """A published catalogue: every shard changes over to it when merged time reaches `effective_at`. In place of
        one that this worker cannot load, the reason."""
        if number > self._meta.catalogue:
            self._offers[number] = (effective_at, catalogue)
        elif number < self._meta.catalogue:
            return
        elif isinstance(catalogue, str):  # under it nothing can go on, unless a later one is in effect by now
            self._offers[number] = (BEGINNING, catalogue)
            self._meta.unsettled = []
        else:  # the one that was in effect when the shard was last written
            self._catalogue, self._sends_from, self._unknown = catalogue, None, False

    def _activate(self) -> None:
        """A rule that first runs here is active from now on: its start policy counts from this instant."""
        if self._sends_from is not None:
            return
        version = self.plan.state_version
        if version is not None and (version > self._meta.row_version or self._fresh):
            self._meta.row_version = version
            self._meta_dirty = True
        sends: dict[str, int] = {}
        self._enters_from = {}
        now = self._meta.merged if self.plan.clock == "events" else self._now
        for name, rule in self._catalogue.rules.items():
            if name not in self._meta.active_since:
                self._meta.active_since[name] = now
                self._meta_dirty = True
            active = self._meta.active_since[name]
            policy = self.plan.start or rule.start or start.DEFAULT
            sends[name] = start.sends_from(policy, active)
            if (enters := start.enters_from(policy, active)) is not None:
                self._enters_from[name] = enters
        self._sends_from = sends
        self._share_rates()

    def _share_rates(self) -> None:
        """Each shard has an equal share of each rule's maximum rate, and its own state of it. Under CLOCK=wall a timer
        fires LATENESS and a look after its instant: its slot is good for longer, and slots lie further apart."""
        self._budgets = {}
        for name, rule in self._catalogue.rules.items():
            if (limit := rule.send.max_rate) is not None:
                late = self.plan.lateness + limit.window // 20 if self.plan.clock == "wall" else 0
                free_from = self._meta.slots.get(name, BEGINNING)
                self._budgets[name] = rate.budget(limit, self.plan.partitions, late)._replace(free_from=free_from)
        self._meta.slots = {name: at for name, at in self._meta.slots.items() if name in self._budgets}

    def _next_change(self, by: int) -> int | None:
        """The next instant up to `by` at which a catalogue takes effect. One that cannot be loaded is passed over when
        a later one that can is in effect by then, or by the wall clock."""
        if not any(at <= by for at, _ in self._offers.values()):
            return None
        wall = max(by, self._now)
        best = max((n for n, (at, new) in self._offers.items() if at <= wall and isinstance(new, Catalogue)), default=0)
        for number in [n for n, (_, new) in self._offers.items() if n < best and isinstance(new, str)]:
            del self._offers[number]
        change = min(at for at, _ in self._offers.values())
        return change if change <= by else None

    def _change_before(self, at: int, limit: int, reached: bool = True) -> int | None:
        """Before time goes on to `at`: a catalogue that takes effect by then. Its predecessor's timers fire first,
        unless what may yet cancel them has not been applied (`reached`). None when there is none; else how much of the
        limit was used."""
        if not self._offers or (change := self._next_change(at)) is None:
            return None
        fired = self._fire_due(change - self.plan.lateness, limit, inclusive=False) if reached else 0
        if fired < limit:
            self._change_over(change)
        return max(fired, 1)

    def _change_over(self, until: int) -> None:
        """Takes up the catalogue that is in effect from this instant on; of several that are due, one instant after the
        other, so that what each says of runs in flight is done. Runs that exit, follow or begin anew are looked after
        before anything else happens (`_settle`), the others when they are touched. Raises RulesNotLoaded."""
        number = max(n for n, (at, _) in self._offers.items() if at <= until)
        _, after = self._offers[number]
        if isinstance(after, str):
            raise RulesNotLoaded(
                f"the rules published as number {number}, which are in effect, cannot be loaded by this worker "
                f"({after.rstrip('.')}). Start workers of the release that published them, or a later one; or publish "
                "rules that this one can load (under CLOCK=events, in effect from the same instant) and restart it "
                "once they are in effect"
            )
        if self.plan.clock == "events" and until > self._meta.merged:
            self._meta.merged = until  # the change is at one instant, whatever the batches cut
        before, self._catalogue, self._meta.catalogue = self._catalogue, after, number
        self._offers = {n: offer for n, offer in self._offers.items() if n > number}
        self._meta.unsettled = [EVERY_RULE] if self._unknown else list(before.unsettled_by(after))
        self._meta.settled, self._to_settle, self._unknown = "", None, False
        self._meta_dirty = True
        for name in self._meta.active_since.keys() - after.rules.keys():
            del self._meta.active_since[name]  # should it come back, it begins anew
        self._sends_from = None
        self._activate()

    def _settle(self, limit: int) -> int:
        """Adapts runs to the catalogue that took over, in the order of their users' ids, at most `limit` users at a
        time; a user is decoded only if one of these rules is named in the row. Runs without a timer too: when they are
        touched a third catalogue may be in effect, which knows nothing of this one."""
        if self._to_settle is None:
            users = self._cold.keys() | self._dirty.keys()
            self._to_settle = sorted((user for user in users if user > self._meta.settled), reverse=True)
        every = EVERY_RULE in self._meta.unsettled
        names = [run_key("" if every else name, "").encode() for name in self._meta.unsettled]
        adapted = looked = 0
        while self._to_settle and adapted < limit and looked < limit * LOOKED_AT:
            user = self._to_settle.pop()
            looked += 1
            row = self._hot.get(user)
            if row is None:
                data = self._cold[user]
                if not any(name in data for name in names):
                    continue
                row = decode(data)
            after = engine.settle(row, self._moment(self.now))
            if after.runs is not row.runs:
                self._keep(user, after)
                self._collect(user)
                adapted += 1
            self._meta.settled = user
        self._meta_dirty = True
        if not self._to_settle:
            self._meta.unsettled, self._meta.settled, self._to_settle = [], "", None
        return max(adapted, looked // LOOKED_AT, 1)
