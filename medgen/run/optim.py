"""Choose optimizer, learning rate and memory format."""

from __future__ import annotations

import math

import torch
from torch import nn

from medgen.api.interfaces import Turn
from medgen.api.tables import TrainingSettings
from medgen.run.muon import Muon, is_matrix


def learning_rate(training: TrainingSettings, step: int, total: int) -> float:
    """Return the rate of step 0..total-1: linear warm-up, then `schedule` down to `min_lr` times
    the peak.
    """
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    done = (step - training.warmup_steps) / max(1, total - training.warmup_steps)
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[
        training.schedule
    ]
    return training.learning_rate * (training.min_lr + (1 - training.min_lr) * shape)


def optimizer(turn: Turn, training: TrainingSettings) -> torch.optim.AdamW:
    """Return fused AdamW, or Muon with it: three times as fast as the loop, and able to skip a step
    by a flag on the device.
    """
    made = Muon if training.optimizer == "muon" else torch.optim.AdamW
    return made(
        turn.parameters(),
        lr=training.learning_rate,
        betas=turn.betas,
        weight_decay=training.weight_decay,
        fused=True,
    )


def moments(training: TrainingSettings, parameter: torch.Tensor) -> int:
    """Return how many values the optimizer keeps for each of a parameter."""
    return 1 if training.optimizer == "muon" and is_matrix(parameter) else 2


def channels_last(training: TrainingSettings, network: nn.Module) -> bool:
    """Choose the memory format: channels_last for bf16 if every width (channels of the norms) is
    at least 128.

    channels_last was measured to be slower below 128, in slices.
    """
    if training.memory_format != "auto":
        return training.memory_format == "channels_last"
    widths = [
        module.num_channels for module in network.modules() if isinstance(module, nn.GroupNorm)
    ]
    return training.precision == "bf16" and bool(widths) and min(widths) >= 128


def use_channels_last(network: nn.Module, axes: int) -> None:
    """Order a network's weights as channels_last. axes: spatial ones of a sample."""
    order = torch.channels_last if axes == 2 else torch.channels_last_3d
    network.to(memory_format=order)  # type: ignore[call-overload]  # torch's stubs lack it
