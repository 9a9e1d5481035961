"""What goes out of a rule, in plain words: what it is, what it yields to, how sparingly it comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.explain.language import duration, listed
from app.explain.things import Data, entries

_OF_ANY = {"action", "priority", "expires_after", "max_rate", "discount_every", "coupon_in_hand"}
_OF_A_CONTACT = {"class", "channels", "collapse", "once_in", "on_cap"}


def send_of(data: Data) -> Data:
    """The rule's `send`."""
    send = data.get("send")
    return send if isinstance(send, Mapping) else {}


def unsaid(data: Data) -> dict[str, object]:
    """The settings of `send` that have no sentence here."""
    send = send_of(data)
    said = _OF_ANY | ({"on_cap"} if "max_rate" in send else set()) if _is_grant(data) else _OF_ANY | _OF_A_CONTACT
    return {f"send.{name}": value for name, value in send.items() if name not in said}


def message(data: Data, step: Data) -> str:
    """'a marketing contact by push, else sms', with what it brings."""
    what = "a grant" if _is_grant(data) else f"a {_kind(data, step)} {_contact(data)}"
    return f"{what}{offer(step)}"


def offer(step: Data) -> str:
    """', with the offer ...', where a step has one."""
    return f", with the offer '{step['offer']}'" if step.get("offer") else ""


def sentences(data: Data) -> Iterable[str]:
    """What goes out, how important it is, what holds it back."""
    yield f"What goes out is {_what(data)}{_shadow(data)}."
    yield _priority(data)
    if not _is_grant(data):
        yield from _of_contacts(data)
    yield from _at_most(data)
    yield from _sparing(data)
    if data.get("recheck"):
        yield f"Before sending it, the sender should ask once more about: {listed(map(str, data['recheck']), 'and')}."


def _is_grant(data: Data) -> bool:
    return send_of(data).get("action") == "grant"


def _kind(data: Data, step: Data) -> str:
    return str(step.get("class") or send_of(data).get("class", "marketing"))


def _contact(data: Data) -> str:
    first, *others = [str(channel) for channel in send_of(data).get("channels") or ["no channel"]]
    return f"contact by {first}{', else ' + listed(others) if others else ''}"


def _what(data: Data) -> str:
    life = duration(send_of(data).get("expires_after", "1d"))
    if _is_grant(data):
        return f"a grant, for the service that carries it out within {life}; no contact is made"
    kinds = [_kind(data, step) for step in entries(data, "steps")]
    if len(set(kinds)) < 2:
        return f"a {kinds[0]} {_contact(data)}; it may be sent for {life}"
    each = listed((f"{kind} in step {number}" for number, kind in enumerate(kinds, 1)), "and")
    return f"a {_contact(data)}, {each}; it may be sent for {life}"


def _shadow(data: Data) -> str:
    return "; but the rule is in shadow mode, so nothing is really sent" if data.get("mode") == "shadow" else ""


def _priority(data: Data) -> str:
    priority = send_of(data).get("priority", 10)
    steps = list(enumerate(entries(data, "steps"), 1))
    alone = [n for n, step in steps if _is_grant(data) or step.get("at_once") or _kind(data, step) != "marketing"]
    if len(alone) == len(steps):
        return f"Its priority is {priority}, but it competes with nothing."
    but = f"; what comes in step {listed(map(str, alone), 'and')} competes with nothing" if alone else ""
    return (
        f"Its priority is {priority}: of marketing messages that come due for a user at about the same time, only the "
        f"one with the highest goes out{but}."
    )


def _of_contacts(data: Data) -> Iterable[str]:
    send, kinds = send_of(data), {_kind(data, step) for step in entries(data, "steps")}
    if send.get("collapse"):
        yield f"It is marked '{send['collapse']}', so that a later message with that mark can replace it."
    if "transactional" in kinds:
        yield (
            "What is transactional needs no consent to marketing, and meets neither frequency caps nor the shop's "
            "calendar nor an open after-sale case."
        )
    if "marketing" in kinds:
        yield (
            "What is marketing waits, while it is worth sending, as long as the user has an open after-sale case, of "
            "whichever order."
        )
    if "on_cap" in send:
        full = "is dropped" if send["on_cap"] == "drop" else "waits until one frees, while it is worth sending"
        yield f"A marketing contact whose channels have all reached their frequency caps {full}."


def _at_most(data: Data) -> Iterable[str]:
    send = send_of(data)
    if rate := send.get("max_rate"):
        count, _, window = str(rate).partition(" per ")
        late = "is dropped" if send.get("on_cap") == "drop" else "waits for its turn while it is worth sending"
        yield (
            f"The whole shop sends at most {int(count):,} within {duration(window)}, or one from each partition where "
            f"there are more of those; what is more {late}."
        )


def _sparing(data: Data) -> Iterable[str]:
    send = send_of(data)
    if "once_in" in send and not _is_grant(data):
        yield (
            f"Within {duration(send['once_in'])} only one of a user's runs may write, with all its steps; what others "
            "would say is dropped."
        )
    if "discount_every" in send:
        yield (
            f"Within {duration(send['discount_every'])} only one run of a user, of this and of all other rules with "
            "such a bound, brings a discount, in all its steps; the messages of others go out without it."
        )
    if send.get("coupon_in_hand"):
        yield "A coupon that the user could use now is named in place of the offer."
