"""Opens the files of a catalogue: the rules, and beside them `shop.yaml` and `intervals.yaml`.

It decides nothing about them but which ones are read, and says which ones are not that look as if they should be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from app.core import catalogue_file, policy_file
from app.core.problems import CatalogueError, Problem
from app.core.rules import Catalogue

#: The catalogue that is shipped.
SHIPPED = Path(__file__).parent / "catalogue"
#: Files beside the rules, which are the shop's policy.
POLICY_FILES = ("shop.yaml", "intervals.yaml")
_NEARLY_YAML = re.compile(r"(.+?)\.ya?ml(\.txt)?", re.I)
_RULE = re.compile(r"^rule:", re.M)
_LARGEST_RULE = 100_000


def load(directory: Path | None = None) -> Catalogue:
    """The catalogue of a directory (default: the shipped one). A file of policy that the directory lacks is the
    shipped one. Raises CatalogueError with all mistakes of all files."""
    return checked(directory)[1]


def checked(directory: Path | None = None) -> tuple[dict[str, str], Catalogue]:
    """Every file of a directory's catalogue by name, as `texts` has them, and the catalogue that they are. Raises
    CatalogueError with all mistakes, those of the files' names too: of what is published only the texts count."""
    directory = directory or SHIPPED
    found, problems = _read(directory)
    problems += catalogue_file.misnamed(_rules(found)) + _passed_over(directory)
    try:
        catalogue = compiled(found)
    except CatalogueError as error:
        raise CatalogueError(error.problems + problems) from error
    problems += policy_file.unknown_rules(found["shop.yaml"], catalogue.rules)
    if problems:
        raise CatalogueError(problems)
    return found, catalogue


def texts(directory: Path | None = None) -> dict[str, str]:
    """Every file of a directory's catalogue by name, the policy's included. Raises CatalogueError."""
    found, problems = _read(directory or SHIPPED)
    if problems:
        raise CatalogueError(problems)
    return found


def remarks(directory: Path) -> list[str]:
    """What is no mistake in a directory, but may not be meant: policy that is not its own, rules that are not read."""
    said = []
    lacking = [name for name in POLICY_FILES if not (directory / name).is_file()]
    if lacking:
        said.append(
            f"There is no {' and no '.join(lacking)} in {directory}: what is shipped holds instead. To change it, copy "
            f"it from {SHIPPED}."
        )
    unread = [f"{path.parent.name}/{path.name}" for path in directory.glob("[!.]*/[!.]*.yaml")]
    unread += [path.name for path in _others(directory) if not _NEARLY_YAML.fullmatch(path.name) and _is_rule(path)]
    if unread:
        said.append(f"Not read: {', '.join(sorted(unread))}. Rules are the files of {directory} itself in .yaml.")
    return said


def _read(directory: Path) -> tuple[dict[str, str], list[Problem]]:
    if not directory.is_dir():
        raise CatalogueError([Problem(str(directory), 0, "There is no such directory.")])
    found, problems = {}, []
    for path in sorted(directory.glob("[!.]*.yaml")):
        if not path.is_file():
            continue
        try:
            found[path.name] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            problems.append(Problem(path.name, line, "This is not UTF-8: save the file in that encoding."))
        except OSError as error:
            problems.append(Problem(path.name, 1, f"It cannot be opened: {error.strerror}."))
    if not problems and not _rules(found):
        none = Problem(str(directory), 0, "There is no rule in it: rules are files ending in .yaml.")
        raise CatalogueError([none, *_passed_over(directory)])
    for name in POLICY_FILES:
        if name not in found:
            found[name] = (SHIPPED / name).read_text(encoding="utf-8")
    return found, problems


def _rules(files: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if name not in POLICY_FILES}


def _passed_over(directory: Path) -> list[Problem]:
    """Files that are called nearly as rules are, and so would be missed in silence."""
    problems = []
    for path in _others(directory):
        meant = _NEARLY_YAML.fullmatch(path.name)
        if meant:
            name = f"{meant[1]}.yaml"
            beside = " (there is one already: keep one of them)" if (directory / name).exists() else ""
            problems.append(Problem(path.name, 1, f"Only files ending in .yaml are read: rename it to {name}{beside}."))
    return problems


def _others(directory: Path) -> list[Path]:
    """The files that are not read; names that begin with a dot are nobody's to look at."""
    named = sorted(path for path in directory.iterdir() if path.suffix != ".yaml" and path.name[0] != ".")
    return [path for path in named if path.is_file()]


def _is_rule(path: Path) -> bool:
    try:
        text = path.read_bytes() if path.stat().st_size <= _LARGEST_RULE else b""
    except OSError:
        return False
    return _RULE.search(text.decode(errors="replace")) is not None


def compiled(files: Mapping[str, str]) -> Catalogue:
    """The catalogue of these files by name, the policy's among them. Raises CatalogueError with all mistakes."""
    shop, intervals = (files[name] for name in POLICY_FILES)
    policy, problems = policy_file.partly(shop, intervals)
    catalogue: Catalogue | None = None
    try:
        catalogue = catalogue_file.read(_rules(files), policy, offers_known=policy_file.readable(shop))
    except CatalogueError as error:
        problems += error.problems
    if problems or catalogue is None:
        raise CatalogueError(problems)
    return catalogue
