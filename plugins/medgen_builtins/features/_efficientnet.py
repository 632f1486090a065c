"""The extractor of features of EfficientNet-lite0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from medgen import Extractor
from medgen.evaluation.network import digest, parts
from medgen_builtins._efficientnet import EfficientNet
from medgen_builtins._weights import load

SIDE = 128
"""px that images are scaled to, so that a small head is not all texture."""


class EfficientNetExtractor(Extractor):
    def __init__(self, path: Path | None, device: torch.device):
        self._network, self._device = (
            EfficientNet(load(path, "features.efficientnet"), device),
            device,
        )
        self.hash = digest(self._network.weights)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        found = []
        with torch.no_grad():
            for part in parts(images, self._device):
                large = interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True)
                *_, last = self._network.features(large)
                found.append(last.mean((2, 3)).view(len(part), -1))
        return np.asarray(torch.cat(found).cpu().numpy(), np.float32)
