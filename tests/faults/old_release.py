"""A worker of the release before this one: it writes rows of version 1, knows no other, and refuses newer ones.

`python -m tests.faults.old_release`; settings from the environment. All else about it is the present code, so that
what the two releases write may be compared.
"""

from __future__ import annotations

import sys

import msgspec

from app.core import row
from app.main import run_worker
from app.processor import state

OLD = 1


def _encode(value: row.Row, version: int) -> bytes:
    assert version == OLD, f"the old release knows no rows of version {version}"
    fields = [getattr(value, name) for name in value.__struct_fields__[: row.FIELDS[OLD]]]
    return b"%c%b%b" % (OLD, row.next_timer(value).to_bytes(8, "big"), msgspec.msgpack.encode(fields))


if __name__ == "__main__":
    row.ROW_VERSION = OLD
    state.encode = _encode
    sys.exit(run_worker())
