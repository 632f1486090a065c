"""Gradient checkpointing: less memory for more time (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(blocks: Iterable[nn.Module], draws: bool = False) -> None:
    """Let each block keep only what goes into it and compute the rest again on the way back, in training.

    draws: whether blocks draw from the global generators, so that they must draw the same again. No name of a weight
    changes.
    """

    def forward(block: nn.Module, *given: Any, **named: Any) -> Any:
        plain: Any = type(block).forward
        if not (block.training and torch.is_grad_enabled()):
            return plain(block, *given, **named)
        return checkpoint(plain, block, *given, use_reentrant=False, preserve_rng_state=draws, **named)

    for block in blocks:
        block.forward = MethodType(forward, block)  # a copy of the block has its own
