"""Log lines: JSON for machines, plain text on a terminal, and never personal data.

Three things keep users out, whatever a caller or a library passes in: a field is written only if it is in FIELDS, bytes
and messages (record keys and values, events, rows) are shown by size or class only, and an exception's own words are
shown only if its class is known not to quote data (`KeyError('u-42')` does). A record is named by its topic, partition
and offset; where lines about one user must be told apart, by `user_hash`.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from aiokafka.errors import KafkaError

#: What may be given as `extra=`: nothing here can hold a user's data.
FIELDS: Final = frozenset({
    "app_id", "attempt", "bytes", "code", "count", "events", "generation", "host", "input", "limit", "merged",
    "offset", "outcome", "partition", "partitions", "pid", "port", "records", "rows", "rule", "seconds", "shard",
    "shards", "state", "timers", "topic", "topics", "type", "url", "user", "version", "worker",
})  # fmt: skip

#: Classes whose words are about the machine, not about a message. A class of ours says so with `safe_to_log = True`.
SPEAKING: Final = (
    KafkaError, OSError, RuntimeError, TypeError, AttributeError, ImportError, MemoryError, AssertionError,
)  # fmt: skip

#: Messages of Faust and aiokafka, by class name: their repr shows keys and values.
_MESSAGES: Final = frozenset(
    {"ConsumerRecord", "ConsumerMessage", "Message", "Event", "PendingMessage", "FutureMessage"}
)
_OURS: Final = ("schemas", "app.core", "app.processor")

_LIBRARIES: Final = ("faust", "mode", "aiokafka", "aiohttp", "asyncio", "urllib3", "jgo", "cjdk")
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_KEY: Final = os.urandom(16)


class UserHash(str):
    """A stand-in for a user id; the only thing the field `user` accepts."""

    __slots__ = ()


def user_hash(user_id: str) -> UserHash:
    """Ten hex digits that tell users apart within one run of one process.

    The key is random and never leaves the process: ids are often phone numbers, which a hash without a key would give
    away to whoever tries them all.
    """
    return UserHash(hashlib.blake2b(user_id.encode(), digest_size=5, key=_KEY).hexdigest())


class _Shown(str):
    """Text that is the same under %s and %r."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def describe(error: BaseException) -> str:
    """`KafkaConnectionError: unable to ...`; only the class where the words may quote data."""
    name = type(error).__name__
    speaks = isinstance(error, SPEAKING) or getattr(error, "safe_to_log", False)
    words = str(error) if speaks and not isinstance(error, UnicodeError) else ""
    return f"{name}: {words}" if words else name


def shown(value: object) -> object:
    """`value` as a log line may show it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _Shown(f"<{len(value)} bytes>")
    if isinstance(value, BaseException):
        return _Shown(describe(value))
    kind = type(value)
    if kind.__module__.startswith(_OURS) or kind.__name__ in _MESSAGES:
        return _Shown(f"<{kind.__name__}>")
    if isinstance(value, dict):
        return _Shown("{" + ", ".join(f"{shown(k)}: {shown(v)}" for k, v in value.items()) + "}")
    if isinstance(value, (list, tuple, set, frozenset)):
        return _Shown("[" + ", ".join(str(shown(item)) for item in value) + "]")
    return _Shown(value)


def _message(record: logging.LogRecord) -> str:
    """The record's text with its arguments made safe, and what there is to say of others like it (see Repeated)."""
    repeats = getattr(record, "_repeats", "")
    return _text(record) + (f" ({repeats})" if repeats else "")


def _text(record: logging.LogRecord) -> str:
    text = str(shown(record.msg))
    args = record.args
    try:
        if isinstance(args, dict):
            return text % {name: shown(value) for name, value in args.items()}
        return text % tuple(shown(value) for value in args) if args else text
    except (TypeError, ValueError, KeyError):
        return f"{text} (its arguments do not fit)"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The extra fields that may be shown; the names of the others under `dropped`, for whoever wrote the call."""
    extra = {k: v for k, v in record.__dict__.items() if k not in _STANDARD and not k.startswith("_")}
    kept: dict[str, object] = {
        name: value if isinstance(value, (bool, int, float)) else str(shown(value))
        for name, value in extra.items()
        if name in FIELDS and (name != "user" or isinstance(value, UserHash))
    }
    dropped = sorted(extra.keys() - kept.keys())
    if dropped and not record.name.startswith(_LIBRARIES):
        kept["dropped"] = ",".join(dropped)
    return kept


def _errors(error: BaseException | None) -> Iterator[tuple[str, list[str]]]:
    """Each exception of the chain, the latest first: its description, and its frames as `file:line in function`."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = traceback.extract_tb(error.__traceback__)
        yield describe(error), [f"{_short(f.filename)}:{f.lineno} in {f.name}" for f in frames]
        for part in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
            yield from _errors(part)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _short(filename: str) -> str:
    _, installed, inside = filename.rpartition("site-packages/")
    return inside if installed else "/".join(filename.split("/")[-3:])


