"""Reads the shop policy and the intervals: YAML text in, a checked `Policy` out, or every mistake at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from app.core import expressions
from app.core.expressions import ExpressionError
from app.core.policy import CHANNELS, FAMILIES, SHOP, Cap, Consent, Period, Policy, QuietHours, StageMove
from app.core.problems import CatalogueError, Path, Problem, located, not_an_instant, shown, suggestion
from app.core.standing import silent_move
from schemas.events import EVENT_TYPES
from schemas.instant import BadInstant, parse_instant
from schemas.triggers import Offer

_DAY = 86_400_000_000
_TOP = (
    "zone", "locale", "quiet_hours", "consent", "caps", "arbitration", "holdout", "calendar", "replenishment_lead",
    "usual_gap", "magic_number", "companions", "offers", "stages",
)  # fmt: skip
_NESTED = {
    "quiet_hours": ("from", "until", "jitter", "exempt"),
    "holdout": ("share", "salt"),
}
_CONSENT: tuple[Consent, ...] = ("allowed", "denied", "quota")
_CAP = ("limit", "calendar", "rolling", "channel", "family")
_PERIOD = ("name", "from", "until", "mute", "postpone")
_OFFER = ("kind", "value", "currency", "min_spend")
_STAGE = ("from", "to", "on", "silence", "orders")
_SILENCES = ("at_risk", "churned")
#: Beyond it what a period puts off would never be due. Whoever means 'for good' pauses the rule.
_LATEST = parse_instant("2200-01-01T00:00:00Z")
#: Names of zones less alike than this are not meant: there are hundreds.
_ALIKE = 0.8

T = TypeVar("T")


def read(shop: str, intervals: str, shop_name: str = "shop.yaml", intervals_name: str = "intervals.yaml") -> Policy:
    """The policy of these two texts; what a text leaves out has the default. Raises CatalogueError."""
    policy, problems = partly(shop, intervals, shop_name, intervals_name)
    if problems:
        raise CatalogueError(problems)
    return policy


def partly(
    shop: str, intervals: str, shop_name: str = "shop.yaml", intervals_name: str = "intervals.yaml"
) -> tuple[Policy, list[Problem]]:
    """As far as it can be read, and what cannot: a mistake in one place is none in the rules that name another."""
    problems: list[Problem] = []
    policy = _shop(shop, shop_name, problems)._replace(intervals=_intervals(intervals, intervals_name, problems))
    return policy, problems


def readable(shop: str) -> bool:
    """Whether a shop's file could be read, be it with mistakes: else nothing is known of what it says."""
    problems: list[Problem] = []
    return bool(located(shop, "shop.yaml", problems)[0]) or not problems


def unknown_rules(shop: str, rules: Collection[str], file: str = "shop.yaml") -> list[Problem]:
    """Rules that the calendar of a right policy names, and that are none of these."""
    data, lines = located(shop, file, [])
    problems = []
    for position, period in enumerate(data.get("calendar") or ()):
        for way in ("mute", "postpone"):
            names = period.get(way)
            for name in names if isinstance(names, list) else ():
                if str(name) not in rules:
                    why = f"The calendar names a rule '{shown(name)}'. There is none. {suggestion(name, rules)}"
                    problems.append(Problem(file, lines["calendar", position], why))
    return problems


