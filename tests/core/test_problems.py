"""YAML that people write: values with their lines, and no traceback for whatever it is."""

from __future__ import annotations

import pytest

from app.core.problems import CatalogueError, Problem, located, suggestion


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


def test_an_empty_file_is_empty() -> None:
    assert read("") == ({}, {}, [])
    assert read("# nothing\n") == ({}, {}, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1\nb: 2\n", "a.yaml:2: This is not YAML: expected ',' or ']', but got ':'."),
        ("a: 'x\n", "a.yaml:2: This is not YAML: found unexpected end of stream."),
        ("a: 1\n---\nb: 2\n", "a.yaml:2: This is not YAML: but found another document."),
        ("a: \x01", "a.yaml:1: This is not YAML: unacceptable character #x0001: special characters are not allowed"),
        ("- a\n", "a.yaml:1: This file must be a mapping, 'name: value' on each line."),
        ("text", "a.yaml:1: This file must be a mapping, 'name: value' on each line."),
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3: 'a' stands here twice. Take one of them out."),
        ("a: !secret x\n", "a.yaml:1: 'x' cannot be read. Put it in quotes."),
        ("b: 1\na: 2026-99-99\n", "a.yaml:2: '2026-99-99' cannot be read. Put it in quotes."),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(text: str, problem: str) -> None:
    _, _, problems = read(text)
    assert [each.partition("\n")[0] for each in problems] == [problem]


def test_a_name_that_is_near_is_suggested_else_all_are_listed() -> None:
    assert suggestion("pusch", ["sms", "push"]) == "Did you mean 'push'?"
    assert suggestion("owl", ["sms", "push"]) == "Known: push, sms."


def test_all_mistakes_are_in_the_text_of_the_error() -> None:
    error = CatalogueError([Problem("a.yaml", 1, "One."), Problem("b.yaml", 2, "Two.")])
    assert str(error) == "a.yaml:1: One.\nb.yaml:2: Two."
