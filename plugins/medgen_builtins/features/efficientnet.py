"""Features of a network that knows photographs (Tan and Le 2019): the same for every dataset, blind to anatomy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medgen import Extractor, FeaturesSettings, field, hookimpl, settings

if TYPE_CHECKING:
    import numpy as np
    import torch

    from medgen_builtins._efficientnet import EfficientNet

medgen_api = 1

SIDE = 128
"""px that images are scaled to, so that a small head is not all texture."""


@settings
class Efficientnet(FeaturesSettings):
    """EfficientNet-lite0 up to its fifth stage, averaged over space; weights come with `medgen[perceptual]`."""

    path: Path | None = field(None, help="weights of an EfficientNet-lite0, instead of the installed package's")

    def build(self, device: torch.device) -> Extractor:
        from medgen.evaluation.network import digest
        from medgen_builtins._efficientnet import EfficientNet
        from medgen_builtins._weights import load

        network = EfficientNet(load(self.path, "features.efficientnet"), device)
        return _Extractor(network, digest(network.weights), device)


class _Extractor(Extractor):
    def __init__(self, network: EfficientNet, hash: str, device: torch.device):
        self._network, self.hash, self._device = network, hash, device

    def __call__(self, images: np.ndarray) -> np.ndarray:
        import numpy as np
        import torch
        from torch.nn.functional import interpolate

        from medgen.evaluation.network import parts

        found = []
        with torch.no_grad():
            for part in parts(images, self._device):
                large = interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True)
                *_, last = self._network.features(large)
                found.append(last.mean((2, 3)).view(len(part), -1))
        return np.asarray(torch.cat(found).cpu().numpy(), np.float32)


@hookimpl
def medgen_features() -> dict[str, type]:
    return {"efficientnet": Efficientnet}
