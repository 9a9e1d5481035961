"""One user's row: everything the system knows and still owes this user, in one value that is written as one record.

Rows are replaced, not mutated: `engine.step` takes one and gives the next. What is inside is bounded (the constants
below), so that no user can grow a row without end. Instants are microseconds UTC (`schemas.instant`).
"""

from __future__ import annotations

from typing import Any

import msgspec

#: The version this code writes. A row of a newer version is refused (`NewerRow`), an older one is read.
ROW_VERSION = 2
#: How many of `Row`'s fields each older version has. Fields are only ever added, at the end, with a default.
FIELDS: dict[int, int] = {1: 18}

#: Orders and coupons kept with their state; older ones leave their id's hash, and orders their sums.
MAX_ORDERS = 32
MAX_COUPONS = 256
MAX_VIEWS = 30
MAX_SENT = 128
MAX_CARTS = 8
#: What was said about channels and categories. More than can be asked about: of the others the oldest go.
MAX_CONSENTS = 128
#: The latest orders that keep their lines; a refund of lines of an older one changes its money only.
MAX_ORDERS_WITH_LINES = 16
#: Lines of all orders together; a single order may have more.
MAX_LINES = 1000
#: Refunds of one order that are remembered by their ids; lines of refunds that wait for their order.
MAX_REFUNDS = 64
#: After-sale cases of one order that are remembered.
MAX_CASES = 16
#: The largest sum of money, in minor units: it stays a 64-bit number whatever is added to it.
MAX_MINOR = 1 << 61
#: Ended runs kept per (rule, key), so that a refund can give back what the order had ended.
MAX_ENDED_RUNS = 4
#: Keys whose runs are over, and kept in case that they are reversed or what they sent is retracted.
MAX_RESTING = 256
#: Keys of one rule whose runs are alive. Of more, those entered first exit, until three quarters are left: encoding and
#: decoding a row costs what is in it, and one user must not slow a partition. Twice the coupons that are kept.
MAX_ALIVE = 512
#: With each so many keys of runs more, a row is looked through for runs that nothing will come of, and for too many.
MANY_RUN_KEYS = 64
#: An event id is remembered for 7 days and at least the last 512; never more than 8,192 of them.
LEDGER_MIN = 512
#: Keys remembered for `reentry: every_key`, so that they enter once.
MAX_ENTRIES = 256
LEDGER_MAX = 8192
#: Accounts that became part of this one and are known by name; what is still said of older ones is passed over.
MAX_MERGED = 256
LEDGER_DAYS = 7
_ENTRY = 12  # bytes of a ledger entry: 8 of the id's hash, 4 of the hour
_HOUR = 3_600_000_000

#: The key of a checkout that names neither its order nor itself: each time it may be another one.
NAMELESS_CHECKOUT = "checkout:"

NEVER = 253_370_764_800_000_000
"""An instant that does not come (the year 9999): what an open-ended coupon 'expires' at."""


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event that ended something, or could have: enough to take it back when its order is refunded."""

    at: int
    event_id: str
    kind: str
    order_id: str | None = None


class Fired(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A trigger that went out and may still be retracted."""

    trigger_id: str
    step: int
    due_at: int
    expires_at: int
    sequence: int
    """Of its `fired` decision record."""
    at: int
    """When it was decided: an end that happened before and arrives after makes it wrong."""
    # -- version 2
    ordinal: int = 0
    """Of the run when it went out: it may have begun anew since (another year, another version)."""
    version: int = 0
    """Of its rule, with the two below, as the trigger said them. 0 and '' stand in rows written before they were kept:
    what they are now is said of such a trigger."""
    family: str = ""
    mode: str = ""


