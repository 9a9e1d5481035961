"""The part of YAML that rules are written in: names, texts, numbers, lists. What is read means what it looks like.

Nothing points elsewhere in the file, nothing is nested without end, no text holds half a character (which nothing could
write down), and 1:30 is no number. So whatever the file, reading it takes no longer than the file is long.
"""

from __future__ import annotations

import re

import yaml
from yaml.composer import ComposerError

#: Characters of a file: ten thousand product types with their intervals.
LARGEST = 250_000
#: A rule is three deep.
_DEEPEST = 20
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
#: YAML 1.1 takes 1:30 for 90 and 017 for 15, and nobody else does.
_NO_NUMBER = re.compile(r"[-+]?0\d|.*:")
_HALF = re.compile("[\ud800-\udfff]")


def compose(text: str) -> yaml.Node | None:
    """The nodes of a text; None when there are none. Raises YAMLError; `ill_formed` has the words for it."""
    return yaml.compose(text, Loader=_Plain)


class _Plain(yaml.SafeLoader):
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # of the library
        if event.anchor is not None:
            raise ComposerError(None, None, "it points elsewhere", event.start_mark)
        if self._depth == _DEEPEST:
            raise ComposerError(None, None, "it is nested too deep", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode):
            if _HALF.search(node.value):
                raise ComposerError(None, None, "it holds half a character", event.start_mark)
            if node.tag in _NUMBERS and _NO_NUMBER.match(node.value):
                node.tag = "tag:yaml.org,2002:str"
        return node
