"""Processes that train together, as `torchrun` starts them, but forked from one that has imported torch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.forkserver import Child, Ended, Server

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(
    server: Server, *arguments: object, count: int = 2, hook: Callable[..., None] | None = None,
    given: tuple[Any, ...] = (),
) -> list[Child]:  # fmt: skip
    """`medgen ARGUMENTS` as ranks 0 to count - 1; `hook(rank, *given)` is called in each first, to plant a fault."""
    port, children = free_port(), []
    for rank in range(count):
        with pytest.MonkeyPatch.context() as patch:
            here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
            for name, value in {
                **here,
                "MASTER_ADDR": "127.0.0.1",
                "GLOO_SOCKET_IFNAME": "lo",
            }.items():
                patch.setenv(name, str(value))
            children.append(
                server.start(*arguments, hook=hook, given=(rank, *given) if hook else ())
            )
    return children


def run(server: Server, *arguments: object, **more: Any) -> list[Ended]:
    """The same, and how each ended."""
    return [each.wait() for each in start(server, *arguments, **more)]


def supervised(*arguments: object) -> subprocess.Popen[str]:
    """`medgen ARGUMENTS` as users give it, which starts ranks of its own."""
    paths = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "plugins")))
    given = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "medgen", *map(str, arguments)]
    return subprocess.Popen(
        command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def gone(pid: int) -> bool:
    """Neither running nor a zombie."""
    return not Path(f"/proc/{pid}").exists()
