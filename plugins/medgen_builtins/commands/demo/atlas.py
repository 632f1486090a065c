"""The template's tissue maps, and grids of patients in its space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medgen.errors import Problem, RecipeError

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rng = np.random.Generator
Box = tuple[slice, ...]
FIELD_OF_VIEW = (192.0, 216.0, 188.0)
"""Right-left, posterior-anterior and inferior-superior, mm: the largest warped brain and a few mm
of air.
"""
CENTRE = (0.0, -17.0, 7.0)
"""Of the field of view in MNI coordinates, mm: the middle of the template's brain."""
TEMPLATE_CSF, TEMPLATE_GREY, TEMPLATE_WHITE = 0.28, 0.38, 0.60
"""The template's T1, 0..1, as a least-squares fit: CSF, and what grey and white matter add to it."""


class Grid(NamedTuple):
    """The voxels of a patient: RAS, the same spacing on every axis."""

    shape: tuple[int, int, int]
    spacing: float

    @classmethod
    def of(cls, spacing: float) -> Grid:
        """Return the grid that covers the field of view at `spacing` mm."""
        x, y, z = (round(length / spacing) for length in FIELD_OF_VIEW)
        return cls((x, y, z), spacing)

    @property
    def affine(self) -> NDArray[np.float64]:
        """Map voxel indices to mm."""
        affine = np.diag([self.spacing] * 3 + [1.0])
        affine[:3, 3] = np.array(CENTRE) - self.spacing * (np.array(self.shape) - 1) / 2
        return affine


class Atlas(NamedTuple):
    """The template. maps: `[4, x, y, z]`, grey, white, what T1 shows beyond these two, and brain."""

    maps: Volume
    affine: NDArray[np.float64]


def atlas_files() -> list[Path]:
    """Find T1, grey and white matter of the template without importing nilearn, which is slow."""
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise RecipeError(
            Problem(
                "data demo",
                "nilearn, which carries the brain template, is missing",
                "Run pip install 'medgen[demo]'",
            )
        )
    folder = Path(spec.origin).parent / "datasets" / "data"
    files = [
        folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        for name in ("t1", "gm", "wm")
    ]
    if lost := [file for file in files if not file.is_file()]:
        raise RecipeError(
            Problem(
                lost[0],
                "is not in the nilearn that is installed",
                "Run pip install 'nilearn==0.14.1'",
            )
        )
    return files


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """Read the template."""
    images = [nibabel.load(file) for file in atlas_files()]
    t1, grey, white = (np.asarray(image.dataobj, dtype=np.float32) / 255 for image in images)
    brain = (t1 > 0).astype(np.float32)
    detail = (t1 - TEMPLATE_CSF - TEMPLATE_GREY * grey - TEMPLATE_WHITE * white) * brain
    return Atlas(np.stack([grey, white, detail, brain]), images[0].affine)


def smooth_noise(rng: Rng, extent: Sequence[float], pitch: float, shape: Sequence[int]) -> Volume:
    """Draw noise of unit variance over `pitch` mm in `extent` mm, the same at any resolution."""
    weights = [_spline_weights(length / pitch, n) for length, n in zip(extent, shape, strict=True)]
    field = rng.standard_normal([each.shape[1] for each in weights], dtype=np.float32)
    for each in weights:
        field = np.einsum("kij,nk->ijn", field, each)  # not a matrix product: see _linear
    return field


def _spline_weights(knots: float, points: int) -> Volume:
    """Cubic B-spline weights `[points, knots]` at evenly spaced points, scaled to keep the variance
    of white noise.
    """
    at = (np.arange(points, dtype=np.float32)[:, None] + 0.5) / points * knots
    d = np.abs(at + 1 - np.arange(int(np.ceil(knots)) + 3))
    weights = np.where(d < 1, (4 - 6 * d**2 + 3 * d**3), (2 - d).clip(0, None) ** 3)
    scaled: Volume = (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def noise_field(rng: Rng, grid: Grid, pitch: float) -> Volume:
    """Draw `smooth_noise` over the whole field of view."""
    return smooth_noise(rng, FIELD_OF_VIEW, pitch, grid.shape)


def rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotate about x, then y, then z, in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    product: NDArray[np.float64] = z @ y @ x
    return product


def warp(rng: Rng, grid: Grid) -> NDArray[np.float64]:
    """Return where in MNI space each voxel takes its tissue from, mm, `[3, *shape]`: head pose and
    size, then local shape.
    """
    linear = rotation(rng.normal(0, np.deg2rad([4, 2.5, 3]))) / rng.uniform(0.92, 1.03, 3)
    middle = (np.array(grid.shape).reshape(3, 1, 1, 1) - 1) / 2
    points = _linear(linear * grid.spacing, np.indices(grid.shape) - middle)
    for pitch, deviation in ((70, 3.0), (28, 1.7), (13, 1.0)):
        for axis in points:
            axis += deviation * noise_field(rng, grid, pitch)
    off_centre = points.mean((1, 2, 3)) - np.array(CENTRE) + rng.normal(0, 1, 3)
    centred: NDArray[np.float64] = points - off_centre.reshape(3, 1, 1, 1)
    return centred


def _linear(matrix: NDArray[Any], points: NDArray[Any]) -> NDArray[np.float64]:
    """Return `matrix @ points[:, i]` for every i."""
    # einsum, since the last bits of a BLAS product may depend on the number of threads.
    product: NDArray[np.float64] = np.einsum("ij,j...->i...", matrix, points)
    return product


def sample(atlas: Atlas, points: NDArray[np.float64]) -> Volume:
    """Return the template's maps `[4, x, y, z]` at `points` in MNI space, mm."""
    inverse = np.linalg.inv(atlas.affine)
    voxels = _linear(inverse[:3, :3], points) + inverse[:3, 3].reshape(3, 1, 1, 1)
    return np.stack([ndimage.map_coordinates(each, voxels, order=1) for each in atlas.maps])
