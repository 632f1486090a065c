"""Metastases and the oedema around them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen_builtins.commands.demo.atlas import (
    Box,
    Grid,
    Mask,
    Rng,
    Volume,
    _linear,
    rotation,
    smooth_noise,
)
from medgen_builtins.commands.demo.tissue import Tissue, distance_to

MAX_LESIONS = 8


class Lesion(NamedTuple):
    """One metastasis. centre: voxel indices; radius: mm."""

    centre: NDArray[np.intp]
    radius: float


class Disease(NamedTuple):
    """All metastases of a patient as fractions of each voxel; `mask` is what enhances, with its
    core.
    """

    rim: Volume
    core: Volume
    oedema: Volume
    mask: Mask


def draw_lesions(rng: Rng, grid: Grid, tissue: Tissue) -> list[Lesion]:
    """1 to 8 metastases, mostly small, near the junction of grey and white matter."""
    count = min(int(rng.geometric(0.23)), MAX_LESIONS)
    diameters = [rng.uniform(12, 29), *(4.3 * 5 ** rng.uniform(0, 1, count - 1) ** 1.5)]
    junction = np.where(
        tissue.brain & (tissue.csf < 0.3), (4 * tissue.grey * tissue.white) ** 2 + 0.03, 0
    )
    depth = distance_to(~tissue.brain, grid)
    away = distance_to((tissue.csf > 0.6) & (depth > 20), grid)
    lesions: list[Lesion] = []
    for radius in np.array(diameters) / 2:
        allowed = (depth > 0.75 * radius + 2.5) & (away > radius + 1)
        for other in lesions:
            allowed &= _distance(grid, other.centre) > radius + other.radius + 4
        if (weights := np.cumsum(np.where(allowed, junction, 0))).size and weights[-1] > 0:
            chosen = np.searchsorted(weights, rng.uniform(0, weights[-1]), side="right")
            lesions.append(Lesion(np.array(np.unravel_index(chosen, grid.shape)), radius))
    return lesions


def _distance(grid: Grid, centre: NDArray[np.intp]) -> Volume:
    """From each voxel to the centre, mm."""
    x, y, z = (
        grid.spacing * (np.arange(n, dtype=np.float32) - c)
        for n, c in zip(grid.shape, centre, strict=True)
    )
    distance: Volume = np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2)
    return distance


def grow(rng: Rng, grid: Grid, tissue: Tissue, lesions: list[Lesion]) -> Disease:
    """Give metastases irregular outlines, the larger ones a necrotic core, and oedema that keeps to
    white matter.
    """
    rim, core, oedema = (np.zeros(grid.shape, np.float32) for _ in range(3))
    mask = np.zeros(grid.shape, bool)
    for lesion in lesions:
        box, whole, inner = _enhancing(rng, grid, lesion)
        core[box] = np.maximum(core[box], inner)
        rim[box] = np.maximum(rim[box], whole - inner)
        # A voxel can be larger than a lesion: the fullest one is always in the mask.
        mask[box] |= whole >= min(0.5, whole.max())
        box, around = _oedema(rng, grid, lesion)
        oedema[box] = np.maximum(oedema[box], around)
    spread = ndimage.gaussian_filter(tissue.white, 1.5 / grid.spacing)
    oedema *= (0.1 + 1.2 * spread).clip(0, 1) * (1 - tissue.csf)
    return Disease(
        rim * tissue.brain, core * tissue.brain, oedema * tissue.brain, mask & tissue.brain
    )


def _enhancing(rng: Rng, grid: Grid, lesion: Lesion) -> tuple[Box, Volume, Volume]:
    """The fractions of voxels in a box that are lesion, and that are its necrotic core."""
    box, rho = _ellipsoid(rng, grid, lesion, reach=1.5 * lesion.radius + 3, parts=3)
    extent = tuple(n * grid.spacing / 3 for n in rho.shape)
    coarse, fine = (
        smooth_noise(rng, extent, pitch * lesion.radius, rho.shape) for pitch in (1.1, 0.5)
    )
    rho *= 1 + 0.15 * coarse + 0.07 * fine
    rim = max(rng.uniform(0.36, 0.48), 2.6 / lesion.radius)
    necrotic = lesion.radius > 5 and rng.uniform() < 0.8
    inner = (rho + 0.12 * fine - 0.08 * coarse < 1 - rim) & necrotic
    return box, _mean_of_parts(rho < 1, 3), _mean_of_parts(inner, 3)


def _oedema(rng: Rng, grid: Grid, lesion: Lesion) -> tuple[Box, Volume]:
    """How much of the oedema that white matter can hold lies in the voxels of a box, 0..1."""
    width = rng.uniform(0.3, 1.8) * min(lesion.radius, 9) + rng.uniform(-1, 3)
    box, rho = _ellipsoid(rng, grid, lesion, reach=lesion.radius + width + 12, parts=1)
    extent = tuple(n * grid.spacing for n in rho.shape)
    outside = (rho - 1) * lesion.radius + 3.5 * smooth_noise(rng, extent, 14, rho.shape)
    around: Volume = 1 / (1 + np.exp(((outside - width) / 1.3).clip(-30, 30)))
    return box, around


def _ellipsoid(
    rng: Rng, grid: Grid, lesion: Lesion, reach: float, parts: int
) -> tuple[Box, Volume]:
    """The box within `reach` mm of a lesion, and the distance from its centre there, 1 on the
    surface of an ellipsoid.

    Each voxel of the box is divided into `parts` along each axis.
    """
    steps = int(np.ceil(reach / grid.spacing))
    low, high = (
        np.maximum(lesion.centre - steps, 0),
        np.minimum(lesion.centre + steps + 1, grid.shape),
    )
    axes = [
        grid.spacing * ((np.arange(parts * (b - a)) + 0.5) / parts - 0.5 + a - c).astype(np.float32)
        for a, b, c in zip(low, high, lesion.centre, strict=True)
    ]
    shape = rng.uniform(0.85, 1.2, (3, 1)) * rotation(rng.uniform(0, np.pi, 3)) / lesion.radius
    points = _linear(shape, np.stack(np.meshgrid(*axes, indexing="ij")))
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return box, np.sqrt((points**2).sum(0)).astype(np.float32)


def _mean_of_parts(fine: Mask, parts: int) -> Volume:
    """Fractions of voxels from their sub-voxels."""
    x, y, z = (n // parts for n in fine.shape)
    fractions: Volume = fine.reshape(x, parts, y, parts, z, parts).mean((1, 3, 5), dtype=np.float32)
    return fractions
