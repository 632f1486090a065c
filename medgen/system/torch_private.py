"""Wrap all that medgen uses of torch without torch promising to keep it, so that a new torch is
mended in one file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.elastic.agent.server.api import WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import LogsSpecs


def extend_timeout(group: dist.ProcessGroup, timeout: timedelta) -> None:
    """Set the timeout of a group's collectives, after the group was made with another."""
    dist.distributed_c10d._set_pg_timeout(timeout, group)


def count_in_store(key: str) -> int:
    """Add 1 to a counter in the store that all ranks share, and return it. Raises RuntimeError if
    its host is gone.
    """
    return int(dist.distributed_c10d._get_default_store().add(key, 1))


def agent(spec: WorkerSpec, logs: LogsSpecs, look: Callable[[], None]) -> LocalElasticAgent:
    """Return torch's elastic agent of one node; `look` is called before each check of the workers."""
    from torch.distributed.elastic.agent.server.local_elastic_agent import (
        LocalElasticAgent as Elastic,
    )

    class Agent(Elastic):
        def _monitor_workers(self, worker_group: Any) -> Any:
            look()
            return super()._monitor_workers(worker_group)

    return Agent(spec, logs)


def compiler_errors() -> tuple[type[Exception], ...]:
    """Return the errors that torch.compile raises of its own."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return TorchDynamoException, CppCompileError, InvalidCxxCompiler


def compiler_cache() -> str:
    """Return the folder in which torch.compile keeps what it compiled."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return str(cache_dir())


@contextmanager
def shapes_alone() -> Iterator[Callable[[Tensor], Tensor]]:
    """Let operations of the block compute shapes and no values; gives what makes a tensor such a one."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode.from_tensor


def needs_values() -> tuple[type[Exception], ...]:
    """Return the errors of what cannot do without values in `shapes_alone`."""
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
        UnsupportedFakeTensorException,
    )

    return DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException


def count_graphs() -> int:
    """Return the number of graphs that torch.compile made in this process."""
    from torch._dynamo.utils import counters  # a second of imports, for those who compile

    return int(counters["stats"]["unique_graphs"])
