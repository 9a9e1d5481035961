"""A publication: a whole catalogue with its number, from when on it is in effect, and which rules are paused.

Pure: bytes in, a checked catalogue out. Which number comes next and who may write is `topic`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any, Literal, NamedTuple, cast

import orjson

from app import rulebook
from app.core.catalogue_file import PAUSES
from app.core.problems import CatalogueError
from app.core.rules import Catalogue, Rule, index
from schemas.instant import BadInstant, format_instant, parse_instant

Way = Literal["hold", "skip", "expire"]

#: Stands for every rule in `Publication.paused`.
ALL = "*"


class NoPublication(Exception):
    """A record that is none, of the topic of publications. The text is a sentence."""

    safe_to_log = True


class Publication(NamedTuple):
    """One record of the topic."""

    number: int
    effective_at: int | None
    """Microseconds UTC; None = from the beginning, as the first one is."""
    files: Mapping[str, str]
    """Every file of the catalogue by name, the policy's included."""
    paused: Mapping[str, Way]
    """By rule, or by ALL: what happens to what comes due. A rule's own entry goes before ALL."""
    published_at: int

    @property
    def since(self) -> int:
        """`effective_at` as a number."""
        return self.effective_at or 0

    def way(self, rule: str) -> Way | None:
        """How a rule is paused, if it is."""
        return self.paused.get(rule, self.paused.get(ALL))


def key(number: int) -> bytes:
    """The record's key: each number has its own, so that compaction keeps all of them."""
    return f"{number:08d}".encode()


def number_of(name: bytes | None) -> int | None:
    """The number in a record's key; None when it is no publication's key."""
    return int(name) if name is not None and name.isdigit() else None


def encode(publication: Publication) -> bytes:
    """The record's value."""
    since = publication.effective_at
    return orjson.dumps({
        "number": publication.number,
        "effective_at": None if since is None else format_instant(since, UTC),
        "published_at": format_instant(publication.published_at, UTC),
        "paused": dict(publication.paused),
        "files": dict(publication.files),
    })  # fmt: skip


def decode(value: bytes | None) -> Publication:
    """The publication of a record. Raises NoPublication. Fields that this release does not know are passed over."""
    try:
        body: dict[str, Any] = orjson.loads(value or b"")
        since, paused, files = body["effective_at"], body["paused"], body["files"]
        if not set(rulebook.POLICY_FILES) <= files.keys() or not set(paused.values()) <= set(PAUSES):
            raise ValueError("incomplete")
        return Publication(
            number=int(body["number"]),
            effective_at=None if since is None else parse_instant(since),
            files={str(name): str(text) for name, text in files.items()},
            paused=cast(Mapping[str, Way], paused),
            published_at=parse_instant(body["published_at"]),
        )
    except (BadInstant, LookupError, AttributeError, TypeError, ValueError) as error:
        raise NoPublication(f"it is not written as a publication ({type(error).__name__})") from error


def in_effect(publications: Iterable[Publication], at: int) -> Publication | None:
    """The one that is in effect at an instant: the latest number among those that are due by then."""
    return max((p for p in publications if p.since <= at), key=lambda p: p.number, default=None)


def to_come(publications: Iterable[Publication], after: int) -> list[Publication]:
    """Those that will take effect after an instant, in that order; a later number that is due earlier replaces one."""
    publications = list(publications)
    present = in_effect(publications, after)
    latest, found = present.number if present else 0, []
    for publication in sorted(publications, key=lambda p: (p.since, -p.number)):
        if publication.since > after and publication.number > latest:
            found.append(publication)
            latest = publication.number
    return found


class Loaded(NamedTuple):
    """A publication as a worker has it: its catalogue, or why it has none."""

    publication: Publication
    catalogue: Catalogue | None
    problem: str = ""


class Loader:
    """Turns publications into catalogues, in the order of their numbers: each carries the versions of the earlier
    ones, so that runs that entered under them can be finished."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, int], Rule] = {}
        self._files: Mapping[str, str] = {}
        self._base: Catalogue | None = None

    def add(self, publication: Publication) -> Loaded:
        """The next one. One that cannot be read is given back without a catalogue, and with the reason."""
        try:
            if self._base is None or publication.files != self._files:  # a pause changes no file
                self._base = rulebook.compiled(publication.files)
                self._files = publication.files
        except CatalogueError as error:
            self._base = None
            more = f" and {len(error.problems) - 1} more" if len(error.problems) > 1 else ""
            return Loaded(publication, None, f"{error.problems[0]}{more}")
        rules = {name: _paused(rule, publication.way(name)) for name, rule in self._base.rules.items()}
        catalogue = index(rules, self._base.policy, self._versions)
        self._versions.update({(rule.name, rule.version): rule for rule in self._base.rules.values()})
        return Loaded(publication, catalogue)


def _paused(rule: Rule, way: Way | None) -> Rule:
    """What its own file says stands when nobody paused the rule."""
    return rule if way is None else rule._replace(paused=way)
