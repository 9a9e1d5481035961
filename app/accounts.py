"""Who is gone and who is somebody else now: the markers that erased and merged accounts leave in a shard's changelog.

A marker outlives the row, so that nothing late brings the account back. That of an erased user is a keyed hash; that of
a merged one has to name the account it is part of, until that one is erased.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from app.core import ids
from app.core.transfers import History, PassedOn

#: What is left of an erased user: this and a keyed hash; the value is the instant of the erasure.
ERASED_PREFIX = b"\x00erased\x00"
#: What is left of a merged account: this and its id; the value says what it is part of.
MERGED_PREFIX = b"\x00merged\x00"

Change = tuple[bytes, bytes | None]


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


class Accounts:
    """The markers of one shard. What changes is to be written with the batch: `taken` gives it, once."""

    def __init__(self, key: str) -> None:
        self._key = key
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

    def taken(self) -> list[Change]:
        """What is to be written, in order: rows that went, markers that came."""
        changes, self._changes = self._changes, []
        return changes

    def erased_at(self, user: str) -> int | None:
        """When this user was erased; None if never."""
        return self._erased.get(ids.erased_mark(user, self._key)) if self._erased else None

    def erase(self, user: str, at: int) -> None:
        """The row of this user goes, and so does what the account was part of; a keyed hash stays."""
        mark = ids.erased_mark(user, self._key)
        self._mark(mark, at)
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
