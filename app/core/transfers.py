"""What shards tell each other about accounts that became part of another one, and its bytes. Nobody else reads or
writes these messages: the history of an account, what is still said of it afterwards, and that it is to be forgotten.

A message goes to the account that it is for, and takes along the accounts that it came through.
"""

from __future__ import annotations

import msgspec

#: A message begins with a zero byte, as no text does, and its version. A newer one is refused: going on without it
#: would lose what it says.
VERSION = 1


class History(msgspec.Struct, frozen=True, array_like=True, tag="history"):
    """All that is known of an account when it becomes part of another one."""

    user: str
    path: tuple[str, ...]
    """The account itself, then those that it was passed on by: filled on the way."""
    event_id: str
    """Of the UserMerged, as are the next two."""
    occurred_at: int
    row: bytes | None
    """The encoded row; None when nothing was known."""


class PassedOn(msgspec.Struct, frozen=True, array_like=True, tag="event"):
    """An event of an account that is part of another one: the record as it was, and where it came from."""

    user: str
    path: tuple[str, ...]
    occurred_at: int
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class Forget(msgspec.Struct, frozen=True, array_like=True, tag="forget"):
    """The account that this one became part of was erased: nothing that names either is to be left."""

    user: str
    erased_at: int


Message = History | PassedOn | Forget


class NotATransfer(Exception):
    """Bytes that no shard wrote."""


class NewerTransfer(Exception):
    """A message of a newer version of this software."""

    #: Its words name versions, never data: logs may show them.
    safe_to_log = True


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """A zero byte, the version, then the message."""
    return b"\x00%c%b" % (VERSION, _encoder.encode(message))


def decode(data: bytes | None) -> Message:
    """The message of `encode`. Raises NotATransfer, or NewerTransfer with a sentence for the operator."""
    if data is None or len(data) < 2 or data[0] != 0:
        raise NotATransfer
    if data[1] > VERSION:
        raise NewerTransfer(
            f"A shard sent a message of version {data[1]}; this worker reads up to {VERSION}. "
            "Its worker is newer: run that version (or newer) here too."
        )
    try:
        message: Message = _decoder.decode(memoryview(data)[2:])
    except msgspec.DecodeError as problem:
        raise NotATransfer from problem
    return message
