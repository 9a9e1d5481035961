"""Who is gone and who is somebody else now: the markers that erased and merged accounts leave in a shard's changelog.

A marker outlives the row, so that nothing late brings the account back. That of an erased user is a keyed hash; that of
a merged one has to name the account it is part of, until that one is erased.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from app.core import ids
from app.core.transfers import History, PassedOn

#: What is left of an erased user: this and a keyed hash; the value is the instant of the erasure.
ERASED_PREFIX = b"\x00erased\x00"
#: What is left of a merged account: this and its id; the value says what it is part of.
MERGED_PREFIX = b"\x00merged\x00"

Change = tuple[bytes, bytes | None]


@dataclass(frozen=True)
class ErasureKeys:
    """The keys of the hashes that erased users leave behind, as a worker has them."""

    given: bytes | None = field(repr=False)
    """The deployment's."""
    fresh: bytes = field(repr=False)
    """Random: where the deployment has none, a shard makes it its own with its first erasure."""


class Keyed(NamedTuple):
    """What a shard keeps of keys, in its own record."""

    own: bytes = b""
    """Its own key, made when the deployment had none: what was hashed with it stays so."""
    given: bytes = b""
    """By what the deployment's is known again, once something was hashed with it."""


class WrongErasureKey(Exception):
    """The key is not the one under which erased users are known; a person must set it right."""

    #: Its words name a setting, never data: logs may show them.
    safe_to_log = True


class Merged(NamedTuple):
    """What became of an account."""

    into: str
    occurred_at: int


def merged_key(account: str) -> bytes:
    """The changelog key of a merged account's marker."""
    return MERGED_PREFIX + account.encode()


def merged_of(value: bytes) -> Merged:
    """What a marker says."""
    return msgspec.msgpack.decode(value, type=Merged)


def _check(key: bytes) -> bytes:
    return ids.erased_mark("\x00", key)  # of nobody: ids hold no control characters


class Accounts:
    """The markers of one shard. What changes is to be written with the batch: `taken` gives it, once."""

    def __init__(self, keys: ErasureKeys) -> None:
        self._given = keys.given
        self._keys: tuple[bytes, ...] = (keys.given or keys.fresh,)
        """New hashes are made with the first; older ones may have been with another."""
        self.keyed = Keyed()
        self._erased: dict[bytes, int] = {}
        self.erased_until = -1
        """The latest erasure: what happened after it is of nobody's old life."""
        self.merged: dict[str, Merged] = {}
        """By account: what it is part of."""
        self._changes: list[Change] = []

    def restore(self, key: bytes, value: bytes | None) -> bool:
        """Takes a changelog record. False when it is none of ours."""
        if key.startswith(ERASED_PREFIX):
            self._mark(key[len(ERASED_PREFIX) :], int.from_bytes(value or b"", "big"))
        elif key.startswith(MERGED_PREFIX):
            account = key[len(MERGED_PREFIX) :].decode()
            self.merged.pop(account, None)
            if value is not None:
                self.merged[account] = merged_of(value)
        else:
            return False
        return True

    def restored(self, keyed: Keyed) -> None:
        """Takes up the keys of the shard's own record. Raises WrongErasureKey."""
        if keyed.given and (self._given is None or keyed.given != _check(self._given)):
            raise WrongErasureKey(
                "Users were erased here under another LIFECYCLE_ERASURE_KEY than this worker has: with this one nobody "
                "would know them, and what is late of them would bring them back. Start the worker with that key."
            )
        self.keyed = keyed
        if keyed.own:
            self._keys = (keyed.own,) if self._given is None else (self._given, keyed.own)

    def taken(self) -> list[Change]:
        """What is to be written, in order: rows that went, markers that came."""
        changes, self._changes = self._changes, []
        return changes

    def erased_at(self, user: str) -> int | None:
        """When this user was erased; None if never."""
        if not self._erased:
            return None
        found = [self._erased.get(ids.erased_mark(user, key), -1) for key in self._keys]
        return None if (latest := max(found)) < 0 else latest

    def erase(self, user: str, at: int) -> None:
        """The row of this user goes, and so does what the account was part of; a keyed hash stays."""
        mark = ids.erased_mark(user, self._keys[0])
        self._mark(mark, at)
        if self._given is None:
            self.keyed = Keyed(own=self._keys[0])
        else:
            self.keyed = self.keyed._replace(given=_check(self._given))
        self._changes.append((user.encode(), None))
        self._changes.append((ERASED_PREFIX + mark, at.to_bytes(8, "big")))
        if self.merged.pop(user, None) is not None:
            self._changes.append((merged_key(user), None))

    def _mark(self, mark: bytes, at: int) -> None:
        self._erased[mark] = at
        self.erased_until = max(self.erased_until, at)

    def merge(self, account: str, into: str, at: int) -> None:
        """The row of this account goes; its marker says where."""
        self.merged[account] = Merged(into, at)
        self._changes.append((account.encode(), None))
        self._changes.append((merged_key(account), msgspec.msgpack.encode(self.merged[account])))

    def onward(self, message: History | PassedOn) -> History | PassedOn | None:
        """The message to the account that its user is part of; None when it is meant for this one.

        Accounts that were merged in a circle (each into the next, at once, in shards that could not know of each other)
        become the one whose id comes first: whatever goes round meets it a second time, and stays.
        """
        user, path = message.user, message.path
        moved = self.merged.get(user)
        if moved is None:
            return None
        if user not in path:
            path = (*path, user)
        elif user == min(path[path.index(user) :]):
            del self.merged[user]
            self._changes.append((merged_key(user), None))
            return None
        return msgspec.structs.replace(message, user=moved.into, path=path)
