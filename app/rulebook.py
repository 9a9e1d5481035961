"""Opens the files of a catalogue: the rules, and beside them `shop.yaml` and `intervals.yaml`. It decides nothing."""

from __future__ import annotations

from pathlib import Path

from app.core import catalogue_file, policy_file
from app.core.policy import Policy
from app.core.problems import CatalogueError, Problem
from app.core.rules import Catalogue

#: The catalogue that is shipped.
SHIPPED = Path(__file__).parent / "catalogue"
_POLICY_FILES = ("shop.yaml", "intervals.yaml")


def load(directory: Path | None = None) -> Catalogue:
    """The catalogue of a directory (default: the shipped one). A file of policy that the directory lacks is the
    shipped one. Raises CatalogueError with all mistakes of all files."""
    directory = directory or SHIPPED
    if not directory.is_dir():
        raise CatalogueError([Problem(str(directory), 1, "There is no such directory. Set LIFECYCLE_RULES to one.")])
    texts = {path.name: path.read_text() for path in sorted(directory.glob("*.yaml"))}
    shop, intervals = (texts.pop(name, "") or (SHIPPED / name).read_text() for name in _POLICY_FILES)
    if not texts:
        raise CatalogueError([Problem(str(directory), 1, "There is no rule in it: rules are files ending in .yaml.")])
    problems: list[Problem] = []
    policy = Policy()
    catalogue: Catalogue | None = None
    try:
        policy = policy_file.read(shop, intervals)
    except CatalogueError as error:
        problems += error.problems
    try:
        catalogue = catalogue_file.read(texts, policy)
    except CatalogueError as error:
        problems += error.problems
    if problems or catalogue is None:
        raise CatalogueError(problems)
    return catalogue
