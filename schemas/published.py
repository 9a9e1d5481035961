"""The types as JSON Schema 2020-12, for readers that have nothing of ours but the file.

A schema says what the codec demands of a message's structure. What it cannot say (a zone exists, a day exists, an end
is not before its start) stays with the codec, so that what a schema rejects the codec rejects as well, not the reverse.
"""

from __future__ import annotations

import inspect
from typing import Any, Final, NamedTuple

import msgspec

from schemas.envelope import schema_id
from schemas.events import EVENT_TYPES, ClockAdvanced
from schemas.instant import EARLIEST, LATEST, Instant
from schemas.money import AMOUNT_PATTERN, Amount
from schemas.rejects import DeadLetterHeaders
from schemas.triggers import Decision, Outcome, Retraction, StageChange, Trigger

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class Message(NamedTuple):
    """One kind of message: the folder and name of its schema, its type, and whether it comes in or leaves."""

    folder: str
    name: str
    type: type[msgspec.Struct]
    comes_in: bool

    @property
    def file(self) -> str:
        """Where its schema is, from this directory."""
        return f"{self.folder}/{self.name}.v1.json"

    @property
    def example(self) -> str:
        """Where its example is, from this directory."""
        return f"examples/{self.name}.v1.json"


MESSAGES: Final = (
    *(Message("events", name, event, comes_in=True) for name, event in EVENT_TYPES.items()),
    Message("events", ClockAdvanced.TYPE, ClockAdvanced, comes_in=True),
    Message("triggers", "TriggerFired", Trigger, comes_in=False),
    Message("triggers", "TriggerRetracted", Retraction, comes_in=False),
    Message("decisions", "Decision", Decision, comes_in=False),
    Message("stages", "StageChange", StageChange, comes_in=False),
    Message("outcomes", "Outcome", Outcome, comes_in=False),
    Message("dead-letters", "DeadLetterHeaders", DeadLetterHeaders, comes_in=False),
)

_INSTANT: Final[Schema] = {
    "description": "RFC 3339 with an offset, or epoch milliseconds; from 2000 to 9999.",
    "anyOf": [
        {
            "type": "string",
            "maxLength": 64,
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-5][0-9]:[0-5][0-9](\\.[0-9]+)?"
            "([Zz]|[+-][0-9]{2}:[0-5][0-9])$",
        },
        {"type": "integer", "minimum": EARLIEST // 1000, "maximum": LATEST // 1000},
    ],
}
_AMOUNT: Final[Schema] = {
    "description": 'A decimal string such as "258.00"; never a JSON number.',
    "type": "string",
    "pattern": f"^{AMOUNT_PATTERN}$",
}
_BORDER_TYPES: Final[dict[Any, tuple[str, Schema]]] = {Instant: ("Instant", _INSTANT), Amount: ("Amount", _AMOUNT)}

# Which amount needs the event's currency, by type.
_MONEY: Final = {
    "OrderRefunded": ("amount",),
    "CheckoutStarted": ("total",),
    "CustomerBaseline": ("spend",),
    "ProfileUpdated": ("acquisition_cost",),
    "CouponIssued": ("value", "min_spend"),
    "IssuedCoupon": ("value", "min_spend"),
}


def json_schema(message: Message) -> Schema:
    """The published schema of one message."""
    used: dict[str, Schema] = {}

    def border_type(wanted: type) -> Schema:
        name, schema = _BORDER_TYPES[wanted]
        used[name] = schema
        return {"$ref": f"#/$defs/{name}"}

    _, components = msgspec.json.schema_components(
        [message.type], schema_hook=border_type, ref_template="#/$defs/{name}"
    )
    defs = {name: _finish(name, schema, message.comes_in) for name, schema in components.items()}
    schema = defs.pop(message.type.__name__)
    if message.comes_in:
        schema["properties"] = {"type": {"const": message.name}, **schema["properties"]}
        schema["required"] = ["type", *schema["required"]]
    published: Schema = {"$schema": DIALECT, "$id": schema_id(message.name), **schema, "title": message.name}
    if defs or used:
        published["$defs"] = dict(sorted({**defs, **used}.items()))
    return published


def _finish(name: str, schema: Schema, comes_in: bool) -> Schema:
    """From what the library says of a type to what we promise about it."""
    if "description" in schema:
        schema["description"] = " ".join(inspect.cleandoc(schema["description"]).split())
    properties = schema["properties"]
    required = schema.setdefault("required", []) if comes_in else list(properties)
    for field, rule in properties.items():
        default = rule.pop("default", None)
        if not comes_in or field in required:
            properties[field] = _compact(rule)
            continue
        properties[field] = _compact(rule if _nullable(rule) else {"anyOf": [rule, {"type": "null"}]})
        if default not in (None, ()):
            properties[field]["default"] = default
    finished: Schema = {key: schema[key] for key in ("title", "description", "type", "properties") if key in schema}
    finished["required"] = required
    conditions = [_needs_currency(field) for field in _MONEY.get(name, ())]
    return {**finished, "allOf": conditions} if conditions else finished


def _nullable(rule: Schema) -> bool:
    return any(option.get("type") == "null" for option in rule.get("anyOf", ()))


def _compact(rule: Schema) -> Schema:
    """`anyOf: [{type: string}, {type: null}]` as `type: [string, null]`, where that says the same; the type first."""
    options = rule.get("anyOf", ())
    if len(options) == 2 and options[1] == {"type": "null"} and "$ref" not in options[0]:
        first = options[0]
        if "enum" in first:
            return {"enum": [*first["enum"], None]}
        return {"type": [first["type"], "null"], **{key: first[key] for key in first if key != "type"}}
    return {key: rule[key] for key in ("type", *rule) if key in rule}


def _needs_currency(field: str) -> Schema:
    """Money says in which currency; the percentage of a percent coupon is no money."""
    given: Schema = {"required": [field], "properties": {field: {"type": "string"}}}
    if field == "value":
        given["properties"]["kind"] = {"not": {"const": "percent"}}
    return {"if": given, "then": {"required": ["currency"], "properties": {"currency": {"type": "string"}}}}
