"""Rules tried without Kafka: the real engine, virtual time, faults on purpose.

`driver.Driver` drives one deployment synchronously; `scenario` reads and runs YAML scenarios that say what is given and
what is expected.
"""

from __future__ import annotations
