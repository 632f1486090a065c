"""Places for a lesion: where alike ones lie in other heads, in tissue like theirs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from medgen.api.numbers import RING
from medgen.generation.insertion.cases import Case
from medgen.generation.insertion.frame import Frame, depths
from medgen.generation.insertion.lesions import MIDLINE, Lesion, bins
from medgen.generation.insertion.shapes import Patch

Array = np.ndarray[Any, np.dtype[Any]]

CANDIDATES = 256
"""Places that are drawn around a lesion's own; of those that are free, the one most like its own is
taken.
"""
SPREAD = 0.05
"""Deviation of the places, in the head's own units: about 4 mm to the side, 8 mm to the front and
to the top.
"""
SHALLOWER = 0.8
"""A lesion lies between this share of its own depth and its own depth divided by it: most places in a
head are deeper than lesions are.
"""
DEEPER = 2.0
"""mm below its own depth that a lesion may always lie."""
SMOOTH = 0.8
"""mm of the blur before tissue is compared, so that noise is not."""
RING_SAMPLE, MASK_SAMPLE = 800, 400
"""Voxels that are compared at most: of the surroundings, and of what the lesion covers."""
COVERED = 0.05
"""Weight of how unlikely the tissue is that a lesion covers, in nats, beside differences of its
surroundings.
"""
CHUNK = 1 << 22
"""Voxels that are looked at at once."""


class Found(NamedTuple):
    """A place. centre: int64 `[3]`, voxels. unlike: distance of its surroundings from the lesion's.
    usual: the mean of that over all places where the lesion fits.
    """

    centre: Array
    unlike: float
    usual: float


class Ground:
    """A host in which lesions are put one after the other.

    unlikely: `[channel, bin]`, as in `Library`. gap: mm that stay between two lesions.
    """

    def __init__(self, case: Case, unlikely: Array, gap: float):
        self.case, self.unlikely, self.gap = case, unlikely, gap
        self.frame = Frame.of(case.head, case.spacing)
        self.depth = depths(case.head, case.spacing)
        sigma = [0.0, *(SMOOTH / mm for mm in case.spacing)]
        self.tissue = ndimage.gaussian_filter(np.clip(case.images, 0, 1), sigma)
        self.take(case.lesion)

    def take(self, lesion: Array) -> None:
        """Let no other lesion come near these voxels, bool `[x, y, z]`."""
        if lesion.any():
            box = ndimage.find_objects(lesion.astype(np.uint8))[0]
            reach = [int(np.ceil(self.gap / mm)) for mm in self.case.spacing]
            wide = tuple(
                slice(max(0, part.start - by), part.stop + by)
                for part, by in zip(box, reach, strict=True)
            )
            near = ndimage.distance_transform_edt(~lesion[wide], self.case.spacing) <= self.gap
            self.depth[wide][near] = -1

    def free(
        self, lesion: Lesion, mask: Array, mirrored: bool, rng: np.random.Generator, spread: float
    ) -> Array:
        """Draw places around a lesion's own, or its mirror image's, and keep those where it fits, as
        deep as its own if there are such: int64 `[place, 3]`.

        mask: bool, the lesion on the host's grid, its centre in the middle. spread: deviation of
        the places, in the head's own units.
        """
        own = lesion.where * [-1 if mirrored else 1, 1, 1]
        centres = self.frame.voxels(own + spread * rng.standard_normal((CANDIDATES, 3)))
        centres = np.unique(centres, axis=0)
        offsets = _offsets(mask)
        least = max(SHALLOWER * lesion.depth, 1e-3)
        centres = centres[self._depth(centres, _some(offsets, MASK_SAMPLE)) >= least]
        depth = self._depth(centres, offsets)
        fits = depth >= least
        fits[fits] = self._beside_the_midline(centres[fits], offsets) | lesion.crosses
        alike = fits & (depth <= max(lesion.depth / SHALLOWER, lesion.depth + DEEPER))
        return np.asarray(centres[alike if alike.any() else fits])

    def best(self, centres: Array, patch: Patch) -> Found:
        """Return the place that is most like the lesion's own."""
        unlike = self._unlike(centres, patch, _offsets(patch.mask))
        best = int(np.argmin(unlike))
        usual = max(float(unlike.mean()), 1e-9)  # a divisor
        return Found(centres[best], float(unlike[best]), usual)

    def _depth(self, centres: Array, offsets: Array) -> Array:
        """Return mm of a lesion's shallowest voxel below the head's surface, `[place]`; below 0
        where it does not fit into the volume or comes near another.
        """
        shape = np.array(self.depth.shape)
        inside = ((centres + offsets.min(0) >= 0) & (centres + offsets.max(0) < shape)).all(1)
        weights = np.array([shape[1] * shape[2], shape[2], 1])
        flat, starts, steps = self.depth.ravel(), centres[inside] @ weights, offsets @ weights
        least = [flat[one[:, None] + steps].min(1) for one in _chunks(starts, len(steps))]
        depth = np.full(len(centres), -1.0)
        depth[inside] = np.concatenate([*least, np.zeros(0)])
        return depth

    def _beside_the_midline(self, centres: Array, offsets: Array) -> Array:
        """Return whether a lesion lies on one side, `[place]`."""
        tilt = self.frame.side(offsets) - self.frame.side(np.zeros((1, 3)))
        side = self.frame.side(centres)
        return np.asarray((side + tilt.min() >= -MIDLINE) | (side + tilt.max() <= MIDLINE))

    def _unlike(self, centres: Array, patch: Patch, offsets: Array) -> Array:
        """Return how far places are from the lesion's own, `[place]`: around it, and beneath it."""
        around = self._around(patch)
        covered = self._at(centres, _some(offsets, MASK_SAMPLE))
        unlike = COVERED * self._surprise(covered)
        if patch.images is None or not len(around):
            return unlike + COVERED * (
                self._surprise(self._at(centres, around)) if len(around) else 0
            )
        sigma = [0.0, *(SMOOTH / mm for mm in self.case.spacing)]
        own = ndimage.gaussian_filter(np.clip(patch.images, 0, 1), sigma)
        middle = np.array(patch.mask.shape) // 2
        x, y, z = (around + middle).T
        wanted = own[:, x, y, z][:, None]
        return np.asarray(unlike + np.abs(self._at(centres, around) - wanted).mean((0, 2)))

    def _around(self, patch: Patch) -> Array:
        """Return some offsets of a lesion's surroundings."""
        ring = ~patch.mask & (
            ndimage.distance_transform_edt(~patch.mask, self.case.spacing) <= RING
        )
        if patch.clear is not None:
            ring &= patch.clear
        return _some(_offsets(ring), RING_SAMPLE)

    def _at(self, centres: Array, offsets: Array) -> Array:
        """Return the host's tissue, `[channel, place, offset]`; 0 outside of the volume."""
        shape = np.array(self.depth.shape)
        voxels = centres[:, None] + offsets
        inside = ((voxels >= 0) & (voxels < shape)).all(-1)
        x, y, z = np.moveaxis(np.clip(voxels, 0, shape - 1), -1, 0)
        return np.asarray(np.where(inside, self.tissue[:, x, y, z], 0))

    def _surprise(self, values: Array) -> Array:
        """Return minus the mean log frequency of such intensities around lesions, `[place]`."""
        return np.asarray(
            np.mean(
                [
                    row[bins(channel)].mean(1)
                    for row, channel in zip(self.unlikely, values, strict=True)
                ],
                axis=0,
            )
        )


def _offsets(mask: Array) -> Array:
    """Return a mask's voxels from the middle of its array, int64 `[n, 3]`."""
    return np.asarray(np.argwhere(mask) - np.array(mask.shape) // 2)


def _some(offsets: Array, most: int) -> Array:
    """Return at most so many of them, evenly."""
    if len(offsets) <= most:
        return offsets
    return offsets[np.linspace(0, len(offsets) - 1, most).astype(np.int64)]


def _chunks(starts: Array, each: int) -> list[Array]:
    """Return places in groups that need no more than CHUNK voxels."""
    count = max(1, CHUNK // max(1, each))
    return [starts[begin : begin + count] for begin in range(0, len(starts), count)]
