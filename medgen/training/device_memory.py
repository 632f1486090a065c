"""How much memory a device has in use and left: a GPU, or, for a CPU, this process and its machine."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

PROCESS = Path("/proc/self")
MACHINE = Path("/proc/meminfo")
GROUPS = Path("/sys/fs/cgroup")
VERSIONS = {
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    "": ("", "memory.max", "memory.current", "inactive_file"),
}
"""Of Linux's control groups, by controllers: where their folders are, and the names of limit, use
and file cache.
"""


def peak(device: torch.device) -> float:
    """Return peak bytes since `forget`: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    most = _number(PROCESS / "status", "VmHWM")
    return 1024.0 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if most is None else most)


def forget(device: torch.device) -> None:
    """Begin a new peak; where the system cannot, it goes on from the old one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            (PROCESS / "clear_refs").write_text("5")


def room(device: torch.device) -> float | None:
    """Return the bytes that may be in use: those that are, and what GPU, machine and job have left.

    None: it cannot be told.
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    left, mine = _number(MACHINE, "MemAvailable"), _number(PROCESS / "status", "VmRSS")
    if left is None or mine is None:
        return None
    return 1024.0 * mine + max(0.0, min([1024.0 * left, *_left_by_limits()]))


def _left_by_limits() -> Iterator[float]:
    """Yield what each limit on this process's control group and those above it leaves; Slurm and
    Docker set such limits.
    """
    with suppress(OSError):
        for line in (PROCESS / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in VERSIONS:
                root, *names = VERSIONS[controllers]
                group = Path(path.lstrip("/"))
                for folder in (
                    group,
                    *group.parents,
                ):  # in a container, only the uppermost may be there
                    yield from _left_by(GROUPS / root / folder, *names)


def _left_by(folder: Path, limit: str, used: str, cached: str) -> Iterator[float]:
    with suppress(OSError, ValueError):  # no such group, or "max"
        taken = int((folder / used).read_text()) - (_number(folder / "memory.stat", cached) or 0)
        yield float(int((folder / limit).read_text()) - taken)


def _number(path: Path, name: str) -> int | None:
    """Return the number after a name at the start of a file's line, in its own unit."""
    with suppress(OSError):
        found = re.search(rf"^{name}:?\s+(\d+)", path.read_text(), re.MULTILINE)
        return int(found[1]) if found else None
    return None
