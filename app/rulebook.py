"""Opens the files of a catalogue: the rules, and beside them `shop.yaml` and `intervals.yaml`. It decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from app.core import catalogue_file, policy_file
from app.core.problems import CatalogueError, Problem
from app.core.rules import Catalogue

#: The catalogue that is shipped.
SHIPPED = Path(__file__).parent / "catalogue"
#: Files beside the rules, which are the shop's policy.
POLICY_FILES = ("shop.yaml", "intervals.yaml")


def load(directory: Path | None = None) -> Catalogue:
    """The catalogue of a directory (default: the shipped one). A file of policy that the directory lacks is the
    shipped one. Raises CatalogueError with all mistakes of all files."""
    return compiled(texts(directory))


def texts(directory: Path | None = None) -> dict[str, str]:
    """Every file of a directory's catalogue by name, the policy's included. Raises CatalogueError."""
    directory = directory or SHIPPED
    if not directory.is_dir():
        raise CatalogueError([Problem(str(directory), 1, "There is no such directory. Set LIFECYCLE_RULES to one.")])
    found = {path.name: path.read_text() for path in sorted(directory.glob("*.yaml"))}
    if not found.keys() - set(POLICY_FILES):
        raise CatalogueError([Problem(str(directory), 1, "There is no rule in it: rules are files ending in .yaml.")])
    for name in POLICY_FILES:
        found[name] = found.get(name) or (SHIPPED / name).read_text()
    return found


def compiled(files: Mapping[str, str]) -> Catalogue:
    """The catalogue of these files by name, the policy's among them. Raises CatalogueError with all mistakes."""
    shop, intervals = (files[name] for name in POLICY_FILES)
    rules = {name: text for name, text in files.items() if name not in POLICY_FILES}
    policy, problems = policy_file.partly(shop, intervals)
    catalogue: Catalogue | None = None
    try:
        catalogue = catalogue_file.read(rules, policy)
    except CatalogueError as error:
        problems += error.problems
    if problems or catalogue is None:
        raise CatalogueError(problems)
    return catalogue
