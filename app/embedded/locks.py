"""One `lifecycle` at a time works on a directory: an advisory lock that the system drops when its holder dies."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.embedded.problem import KafkaProblem


@contextmanager
def locked(directory: Path, timeout_s: float = 300) -> Iterator[None]:
    """Hold `directory`'s lock; the directory is created.

    Raises KafkaProblem when the lock stays taken or the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = (directory / ".lock").open("w")
    except OSError as error:
        raise KafkaProblem(
            f"{directory} cannot be written ({error.strerror}): correct its permissions, or name another place with "
            "LIFECYCLE_DATA_DIR."
        ) from error
    with handle:
        give_up = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise KafkaProblem(
                        f"Another `lifecycle` has been working in {directory} for {timeout_s:.0f} s: wait for it, or "
                        "stop it, and try again."
                    ) from None
                time.sleep(0.1)
        yield
