"""Private names of torch's compiler, which are used here alone. A second of imports, for those who compile."""

from __future__ import annotations

from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters
from torch._inductor.exc import CppCompileError, InvalidCxxCompiler
from torch._inductor.runtime.cache_dir_utils import cache_dir

__all__ = ["FAILURES", "cache_dir", "graphs"]
FAILURES = (TorchDynamoException, CppCompileError, InvalidCxxCompiler)
"""What the compiler raises."""


def graphs() -> int:
    """How many graphs torch.compile has made in this process."""
    return int(counters["stats"]["unique_graphs"])
