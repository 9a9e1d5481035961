"""Reads rule files: YAML text in, a checked catalogue out, or every mistake at once with file, line and a way out.

Nothing here opens a file; the caller brings the texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from app.core import expressions, words
from app.core.fields import Fields
from app.core.policy import CHANNELS, FAMILIES, Policy
from app.core.problems import CatalogueError, Path, Problem, located, not_an_instant, shown, suggestion
from app.core.rules import Catalogue, End, Enter, Rate, Rule, Send, Step, index
from app.core.scope import VARIABLES
from app.core.unheard import entries, unheard
from schemas.events import EVENT_TYPES
from schemas.instant import BadInstant, parse_instant
from schemas.nearest import nearest

KEYS = ("user", "order", "coupon", "pack", "cart", "category", "product_type")
ON_CHANGE = ("finish", "follow", "restart", "exit")
PAUSES = ("hold", "skip", "expire")
#: What the sender can ask again.
RECHECKS = ("stock", "price")
LINE_KEYS = ("product_type", "category")
#: Whole numbers of a rule end here: they are kept in 64 bits, and other readers of JSON take fewer.
WHOLE = 1_000_000_000
_WITH_LINES = ("OrderPlaced", "OrderPaid")
#: Besides a cooldown.
REENTRIES = ("once", "every_key", "every_purchase", "after_exit")
_RETIMES = ("OrderReceived", "OrderRefunded", "OrderPlaced", "DepositPaid", "ProfileUpdated")
_TOP = {
    "rule", "version", "family", "about", "enter", "ends", "steps", "holds", "retime_on", "check", "send", "reason",
    "facts", "recheck", "reentry", "goal", "mode", "start", "holdout", "repeat", "on_change", "paused", "source",
}  # fmt: skip
_ENTER = {"on", "key", "when", "each", "at", "as_of"}
_END = {"on", "when", "same", "at", "whenever"}
_STEP = {"after", "at", "at_once", "offer", "class"}
_SEND = {
    "action", "class", "channels", "priority", "collapse", "expires_after", "once_in", "on_cap", "discount_every",
    "coupon_in_hand", "max_rate",
}  # fmt: skip
_GOAL = {"on", "within"}
_ENTRIES = {"enter": "{on: OrderPaid, key: user}", "ends": "{on: OrderPaid}", "steps": "{after: 7d}"}
_IN_HAND = "use of a coupon in hand"
#: What is another instant in every round of a run: round after round of anything else would be due at once.
_ONCE_A_YEAR = re.compile(r"\s*user\.(birthday|anniversary)(\s*[+-]\s*\d+(d|h|min|s))*\s*")

_NAME = re.compile("[a-z][a-z0-9_]*")


def read(texts: Mapping[str, str], policy: Policy, offers_known: bool = True) -> Catalogue:
    """The catalogue of these files ({name: YAML text}, one rule a file). Raises CatalogueError.

    When the shop's own file cannot be read, its offers are not known, and what names one is no mistake of its own."""
    problems: list[Problem] = []
    rules: dict[str, Rule] = {}
    files: dict[str, str] = {}
    for name in sorted(texts):
        reader = _Reader(name, texts[name], policy, problems, offers_known)
        rule = reader.rule()
        if rule is None:
            continue
        if rule.name in rules:
            also = f"There is a rule called '{rule.name}' in {files[rule.name]} too."
            reader.fail(("rule",), f"{also} Give one of them another name.")
        rules[rule.name], files[rule.name] = rule, name
    if problems:
        raise CatalogueError(problems)
    return index(rules, policy)


def misnamed(texts: Mapping[str, str]) -> list[Problem]:
    """The files that are not called as their rule is: a person looks for a rule by its name."""
    problems = []
    for file, text in sorted(texts.items()):
        data, lines = located(text, file, [])
        name = data.get("rule")
        if isinstance(name, str) and _NAME.fullmatch(name) and file != f"{name}.yaml":
            other = f", or write rule: {stem}" if _NAME.fullmatch(stem := file.removesuffix(".yaml")) else ""
            why = f"The rule of this file is called '{name}': rename the file to {name}.yaml{other}."
            problems.append(Problem(file, lines["rule",], why))
    return problems


