"""What a rule says and nothing would hear: settings that mean nothing beside another one, or that nobody asks.

The reader of rule files checks each setting by itself; here they stand side by side. What would be passed over in
silence is a mistake, for who wrote it thinks that it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.core import expressions
from app.core.expressions import ExpressionError
from app.core.problems import Path, shown
from schemas.events import EVENT_TYPES, CouponIssued, UserErased, UserMerged

Said = Iterator[tuple[Path, str]]

#: Settings that change nothing when they are left empty, where their names promise that they do.
_NOT_EMPTY: Mapping[str, tuple[str, ...]] = {
    "": ("check", "holds", "goal", "start", "repeat", "paused"),
    "enter": ("when", "each", "at", "as_of"),
    "ends": ("when", "same", "at"),
    "steps": ("offer",),
    "send": ("expires_after", "once_in", "discount_every", "max_rate"),
    "goal": ("within",),
    "reentry": ("cooldown",),
}
_LISTS = (("send", "channels"), ("recheck",), ("retime_on",), ("facts",))
_OF_AN_EVENT = ("when", "same", "whenever")
#: With these the account is gone, and its runs with it.
_LAST_WORDS = (UserErased.TYPE, UserMerged.TYPE)
#: What is about goods or their categories, and has no lines of them.
_LINELESS = {
    ("category", "OrderPlaced"): "Only OrderPaid is read line by line for categories: write 'on: OrderPaid'.",
    **{
        (key, "ProductViewed"): "A look is at one product, and has no lines: take 'each: line' out."
        for key in ("category", "product_type")
    },
}
_GRANTS_HAVE_NO = {
    "channels": "A grant says nothing to anybody: take 'channels' out, or write 'action: contact'.",
    "once_in": "'once_in' holds back contacts, not grants: write 'reentry: {cooldown: ...}' for a rule that gives once "
    "in so long.",
}
#: A moment of a thing that stays what it is while a run lives, and what is added to it.
_FROM = re.compile(r"\s*([a-z_.]+)((?:\s*[+-]\s*\d+(?:d|h|min|s))*)\s*")
_PART = re.compile(r"([+-])\s*(\d+(?:d|h|min|s))")
_FIXED = {"coupon": ("coupon.issued_at", "coupon.valid_from", "coupon.expires_at")}


def unheard(data: Mapping[str, Any], key: str) -> Said:
    """Each of them in a rule's file, and its way out. What is wrong otherwise is not spoken of here."""
    yield from _empty(data)
    yield from _entering(data, key)
    yield from _ending(data)
    yield from _sending(data)
    yield from _retiming(data)
    yield from _in_order(data, key)
    yield from _named_twice(data)
    yield from _namesakes(data)


def entries(data: Mapping[str, Any], name: str) -> list[tuple[Path, Mapping[str, Any]]]:
    """Those of a setting that are mappings, be it one or a list."""
    value = data.get(name)
    some = enumerate(value) if isinstance(value, list) else [(None, value)]
    return [((name,) if place is None else (name, place), one) for place, one in some if isinstance(one, Mapping)]


def _empty(data: Mapping[str, Any]) -> Said:
    for section, names in _NOT_EMPTY.items():
        for path, entry in entries(data, section) if section else [((), data)]:
            for name in names:
                if name in entry and entry[name] is None:
                    yield (*path, name), f"There is nothing after '{name}': write what it is to be, or take it out."


def _entering(data: Mapping[str, Any], key: str) -> Said:
    for path, entry in entries(data, "enter"):
        event = entry.get("on")
        if event in _LAST_WORDS:
            yield (*path, "on"), f"After {event} the account is gone: nobody is left to enter a rule."
        elif entry.get("each") == "line" and (why := _LINELESS.get((key, str(event)))):
            yield (*path, "each"), why
    for section, name in (("holds", "from"), ("holds", "until"), ("goal", "on")):
        for path, entry in entries(data, section):
            if entry.get(name) in _LAST_WORDS:
                yield (*path, name), f"After {entry[name]} the account is gone, and its runs with it."


def _ending(data: Mapping[str, Any]) -> Said:
    for path, entry in entries(data, "ends"):
        if "at" not in entry:
            continue
        if "on" in entry:
            both = f"{{on: {shown(entry['on'])}}} and {{at: {shown(entry['at'])}}}"
            yield path, f"An end is an event or an instant, not both: write two entries, {both}."
            continue
        for name in _OF_AN_EVENT:
            if name in entry:
                yield (*path, name), f"'{name}' goes with 'on': an instant ('at') ends a run in any case. Take it out."


