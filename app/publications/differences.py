"""What differs between two mappings of settings, by the names of the settings, in words that fit on a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

from app.explain.language import flow

_NOT_SET: Final = object()
_LONGEST: Final = 100


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """'quiet_hours.from 21:00 -> 22:00' for each setting that is another one; only that it changed, where the two
    values don't fit on a line, or read the same (`true` and `"true"`)."""
    for name in dict.fromkeys(chain(before, after)):
        yield from _difference(name, before.get(name, _NOT_SET), after.get(name, _NOT_SET))


def _difference(path: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys(chain(old, new)):
            yield from _difference(f"{path}.{name}", old.get(name, _NOT_SET), new.get(name, _NOT_SET))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _difference(f"{path}[{place}]", one, other)
    else:
        was, now = _said(old), _said(new)
        said = f"{path} {was} -> {now}"
        yield said if was != now and len(said) <= _LONGEST else f"{path} changed"


def _said(value: Any) -> str:
    return "not set" if value is _NOT_SET else "empty" if value in (None, "") else flow(value)
