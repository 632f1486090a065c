"""Lesions keep their area on every grid, and large ones their boundary.

Covers: medgen.data.store.lesion_pixels, medgen.data.store.mask_grid.
"""

from __future__ import annotations

import numpy as np
import pytest

from medgen.data.grid import Grid
from medgen.data.store.mask_grid import place
from medgen.data.store.resample import resample, weights
from medgen.data.store.small_lesions import Shrunk, shrink

SIZE = 64
RATIOS = {"half": 0.5, "equal": 1.0, "larger": 2 / 1.32, "twice": 2.0, "thrice": 3.0}
"""Side of a voxel, in pixels of 1 mm."""


def discs(diameter: float, voxel: float, count: int = 12) -> np.ndarray:
    """A disc of so many mm per slice, at different places, of one voxel at least."""
    side, rng = int(SIZE / voxel), np.random.default_rng(0)
    along = (np.arange(side) + 0.5) * voxel
    middles = rng.uniform(0.35 * SIZE, 0.65 * SIZE, (count, 2, 1))
    far = (along[:, None] - middles[:, :1]) ** 2 + (along - middles[:, 1:]) ** 2
    return (far < (diameter / 2) ** 2) | (far == far.min(axis=(1, 2), keepdims=True))


def shrunk(inside: np.ndarray, voxel: float, centre: float | None = None) -> Shrunk:
    middle = inside.shape[1] / 2 + 0.3 if centre is None else centre
    along = weights(inside.shape[1], voxel, SIZE, SIZE, middle)
    return shrink(inside, (along, along), ((voxel, middle), (voxel, middle)), 1.0)


@pytest.mark.parametrize("diameter", [0.0, 2.0, 3.0, 5.0, 8.0, 20.0])
@pytest.mark.parametrize("voxel", RATIOS.values(), ids=RATIOS)
def test_every_lesion_has_the_area_that_is_nearest_to_its_own(diameter, voxel):
    """Issue 10, point 9: a voxel of 2 mm kept 0.44 of its area at pixels of 1.32 mm, by a threshold on the cover."""
    inside = discs(diameter, voxel)
    areas = shrunk(inside, voxel).stack.sum(axis=(1, 2))
    expected = inside.sum(axis=(1, 2)) * voxel**2
    assert np.abs(areas - np.maximum(1, expected)).max() <= 0.5


@pytest.mark.parametrize("voxel", RATIOS.values(), ids=RATIOS)
def test_a_large_lesion_keeps_its_boundary(voxel):
    """No pixel changes that a threshold of a half decides clearly."""
    inside = discs(24.0, voxel)
    along = weights(inside.shape[1], voxel, SIZE, SIZE, inside.shape[1] / 2 + 0.3)
    cover = resample(inside.astype(np.float32), along, along)
    changed = shrunk(inside, voxel).stack != (cover > 0.5)
    assert changed.sum(axis=(1, 2)).max() < 0.03 * 144 * np.pi
    assert np.abs(cover[changed] - 0.5).max(initial=0) < 0.1


def test_a_lesion_across_the_end_of_the_grid_does_not_swell_there():
    inside = np.zeros((1, 40, 40), bool)
    inside[0, 10:16, :20] = True
    out = shrunk(inside, 1.0, centre=42.0).stack  # the grid begins at voxel 10
    assert out.sum() == 6 * 10


def test_two_lesions_side_by_side_keep_the_area_of_both():
    inside = np.zeros((1, 64, 64), bool)
    inside[0, 30:34, 30:33] = inside[0, 30:34, 34:37] = True
    along = weights(64, 1.0, 64.0, 32)
    both = shrink(inside, (along, along), ((1.0, 32.0),) * 2, 2.0).stack
    assert both.sum() == 2 * 3


def test_masks_of_a_folder_and_masks_to_train_on_lie_on_a_grid_alike():
    inside = discs(7.0, 1.5)
    middle = inside.shape[1] / 2
    placed = place(inside[:, None][0], (1.5, 1.5), Grid.of_slices(SIZE, 1.0, "axial")).masks
    assert np.array_equal(placed, shrunk(inside[:1], 1.5, middle).stack)
