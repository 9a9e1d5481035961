"""Writes the published files from the types: `python -m schemas.generate`, or `--check` to see whether they are equal.

Nothing of the running system imports this.
"""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
import yaml

from schemas import asyncapi
from schemas.published import MESSAGES, json_schema

HERE = Path(__file__).parent
_HEADER = "# Generated from the types by `python -m schemas.generate`. Change those, not this.\n"


class _Yaml(yaml.SafeDumper):
    """Block style, and no anchors where two parts happen to be equal."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def published_files() -> dict[str, bytes]:
    """The bytes of every generated file, by its path from this directory. Reads the examples."""
    files = {
        message.file: orjson.dumps(json_schema(message), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        for message in MESSAGES
    }
    examples = {message.name: orjson.loads((HERE / message.example).read_bytes()) for message in MESSAGES}
    text = yaml.dump(
        asyncapi.document(examples), Dumper=_Yaml, sort_keys=False, allow_unicode=True, width=120, encoding=None
    )
    return {**files, "asyncapi.yaml": (_HEADER + text).encode()}


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` only say which are not what the types say. Returns the exit code."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("Usage: python -m schemas.generate [--check]\n")
        return 2
    wanted = published_files()
    folders = {path.partition("/")[0] for path in wanted if "/" in path}
    present = {str(path.relative_to(HERE)) for folder in folders for path in (HERE / folder).glob("*.json")}
    stale = sorted(present - wanted.keys())
    changed = sorted(path for path, content in wanted.items() if _content(path) != content)
    if arguments == ["--check"]:
        for path in changed + stale:
            sys.stderr.write(f"schemas/{path} is not what the types say. Run: python -m schemas.generate\n")
        return 1 if changed or stale else 0
    for path in changed:
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_bytes(wanted[path])
    for path in stale:
        (HERE / path).unlink()
    sys.stdout.write(f"{len(changed)} of {len(wanted)} files written, {len(stale)} removed.\n")
    return 0


def _content(path: str) -> bytes | None:
    return (HERE / path).read_bytes() if (HERE / path).exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
