"""Consumers for whoever looks at topics from outside the engine: they see what is committed, and commit nothing."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer

from app.settings import Settings


def consumer(settings: Settings, **options: Any) -> AIOKafkaConsumer:
    """One that begins with the oldest record where nothing else is said, to be started and stopped by the caller. It
    is in no group unless the options name one."""
    return AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **settings.kafka_security,
        **options,
    )
