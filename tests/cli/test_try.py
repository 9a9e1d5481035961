"""`lifecycle rules try`: a rule runs on a file of events, and a person reads what came of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shop import coupon, event, file_of, run, shop, words


@pytest.fixture
def where(tmp_path: Path) -> Path:
    (tmp_path / "rules").mkdir()
    return shop(tmp_path / "rules")


def entries(text: str) -> list[str]:
    """Time and word of each entry of the timelines."""
    return [words(line[:34]) for line in text.splitlines() if line.startswith("  20")]


def test_the_timeline_tells_what_happened_entered_was_held_was_sent_and_ended(where: Path, tmp_path: Path) -> None:
    file = file_of(
        tmp_path / "e.jsonl",
        coupon("u-1", "c-4", "2026-03-01T08:15:30+08:00"),
        event("CouponRedeemed", "u-1", "2026-03-10T10:00:00+08:00", coupon_id="c-4"),
    )
    result = run("rules", "try", "nudge", file, "--dir", where)
    assert result.exit_code == 0, result.output
    assert [entry.split(" ", 2)[::2] for entry in entries(result.stdout)] == [
        ["2026-03-01", "happened"],
        ["2026-03-01", "entered"],
        ["2026-03-08", "held"],
        ["2026-03-08", "sent"],
        ["2026-03-10", "happened"],
        ["2026-03-10", "ended"],
    ]
    said = words(result.stdout)
    assert "u-1 (times in Asia/Shanghai)" in said
    assert "entered nudge (coupon c-4): step 1 is due 2026-03-08 08:15:30" in said
    assert "nudge, step 1 (coupon c-4), by quiet hours: It is night where the user is" in said
    assert "nudge, step 1 (coupon c-4) by push, else sms: Coupon c-4 has not been used for 7 days." in said
    assert "ended nudge (coupon c-4), by CouponRedeemed" in said
    assert result.stdout.splitlines()[-1] == "nudge: 2 events of 1 user, 1 concerned, 1 trigger."
    assert "still to come" not in said


def test_the_other_rules_are_off(where: Path, tmp_path: Path) -> None:
    paid = event("OrderPaid", "u-1", "2026-03-01T12:00:00+08:00", order_id="o-1", total="5.00", currency="CNY", lines=[
        {"product_id": "p-1", "product_type": "milk_powder", "quantity": 2},
        {"product_id": "p-2", "product_type": "milk_powder", "quantity": 1},
        {"product_id": "p-3", "product_type": "toys", "quantity": 1, "gift": True},
    ])  # fmt: skip
    file = file_of(tmp_path / "e.jsonl", coupon("u-1", "c-4", "2026-03-01T08:15:30+08:00"), paid)
    result = run("rules", "try", "thanks", file, "--dir", where)
    said = words(result.stdout)
    assert "nudge" not in said
    assert "OrderPaid: order o-1, total 5.00 CNY, lines 3 x milk_powder + 1 x gift toys" in said
    assert "shadow thanks, step 1 (order o-1): Thank you." in said


def test_what_does_not_enter_is_said_to_be_so_and_what_waits_goes_on(where: Path, tmp_path: Path) -> None:
    file = file_of(
        tmp_path / "e.jsonl",
        coupon("u-1", "c-small", "2026-03-01T08:00:00+08:00", value="1.00"),
        coupon("u-2", "c-4", "2026-03-01T10:00:00+08:00"),
        event("CouponLocked", "u-2", "2026-03-02T10:00:00+08:00", coupon_id="c-4"),
        event("CouponReturned", "u-2", "2026-03-20T10:00:00+08:00", coupon_id="c-4"),
        event("CouponReturned", "u-2", "2026-03-20T10:00:00+08:00", coupon_id="c-4"),
    )
    result = run("rules", "try", "nudge", file, "--dir", where, "--until", "2026-03-21T00:00:00+08:00")
    said = words(result.stdout)
    assert "waits nudge (coupon c-4), because of CouponLocked" in said
    assert "goes on nudge (coupon c-4), because of CouponReturned: step 1 is due 2026-03-20 10:00:00" in said
    assert "(published before: it changes nothing)" in said
    assert "still to come after 2026-03-21 00:00:00: nudge, step 2 (coupon c-4): due 2026-03-30 10:00:00" in said
    assert "2 users, 1 concerned" in said
    assert "c-small" not in said  # only who is concerned is shown
    alone = words(run("rules", "try", "nudge", file, "--dir", where, "--user", "u-1").stdout)
    assert "no entry its condition does not hold, or it may not enter again" in alone
    assert "1 user, 0 concerned, 0 triggers" in alone


def test_an_end_that_came_first_is_told(where: Path, tmp_path: Path) -> None:
    file = file_of(
        tmp_path / "e.jsonl",
        event("CouponRedeemed", "u-1", "2026-03-01T08:00:00+08:00", coupon_id="c-4"),
        coupon("u-1", "c-4", "2026-03-01T09:00:00+08:00"),
    )
    said = words(run("rules", "try", "nudge", file, "--dir", where).stdout)
    assert "nudge (coupon c-4), but CouponRedeemed had ended it before" in said
    assert "0 triggers" in said


def test_only_so_many_users_are_shown_and_the_rest_is_counted(where: Path, tmp_path: Path) -> None:
    file = file_of(tmp_path / "e.jsonl", *(coupon(f"u-{n}", f"c-{n}", "2026-03-01T08:15:30+08:00") for n in range(5)))
    out = run("rules", "try", "nudge", file, "--dir", where, "--users", "2").stdout
    assert out.count("(times in Asia/Shanghai)") == 2
    assert "5 concerned, 10 triggers; 3 more are not shown (--users)." in out


def test_lines_that_are_no_events_are_named_and_what_is_not_usable_has_its_reason(where: Path, tmp_path: Path) -> None:
    file = file_of(tmp_path / "e.jsonl", coupon("u-1", "c-4", "2026-03-01T08:15:30+08:00", value="many"))
    with file.open("ab") as end:
        end.write(b"nonsense\n")
    result = run("rules", "try", "nudge", file, "--dir", where)
    assert f"{file}, line 2: left out. It is not a JSON object" in result.stderr
    assert "not usable (bad_value, value): `value`" in result.stdout


def test_a_file_without_an_event_is_not_about_the_time(where: Path, tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    file.write_text('{"event_id": "e-1",\n "type": "CouponIssued"}\n')
    result = run("rules", "try", "nudge", file, "--dir", where)
    assert f"{file}, line 1: left out. It is not a JSON object: write each event on one line." in result.stderr
    assert "bad_time" not in result.stdout
    assert "nudge: 0 events of 0 users" in result.stdout
    assert result.exit_code == 1
    assert f"There is no event in {file} that can be used, so nothing was tried." in result.stderr


def test_a_file_without_a_usable_event_of_the_user_is_said_to_have_none(where: Path, tmp_path: Path) -> None:
    file = file_of(
        tmp_path / "e.jsonl",
        coupon("u-1", "c-4", "2026-03-01T08:15:30+08:00"),
        coupon("u-2", "c-5", "2026-03-01T08:15:30+08:00", value="many"),
    )
    assert run("rules", "try", "nudge", file, "--dir", where).exit_code == 0
    for user in ("u-2", "u-3"):
        result = run("rules", "try", "nudge", file, "--dir", where, "--user", user)
        assert result.exit_code == 1
        assert f"There is no event of {user} in {file} that can be used" in result.stderr


def test_text_of_others_cannot_write_to_the_terminal(where: Path, tmp_path: Path) -> None:
    file = file_of(tmp_path / "e.jsonl", coupon("u-1", "c-\x1b[31m", "2026-03-01T08:15:30+08:00"))
    out = run("rules", "try", "nudge", file, "--dir", where).stdout
    assert "c-?[31m" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nugde", "e.jsonl"], "rules. Did you mean nudge? Rules of another directory: --dir DIR."),
        (["nudge", "nowhere.jsonl"], "There is no file nowhere.jsonl."),
        (["nudge", "nowhere.jsonl", "--until", "soon"], "--until"),
    ],
)
def test_what_cannot_be_tried_is_a_sentence(where: Path, arguments: list[str], sentence: str) -> None:
    result = run("rules", "try", *arguments, "--dir", where)
    assert result.exit_code != 0
    assert sentence in result.stderr


def test_a_user_is_told_in_their_own_zone(where: Path, tmp_path: Path) -> None:
    moved = event("ProfileUpdated", "u-1", "2026-03-01T00:00:00Z", time_zone="America/New_York")
    file = file_of(tmp_path / "e.jsonl", moved, coupon("u-1", "c-4", "2026-03-01T05:00:00Z"))
    said = words(run("rules", "try", "nudge", file, "--dir", where).stdout)
    assert "u-1 (times in America/New_York)" in said
    assert "2026-03-01 00:00:00 entered nudge (coupon c-4): step 1 is due 2026-03-08 00:00:00" in said
