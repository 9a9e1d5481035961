"""The expressions of a rule file in plain words: timings, conditions, durations, the names of the view.

What it cannot put into words it repeats as it is written: a rule is never shown as something that it is not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from app.core.scope import VARIABLES

_LITERAL = re.compile(r"(?<![\w.])(\d+)(d|h|min|s)\b")
_UNITS = {"d": "day", "h": "hour", "min": "minute", "s": "second"}
#: What is called upon a name ('coupon.id.startsWith(...)') is no part of it.
_NAME = re.compile(r"[a-z_]+(?:\.[a-z_]+(?![A-Za-z_]*\())*")
_WORD = re.compile(r"[a-z]+")

#: A rhythm takes some purchases; until then the shop's own number stands for it.
_GAP = "the user's usual gap between purchases (the shop's while the user has none"
#: Names as part of a sentence: of a yes or no what is so, of all else what it is.
PHRASES = {
    "entered_at": "the entry",
    "waited": "the time since the entry",
    "user.paid_orders": "the number of paid orders",
    "user.last_order_at": "the latest purchase",
    "user.silent_for": "the time since the latest purchase",
    "user.open_orders": "the number of orders that can still be paid",
    "silence.at_risk": f"one and a half times {_GAP}; 30 days at least)",
    "silence.churned": f"three times {_GAP}; 60 days at least)",
    "coupon.id": "the coupon's id",
    "coupon.kind": "the coupon's kind",
    "coupon.value": "the coupon's value",
    "coupon.value_minor": "the coupon's value in cents",
    "coupon.currency": "the coupon's currency",
    "coupon.worth": "the coupon's worth",
    "coupon.batch": "the coupon's batch",
    "coupon.issued_at": "the issue of the coupon",
    "coupon.valid_from": "the coupon's first valid moment",
    "coupon.expires_at": "the coupon's expiry",
    "coupon.validity": "the coupon's validity",
    "coupon.expires_in": "the time left until the coupon expires",
    "user.registered_at": "the registration",
    "user.has_history": "the user's history is known from its beginning",
    "user.orders_before": "the number of orders before our first event",
    "baseline.last_order_at": "the latest purchase before our first event",
    "user.was_silent_for": "the time between the entry and the purchase before it",
    "user.bought_before": "there was a purchase before the entry",
    "user.unseen_for": "the time since the user was seen",
    "user.came_back": "the user was seen again more than half an hour after the entry",
    "user.usual_gap": f"{_GAP})",
    "user.coupon_in_hand": "the user has a coupon to use now",
    "user.has_birthday": "the birthday is known",
    "event.names_birthday": "this event names the birthday, or changes it",
    "user.birthday": "09:00 of the next birthday",
    "user.anniversary": "09:00 of the next anniversary",
    "user.stage": "the life stage",
    "silence.churned_before": f"three times {_GAP} in the purchases until then; 60 days at least)",
    "policy.magic_number": "the number of orders after which a next one is likely",
    "event.days_later": "the number of local days between the entry and this event",
    "order.id": "the order's id",
    "order.total_minor": "the order's total in cents",
    "order.is_open": "the order is open",
    "order.payable_from": "the moment from which the order can be paid",
    "order.pay_deadline": "the deadline for the order's payment",
    "order.pay_within": "the deadline for the order's payment (where none is named, a day after it can be paid)",
    "order.pay_url": "where the order is paid",
    "order.companion": "the product type that goes with what was bought",
    "order.category": "the category of most of the order",
    "cart.size": "the number of pieces in the cart",
    "category": "the category",
    "view.visits": "the number of visits (looks at least half an hour apart) to the product looked at most",
    "view.dwell": "the longest look at it",
    "view.last_at": "the latest look at it",
    "view.title": "the product looked at most",
    "product_type": "the product type",
    "line.units": "the number of units bought",
    "line.replenishable": "the product type's interval is known and the line is neither a gift nor a subscription",
    "supply.interval": "the time that one unit lasts",
    "supply.runs_out_at": "the predicted run-out",
    "policy.lead": "the shop's lead time",
}

#: A yes or no, denied.
DENIED = {
    "user.has_history": "the user's history is not known from its beginning",
    "user.bought_before": "there was no purchase before the entry",
    "user.came_back": "the user was not seen again more than half an hour after the entry",
    "user.coupon_in_hand": "the user has no coupon to use now",
    "user.has_birthday": "the birthday is not known",
    "event.names_birthday": "this event neither names the birthday nor changes it",
    "order.is_open": "the order is not open",
    "line.replenishable": "the product type's interval is not known, or the line is a gift or a subscription",
}

#: What happens, as "when ..." or "while ..." goes on.
EVENTS = {
    "OrderPlaced": "an order is placed",
    "DepositPaid": "a deposit is paid",
    "OrderPaid": "an order is paid",
    "OrderCancelled": "an order is cancelled",
    "OrderShipped": "an order is shipped",
    "OrderReceived": "an order is received",
    "OrderRefunded": "an order is refunded",
    "AfterSaleOpened": "an after-sale case is opened",
    "AfterSaleClosed": "an after-sale case is closed",
    "UserRegistered": "a user registers",
    "UserLoggedIn": "the user visits",
    "UserCheckedIn": "the user checks in",
    "ProductViewed": "a product is viewed",
    "SearchPerformed": "something is searched for",
    "CartUpdated": "the cart changes",
    "CheckoutStarted": "a checkout is started",
    "PageShared": "a page is shared",
    "CouponIssued": "a coupon is issued",
    "CouponRedeemed": "a coupon is redeemed",
    "CouponRevoked": "a coupon is revoked",
    "CouponLocked": "a coupon is locked by an unpaid order",
    "CouponReturned": "a coupon is usable again",
    "CustomerBaseline": "an old customer's history is loaded",
    "ProfileUpdated": "the profile changes",
    "ConsentChanged": "a consent changes",
    "UserMerged": "the account is merged into another one",
    "UserErased": "the user is erased",
    "MessageSent": "a message was sent",
    "MessageFailed": "a message failed",
    "MessageOpened": "a message is opened",
    "MessageClicked": "a message is clicked",
    "Unsubscribed": "the user unsubscribes",
}


def event(kind: object) -> str:
    """'an order is paid (OrderPaid)'; a kind without words is named."""
    return f"{EVENTS[str(kind)]} ({kind})" if kind in EVENTS else str(kind)


def duration(text: object) -> str:
    """'7d' -> '7 days'. Anything else stays as it is."""
    match = _LITERAL.fullmatch(str(text).strip())
    return counted(int(match[1]), _UNITS[match[2]]) if match else str(text)


def span(microseconds: int) -> str:
    """20 days in microseconds -> '20 days': in the largest unit that says it to the second."""
    seconds = microseconds // 1_000_000
    units = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
    size, noun = next(unit for unit in units if not seconds % unit[0])
    return counted(seconds // size, noun)


def counted(count: int, noun: str) -> str:
    """'1 day', '2 days'."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(items: Iterable[str], last: str = "or") -> str:
    """'a', 'a or b', 'a, b or c'."""
    *first, end = [*items] or [""]
    return f"{', '.join(first)} {last} {end}" if first else end


