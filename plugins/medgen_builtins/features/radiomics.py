"""Radiomics features of the head, which need no weights (van Griethuysen et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import FeaturesSettings, field, gt, hookimpl, settings

if TYPE_CHECKING:
    import torch

    from medgen.api.interfaces import Extractor

medgen_api = 1


@settings
class Radiomics(FeaturesSettings):
    """46 features of first and second order of the head, standardised by the real images."""

    bin_width: float = field(
        2 / 32, help="width of a bin of grey levels, of images from -1 to 1", check=gt(0)
    )

    def build(self, device: torch.device) -> Extractor:
        from medgen_builtins.features._radiomics import RadiomicsExtractor

        return RadiomicsExtractor(self.bin_width)


@hookimpl
def medgen_features() -> dict[str, type]:
    return {"radiomics": Radiomics}
