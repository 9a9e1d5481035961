"""Apache Kafka's jars, from Maven Central into a cache: exactly those of `jars.lock.json`, each checked by SHA-256.

A jar gets its final name only when it is complete and right, so whatever is there under that name can be used, and a
download that was killed is simply done again. jgo does the Maven part in pure Python; `app.embedded.relock` made the
lock with it, and taking the jars from the lock spares every machine the walk over a hundred POM files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.embedded.locks import locked
from app.embedded.problem import KafkaProblem, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOCK = Path(__file__).with_name("jars.lock.json")
CONNECTIONS = 6
ATTEMPTS = 3
TIMEOUT_S = 30
#: What the fast-start archive (`app.embedded.java`) takes beside the jars, with its intermediate file.
ARCHIVE_BYTES = 160_000_000
ARCHIVE_PREFIX = "start-java-"


class Jar(NamedTuple):
    coordinate: str
    """Maven's group:artifact:version."""
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


class Wrong(Exception):
    """A downloaded jar is not the one that the lock names."""


def locked_version() -> str:
    """Apache Kafka's version, e.g. "4.1.1"."""
    return str(json.loads(LOCK.read_text())["kafka"])


def locked_jars() -> list[Jar]:
    """All jars of the class path, in the order of the class path."""
    return [Jar(**jar) for jar in json.loads(LOCK.read_text())["jars"]]


def default_cache() -> Path:
    """Where the jars are kept between runs and shared by all data directories of a user."""
    return Path("~/.cache/lifecycle-triggers").expanduser()


def home(cache_dir: Path) -> Path:
    """The directory of this version of Kafka in the cache."""
    return cache_dir / f"kafka-{locked_version()}"


def fetch(cache_dir: Path, progress: Progress) -> list[Path]:
    """The class path; what is missing in the cache is downloaded.

    Raises KafkaProblem: no network, no room on the disk, a jar that isn't what the lock says.
    """
    wanted = locked_jars()
    place = home(cache_dir)
    if _missing(place, wanted):
        with locked(place):
            missing = _missing(place, wanted)
            if missing:
                _download(place, missing, progress)
    return [place / jar.file_name for jar in wanted]


def _missing(place: Path, wanted: Sequence[Jar]) -> list[Jar]:
    def there(path: Path, size: int) -> bool:
        try:
            return path.stat().st_size == size
        except OSError:
            return False

    return [jar for jar in wanted if not there(place / jar.file_name, jar.size)]


def require_room(place: Path, needed_bytes: int, what: str) -> None:
    """Raises KafkaProblem when the disk of `place` (which exists) has not so much room left."""
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise KafkaProblem(
            f"The disk is too full for {what}: {needed_bytes // 1_000_000} MB are needed in {place} and "
            f"{free // 1_000_000} MB are free. Make room and try again."
        )


def _download(place: Path, missing: Sequence[Jar], progress: Progress) -> None:
    total = sum(jar.size for jar in missing)
    require_room(place, 2 * total + ARCHIVE_BYTES, "Apache Kafka")
    incoming = place / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    for archive in place.glob(f"{ARCHIVE_PREFIX}*"):
        archive.unlink()  # it is void when a jar, even an equal one, is newer than it was
    progress.begin(f"Downloading Apache Kafka {locked_version()}", total)
    try:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            jobs = [pool.submit(_download_one, jar, incoming, place, progress) for jar in missing]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    except OSError as error:
        raise _explained(error, place) from error
    finally:
        progress.end()
        shutil.rmtree(incoming, ignore_errors=True)


def _download_one(jar: Jar, incoming: Path, place: Path, progress: Progress) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        seen = 0

        def count(amount: int) -> None:
            nonlocal seen
            seen += amount
            progress.advance(amount)

        try:
            # A directory of its own for each attempt: jgo takes a file that is already there for a finished one.
            path = _maven_get(jar.coordinate, incoming / f"{jar.file_name}-{attempt}", count)
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found != jar.sha256:
                raise Wrong(f"{jar.file_name} has the SHA-256 {found} instead of {jar.sha256}")
            path.replace(place / jar.file_name)
        except (OSError, RuntimeError, Wrong) as error:  # requests' exceptions are OSErrors, jgo's "not found" isn't
            progress.advance(-seen)
            if attempt == ATTEMPTS or _is_disk(error):
                if isinstance(error, OSError):
                    raise
                raise KafkaProblem(
                    f"Apache Kafka cannot be downloaded: {str(error).rstrip('.')}. Try again later; if a proxy or a "
                    "mirror stands between, it changes or withholds files."
                ) from error
        else:
            return


def _maven_get(coordinate: str, repository: Path, count: Callable[[int], None]) -> Path:
    """Download one jar with jgo into an empty local repository; its path."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext, PythonResolver

    @contextmanager
    def report(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield count

    callback: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] = report
    # Mirrors of the machine (jgo's own configuration file) come first; the hash makes any source as good as the other.
    repositories = {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}
    maven: Any = MavenContext(
        resolver=PythonResolver(progress_callback=callback),
        repo_cache=repository,
        remote_repos=repositories,
        timeout=TIMEOUT_S,
    )
    return Path(maven.create_dependency(coordinate).artifact.resolve())


def _is_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno is not None


def _explained(error: OSError, place: Path) -> KafkaProblem:
    if _is_disk(error):
        return KafkaProblem(
            f"{place} cannot be written ({error.strerror}): make room or correct its permissions, and try again."
        )
    return KafkaProblem(
        f"Apache Kafka cannot be downloaded from Maven Central ({_short(error)}). This is needed once: connect this "
        "machine to the internet (a proxy is taken from HTTPS_PROXY) and try again, or use a Kafka that runs already "
        "with LIFECYCLE_KAFKA_BOOTSTRAP=host:port."
    )


def _short(error: OSError) -> str:
    """The innermost reason; requests and urllib3 wrap it several times."""
    reason: Any = error
    while True:
        inner = getattr(reason, "reason", None) or next(
            (part for part in getattr(reason, "args", ()) if isinstance(part, Exception)), None
        )
        if not isinstance(inner, Exception):
            break
        reason = inner
    text = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
    return text[:200].rstrip(".")
