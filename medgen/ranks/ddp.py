"""Average gradients over ranks, and choose each rank's rows of a batch."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medgen.ranks.collectives import rank, size


def wrap_ddp(turn: nn.Module) -> nn.Module:
    """Wrap a turn so that `backward` leaves the mean of the gradients over ranks.

    An all-reduce adds in an order that depends on a gradient's position in its buffer, and DDP
    rebuilds its buffers after the first backward pass of a process. That pass runs here, outside
    any step, so that a resumed run adds in the same order as an uninterrupted run.
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
    """Sum all parameters; the backward pass reaches the last ones first, as a network's does."""

    def __init__(self, turn: torch.nn.Module):
        super().__init__()
        self.turn = turn

    def forward(self) -> Tensor:
        return functools.reduce(
            torch.add, (each.sum() for each in self.parameters() if each.requires_grad)
        )


def no_sync(turn: nn.Module) -> AbstractContextManager[None]:
    """Accumulate gradients without averaging over ranks, for all micro-batches but the last."""
    return turn.no_sync() if isinstance(turn, DistributedDataParallel) else nullcontext()


def scale_loss(loss: Tensor) -> Tensor:
    """Scale a rank's part of a batch mean so that the ranks' mean gradient is the batch's."""
    return loss if size() == 1 else loss * size()


def local_rows(batch_size: int, parts: int) -> np.ndarray | None:
    """Return this rank's rows of a batch, an equal share of each micro-batch: `[batch_size /
    size]`. None: all rows.
    """
    return (
        None if size() == 1 else np.arange(batch_size).reshape(parts, size(), -1)[:, rank()].ravel()
    )
