"""What is wrong with a text that is no YAML, for somebody who writes rules and not YAML.

The parser says where it could not go on; the slip is often on the line before, or where something was opened.
"""

from __future__ import annotations

import re

import yaml

_QUOTES = "A text with a colon, #, a brace or the like in it stands in quotes as a whole."
_INDENTED = "This line is not indented as those that it belongs with, or a '- ' is missing before a list's entry."
#: What the parser's words mean that need no further look.
_HERE = (
    (
        ("points elsewhere",),
        "A text that begins with such a sign stands in quotes as a whole. Nothing points elsewhere: write it out.",
    ),
    (("too deep",), "Brackets or lines are nested here deeper than any rule is. Take some out."),
    (("half a character",), "Half a character is written here, such as \\ud83d. Write the character itself."),
    (("found character '\\t'",), "There is a tab here. Indent with spaces."),
    (
        ("that cannot start", "alias", "directive", "alphabetic"),
        "A text that begins with such a sign stands in quotes as a whole.",
    ),
    (("escape",), "After a backslash in double quotes only some letters may come. Use single quotes."),
    (
        ("found '<scalar>'", "found ']'", "found '}'"),
        f"Something follows here that is no part of what is before it. {_QUOTES}",
    ),
)
_TWICE = re.compile(r":\s.*:(\s|$)")
_NO_SPACE = re.compile(r"\s*(-\s+)?\w+:[^\s'\"]")


def told(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """The line (from 1) of the slip, and what to do about it."""
    lines = [*text.splitlines(), ""]
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, error.position) + 1, "There is a character here that cannot be seen. Take it out."
    assert isinstance(error, yaml.MarkedYAMLError)  # the parser's others all say where
    assert error.problem_mark
    line = min(error.problem_mark.line, len(lines) - 1)
    opened = error.context_mark.line if error.context_mark else line
    for near in (line, max(line - 1, 0)):
        if re.search("[\u00a0\u2000-\u200b\u3000\uff1a]", lines[near]):
            return near + 1, "There is a space or a colon of another kind here, as word processors make. Type it anew."
    return _said(f"{error.context or ''}: {error.problem or ''}", lines, line, opened)


def _said(problem: str, lines: list[str], line: int, opened: int) -> tuple[int, str]:
    before = max(line - 1, 0)
    for words, sentence in _HERE:
        if any(word in problem for word in words):
            return line + 1, sentence
    if "quoted scalar" in problem:
        return opened + 1, "The quote that opens here is not closed."
    if "<stream end>" in problem:
        opened = max(n for n, text in enumerate(lines) if n == 0 or re.search(r"[\[{]", text))
        return opened + 1, "A bracket that opens here is not closed."
    if "flow" in problem:
        return opened + 1, "A bracket that opens here is not closed, or a comma or quotes are missing in it."
    if "another document" in problem or "document start" in problem:
        apart = lines[line].startswith(("---", "...")) or lines[before].startswith("...")
        return line + 1, "A file holds one rule: put what follows into another." if apart else _INDENTED
    if "mapping values" in problem or "simple key" in problem:
        return _without_a_name(problem, lines, line, opened)
    return line + 1, _INDENTED


def _without_a_name(problem: str, lines: list[str], line: int, opened: int) -> tuple[int, str]:
    """A value where a name is wanted, or a name where a value is."""
    for near in (opened, line, max(line - 1, 0)):
        if _NO_SPACE.match(lines[near]):
            return near + 1, "A colon is followed by a space, as in 'priority: 20'."
    if "simple key" in problem:
        return opened + 1, "A name, a colon and a space are expected here, as in 'priority: 20'."
    return line + 1, _QUOTES if _TWICE.search(lines[line]) else _INDENTED
