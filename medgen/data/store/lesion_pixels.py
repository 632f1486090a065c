"""The rule by which lesions lie on another grid: each keeps its area, as the pixels that it covers
most.

A threshold on the cover alone rounds corners off: a single voxel larger than the pixels keeps 0.61
of its area, as 4 (1/2 - ln(2)/2) of the square of a bilinear interpolation exceeds 1/2; what is
large keeps its boundary either way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
DIGITS = 4
"""Decimals of a cover that count, as libraries for matrices differ in the last bit."""


class Cover(NamedTuple):
    """The share of each pixel that a lesion covers. rows, columns: the window of pixels that
    `share` is of.
    """

    rows: slice
    columns: slice
    share: Array


def cover(part: Array, left: Array, right: Array) -> Cover | None:
    """Weigh a lesion, bool `[row, column]`, by weights `[pixel, row]` and `[pixel, column]`; None
    if off the grid.
    """
    tall, wide = (np.flatnonzero(weights.any(axis=1)) for weights in (left, right))
    if not len(tall) or not len(wide):
        return None
    rows, columns = slice(tall[0], tall[-1] + 1), slice(wide[0], wide[-1] + 1)
    share = np.round(left[rows] @ part.astype(np.float32) @ right[columns].T, DIGITS)
    return Cover(rows, columns, share) if share.any() else None


def most_covered(share: Array, count: int) -> Array:
    """Choose up to `count` pixels of those that are covered, the most covered first; of equal ones
    the first.
    """
    chosen = np.zeros(share.shape, bool)
    chosen.ravel()[np.argsort(-share, axis=None, kind="stable")[:count]] = True
    return np.asarray(chosen & (share > 0))


def count_pixels(voxels: float | np.integer[Any], ratio: float) -> int:
    """Round the area of so many voxels to pixels. ratio: of a voxel's area to a pixel's."""
    return int(voxels * ratio + 0.5)
