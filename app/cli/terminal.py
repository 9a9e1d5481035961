"""How wide the lines may be that a command prints."""

from __future__ import annotations

import shutil
import sys
from typing import Final

_PLAIN: Final = 120
_WIDEST: Final = 140


def width() -> int:
    """The terminal's columns within reason; 120 where there is no terminal, so that files look the same everywhere."""
    return min(shutil.get_terminal_size((_PLAIN, 0)).columns, _WIDEST) if sys.stdout.isatty() else _PLAIN
