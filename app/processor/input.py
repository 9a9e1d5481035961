"""One input partition as the merge sees it: what is buffered, and what is known of what is not."""

from __future__ import annotations

from collections import deque

from app.processor.meta import BEGINNING
from app.processor.records import Record


class Input:
    """One input partition: what is buffered, and what is known of what is not."""

    __slots__ = ("applied", "clock", "head", "index", "name", "opened", "pending", "position", "unread_until")

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index
        self.pending: deque[Record] = deque()
        self.head: tuple[int, Record, object] | None = None
        self.applied: Record | None = None  # the last one since the opening
        self.clock = BEGINNING
        self.opened = False
        self.position = 0  # offset of the next record to be fetched
        self.unread_until = 0  # end offset of the latest look

    def unread_from(self) -> int:
        """The offset of the next record to be applied."""
        if self.head is not None:
            return self.head[1].offset
        return self.pending[0].offset if self.pending else self.position
