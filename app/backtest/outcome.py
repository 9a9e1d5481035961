"""What a scenario expects beside what came out, and the difference in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from app.backtest.notation import NotationError, instant
from schemas.instant import DAY, MINUTE, SECOND, format_instant, parse_instant
from schemas.triggers import Decision, Retraction, Trigger

_PRECISION = {10: DAY, 16: MINUTE, 19: SECOND}
"""How exact an instant is, by the length of its text; longer ones are exact."""
_INSTANTS = {"due": "due_at", "expires": "expires_at", "not_before": "not_before"}


class Expected(NamedTuple):
    """An expected message: when it was decided, rule, user, and the fields that were written."""

    at: str
    rule: str
    user: str
    wanted: Mapping[str, Any]


class Seen(NamedTuple):
    """A message that came out."""

    kind: str
    message: Trigger | Decision | Retraction


def expected(entry: Mapping[str, Any]) -> Expected:
    """Reads `INSTANT: {RULE: USER, step: 2, key: c-4}`. Raises NotationError."""
    (at, values) = next(iter(entry.items()))
    if len(entry) != 1 or not isinstance(values, dict) or not values:
        raise NotationError(f"'{entry}' is no outcome: write 2026-03-08 12:15: {{coupon_unused: u-1, step: 1}}.")
    (rule, user), *rest = values.items()
    wanted = {"step": "1", **dict(rest)}
    unknown = [name for name in wanted if name not in _READ and name not in _INSTANTS]
    if unknown:
        raise NotationError(f"There is no '{unknown[0]}' in an outcome. It knows: {', '.join((*_READ, *_INSTANTS))}.")
    return Expected(at, rule, user, wanted)


def seen(kind: str, message: Trigger | Decision | Retraction) -> Seen:
    """A message with its outcome."""
    return Seen(kind, message)


_READ: dict[str, Callable[[Seen], str]] = {
    "step": lambda s: str(s.message.step),
    "key": lambda s: s.message.entry.key,
    "entry": lambda s: s.message.evidence[0].event_id if s.message.evidence else "",
    "outcome": lambda s: s.kind,
    "gate": lambda s: getattr(s.message, "gate", None) or "",
    "reason": lambda s: s.message.reason,
    "channel": lambda s: getattr(s.message, "channel", None) or "",
    "coupon": lambda s: ", ".join(getattr(s.message, "coupons", ())),
    "product": lambda s: ", ".join(item.product_type or "" for item in getattr(s.message, "items", ())),
    "quantity": lambda s: ", ".join(str(item.quantity) for item in getattr(s.message, "items", ())),
    "offer": lambda s: offer.batch if (offer := getattr(s.message, "offer", None)) else "",
    "class": lambda s: getattr(s.message, "class_", ""),
    "fallbacks": lambda s: ", ".join(getattr(s.message, "fallbacks", ())),
    "collapse": lambda s: getattr(s.message, "collapse_key", None) or "",
    "recheck": lambda s: ", ".join(getattr(s.message, "recheck", ())),
    "locale": lambda s: getattr(s.message, "locale", None) or "",
}


def _same_instant(text: str, at: str, zone: ZoneInfo) -> bool:
    written, found = instant(text, zone), parse_instant(at)
    precision = _PRECISION.get(len(text), 1)
    return written <= found < written + precision


def _fits(wanted: Expected, got: Seen, zone: ZoneInfo) -> bool:
    message = got.message
    if (wanted.rule, wanted.user) != (message.rule, message.user_id):
        return False
    if not _same_instant(wanted.at, message.decided_at, zone):
        return False
    for name, value in wanted.wanted.items():
        if name in _INSTANTS:
            if not _same_instant(value, getattr(message, _INSTANTS[name]), zone):
                return False
        elif name == "reason":
            if value not in message.reason:
                return False
        elif _READ[name](got) != value:
            return False
    return True


def compare(title: str, wanted: Sequence[Expected], got: Sequence[Seen], zone: ZoneInfo) -> list[str]:
    """Nothing when each expected message came out and no other; else a timeline of both."""
    left = list(got)
    lines: list[tuple[str, str]] = []
    for one in wanted:
        match = next((candidate for candidate in left if _fits(one, candidate, zone)), None)
        if match is None:
            fields = ", ".join(f"{name}: {value}" for name, value in one.wanted.items())
            lines.append((one.at, f"- {one.at}: {{{one.rule}: {one.user}, {fields}}}   <- expected, did not come"))
        else:
            left.remove(match)
            lines.append((one.at, f"  {_text(match, zone)}"))
    if len(got) == len(wanted) and not left:
        return []
    for extra in left:
        lines.append((_local(extra.message.decided_at, zone), f"+ {_text(extra, zone)}   <- came, was not expected"))
    return [f"{title}:", *(f"  {line}" for _, line in sorted(lines, key=lambda item: item[0]))]


def _local(at: str, zone: ZoneInfo) -> str:
    return format_instant(parse_instant(at), zone)[:-6].replace("T", " ")


def _text(got: Seen, zone: ZoneInfo) -> str:
    """A message that came out, as it would be written in a scenario."""
    message = got.message
    parts = [f"{message.rule}: {message.user_id}", f"step: {message.step}", f"key: {message.entry.key}"]
    if got.kind != "fired":
        parts.append(f"outcome: {got.kind}")
    if isinstance(message, Decision) and message.gate:
        parts.append(f"gate: {message.gate}")
    due = getattr(message, "due_at", None)
    if due is not None and due != message.decided_at:
        parts.append(f"due: {_local(due, zone)}")
    return f"{_local(message.decided_at, zone)}: {{{', '.join(parts)}}}"
