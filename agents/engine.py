"""The Faust app: Faust's group, agents and lifecycle, with our transport and our shards in place of its tables.

Nothing of Faust that writes, commits, recovers or serves data is switched on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import faust
from faust.app.base import BootStrategy

from agents.inputs import add_agents
from agents.supervisor import Supervisor
from agents.transport import Transport
from agents.wiring import Wiring
from app.metrics import Metrics

_FETCH_BYTES: Final = 2 * 1024 * 1024
"""Of one partition in one fetch; the brokers give less when there is less."""
_MIN_REBALANCE_SECONDS: Final = 15.0


class _Boot(BootStrategy):
    enable_kafka_producer = False  # every shard has its own
    enable_web = False  # Faust's pages show users' data; ours are app/http.py


class Engine(faust.App):
    """Faust's app, carrying what its parts need. `check` runs first and may raise to say why it cannot start."""

    BootStrategy = _Boot
    mundane_level = "debug"

    def __init__(
        self, wiring: Wiring, metrics: Metrics, *, check: Callable[[], Awaitable[None]] | None = None, **options: Any
    ) -> None:
        self.wiring = wiring
        self.metrics = metrics
        self._check = check
        session = wiring.session_timeout
        super().__init__(
            wiring.group,
            env_prefix="LIFECYCLE_FAUST_",  # else Faust would take its settings from any DEBUG or BROKER_URL around
            broker=[f"kafka://{server}" for server in wiring.client["bootstrap_servers"].split(",")],
            broker_session_timeout=session,
            broker_heartbeat_interval=min(3.0, session / 3),
            broker_rebalance_timeout=max(_MIN_REBALANCE_SECONDS, session),
            consumer_group_instance_id=wiring.instance_id,
            consumer_max_fetch_size=_FETCH_BYTES,
            table_standby_replicas=0,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            worker_redirect_stdouts=False,
            TableManager=Supervisor,
            **options,
        )
        self.transport = Transport(self.conf.broker_consumer, self)
        self.transport.consumer_options = wiring.client
        add_agents(self, wiring)

    @property
    def shards(self) -> Supervisor:
        """The shards of this worker."""
        return cast(Supervisor, self.tables)

    async def on_first_start(self) -> None:
        """Look whether everything is there. Faust would make directories here; there is nothing to keep on disk."""
        if self._check is not None:
            await self._check()
