"""`medgen` in processes that can be killed: a server imports torch once, and each process is forked from it."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

PRELOAD = [
    "medgen.cli.main",
    "medgen.training.session",
    "medgen.config.registry",
    "monai.networks.nets",
    "torch.utils.tensorboard",
    "torch._dynamo",
    "pytest",
    "nibabel",
    "medgen.training.validation",
    *sorted({entry.value for entry in entry_points(group="medgen")}),
    "faults.frozen",
]


HANG = 600.0
"""Seconds after which a process hangs: many times what it takes on a slow machine that does other things as well."""


class Ended(NamedTuple):
    """How a process ended. code: negative if a signal killed it."""

    code: int
    out: str
    err: str


class Child:
    """A process that runs `medgen`. `hook(*its arguments)` is called in it first, to plant a fault."""

    def __init__(self, process: ForkServerProcess, log: Path):
        self.process, self.log = process, log
        self.pid = process.pid or 0

    def wait(self, seconds: float = HANG) -> Ended:
        """Its exit code and what it printed."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "it hangs"
        return Ended(
            self.process.exitcode,
            *(self.log.with_suffix(end).read_text() for end in (".out", ".err")),
        )

    def wait_for(self, text: str, seconds: float = HANG) -> None:
        """Until it has printed that, on stdout or stderr."""
        limit = time.monotonic() + seconds
        while text not in "".join(
            self.log.with_suffix(end).read_text() for end in (".out", ".err")
        ):
            assert self.process.is_alive(), f"ended before it printed {text!r}: {self.wait()}"
            assert time.monotonic() < limit, f"never printed {text!r}"
            time.sleep(0.002)


class Server:
    """Starts such processes, in the environment of now."""

    def __init__(self, logs: Path):
        self.context: ForkServerContext = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOAD)
        self.logs, self.count = logs, 0

    def start(
        self,
        *arguments: object,
        hook: Callable[..., None] | None = None,
        given: tuple[Any, ...] = (),
    ) -> Child:
        self.count += 1
        log = self.logs / f"{self.count}.log"
        for end in (".out", ".err"):
            log.with_suffix(end).touch()
        words = [str(each) for each in arguments]
        process = self.context.Process(
            target=_work, args=(words, dict(os.environ), log, hook, given)
        )
        process.start()
        return Child(process, log)

    def run(
        self,
        *arguments: object,
        hook: Callable[..., None] | None = None,
        given: tuple[Any, ...] = (),
    ) -> Ended:
        return self.start(*arguments, hook=hook, given=given).wait()


def _work(
    words: list[str],
    environment: dict[str, str],
    log: Path,
    hook: Callable[..., None] | None,
    given: tuple[Any, ...],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, end in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(log.with_suffix(end), os.O_WRONLY | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    torch.set_num_threads(1)
    if hook:
        hook(*given)
    from medgen.cli.main import main

    main(words)


def differences(one: Path, two: Path) -> list[str]:
    """What differs between two runs' `latest.pt` and losses, clock times aside; nothing if they are equal."""
    first, second = (flat(torch.load(each / "latest.pt", weights_only=True)) for each in (one, two))
    wrong = sorted(set(first) ^ set(second))
    wrong += [name for name in first if name in second and not _equal(first[name], second[name])]
    return wrong + ([] if losses(one) == losses(two) else ["metrics.jsonl"])


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf of a checkpoint by its path, without clock times and lengths of files that hold them."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        leaves = [
            flat(inner, f"{prefix}/{key}")
            for key, inner in items
            if f"{prefix}/{key}" not in CLOCKS
        ]
        return {name: leaf for each in leaves for name, leaf in each.items()}
    return {prefix: value}


CLOCKS = (
    "/seconds",
    "/journal",
    "/recipe",
)  # the recipe differs where one run was told to stop elsewhere


def losses(folder: Path) -> list[dict[str, Any]]:
    """What must be equal in `metrics.jsonl`."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k in ("step", "epoch") or k.startswith("loss")}
        for line in lines
    ]


def _equal(one: Any, two: Any) -> bool:
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else bool(one == two)
