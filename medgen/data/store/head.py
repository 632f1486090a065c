"""A head: its box, and whether each voxel of the volume is in it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NEAR = 3.0
"""mm around the head that count as head for a lesion, as masks and brains are cut out with
different tools.
"""


class Head(NamedTuple):
    """A patient's head, as plain values. shape, spacing: of the volume. low, high: its box, voxels
    from the first face.

    step: voxels per voxel that the box was looked for in. filled: where a lesion may be, packed,
    empty where no scan tells.
    """

    shape: Sequence[int]
    spacing: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    step: Sequence[int] = (1, 1, 1)
    filled: str = ""

    def width(self, axis: int) -> float:
        """The longer side of the box across an axis, mm."""
        return max((self.high[i] - self.low[i]) * self.spacing[i] for i in range(3) if i != axis)

    def room(self, axis: int) -> float:
        """The length along an axis that holds the box, wherever in its voxels the head ends, mm."""
        return (self.high[axis] - self.low[axis] + self.step[axis]) * self.spacing[axis]

    def air(self, inside: np.ndarray) -> tuple[float, float]:
        """The shares of a mask that lie outside the head, and so far outside that no tool's edge
        explains it.
        """
        if not self.filled or tuple(self.shape) != inside.shape or not inside.any():
            return 0.0, 0.0
        where = np.nonzero(inside)
        filled = self._unpacked()
        outside = float(np.mean(~filled[where]))
        return outside, float(np.mean(~self._near(filled, where))) if outside else 0.0

    def voxels(self) -> int:
        """How many of the volume's voxels are head; 0 where no scan tells."""
        return int(np.count_nonzero(self._unpacked())) if self.filled else 0

    def covered(self, inside: np.ndarray) -> float:
        """The share of the head that a mask covers, at most 1; 0 where no scan tells."""
        head = self.voxels() if tuple(self.shape) == inside.shape else 0
        return min(1.0, float(np.count_nonzero(inside)) / head) if head else 0.0

    def _unpacked(self) -> np.ndarray:
        bits = np.frombuffer(zlib.decompress(base64.b64decode(self.filled)), np.uint8)
        return np.unpackbits(bits, count=int(np.prod(self.shape))).reshape(self.shape).astype(bool)

    def _near(self, filled: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        """Tell which of some voxels are in the head or `NEAR` it."""
        from scipy import ndimage

        reaches = [max(1, round(NEAR / mm)) for mm in self.spacing]
        starts = [
            max(0, int(each.min()) - reach) for each, reach in zip(where, reaches, strict=True)
        ]
        ends = [int(each.max()) + reach + 1 for each, reach in zip(where, reaches, strict=True)]
        around = filled[tuple(map(slice, starts, ends))].astype(np.uint8)
        for axis, reach in enumerate(reaches):
            around = ndimage.maximum_filter1d(around, 2 * reach + 1, axis, mode="constant")
        return np.asarray(
            around[tuple(each - start for each, start in zip(where, starts, strict=True))] > 0
        )
