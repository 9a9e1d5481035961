"""Writes `jars.lock.json` anew: `python -m app.embedded.relock 4.1.1`. Only needed to move to another Apache Kafka.

jgo walks the POM files. The binding that brings Kafka's log lines to log4j is not among Kafka's dependencies and is
added by hand, resolved on its own: as a second input jgo would let log4j's bill of materials govern Kafka's versions
(seen: kafka-clients 3.8.0 beside Kafka 4.1.1).
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.embedded.jars import LOCK


def relock(version: str) -> int:
    """Resolve, download and hash Apache Kafka `version`; the number of jars that were written to the lock."""
    from jgo.maven import MavenContext, PythonResolver

    with tempfile.TemporaryDirectory() as folder:
        maven: Any = MavenContext(resolver=PythonResolver(), repo_cache=Path(folder), timeout=60)
        inputs, transitive = maven.resolver.resolve([maven.create_dependency(f"org.apache.kafka:kafka_2.13:{version}")])
        found = [d for d in [*inputs, *transitive] if d.scope in (None, "compile", "runtime")]
        log4j = next(d.version for d in found if d.artifactId == "log4j-core")
        found.append(maven.create_dependency(f"org.apache.logging.log4j:log4j-slf4j-impl:{log4j}"))
        jars = []
        for dependency in found:
            content = Path(dependency.artifact.resolve()).read_bytes()
            jars.append(
                {
                    "coordinate": f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}",
                    "size": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
            )
    LOCK.write_text(json.dumps({"kafka": version, "jars": jars}, indent=1) + "\n")
    return len(jars)


if __name__ == "__main__":
    relock(sys.argv[1])