def _says_which(about: str, event: str) -> bool:
    """Whether the event says which thing of a kind it is about; every event is about its user."""
    fields = EVENT_TYPES[event].__struct_fields__
    carries = {
        "user": True,
        "order": "order_id" in fields,
        "product_type": event in (*_WITH_LINES, "ProductViewed"),
        "category": event in (*_WITH_LINES, "ProductViewed"),
        "cart": event == "CartUpdated",
    }
    return carries.get(about, "coupon_id" in fields)


class _Reader(Fields):
    """A rule's file."""

    def __init__(self, file: str, text: str, policy: Policy, problems: list[Problem], offers_known: bool) -> None:
        super().__init__(file, text, problems)
        self.policy = policy
        self.offers_known = offers_known

    def items(self, name: str) -> list[tuple[Path, dict[str, Any]]]:
        """A setting that is a mapping or a list of mappings."""
        value = self.data.get(name, [])
        entries = value if isinstance(value, list) else [value]
        result = []
        for position, entry in enumerate(entries):
            path: Path = (name, position) if isinstance(value, list) else (name,)
            if isinstance(entry, dict):
                result.append((path, entry))
            else:
                self.fail(path, f"'{name}' holds entries such as {_ENTRIES[name]}, not '{shown(entry)}'.")
        return result

    # -- the rule

    def rule(self) -> Rule | None:
        if self.unreadable:
            return None
        if not self.data:
            self.fail((), "There is nothing in this file: write a rule, or take the file away.")
            return None
        before = len(self.problems)
        self.known(self.data, _TOP, ())
        for name in ("rule", "version", "family", "about", "enter", "steps", "send", "reason", "reentry"):
            if name not in self.data:
                self.fail((), f"'{name}' is missing. Every rule has one.")
        entries = self.items("enter")
        key = self.key = self.key_of(entries)
        ends, end_at = self.ends()
        rule = Rule(
            name=self.name(),
            version=self.version(),
            family=self.choice(self.data.get("family", FAMILIES[0]), FAMILIES, ("family",), "family"),
            about=self.text(self.data, "about", ("about",)),
            key=key,  # type: ignore[arg-type]  # checked by choice
            enter=tuple(self.enter(path, entry) for path, entry in entries),
            ends=ends,
            end_at=end_at,
            steps=tuple(self.step(position, path, entry) for position, (path, entry) in enumerate(self.items("steps"))),
            holds=self.holds(),
            retime_on=frozenset(
                self.choice(kind, _RETIMES, ("retime_on",), "event that changes when a step is due")
                for kind in self.listed(self.data, "retime_on", ("retime_on",))
            ),
            check=self.condition(self.data.get("check"), ("check",)),
            check_text=str(self.data.get("check", "")),
            send=self.send(),
            reason=self.text(self.data, "reason", ("reason",)),
            facts=tuple(map(str, self.listed(self.data, "facts", ("facts",)))),
            recheck=tuple(
                self.choice(what, RECHECKS, ("recheck",), "thing to ask again")
                for what in self.listed(self.data, "recheck", ("recheck",))
            ),
            reentry=self.reentry(),  # type: ignore[arg-type]  # checked by choice
            cooldown=self.cooldown(),
            mode=self.choice(self.data.get("mode", "live"), ("live", "shadow"), ("mode",), "mode"),  # type: ignore[arg-type]
            start=self.start(),
            holdout=self.share(self.data.get("holdout", 0)),
            yearly=self.yearly(),
            on_change=self.choice(self.data.get("on_change", "finish"), ON_CHANGE, ("on_change",), "on_change"),  # type: ignore[arg-type]
            paused=self.paused(),
            goal=self.goal(),
        )
        if not isinstance(self.data.get("source", ""), str):  # for people only: nothing is decided by it
            self.fail(("source",), "'source' says in a few words where the rule comes from, such as common practice.")
        self.names(("reason",), words.names_in(rule.reason))
        if re.search("[{}]", words.without_names(rule.reason)):
            self.fail(("reason",), "A value is written {coupon.id}: small letters and dots between braces, no spaces.")
        self.names(("facts",), rule.facts)
        for path, why in unheard(self.data, key):
            self.fail(path, why)
        for name, what in (("enter", "event that enters it"), ("steps", "step")):
            if self.data.get(name) == []:
                self.fail((name,), f"A rule needs at least one {what}.")
        return rule if len(self.problems) == before else None

    def names(self, path: Path, names: Any) -> None:
        for name in names:
            if name not in VARIABLES or name not in expressions.names_for(self.key):
                self.fail(path, expressions.unknown_name(str(name), self.key))

    def name(self) -> str:
        name = str(self.data.get("rule", "a_rule"))
        if not _NAME.fullmatch(name):
            self.fail(("rule",), f"'{name}' is no name: write small letters, digits and _, such as coupon_unused.")
        return name

    def version(self) -> int:
        version = self.data.get("version", 1)
        if type(version) is not int or not 1 <= version <= WHOLE:
            self.fail(("version",), f"'{shown(version)}' is no version: write a whole number, from 1 to {WHOLE}.")
            return 1
        return version

    def start(self) -> str | None:
        start = self.data.get("start")
        if isinstance(start, dict) and set(start) == {"since"}:
            text = str(start["since"])
            try:
                day = re.fullmatch(r"\d{4}-\d\d-\d\d", text)
                return f"since:{parse_instant(f'{text}T00:00:00' if day else text, self.policy.zone)}"
            except BadInstant as problem:
                self.fail(("start", "since"), not_an_instant(problem, text))
                return None
        if start is None:
            return None
        return self.choice(str(start).replace("_", "-"), ("none", "state-only"), ("start",), "start (or {since: ...})")

    def key_of(self, entries: list[tuple[tuple[str | int, ...], dict[str, Any]]]) -> str:
        """What all entries are keyed by: the things that a rule's runs are about are of one kind."""
        keys = []
        for path, entry in entries:
            key = entry.get("key", "user")
            self.choice(key, KEYS, (*path, "key"), "key")
            keys.append(key if key in KEYS else nearest(str(key), KEYS) or "user")
        for (path, _), key in zip(entries, keys, strict=True):
            if key != keys[0]:
                self.fail((*path, "key"), f"This entry is keyed by {key}, the first one by {keys[0]}: make it one.")
        return keys[0] if keys else "user"

    def event(self, kind: Any, path: tuple[str | int, ...], about: str = "user") -> str:
        """An event, and that it says which thing of the rule's kind it is about."""
        if isinstance(kind, list):
            self.fail(path, "Name one event here, and write an entry for each of several.")
            return next(iter(EVENT_TYPES))
        event = self.choice(kind, tuple(EVENT_TYPES), path, "event")
        if kind == event and not _says_which(about, event):
            others = ", ".join(sorted(other for other in EVENT_TYPES if _says_which(about, other)))
            self.fail(path, f"{event} does not say which {about} it is about. These do: {others}.")
        return event

    def enter(self, path: Path, entry: dict[str, Any]) -> Enter:
        self.known(entry, _ENTER, path)
        each = entry.get("each")
        if each not in (None, "line"):
            self.fail((*path, "each"), f"'each: {each}' is not known; 'each: line' makes one run a product type.")
        if self.key in LINE_KEYS and entry.get("on") in _WITH_LINES and each != "line":
            self.fail(path, f"'key: {self.key}' and 'each: line' go together: an order has many of them.")
        if each == "line" and self.key not in LINE_KEYS:
            self.fail(path, f"'each: line' is for rules keyed by {' or '.join(LINE_KEYS)}.")
        return Enter(
            on=self.event(entry.get("on"), (*path, "on"), self.key),
            when=self.condition(entry.get("when"), (*path, "when")),
            each_line=each == "line",
            at=self.timing(entry.get("at"), "instant", (*path, "at")),
            of_first_order=self.of_first_order(path, entry),
        )

    def of_first_order(self, path: Path, entry: dict[str, Any]) -> bool:
        """Heard of twice, what tells who the user is would begin the same run again: so there is only ever one."""
        if (said := entry.get("as_of")) is None:
            return False
        if said != "first_order":
            self.fail(
                (*path, "as_of"), f"'as_of: {shown(said)}' is not known; 'as_of: first_order' enters by that order."
            )
        elif self.key != "user" or self.data.get("reentry") != "once" or "at" in entry:
            self.fail((*path, "as_of"), "'as_of' goes with 'key: user' and 'reentry: once', and without 'at'.")
        return True

    def ends(self) -> tuple[tuple[End, ...], tuple[Any, ...]]:
        ends, instants = [], []
        for path, entry in self.items("ends"):
            self.known(entry, _END, path)
            if "at" in entry:  # alone: `unheard` sees to it
                instants.append(self.timing(entry["at"], "instant", (*path, "at")))
                continue
            same, of_lines = entry.get("same"), self.key in LINE_KEYS
            if same is not None and not (same == "user" or (same == self.key and of_lines)):
                hint = f"'{self.key}' or 'user'" if of_lines else "'user'"
                self.fail((*path, "same"), f"'same: {same}' is not known here. Write {hint}, or leave it out.")
            elif of_lines and same == self.key and entry.get("on") != "OrderPaid":
                self.fail(
                    (*path, "same"), f"'same: {same}' is for OrderPaid: only a purchase has lines that end a run."
                )
            # without a thing of its own it ends all runs of the rule
            about = "user" if of_lines or same == "user" else self.key
            ends.append(
                End(
                    on=self.event(entry.get("on"), (*path, "on"), about),
                    when=self.condition(entry.get("when"), (*path, "when")),
                    same_line=entry.get("same") in LINE_KEYS,
                    any_key=entry.get("same") == "user",
                    whenever=self.whenever(path, entry),
                )
            )
        return tuple(ends), tuple(instants)

    def whenever(self, path: Path, entry: dict[str, Any]) -> bool:
        said = entry.get("whenever", False)
        if not isinstance(said, bool):
            self.fail((*path, "whenever"), "'whenever' is true, without quotes, or left out.")
        elif said and (self.key != "user" or "when" not in entry):
            self.fail(
                (*path, "whenever"), "'whenever' is for rules keyed by user, with a 'when' that says what was so."
            )
        return said is True

    def step(self, position: int, path: Path, entry: dict[str, Any]) -> Step:
        self.known(entry, _STEP, path)
        given = [name for name in ("after", "at", "at_once") if entry.get(name) is not None]
        if len(given) != 1:
            self.fail(path, "A step has exactly one of 'after' (a duration), 'at' (an instant) and 'at_once: true'.")
        if "at_once" in given and position:
            self.fail(path, "'at_once: true' is for the first step; leave it out of the others.")
        elif "at_once" in given and entry["at_once"] is not True:
            self.fail(path, "'at_once' is true, without quotes, or left out.")
        after = "0s" if "at_once" in given else entry.get("after")
        return Step(
            after=self.timing(after, "duration", (*path, "after")),
            at=self.timing(entry.get("at"), "instant", (*path, "at")),
            offer=self.offer(entry.get("offer"), (*path, "offer")),
            at_once="at_once" in given,
            kind=self.message_class(entry["class"], (*path, "class")) if "class" in entry else None,
        )

    def offer(self, name: Any, path: Path) -> str | None:
        if name is None:
            return None
        if not isinstance(name, str):
            self.fail(path, f"'{shown(name)}' is no offer: a step names one of those in shop.yaml.")
        elif name not in self.policy.offers and self.offers_known:
            self.fail(path, f"There is no offer '{name}' in shop.yaml. {suggestion(name, self.policy.offers)}")
        return str(name)

    def message_class(self, value: Any, path: Path) -> Literal["marketing", "transactional"]:
        chosen = self.choice(value, ("marketing", "transactional"), path, "class")
        return "transactional" if chosen == "transactional" else "marketing"

    def share(self, value: Any) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
            return float(value)
        self.fail(("holdout",), f"'{shown(value)}' is no share: write a number from 0 to 1, such as 0.05 for 5 %.")
        return 0.0

    def paused(self) -> Any:
        value = self.data.get("paused")
        return None if value is None else self.choice(value, PAUSES, ("paused",), "way to pause")

    def yearly(self) -> bool:
        value = self.data.get("repeat")
        if value not in (None, "yearly"):
            self.fail(("repeat",), f"'{shown(value)}' is not known; the only repetition is 'yearly'.")
        first = next((step for _, step in entries(self.data, "steps")), {})
        if value == "yearly" and not _ONCE_A_YEAR.fullmatch(str(first.get("at"))):
            self.fail(
                ("repeat",),
                "What repeats yearly has a first step that is due once a year, such as {at: user.birthday - 7d} or "
                "{at: user.anniversary}.",
            )
        return value == "yearly"

    def goal(self) -> tuple[str, int] | None:
        """(event, within): what counts as a conversion, apart from the run's progress."""
        goal = self.data.get("goal")
        if goal is None:
            return None
        if not isinstance(goal, dict) or set(goal) != _GOAL:
            self.fail(("goal",), "'goal' is an event and a window, such as {on: OrderPaid, within: 7d}.")
            return None
        return self.event(goal["on"], ("goal", "on")), self.span(goal["within"], ("goal", "within"), 0)

    def holds(self) -> tuple[str, str] | None:
        holds = self.data.get("holds")
        if holds is None:
            return None
        if self.key == "product_type":
            self.fail(("holds",), "A rule keyed by product_type cannot wait: no event holds goods back.")
            return None
        if not isinstance(holds, dict) or set(holds) != {"from", "until"}:
            self.fail(("holds",), "'holds' names two events, such as {from: CouponLocked, until: CouponReturned}.")
            return None
        waits = self.event(holds["from"], ("holds", "from"), self.key)
        return waits, self.event(holds["until"], ("holds", "until"), self.key)

    def reentry(self) -> str:
        value = self.data.get("reentry", "after_exit")
        if isinstance(value, dict) and set(value) == {"cooldown"}:
            return "cooldown"
        if value == "every_purchase" and self.key != "order":
            self.fail(("reentry",), "A purchase is an order with all its parts: only what is keyed by order enters so.")
        return self.choice(value, REENTRIES, ("reentry",), "re-entry (or {cooldown: 30d})")

    def cooldown(self) -> int:
        value = self.data.get("reentry")
        return self.span(value.get("cooldown"), ("reentry", "cooldown"), 0) if isinstance(value, dict) else 0

    def send(self) -> Send:
        data = self.data.get("send", {})
        if not isinstance(data, dict):
            self.fail(("send",), "'send' is a mapping with action, class, channels, priority and expires_after.")
            data = {"channels": ["push"]}
        self.known(data, _SEND, ("send",))
        channels = self.listed(data, "channels", ("send", "channels"))
        action = self.choice(data.get("action", "contact"), ("contact", "grant"), ("send", "action"), "action")
        if action == "contact" and not channels and not data.get("channels") and "send" in self.data:
            self.fail(("send",), "A contact needs 'channels', the preferred one first.")
        priority = data.get("priority", 10)
        if type(priority) is not int or abs(priority) > WHOLE:
            why = f"'{priority}' is no priority: write a whole number up to {WHOLE}, the higher wins."
            self.fail(("send", "priority"), why)
        return Send(
            action=action,  # type: ignore[arg-type]  # checked by choice
            kind=self.choice(
                data.get("class", "marketing"), ("marketing", "transactional"), ("send", "class"), "class"
            ),  # type: ignore[arg-type]
            channels=tuple(self.choice(c, CHANNELS, ("send", "channels"), "channel") for c in channels),
            priority=priority,
            collapse=self.text(data, "collapse", ("send", "collapse")) or None,
            expires_after=self.span(data.get("expires_after"), ("send", "expires_after"), 86_400_000_000),
            once_in=self.span(data.get("once_in"), ("send", "once_in"), 0),
            on_cap=self.choice(data.get("on_cap", "defer"), ("defer", "drop"), ("send", "on_cap"), "way"),  # type: ignore[arg-type]
            discount_every=self.span(data.get("discount_every"), ("send", "discount_every"), 0),
            coupon_instead="coupon_in_hand" in data
            and bool(self.choice(data["coupon_in_hand"], ("instead",), ("send", "coupon_in_hand"), _IN_HAND)),
            max_rate=self.rate(data.get("max_rate")),
        )

    def rate(self, value: Any) -> Rate | None:
        """'1000 per 1h': so many in any stretch of so long."""
        if value is None:
            return None
        match = re.fullmatch(r"\s*(\d+)\s+per\s+(\S+)\s*", str(value))
        if match is None or not int(match[1]):
            self.fail(
                ("send", "max_rate"),
                f"'{value}' is no rate: write how many in how long, such as 1000 per 1h. "
                "To send nothing, pause the rule.",
            )
            return None
        return Rate(int(match[1]), self.span(match[2], ("send", "max_rate"), 0))
