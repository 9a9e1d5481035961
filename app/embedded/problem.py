"""What goes wrong for a person at a terminal is a `KafkaProblem`: one sentence that says what is wrong and what to do.

Progress is told through `Progress`, so that nothing below the command line prints.
"""

from __future__ import annotations


class KafkaProblem(Exception):
    """The embedded Kafka cannot do what was asked; the text is a sentence for a person, with the fix."""


class Progress:
    """Silent. The command line and the demo override what they show; `advance` is called from several threads."""

    def note(self, text: str) -> None:
        """Something that takes a while begins, or a person should know about it."""

    def begin(self, what: str, total_bytes: int) -> None:
        """A transfer of `total_bytes` begins."""

    def advance(self, amount_bytes: int) -> None:
        """So many more bytes have come; negative when a failed attempt is taken back."""

    def end(self) -> None:
        """The transfer is over, complete or not."""
