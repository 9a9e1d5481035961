"""`lifecycle rules`: what a marketer sees of the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import rulebook
from app.core.problems import CatalogueError, located
from app.explain import rule as explained
from tests.cli.shop import NUDGE, POLICY, THANKS, run, shop, words


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return shop(tmp_path)


# -- check


def test_check_says_that_all_is_well(where: Path) -> None:
    result = run("rules", "check", where)
    assert (result.exit_code, result.stdout) == (0, f"2 rules, no mistakes ({where}).\n")


def test_a_mistake_in_the_policy_is_none_in_the_rules_that_name_something_else_of_it(tmp_path: Path) -> None:
    broken = (rulebook.SHIPPED / "shop.yaml").read_text().replace("calendar: 1d", "calender: 1d")
    rule = THANKS.replace("at_once: true", "at_once: true, offer: first_order_gift").replace(
        "family: order", "famly: x"
    )
    said = run("rules", "check", shop(tmp_path, shop=broken, thanks=rule)).stdout
    assert "A cap has no 'calender'. Did you mean 'calendar'?" in said
    assert "There is no setting 'famly' here. Did you mean 'family'?" in said
    assert "no family" not in said
    assert "There is no offer 'bigger'" in said  # the other rule names an offer that this shop has not
    assert "no offer 'first_order_gift'" not in said


def test_check_without_a_directory_looks_at_the_shipped_catalogue() -> None:
    result = run("rules", "check")
    assert result.exit_code == 0, result.output
    assert str(rulebook.SHIPPED) in result.stdout


def test_check_says_every_mistake_of_every_file_with_its_line_and_a_way_out(tmp_path: Path) -> None:
    nudge = NUDGE.replace("CouponIssued", "CouponIsued").replace("priority: 50", "priority: high")
    shop(tmp_path, nudge=nudge, thanks=THANKS.replace("reentry: every_key\n", ""), shop="zone: Asia/Shangai\n")
    result = run("rules", "check", tmp_path)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = lines.index(f"{tmp_path}/nudge.yaml:5: 'CouponIsued' is no event. Did you mean 'CouponIssued'?")
    assert lines[at + 1] == '    enter: {on: CouponIsued, key: coupon, when: "coupon.value_minor >= 500"}'
    assert f"{tmp_path}/nudge.yaml:16: 'high' is no priority" in result.stdout
    assert "thanks.yaml:1: 'reentry' is missing" in result.stdout
    assert "shop.yaml:1: 'Asia/Shangai' is no time zone" in result.stdout
    assert "5 mistakes. Nothing of this catalogue would be used." in result.stderr


def test_check_shows_of_a_line_without_end_its_beginning(tmp_path: Path) -> None:
    check = f'check: "{"!" * 5000}user.has_birthday"'
    nudge = NUDGE.replace("check: \"coupon.expires_in > duration('72h')\"", check)
    result = run("rules", "check", shop(tmp_path, nudge=nudge))
    shown = [line for line in result.stdout.splitlines() if "!!!" in line]
    assert shown[1] == f"    {check[:199]}…"
    assert f"'{'!' * 99}…' is longer than 1000 characters" in shown[0]


def test_check_survives_a_directory_that_is_not_there(tmp_path: Path) -> None:
    result = run("rules", "check", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert result.stdout == f"{tmp_path / 'nowhere'}: There is no such directory.\n"


@pytest.mark.parametrize("arguments", [["list"], ["show", "nudge", "--dir"]])
def test_a_directory_that_cannot_be_one_of_rules_is_named_without_a_line(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    for name, why in (
        ("nowhere", "There is no such directory."),
        ("empty", "There is no rule in it: rules are files ending in .yaml."),
    ):
        result = run("rules", *arguments, tmp_path / name)
        assert (result.exit_code, result.stderr) == (1, f"Error: {tmp_path / name}: {why}\n")


def test_check_names_files_that_would_be_missed_or_not_found(where: Path) -> None:
    (where / "more.yml").write_text(THANKS.replace("rule: thanks", "rule: more"))
    (where / "Nudge.YAML").write_text(NUDGE)
    (where / "nudge.yaml.txt").write_text(NUDGE)
    (where / "thanks.yaml").rename(where / "thank_you.yaml")
    (where / ".hidden.yml").write_text("")
    result = run("rules", "check", where)
    assert result.exit_code == 1
    called = "The rule of this file is called 'thanks'"
    only = "Only files ending in .yaml are read: rename it to"
    heads = [line.removeprefix(f"{where}/") for line in result.stdout.splitlines() if line[0] != " "]
    assert heads == [
        f"thank_you.yaml:1: {called}: rename the file to thanks.yaml, or write rule: thank_you.",
        f"Nudge.YAML:1: {only} Nudge.yaml.",
        f"more.yml:1: {only} more.yaml.",
        f"nudge.yaml.txt:1: {only} nudge.yaml (there is one already: keep one of them).",
    ]
    with pytest.raises(CatalogueError, match=r"more\.yml"):
        rulebook.load(where)


def test_a_directory_whose_only_rule_is_called_otherwise_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "nudge.yml").write_text(NUDGE)
    said = run("rules", "check", tmp_path).stdout
    assert "There is no rule in it: rules are files ending in .yaml." in said
    assert "nudge.yml:1: Only files ending in .yaml are read: rename it to nudge.yaml." in said


def test_a_file_that_is_no_text_is_a_mistake_beside_the_others(where: Path) -> None:
    (where / "nudge.yaml").write_bytes(NUDGE.encode().replace(b"a nudge", b"ein sch\xf6ner Hinweis"))
    (where / "thanks.yaml").write_text(THANKS.replace("family: order", "family: ordr"))
    (where / "broken.yaml").mkdir()
    said = run("rules", "check", where).stdout
    assert f"{where}/nudge.yaml:4: This is not UTF-8: save the file in that encoding." in said
    assert f"{where}/thanks.yaml:3: 'ordr' is no family." in said
    assert "2 mistakes" in run("rules", "check", where).stderr


def test_what_is_no_mistake_but_may_not_be_meant_is_said_beside_the_answer(where: Path) -> None:
    (where / "shop.yaml").unlink()
    (where / "nudge.yaml").write_text(NUDGE.replace("bigger", "winback_large"))
    (where / "old").mkdir()
    (where / "old" / "nudge.yaml").write_text(NUDGE)
    (where / "nudge.yaml~").write_text(NUDGE)
    (where / "notes.txt").write_text("No rules: here.\n")
    shipped = f"what is shipped holds instead. To change it, copy it from {rulebook.SHIPPED}."
    for command in ("check", "list"):
        result = run("rules", command, where)
        assert result.exit_code == 0
        assert result.stderr.splitlines() == [
            f"There is no shop.yaml and no intervals.yaml in {where}: {shipped}",
            f"Not read: nudge.yaml~, old/nudge.yaml. Rules are the files of {where} itself in .yaml.",
        ]
    assert run("rules", "check").stderr == ""


def test_a_policy_file_that_is_empty_is_the_directorys_own(where: Path) -> None:
    (where / "intervals.yaml").write_text("")
    assert rulebook.load(where).policy.intervals == {}
    assert run("rules", "check", where).stderr == ""


def test_a_shop_that_cannot_be_read_is_one_mistake_and_not_one_in_each_rule(tmp_path: Path) -> None:
    said = run("rules", "check", shop(tmp_path, shop="zone: [\n")).stdout
    assert [line.partition(": ")[0] for line in said.splitlines() if line[0] != " "] == [f"{tmp_path}/shop.yaml:1"]


def test_check_knows_the_rules_that_the_calendar_may_name(tmp_path: Path) -> None:
    times = "from: 2026-06-18T00:00:00+08:00, until: 2026-06-19T00:00:00+08:00"
    shop(tmp_path, shop=f"{POLICY}calendar: [{{name: sale, {times}, mute: [nudg]}}]\n")
    said = run("rules", "check", tmp_path).stdout
    assert "shop.yaml:7: The calendar names a rule 'nudg'. There is none. Did you mean 'nudge'?" in said


# -- list


def test_list_is_a_table_of_the_rules(where: Path) -> None:
    result = run("rules", "list", where)
    assert result.exit_code == 0
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["rule", "action", "enters", "fires", "ends", "about"]
    assert [row.split()[0] for row in rows if row[0] != " "] == ["nudge", "thanks"]
    assert all(len(row) <= 120 for row in rows)
    thanks = next(row for row in rows if row.startswith("thanks"))
    assert words(thanks) == "thanks grant, shadow OrderPaid (each order) at once - A gift for every paid"
    assert words(rows[-1]) == "order."


def test_every_shipped_rule_can_be_listed_and_shown_whole() -> None:
    listed = run("rules", "list").stdout
    for name in rulebook.load().rules:
        assert f"\n{name}" in listed
        shown = run("rules", "show", name)
        assert shown.exit_code == 0, shown.output
        assert ("the run is over" in shown.stdout) is ("every year" not in words(shown.stdout))
        assert "None" not in shown.stdout
        assert max(map(len, shown.stdout.splitlines())) <= 120


# -- show


def test_show_is_a_paragraph_and_a_drawn_timeline(where: Path) -> None:
    result = run("rules", "show", "nudge", "--dir", where)
    said = words(result.stdout)
    for part in (
        "nudge, version 3 (family coupon, live)",
        "A coupon that has not been used for a week is worth a nudge. It is entered when a coupon is issued",
        "(CouponIssued), if the coupon's value in cents is at least 500.",
        "Each coupon has a run of its own, and no coupon enters twice.",
        "It ends at once when that coupon is redeemed (CouponRedeemed), when that coupon is revoked (CouponRevoked) or",
        "When the order that issued the coupon, if one did, is cancelled, or refunded as a whole, it ends",
        "It stands still when that coupon is locked by an unpaid order (CouponLocked), until that coupon is usable",
        "(CouponReturned), or the lock lapses; what came due meanwhile is due then.",
        "step 1: at the coupon's first valid moment plus the shorter of 7 days and half of the coupon's validity;",
        "step 2: 10 days after step 1 was due, with the offer 'bigger'.",
        "it asks once more whether the time left until the coupon expires is more than 72 hours.",
        "a marketing contact by push, else sms; it may be sent for 36 hours. Its priority is 50: of marketing",
        "It is marked 'buy_again', so that a later message with that mark can replace it.",
        'The reason that goes with it: "Coupon {coupon.id} has not been used for {waited}."',
        "coupon.expires_in: time left until it expires",
    ):
        assert part in said
    marks = [line[2] for line in result.stdout.splitlines() if line.startswith("  ") and line[3:5] == "  "]
    assert [mark for mark in marks if mark in "●12■✕◌"] == ["●", "1", "2", "■", "✕", "✕", "✕", "✕", "◌"]


def test_show_says_that_a_shadow_grant_speaks_to_nobody(where: Path) -> None:
    said = words(run("rules", "show", "thanks", "--dir", where).stdout)
    assert "(family order, shadow)" in said
    assert "What goes out is a grant, for the service that carries it out within 1 hour; no contact is made" in said
    assert "Nothing ends it before its last step but this: when that order is cancelled" in said


def test_show_tells_of_the_rate_and_where_the_rule_comes_from(tmp_path: Path) -> None:
    rated = (
        THANKS.replace("expires_after: 1h", "expires_after: 1h, max_rate: 1000 per 1h") + "source: common practice\n"
    )
    said = words(run("rules", "show", "thanks", "--dir", shop(tmp_path, thanks=rated)).stdout)
    assert (
        "The whole shop sends at most 1,000 within 1 hour, or one from each partition where there are more of" in said
    )
    assert "; what is more waits for its turn while it is worth sending." in said
    assert "The rule comes from: common practice." in said
    dropping = rated.replace("1000 per 1h", "1 per 3d, on_cap: drop")
    said = words(run("rules", "show", "thanks", "--dir", shop(tmp_path, thanks=dropping)).stdout)
    assert (
        "at most 1 within 3 days, or one from each partition where there are more of those; what is more is dropped."
        in said
    )


def test_show_says_what_is_done_sparingly() -> None:
    said = words(run("rules", "show", "winback").stdout)
    assert "Within 180 days only one run of a user, of this and of all other rules with such a bound, brings a" in said
    assert "A coupon that the user could use now is named in place of the offer." in said
    once = "Within 7 days only one of a user's runs may write, with all its steps; what others would say is dropped."
    assert once in words(run("rules", "show", "cart_abandoned").stdout)


def test_show_suggests_the_rule_that_was_meant(where: Path) -> None:
    result = run("rules", "show", "nugde", "--dir", where)
    assert result.exit_code == 1
    hint = "Did you mean nudge? Rules of another directory: --dir DIR. One that is published: --published."
    assert f"There is no rule 'nugde' in {where}. {hint}" in result.stderr


def test_show_says_that_it_looked_into_the_shipped_catalogue(where: Path) -> None:
    result = run("rules", "show", "thanks")
    assert result.exit_code == 1
    assert f"There is no rule 'thanks' in {rulebook.SHIPPED}. There are: activation_nudge," in result.stderr
    assert "winback. Rules of another directory: --dir DIR. One that is published: --published." in result.stderr
    assert run("rules", "show", "thanks", "--dir", where).exit_code == 0


def test_show_looks_at_one_place() -> None:
    result = run("rules", "show", "winback", "--published", "--dir", rulebook.SHIPPED)
    assert (result.exit_code, "Name a directory, or say --published: not both." in result.stderr) == (2, True)


def test_a_broken_catalogue_is_not_explained(tmp_path: Path) -> None:
    shop(tmp_path, nudge="rule: [")
    for arguments in (["list", tmp_path], ["show", "nudge", "--dir", tmp_path]):
        result = run("rules", *arguments)
        assert result.exit_code == 1
        assert "lifecycle rules check" in result.stderr


def data(text: str) -> explained.Data:
    return located(text, "rule.yaml", [])[0]


def test_settings_without_words_are_shown_as_they_stand() -> None:
    text = NUDGE.replace("priority: 50", "priority: 50\n  on_trial: {next: [sms]}") + "quota: 5 %\n"
    said = explained.paragraph(data(text))
    assert "Also set: quota: 5 %" in said
    assert "Also set: send.on_trial: {next: [sms]}" in said


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("reentry: once", "but a user enters only once in all."),
        ("reentry: every_purchase", "and of an order that the shop split, one part enters for all."),
        ("reentry: after_exit", "and may enter again once that is over."),
        ("reentry: {cooldown: 30d}", "and a user enters again 30 days after the last entry at the earliest."),
        ("goal: {on: CouponRedeemed, within: 7d}", "It has worked when a coupon is redeemed (CouponRedeemed) within 7"),
        ("start: none", "What happened before the rule was switched on starts nothing."),
        ("start: {since: 2026-01-01}", "Nothing that was due before 2026-01-01 is sent."),
        (
            "enter: {on: UserRegistered, as_of: first_order}",
            "when a user registers (UserRegistered), as of the first order, which was heard of before",
        ),
        (
            "ends: [{on: OrderPaid, whenever: true, when: user.bought_before}]",
            "if there was a purchase before the entry (whenever it is heard of: what went out is taken back)",
        ),
        ("retime_on: [OrderReceived]", "anew when the order that it was entered by is received (OrderReceived)."),
    ],
)
def test_each_setting_has_its_sentence(setting: str, sentence: str) -> None:
    name = setting.partition(":")[0]
    text = "".join(line for line in NUDGE.splitlines(True) if not line.startswith(name))
    assert sentence in words(" ".join(explained.paragraph(data(f"{text}{setting}\n"))))
