"""Turns a decoder's complaint into a code, a sentence and a path that the sender of the message understands."""

from __future__ import annotations

import re
from itertools import islice
from typing import Final, get_args

from msgspec import ValidationError

from schemas.checks import EXPECTED, expected
from schemas.instant import BadInstant
from schemas.nearest import nearest
from schemas.parts import CouponKind
from schemas.rejects import RejectedMessage

_MISSING: Final = re.compile("Object missing required field `(.+)`")
_EXPECTED: Final = re.compile("Expected `([^`]+)`(?: of (length)|,)?(?: ([<>]=?) ([0-9.]+)| got `(.+)`)?")
_WORDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
VALUES: Final[dict[str, tuple[str, ...]]] = {"kind": get_args(CouponKind)}
"""What a field may say that takes one of a few words, by the field's own name."""
_LONGEST: Final = 100
_BOUNDS: Final = {">": "more than", ">=": "at least", "<": "less than", "<=": "at most"}


def explain(problem: ValidationError, raw: object) -> RejectedMessage:
    """What to tell the sender of `raw`, which the decoder refused."""
    text, _, place = str(problem).rpartition(" - at `")
    if not text:
        text, place = place, ""
    path, in_key = _path(place, raw)
    missing = _MISSING.fullmatch(text)
    if missing is not None:
        field = f"{path}.{missing[1]}" if path else missing[1]
        return RejectedMessage("missing_field", f"`{field}` is required, but absent or null.", field)
    cause = problem.__cause__
    if isinstance(cause, BadInstant):
        return RejectedMessage("bad_time", f"`{path}`: {cause}", path)
    if cause is not None:
        return RejectedMessage("bad_value", f"`{path}`: {cause}", path)
    if in_key:
        return RejectedMessage("bad_value", f"The names in `{path}` must be 1 to 256 characters long.", path)
    if path.rpartition(".")[2] in EXPECTED and "got `" not in text:
        return expected(path)
    return RejectedMessage("bad_value", _sentence(path, text, raw), path)


def _sentence(path: str, text: str, raw: object) -> str:
    if text.startswith("Invalid enum value"):
        return f"`{path}` must be {_one_of(VALUES[path.rpartition('.')[2]], _at(path, raw))}"
    match = _EXPECTED.match(text)
    if match is None:
        return f"`{path}`: {text}."
    types, length, bound, limit, _ = match.groups()
    wanted = " or ".join(_WORDS.get(name, name) for name in types.split(" | ") if name != "null")
    if length:
        unit = "entries" if types == "array" else "characters"
        return f"`{path}` must be {wanted} of {_BOUNDS[bound]} {limit} {unit}."
    if bound:
        wanted = f"{wanted}, {_BOUNDS[bound]} {limit}"
    return f"`{path}` must be {wanted}.{_but(path, raw)}"


def _one_of(values: tuple[str, ...], found: object) -> str:
    """The values, and the one that was most likely meant. What was there instead is not repeated."""
    near = nearest(str(found)[:_LONGEST], values)
    meant = f" Did you mean {near}?" if near else ""
    return f"{', '.join(values[:-1])} or {values[-1]}.{meant}"


def _but(path: str, raw: object) -> str:
    """What was there instead. Text is not repeated: it may be long, or about a person."""
    found = _at(path, raw)
    for kind, words in ((str, "text"), (list, "a list"), (dict, "an object")):
        if isinstance(found, kind):
            return f" It is {words}."
    return f" It is {str(found).lower()}."


def _path(place: str, raw: object) -> tuple[str, bool]:
    """From the decoder's "$.lines[0].quantity`" to "lines[0].quantity"; and whether a mapping's key is meant."""
    place = place.rstrip("`")
    in_key = place.startswith("key` in `")
    path = place.removeprefix("key` in `").removeprefix("$").removeprefix(".")
    if path.endswith("[...]"):  # some value of a mapping; the decoder does not say whose
        path = path.removesuffix("[...]")
        values = _at(path, raw)
        if isinstance(values, dict):
            nested = (key for key, value in values.items() if isinstance(value, list | dict))
            path += "".join(f".{key[:100]}" for key in islice(nested, 1))
    return path, in_key


def _at(path: str, raw: object) -> object:
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(raw, dict):
            raw = raw.get(step)
        elif isinstance(raw, list) and step.isdecimal() and int(step) < len(raw):
            raw = raw[int(step)]
    return raw
