"""A rule in plain words: a paragraph, a drawn timeline, a line of a table. Reads the rule as its file has it.

The file must have been checked; settings that have no words here are repeated as they stand, so that none is hidden.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from app.core.policy import Policy
from app.core.scope import VARIABLES
from app.explain import language, sending, things
from app.explain.language import duration, event, flow, listed, timing
from app.explain.things import Data, entries, key_of

_SAID = {
    "rule", "version", "family", "about", "enter", "ends", "steps", "holds", "retime_on", "check", "send", "reason",
    "facts", "recheck", "reentry", "repeat", "mode", "start", "goal", "holdout", "paused", "on_change", "source",
}  # fmt: skip
_FIRST_ORDER = "the first order, which was heard of before"
_STARTS = {
    "none": "What happened before the rule was switched on starts nothing.",
    "state-only": "Nothing that was due before the rule was switched on is sent.",
}
_PAUSED = {
    "hold": "waits until it is no longer worth sending",
    "skip": "is dropped",
    "expire": "counts as no longer worth sending",
}
_CHANGED = {
    "finish": "finishes under that one",
    "follow": "goes on under this one",
    "restart": "begins anew under this one",
    "exit": "is out of it",
}
#: What a name comes to that is a number of the shop's, or is made of one.
_NUMBERS: Mapping[str, Callable[[Policy], str]] = {
    "policy.magic_number": lambda policy: f"magic number: {policy.magic_number}",
    "policy.lead": lambda policy: f"lead: {language.span(policy.lead)}",
    **dict.fromkeys(
        ("user.usual_gap", "silence.at_risk", "silence.churned", "silence.churned_before"),
        lambda policy: f"usual gap: {language.span(policy.usual_gap)}",
    ),
}
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
    enters = [f"{entry.get('on')}{_of(data)}" for entry in entries(data, "enter")]
    ends = [str(end["on"]) if "on" in end else f"at {end.get('at')}" for end in entries(data, "ends")]
    return Overview(
        rule=str(data.get("rule")),
        action=_action(data),
        enters=", ".join(dict.fromkeys(enters)),
        steps=", ".join(_short(step, number) for number, step in enumerate(entries(data, "steps"), 1)),
        ends=", ".join(dict.fromkeys(ends)) or "-",
        about=str(data.get("about", "")),
        source=str(data.get("source", "-")),
        family=str(data.get("family", "")),
    )


def shown(data: Data, width: int = 100, policy: Policy | None = None) -> list[str]:
    """All that there is to say of a rule: a line about it, the paragraph, the timeline, the names that it uses, with
    what the shop says of them where its policy is known."""
    name, version, family = data.get("rule"), data.get("version"), data.get("family")
    lines = [f"{name}, version {version} (family {family}, {data.get('mode', 'live')})", "", *paragraph(data, width)]
    lines += ["", *timeline(data, width)]
    if names := glossary(data, policy):
        lines += ["", "Names that it uses:", *(line for name in names for line in _named(name, width))]
    return lines


def paragraph(data: Data, width: int = 100) -> list[str]:
    """A rule in a paragraph of plain words, wrapped."""
    said = " ".join(
        [
            str(data.get("about")),
            entrance(data),
            *_waiting(data),
            _stepping(data),
            *_asking(data),
            *sending.sentences(data),
            *_goal(data),
            *_standing(data),
            f'The reason that goes with it: "{data.get("reason")}"',
            *_facts(data),
            *([f"The rule comes from: {data['source']}."] if data.get("source") else []),
        ]
    )
    lines = textwrap.wrap(said, width)
    other = {name: value for name, value in data.items() if name not in _SAID} | sending.unsaid(data)
    return lines + [f"Also set: {name}: {flow(value)}" for name, value in other.items()]


def entrance(data: Data) -> str:
    """What lets a user in, how often, and what ends it: the sentences of the paragraph that say so."""
    return " ".join([f"It is entered {_entering(data)}.", _reentry(data), *things.one_each(data), _ending(data)])


def timeline(data: Data, width: int = 100) -> list[str]:
    """A rule as a line in time, drawn from the top to the bottom."""
    drawn: list[str] = []
    for entry in entries(data, "enter"):
        since = timing(entry["at"]) if "at" in entry else _FIRST_ORDER if entry.get("as_of") else ""
        when = f" (counted from {since})" if since else ""
        drawn += _beside("●", f"{event(entry.get('on'))}{when}: a run begins{_each(data)}", width)
    check = f"only if {language.condition(data['check'])}" if data.get("check") else ""
    for number, step in enumerate(entries(data, "steps"), 1):
        drawn += ["  │", *_beside("│", _when(step, number), width), "  │"]
        drawn += _beside(str(number), sending.message(data, step), width)
        drawn += _beside("│", check, width) if check else []
    over = ("↻", "and so on, a year later") if data.get("repeat") else ("■", "the run is over")
    drawn += ["  │", *_beside(*over, width), ""]
    for entry in entries(data, "ends"):
        drawn += _beside("✕", f"over at any time before: {things.end(data, entry)}", width)
    if back := things.taken_back(data):
        drawn += _beside("✕", f"over, and what is out is taken back: when {back}", width)
    if holds := things.holds(data):
        drawn += _beside("◌", f"stands still {holds}", width)
    return drawn


def glossary(data: Data, policy: Policy | None = None) -> list[str]:
    """The names of the view that the rule mentions, with their meaning, and the shop's number where one is in it."""
    names: list[str] = []
    for text in _expressions(data):
        names += language.names_in(text)
    return [f"{name}: {VARIABLES[name].about}{_of_the_shop(name, policy)}" for name in dict.fromkeys(names)]


