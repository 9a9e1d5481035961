"""What people write into a rule out of habit, and how it is written here: 10 days, a single =, 1,5.

Only texts that could not be read come here: whatever is right is never second-guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_SIZES = (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000))
_WORDS = {
    "d": "d", "day": "d", "days": "d", "w": "w", "week": "w", "weeks": "w", "h": "h", "hr": "h", "hrs": "h",
    "hour": "h", "hours": "h", "m": "min", "min": "min", "mins": "min", "minute": "min", "minutes": "min",
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
}  # fmt: skip
_UNITS = dict(_SIZES) | {"w": 7 * 86_400_000_000}
_PART = re.compile(r"(\d+)(?:[.,](\d+))?\s*([A-Za-z]+)")
#: One or more of a number and a word: '10 days', '1.5h', '1d12h'. After a sign or a word it is a part of that.
_SPAN = re.compile(r"(?<![\w.,-])\d+(?:[.,]\d+)?\s*[A-Za-z]+(?:\s*\d+(?:[.,]\d+)?\s*[A-Za-z]+)*\b")
_BESIDE = re.compile(r"(\S+) (after|before) ([a-z_.]+)")
_STRING = re.compile(r"'[^']*'|\"[^\"]*\"")


def _microseconds(text: str) -> int | None:
    """How long '10 days' or '1.5h' is; None for a word that is no unit of a fixed length, or less than seconds."""
    total = 0
    for whole, fraction, word in _PART.findall(text):
        unit = _WORDS.get(word.lower())
        if unit is None:
            return None
        total += (int(whole + fraction) * _UNITS[unit]) // 10 ** len(fraction)
    return None if total % 1_000_000 else total


def _literal(span: int) -> str:
    """As a timing has it, in the largest unit that it is a whole number of."""
    return next(f"{span // size}{unit}" for unit, size in _SIZES if not span % size)


def timing(text: str) -> str:
    """The text with its durations and its order as timings have them: '3 days before x' -> 'x - 3d'."""

    def written(found: re.Match[str]) -> str:
        span = _microseconds(found[0])
        return found[0] if span is None else _literal(span)

    mended = _SPAN.sub(written, text)
    beside = _BESIDE.fullmatch(mended)
    return f"{beside[3]} {'+' if beside[2] == 'after' else '-'} {beside[1]}" if beside else mended


def duration_of_a_condition(text: str) -> str | None:
    """'3 days' -> "duration('72h')"; None for what is no duration."""
    span = _microseconds(text) if _SPAN.fullmatch(text) else None
    if span is None:
        return None
    hours = _literal(span) if span % 86_400_000_000 else f"{span // 3_600_000_000}h"
    return f"duration('{hours.replace('min', 'm')}')"


def _bare_duration(found: re.Match[str]) -> str:
    meant = duration_of_a_condition(found[0])
    return f"write {meant} for {found[0]}" if meant else ""


def _saying(sentence: str) -> Callable[[re.Match[str]], str]:
    return lambda found: sentence.format(*(part.strip() for part in (found[0], *found.groups())))


#: In a condition whose texts in quotes are left out. What one has found, the next ones don't see.
_IN_CONDITION: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"(?i)(\S+)\s+between\s+(.+?)\s+and\s+(\S+)"), _saying("write {1} >= {2} && {1} <= {3}")),
    (_SPAN, _bare_duration),
    (re.compile(r"=>|=<|<>"), lambda found: f"write {({'=>': '>=', '=<': '<=', '<>': '!='})[found[0]]} for {found[0]}"),
    (re.compile(r"(?<![=!<>])=(?![=<>])"), _saying("compare with ==, not with a single =")),
    (re.compile(r"(?i)\band\b"), _saying("write && for {0}")),
    (re.compile(r"(?i)\bor\b"), _saying("write || for {0}")),
    (re.compile(r"(?i)\bnot\b(?! in\b)"), _saying("write ! for {0}, as in !user.has_birthday")),
    (re.compile(r"(?<!&)&(?!&)"), _saying("write && for a single &")),
    (re.compile(r"(?<!\|)\|(?!\|)"), _saying("write || for a single |")),
    (re.compile(r"\b(?:True|TRUE|False|FALSE|[Yy]es|[Nn]o)\b"), _saying("yes and no are written true and false")),
    (
        re.compile(r"([^<>=!&|()]+)([<>]=?)([^<>=!&|()]+)([<>]=?)([^<>=!&|()]+)"),
        _saying("write {1} {2} {3} && {3} {4} {5}"),
    ),
    (re.compile(r"\bin\s*\("), _saying("the values after 'in' stand in square brackets, as in ['push', 'sms']")),
    (re.compile(r"\d,\d"), _saying("a decimal number is written with a point, and amounts in cents")),
)


def condition(text: str) -> str:
    """What is to be written otherwise in a condition, clause by clause; '' when it looks like no habit of anybody."""
    if not text.strip():
        return "write one, or leave it out"
    curly = re.search("[‘’‚“”„«»]", text)
    if curly:
        return f"write straight quotes (') for {curly[0]}"
    bare = _STRING.sub("''", text)
    if re.search("['\"]", bare.replace("''", "")):
        return "a quote that opens in it is not closed"
    said = []
    for pattern, sentence in _IN_CONDITION:
        found = pattern.search(bare)
        if found and (what := sentence(found)):
            said.append(what)
            bare = f"{bare[: found.start()]} {bare[found.end() :]}"
    bare = _STRING.sub("", text)
    for opens, closes in ("()", "[]"):
        if bare.count(opens) != bare.count(closes):
            more, less = (opens, closes) if bare.count(opens) > bare.count(closes) else (closes, opens)
            said.append(f"there is a {more} without its {less}")
    return "; ".join(said)
