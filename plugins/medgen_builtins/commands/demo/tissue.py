"""The tissue of a made-up brain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.data.store.nifti_writer import WHITE
from medgen_builtins.commands.demo.atlas import Grid, Mask, Rng, Volume, noise_field

LEVELS = tuple(round(WHITE * third / 3) for third in (1, 2, 3))
"""What an image of tissues shows of CSF, grey matter and white matter; 0 outside the brain."""


class Tissue(NamedTuple):
    """A patient's healthy anatomy: fractions in 0..1 that sum to 1 in the brain, and T1 detail
    around 0.
    """

    csf: Volume
    grey: Volume
    white: Volume
    detail: Volume
    vessels: Volume
    brain: Mask

    def image(self) -> NDArray[np.int16]:
        """Return the mean of `LEVELS` in each voxel by its fractions, without noise or lesions."""
        csf, grey, white = LEVELS
        mean = csf * self.csf + grey * self.grey + white * self.white
        shown: NDArray[np.int16] = np.rint(mean * self.brain).astype(np.int16)
        return shown


def make_tissue(rng: Rng, grid: Grid, maps: Volume) -> Tissue:
    """Sharpen the average brain to one brain, with sulci and ventricles as wide as they are at some
    random age.
    """
    grey, white, detail, brain = maps
    csf = (1 - grey - white).clip(0.004, 1)
    depth = distance_to(brain < 0.5, grid)
    ventricles = ndimage.gaussian_filter(
        ((csf > 0.5) & (depth > 18)).astype(np.float32), 3.5 / grid.spacing
    )
    age = rng.uniform(0, 1)
    sulci = (0.8 + 1.4 * age) * np.exp(
        0.45 * noise_field(rng, grid, 25) + 0.4 * noise_field(rng, grid, 8)
    )
    fractions = (
        np.stack([csf * sulci + 1.6 * age * ventricles, grey.clip(0, 1), white.clip(0, 1)]) ** 1.8
    )
    fractions /= fractions.sum(0)
    vessels = _vessels(rng, grid, fractions[0] * brain * (1 - 2 * ventricles).clip(0, 1))
    csf, grey, white = fractions
    return Tissue(csf, grey, white, detail, vessels, _skull_stripped(brain, grid))


def _vessels(rng: Rng, grid: Grid, csf: Volume) -> Volume:
    """Short pieces of vessels where there is CSF."""
    vessels: Volume = (1.5 * noise_field(rng, grid, 4) - 1.2).clip(0, 1) * csf
    return vessels


def _skull_stripped(brain: Volume, grid: Grid, closing: float = 9.0, margin: float = 1.5) -> Mask:
    """The brain with its sulci filled and `margin` mm of CSF, as brain extraction leaves it."""
    near = distance_to(brain > 0.5, grid) < closing
    stripped: Mask = distance_to(~near, grid) > closing - margin
    return stripped


def distance_to(target: Mask, grid: Grid) -> Volume:
    """From each voxel to the nearest one of `target`, mm."""
    distance: Volume = ndimage.distance_transform_edt(~target, sampling=grid.spacing).astype(
        np.float32
    )
    return distance
