"""The painter that learns nothing: a real lesion, blended in by Poisson's equation."""

from __future__ import annotations

from collections.abc import Sequence

from medgen.data.grid import Grid
from medgen.evaluation.blending import blend
from medgen.generation.insertion.painter import NONE, Array, Crop, Numbers

NAME = "paste"
"""What it is called in place of a model."""
MARGIN = 4.0
"""mm around a lesion in which its surroundings go over into the host's."""


class Paste:
    """Copies the lesion of a donor, on the level of the host around it; the control that a model
    has to beat.
    """

    grid: Grid | None = None
    margin = MARGIN

    def __init__(self, channels: tuple[str, ...]):
        self.channels = channels

    def numbers(self, crops: Sequence[Crop], seed: int) -> Numbers:
        """Draw nothing: a donor is as it is."""
        return {}

    def paint(
        self, crops: Sequence[Crop], seeds: Sequence[int], numbers: Numbers = NONE
    ) -> list[Array]:
        """Blend each donor in. Nothing is drawn, so seeds change nothing."""
        return [_pasted(crop) for crop in crops]


def _pasted(crop: Crop) -> Array:
    assert crop.donor is not None
    kept = crop.donor.region | crop.donor.mask
    return blend(crop.image, crop.donor.image, crop.region, crop.spacing, kept, crop.head)
