"""What a publication changes, in words, and what it may not change: a rule's meaning under a version that was used.

Pure: two publications in, sentences out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from app import rulebook
from app.core.problems import Problem, located
from app.publications.differences import differences
from app.publications.record import ALL, Publication

_IN_FLIGHT = {
    "finish": "runs in flight are finished under the version they entered",
    "follow": "runs in flight follow it with their next step",
    "restart": "runs in flight begin anew under it",
    "exit": "runs in flight exit",
}
#: Written in a rule's file, but no part of what the rule means: a pause begins and ends without a new version.
_SWITCHES = frozenset({"paused"})


class Kept(NamedTuple):
    """A rule as a publication has it."""

    file: str
    version: int
    meaning: Mapping[str, Any]
    line: int
    """Where the version stands."""
    paused: str | None = None
    """How its own file pauses it."""


def rules_of(files: Mapping[str, str]) -> dict[str, Kept]:
    """The rules of a catalogue's files (which have been checked), by name."""
    rules = [_rule(file, files[file]) for file in sorted(files.keys() - set(rulebook.POLICY_FILES))]
    return dict(rules)


@lru_cache(maxsize=4096)  # most files are the same in most publications
def _rule(file: str, text: str) -> tuple[str, Kept]:
    data, lines = located(text, file, [])
    meaning = {name: value for name, value in data.items() if name not in _SWITCHES}
    version = int(meaning.pop("version", 1))
    return str(data["rule"]), Kept(file, version, meaning, lines.get(("version",), 1), data.get("paused"))


@lru_cache(maxsize=64)
def _settings(file: str, text: str) -> Mapping[str, Any]:
    return located(text, file, [])[0]


def refused(files: Mapping[str, str], published: Iterable[Publication]) -> list[Problem]:
    """A problem for each rule that means something else than a publication before, under a version that is not new."""
    highest: dict[str, int] = {}
    meant: dict[tuple[str, int], Mapping[str, Any]] = {}
    for publication in published:
        for name, rule in rules_of(publication.files).items():
            highest[name] = max(highest.get(name, 0), rule.version)
            meant[name, rule.version] = rule.meaning
    problems = []
    for name, rule in rules_of(files).items():
        top = highest.get(name, 0)
        same = meant.get((name, rule.version)) == rule.meaning
        if rule.version < top or (rule.version == top and not same):
            was = "has been replaced by a later one" if same else "was published with another meaning"
            text = f"Version {rule.version} of '{name}' {was}: raise version to {top + 1}."
            problems.append(Problem(rule.file, rule.line, text))
    return problems


def differs(one: Publication, other: Publication) -> bool:
    """Whether anything is different when one of them is in effect instead of the other."""
    return one.files != other.files or one.paused != other.paused


def told(before: Publication | None, after: Publication) -> list[str]:
    """What is different once `after` is in effect, a line each, under a file that changed its settings that did; what
    stays the same in one line at the end."""
    old = rules_of(before.files) if before else {}
    new = rules_of(after.files)
    lines: list[tuple[str, str]] = []
    for name in sorted(new.keys() - old.keys()):
        start = "nothing that was due before is sent, unless its start says so"
        lines.append(("added", f"{name}, version {new[name].version}: {start}"))
    same = 0
    for name in sorted(new.keys() & old.keys()):
        if new[name].version == old[name].version:
            same += 1
            continue
        way = _IN_FLIGHT[str(new[name].meaning.get("on_change", "finish"))]
        lines.append(("changed", f"{name}, version {old[name].version} to {new[name].version}: {way}"))
        lines += [("", one) for one in differences(_settings_of(old[name]), _settings_of(new[name]))]
    lines += [("removed", f"{name}: its runs in flight exit") for name in sorted(old.keys() - new.keys())]
    for file in rulebook.POLICY_FILES:
        if before and before.files[file] != after.files[file]:
            settings = [*differences(_settings(file, before.files[file]), _settings(file, after.files[file]))]
            lines.append(("changed", f"{file}, the shop's policy{'' if settings else ': only how it is written'}"))
            lines += [("", one) for one in settings]
    lines += _pauses(before, after, old, new)
    if same:
        lines.append(("unchanged", f"{same} rule{'s' if same > 1 else ''}"))
    return [_line(what, words) for what, words in lines]


def _line(what: str, words: str) -> str:
    return f"{what:<12} {words}"


def called_off(old: Sequence[Publication], new: Sequence[Publication]) -> dict[int, list[str]]:
    """By its number in `old`: which pauses it was to begin or to end, and no more, now that `new` are to come instead.

    Both have the one that is in effect first, and are of the same instants and files otherwise.
    """
    at_once = _switches(old[0], new[0])
    found = {}
    for (was, is_to_be), instead in zip(pairwise(old), pairwise(new), strict=True):
        kept = [*at_once, *_switches(*instead)]
        found[is_to_be.number] = [line for line in _switches(was, is_to_be) if line not in kept]
    return found


def _switches(before: Publication, after: Publication) -> list[str]:
    """Those lines of `told` that are of a pause that begins or ends."""
    found = _pauses(before, after, rules_of(before.files), rules_of(after.files))
    return [_line(what, words) for what, words in found if what in ("paused", "resumed")]


def _settings_of(rule: Kept) -> Mapping[str, Any]:
    """What its file says, the pause too."""
    return {**rule.meaning, **({"paused": rule.paused} if rule.paused else {})}


def pause_of(publication: Publication, name: str, rule: Kept) -> str | None:
    """How a rule is paused, in words: as somebody said, or as its own file says; None = it is not."""
    way = publication.way(name)
    if way is not None:
        return way
    return f"{rule.paused}, by {rule.file}" if rule.paused else None


def let_go(before: Publication, after: Publication) -> list[str]:
    """The rules that wait no more for what a pause held: it is asked again once `after` is in effect."""
    return [
        name
        for name, rule in sorted(rules_of(after.files).items())
        if (kept := rules_of(before.files).get(name))
        and (before.way(name) or kept.paused) == "hold"
        and not (after.way(name) or rule.paused)
    ]


def paused_by_file(publication: Publication, name: str) -> list[str]:
    """A sentence for each of these rules (one, or ALL) that its own file pauses, and nobody else."""
    return [
        f"'{rule}' is paused by its own file: take `paused: {kept.paused}` out of {kept.file}, and publish it."
        for rule, kept in sorted(rules_of(publication.files).items())
        if kept.paused and name in (rule, ALL) and publication.way(rule) is None
    ]


def _pauses(
    before: Publication | None, after: Publication, old: Mapping[str, Kept], new: Mapping[str, Kept]
) -> list[tuple[str, str]]:
    """Which rules a publication pauses, lets go on, or leaves paused."""
    every = after.paused.get(ALL)
    at_once = every is not None and not (before and before.paused.get(ALL) == every)
    found = [("paused", f"every rule ({every})")] if at_once else []
    for name, rule in sorted(new.items()):
        if at_once and name not in after.paused:
            continue
        was = pause_of(before, name, old[name]) if before and name in old else None
        way = pause_of(after, name, rule)
        if was and not way:
            found.append(("resumed", name))
        elif way:
            found.append(("paused" if was != way else "stays paused", f"{name} ({way})"))
            if was == way and old[name].version == rule.version:  # the file's own pause may still be another one
                found += [("", one) for one in differences(_settings_of(old[name]), _settings_of(rule))]
    return found
