"""Find the head in a scan."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from medgen.data.scans.nifti import gate
from medgen.data.store.foreground.detect import foreground
from medgen.data.store.head import Head

STEP, FINE = 2, 48
"""Every so many voxels are looked at for the box, along axes of at least so many: an eighth of the
work.
"""
SPECK = 0.01
"""Share of the foreground below which a part of its own is no head."""


def locate(volume: gate.Volume) -> Head:
    """Return the head in a scan."""
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
        ends = tuple(
            slice(int(start), int(stop) + by)
            for start, stop, by in zip(low, high, step, strict=True)
        )
        filled = _refined(filled, foreground(volume.data), step)
        filled[ends] = _filled(filled[ends])  # in the box, as it takes its time
    text = base64.b64encode(zlib.compress(np.packbits(filled).tobytes())).decode()
    return Head(list(volume.data.shape), list(volume.spacing), low, high, step, text)


def _without_specks(inside: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(inside, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes >= min(SPECK * sizes.sum(), sizes.max()))[parts])


def _filled(solid: np.ndarray) -> np.ndarray:
    """Return the head with all between its parts along two axes, such as a cavity at the rim."""
    between = [_between(solid, axis) for axis in range(3)]
    return np.asarray(
        solid | (between[0] & between[1]) | (between[0] & between[2]) | (between[1] & between[2])
    )


def _refined(filled: np.ndarray, inside: np.ndarray, step: Sequence[int]) -> np.ndarray:
    """Label every voxel as the sampled ones around it where these agree, else by `inside`."""
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