def _sending(data: Mapping[str, Any]) -> Said:
    for path, send in entries(data, "send"):
        if send.get("action") == "grant":
            yield from (((*path, name), why) for name, why in _GRANTS_HAVE_NO.items() if name in send)
        elif "once_in" in send and all(kind == "transactional" for kind in kinds(data)):
            yield (*path, "once_in"), "'once_in' holds back marketing, and all steps of this rule are transactional."


def kinds(data: Mapping[str, Any]) -> list[object]:
    """The class of each step."""
    send = data.get("send")
    of_all = send.get("class", "marketing") if isinstance(send, Mapping) else "marketing"
    return [step.get("class", of_all) for _, step in entries(data, "steps")]


def _retiming(data: Mapping[str, Any]) -> Said:
    kinds, entering = data.get("retime_on"), [entry for _, entry in entries(data, "enter")]
    if any(entry.get("as_of") is not None or _is_of_an_order(entry.get("on")) for entry in entering):
        return
    for place, kind in enumerate(kinds if isinstance(kinds, list) else ()):
        if _is_event(kind) and kind != "ProfileUpdated":
            yield ("retime_on", place), f"No order enters this rule, so {kind} of it times no step anew. Take it out."


def _is_event(name: object) -> bool:
    return isinstance(name, str) and name in EVENT_TYPES


def _is_of_an_order(event: object) -> bool:
    """Of a name that is no event's nothing is known. An order may issue a coupon, whose own event names none."""
    kind = EVENT_TYPES.get(event) if isinstance(event, str) else None
    return kind is None or kind is CouponIssued or "order_id" in kind.__struct_fields__


def _in_order(data: Mapping[str, Any], key: str) -> Said:
    """Steps that are due before the one before them, or only after the rule has ended: as far as the file tells."""
    over: dict[str, int] = {}
    for _, end in entries(data, "ends"):
        if "on" not in end and (instant := _instant(end.get("at"), key)) is not None:
            over[instant[0]] = min(instant[1], over.get(instant[0], instant[1]))
    before: tuple[str, int] | None = ("entered_at", 0)
    for number, (path, step) in enumerate(entries(data, "steps"), 1):
        due = _instant(step["at"], key) if "at" in step else _later(before, step)
        if due is not None and due[1] > over.get(due[0], due[1]):
            yield path, "This step comes after the rule has ended: see 'at' under 'ends'."
        elif due is not None and before is not None and number > 1 and due[0] == before[0] and due[1] < before[1]:
            yield path, f"This step is due before step {number - 1}, and would never come: put the earlier one first."
        before = due


def _later(before: tuple[str, int] | None, step: Mapping[str, Any]) -> tuple[str, int] | None:
    span = 0 if step.get("at_once") else _length(step.get("after"))
    return None if before is None or span is None else (before[0], before[1] + span)


def _instant(text: object, key: str) -> tuple[str, int] | None:
    """'coupon.expires_at - 3d' -> (coupon.expires_at, -3 days); None for what only a user's row can tell."""
    found = _FROM.fullmatch(str(text))
    if found is None or found[1] not in ("entered_at", *_FIXED.get(key, ())):
        return None
    spans = [int(f"{sign}{expressions.duration(span)}") for sign, span in _PART.findall(found[2])]
    return found[1], sum(spans)


def _length(text: object) -> int | None:
    try:
        return expressions.duration(str(text))
    except ExpressionError:
        return None


def _named_twice(data: Mapping[str, Any]) -> Said:
    for path in _LISTS:
        value: Any = data
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        for place, name in enumerate(value if isinstance(value, list) else ()):
            if name in value[:place]:
                yield (*path, place), f"'{name}' stands here twice. Take one of them out."


def _namesakes(data: Mapping[str, Any]) -> Said:
    """Facts go out under the last words of their names."""
    facts = data.get("facts")
    called: dict[str, str] = {}
    for place, name in enumerate(map(str, facts if isinstance(facts, list) else ())):
        last = name.rpartition(".")[2]
        if (other := called.setdefault(last, name)) != name:
            both = f"'{other}' and '{name}' would both be called '{last}' in a trigger, which carries only one of them"
            yield ("facts", place), f"{both}. Take one of them out."
