"""A file of events becomes a stream in time order whose bytes are the file's own."""

from __future__ import annotations

import gzip
from pathlib import Path

import orjson
import pytest

from app.replay.files import BadLine, EventFile, FileProblem
from app.replay.outgoing import EVERY_INPUT, Outgoing, before
from schemas.instant import parse_instant


def line(at: object, kind: str = "UserLoggedIn", **fields: object) -> bytes:
    return orjson.dumps({"event_id": f"e-{at}", "type": kind, "user_id": "u-1", "occurred_at": at, **fields})


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def read(path: Path, **options: object) -> tuple[list[Outgoing], list[BadLine], EventFile]:
    bad: list[BadLine] = []
    file = EventFile(path, report=bad.append, **options)  # type: ignore[arg-type]
    return list(file.events()), bad, file


EARLY, LATE = "2026-03-01T08:00:00+08:00", "2026-03-01T00:00:01Z"  # the second is one second later


def test_lines_are_sorted_by_time_whatever_the_offsets_and_their_bytes_are_untouched(tmp_path: Path) -> None:
    late, early = (
        line(LATE),
        b'  {"type" : "UserLoggedIn","occurred_at":"2026-03-01T08:00:00+08:00", "user_id":"\xc3\xa9"} ',
    )
    found, bad, _ = read(write(tmp_path / "a.jsonl", late, early))
    assert [event.value for event in found] == [early.strip(), late]
    assert [event.key for event in found] == ["é".encode(), b"u-1"]
    assert found[0].occurred_at == parse_instant(EARLY)
    assert bad == []


def test_lines_of_one_instant_keep_the_order_of_the_file(tmp_path: Path) -> None:
    lines = [line(EARLY, n=n) for n in range(50)]
    assert [event.value for event in read(write(tmp_path / "a.jsonl", *lines))[0]] == lines


def test_a_file_larger_than_memory_allows_is_sorted_the_same_through_temporary_files(tmp_path: Path) -> None:
    times = [1_770_000_000_000 + (n * 7919) % 1000 * 1000 for n in range(1000)]
    path = write(tmp_path / "a.jsonl", *(line(at, n=n) for n, at in enumerate(times)))
    whole, _, _ = read(path)
    in_runs, _, _ = read(path, run_bytes=5_000)
    assert in_runs == whole
    assert [event.occurred_at for event in whole] == sorted(at * 1000 for at in times)


def test_a_line_goes_to_the_topic_it_names_else_to_that_of_its_type_else_to_the_one_given(tmp_path: Path) -> None:
    segment = orjson.dumps({"type": "track", "event": "Order Completed", "userId": "u-2", "timestamp": LATE})
    path = write(tmp_path / "a.jsonl", line(EARLY, "OrderPaid"), line(EARLY, topic="browse"), segment)
    found, bad, _ = read(path, topic="orders")
    assert [(event.input, event.key) for event in found] == [("orders", b"u-1"), ("browse", b"u-1"), ("orders", b"u-2")]
    found, bad, _ = read(path)
    assert len(found) == 2
    assert [(one.number, "'track'" in one.why) for one in bad] == [(3, True)]


def test_lines_that_cannot_be_placed_are_reported_with_their_numbers_and_the_rest_is_published(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"not json", line(EARLY), b"", b"[1]", line(LATE, "Nonsense"), b'{"type": 7}')
    found, bad, _ = read(path)
    assert [event.value for event in found] == [line(EARLY)]
    assert [one.number for one in bad] == [1, 4, 5, 6]
    assert all("--topic" in one.why for one in bad)


def test_bad_lines_whose_topic_is_known_are_published_as_they_are_behind_the_line_above(tmp_path: Path) -> None:
    broken = line("yesterday", "OrderPaid")
    path = write(tmp_path / "a.jsonl", line(LATE), broken, b"{not json", line(EARLY))
    found, bad, file = read(path, topic="orders")
    assert [event.value for event in found] == [line(EARLY), line(LATE), broken, b"{not json"]
    assert found[2].occurred_at == found[1].occurred_at
    assert found[3].key is None
    assert file.undated == 2
    assert bad == []


def test_a_line_without_an_offset_is_read_in_the_assumed_zone(tmp_path: Path) -> None:
    from zoneinfo import ZoneInfo

    path = write(tmp_path / "a.jsonl", line("2026-03-01T08:00:00"))
    found, _, file = read(path, assume_zone=ZoneInfo("Asia/Shanghai"))
    assert found[0].occurred_at == parse_instant(EARLY)
    assert file.undated == 0


def test_clock_advanced_is_for_every_input_and_needs_a_time(tmp_path: Path) -> None:
    good = orjson.dumps({"type": "ClockAdvanced", "occurred_at": LATE})
    found, bad, _ = read(write(tmp_path / "a.jsonl", good, b'{"type": "ClockAdvanced"}', line(EARLY)))
    assert [event.input for event in found] == ["logins", EVERY_INPUT]
    assert [one.number for one in bad] == [2]


def test_a_line_longer_than_kafka_takes_is_reported(tmp_path: Path) -> None:
    found, bad, _ = read(write(tmp_path / "a.jsonl", line(EARLY, device="x" * 1_000_000)))
    assert found == []
    assert "1,000,000" in bad[0].why


def test_gzip_is_read_and_a_cut_off_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(line(EARLY) + b"\n" + line(LATE)))
    assert len(read(path)[0]) == 2
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileProblem, match=r"a\.jsonl\.gz cannot be read"):
        read(path)


def test_before_stops_at_the_instant_itself() -> None:
    stream = [Outgoing(at, "orders", None, None) for at in (1, 2, 3)]
    assert [event.occurred_at for event in before(stream, 3)] == [1, 2]
    assert list(before(stream, None)) == stream