def phrase(name: str) -> str:
    """A name of the view as part of a sentence."""
    return PHRASES.get(name, name)


# -- timings


class _Said(NamedTuple):
    kind: str
    """instant, duration or number, as in `expressions`."""
    words: str
    simple: bool = True
    """Whether it can stand inside another phrase without being misread."""
    relative: bool = False
    """Whether it says itself that it is before or after something."""


class _Unsaid(Exception):
    """There are no words for this."""


def timing(text: object) -> str:
    """'coupon.valid_from + 7d' -> "7 days after the coupon's first valid moment". What cannot be said is quoted."""
    said = _read(text)
    return said.words if said else f"`{text}`"


def moment(text: object) -> str:
    """A timing that is an instant, as the answer to "when?"."""
    said = _read(text)
    if said is None:
        return f"at `{text}`"
    return said.words if said.kind == "instant" and said.relative else f"at {said.words}"


def _read(text: object) -> _Said | None:
    prepared = _LITERAL.sub(r"_t\1\2", str(text)).strip()
    try:
        return _say(ast.parse(prepared, mode="eval").body)
    except (SyntaxError, ValueError, _Unsaid):
        return None


def _say(node: ast.expr) -> _Said:
    if isinstance(node, ast.Constant):
        return _Said("number", str(node.value))
    if isinstance(node, ast.Name | ast.Attribute):
        return _name(ast.unparse(node))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1 and not node.keywords:
        return _pick(node.func.id, [_say(argument) for argument in node.args])
    if isinstance(node, ast.BinOp):
        return _operation(node.op, _say(node.left), _say(node.right))
    raise _Unsaid


def _name(name: str) -> _Said:
    literal = re.fullmatch(r"_t(\d+)(d|h|min|s)", name)
    if literal:
        return _Said("duration", counted(int(literal[1]), _UNITS[literal[2]]))
    if name not in VARIABLES:
        raise _Unsaid
    kind = VARIABLES[name].kind
    return _Said("number" if kind == "int" else kind, phrase(name))