def _named(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ")


def _of_the_shop(name: str, policy: Policy | None) -> str:
    read = _NUMBERS.get(name)
    return "" if read is None or policy is None else f" (the shop's {read(policy)})"


# -- the parts of the paragraph


def _entering(data: Data) -> str:
    """What enters; a condition that is asked of every event is said once."""
    entering = entries(data, "enter")
    conditions = {entry.get("when") for entry in entering}
    same = conditions.pop() if len(entering) > 1 and len(conditions) == 1 else None
    ways = "; or ".join(_way_in(data, entry, same is None) for entry in entering)
    return f"{ways}; each time only if {language.condition(same)}" if same is not None else ways


def _way_in(data: Data, entry: Data, says_if: bool) -> str:
    text = f"when {event(entry.get('on'))}"
    if entry.get("each"):
        text += f", once for each {language.spoken(key_of(data))} in it"
    if "at" in entry:
        text += f", as of {timing(entry['at'])}"
    if entry.get("as_of"):
        text += f", as of {_FIRST_ORDER}"
    if "when" in entry and says_if:
        text += f", if {language.condition(entry['when'])}"
    return text


def _reentry(data: Data) -> str:
    key, reentry = language.spoken(key_of(data)), data.get("reentry", "after_exit")
    one = f"Each {key} has a run of its own" if key != "user" else "A user has one run at a time"
    if isinstance(reentry, Mapping):
        who = "" if key == "user" else "a user "
        return f"{one}, and {who}enters again {duration(reentry.get('cooldown'))} after the last entry at the earliest."
    ways = {
        "once": "but a user enters only once in all." if key != "user" else "and there is only ever one.",
        "every_key": f"and no {key} enters twice.",
        "every_purchase": "no order enters twice, and of an order that the shop split, one part enters for all.",
        "after_exit": "and may enter again once that is over.",
    }
    return f"{one}, {ways.get(str(reentry), f'reentry {reentry}.')}"


def _ending(data: Data) -> str:
    ends, back = [things.end(data, entry) for entry in entries(data, "ends")], things.taken_back(data)
    if not ends and not back:
        return "Nothing ends it before its last step."
    if not ends:
        return f"Nothing ends it before its last step but this: when {back}, what is out is taken back."
    *first, last = ends
    said = f"{'; '.join(first)}; or {last}" if any(", if " in text for text in ends) and first else listed(ends)
    return f"It ends at once {said}.{f' When {back}, it ends and what is out is taken back.' if back else ''}"


def _waiting(data: Data) -> Iterable[str]:
    if holds := things.holds(data):
        yield f"It stands still {holds}; what came due meanwhile is due then."
    if retimed := things.retimed(data):
        yield f"Its next step is timed anew when {retimed}."


def _stepping(data: Data) -> str:
    steps = [
        f"step {number}: {_when(step, number)}{sending.offer(step)}"
        for number, step in enumerate(entries(data, "steps"), 1)
    ]
    again = " After its last step it begins anew: it comes every year." if data.get("repeat") else ""
    return f"It comes in {language.counted(len(steps), 'step')}: {'; '.join(steps)}.{again}"


def _when(step: Data, number: int) -> str:
    if step.get("at_once"):
        return "at once"
    if "at" in step:
        return language.moment(step["at"])
    since = "the entry" if number == 1 else f"step {number - 1} was due"
    said = timing(step.get("after"))
    # what is no plain length may end in words that 'after the entry' would be taken to belong to
    return f"{said} after {since}" if said[:1].isdigit() else f"when {said} has passed since {since}"


def _asking(data: Data) -> Iterable[str]:
    if data.get("check"):
        yield f"Before anything goes out it asks once more whether {language.condition(data['check'])}."
    ends = [str(entry.get("at")).strip() for entry in entries(data, "ends")]
    if key_of(data) in ("coupon", "pack") and "coupon.expires_at" not in ends:
        yield "Once the coupon has expired, nothing goes out."


def _goal(data: Data) -> Iterable[str]:
    goal = data.get("goal")
    if isinstance(goal, Mapping) and "on" in goal:
        within = f" within {duration(goal['within'])}" if "within" in goal else ""
        rest = {name: value for name, value in goal.items() if name not in ("on", "within")}
        yield f"It has worked when {event(goal['on'])}{within}{f' ({flow(rest)})' if rest else ''}."
    elif goal:
        yield f"Its goal: {flow(goal)}."


def _standing(data: Data) -> Iterable[str]:
    """Where the rule itself stands: since when, for whom, paused or not, what it makes of runs of another version."""
    start = data.get("start")
    if isinstance(start, Mapping):
        yield f"Nothing that was due before {start.get('since')} is sent."
    elif start is not None:
        yield _STARTS[str(start).replace("_", "-")]
    if share := data.get("holdout"):
        yield f"Of all users {100 * share:g} % are held out of it, so that the others can be compared with them."
    if "paused" in data:
        yield f"It is paused: what comes due {_PAUSED[str(data['paused'])]}."
    if "on_change" in data:
        yield f"Whoever entered under another version {_CHANGED[str(data['on_change'])]}."


def _facts(data: Data) -> Iterable[str]:
    names = [str(name) for name in data.get("facts") or ()]
    said = (f"{'whether ' if VARIABLES[name].kind == 'bool' else ''}{language.phrase(name)}" for name in names)
    if names:
        yield f"The facts that go with it: {listed(said, 'and')}."


# -- small things


def _beside(mark: str, text: str, width: int) -> list[str]:
    """A mark with a text beside it, wrapped under itself."""
    first, *rest = textwrap.wrap(text, width - 5) or [""]
    under = " " if mark in "■✕◌" else "│"
    return [f"  {mark}  {first}", *(f"  {under}  {line}" for line in rest)]


def _short(step: Data, number: int) -> str:
    if step.get("at_once"):
        return "at once"
    return str(step["at"]) if "at" in step else f"{'' if number == 1 else '+'}{step.get('after')}"


def _of(data: Data) -> str:
    return "" if key_of(data) == "user" else f" (each {language.spoken(key_of(data))})"


def _each(data: Data) -> str:
    key = key_of(data)
    return "" if key == "user" else f", one for each of the {_PLURALS.get(key, language.spoken(key) + 's')}"


def _action(data: Data) -> str:
    send = sending.send_of(data)
    action = str(send.get("action", "contact"))
    return f"{action}, shadow" if data.get("mode") == "shadow" else action


def _expressions(data: Data) -> Iterable[str]:
    for name in ("enter", "ends", "steps"):
        for entry in entries(data, name):
            yield from (str(entry[part]) for part in ("when", "at", "after") if part in entry)
    yield str(data.get("check", ""))
    yield str(data.get("reason", ""))
    yield from map(str, data.get("facts") or ())