def _at(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, logger, message, the extra fields, errors."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **_fields(record),
        }
        if record.exc_info and record.exc_info[1]:
            line["errors"] = [{"error": error, "frames": frames} for error, frames in _errors(record.exc_info[1])]
        return orjson.dumps(line).decode()


class TextFormatter(logging.Formatter):
    """The same for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f"  {name}={value}" for name, value in _fields(record).items())
        lines = [f"{_at(record)[11:19]} {record.levelname.lower():<8}{_message(record)}{fields}"]
        if record.exc_info and record.exc_info[1]:
            for error, frames in _errors(record.exc_info[1]):
                lines += [f"    {error}", *(f"      {frame}" for frame in frames)]
        return "\n".join(lines)


class Harmless(logging.Filter):
    """Drops what aiokafka says in the ordinary course of things and mends by itself a moment later."""

    #: A new broker meets an old client; a cluster has its first consumer; a worker comes or goes.
    SAID: Final = ("NotEnoughReplicas", "GroupCoordinatorNotAvailableError", "because it is rebalancing")

    def filter(self, record: logging.LogRecord) -> bool:
        said = _message(record)
        return not any(words in said for words in self.SAID)


class Bookkeeping(logging.Filter):
    """Drops what mode's services say of themselves under our loggers' names ("[^-Engine]: Flush producer buffer")."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or not str(record.msg).startswith("[^")


class Repeated(logging.Filter):
    """Of what aiokafka says over and over (a broker that is down makes it say forty things a second), the first line is
    written, the second one with a word that from here on they are counted, and then one a minute with the count.

    Lines about another error are other lines.
    """

    EVERY_SECONDS: Final = 60.0
    KEPT: Final = 256

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, ...], tuple[float, int | None]] = {}
        """By logger, message without its arguments, and errors: when it was written last, and how often it was said
        since; None while it was said once. The longest unwritten first."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or not record.name.startswith("aiokafka"):
            return True
        key = record.name, str(record.msg), *_named_in(record)
        written, unsaid = self._said.get(key, (-math.inf, None))
        if 0 <= record.created - written < self.EVERY_SECONDS:
            self._said[key] = written, 0 if unsaid is None else unsaid + 1
            if unsaid is None:
                record._repeats = "more like it are counted, and written once a minute"
            return unsaid is None
        self._said.pop(key, None)
        if len(self._said) >= self.KEPT:
            del self._said[next(iter(self._said))]
        if unsaid:
            record._repeats = f"and {unsaid} like it since the last one"
        self._said[key] = record.created, 0 if unsaid else None
        return True


def _named_in(record: logging.LogRecord) -> Iterator[str]:
    """The errors that a record is about: what makes two records with the same text different."""
    args = record.args.values() if isinstance(record.args, dict) else record.args or ()
    for value in (*args, record.exc_info[1] if record.exc_info else None):
        if isinstance(value, BaseException):
            yield describe(value)
        elif isinstance(value, type):
            yield value.__name__


def config(level: str = "info", form: str = "auto") -> dict[str, Any]:
    """For `logging.config.dictConfig` and Faust's `logging_config`. `form`: json, text, auto (text on a terminal)."""
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    # Never their DEBUG lines: those quote records.
    library = {"debug": "INFO", "error": "ERROR"}.get(level, "WARNING")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {name.lower(): {"()": f"app.logs.{name}"} for name in ("Harmless", "Bookkeeping", "Repeated")},
        "formatters": {"line": {"()": "app.logs.TextFormatter" if as_text else "app.logs.JsonFormatter"}},
        "handlers": {
            "err": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "line",
                "filters": [] if level == "debug" else ["bookkeeping", "repeated"],
            }
        },
        "root": {"level": level.upper(), "handlers": ["err"]},
        "loggers": {
            **{name: {"level": library} for name in _LIBRARIES},
            "aiokafka.producer.sender": {"filters": ["harmless"]},
            "aiokafka.consumer.group_coordinator": {"filters": ["harmless"]},
        },
    }


def setup(level: str = "info", form: str = "auto") -> None:
    """Send all log lines to standard error in our form (settings.log_level, settings.log_format)."""
    import logging.config

    logging.captureWarnings(True)
    logging.config.dictConfig(config(level, form))
