"""Segment and RudderStack track calls, recognised by their shape, become messages of our own contract.

The mapping is data, in segment.yaml. What comes out still goes through the codec's one door, with every check.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final, NamedTuple

import yaml
from msgspec.structs import replace

from schemas.events import EVENT_TYPES, Event
from schemas.instant import HOUR
from schemas.rejects import Ignored, RejectedMessage

TRACK: Final = "track"
_MAX_NAME: Final = 100
_DECIMALS: Final = Decimal("1E-8")


class _Field(NamedTuple):
    """One of our fields: the names it may be read under, and for a list what is read from each entry."""

    name: str
    sources: tuple[str, ...]
    each: tuple[_Field, ...]


class _Mapping(NamedTuple):
    type: str
    needs: str | None
    currency: str | None
    """What its money is in when it names none; None = in whatever its order is."""
    lapses_after: int | None
    """Microseconds from the event on: `until` then it holds, for no event says that it is over."""
    fields: tuple[_Field, ...]


def translate(raw: dict[str, Any]) -> dict[str, Any] | Ignored | RejectedMessage:
    """Our message for a track call; or that it is anonymous or unmapped; or what is wrong with its frame."""
    name, properties = raw.get("event"), raw.get("properties")
    if type(name) is not str:
        return RejectedMessage(
            "missing_field" if name is None else "bad_value",
            "`event` of a track call must be its name, a text.",
            "event",
        )
    if properties is not None and type(properties) is not dict:
        return RejectedMessage("bad_value", "`properties` of a track call must be an object.", "properties")
    properties = properties or {}
    mapping = _EVENTS.get(name)
    if mapping is None or (mapping.needs is not None and properties.get(mapping.needs) is None):
        return Ignored("unmapped", name[:_MAX_NAME])
    message: dict[str, Any] = {"type": mapping.type}
    _read(_FRAME, raw, message)
    if not message.get("user_id"):
        return Ignored("anonymous", name[:_MAX_NAME])
    if raw.get("channel") in _CHANNELS:
        message["channel"] = raw["channel"]
    _read(mapping.fields, properties, message)
    if mapping.currency is not None and message.get("currency") is None and not _HAS_MONEY.isdisjoint(message):
        message["currency"] = mapping.currency
    return message


def bounded(event: Event, name: str) -> Event:
    """The event of a track call of this name; what no later call ends has an end of its own."""
    lapses_after = _EVENTS[name].lapses_after
    return event if lapses_after is None else replace(event, until=event.occurred_at + lapses_after)


def where_it_came_from(refusal: RejectedMessage, event: str) -> RejectedMessage:
    """The same refusal in the words of the track call: `properties.products[0].price`, not `lines[0].unit_price`."""
    path: list[str] = []
    frame = {field.name: field for field in _FRAME}
    fields = {field.name: field for field in _EVENTS[event].fields}
    for step in refusal.field.split("."):
        name, bracket, index = step.partition("[")
        field = fields.get(name) or frame.get(name)
        if field is None:
            return refusal
        if not path and name in fields:
            path.append("properties")
        path.append(f"{field.sources[0]}{bracket}{index}")
        fields = {inner.name: inner for inner in field.each}
    theirs = ".".join(path)
    return RejectedMessage(refusal.code, refusal.reason.replace(f"`{refusal.field}`", f"`{theirs}`"), theirs)


def _read(fields: tuple[_Field, ...], source: dict[str, Any], message: dict[str, Any]) -> None:
    for field in fields:
        for name in field.sources:
            value = source.get(name)
            if value is not None and value != "":
                message[field.name] = _entries(field, value) if field.each else _READERS.get(field.name, _text)(value)
                break
        else:
            if field.name in _DEFAULTS:
                message[field.name] = _DEFAULTS[field.name]


def _entries(field: _Field, value: object) -> object:
    if type(value) is not list:
        return value
    entries: list[object] = []
    for item in value:
        if type(item) is dict:
            entry: dict[str, Any] = {}
            _read(field.each, item, entry)
            entries.append(entry)
        else:
            entries.append(item)
    return entries


def _text(value: object) -> object:
    """Ids are text with us; many shops send the numbers of their database."""
    return str(value) if type(value) is int else value


def _as_is(value: object) -> object:
    return value


def _money(value: object) -> object:
    """A number as the decimal that was written, without float arithmetic; what a sum of floats left behind the eighth
    decimal is cut off."""
    if type(value) is not int and type(value) is not float:
        return value
    written = Decimal(repr(value))
    exponent = written.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -8 and abs(written) < 1_000_000_000_000:
        written = written.quantize(_DECIMALS)
    return f"{written:f}"


def _currency(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _quantity(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _list(value: object) -> object:
    return value if type(value) is list else [value]


_READERS: Final[dict[str, Callable[[object], object]]] = {
    "total": _money,
    "amount": _money,
    "unit_price": _money,
    "currency": _currency,
    "quantity": _quantity,
    "coupons_used": _list,
    "occurred_at": _as_is,
}
_DEFAULTS: Final[dict[str, object]] = {"quantity": 1, "lines": []}
_HAS_MONEY: Final = frozenset({"total", "amount"})
_NO_FIELDS: Final = frozenset({"type", "needs", "without currency", "lapses after hours"})


def _fields(names: dict[str, Any]) -> tuple[_Field, ...]:
    return tuple(
        _Field(name, (where["from"],), _fields(where["each"]))
        if isinstance(where, dict)
        else _Field(name, tuple(where), ())
        for name, where in names.items()
    )


def _mapping(event: dict[str, Any]) -> _Mapping:
    names = {name: where for name, where in event.items() if name not in _NO_FIELDS}
    unknown = set(names) - set(EVENT_TYPES[event["type"]].__struct_fields__)
    if unknown:
        raise ValueError(f"segment.yaml: {event['type']} has no field {', '.join(sorted(unknown))}")
    currency = None if "without currency" in event else _DEFAULT_CURRENCY
    lapses_after = event["lapses after hours"] * HOUR if "lapses after hours" in event else None
    return _Mapping(event["type"], event.get("needs"), currency, lapses_after, _fields(names))


_DATA: Final[dict[str, Any]] = yaml.safe_load(files("schemas").joinpath("segment.yaml").read_text(encoding="utf-8"))
_FRAME: Final = _fields(_DATA["every payload"])
_CHANNELS: Final = tuple(_DATA["channels"])
_DEFAULT_CURRENCY: Final[str] = _DATA["default currency"]
_EVENTS: Final = {name: _mapping(event) for name, event in _DATA["events"].items()}
