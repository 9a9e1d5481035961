"""The JSON Schema of rule files, so that editors complete and check them. Made from the reader's own tables.

The reader stays the judge: what it refuses may pass here (whether a name exists in the view, whether an event carries
a key), never the reverse.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.core import catalogue_file as reader
from app.core.policy import CHANNELS, FAMILIES
from app.explain.language import EVENTS
from schemas.events import EVENT_TYPES

Schema = dict[str, Any]

ID: Final = "urn:lifecycle-triggers:schema:rule:v1"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_NAME: Final = "^[a-z][a-z0-9_]*$"
#: 3 days, 3days: a number that is followed by a word, and not by one of the units.
_NO_UNIT: Final = r"[0-9]\s+[A-Za-z_]|[0-9](?!(?:d|h|min|s)\b)[A-Za-z_]"

_DURATION: Final[Schema] = {
    "type": "string",
    "pattern": r"^\s*[0-9]+(d|h|min|s)\s*$",
    "description": "A whole number and a unit, such as 7d, 36h, 15min or 30s.",
}
_TIMING: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "not": {"pattern": _NO_UNIT},
    "description": "A sum of instants and durations: 7d, coupon.expires_at - 3d, min(7d, coupon.validity / 2).",
}
_CONDITION: Final[Schema] = {
    "type": ["string", "boolean"],
    "description": "A condition in CEL, such as coupon.expires_in > duration('72h').",
}
_EVENT: Final[Schema] = {
    "description": "An event of the contract.",
    "oneOf": [{"const": kind, "description": EVENTS.get(kind, kind)} for kind in EVENT_TYPES],
}
#: What a condition of an event is for; an instant ends a run in any case.
_OF_AN_EVENT: Final = ("when", "same", "whenever")
_DEFS: Final = {"duration": _DURATION, "timing": _TIMING, "condition": _CONDITION, "event": _EVENT}


def rule_schema() -> Schema:
    """The published schema of a rule file."""
    properties = _properties(reader._TOP, _SETTINGS)
    properties["enter"] = {
        "description": "The events that enter the rule; one, or a list.",
        **_one_or_more(_mapping(reader._ENTER, _ENTRY, ["on"]), at_least=1),
    }
    properties["ends"] = {
        "description": "What ends a run at once: events, and instants.",
        **_one_or_more(_mapping(reader._END, _END, []) | {"oneOf": [_either("on"), _either("at", *_OF_AN_EVENT)]}),
    }
    properties["steps"] = {
        "description": "When to act. Each step has exactly one of after, at and at_once.",
        **_one_or_more(
            _mapping(reader._STEP, _STEP, []) | {"oneOf": [_either(name) for name in ("after", "at", "at_once")]},
            at_least=1,
        ),
    }
    properties["send"] = {"description": "What goes out.", **_mapping(reader._SEND, _SEND, [])}
    return {
        "$schema": _DIALECT,
        "$id": ID,
        "title": "A rule of the lifecycle catalogue",
        "description": "One file, one rule. `lifecycle rules check` knows the rest, and says it in sentences.",
        "type": "object",
        "properties": properties,
        "required": ["rule", "version", "family", "about", "enter", "steps", "send", "reason", "reentry"],
        "additionalProperties": False,
        "$defs": _DEFS,
    }


def _properties(names: Iterable[str], said: dict[str, Schema]) -> dict[str, Schema]:
    """The reader's settings in the order of this file; one that has no entry here may hold anything."""
    known = set(names)
    return {name: said.get(name, {}) for name in [*(n for n in said if n in known), *sorted(known - said.keys())]}