def _misplaced(data: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Settings that are none, and sections that are not written as such."""
    for name in data:
        if name not in _TOP:
            yield (name,), f"There is no setting '{name}' here. {suggestion(name, _TOP)}"
    for section, allowed in _NESTED.items():
        inner = data.get(section) or {}
        if not isinstance(inner, dict):
            yield (section,), f"'{section}' is a mapping with {', '.join(allowed)}, not '{shown(inner)}'."
            continue
        for name in inner:
            if name not in allowed:
                yield (section, name), f"There is no setting '{name}' here. {suggestion(name, allowed)}"


class _Sections:
    """The shop's file, section by section. Methods note problems and go on, so that a person sees all of them."""

    def __init__(self, text: str, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.data, self.lines = located(text, file, problems)
        for path, why in _misplaced(self.data):
            self.fail(path, why)

    def fail(self, path: Path, why: str) -> None:
        self.problems.append(Problem(self.file, self.lines.get(path, 1), why))

    def made(self, path: Path, make: Callable[[], T], missing: T) -> T:
        try:
            return make()
        except (ExpressionError, ValueError) as error:
            self.fail(path, str(error))
            return missing

    def value(self, path: Path, make: Callable[[Any], Any], missing: Any) -> Any:
        value: Any = self.data
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return missing if value is None else self.made(path, lambda: make(value), missing)

    def listed(self, section: str, make: Callable[[Any], Any], missing: tuple[Any, ...]) -> tuple[Any, ...]:
        entries = self.data.get(section)
        if entries is None:
            return missing
        if not isinstance(entries, list):
            self.fail((section,), f"'{section}' is a list.")
            return missing
        return tuple(self.made((section, n), partial(make, entry), None) for n, entry in enumerate(entries))

    def named(self, section: str, make: Callable[[str, Any], Any], missing: Mapping[str, Any]) -> Mapping[str, Any]:
        """A mapping whose entries are read one by one; one that is wrong is known by its name all the same."""
        entries = self.data.get(section)
        if entries is None:
            return missing
        if not isinstance(entries, dict):
            self.fail((section,), f"'{section}' is a mapping, one entry a line, not '{shown(entries)}'.")
            return missing
        return {name: self.made((section, name), partial(make, name, entry), None) for name, entry in entries.items()}


def _shop(text: str, file: str, problems: list[Problem]) -> Policy:
    shop, default = _Sections(text, file, problems), SHOP
    policy = Policy(
        zone=shop.value(("zone",), _zone, default.zone),
        locale=shop.value(("locale",), str, default.locale),
        quiet=QuietHours(
            shop.value(("quiet_hours", "from"), _minute, default.quiet.start_minute),
            shop.value(("quiet_hours", "until"), _minute, default.quiet.end_minute),
            shop.value(("quiet_hours", "jitter"), _span, default.quiet.jitter),
        ),
        quiet_exempt=shop.value(("quiet_hours", "exempt"), _channels, default.quiet_exempt),
        lead=shop.value(("replenishment_lead",), _span, default.lead),
        consent=shop.named("consent", _consent, default.consent),
        caps=shop.listed("caps", _cap, default.caps),
        window=shop.value(("arbitration",), _span, default.window),
        holdout_share=shop.value(("holdout", "share"), _share, default.holdout_share),
        holdout_salt=shop.value(("holdout", "salt"), str, default.holdout_salt),
        calendar=shop.listed("calendar", _period, default.calendar),
        offers=shop.named("offers", _offer, default.offers),
        companions=shop.named("companions", _companion, default.companions),
        usual_gap=shop.value(("usual_gap",), _span, default.usual_gap),
        magic_number=shop.value(("magic_number",), _count, default.magic_number),
        stages=shop.listed("stages", _move, default.stages),
    )
    # What a row that cannot be read would have said decides it too.
    for position, why in _endless(policy) if None not in policy.stages else ():
        shop.fail(("stages", position), why)
    return policy


def _endless(policy: Policy) -> Iterator[tuple[int, str]]:
    """The rows by which silence alone would lead a user on and on: it is over for all of them at one instant."""
    for position, move in enumerate(policy.stages):
        if move.silence is None:
            continue
        if silent_move(policy, move.to) is move:
            why = f"Silence would lead from '{move.to}' to '{move.to}' again and again"
            yield position, f"{why}: take '{move.to}' out of 'from'."
        elif _leads_back(policy, move):
            why = f"Silence alone would lead from '{move.to}' back to '{move.to}', again and again"
            yield position, f"{why}: one of the rows on that way is by an event ('on'), or is taken out."


def _leads_back(policy: Policy, first: StageMove) -> bool:
    """Whether silences alone lead from where a row leads to through this row again."""
    stage = first.to
    for _ in policy.stages:
        move = silent_move(policy, stage)
        if move is first:
            return True
        stage = stage if move is None else move.to
    return False


def _span(value: Any) -> int:
    return expressions.duration(str(value))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"'{shown(value)}' is no count: write a whole number.")
    return value


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"'{shown(value)}' is no share: write a number from 0 to 1, such as 0.05 for 5 %.")
    return float(value)


