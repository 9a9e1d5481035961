"""What a user did without buying, and what was said to the user: facts of browsing, carts, consent and contacts.

Like `facts`, nothing here knows a rule. All of it is bounded; of what is let go, the newest stays.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from operator import attrgetter

from msgspec.structs import replace

from app.core import looks
from app.core.happenings import Facts, Happening, lines_of
from app.core.policy import CHANNELS, FAMILIES
from app.core.purchases import bought_since
from app.core.row import (
    MAX_CARTS,
    MAX_CONSENTS,
    MAX_SENT,
    MAX_VIEWS,
    NAMELESS_CHECKOUT,
    NEVER,
    Cart,
    Consent,
    Row,
    Sent,
    View,
)
from app.core.scope import category_of
from schemas import events as ev
from schemas.instant import DAY

#: How long contacts are remembered: the longest window that a cap can have.
SENT_DAYS = 31
_at = attrgetter("at")
_by_age = attrgetter("last_at", "product_id")


def _happened(event: ev.Event, key: str | None = None) -> tuple[Happening, ...]:
    return (Happening(event.TYPE, event.occurred_at, event.event_id, event.TYPE, thing=key),)


def viewed(row: Row, event: ev.ProductViewed, floor: int) -> Facts:
    """One more look at a product; what the latest look says of the product holds."""
    look = (event.occurred_at, event.event_id, int(event.dwell_seconds or 0))
    before = row.views.get(event.product_id) or View(event.product_id, -1, 0)
    newest = look[0] >= before.last_at
    view = replace(
        before,
        category=_better(newest, event.category, before.category) or "",
        product_type=_better(newest, event.product_type, before.product_type) or "",
        title=_better(newest, event.title, before.title),
        image_url=_better(newest, event.image_url, before.image_url),
    )
    since = looks.first(view) if looks.settles(view, floor) else NEVER
    view = looks.added(view, look, floor, [at for at, _ in bought_since(row, category_of(view), since)])
    views = {**row.views, event.product_id: view}
    if len(views) > MAX_VIEWS:
        del views[min(views.values(), key=_by_age).product_id]
    return Facts(replace(row, views=views), _happened(event, event.product_id))


def _better(newest: bool, said: str | None, known: str | None) -> str | None:
    return said or known if newest else known or said


def _with_cart(row: Row, cart: Cart) -> Row:
    carts = {**row.carts, cart.key: cart}
    if len(carts) > MAX_CARTS:
        del carts[min(carts.values(), key=lambda c: (c.at, c.key)).key]
    return replace(row, carts=carts)


def cart_updated(row: Row, event: ev.CartUpdated) -> Facts:
    """The whole cart after a change; an older picture of it that arrives late changes nothing."""
    key = event.cart_id or ""
    before = row.carts.get(key)
    if before is not None and before.at > event.occurred_at:
        return Facts(row)
    return Facts(_with_cart(row, Cart(key, event.occurred_at, lines_of(event.lines))), _happened(event, key))


def checkout_started(row: Row, event: ev.CheckoutStarted) -> Facts:
    """A checkout: known by its order if it has one, else by its own id."""
    key = event.order_id or NAMELESS_CHECKOUT + (event.checkout_id or "")
    happening = Happening(event.TYPE, event.occurred_at, event.event_id, event.TYPE, key)
    return Facts(_with_cart(row, Cart(key, event.occurred_at, lines_of(event.lines))), (happening,))


def consent_changed(row: Row, event: ev.ConsentChanged) -> Facts:
    """The later word counts. A grant with a quota adds its sends to those left (one-time subscriptions), whichever is
    heard of first; a refusal takes all that were granted before it, and one of the whole channel those of its
    categories, too."""
    at = event.occurred_at
    if not event.category and not event.granted:
        return Facts(_with_consents(row, closed(row.consents, event.channel, at)), _happened(event))
    key = f"{event.channel}/{event.category}" if event.category else event.channel
    closed_at = closed_since(row.consents, event.channel) if event.category else -1
    before = row.consents.get(key, Consent(False, -1, refused_at=closed_at))
    if at <= closed_at:
        after = _one_of_the_past(before, Consent(event.granted, at, refused_at=closed_at))
    else:
        after = _granted(before, at, event.quota) if event.granted else _refused(before, at)
    return Facts(_with_consents(row, {**row.consents, key: after}), _happened(event))


def _one_of_the_past(before: Consent, word: Consent) -> Consent:
    """Of words about a category that are older than the refusal of its channel the latest is kept: a no stands when
    the channel is allowed again, a yes is worth nothing but that it is no such no."""
    return word if (word.at, not word.granted) > (before.at, not before.granted) else before


def closed_since(consents: Mapping[str, Consent], channel: str) -> int:
    """The latest refusal of the whole channel: what was granted for a category until then counts no more."""
    word, last = consents.get(channel), consents.get(f"{channel}/")
    at = -1 if last is None else last.at
    return at if word is None or word.granted else max(at, word.at)


def closed(consents: Mapping[str, Consent], channel: str, at: int) -> dict[str, Consent]:
    """The words after a refusal of the whole channel, in every category."""
    prefix = f"{channel}/"
    kept = dict(consents)
    for key, word in consents.items():
        if key.startswith(prefix) and key != prefix:
            kept[key] = _refused(word, at) if word.at > at else _of_the_past(word, at)
    for key in (channel, prefix):
        kept[key] = _refused(consents.get(key, Consent(False, -1)), at)
    return kept


def _of_the_past(word: Consent, at: int) -> Consent:
    return Consent(word.granted, word.at, refused_at=max(at, word.refused_at))


def _with_consents(row: Row, consents: dict[str, Consent]) -> Row:
    return replace(row, consents=without_idle_consents(consents))


def without_idle_consents(consents: dict[str, Consent], most: int = MAX_CONSENTS) -> dict[str, Consent]:
    """At most so many words, but every one that some rule can ask for: of those about channels and categories that no
    message has, the oldest go, the grants before the refusals."""
    if len(consents) <= most:
        return consents
    idle = [key for key in consents if not _is_asked_for(*key.partition("/")[::2])]
    idle.sort(key=lambda key: (not consents[key].granted, consents[key].at, key))
    gone = set(idle[: len(consents) - most])
    return {key: word for key, word in consents.items() if key not in gone}


def _is_asked_for(channel: str, category: str) -> bool:
    return channel in CHANNELS and (not category or category in FAMILIES)


def _granted(before: Consent, at: int, quota: int | None) -> Consent:
    """A grant without a quota is a new start, as a refusal is: quotas granted before it count no more."""
    if at <= before.refused_at:
        return before
    if quota is None:
        return replace(_own_only(before), refused_at=at) if at < before.at else Consent(True, at, refused_at=at)
    adds = before.granted and before.quota is not None
    if at < before.at:
        return replace(before, quota=(before.quota or 0) + quota) if adds else before
    if adds:
        return Consent(True, at, quota + (before.quota or 0), quota, before.refused_at, before.unsent)
    return Consent(True, at, quota, quota, before.refused_at)


def _refused(before: Consent, at: int) -> Consent:
    """A refusal that is older than the latest grant takes what was granted before that one. Heard of late between more
    than two grants, it takes those between it and the latest as well: fewer sends than in the order of time, never
    more. A row remembers one grant's own quota, not all of them."""
    if at >= before.at:
        return Consent(False, at, refused_at=at)
    after = before if at <= before.refused_at else _own_only(before)
    return replace(after, refused_at=max(at, before.refused_at))


