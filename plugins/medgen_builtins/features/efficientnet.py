"""A photo network's features (Tan and Le 2019), the same for any dataset, blind to anatomy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medgen import Extractor, FeaturesSettings, field, hookimpl, settings

if TYPE_CHECKING:
    import torch

medgen_api = 1


@settings
class Efficientnet(FeaturesSettings):
    """EfficientNet-lite0 to its fifth stage, averaged in space; needs `medgen[perceptual]`."""

    path: Path | None = field(
        None, help="weights of an EfficientNet-lite0, instead of the installed package's"
    )

    def build(self, device: torch.device) -> Extractor:
        from medgen_builtins.features._efficientnet import EfficientNetExtractor

        return EfficientNetExtractor(self.path, device)


@hookimpl
def medgen_features() -> dict[str, type]:
    return {"efficientnet": Efficientnet}
