"""Before the first step of a process: all that takes memory, once, so that too little shows now and
not days later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from medgen.ranks import heartbeat
from medgen.run import optim
from medgen.run.run import TrainingRun


def due(run: TrainingRun) -> bool:
    """Return True where memory is a fixed budget; a CPU's is not, and its steps are slow."""
    return run.device.type == "cuda" and not run.complete


def check(run: TrainingRun, passes: Callable[[], None]) -> None:
    """Run a step without its update, then each callback's `medgen_memory_check`; change nothing.

    passes: every turn's forward and backward pass, at the size of a real step.
    """
    with untouched(run), heartbeat.busy():
        moments = _moments(run)
        passes()
        for optimizer in run.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        run.hooks.medgen_memory_check(run=run)
        del moments


@contextmanager
def untouched(run: TrainingRun) -> Iterator[None]:
    """Leave generators, buffers and gradients as they were before the block."""
    turns = [cast(nn.Module, turn) for turn in run.turns.values()]
    buffers = [(each, each.clone()) for turn in turns for each in turn.buffers()]
    cuda = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), run.trying("training"):
        yield
    for optimizer in run.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for each, was in buffers:
            each.copy_(was)


def _moments(run: TrainingRun) -> list[torch.Tensor]:
    """Return what optimizers will hold from the first update on, of AdamW two averages, of Muon one."""
    return [
        torch.empty_like(p)
        for name, each in run.turns.items()
        for p in each.parameters()
        if p not in run.optimizers[name].state
        for _ in range(optim.moments(run.recipe.training, p))
    ]
