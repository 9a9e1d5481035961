"""The catalogue and what came of it, in plain words, for people who read neither YAML nor JSON.

Pure: texts, rules and messages come in, sentences and lines come out. Nothing here opens a file or knows Kafka.
"""

from __future__ import annotations