def _mapping(names: Iterable[str], said: dict[str, Schema], required: list[str]) -> Schema:
    schema: Schema = {"type": "object", "properties": _properties(names, said), "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def _one_or_more(entry: Schema, at_least: int = 0) -> Schema:
    some: Schema = {"type": "array", "items": entry}
    return {"anyOf": [entry, {**some, "minItems": at_least} if at_least else some]}


def _either(name: str, *without: str) -> Schema:
    """One of the ways to write an entry: with this, and without what goes with another one."""
    return {"required": [name], **({"properties": dict.fromkeys(without, False)} if without else {})}


def _list(description: str, **items: Any) -> Schema:
    """A list that says nothing twice."""
    return {"type": "array", "description": description, "items": items, "uniqueItems": True}


def _ref(name: str, description: str) -> Schema:
    return {"$ref": f"#/$defs/{name}", "description": description}


def _choice(values: Iterable[str], description: str, default: str | None = None) -> Schema:
    schema: Schema = {"description": description, "enum": [*values]}
    return {**schema, "default": default} if default else schema


_SETTINGS: Final[dict[str, Schema]] = {
    "rule": {"type": "string", "pattern": _NAME, "description": "The rule's name, such as coupon_unused."},
    "version": {
        "type": "integer",
        "minimum": 1,
        "maximum": reader.WHOLE,
        "description": "Raised with every change of meaning.",
    },
    "family": _choice(FAMILIES, "Decides the topic: triggers.<family>."),
    "about": {"type": "string", "description": "What the rule is for, in a sentence for people."},
    "source": {"type": "string", "description": "Where the rule comes from, for people: common practice, a study."},
    "enter": {},
    "ends": {},
    "steps": {},
    "holds": {
        "type": "object",
        "description": "The event that makes a run wait, and the event that lets it go on.",
        "properties": {"from": {"$ref": "#/$defs/event"}, "until": {"$ref": "#/$defs/event"}},
        "required": ["from", "until"],
        "additionalProperties": False,
    },
    "retime_on": _list(
        "Events of its order, or of the profile (another zone), that time the pending step anew.",
        enum=[*reader._RETIMES],
    ),
    "check": _ref("condition", "Asked again at the moment of release."),
    "send": {},
    "reason": {
        "type": "string",
        "description": "Why, in a sentence with values of the view between braces: Coupon {coupon.id} expires soon.",
    },
    "facts": _list("Names of the view whose values go with the trigger, under their last words.", type="string"),
    "reentry": {
        "description": "Who may enter again.",
        "anyOf": [
            {"enum": [*reader.REENTRIES]},
            {
                "type": "object",
                "properties": {"cooldown": {"$ref": "#/$defs/duration"}},
                "required": ["cooldown"],
                "additionalProperties": False,
            },
        ],
    },
    "goal": {
        "type": "object",
        "description": "What it is meant to bring about, such as {on: CouponRedeemed, within: 7d}.",
        "properties": {"on": {"$ref": "#/$defs/event"}, "within": {"$ref": "#/$defs/duration"}},
        "required": ["on", "within"],
        "additionalProperties": False,
    },
    "recheck": _list("What the sender should ask again: stock, price.", enum=[*reader.RECHECKS]),
    "holdout": {"type": "number", "minimum": 0, "maximum": 1, "description": "Share of users who never get it: 0.05."},
    "repeat": _choice(["yearly"], "After its last step a run begins anew, a year on."),
    "on_change": _choice(reader.ON_CHANGE, "What this version does with runs of another one.", "finish"),
    "paused": _choice(reader.PAUSES, "While it is paused: wait until stale, be dropped, count as stale."),
    "mode": _choice(["live", "shadow"], "shadow: everything is decided and recorded, nothing is to be sent.", "live"),
    "start": {
        "description": "What is done about history when the rule is switched on.",
        "anyOf": [
            {"enum": ["none", "state_only", "state-only"]},
            {
                "type": "object",
                "properties": {"since": {"type": "string"}},
                "required": ["since"],
                "additionalProperties": False,
            },
        ],
    },
}
_ENTRY: Final[dict[str, Schema]] = {
    "on": {"$ref": "#/$defs/event"},
    "key": _choice(reader.KEYS, "What a run is about: each one has its own.", "user"),
    "each": _choice(["line"], "One run for each product type among the lines; goes with key: product_type."),
    "when": _ref("condition", "Who enters: only if this holds at the entry."),
    "at": _ref("timing", "The instant of entry, where it is not the event's own."),
    "as_of": _choice(["first_order"], "The event only says who the user is: the first order, known by then, enters."),
}
_END: Final[dict[str, Schema]] = {
    "on": {"$ref": "#/$defs/event"},
    "same": _choice(
        [*reader.LINE_KEYS, "user"], "A line of the same kind ends the run; or, with user, whatever the event is about."
    ),
    "when": _ref("condition", "Only if this holds."),
    "at": _ref("timing", "An instant that ends the run."),
    "whenever": {
        "type": "boolean",
        "default": False,
        "description": "The event tells of what was before the entry: what went out is taken back, whenever it came.",
    },
}
_STEP: Final[dict[str, Schema]] = {
    "after": _ref("timing", "A duration; counts from the step before, the first one from the entry."),
    "at": _ref("timing", "An instant."),
    "at_once": {"const": True, "description": "The first step, in the moment of the entry."},
    "offer": {"type": "string", "description": "An offer of shop.yaml that goes with it."},
    "class": _choice(["marketing", "transactional"], "Where it differs from the rule's."),
}
_SEND: Final[dict[str, Schema]] = {
    "action": _choice(["contact", "grant"], "Say something, or give something.", "contact"),
    "class": _choice(["marketing", "transactional"], "transactional: what was ordered, not advertised.", "marketing"),
    "channels": _list("The preferred one first.", enum=[*CHANNELS]),
    "priority": {
        "type": "integer",
        "minimum": -reader.WHOLE,
        "maximum": reader.WHOLE,
        "default": 10,
        "description": "Among messages that compete; the higher wins.",
    },
    "collapse": {"type": "string", "description": "Messages that share it replace each other."},
    "expires_after": _ref("duration", "How long it is worth sending."),
    "once_in": _ref("duration", "At most one run of this rule writes to a user in so long."),
    "on_cap": _choice(["defer", "drop"], "When the caps of all its channels are full.", "defer"),
    "discount_every": _ref("duration", "At most one run brings a discount in so long; the message goes without it."),
    "max_rate": {
        "type": "string",
        "pattern": r"^\s*[0-9]*[1-9][0-9]*\s+per\s+[0-9]+(d|h|min|s)\s*$",
        "description": "1000 per 1h: at most so many in any stretch of so long, all workers together; others wait. "
        "Each partition sends its equal share, rounded down; of a rate below one a partition, up to one of each may "
        "come at once. Under CLOCK=wall slots lie LATENESS and 5 % further apart, so a rate for seconds is not used "
        "up; who came too late with two slots, because the workers stood still, goes out with the second.",
    },
    "coupon_in_hand": _choice(["instead"], "A coupon that the user holds is named in place of the offer."),
}
