"""Gradients that are the mean over the ranks, and each rank's rows of a batch."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medgen.ranks.collectives import rank, size


def wrap_ddp(turn: nn.Module) -> nn.Module:
    """A turn whose gradients are the means over the ranks after `backward`.

    The order in which an all-reduce adds depends on where in its buffer a gradient lies, and DDP lays its buffers out
    anew after the first pass of a process. So that one that resumes adds as one that did not, that pass is no step.
    """
    if size() == 1:
        return turn
    wrapped = DistributedDataParallel(turn, gradient_as_bucket_view=True)
    wrapped.module = _Sum(turn)
    wrapped().backward()
    wrapped.module = turn
    wrapped.zero_grad(set_to_none=True)
    return wrapped


class _Sum(torch.nn.Module):
    """Of all parameters: its backward pass comes to the last ones first, as that of a network does."""

    def __init__(self, turn: torch.nn.Module):
        super().__init__()
        self.turn = turn

    def forward(self) -> Tensor:
        return functools.reduce(torch.add, (each.sum() for each in self.parameters() if each.requires_grad))


def no_sync(turn: nn.Module) -> AbstractContextManager[None]:
    """While a part of a batch is computed that is not the last: gradients stay where they are."""
    return turn.no_sync() if isinstance(turn, DistributedDataParallel) else nullcontext()


def scale_loss(loss: Tensor) -> Tensor:
    """A share of a mean over the batch, so that the mean of the ranks' gradients is that of the batch."""
    return loss if size() == 1 else loss * size()


def local_rows(batch_size: int, parts: int) -> np.ndarray | None:
    """Which rows of a batch are this rank's: its share of each part, `[batch_size / size]`; None: all."""
    return None if size() == 1 else np.arange(batch_size).reshape(parts, size(), -1)[:, rank()].ravel()
