"""The simple job as a plain Faust agent would do it: an app.Table, one event at a time. For the benchmark only.

`python -m tests.bench.faust_job BOOTSTRAP NAME PARTITIONS GUARANTEE DIRECTORY`; topics are NAME.orders, NAME.triggers.
"""

from __future__ import annotations

import sys

import faust
import orjson

from tests.kafka.simple_job import EVERY


def build(bootstrap: str, name: str, partitions: int, guarantee: str, directory: str) -> faust.App:
    app = faust.App(
        name,
        broker=f"kafka://{bootstrap}",
        datadir=directory,
        store="memory://",
        processing_guarantee=guarantee,
        topic_partitions=partitions,
        topic_replication_factor=1,
        topic_disable_leader=True,
        table_standby_replicas=0,
        web_enabled=False,
        worker_redirect_stdouts=False,
        consumer_auto_offset_reset="earliest",
    )
    orders = app.topic(f"{name}.orders", key_type=bytes, value_type=bytes, value_serializer="raw")
    triggers = app.topic(f"{name}.triggers", key_type=bytes, value_type=bytes, value_serializer="raw")
    rows = app.Table("rows", key_type=str, partitions=partitions)

    @app.agent(orders)
    async def job(events: faust.StreamT[bytes]) -> None:
        async for value in events:
            event = orjson.loads(value)
            user = event["user_id"]
            count, cents, _ = rows.get(user) or (0, 0, "")
            rows[user] = [count + 1, cents + event["cents"], event["event_id"]]
            if (count + 1) % EVERY == 0:
                name = f"{user}-{count + 1}"
                await triggers.send(key=user.encode(), value=orjson.dumps({"trigger_id": name, "user_id": user}))

    return app


if __name__ == "__main__":
    bootstrap, name, partitions, guarantee, directory = sys.argv[1:]
    worker = build(bootstrap, name, int(partitions), guarantee, directory).Worker(loglevel="ERROR", quiet=True)
    worker.execute_from_commandline()
