"""All that a shard knows, and how it comes back from its changelog. Rows are replaced, never edited.

What decides builds on it, each topic in a module of its own; here alone is said what a shard holds.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping

import msgspec

from app.accounts import Accounts
from app.core.guardrails.rate import Budget
from app.core.moment import Moment
from app.core.row import NEVER, Row, decode, encode, encoded_timer, next_timer, require_readable
from app.core.rules import Catalogue
from app.processor.input import Input
from app.processor.meta import BEGINNING, Meta
from app.processor.plan import Plan, partition_of
from app.processor.records import META_KEY, QUARANTINE_PREFIX, TRANSFERS, Fingerprint, Output


class State:
    """The state of one shard."""

    def __init__(self, plan: Plan, shard: int) -> None:
        self.plan = plan
        self.shard = shard
        self._inputs = {name: Input(name, index) for index, name in enumerate((*plan.inputs, TRANSFERS))}
        self._cold: dict[str, bytes] = {}
        self._hot: dict[str, Row] = {}
        self._dirty: dict[str, Row] = {}
        self._heap: list[tuple[int, str]] = []
        self._timers: dict[str, int] = {}
        self._meta = Meta()
        self._fresh = True  # nothing was ever written here
        self._meta_dirty = False
        self._noted = BEGINNING  # merged time as the changelog has it
        self._now = BEGINNING
        self._look: int | None = None  # the look that merged time is on its way to
        self._stormed = 0  # timers of this look that have fired
        self._look_ends: dict[str, int] = {}  # its inputs that have not been applied up to their ends
        self._trace: list[object] = []
        self._outputs: list[Output] = []
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._offsets: dict[str, int] = {}
        self._source = f"/lifecycle-triggers/{plan.app_id}"
        self._catalogue = plan.catalogue
        self._offers: dict[int, tuple[int, Catalogue | str]] = {}
        self._unknown = True  # under which catalogue the rows were written
        self._to_settle: list[str] | None = None  # users, the next one last; None = not listed yet
        self._accounts = Accounts(plan.erasure)
        self._sizes: dict[str, tuple[int, int]] = {}
        """Of users touched since the last batch: bytes of the row when it was last encoded, bytes of events since."""
        self._quarantined: dict[tuple[str, int], str] = {}
        self.consecutive_rejects = 0
        """Since the last message that could be used; ignored ones count for nothing."""
        self._sends_from: dict[str, int] | None = None
        self._enters_from: dict[str, int] = {}
        self._budgets: dict[str, Budget] = {}

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Takes a changelog record; the last one of a key counts."""
        if key == META_KEY:
            self._meta = msgspec.msgpack.decode(value, type=Meta) if value else Meta()
            self._fresh = value is None
            require_readable(self._meta.row_version)
        elif key.startswith(QUARANTINE_PREFIX):
            name, _, offset = key[len(QUARANTINE_PREFIX) :].decode().partition("\x00")
            self._quarantined.pop((name, int(offset)), None)
            if value is not None:
                self._quarantined[name, int(offset)] = value.decode()
        elif self._accounts.restore(key, value):
            pass
        elif value is None:
            self._cold.pop(key.decode(), None)
        else:
            self._cold[key.decode()] = value

    def restored(self) -> None:
        """The changelog was read to its end: timers and the inputs' clocks come back. Raises WrongErasureKey."""
        self._accounts.restored(self._meta.keyed)
        for user, value in self._cold.items():
            due = encoded_timer(value)
            if due < NEVER:
                self._timers[user] = due
        self._build_heap()
        for name, at in self._meta.clocks.items():
            if name in self._inputs:
                self._inputs[name].clock = at

    def _build_heap(self) -> None:
        self._heap = [(due, user) for user, due in self._timers.items()]
        heapq.heapify(self._heap)

    # -- what is shown

    @property
    def merged(self) -> int:
        """The instant up to which all inputs have been applied."""
        return self._meta.merged

    @property
    def read_up_to(self) -> Mapping[str, int]:
        """By input, the offset that comes next by the shard's own changelog; nothing of an input it never had."""
        return self._meta.read_up_to

    @property
    def applied(self) -> Mapping[str, Fingerprint]:
        """By input, the last record before that place; nothing of an input that gave none, or was set elsewhere."""
        return self._meta.applied

    @property
    def catalogue_number(self) -> int:
        """Number of the published catalogue in effect; 0 = none was offered yet."""
        return self._meta.catalogue

    @property
    def pending_timers(self) -> int:
        """Users with a timer."""
        return len(self._timers)

    @property
    def rows_held(self) -> int:
        """Users known."""
        return len(self._cold) + sum(user not in self._cold for user in self._dirty)

    def row(self, user: str) -> Row | None:
        """The row of a user, for whoever wants to look at it."""
        found = self._hot.get(user)
        if found is None and (data := self._cold.get(user)) is not None:
            found = self._hot[user] = decode(data)
        return found

    # -- for all topics

    @property
    def now(self) -> int:
        """Processing time: the latest look, or merged time under CLOCK=events."""
        return self._now if self.plan.clock == "wall" else self._meta.merged

    def _moment(self, now: int, floor: int | None = None) -> Moment:
        assert self._sends_from is not None
        return Moment(
            now=now,
            floor=self._meta.merged - self.plan.lateness if floor is None else floor,
            catalogue=self._catalogue,
            sends_from=self._sends_from,
            enters_from=self._enters_from,
            trace=self._trace,
            budgets=self._budgets,
        )

    def _keep(self, user: str, row: Row, anew: bool = False) -> None:
        """The row in its user's place, its timer in the heap."""
        before = self._hot.get(user)
        self._dirty[user] = self._hot[user] = row
        if before is not None and before.runs is row.runs and before.stage_due == row.stage_due and not anew:
            return  # its timers are what they were
        due = next_timer(row)
        if due >= NEVER:
            self._timers.pop(user, None)
        elif anew or self._timers.get(user) != due:
            self._timers[user] = due
            heapq.heappush(self._heap, (due, user))

    def _size(self, row: Row) -> int:
        return len(self._encoded(row))

    def _encoded(self, row: Row) -> bytes:
        """The row in the version in which this shard writes."""
        return encode(row, self._meta.row_version)

    def _partition_of(self, user: str) -> int:
        return partition_of(user.encode(), self.plan.partitions, self.plan.partitioner)
