"""A function that keeps its answer about the latest thing it was asked about.

Rules ask for the same few numbers of a row again and again while it stays as it is. What a row holds is never edited
in place, so the same object (not merely an equal one) always gets the same answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def of_the_latest(work: Callable[[T], R]) -> Callable[[T], R]:
    """`work`, done anew only for another object than the one before. It keeps that one alive, and nothing else."""
    latest: tuple[object, Any] = (object(), None)

    def answer(asked: T) -> R:
        nonlocal latest
        known, found = latest
        if known is not asked:
            found = work(asked)
            latest = asked, found
        return found  # type: ignore[no-any-return]

    return answer