def _only(entry: Any, allowed: tuple[str, ...], what: str, *needed: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is written as a mapping, not as '{shown(entry)}'.")
    for name in entry:
        if name not in allowed:
            raise ValueError(f"{what} has no '{name}'. {suggestion(name, allowed)}")
    for name in needed:
        if name not in entry:
            raise ValueError(f"{what} needs '{name}'.")
    return entry


def _names(value: Any, what: str) -> frozenset[str]:
    if not isinstance(value, list):
        raise ValueError(f"{what} are written as a list, such as [{shown(value)}].")
    return frozenset(map(str, value))


def _channel(name: Any) -> str:
    if name not in CHANNELS:
        raise ValueError(f"'{shown(name)}' is no channel. {suggestion(name, CHANNELS)}")
    return str(name)


def _consent(channel: str, word: Any) -> Consent:
    _channel(channel)
    for consent in _CONSENT:
        if word == consent:
            return consent
    raise ValueError(f"'{shown(word)}' is no consent for {channel}. {suggestion(word, _CONSENT)}")


def _cap(entry: Any) -> Cap:
    _only(entry, _CAP, "A cap", "limit")
    spans = [name for name in ("calendar", "rolling") if name in entry]
    if len(spans) != 1:
        raise ValueError("A cap has one window: 'calendar: 1d' or 'rolling: 7d'.")
    days = _span(entry[spans[0]])
    if days % _DAY or not 0 < days <= 31 * _DAY:
        raise ValueError("The window of a cap is 1 to 31 whole days.")
    limit = _count(entry["limit"])
    if not limit:
        raise ValueError("A cap allows one contact at least; a channel is closed under 'consent'.")
    channel = _channel(entry["channel"]) if "channel" in entry else None
    family = entry.get("family")
    if family is not None and family not in FAMILIES:
        raise ValueError(f"'{shown(family)}' is no family. {suggestion(family, FAMILIES)}")
    return Cap(limit, days // _DAY, spans[0] == "calendar", channel, family)


def _period(entry: Any) -> Period:
    _only(entry, _PERIOD, "A period of the calendar", "name", "from", "until")
    ways = [name for name in ("mute", "postpone") if name in entry]
    if len(ways) != 1:
        raise ValueError("A period says 'mute' or 'postpone': all, or a list of rules.")
    rules = entry[ways[0]]
    named = frozenset() if rules == "all" else _names(rules, "Rules")
    if rules == []:
        raise ValueError(f"'{ways[0]}' names no rule: write all, or a list of rules, or take the period out.")
    start, end = (_instant(entry[name]) for name in ("from", "until"))
    if start >= end:
        raise ValueError("The period ends before it begins: 'from' is the earlier one, 'until' the later.")
    return Period(str(entry["name"]), start, end, named, ways[0] == "postpone")


def _instant(value: Any) -> int:
    """YAML reads an instant as a datetime of its own; the contract's form is wanted."""
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    try:
        at = parse_instant(text)
    except BadInstant as problem:
        raise ValueError(not_an_instant(problem, text)) from problem
    if at > _LATEST:
        raise ValueError(f"'{text}' is too far ahead: a period of the calendar is over by the year 2200.")
    return at


def _offer(name: str, entry: Any) -> Offer:
    _only(entry, _OFFER, f"The offer '{name}'")
    for field in _OFFER:
        value = entry.get(field)
        wanted = r"\d+(\.\d+)?" if field in ("value", "min_spend") else ".+"
        if value is not None and not (isinstance(value, str) and re.fullmatch(wanted, value)):
            example = '"10.00"' if field in ("value", "min_spend") else "CNY" if field == "currency" else "amount"
            raise ValueError(f"'{shown(value)}' is no {field} of an offer. Write it as {field}: {example}.")
    return Offer(batch=name, kind=entry.get("kind", "amount"), **{k: entry.get(k) for k in _OFFER[1:]})


def _companion(product_type: str, other: Any) -> str:
    """Which types there are only the orders tell: any text may be one."""
    if not isinstance(other, str) or not other or other == product_type:
        how = "write one, or take the line out"
        raise ValueError(f"What goes with {product_type} is another product type, not '{shown(other)}': {how}.")
    return other


def _move(entry: Any) -> StageMove:
    _only(entry, _STAGE, "A move between stages", "from", "to")
    if ("on" in entry) == ("silence" in entry):
        raise ValueError("A move between stages happens 'on' an event or after a 'silence'.")
    if entry.get("silence") not in (None, *_SILENCES):
        raise ValueError(f"'{shown(entry['silence'])}' is no silence. {suggestion(entry['silence'], _SILENCES)}")
    if "on" in entry and entry["on"] not in tuple(EVENT_TYPES):
        raise ValueError(f"'{shown(entry['on'])}' is no event. {suggestion(entry['on'], EVENT_TYPES)}")
    if "orders" in entry and "silence" in entry:
        raise ValueError("'orders' goes with 'on': a silence moves whoever is silent, with any number of orders.")
    source = _names(entry["from"], "Stages")
    return StageMove(source, str(entry["to"]), entry.get("on"), entry.get("silence"), _count(entry.get("orders", 0)))


def _zone(value: Any) -> ZoneInfo:
    try:
        return ZoneInfo(str(value))
    except (KeyError, ValueError, OSError) as error:
        near = _zone_near(str(value))
        how = f"Did you mean '{near}'?" if near else "Write an IANA name such as Asia/Shanghai."
        raise ValueError(f"'{shown(value)}' is no time zone. {how}") from error


def _zone_near(name: str) -> str | None:
    """The zone whose name, or whose town, is nearest. Not one of Etc: its signs are not those that people write."""
    zones = [zone for zone in sorted(available_timezones()) if "/" in zone and not zone.startswith("Etc/")]
    called = {(zone if "/" in name else zone.rpartition("/")[2]).lower(): zone for zone in zones}
    near = get_close_matches(name.lower().replace(" ", "_"), called, 1, _ALIKE)
    return called[near[0]] if near else None


def _channels(value: Any) -> frozenset[str]:
    if not isinstance(value, list):
        raise ValueError(f"'exempt' is a list of channels such as [page, in_app], not '{shown(value)}'.")
    return frozenset(map(_channel, value))


def _minute(value: Any) -> int:
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", str(value))
    if not match:
        raise ValueError(f"'{shown(value)}' is no time of day. Write hours and minutes in quotes, such as \"09:00\".")
    return int(match[1]) * 60 + int(match[2])


def _intervals(text: str, file: str, problems: list[Problem]) -> dict[str, int]:
    data, lines = located(text, file, problems)
    result = {}
    for name, days in data.items():
        if isinstance(days, int | float) and not isinstance(days, bool) and 0 < days <= 3650:
            result[name] = round(days * _DAY)
        else:
            why = f"The interval of '{name}' is '{shown(days)}': write how many days one unit lasts, such as 20."
            problems.append(Problem(file, lines.get((name,), 1), why))
    return result
