"""Reads the shop policy and the intervals: YAML text in, a checked `Policy` out, or every mistake at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from app.core import expressions
from app.core.expressions import ExpressionError
from app.core.policy import CHANNELS, SHOP, Cap, Consent, Period, Policy, QuietHours, StageMove
from app.core.problems import CatalogueError, Path, Problem, located, suggestion
from schemas.instant import parse_instant
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


def _misplaced(data: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Settings that are none, and sections that are not written as such."""
    for name in data:
        if name not in _TOP:
            yield (name,), f"There is no setting '{name}' here. {suggestion(name, _TOP)}"
    for section, allowed in _NESTED.items():
        inner = data.get(section) or {}
        if not isinstance(inner, dict):
            yield (section,), f"'{section}' is a mapping with {', '.join(allowed)}, not '{inner}'."
            continue
        for name in inner:
            if name not in allowed:
                yield (section, name), f"There is no setting '{name}' here. {suggestion(name, allowed)}"


def _shop(text: str, file: str, problems: list[Problem]) -> Policy:
    data, lines = located(text, file, problems)
    default = SHOP

    def fail(path: tuple[str | int, ...], why: str) -> None:
        problems.append(Problem(file, lines.get(path, 1), why))

    def reading(path: tuple[str | int, ...], make: Callable[[Any], Any], missing: Any) -> Any:
        value: Any = data
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return missing
        try:
            return make(value)
        except (ExpressionError, ValueError) as error:
            fail(path, str(error))
            return missing

    for path, why in _misplaced(data):
        fail(path, why)

    def each(section: str, make: Callable[[Any], Any]) -> tuple[Any, ...] | None:
        entries = data.get(section)
        if entries is None:
            return None
        if not isinstance(entries, list):
            fail((section,), f"'{section}' is a list.")
            return None
        made = []
        for position, entry in enumerate(entries):
            try:
                made.append(make(entry))
            except (ExpressionError, ValueError) as error:
                fail((section, position), str(error))
        return tuple(made)

    caps, periods, moves = each("caps", _cap), each("calendar", _period), each("stages", _move)
    return Policy(
        zone=reading(("zone",), _zone, default.zone),
        locale=reading(("locale",), str, default.locale),
        quiet=QuietHours(
            reading(("quiet_hours", "from"), _minute, default.quiet.start_minute),
            reading(("quiet_hours", "until"), _minute, default.quiet.end_minute),
            reading(("quiet_hours", "jitter"), lambda v: expressions.duration(str(v)), default.quiet.jitter),
        ),
        quiet_exempt=reading(("quiet_hours", "exempt"), _channels, default.quiet_exempt),
        lead=reading(("replenishment_lead",), _span, default.lead),
        consent=reading(("consent",), _consents, default.consent),
        caps=default.caps if caps is None else caps,
        window=reading(("arbitration",), _span, default.window),
        holdout_share=reading(("holdout", "share"), _share, default.holdout_share),
        holdout_salt=reading(("holdout", "salt"), str, default.holdout_salt),
        calendar=default.calendar if periods is None else periods,
        offers=reading(("offers",), _offers, default.offers),
        companions=reading(("companions",), _mapping, default.companions),
        usual_gap=reading(("usual_gap",), _span, default.usual_gap),
        magic_number=reading(("magic_number",), _count, default.magic_number),
        stages=default.stages if moves is None else moves,
    )


def _span(value: Any) -> int:
    return expressions.duration(str(value))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"'{value}' is no count: write a whole number.")
    return value


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"'{value}' is no share: write a number from 0 to 1, such as 0.05 for 5 %.")
    return float(value)


def _only(entry: Any, allowed: tuple[str, ...], what: str, *needed: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is written as a mapping, not as '{entry}'.")
    for name in entry:
        if name not in allowed:
            raise ValueError(f"{what} has no '{name}'. {suggestion(name, allowed)}")
    for name in needed:
        if name not in entry:
            raise ValueError(f"{what} needs '{name}'.")
    return entry


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"This is a mapping, one entry a line, not '{value}'.")
    return value


def _names(value: Any, what: str) -> frozenset[str]:
    if not isinstance(value, list):
        raise ValueError(f"{what} are written as a list, such as [{value}].")
    return frozenset(map(str, value))


def _channel(name: Any) -> str:
    if name not in CHANNELS:
        raise ValueError(f"'{name}' is no channel. {suggestion(name, CHANNELS)}")
    return str(name)


def _consents(value: Any) -> dict[str, Consent]:
    result: dict[str, Consent] = {}
    for channel, word in _mapping(value).items():
        _channel(channel)
        if word not in _CONSENT:
            raise ValueError(f"'{word}' is no consent for {channel}. {suggestion(word, _CONSENT)}")
        result[channel] = word
    return result


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
    return Cap(limit, days // _DAY, spans[0] == "calendar", channel, entry.get("family"))


def _period(entry: Any) -> Period:
    _only(entry, _PERIOD, "A period of the calendar", "name", "from", "until")
    ways = [name for name in ("mute", "postpone") if name in entry]
    if len(ways) != 1:
        raise ValueError("A period says 'mute' or 'postpone': all, or a list of rules.")
    rules = entry[ways[0]]
    named = frozenset() if rules == "all" else _names(rules, "Rules")
    start, end = (parse_instant(_text(entry[name])) for name in ("from", "until"))
    return Period(str(entry["name"]), start, end, named, ways[0] == "postpone")


def _text(value: Any) -> str:
    """YAML reads an instant as a datetime of its own; the contract's form is wanted."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _offers(value: Any) -> dict[str, Offer]:
    result = {}
    for name, entry in _mapping(value).items():
        _only(entry, _OFFER, f"The offer '{name}'")
        result[name] = Offer(batch=name, kind=entry.get("kind", "amount"), **{k: entry.get(k) for k in _OFFER[1:]})
    return result


def _move(entry: Any) -> StageMove:
    _only(entry, _STAGE, "A move between stages", "from", "to")
    if ("on" in entry) == ("silence" in entry):
        raise ValueError("A move between stages happens 'on' an event or after a 'silence'.")
    if entry.get("silence") not in (None, *_SILENCES):
        raise ValueError(f"'{entry['silence']}' is no silence. {suggestion(entry['silence'], _SILENCES)}")
    source = _names(entry["from"], "Stages")
    return StageMove(source, str(entry["to"]), entry.get("on"), entry.get("silence"), _count(entry.get("orders", 0)))


def _zone(value: Any) -> ZoneInfo:
    try:
        return ZoneInfo(str(value))
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"'{value}' is no time zone. Write an IANA name such as Asia/Shanghai.") from error


def _channels(value: Any) -> frozenset[str]:
    if not isinstance(value, list):
        raise ValueError(f"'exempt' is a list of channels such as [page, in_app], not '{value}'.")
    return frozenset(map(_channel, value))


def _minute(value: Any) -> int:
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", str(value))
    if not match:
        raise ValueError(f"'{value}' is no time of day. Write it in quotes, such as \"21:00\".")
    return int(match[1]) * 60 + int(match[2])


def _intervals(text: str, file: str, problems: list[Problem]) -> dict[str, int]:
    data, lines = located(text, file, problems)
    result = {}
    for name, days in data.items():
        if isinstance(days, int | float) and not isinstance(days, bool) and 0 < days <= 3650:
            result[name] = round(days * _DAY)
        else:
            why = f"The interval of '{name}' is '{days}': write how many days one unit lasts, such as 20."
            problems.append(Problem(file, lines.get((name,), 1), why))
    return result
