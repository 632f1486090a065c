"""Gradient checkpointing: less memory for more time (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(blocks: Iterable[nn.Module], draws: bool = False) -> None:
    """In training, let blocks keep only their input and recompute activations when going backward.

    draws: True if blocks draw from the global generators, whose state is then restored. Names of
    weights do not change.
    """

    def forward(block: nn.Module, *given: Any, **named: Any) -> object:
        plain: Any = type(block).forward
        if not (block.training and torch.is_grad_enabled()):
            return plain(block, *given, **named)
        return checkpoint(
            plain, block, *given, use_reentrant=False, preserve_rng_state=draws, **named
        )

    for block in blocks:
        block.forward = MethodType(forward, block)  # a copy of the block has its own
