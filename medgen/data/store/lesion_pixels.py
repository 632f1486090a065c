"""The rule by which lesions lie on another grid: each keeps its area (in a volume its volume), as
the pixels that it covers most.

A threshold on the cover alone rounds corners off: a single voxel larger than the pixels keeps 0.61
of its area, as 4 (1/2 - ln(2)/2) of the square of a bilinear interpolation exceeds 1/2; what is
large keeps its boundary either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
DIGITS = 4
"""Decimals of a cover that count, as libraries for matrices differ in the last bit."""


class Cover(NamedTuple):
    """The share of each pixel that a lesion covers. window: the pixels that `share` is of."""

    window: tuple[slice, ...]
    share: Array


def cover(part: Array, weights: Sequence[Array]) -> Cover | None:
    """Weigh a lesion, bool `[*size]`, by weights `[pixel, voxel]` of each axis; None if off the
    grid.
    """
    reached = [np.flatnonzero(each.any(axis=1)) for each in weights]
    if not all(len(each) for each in reached):
        return None
    window = tuple(slice(each[0], each[-1] + 1) for each in reached)
    share = part.astype(np.float32)
    for axis, (each, pixels) in enumerate(zip(weights, window, strict=True)):
        share = along(share, each[pixels], axis)
    share = np.round(share, DIGITS)
    return Cover(window, share) if share.any() else None


def along(values: Array, weights: Array, axis: int) -> Array:
    """Weigh values `[*size]` along an axis by weights `[pixel, voxel]`."""
    if axis == 0:
        return np.tensordot(weights, values, 1)
    return np.moveaxis(np.tensordot(values, weights, (axis, 1)), -1, axis)


def most_covered(share: Array, count: int) -> Array:
    """Choose up to `count` pixels of those that are covered, the most covered first; of equal ones
    the first, in volumes the one nearest to the middle of all.

    The first ones alone would move a lesion by half a voxel where grids lie symmetrically.
    """
    chosen = np.zeros(share.shape, bool)
    keys = [-share.ravel()] if share.ndim < 3 else [_from_middle(share), -share.ravel()]
    chosen.ravel()[np.lexsort(keys)[:count]] = True
    return np.asarray(chosen & (share > 0))


def _from_middle(share: Array) -> Array:
    """Squared distance of each pixel from the middle of what is covered, px, flat."""
    places = np.indices(share.shape).reshape(share.ndim, -1)
    middle = places @ share.ravel() / max(float(share.sum()), 1e-9)
    return np.asarray(np.round(np.square(places - middle[:, None]).sum(0), DIGITS))


def count_pixels(voxels: float | np.integer[Any], ratio: float) -> int:
    """Round the area of so many voxels to pixels. ratio: of a voxel's area, or volume, to a
    pixel's.
    """
    return int(voxels * ratio + 0.5)
