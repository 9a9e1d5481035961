"""The typed view that rules read, listed for those who write them: every name, and what may be done with it.

The names are those of `core.scope`, nothing is kept here beside them; each example is one that the reader of a
catalogue takes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from app.core.expressions import names_for
from app.core.scope import VARIABLES

_HEAD = ("name", "kind", "rules keyed by", "what it is")
_EVERY = "any"
#: A kind of value: what it is called, how a condition or a timing writes one, what a reason and `facts` make of it.
KINDS = {
    "instant": ("instant", "timestamp('2026-03-01T08:00:00+08:00') in a condition", "1 March; RFC 3339 in facts"),
    "duration": ("duration", "duration('72h') in a condition, 7d or 15min in a timing", "7 days; ISO 8601 in facts"),
    "int": ("whole number", "2", "2"),
    "string": ("text", "'gift'", "gift"),
    "bool": ("yes or no", "the name alone, or ! before it", "True; true in facts"),
    "money": ("money in words", "nowhere: it is for reason and facts", "20.00 CNY off"),
}  # fmt: skip


class Example(NamedTuple):
    """Something that a rule keyed by `key` may say."""

    text: str
    key: str
    about: str


CONDITIONS = (
    Example("user.paid_orders >= 2", "user", "numbers, instants and durations: == != < <= > >="),
    Example("user.came_back && !(waited > duration('24h'))", "user", "and, or, not: && || ! ( )"),
    Example("coupon.kind in ['gift', 'shipping']", "coupon", "one of several"),
    Example("order.category != ''", "order", "a text that is named; '' where there is none"),
    Example("coupon.batch.startsWith('vip-')", "coupon", "texts: startsWith, endsWith, contains, matches, size"),
    Example("entered_at - user.registered_at < duration('72h')", "user", "instants and durations: + -"),
    Example("user.paid_orders % 2 == 1", "user", "whole numbers: + - * / %"),
    Example("user.has_history ? user.paid_orders > 1 : user.came_back", "user", "one or the other"),
)
TIMINGS = (
    Example("entered_at + 7d", "user", "an instant, and a duration after it (or before it: -)"),
    Example("supply.runs_out_at - policy.lead", "product_type", "names, wherever they are of the right kind"),
    Example("coupon.valid_from + coupon.validity / 2", "coupon", "a duration times a number, or a part of it: * /"),
    Example("max(order.payable_from + 1h, order.pay_within - 2h)", "order", "the later or the longer; min: the other"),
)


def lines(width: int, key: str | None = None) -> Iterator[str]:
    """All names, or those for rules of one key, as a table; then how values and expressions are written."""
    yield "Names for conditions (when, check), timings (at, after), reasons (as {name}) and facts:"
    yield ""
    yield from _columns([_HEAD, *rows(key)], width)
    yield ""
    yield "What a value of each kind looks like:"
    yield ""
    kinds = [(name, f"{written}. In a reason: {said}.") for name, written, said in KINDS.values()]
    yield from _columns(kinds, width)
    yield ""
    yield "In facts a value stands under the last part of its name: user.paid_orders is paid_orders."
    yield ""
    yield "Conditions are CEL (Common Expression Language) and come to yes or no, for example:"
    yield ""
    yield from _columns([(one.text, one.about) for one in CONDITIONS], width)
    yield ""
    yield "Timings come to an instant (at) or a duration (after) and know + - * /, min and max, for example:"
    yield ""
    yield from _columns([(one.text, one.about) for one in TIMINGS], width)


def markdown(key: str | None = None) -> Iterator[str]:
    """The table of names as Markdown."""
    yield f"| {' | '.join(_HEAD)} |"
    yield "| --- | --- | --- | --- |"
    for name, *others in rows(key):
        yield f"| `{name}` | {' | '.join(others)} |"


def rows(key: str | None = None) -> list[tuple[str, ...]]:
    """Name, kind, keys and meaning of each name, or of those for rules of one key."""
    return [
        (name, KINDS[one.kind][0], ", ".join(sorted(one.keys)) or _EVERY, one.about)
        for name, one in VARIABLES.items()
        if key is None or name in names_for(key)
    ]


def _columns(table: Iterable[tuple[str, ...]], width: int) -> Iterator[str]:
    """Aligned columns, the last of them wrapped in itself."""
    table = list(table)
    sizes = [max(map(len, column)) for column in zip(*table, strict=True)][:-1]
    indent = " " * (2 + sum(sizes) + 2 * len(sizes))
    for *first, last in table:
        head = "  " + "".join(cell.ljust(size + 2) for cell, size in zip(first, sizes, strict=True))
        yield from textwrap.wrap(last, max(width, len(indent) + 20), initial_indent=head, subsequent_indent=indent)
