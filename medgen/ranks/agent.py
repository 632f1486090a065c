"""Make torch's elastic agent, which starts the workers of a node and waits for them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from medgen.system import torch_private


def make_agent(
    arguments: list[str], devices: int, logs: Path, look: Callable[[], None]
) -> LocalElasticAgent:
    """Return torch's agent for one node; `look` is called before each check of the workers."""
    rendezvous = RendezvousParameters(
        "c10d", "127.0.0.1:0", run_id="medgen", min_nodes=1, max_nodes=1, local_addr="127.0.0.1"
    )
    spec = WorkerSpec(
        role="train",
        local_world_size=devices,
        entrypoint=sys.executable,
        args=("-m", "medgen", *arguments),
        rdzv_handler=get_rendezvous_handler(rendezvous),
        max_restarts=0,
        monitor_interval=0.1,
        local_addr="127.0.0.1",
    )
    return torch_private.agent(spec, DefaultLogsSpecs(log_dir=str(logs)), look)
