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
        return network.distance(prediction.x0, noisy.x0)

    return loss