def _pick(function: str, choices: list[_Said]) -> _Said:
    words = {
        "min": {"instant": "the earlier of", "duration": "the shorter of", "number": "the smaller of"},
        "max": {"instant": "the later of", "duration": "the longer of", "number": "the larger of"},
    }
    kind = choices[0].kind
    if function not in words or kind not in words[function]:
        raise _Unsaid
    return _Said(kind, f"{words[function][kind]} {listed((c.words for c in choices), 'and')}", simple=False)


def _operation(operator: ast.operator, left: _Said, right: _Said) -> _Said:
    match (left.kind, type(operator), right.kind):
        case ("instant", ast.Add, "duration"):
            return _shifted(left, right, "after", "plus")
        case ("instant", ast.Sub, "duration"):
            return _shifted(left, right, "before", "less")
        case ("duration", ast.Add, "duration"):
            return _Said("duration", f"{left.words} plus {right.words}", simple=False)
        case ("duration", ast.Sub, "duration"):
            return _Said("duration", f"{left.words} less {right.words}", simple=False)
        case ("instant", ast.Sub, "instant"):
            return _Said("duration", f"the time from {right.words} to {left.words}", simple=False)
        case ("duration", ast.Mult, "number"):
            return _Said("duration", f"{_inner(left)} times {right.words}", simple=False)
        case ("duration", ast.Div, "number"):
            share = {"2": "half of", "3": "a third of", "4": "a quarter of"}.get(right.words, f"1/{right.words} of")
            return _Said("duration", f"{share} {_inner(left)}")
    raise _Unsaid


def _shifted(at: _Said, by: _Said, near: str, far: str) -> _Said:
    if by.simple:
        return _Said("instant", f"{by.words} {near} {at.words}", relative=True)
    return _Said("instant", f"{at.words} {far} {by.words}")


def _inner(said: _Said) -> str:
    return said.words if said.simple else f"({said.words})"


# -- conditions

_TOKEN = re.compile(
    r"\s*(?:(?P<duration>duration\('(?P<span>\w+)'\))|(?P<number>\d+(?:\.\d+)?)|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<name>[a-z_]+(?:\.[a-z_]+)*)|!\s*(?P<denied>[a-z_]+(?:\.[a-z_]+)*)"
    r"|(?P<operator>>=|<=|==|!=|&&|\|\||>|<|!|\(|\)))"
)
_OPERATORS = {
    ">=": "is at least", "<=": "is at most", ">": "is more than", "<": "is less than", "==": "is", "!=": "is not",
    "&&": "and", "||": "or", "!": "it is not so that", "(": "(", ")": ")",
}  # fmt: skip
_OF_INSTANTS = {">=": "is not before", "<=": "is not after", ">": "is after", "<": "is before"}


def condition(text: object) -> str:
    """'user.paid_orders < 2' -> 'the number of paid orders is less than 2'. What cannot be said is quoted."""
    said, position, source, name = [], 0, str(text).strip(), ""
    while position < len(source):
        token = _TOKEN.match(source, position)
        if token is None:
            return f"`{source}`"
        position = token.end()
        words = _token(token, name)
        if words is None:
            return f"`{source}`"
        said.append(words)
        name = token["name"] or ""
    text = " ".join(said).replace("( ", "(").replace(" )", ")")
    return re.sub(r" is (not )?''(?= |\)|$)", lambda empty: " is named" if empty[1] else " is not named", text)


def _token(token: re.Match[str], before: str) -> str | None:
    """A token in words; `before` is the name that stands before it, if one does."""
    if token["duration"]:
        return duration(_in_seconds(token["span"]))
    if token["name"]:
        name = token["name"]
        if name in ("true", "false"):
            return str(name)
        return phrase(name) if name in VARIABLES else None
    if token["denied"]:
        return DENIED.get(token["denied"])
    if token["operator"] in _OF_INSTANTS and before in VARIABLES and VARIABLES[before].kind == "instant":
        return _OF_INSTANTS[token["operator"]]
    return _OPERATORS[token["operator"]] if token["operator"] else token["number"] or token["text"]


def _in_seconds(span: str) -> str:
    """CEL's '90m' is our '90min'."""
    return re.sub(r"(\d)m$", r"\1min", span)


def names_in(text: object) -> list[str]:
    """The names of the view that an expression mentions, in their order."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", str(text))
    return [name for name in dict.fromkeys(_NAME.findall(bare)) if name in VARIABLES]


def spoken(key: str) -> str:
    """'product_type' -> 'product type'."""
    return " ".join(_WORD.findall(key))


def flow(value: object) -> str:
    """A value as YAML writes it on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {flow(item)}' for name, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
