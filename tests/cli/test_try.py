"""`lifecycle rules try`: a rule runs on a file of events, and a person reads what came of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.shop import THANKS, coupon, event, file_of, run, shop, words


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
    assert "no entry its condition does not hold (when)" in alone
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


@pytest.mark.parametrize("until", ["2026-01-01T00:00:00Z", "2026-03-01T08:15:30+08:00"])
def test_an_end_before_the_first_event_is_said_to_be_one(where: Path, tmp_path: Path, until: str) -> None:
    file = file_of(tmp_path / "e.jsonl", coupon("u-1", "c-4", "2026-03-01T08:15:30+08:00"))
    result = run("rules", "try", "nudge", file, "--dir", where, "--until", until)
    assert result.exit_code == 2
    assert "--until: it is not after the first event, which is of 2026-03-01T08:15:30+08:00." in words(result.stderr)
    assert "not usable" not in result.output
    nobody = run("rules", "try", "nudge", file, "--dir", where, "--until", until, "--user", "u-2")
    assert "There is no event of u-2" in nobody.stderr
    assert "not usable" not in nobody.output


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


# -- what is entered, and what is not


def refused(rule: str, path: Path, *events: dict[str, object]) -> list[str]:
    """What is said of the entries that were none, of a shipped rule or of one in the directory of the path."""
    where = ("--dir", path / "rules") if (path / "rules").exists() else ()
    result = run("rules", "try", rule, file_of(path / "e.jsonl", *events), *where)
    assert result.exit_code == 0, result.output
    whole = re.sub(r"\n {34}", "", result.stdout)
    return [words(line[34:]) for line in whole.splitlines() if line[23:34].strip() == "no entry"]


def registered(at: str) -> dict[str, object]:
    return event("UserRegistered", "u-1", f"2026-03-{at}+08:00")


def paid(order: str, at: str, *types: str) -> dict[str, object]:
    lines = [{"product_id": f"p-{name}", "category": "baby", "product_type": name, "quantity": 1} for name in types]
    fields = {"order_id": order, "total": "9.00", "currency": "CNY", "lines": lines}
    return event("OrderPaid", "u-1", f"2026-03-{at}+08:00", **fields)


def test_what_goes_out_as_it_is_entered_has_its_step_then(tmp_path: Path) -> None:
    file = file_of(tmp_path / "e.jsonl", registered("01T08:00:00"))
    said = words(run("rules", "try", "welcome_pack", file).stdout)
    assert "entered welcome_pack: its step is due at once 2026-03-01 08:00:00 granted welcome_pack, step 1:" in said
    assert "no step" not in said


def test_of_several_steps_the_one_that_is_due_at_once_is_told_with_the_next(where: Path, tmp_path: Path) -> None:
    (where / "thanks.yaml").write_text(THANKS.replace("[{at_once: true}]", "[{at_once: true}, {after: 1d}]"))
    file = file_of(tmp_path / "e.jsonl", paid("o-1", "02T08:00:00", "tea"))
    said = words(run("rules", "try", "thanks", file, "--dir", where).stdout)
    assert "entered thanks (order o-1): step 1 is due at once, step 2 is due 2026-03-03 08:00:00" in said


def test_what_is_heard_of_too_late_has_no_step_to_come(tmp_path: Path) -> None:
    soon = event("CouponIssued", "u-1", "2026-03-01T08:00:00Z", coupon_id="c-1", expires_at="2026-03-01T18:00:00Z")
    said = words(run("rules", "try", "coupon_expiring", file_of(tmp_path / "e.jsonl", soon)).stdout)
    assert "entered and over at once: nothing of it is still to come" in said
    assert "0 triggers" in said


def test_an_entry_that_is_refused_says_whether_the_condition_did_or_re_entry(tmp_path: Path) -> None:
    first, second, third = (
        paid("o-1", "02T08:00:00", "tea"),
        paid("o-2", "03T08:00:00", "tea"),
        paid("o-3", "04T08:00:00"),
    )
    again = "re-entry refuses it: a user enters only once (reentry: once)"
    no_order = "there is no order yet that it could be entered by (as_of: first_order)"
    assert refused("first_order_gift", tmp_path, registered("01T08:00:00"), first, second) == [
        no_order, f"its condition does not hold (when); and {again}",
    ]  # fmt: skip
    assert refused("repurchase_coupon", tmp_path, first, third) == ["its condition does not hold (when)"]
    assert refused("replenishment", tmp_path, third) == ["it has no line of its own"]
    assert refused("replenishment", tmp_path, paid("o-1", "02T08:00:00", "unheard_of", "nameless")) == [
        "product type unheard_of and nameless: its condition does not hold (when)"
    ]


MILK, SOAP = "product type milk", "product type soap"
TWICE = "re-entry refuses it: no product type enters twice (reentry: every_key)"
WHEN = "its condition does not hold (when)"
ALIVE = "re-entry refuses it: a run is there that is not over (reentry: after_exit)"
ONCE = "re-entry refuses it: a user enters only once (reentry: once)"
SOON = "re-entry refuses it: the last entry was not long enough ago, or its run is not over (reentry: cooldown)"


def of_lines(where: Path, reentry: str, step: str = "after: 30d") -> None:
    """`thanks`, entered by each product type of which two pieces are bought at once."""
    entry = '{on: OrderPaid, each: line, key: product_type, when: "line.units >= 2"}'
    (where / "thanks.yaml").write_text(
        THANKS.replace("{on: OrderPaid, key: order}", entry)
        .replace("reentry: every_key", f"reentry: {reentry}")
        .replace("at_once: true", step)
    )


@pytest.mark.parametrize(
    ("reentry", "step", "with_soap", "soap_alone", "with_oil"),
    [
        ("every_key", "after: 30d", [f"{MILK}: {TWICE}", f"{SOAP}: {WHEN}"], [WHEN], [f"{MILK}: {TWICE}"]),
        ("every_key", "at_once: true", [f"{MILK}: {TWICE}", f"{SOAP}: {WHEN}"], [WHEN], [f"{MILK}: {TWICE}"]),
        ("after_exit", "after: 30d", [f"{MILK}: {ALIVE}", f"{SOAP}: {WHEN}"], [WHEN], [f"{MILK}: {ALIVE}"]),
        ("after_exit", "at_once: true", [f"{SOAP}: {WHEN}"], [WHEN], []),
        (
            "once", "after: 30d",
            [f"{MILK}: {ONCE}", f"{SOAP}: {WHEN}; and {ONCE}"], [f"{WHEN}; and {ONCE}"], [f"{MILK} and oil: {ONCE}"],
        ),
        (
            "{cooldown: 10d}", "at_once: true",
            [f"{MILK}: {SOON}", f"{SOAP}: {WHEN}"], [WHEN], [f"{MILK} and oil: {SOON}"],
        ),
    ],
)  # fmt: skip
def test_what_refused_each_thing_is_said_of_that_one_though_another_entered_beside_it(
    where: Path,
    tmp_path: Path,
    reentry: str,
    step: str,
    with_soap: list[str],
    soap_alone: list[str],
    with_oil: list[str],
) -> None:
    of_lines(where, reentry, step)

    def bought(day: int, **types: int) -> dict[str, object]:
        lines = [{"product_id": name, "product_type": name, "quantity": units} for name, units in types.items()]
        return {**paid(f"o-{day}", f"0{day}T10:00:00"), "lines": lines}

    first, second = bought(1, milk=2), bought(5, milk=2, soap=1)
    assert refused("thanks", tmp_path, first) == []
    assert refused("thanks", tmp_path, first, second) == with_soap
    assert refused("thanks", tmp_path, first, bought(6, soap=1)) == soap_alone
    assert refused("thanks", tmp_path, first, bought(7, milk=2, oil=2)) == with_oil


@pytest.mark.parametrize("reentry", ["once", "{cooldown: 10d}"])
def test_what_entered_by_the_same_event_keeps_the_others_out(where: Path, tmp_path: Path, reentry: str) -> None:
    of_lines(where, reentry)
    lines = [{"product_id": name, "product_type": name, "quantity": 2} for name in ("milk", "soap", "oil")]
    (said,) = refused("thanks", tmp_path, {**paid("o-1", "01T10:00:00"), "lines": lines})
    assert said.startswith("product type soap and oil: re-entry refuses it: ")


def test_a_part_of_a_purchase_that_has_entered_enters_no_second_time(where: Path, tmp_path: Path) -> None:
    (where / "thanks.yaml").write_text(THANKS.replace("every_key", "every_purchase"))
    one, other = ({**paid(f"o-{n}", f"0{n}T08:00:00", "tea"), "parent_order_id": "o-0"} for n in (1, 2))
    assert refused("thanks", tmp_path, one, other) == [
        "re-entry refuses it: a purchase enters only once, whichever of its parts is paid (reentry: every_purchase)"
    ]


def test_a_checkout_without_a_name_waits_for_the_one_before_it(where: Path, tmp_path: Path) -> None:
    (where / "thanks.yaml").write_text(
        THANKS.replace("OrderPaid", "CheckoutStarted").replace("at_once: true", "after: 9d")
    )
    lines = [{"product_id": "p-1", "quantity": 1}]
    started = (event("CheckoutStarted", "u-1", f"2026-03-0{day}T08:00:00Z", lines=lines) for day in (1, 2))
    assert refused("thanks", tmp_path, *started) == [
        "re-entry refuses it: a run is there that is not over (reentry: every_key)"
    ]


def test_what_was_known_enters_nothing_and_is_called_so(tmp_path: Path) -> None:
    assert refused("welcome_pack", tmp_path, registered("01T08:00:00"), registered("01T09:00:00")) == [
        "it says nothing that was not known"
    ]


def test_a_coupon_joins_the_run_of_its_pack_and_enters_no_second_time(tmp_path: Path) -> None:
    def issued(coupon_id: str, at: str) -> dict[str, object]:
        return event("CouponIssued", "u-1", f"2026-{at}T12:00:00+08:00", coupon_id=coupon_id, pack_id="p-1",
                     expires_at="2026-04-01T08:00:00Z")  # fmt: skip

    coupons = issued("c-1", "03-01"), issued("c-2", "03-02"), issued("c-3", "06-01")
    assert refused("coupon_unused", tmp_path, *coupons) == [
        "its coupon joins the run of its pack", "re-entry refuses it: no pack enters twice (reentry: every_key)",
    ]  # fmt: skip


def test_what_an_entry_is_counted_from_may_not_be_known(tmp_path: Path) -> None:
    old = event("CustomerBaseline", "u-1", "2026-03-01T08:00:00Z", orders=0, registered_at="2026-01-01T08:00:00Z")
    assert refused("winback", tmp_path, old) == ["what its entry is counted from is not known (at)"]


def test_what_was_taken_back_before_it_was_heard_of_is_no_entry(tmp_path: Path) -> None:
    gone = event("OrderCancelled", "u-1", "2026-03-02T09:00:00+08:00", order_id="o-1")
    placed = {**paid("o-1", "03T08:00:00", "tea"), "type": "OrderPlaced"}
    assert refused("checkout_reminder", tmp_path, gone, placed) == ["its order had been taken back before"]


def test_a_run_that_is_not_over_lets_no_other_in(where: Path, tmp_path: Path) -> None:
    (where / "nudge.yaml").write_text(
        THANKS.replace("rule: thanks", "rule: nudge").replace("key: order", "key: user").replace(
            "[{at_once: true}]", "[{after: 9d}]"
        ).replace("reentry: every_key", "reentry: after_exit")
    )  # fmt: skip
    assert refused("nudge", tmp_path, paid("o-1", "02T08:00:00"), paid("o-2", "03T08:00:00")) == [
        "re-entry refuses it: a run is there that is not over (reentry: after_exit)"
    ]


def test_what_names_no_thing_of_the_rules_kind_is_no_entry(where: Path, tmp_path: Path) -> None:
    (where / "thanks.yaml").write_text(THANKS.replace("OrderPaid, key: order", "ProductViewed, key: product_type"))
    looked = event("ProductViewed", "u-1", "2026-03-02T09:00:00+08:00", product_id="p-1")
    assert refused("thanks", tmp_path, looked) == ["it names no product type"]