class Run(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a user into a rule, with its timer. Alive while `ends` is empty and a step is left."""

    rule: str
    version: int
    kind: str
    key: str
    event_id: str
    entered_at: int
    order_id: str | None = None
    ordinal: int = 0
    step: int = 0
    """Index of the next step."""
    due_at: int = NEVER
    """When the next step is due by its rule."""
    timer_at: int = NEVER
    """When to look next: due_at, or the instant to which the candidate was deferred. Its ends: `ends` of the rule."""
    sequence: int = 0
    """Decision records already written for the pending candidate."""
    held: bool = False
    """The thing waits (a locked coupon): the timer is kept, but nothing comes of it."""
    ends: tuple[Mark, ...] = ()
    fired: tuple[Fired, ...] = ()
    data: dict[str, Any] = {}
    """What the entry event said and the rule needs later (units, product)."""
    evidence: tuple[tuple[str, str, int], ...] = ()
    """(event_id, type, occurred_at) of the events that caused the entry."""
    competing: bool = False
    """Let through by the gates before arbitration, it waits for its window to close."""
    slot: int = 0
    """Of a candidate that its rule's maximum rate deferred: how long the slot with which it comes back is good; 0 = it
    holds none."""
    waits_for: str = ""
    """What wakes a deferred candidate before its `timer_at`: the end of a `pause`, or its `coupon` when it is free."""


class OrderLine(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A line of an order as far as runs need it: what runs out, how many pieces and units, and what came back."""

    product_id: str
    product_type: str
    quantity: int
    units: int
    """Consumable units of one piece."""
    kind: str = ""
    """'' own use, 'gift', 'subscription'."""
    title: str | None = None
    image_url: str | None = None
    returned: int = 0
    """Pieces that came back."""
    refunded: int = 0
    """Pieces whose money went back."""
    category: str = ""


class Order(msgspec.Struct, frozen=True, array_like=True):
    """An order's facts, whatever the order in which they arrived."""

    order_id: str
    parent_id: str | None = None
    placed_at: int | None = None
    paid_at: int | None = None
    cancelled_at: int | None = None
    received_at: int | None = None
    currency: str = ""
    total_minor: int = 0
    refunded_minor: int = 0
    refunded_whole: bool = False
    returned_whole: bool = False
    returned_for_sum: bool = False
    """A refund of a sum, naming no lines, said that goods came back: all of them, once the whole sum is back."""
    refunds: tuple[str, ...] = ()
    """Refund ids seen: the second line of defence behind the event ledger."""
    pending_returns: tuple[tuple[str, int, bool], ...] = ()
    """(product_id, pieces, goods came back) of refunds that arrived before the order was paid."""
    lines: tuple[OrderLine, ...] = ()
    coupons_used: tuple[str, ...] = ()
    coupons_issued: tuple[str, ...] = ()
    paid_event_id: str = ""
    pay_url: str | None = None
    pay_deadline: int | None = None
    cases: tuple[str, ...] = ()
    """Open after-sale cases."""
    deposit_until: int | None = None
    deposit_from: int | None = None
    # -- version 2
    deposit_at: int | None = None
    case_words: tuple[tuple[str, int, bool], ...] = ()
    """(case, instant, open) of the latest word about each after-sale case, which may come before an earlier one."""
    refunded_unnamed: int = 0
    """What refunds that name no currency came to while the order's was not known, in ten-thousandths."""


class Coupon(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A coupon's terms and what became of it. `issued_at` is None while only its redemption has arrived."""

    coupon_id: str
    issued_at: int | None = None
    event_id: str = ""
    kind: str = "amount"
    value: str | None = None
    currency: str | None = None
    value_minor: int = 0
    min_spend: str | None = None
    batch: str | None = None
    pack_id: str | None = None
    valid_from: int = 0
    expires_at: int = NEVER
    order_id: str | None = None
    """The order that issued it, if one did."""
    redeemed: Mark | None = None
    revoked: Mark | None = None
    locked_at: int | None = None
    locked_by: str | None = None
    """The order that it waits for, if the lock names one."""
    returned_at: int | None = None
    locked_until: int = NEVER
    """When the lock lapses by itself."""


class Consent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a user said about a channel (and category). `quota`: how many sends the grants still allow; None = any."""

    granted: bool
    at: int
    quota: int | None = None
    # -- version 2
    own_quota: int = 0
    """What the latest grant brought of it."""
    refused_at: int = -1
    """The latest refusal, or grant without a quota: a grant before it counts no more, whenever it is heard of."""
    unsent: int = 0
    """Sends of the quota that would have been, of the control group and of rules in shadow mode: they count for other
    such ones only."""


class Sent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A contact that counts for the caps."""

    at: int
    channel: str
    family: str
    trigger_id: str = ""
    """'' = sent by somebody else (feedback)."""
    shadow: bool = False
    """A ghost's, of the control group or of a rule in shadow mode: it counts for other ghosts only."""


#: (instant, event id, seconds): one look at a product.
Look = tuple[int, str, int]


class View(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a user looked at: one row a product."""

    product_id: str
    last_at: int
    visits: int = 1
    dwell: int = 0
    """Seconds, the longest look."""
    category: str = ""
    product_type: str = ""
    title: str | None = None
    image_url: str | None = None
    summed: tuple[int, int, int] = (-1, 0, 0)
    """(latest, visits, longest) of the looks before those in `looks`; what is above is of all together."""
    looks: tuple[Look, ...] = ()
    """Those that an earlier one may still join, in order."""


class Cart(msgspec.Struct, frozen=True, array_like=True):
    """A cart or a checkout as it last was."""

    key: str
    at: int
    lines: tuple[OrderLine, ...] = ()


class Baseline(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was before our first event (CustomerBaseline)."""

    registered_at: int
    orders: int
    first_order_at: int | None = None
    last_order_at: int | None = None
    spend_minor: int = 0
    currency: str | None = None


class Row(msgspec.Struct, array_like=True):
    """All that is known of one user. Collections are never edited in place: the next row gets new ones."""

    user_id: str
    ledger: bytes = b""
    zone: str | None = None
    zone_at: int = 0
    """When the profile said so: an older word does not replace a newer one."""
    locale: str | None = None
    locale_at: int = 0
    registered_at: int | None = None
    baseline: Baseline | None = None
    last_login_at: int | None = None
    orders: dict[str, Order] = {}
    coupons: dict[str, Coupon] = {}
    forgotten: bytes = b""
    """Hashes of orders and coupons whose state was summarised: they are known, and change nothing any more."""
    old_orders: int = 0
    old_last_order_at: int | None = None
    old_spend_minor: dict[str, int] = {}
    runs: dict[str, tuple[Run, ...]] = {}
    """By `run_key`: live and recently ended runs, in order of entry."""
    marks: dict[str, Mark] = {}
    """The latest event of each kind that ends runs (purchases are in `orders`): it ends an entry arriving after it."""
    entries: dict[str, int] = {}
    """By rule: the latest entry, for re-entry. By `run_key`: the entry of a key that enters once and can come again."""
    # -- version 2
    last_seen_at: int | None = None
    """The latest thing the user did, of any kind."""
    birthday: str | None = None
    consents: dict[str, Consent] = {}
    """By channel, or `channel/category`; `channel/` is the latest word that closed all categories."""
    sent: tuple[Sent, ...] = ()
    """Contacts of the last 31 days, oldest first."""
    window_until: int = 0
    """When the open arbitration window closes; 0 = none is open."""
    last_fired: dict[str, tuple[str, int]] = {}
    """By rule (and for 'discount'): the latest run that sent something, and when; with '/ghost' that would have."""
    views: dict[str, View] = {}
    carts: dict[str, Cart] = {}
    stage: str = ""
    stage_at: int = 0
    stage_due: int = NEVER
    """When silence moves the user to the next stage. Its end: a purchase."""
    catalogue: int = 0
    """Fingerprint of the catalogue that the runs were last adapted to."""
    birthday_at: int = -1
    """When the profile first named this birthday: that is the entry of who is greeted."""
    merged: dict[str, Baseline | None] = {}
    """Accounts that became part of this one, each with what was before our first event of it. `baseline` adds it in."""
    alone: Baseline | None = None
    """What was before our first event of this account itself, once others became part of it."""
    birthday_said_at: int = -1
    """When the profile last named this birthday: an older word does not replace a newer one."""
    ghosts_until: int = 0
    """When the arbitration window closes that ghosts opened; 0 = none is open."""


class NewerRow(Exception):
    """A row written by a newer version of this software."""

    #: Its words name versions, never data: logs may show them.
    safe_to_log = True


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Row)


def run_key(rule: str, key: str) -> str:
    """Where a rule's runs for one key live in `Row.runs`."""
    return f"{rule}\x1f{key}"


def next_timer(row: Row) -> int:
    """The earliest instant at which this row wants to be looked at; NEVER when nothing is pending."""
    earliest = row.stage_due
    for runs in row.runs.values():
        for run in runs:
            if run.timer_at < earliest and not run.ends:
                earliest = run.timer_at
    return earliest


def encode(row: Row, version: int = ROW_VERSION) -> bytes:
    """One version byte, the next timer in 8 bytes (so that recovery needs to decode nothing else), the row.

    An older version leaves out the fields that came after it: workers of that version can still take over."""
    fields = row if version == ROW_VERSION else [getattr(row, f) for f in row.__struct_fields__[: FIELDS[version]]]
    return b"%c%b%b" % (version, next_timer(row).to_bytes(8, "big"), _encoder.encode(fields))


def size_of(value: object) -> int:
    """Bytes of a part of a row when it is encoded."""
    return len(_encoder.encode(value))


def encoded_timer(data: bytes) -> int:
    """The next timer of an encoded row. Raises NewerRow."""
    require_readable(data[0])
    return int.from_bytes(data[1:9], "big")


def decode(data: bytes) -> Row:
    """The row of `encode`. Raises NewerRow with a sentence for the operator."""
    require_readable(data[0])
    return _decoder.decode(memoryview(data)[9:])


def require_readable(version: int) -> None:
    """Raises NewerRow unless this worker reads rows of this version."""
    if version > ROW_VERSION:
        raise NewerRow(
            f"The state holds a row of version {version}; this worker reads up to {ROW_VERSION}. "
            "A newer worker has finalised its format: run that version (or newer) here too."
        )


def remembers(ledger: bytes, hashed: bytes) -> bool:
    """Whether an id's hash is in the ledger."""
    found = ledger.find(hashed)
    while found >= 0:
        if found % _ENTRY == 0:
            return True
        found = ledger.find(hashed, found + 1)
    return False


def remember(ledger: bytes, hashed: bytes, at: int) -> bytes:
    """The ledger with one more id; ids older than 7 days leave once there are more than 512."""
    ledger += hashed + (at // _HOUR).to_bytes(4, "big")
    surplus = len(ledger) // _ENTRY - LEDGER_MIN
    if surplus <= 0:
        return ledger
    oldest = at // _HOUR - LEDGER_DAYS * 24
    cut = max(0, len(ledger) // _ENTRY - LEDGER_MAX)
    while cut < surplus and int.from_bytes(ledger[cut * _ENTRY + 8 : (cut + 1) * _ENTRY], "big") < oldest:
        cut += 1
    return ledger[cut * _ENTRY :]


def ledgers_together(one: bytes, other: bytes) -> bytes:
    """Both ledgers as one, in the order of time."""
    entries: dict[bytes, bytes] = {}
    for ledger in (one, other):
        for start in range(0, len(ledger), _ENTRY):
            entry = ledger[start : start + _ENTRY]
            entries.setdefault(entry[:8], entry)
    return b"".join(sorted(entries.values(), key=lambda entry: entry[8:])[-LEDGER_MAX:])
