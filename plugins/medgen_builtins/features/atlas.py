"""Likeness to other real heads: arrangement, where texture may be perfect and anatomy wrong.

Networks that average over space are content with mottle of the right spectrum; an eye looks for
ventricles and a midline where other heads have them. No weights, no training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import Extractor, FeaturesSettings, field, ge, hookimpl, settings

if TYPE_CHECKING:
    import torch

medgen_api = 1


@settings
class Atlas(FeaturesSettings):
    """How like a slice is to the nearest real ones and to its mirror image, as is usual at that
    height of the head.
    """

    heights: int = field(
        12, help="parts that heads are divided into from bottom to top", check=ge(1)
    )
    most: int = field(600, help="real slices to compare with, drawn at random", check=ge(12))

    anatomy = True

    def build(self, device: torch.device) -> Extractor:
        from medgen_builtins.features._atlas import AtlasExtractor

        return AtlasExtractor(self.heights, self.most)


@hookimpl
def medgen_features() -> dict[str, type]:
    return {"atlas": Atlas}
