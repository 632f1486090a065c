"""The table `[slurm]`: what a job asks a cluster for. No result depends on it."""

from __future__ import annotations

import re
import shlex

from medgen.api.settings import Check, between, field, ge, gt, settings

_WORD = Check(lambda value: not value or _matches(r"[\w.,:@+-]+", value), "of letters, digits and . , : @ + - _")
_MEMORY = Check(lambda value: not value or _matches(r"\d+[KMGT]?", value), "such as 64G")
_OPTION = Check(
    lambda value: value.startswith("--") and value.isprintable() and _closed(value),
    "that begins with --, is one line, and closes its quotes",
)
_LINE = Check(lambda value: value.isprintable(), "that is one line of shell")


@settings
class SlurmSettings:
    """What a job asks Slurm for; `medgen slurm RECIPE` writes it. Devices of a node: `training.devices`."""

    hours: float = field(24.0, help="time limit of a job; a run goes on in the next", check=between(0.02, 8760))
    nodes: int = field(1, help="machines", check=gt(0))
    cpus: int = field(8, help="cores for each device", check=gt(0))
    memory: str = field("", help="of each node, such as 64G; empty: what the cluster gives", check=_MEMORY)
    gpu: str = field("any", help="kind of GPU, such as a100; any: whichever; none: devices are CPUs", check=_WORD)
    partition: str = field("", help="queue; empty: the cluster's own choice", check=_WORD)
    account: str = field("", help="who pays; empty: the user's own", check=_WORD)
    notice: int = field(120, help="seconds before the limit at which a run is asked to save", check=between(1, 65535))
    restarts: int = field(50, help="times that a job is queued again, then it stops", check=ge(0))
    options: tuple[str, ...] = field((), help='further sbatch options: ["--constraint=ib"]', check=_OPTION)
    setup: tuple[str, ...] = field((), help='shell before the work: ["module load cuda"]', check=_LINE)
    may_change = (
        "hours", "nodes", "cpus", "memory", "gpu", "partition", "account", "notice", "restarts", "options", "setup"
    )  # fmt: skip


def _matches(pattern: str, value: str) -> bool:
    return re.fullmatch(pattern, value, re.ASCII) is not None


def _closed(value: str) -> bool:
    """Whether sbatch, which splits a line as a shell does, finds the end of each quote."""
    try:
        return bool(shlex.split(value))
    except ValueError:
        return False
