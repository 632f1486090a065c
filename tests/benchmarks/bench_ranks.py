"""Weak scaling on one machine: two ranks over gloo against two processes that know nothing of each other.

All four processes have one thread and the same images a step; each pair of measurements runs the ranks and the two
others one after the other, while those that do not run wait for word. `python tests/benchmarks/bench.py --only ranks`
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from faults import forkserver

PRELOAD = [*forkserver.PRELOAD, "monai.data", "monai.inferers", "monai.transforms"]
"""What is slow to import is imported once, by the server that all processes are forked from."""
RANKS = 2


def weak_scaling(folder: Path, options: argparse.Namespace) -> list[float]:
    """Images per second of the ranks together over those of as many processes side by side, pair by pair."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    port = _free_port()
    ranks = [Worker(context, folder / f"rank{n}", options, n, port) for n in range(RANKS)]
    alone = [Worker(context, folder / f"alone{n}", options, n, None) for n in range(RANKS)]
    for group in (ranks, alone):
        speed(group, 2, options.batch)
    ratios = []
    for pair in range(options.pairs):
        first, second = (ranks, alone) if pair % 2 == 0 else (alone, ranks)
        one, two = (
            speed(first, options.count, options.batch),
            speed(second, options.count, options.batch),
        )
        ratios.append(one / two if pair % 2 == 0 else two / one)
    for worker in (*ranks, *alone):
        worker.end()
    return ratios


class Worker:
    """A process that trains when it is told to. port: where ranks meet; None: it is alone."""

    def __init__(
        self, context: Any, folder: Path, options: argparse.Namespace, number: int, port: int | None
    ):
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(theirs, folder, options, number, port), daemon=True
        )
        self.process.start()
        theirs.close()

    def end(self) -> None:
        self.pipe.send(0)
        self.process.join()


def speed(workers: list[Worker], count: int, batch: int) -> float:
    """Images per second of all together, over so many steps of each."""
    for worker in workers:
        worker.pipe.send(count)
    return sum(batch / float(worker.pipe.recv()) for worker in workers)


def _work(
    pipe: Connection, folder: Path, options: argparse.Namespace, number: int, port: int | None
) -> None:
    import torch
    from bench_step import RECIPE, overrides

    from medgen.config.recipe import load
    from medgen.ranks import process_group
    from medgen.system import console

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
    torch.set_num_threads(1)
    console.out.quiet = console.err.quiet = True
    folder.mkdir(parents=True)
    if port is not None:
        options.batch *= RANKS
        os.environ |= {"RANK": str(number), "WORLD_SIZE": str(RANKS), "LOCAL_RANK": str(number)}
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
        }
    with process_group.member(load(RECIPE, overrides(folder, options))):
        _serve(pipe, folder, options)


def _serve(pipe: Connection, folder: Path, options: argparse.Namespace) -> None:
    from bench_step import medgen_step, seconds

    step, trainer = medgen_step(folder, options)

    def work() -> None:
        trainer.run.stop_agreed()  # which ranks decide together
        step()

    while count := pipe.recv():
        pipe.send(seconds(work, count, False))
    trainer.run.train.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
