"""Volumes of made-up heads: grey tissue, two dark ventricles, and bright lesions beside them, at 3 x 3 x 4 mm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

SHAPE = (48, 56, 32)
SPACING = (3.0, 3.0, 4.0)
ORIGIN = (-70.0, -80.0, -60.0)
AFFINE = np.array([[3, 0, 0, -70], [0, 3, 0, -80], [0, 0, 4, -60], [0, 0, 0, 1]], float)
BESIDE = 24.0
"""mm from the midplane to the middle of a lesion; a ventricle ends at 18 mm."""


def millimetres() -> np.ndarray:
    """Mm from the middle of the volume, `[3, x, y, z]`."""
    grid = np.indices(SHAPE) - (np.array(SHAPE).reshape(3, 1, 1, 1) - 1) / 2
    return grid * np.array(SPACING).reshape(3, 1, 1, 1)


def ellipsoid(centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    x = millimetres()
    return sum(((x[i] - centre[i]) / radii[i]) ** 2 for i in range(3)) < 1


def ventricles() -> np.ndarray:
    return ellipsoid((-12, 0, 0), (6, 22, 12)) | ellipsoid((12, 0, 0), (6, 22, 12))


def head(
    number: int, lesions: Sequence[Sequence[float]] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Values, float64 from 0 to about 900, and the mask. lesions: their centres, mm from the middle."""
    rng = np.random.default_rng([11, number])
    inside = ellipsoid((0, 0, 0), (62, 74, 56))
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.7)
    values = np.where(ventricles(), 150.0, 500.0) + 40 * texture / texture.std()
    if lesions is None:
        lesions = [(rng.choice([-1, 1]) * BESIDE, rng.uniform(-14, 14), rng.uniform(-6, 6))]
    mask = np.zeros(SHAPE, bool)
    for centre in lesions:
        mask |= ellipsoid(centre, rng.uniform(6.5, 9, 3))
    values = np.where(mask & ~ventricles(), values + 350, values)
    return np.where(inside, np.clip(values, 20, None), 0), mask & ~ventricles()


def write_heads(root: Path, numbers: range, masked: bool = True) -> Path:
    """Write `root/P<number>/{flair,seg}.nii.gz`."""
    for number in numbers:
        values, mask = head(number)
        folder = root / f"P{number:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values.astype(np.int16), AFFINE), folder / "flair.nii.gz")
        if masked:
            nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), folder / "seg.nii.gz")
    return root
