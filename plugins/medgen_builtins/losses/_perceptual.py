"""The distance of features of EfficientNet-lite0."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from medgen import HasImage, LossFunction
from medgen_builtins._efficientnet import EfficientNet
from medgen_builtins._weights import load


def distance(path: Path | None, device: torch.device) -> LossFunction:
    """Return a loss with the weights in a file, or those of the installed package."""
    network = EfficientNet(load(path, "losses.perceptual"), device)

    def loss(prediction: HasImage, noisy: HasImage) -> Tensor:
        if prediction.x0.ndim == 4:
            return network.distance(prediction.x0, noisy.x0)
        planes = [
            network.distance(_slices(prediction.x0, axis), _slices(noisy.x0, axis))
            for axis in range(2, 5)
        ]
        return torch.stack([each.view(len(noisy.x0), -1).mean(1) for each in planes]).mean(0)

    return loss


def _slices(volumes: Tensor, axis: int) -> Tensor:
    """Take all slices across an axis of volumes `[batch, channel, *space]` as images."""
    return volumes.movedim(axis, 1).flatten(0, 1)
