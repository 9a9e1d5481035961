"""The name that a wrong one most likely meant: what looks like it, and of these what sounds like it.

"OrderPayed" looks as much like OrderPlaced as like OrderPaid; without its vowels it sounds like the latter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

#: Names less alike than this are not meant.
_ALIKE = 0.6
_VOWELS = re.compile("[aeiouy]")


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The nearest of the allowed names, whatever their capitals, or None when none is near. Of equals, the first."""
    likeness = {other: _likeness(name, other) for other in sorted(allowed)}
    near = [other for other, alike in likeness.items() if alike >= _ALIKE]
    return max(near, key=lambda other: likeness[other] + _likeness(_sound(name), _sound(other)), default=None)


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, other.lower(), one.lower()).ratio()


def _sound(name: str) -> str:
    return _VOWELS.sub("", name.lower())
