"""YAML that people write: values with their lines, and no traceback for whatever it is."""

from __future__ import annotations

import pytest

from app.core.problems import CatalogueError, Problem, located, shown, suggestion


def read(text: str) -> tuple[dict, dict, list[str]]:
    problems: list[Problem] = []
    data, lines = located(text, "a.yaml", problems)
    return data, lines, [str(problem) for problem in problems]


def test_every_value_has_the_line_of_its_name() -> None:
    data, lines, problems = read("a: 1\nb:\n  c: [x,\n    y]\n  d: {e: 2}\n")
    assert data == {"a": 1, "b": {"c": ["x", "y"], "d": {"e": 2}}}
    assert lines == {(): 1, ("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", 0): 3, ("b", "c", 1): 4} | {
        ("b", "d"): 5,
        ("b", "d", "e"): 5,
    }
    assert problems == []


def test_values_have_the_types_of_yaml() -> None:
    data, _, _ = read("a: 1\nb: 1.5\nc: yes\nd:\ne: '1'\nf: 2026-03-01\n")
    assert [type(value).__name__ for value in data.values()] == ["int", "float", "bool", "NoneType", "str", "date"]


def test_what_is_a_number_to_yaml_alone_is_a_text() -> None:
    data, _, _ = read("a: 1:30\nb: 1:30.5\nc: 017\nd: -08\ne: 0.5\nf: -7\ng: 0\nh: '1:30'\n")
    assert list(data.values()) == ["1:30", "1:30.5", "017", "-08", 0.5, -7, 0, "1:30"]


def test_a_file_may_be_as_long_and_as_deep_as_any_is() -> None:
    assert len(read("a: " + "x" * (250_000 - 3))[0]["a"]) == 250_000 - 3
    assert read("a: " + "[" * 19 + "]" * 19)[2] == []
    assert read("a: \U0001f600\nb: '\U0001f600'\n")[2] == []


def test_an_empty_file_is_empty() -> None:
    assert read("") == ({}, {}, [])
    assert read("# nothing\n") == ({}, {}, [])


