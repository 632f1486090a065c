"""Weights averaged over the steps."""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from medgen import Callback, Run, hookimpl


class Averaging(Callback):
    """Fills `run.averaged`. Its weights are in the checkpoint; all else is a function of the step."""

    def __init__(self, decay: float, warmup: int, run: Run):
        self.most, self.warmup, self.network = decay, warmup, run.network
        self.averaged = run.averaged = (
            copy.deepcopy(run.network).float().eval().requires_grad_(False)
        )

    def decay(self, step: int) -> float:
        """Return the decay of a step (from 1)."""
        return min(self.most, (1 + step) / (self.warmup + step))

    @hookimpl
    def medgen_step_end(self, run: Run) -> None:
        # torch's AveragedModel does this too, but reads its counter from the device at every step
        update = get_ema_multi_avg_fn(self.decay(run.step))  # type: ignore[no-untyped-call]
        update(list(self.averaged.parameters()), list(self.network.parameters()), None)
        for mine, live in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
            mine.copy_(live)

    @hookimpl(wrapper=True)
    def medgen_validate(
        self,
    ) -> Generator[None, list[Mapping[str, float]], list[Mapping[str, float]]]:
        with swapped(self.network, self.averaged):
            return (yield)

    @hookimpl(wrapper=True)
    def medgen_memory_check(self) -> Generator[None, None, None]:
        with swapped(self.network, self.averaged):
            return (yield)


@contextmanager
def swapped(network: nn.Module, averaged: nn.Module) -> Generator[None, None, None]:
    """Put the averaged weights into the network, in place, and restore its own afterwards."""
    live: list[torch.Tensor] = list(network.parameters())
    kept = [each.detach().clone() for each in live]
    with torch.no_grad():
        torch._foreach_copy_(live, list(averaged.parameters()))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(live, kept)
