"""torch's agent, which starts the processes of a node and waits for them; its private names are used here alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler


def make_agent(arguments: list[str], devices: int, logs: Path, look: Callable[[], None]) -> LocalElasticAgent:
    """torch's agent for one node; calls `look` before it asks how its workers are."""

    class Agent(LocalElasticAgent):
        def _monitor_workers(self, worker_group: Any) -> Any:
            look()
            return super()._monitor_workers(worker_group)

    meeting = RendezvousParameters(
        "c10d", "127.0.0.1:0", run_id="medgen", min_nodes=1, max_nodes=1, local_addr="127.0.0.1"
    )
    spec = WorkerSpec(
        role="train",
        local_world_size=devices,
        entrypoint=sys.executable,
        args=("-m", "medgen", *arguments),
        rdzv_handler=get_rendezvous_handler(meeting),
        max_restarts=0,
        monitor_interval=0.1,
        local_addr="127.0.0.1",
    )
    return Agent(spec, DefaultLogsSpecs(log_dir=str(logs)))