def _own_only(consent: Consent) -> Consent:
    """The consent with no more sends than its latest grant brought, for ghosts as well."""
    quota = consent.quota and min(consent.quota, consent.own_quota)
    gone = (consent.quota or 0) - (quota or 0)
    return replace(consent, quota=quota, unsent=max(0, consent.unsent - gone))


def unsubscribed(row: Row, event: ev.Unsubscribed) -> Facts:
    """Takes back the consent for the channel, in every category."""
    return Facts(_with_consents(row, closed(row.consents, event.channel, event.occurred_at)), _happened(event))


def message_sent(row: Row, event: ev.MessageSent) -> Facts:
    """A contact that somebody else made counts for the caps, and for a family's if its campaign is the family's name.
    Ours name their trigger: they were charged when they were released, if caps are for them at all; what went out on
    another channel than the one that was charged (a fallback) is charged to that one as well."""
    if event.trigger_id is None:
        return Facts(with_sent(row, Sent(event.occurred_at, event.channel, event.campaign or "")), _happened(event))
    return Facts(_charged_too(row, event), _happened(event))


def _charged_too(row: Row, event: ev.MessageSent) -> Row:
    """The row with the channel that was used charged once, at the latest word, beside the one charged at release, which
    comes first."""
    ours = [contact for contact in row.sent if contact.trigger_id == event.trigger_id]
    if not ours or ours[0].channel == event.channel:
        return row
    told = [contact for contact in ours if contact.channel == event.channel]
    at = max(event.occurred_at, ours[0].at, *[contact.at for contact in told])
    others = tuple([contact for contact in row.sent if contact not in told]) if told else row.sent
    return with_sent(replace(row, sent=others), replace(ours[0], at=at, channel=event.channel))


def with_sent(row: Row, contact: Sent) -> Row:
    """The row with one more contact; those no cap can see any more are let go."""
    oldest = contact.at - SENT_DAYS * DAY
    kept = row.sent[bisect_right(row.sent, oldest, key=_at) :]
    place = bisect_right(kept, contact.at, key=_at)
    return replace(row, sent=bounded((*kept[:place], contact, *kept[place:])))


def bounded(contacts: tuple[Sent, ...]) -> tuple[Sent, ...]:
    """At most MAX_SENT of these, which are in the order of time: the oldest go, of ghosts first, so that what only
    would have been sent makes nobody forget what was."""
    surplus = len(contacts) - MAX_SENT
    if surplus <= 0:
        return contacts
    shadows = [place for place, contact in enumerate(contacts) if contact.shadow]
    real = [place for place, contact in enumerate(contacts) if not contact.shadow]
    gone = {*[*shadows, *real][:surplus]}
    return tuple([contact for place, contact in enumerate(contacts) if place not in gone])
