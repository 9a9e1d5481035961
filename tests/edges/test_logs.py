"""Log lines: machines and people can read them, and no user is in them."""

from __future__ import annotations

import ast
import io
import json
import logging
import logging.config
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaConnectionError
from aiokafka.structs import ConsumerRecord, TopicPartition

from app import logs
from schemas.events import UserLoggedIn
from schemas.instant import parse_instant

ROOT = Path(__file__).parents[2]
USER = "u-13800138000"


class Lines:
    """A logger whose lines are kept."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(formatter)
        self.log = logging.Logger("agents.shard")  # noqa: LOG001 - one of its own for each test
        self.log.addHandler(handler)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def line(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found


@pytest.fixture
def lines() -> Lines:
    return Lines(logs.JsonFormatter())


@pytest.fixture
def root_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


def test_a_line_is_one_json_object_with_its_fields(lines: Lines) -> None:
    lines.log.warning("shard %d opened in %.1f s", 3, 0.44, extra={"shard": 3, "seconds": 0.44, "topic": "orders"})
    line = lines.line
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "agents.shard",
        "message": "shard 3 opened in 0.4 s",
        "shard": 3,
        "seconds": 0.44,
        "topic": "orders",
    }


def test_a_person_reads_the_same_in_plain_text() -> None:
    lines = Lines(logs.TextFormatter())
    lines.log.info("shard opened", extra={"shard": 3})
    assert lines.text[8:] == " info    shard opened  shard=3\n"
    try:
        raise KafkaConnectionError("no broker at 127.0.0.1:9092")
    except KafkaConnectionError:
        lines.log.exception("gave up")
    assert "    KafkaConnectionError: KafkaConnectionError: no broker at 127.0.0.1:9092\n      " in lines.text


def test_a_field_that_is_not_listed_is_dropped_and_its_name_shown(lines: Lines) -> None:
    lines.log.warning("odd row", extra={"shard": 1, "user_id": USER, "customer": {"phone": USER}})
    assert USER not in lines.text
    assert (lines.line["shard"], lines.line["dropped"]) == (1, "customer,user_id")


def test_the_field_user_takes_a_hash_only(lines: Lines) -> None:
    lines.log.warning("odd row", extra={"user": logs.user_hash(USER)})
    assert lines.line["user"] == logs.user_hash(USER)
    other = Lines(logs.JsonFormatter())
    other.log.warning("odd row", extra={"user": USER})
    assert other.line["dropped"] == "user"
    assert USER not in other.text


def test_a_user_hash_tells_users_apart_and_gives_none_away() -> None:
    hashes = {logs.user_hash(f"u-{n}") for n in range(1_000)}
    assert len(hashes) == 1_000
    assert logs.user_hash(USER) == logs.user_hash(USER)
    assert all(len(one) == 10 and int(one, 16) >= 0 for one in hashes)


def test_messages_are_shown_by_size_or_class_only(lines: Lines) -> None:
    event = UserLoggedIn(event_id="e-1", user_id=USER, occurred_at=parse_instant("2026-03-01T00:00:00Z", None))
    record = ConsumerRecord("orders", 0, 7, 0, 0, USER.encode(), USER.encode(), None, 0, 0, ())
    lines.log.warning("saw %s %r %s", USER.encode(), event, [{"row": (event, bytearray(3))}, (record,)])
    assert (
        lines.line["message"]
        == "saw <13 bytes> <UserLoggedIn> [{row: [<UserLoggedIn>, <3 bytes>]}, [<ConsumerRecord>]]"
    )


def test_what_names_a_place_is_shown(lines: Lines) -> None:
    lines.log.warning("%s and %r", TopicPartition("orders", 3), None)
    assert lines.line["message"] == "[orders, 3] and None"


def test_an_exception_speaks_only_where_it_cannot_quote_data(lines: Lines) -> None:
    try:
        try:
            {}[USER]
        except KeyError as error:
            raise ValueError(f"no such user {USER}") from error
    except ValueError as error:
        lines.log.exception("crashed: %r", error)
    assert USER not in lines.text
    assert lines.line["message"] == "crashed: ValueError"
    assert [found["error"] for found in lines.line["errors"]] == ["ValueError", "KeyError"]
    assert "test_logs.py" in lines.line["errors"][0]["frames"][0]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("disk full"), "OSError: disk full"),
        (RuntimeError("the shard is closed"), "RuntimeError: the shard is closed"),
        (UnicodeDecodeError("utf-8", USER.encode(), 0, 1, "bad"), "UnicodeDecodeError"),
        (LookupError(USER), "LookupError"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_each_kind_of_exception_is_described(error: Exception, said: str) -> None:
    assert logs.describe(error) == said


def test_a_group_of_exceptions_shows_its_parts(lines: Lines) -> None:
    try:
        raise ExceptionGroup(USER, [OSError("disk full"), KeyError(USER)])
    except ExceptionGroup:
        lines.log.exception("two at once")
    assert [found["error"] for found in lines.line["errors"]] == ["ExceptionGroup", "OSError: disk full", "KeyError"]


def test_a_call_whose_arguments_do_not_fit_is_still_written(lines: Lines) -> None:
    lines.log.warning("%d of %d", *[1])
    assert lines.line["message"] == "%d of %d (its arguments do not fit)"


@pytest.mark.usefixtures("root_logging")
def test_libraries_are_heard_from_warnings_on_and_harmless_ones_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("info", "json")
    logging.getLogger("aiokafka.consumer.fetcher").info("not shown")
    logging.getLogger("faust.agents").info("not shown")
    sender = logging.getLogger("aiokafka.producer.sender")
    said = "Got error produce response on topic-partition %s, retrying. Error: %s"
    sender.warning(said, TopicPartition("t", 0), "NotEnoughReplicasError")
    sender.warning(said, TopicPartition("t", 0), "NotLeaderForPartitionError")
    group = logging.getLogger("aiokafka.consumer.group_coordinator")
    group.error("Group Coordinator Request failed: %s", GroupCoordinatorNotAvailableError())
    group.warning("Heartbeat failed for group %s because it is rebalancing", "lifecycle-triggers")
    logging.getLogger("agents.engine").info("[^-%s]: Flush producer buffer...", "Engine")
    logging.getLogger("agents.shard").info("shown")
    found = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert found == [said.replace("%s", "[t, 0]", 1).replace("%s", "NotLeaderForPartitionError"), "shown"]


@pytest.mark.usefixtures("root_logging")
def test_of_what_a_library_says_over_and_over_two_are_written_and_then_one_a_minute_that_counts_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.setup("info", "json")
    began = time.time()

    def say(name: str, seconds: float, text: str, *args: object) -> None:
        record = logging.LogRecord(name, logging.ERROR, "f.py", 1, text, args, None)
        record.created = began + seconds
        logging.getLogger(name).handle(record)

    down = "Unable connect to node with id %s: %s"
    for tenth in range(1_300):  # two minutes and ten seconds with the broker down
        say("aiokafka", tenth / 10, down, tenth % 3, "refused")
        say("aiokafka.consumer.fetcher", tenth / 10, down, 1, "refused")
        if tenth % 100 == 0:
            say("agents.shard", tenth / 10, "ours are all written")
    say("aiokafka", 1, "Something else")
    say("aiokafka", -1_000, down, 7, "after the clock jumped back")
    found = [(line["logger"], line["message"]) for line in map(json.loads, capsys.readouterr().err.splitlines())]
    assert [text for name, text in found if name == "aiokafka"] == [
        "Unable connect to node with id 0: refused",
        "Unable connect to node with id 1: refused (more like it are counted, and written once a minute)",
        "Unable connect to node with id 0: refused (and 598 like it since the last one)",
        "Unable connect to node with id 0: refused (and 599 like it since the last one)",
        "Something else",
        "Unable connect to node with id 7: after the clock jumped back (and 99 like it since the last one)",
    ]
    assert len([name for name, _ in found if name == "aiokafka.consumer.fetcher"]) == 4
    assert len([name for name, _ in found if name == "agents.shard"]) == 13


def _said(filter: logs.Repeated, name: str, text: str, *args: object, at: float, error: object = None) -> bool:
    info = (type(error), error, None) if isinstance(error, BaseException) else None
    record = logging.LogRecord(name, logging.ERROR, "f.py", 1, text, args, info)
    record.created = at
    return filter.filter(record)


def test_lines_about_another_error_are_other_lines_and_of_other_libraries_all_are_written() -> None:
    seen = logs.Repeated()
    for at in (0.0, 0.1):
        assert _said(seen, "aiokafka", "Failed: %s", KafkaConnectionError("refused"), at=at)
        assert _said(seen, "aiokafka", "Failed: %s", KafkaConnectionError("no such host"), at=at)
        assert _said(seen, "aiokafka", "Failed: %s", GroupCoordinatorNotAvailableError, at=at)
        assert _said(seen, "aiokafka", "Broken", at=at)
        assert _said(seen, "aiokafka", "Broken", at=at, error=KeyError("u-1"))
        assert _said(seen, "aiokafka", "Broken", at=at, error=MemoryError())
    assert not _said(seen, "aiokafka", "Failed: %s", KafkaConnectionError("refused"), at=1)
    assert not _said(seen, "aiokafka", "Failed: %s", GroupCoordinatorNotAvailableError, at=1)
    assert not _said(seen, "aiokafka", "Broken", at=1, error=KeyError("u-2"))
    for at in range(3):
        assert _said(seen, "faust.agents.agent", "Agent %s raised error: %r", "orders", KeyError("x"), at=at)
        assert _said(seen, "asyncio", "Task exception was never retrieved", at=at)


def test_what_is_said_again_after_a_quiet_minute_is_new_and_only_so_much_is_kept_in_mind() -> None:
    seen = logs.Repeated()
    assert [_said(seen, "aiokafka", "Slow", at=at) for at in (0, 70, 71, 72)] == [True, True, True, False]
    for number in range(2_000):
        assert _said(seen, "aiokafka", f"Connection {number} is unclosed", at=number / 100)
    assert len(seen._said) == logs.Repeated.KEPT
    assert _said(seen, "aiokafka", "Connection 0 is unclosed", at=21)  # forgotten, so it is written
    assert not [_said(seen, "aiokafka", "Connection 1999 is unclosed", at=21) for _ in range(2)][1]


def test_at_the_debug_level_libraries_still_keep_records_to_themselves() -> None:
    found = logs.config("debug", "json")
    assert found["root"]["level"] == "DEBUG"
    assert found["loggers"]["aiokafka"] == found["loggers"]["faust"] == {"level": "INFO"}


def test_auto_is_json_where_there_is_no_terminal() -> None:
    assert logs.config("info", "auto")["formatters"]["line"] == {"()": "app.logs.JsonFormatter"}
    assert logs.config("info", "text")["formatters"]["line"] == {"()": "app.logs.TextFormatter"}


PERSONAL = {"user_id", "user", "row", "event", "record", "key", "value", "message", "payload", "body"}
METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
HARMLESS = {"user_hash", "len", "type"}


def _names(node: ast.AST) -> Iterator[str]:
    """Names used in an expression, but for what is only counted, typed or hashed."""
    if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
        called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        if called in HARMLESS:
            return
    if isinstance(node, ast.Name):
        yield node.id
    if isinstance(node, ast.Attribute):
        yield node.attr
        if node.attr not in PERSONAL:  # event.type, record.offset
            return
    for child in ast.iter_child_nodes(node):
        yield from _names(child)


def test_no_log_call_in_the_code_is_handed_a_users_data() -> None:
    suspects = []
    for path in [*(ROOT / "app").rglob("*.py"), *(ROOT / "agents").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
                continue
            if ast.unparse(node.func.value).rpartition(".")[2].lower() not in ("log", "logger", "_log", "logging"):
                continue
            used = {name for arg in [*node.args, *(k.value for k in node.keywords)] for name in _names(arg)}
            if used & PERSONAL:
                suspects.append(f"{path.relative_to(ROOT)}:{node.lineno} {sorted(used & PERSONAL)}")
    assert suspects == []
