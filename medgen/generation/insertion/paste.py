"""The painter that learns nothing: a real lesion, blended in by Poisson's equation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from medgen.evaluation.blending import blend
from medgen.generation.insertion.painter import Array, Crop

NAME = "paste"
"""What it is called in place of a model."""
MARGIN = 4.0
"""mm around a lesion in which its surroundings go over into the host's."""


class Paste:
    """Copies the lesion of a donor, on the level of the host around it; the control that a model has to beat."""

    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    axis = "axial"
    margin = MARGIN

    def __init__(self, channels: tuple[str, ...]):
        self.channels = channels

    def paint(self, crops: Sequence[Crop], seeds: Sequence[int]) -> list[Array]:
        """Blend each donor in. Nothing is drawn, so seeds change nothing."""
        return [_pasted(crop) for crop in crops]


def _pasted(crop: Crop) -> Array:
    assert crop.donor is not None
    return blend(crop.image, _alone(crop.donor), crop.region, crop.spacing)


def _alone(donor: Crop) -> Array:
    """The donor's scan with nothing but the lesion and tissue: air and other lesions are what is nearest of it.

    Else the step to them would count as a detail of the lesion's surroundings.
    """
    kept = donor.region | donor.mask
    nearest = ndimage.distance_transform_edt(~kept, donor.spacing, return_distances=False, return_indices=True)
    return np.stack([image[tuple(nearest)] for image in donor.image])