QUOTES = "A text with a colon, #, a brace or the like in it stands in quotes as a whole."
INDENTED = "This line is not indented as those that it belongs with, or a '- ' is missing before a list's entry."
BRACKET = "A bracket that opens here is not closed, or a comma or quotes are missing in it."
BACKSLASH = "After a backslash in double quotes only some letters may come. Use single quotes."
ANOTHER_KIND = "There is a space or a colon of another kind here, as word processors make. Type it anew."
ELSEWHERE = "A text that begins with such a sign stands in quotes as a whole. Nothing points elsewhere: write it out."
DEEP = "Brackets or lines are nested here deeper than any rule is. Take some out."
HALF = "Half a character is written here, such as \\ud83d. Write the character itself."
COMMA = "A comma separates what is between braces. Write a decimal number with a point, or put it in quotes."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1\nb: 2\n", f"a.yaml:1: {BRACKET}"),
        ("a: {b: 1, c: 2\nd: 1\n", f"a.yaml:1: {BRACKET}"),
        ("a: 1\nb: [\n", "a.yaml:2: A bracket that opens here is not closed."),
        ("a: 1\nb: {c: 1,\nd: 1\n", "a.yaml:2: A bracket that opens here is not closed."),
        ("a: 'x\nb: 1\n", "a.yaml:1: The quote that opens here is not closed."),
        ('a: "a\\qb"\n', f"a.yaml:1: {BACKSLASH}"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2: A file holds one rule: put what follows into another."),
        ("a: 1\n...\nb: 2\n", "a.yaml:3: A file holds one rule: put what follows into another."),
        ("  a: 1\nb: 2\n", f"a.yaml:2: {INDENTED}"),
        ("a: 1\nb: \x01", "a.yaml:2: There is a character here that cannot be seen. Take it out."),
        ("a:\n\tb: 1", "a.yaml:2: There is a tab here. Indent with spaces."),
        ("a: 5\nb: %x", "a.yaml:2: A text that begins with such a sign stands in quotes as a whole."),
        ("a: @x", "a.yaml:1: A text that begins with such a sign stands in quotes as a whole."),
        ("a: *x b", f"a.yaml:1: {ELSEWHERE}"),
        ("a: &x b", f"a.yaml:1: {ELSEWHERE}"),
        ("b: 1\na: &x {b: *x}", f"a.yaml:2: {ELSEWHERE}"),
        ("a:\n  - &x [1]\n  - *x", f"a.yaml:2: {ELSEWHERE}"),
        ("b: 1\na: " + "[" * 5000 + "]" * 5000, f"a.yaml:2: {DEEP}"),
        ("".join(f"{' ' * n}a:\n" for n in range(600)), f"a.yaml:20: {DEEP}"),
        ("a: 1\n? [a, b]\n: c\n", "a.yaml:2: Before a colon stands a name, and no list or mapping."),
        ('b: 1\na: ["\\ud800"]\n', f"a.yaml:2: {HALF}"),
        ('b: 1\n"\\ud83d\\ude00": 1\n', f"a.yaml:2: {HALF}"),
        ("a: " + "x" * 250_000, "a.yaml:1: This file has more than 250000 characters. No rule has."),
        ("a: x: y\n", f"a.yaml:1: {QUOTES}"),
        ("a: {x.y} z\nb: 1\n", f"a.yaml:1: Something follows here that is no part of what is before it. {QUOTES}"),
        ("a: 'don't'\n", f"a.yaml:1: Something follows here that is no part of what is before it. {QUOTES}"),
        ("a:\n  b: 1\n   c: 2\n", f"a.yaml:3: {INDENTED}"),
        ("a:\n  - b: 1\n  c: 1\n", f"a.yaml:3: {INDENTED}"),
        ("a:1\nb: 2\n", "a.yaml:1: A colon is followed by a space, as in 'priority: 20'."),
        ("a: 1\nb\nc: 2\n", "a.yaml:2: A name, a colon and a space are expected here, as in 'priority: 20'."),
        ("a:\u00a01\nb: 2\n", f"a.yaml:1: {ANOTHER_KIND}"),
        ("a: {b: 0,05}\n", f"a.yaml:1: {COMMA}"),
        ("a: {b:1}\n", "a.yaml:1: A colon is followed by a space: 'b: 1'."),
        ("- a\n", "a.yaml:1: This file must be a mapping, 'name: value' on each line."),
        ("text", "a.yaml:1: This file must be a mapping, 'name: value' on each line."),
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3: 'a' stands here twice. Take one of them out."),
        ("a: !secret x\n", "a.yaml:1: 'x' cannot be read. Put it in quotes."),
        ("a: " + "9" * 5000, f"a.yaml:1: '{'9' * 99}…' cannot be read. Put it in quotes."),
        ("b: 1\na: 2026-99-99\n", "a.yaml:2: '2026-99-99' cannot be read. Put it in quotes."),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(text: str, problem: str) -> None:
    _, _, problems = read(text)
    assert problems == [problem]


def test_a_name_without_a_value_is_no_slip_by_itself() -> None:
    assert read("{a: , b: '', c: 1}")[::2] == ({"a": None, "b": "", "c": 1}, [])


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "nothing"), (True, "true"), ([False, 1], "[false, 1]"), ({"a": {"b": "c"}}, "{a: {b: c}}"), ("x", "x")]
    + [("x" * 100, "x" * 100), ("x" * 101, "x" * 99 + "…"), (["x" * 300], "[" + "x" * 98 + "…")],
)
def test_values_are_shown_as_they_are_written(value: object, words: str) -> None:
    assert shown(value) == words


def test_a_name_that_is_near_is_suggested_else_all_are_listed() -> None:
    assert suggestion("pusch", ["sms", "push"]) == "Did you mean 'push'?"
    assert suggestion("owl", ["sms", "push"]) == "Known: push, sms."
    assert suggestion("PUSH", ["sms", "push"]) == "Did you mean 'push'?"
    assert suggestion("owl", []) == "There is none yet."


def test_all_mistakes_are_in_the_text_of_the_error() -> None:
    error = CatalogueError([Problem("a.yaml", 1, "One."), Problem("b.yaml", 2, "Two.")])
    assert str(error) == "a.yaml:1: One.\nb.yaml:2: Two."
