"""Every id that leaves this system is a function of what happened, never of who computed it or when.

A worker, a partition, an attempt or a clock must not show in an id: after any crash, replay or rebalance the same
candidate has the same id, so that a consumer can drop what it has seen.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

#: Bytes of one remembered event id. At 64 bits, a user with 10,000 ids meets a false match once in 10^15 events.
EVENT_HASH_BYTES = 8


def event_hash(event_id: str) -> bytes:
    """What the ledger of a row remembers of an event id: 8 bytes."""
    return blake2b(event_id.encode(), digest_size=EVENT_HASH_BYTES).digest()


def _digest(kind: str, *parts: str | int) -> str:
    # Length prefixes keep ("a", "bc") and ("ab", "c") apart.
    return _hashed(kind, "".join([_prefixed(part) for part in map(str, parts)]))


def _prefixed(part: str) -> str:
    return f"{len(part)}:{part}"


def _hashed(kind: str, text: str) -> str:
    return blake2b(f"{kind}|{text}".encode(), digest_size=16).hexdigest()


def _entry(rule: str, user_id: str, kind: str, key: str, event_id: str, ordinal: int) -> str:
    """What the ids of an entry have in common."""
    return (
        f"{len(rule)}:{rule}{len(user_id)}:{user_id}{len(kind)}:{kind}{len(key)}:{key}"
        f"{len(event_id)}:{event_id}{_prefixed(str(ordinal))}"
    )


@lru_cache(maxsize=4096)
def run_id(rule: str, user_id: str, kind: str, key: str, event_id: str, ordinal: int) -> str:
    """One entry of a user into a rule: the same for all its steps."""
    return _hashed("run", _entry(rule, user_id, kind, key, event_id, ordinal))


@lru_cache(maxsize=4096)
def of_candidate(
    rule: str, user_id: str, kind: str, key: str, event_id: str, ordinal: int, step: int
) -> tuple[str, str]:
    """The trigger id and the run id of one candidate, which all of its records name."""
    entry = _entry(rule, user_id, kind, key, event_id, ordinal)
    return _hashed("trigger", entry + _prefixed(str(step))), _hashed("run", entry)


def trigger_id(rule: str, user_id: str, kind: str, key: str, event_id: str, ordinal: int, step: int) -> str:
    """contract.md: a function of (rule, user, entry kind and key, entry event_id, restart ordinal, step)."""
    return of_candidate(rule, user_id, kind, key, event_id, ordinal, step)[0]


def retraction_id(trigger: str) -> str:
    """A trigger is retracted at most once, so its own id is enough."""
    return _digest("retraction", trigger)


def decision_id(trigger: str, sequence: int) -> str:
    """One transition of one candidate."""
    number = str(sequence)
    return _hashed("decision", f"{len(trigger)}:{trigger}{len(number)}:{number}")


def stage_change_id(user_id: str, source: str, to: str, at: int) -> str:
    """A move between stages, at the instant that made it."""
    return _digest("stage", user_id, source, to, at)


def erased_mark(user_id: str, key: bytes) -> bytes:
    """What is left of an erased user: a keyed hash, from which nobody without the key learns who it was. The key has 64
    bytes at most."""
    return blake2b(user_id.encode(), digest_size=16, key=key).digest()


def key_of(secret: str) -> bytes:
    """A key from a secret of any length."""
    return blake2b(secret.encode(), digest_size=32).digest()


def share_of(salt: str, user_id: str) -> float:
    """A number in [0, 1) that is the user's own under this salt: for jitter and holdout shares."""
    return int.from_bytes(blake2b(f"{len(salt)}:{salt}{user_id}".encode(), digest_size=7).digest(), "big") / (1 << 56)
