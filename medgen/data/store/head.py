"""A head: its box, and whether each voxel of the volume is in it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medgen.data.scans.nifti import gate

STEP, FINE = 2, 48
"""Every so many voxels are looked at for the box, along axes of at least so many: an eighth of the work."""
SPECK = 0.01
"""Share of the foreground below which a part of its own is no head."""
NEAR = 3.0
"""mm around the head that count as head for a lesion, as masks and brains are cut out with different tools."""


class Head(NamedTuple):
    """A patient's head, as plain values. shape, spacing: of the volume. low, high: its box, voxels from the first face.

    step: voxels per voxel that the box was looked for in. filled: where a lesion may be, packed, empty where no scan
    tells.
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
        """The side of the square across an axis that holds the box, wherever in its voxels the head ends, mm."""
        sides = [(self.high[i] - self.low[i] + self.step[i]) * self.spacing[i] for i in range(3) if i != axis]
        return max(sides)

    def air(self, inside: np.ndarray) -> tuple[float, float]:
        """The shares of a mask that lie outside the head, and so far outside that no tool's edge explains it."""
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
        starts = [max(0, int(each.min()) - reach) for each, reach in zip(where, reaches, strict=True)]
        ends = [int(each.max()) + reach + 1 for each, reach in zip(where, reaches, strict=True)]
        around = filled[tuple(map(slice, starts, ends))].astype(np.uint8)
        for axis, reach in enumerate(reaches):
            around = ndimage.maximum_filter1d(around, 2 * reach + 1, axis, mode="constant")
        return np.asarray(around[tuple(each - start for each, start in zip(where, starts, strict=True))] > 0)


def locate(volume: gate.Volume) -> Head:
    """The head in a scan."""
    from scipy import ndimage

    from medgen.data.store.foreground import foreground

    step = [STEP if count >= FINE else 1 for count in volume.data.shape]
    coarse = np.asfortranarray(volume.data[tuple(slice(None, None, each) for each in step)])
    if not np.ptp(coarse):  # it shows nothing but single voxels, and those were left out
        step, coarse = [1, 1, 1], volume.data
    solid = _without_specks(foreground(coarse))
    (box,) = ndimage.find_objects(solid.astype(np.uint8))
    low = [float(each.start * by) for each, by in zip(box, step, strict=True)]
    high = [
        float(min((each.stop - 1) * by + 1, count))
        for each, by, count in zip(box, step, volume.data.shape, strict=True)
    ]
    filled = _filled(solid)
    if max(step) > 1:
        ends = tuple(slice(int(start), int(stop) + by) for start, stop, by in zip(low, high, step, strict=True))
        filled = _refined(filled, foreground(volume.data), step)
        filled[ends] = _filled(filled[ends])  # in the box, as it takes its time
    text = base64.b64encode(zlib.compress(np.packbits(filled).tobytes())).decode()
    return Head(list(volume.data.shape), list(volume.spacing), low, high, step, text)


def _without_specks(inside: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    parts, count = ndimage.label(inside, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes >= min(SPECK * sizes.sum(), sizes.max()))[parts])


def _filled(solid: np.ndarray) -> np.ndarray:
    """The head with all that lies between its parts along two axes, such as a cavity at the rim."""
    between = [_between(solid, axis) for axis in range(3)]
    return np.asarray(solid | (between[0] & between[1]) | (between[0] & between[2]) | (between[1] & between[2]))


def _refined(filled: np.ndarray, inside: np.ndarray, step: Sequence[int]) -> np.ndarray:
    """The same of every voxel: as the looked-at ones around it where these agree, else whether it is `inside`."""
    every = some = filled
    for axis, (by, count) in enumerate(zip(step, inside.shape, strict=True)):
        before = np.arange(count) // by
        after = np.minimum(-(-np.arange(count) // by), filled.shape[axis] - 1)
        every = every.take(before, axis) & every.take(after, axis)
        some = some.take(before, axis) | some.take(after, axis)
    return np.asarray(every | (some & inside))


def _between(solid: np.ndarray, axis: int) -> np.ndarray:
    ahead = np.maximum.accumulate(solid, axis)
    behind = np.flip(np.maximum.accumulate(np.flip(solid, axis), axis), axis)
    return np.asarray(ahead & behind)
