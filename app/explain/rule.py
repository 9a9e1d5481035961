"""A rule in plain words: a paragraph, a drawn timeline, a line of a table. Reads the rule as its file has it.

The file must have been checked; settings that have no words here are repeated as they stand, so that none is hidden.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from app.core.scope import VARIABLES
from app.explain import language
from app.explain.language import duration, event, listed, timing

Data = Mapping[str, Any]
"""A rule file, read as YAML."""

_SAID = {
    "rule", "version", "family", "about", "enter", "ends", "steps", "holds", "retime_on", "check", "send", "reason",
    "facts", "reentry", "mode", "start", "goal", "source",
}  # fmt: skip
_SAID_OF_SEND = {"action", "class", "channels", "priority", "collapse", "expires_after", "max_rate"} | {
    "once_in", "discount_every", "coupon_in_hand",
}  # fmt: skip
_FIRST_ORDER = "the first order, which was heard of before"
_SAID_OF_STEP = {"after", "at", "at_once"}
_PLURALS = {"category": "categories", "coupon": "coupons", "order": "orders", "product": "products"}


class Overview(NamedTuple):
    """A rule in a line."""

    rule: str
    action: str
    enters: str
    steps: str
    ends: str
    about: str
    source: str
    family: str = ""


def markdown(rows: list[Overview]) -> str:
    """The table of the rules as Markdown."""
    lines = [
        "| rule | topic | action | enters | fires | ends | source | about |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = (
            f"`{row.rule}`",
            f"`triggers.{row.family}`",
            row.action,
            row.enters,
            row.steps,
            row.ends,
            row.source,
            row.about,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def overview(data: Data) -> Overview:
    """A rule in a line of a table; expressions are shortened, not translated."""
    enters = [f"{entry.get('on')}{_of(data)}" for entry in _entries(data, "enter")]
    ends = [str(end["on"]) if "on" in end else f"at {end.get('at')}" for end in _entries(data, "ends")]
    return Overview(
        rule=str(data.get("rule")),
        action=_action(data),
        enters=", ".join(dict.fromkeys(enters)),
        steps=", ".join(_short(step, number) for number, step in enumerate(_entries(data, "steps"), 1)),
        ends=", ".join(dict.fromkeys(ends)) or "-",
        about=str(data.get("about", "")),
        source=str(data.get("source", "-")),
        family=str(data.get("family", "")),
    )


def paragraph(data: Data, width: int = 100) -> list[str]:
    """A rule in a paragraph of plain words, wrapped."""
    said = " ".join(
        [
            str(data.get("about")),
            entrance(data),
            *_waiting(data),
            _stepping(data),
            *_asking(data),
            _sending(data),
            *_at_most(data),
            *_sparing(data),
            *_goal(data),
            *_starting(data),
            f'The reason that goes with it: "{data.get("reason")}"',
            *([f"The rule comes from: {data['source']}."] if data.get("source") else []),
        ]
    )
    lines = textwrap.wrap(said, width)
    other = {name: value for name, value in data.items() if name not in _SAID}
    other |= {f"send.{name}": value for name, value in _send(data).items() if name not in _SAID_OF_SEND}
    return lines + [f"Also set: {name}: {flow(value)}" for name, value in other.items()]


def entrance(data: Data) -> str:
    """What lets a user in, how often, and what ends it: the sentences of the paragraph that say so."""
    return f"It is entered {_entering(data)}. {_reentry(data)} {_ending(data)}"


def timeline(data: Data, width: int = 100) -> list[str]:
    """A rule as a line in time, drawn from the top to the bottom."""
    drawn: list[str] = []
    for entry in _entries(data, "enter"):
        since = timing(entry["at"]) if "at" in entry else _FIRST_ORDER if "as_of" in entry else ""
        when = f" (counted from {since})" if since else ""
        drawn += _beside("●", f"{event(entry.get('on'))}{when}: a run begins{_each(data)}", width)
    check = f"only if {language.condition(data['check'])}" if data.get("check") else ""
    for number, step in enumerate(_entries(data, "steps"), 1):
        drawn += ["  │", *_beside("│", _when(step, number), width), "  │"]
        drawn += _beside(str(number), f"{_message(data)}{_extras(step)}", width)
        drawn += _beside("│", check, width) if check else []
    drawn += ["  │", *_beside("■", "the run is over", width), ""]
    ends = [_end(end) for end in _entries(data, "ends")]
    for text in ends:
        drawn += _beside("✕", f"over at any time before: {text}", width)
    holds = data.get("holds")
    if holds:
        drawn += _beside("◌", f"stands still from {holds['from']} until {holds['until']}", width)
    return drawn


def glossary(data: Data) -> list[str]:
    """The names of the view that the rule mentions, with their meaning."""
    names: list[str] = []
    for text in _expressions(data):
        names += language.names_in(text)
    return [f"{name}: {VARIABLES[name].about}" for name in dict.fromkeys(names)]


# -- the parts of the paragraph


def _entering(data: Data) -> str:
    entries = []
    for entry in _entries(data, "enter"):
        text = f"when {event(entry.get('on'))}"
        if "when" in entry:
            text += f", if {language.condition(entry['when'])}"
        if "at" in entry:
            text += f", as of {timing(entry['at'])}"
        if "as_of" in entry:
            text += f", as of {_FIRST_ORDER}"
        entries.append(text)
    return "; or ".join(entries)


def _reentry(data: Data) -> str:
    key, reentry = language.spoken(str(_key(data))), data.get("reentry", "after_exit")
    one = f"Each {key} has a run of its own" if _key(data) != "user" else "A user has one run at a time"
    if isinstance(reentry, Mapping):
        return f"{one}, and a new one at the earliest {duration(reentry.get('cooldown'))} after the last."
    ways = {
        "once": "and there is only ever one.",
        "every_key": f"and no {key} enters twice.",
        "every_purchase": "and of an order that the shop split, one part enters for all.",
        "after_exit": "and may enter again once that is over.",
    }
    return f"{one}, {ways.get(str(reentry), f'reentry {reentry}.')}"


def _ending(data: Data) -> str:
    ends = [_end(end) for end in _entries(data, "ends")]
    return f"It ends at once {listed(ends)}." if ends else "Nothing ends it before its last step."


def _end(end: Data) -> str:
    if "on" not in end:
        return language.moment(end.get("at"))
    same = f" of the same {language.spoken(str(end['same']))}" if "same" in end else ""
    when = f", if {language.condition(end['when'])}" if "when" in end else ""
    whenever = " (whenever it is heard of: what went out is taken back)" if end.get("whenever") else ""
    return f"when {event(end['on'])}{same}{when}{whenever}"


def _waiting(data: Data) -> Iterable[str]:
    holds, retimed = data.get("holds"), data.get("retime_on")
    if holds:
        yield f"It stands still when {event(holds['from'])}, until {event(holds['until'])}."
    if retimed:
        yield f"Its next step is timed anew when {listed(map(event, retimed))}."


def _stepping(data: Data) -> str:
    steps = [
        f"step {number}: {_when(step, number)}{_extras(step)}" for number, step in enumerate(_entries(data, "steps"), 1)
    ]
    return f"It comes in {language.counted(len(steps), 'step')}: {'; '.join(steps)}."


def _when(step: Data, number: int) -> str:
    if "at_once" in step:
        return "at once"
    if "at" in step:
        return language.moment(step["at"])
    return f"{timing(step.get('after'))} after {'the entry' if number == 1 else f'step {number - 1} was due'}"


def _extras(step: Data) -> str:
    extras = [f"{name}: {flow(value)}" for name, value in step.items() if name not in _SAID_OF_STEP]
    return f" ({', '.join(extras)})" if extras else ""


def _asking(data: Data) -> Iterable[str]:
    if data.get("check"):
        yield f"Before anything goes out it asks once more whether {language.condition(data['check'])}."


def _sending(data: Data) -> str:
    send = _send(data)
    life = duration(send.get("expires_after", "1d"))
    if send.get("action") == "grant":
        return f"What goes out is a grant, for the service that carries it out within {life}; no contact is made."
    text = f"What goes out is {_message(data)}; it may be sent for {life}, with priority {send.get('priority', 10)}"
    if send.get("collapse"):
        text += f" among those that share '{send['collapse']}'"
    if data.get("mode") == "shadow":
        text += "; but the rule is in shadow mode, so nothing is really sent"
    return f"{text}."


def _at_most(data: Data) -> Iterable[str]:
    if rate := _send(data).get("max_rate"):
        count, _, window = str(rate).partition(" per ")
        late = "is dropped" if _send(data).get("on_cap") == "drop" else "waits for its turn while it is worth sending"
        yield (
            f"The whole shop sends at most {int(count):,} within {duration(window)}, or one from each partition where "
            f"there are more of those; what is more {late}."
        )


def _sparing(data: Data) -> Iterable[str]:
    send = _send(data)
    if "once_in" in send:
        yield f"It writes to a user once in {duration(send['once_in'])}."
    if "discount_every" in send:
        yield f"A user gets one discount in {duration(send['discount_every'])}; else the message goes out without it."
    if "coupon_in_hand" in send:
        yield "A coupon that the user could use now is named in place of the offer."


def _message(data: Data) -> str:
    send = _send(data)
    if send.get("action") == "grant":
        return "a grant"
    kind = send.get("class", "marketing")
    first, *others = [str(channel) for channel in send.get("channels") or ["no channel"]]
    return f"a {kind} contact by {first}{', else ' + listed(others) if others else ''}"


def _goal(data: Data) -> Iterable[str]:
    goal = data.get("goal")
    if isinstance(goal, Mapping) and "on" in goal:
        within = f" within {duration(goal['within'])}" if "within" in goal else ""
        rest = {name: value for name, value in goal.items() if name not in ("on", "within")}
        yield f"It has worked when {event(goal['on'])}{within}{f' ({flow(rest)})' if rest else ''}."
    elif goal:
        yield f"Its goal: {flow(goal)}."


def _starting(data: Data) -> Iterable[str]:
    start = data.get("start")
    if start == "none":
        yield "What happened before the rule was switched on starts nothing."
    elif isinstance(start, Mapping):
        yield f"Nothing that was due before {start.get('since')} is sent."


# -- small things


def _beside(mark: str, text: str, width: int) -> list[str]:
    """A mark with a text beside it, wrapped under itself."""
    first, *rest = textwrap.wrap(text, width - 5) or [""]
    under = " " if mark in "■✕◌" else "│"
    return [f"  {mark}  {first}", *(f"  {under}  {line}" for line in rest)]


def _short(step: Data, number: int) -> str:
    if "at_once" in step:
        return "at once"
    return str(step["at"]) if "at" in step else f"{'' if number == 1 else '+'}{step.get('after')}"


def _of(data: Data) -> str:
    return "" if _key(data) == "user" else f" (each {language.spoken(_key(data))})"


def _each(data: Data) -> str:
    key = _key(data)
    return "" if key == "user" else f", one for each of the {_PLURALS.get(key, language.spoken(key) + 's')}"


def _action(data: Data) -> str:
    send = _send(data)
    action = str(send.get("action", "contact"))
    return f"{action}, shadow" if data.get("mode") == "shadow" else action


def _key(data: Data) -> str:
    return str(next((entry.get("key", "user") for entry in _entries(data, "enter")), "user"))


def _send(data: Data) -> Data:
    send = data.get("send")
    return send if isinstance(send, Mapping) else {}


def _entries(data: Data, name: str) -> list[Data]:
    value = data.get(name) or []
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, Mapping)]


def _expressions(data: Data) -> Iterable[str]:
    for name in ("enter", "ends", "steps"):
        for entry in _entries(data, name):
            yield from (str(entry[part]) for part in ("when", "at", "after") if part in entry)
    yield str(data.get("check", ""))
    yield str(data.get("reason", ""))
    yield from map(str, data.get("facts") or ())


def flow(value: object) -> str:
    """A value as YAML writes it on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {flow(item)}' for name, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
