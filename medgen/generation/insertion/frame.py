"""A head's own coordinates: places that mean the same in heads of other size, position and tilt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, np.dtype[Any]]

WIDE = 0.5
"""Share of the greatest width that a row of voxels needs to tell where the middle is."""
ROUNDS = 3
"""Fits of the midplane, each without the rows that are farthest off the one before."""


@attrs.frozen(eq=False)
class Frame:
    """Where a head lies in a canonical volume.

    middle: `[3]`, the midplane: right of the first voxel by `middle @ (1, y, z)` voxels. spacing:
    mm along each axis. back, top: mm of the head's ends from the first voxel. half, length, height:
    mm from the midplane to the side, from back to front, and from bottom to top.
    """

    middle: Array
    spacing: Array
    back: float
    top: float
    half: float
    length: float
    height: float

    @classmethod
    def of(cls, head: Array, spacing: Sequence[float]) -> Frame:
        """Find it from the head's voxels, bool `[x, y, z]`."""
        mm = np.asarray(spacing, np.float64)
        where = [np.flatnonzero(head.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        low, high = (np.array([each[end] for each in where]) * mm for end in (0, -1))
        middle = _middle(head)
        return cls(
            middle,
            mm,
            low[1],
            high[2],
            max((high - low)[0] / 2, mm[0]),
            max((high - low)[1], mm[1]),
            (high - low)[2],
        )

    def side(self, voxels: Array) -> Array:
        """Return mm to the right of the midplane, `[n]`, of voxels `[n, 3]`."""
        x, y, z = np.asarray(voxels, np.float64).T
        return np.asarray((x - self.middle @ np.stack([np.ones_like(y), y, z])) * self.spacing[0])

    def place(self, voxels: Array) -> Array:
        """Return `[n, 3]`: from the midplane to the right, in halves of the width; from the back,
        and from the top, in lengths. The top, as scans end anywhere below the brain.
        """
        _, y, z = (np.asarray(voxels, np.float64) * self.spacing).T
        return np.stack(
            [
                self.side(voxels) / self.half,
                (y - self.back) / self.length,
                (z - self.top) / self.length,
            ],
            1,
        )

    def voxels(self, places: Array) -> Array:
        """Return the nearest voxels, int64 `[n, 3]`, of places `[n, 3]`."""
        y = (places[:, 1] * self.length + self.back) / self.spacing[1]
        z = (places[:, 2] * self.length + self.top) / self.spacing[2]
        x = places[:, 0] * self.half / self.spacing[0] + self.middle @ np.stack(
            [np.ones_like(y), y, z]
        )
        nearest: Array = np.rint(np.stack([x, y, z], 1))
        return nearest.astype(np.int64)


def depths(head: Array, spacing: Sequence[float]) -> Array:
    """Return mm of each voxel below the head's surface, float32 `[x, y, z]`, 0 outside; where the
    volume ends is surface.
    """
    made = np.zeros(head.shape, np.float32)
    for box in ndimage.find_objects(head.astype(np.uint8)):
        made[box] = ndimage.distance_transform_edt(np.pad(head[box], 1), spacing)[1:-1, 1:-1, 1:-1]
    return made


def _middle(head: Array) -> Array:
    """Fit a plane to the middles of the head's rows from left to right."""
    wide = head.any(0)
    first, last = head.argmax(0), head.shape[0] - 1 - head[::-1].argmax(0)
    width = np.where(wide, last - first + 1, 0)
    y, z = np.nonzero(width >= max(1.0, WIDE * width.max()))
    middles, weight = (first[y, z] + last[y, z]) / 2, np.sqrt(width[y, z])
    columns = np.stack([np.ones(len(y)), y, z], 1)
    kept = np.ones(len(y), bool)
    for _ in range(ROUNDS):
        left, right = columns[kept] * weight[kept, None], middles[kept] * weight[kept]
        plane = np.linalg.lstsq(left, right, rcond=None)[0]
        off = np.abs(middles - columns @ plane)
        kept = off <= max(0.5, 2 * float(np.median(off)))
    return np.asarray(plane)
