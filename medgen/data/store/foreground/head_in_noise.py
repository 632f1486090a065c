"""The head in noise that is darker than it, and the rim of a head."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import ndimage

from medgen.data.store.foreground.fills import edges

NOT_NOISE = 0.01
"""The least share of all bright voxels that a connected part of a head has."""
RAGGED = 0.5
"""Least share of a head that touches nothing outside; a tenth of it is its rim, in noise it is two
thirds.
"""
DIM = 0.75
"""Part of Otsu's threshold that counts as bright, as tissue varies more than air; good down to a
signal of 4 noises.
"""


def without_rim(inside: np.ndarray) -> np.ndarray:
    """Return voxels that touch none outside, also by corners; the volume's end is no rim."""
    for axis in range(3):
        inner = inside.copy(order="K")
        within, kept = np.moveaxis(inside, axis, 0), np.moveaxis(inner, axis, 0)
        kept[1:] &= within[:-1]
        kept[:-1] &= within[1:]
        inside = inner
    return inside


def head(data: np.ndarray) -> np.ndarray:
    """Return the large bright parts, with all that they enclose."""
    dark = float(data.min())
    return large_parts(data > dark + DIM * (otsu(data) - dark))


def large_parts(bright: np.ndarray) -> np.ndarray:
    """Return parts that are large enough for a head, with all that they enclose."""
    parts, count = ndimage.label(bright)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    solid = (sizes >= min(NOT_NOISE * sizes.sum(), sizes.max()))[parts]
    solid &= bright
    gaps, count = ndimage.label(~solid)
    outside = np.zeros(count + 1, bool)
    outside[_corners(gaps)] = True
    return np.asarray(~outside[gaps] | solid)


def _corners(gaps: np.ndarray) -> np.ndarray:
    """Return the gaps at the corners of a volume, or else at its edges: others that meet its faces
    are cut through by them.
    """
    corners = np.array([gaps[place] for place in product((0, -1), repeat=3)])
    return corners if corners.any() else np.concatenate([*edges(gaps)])


def otsu(data: np.ndarray) -> float:
    """Return the threshold of a histogram of 256 bins that best separates two (Otsu 1979, eq. 18)."""
    low, high = float(data.min()), float(np.percentile(data, 99.9))
    counts, edges = np.histogram(data, 256, (low, high))
    if np.count_nonzero(counts) < 2:  # all that is bright is beyond
        counts, edges = np.histogram(data, 256, (low, float(data.max())))
    centres = (edges[1:] + edges[:-1]) / 2
    omega = np.cumsum(counts) / counts.sum()
    mu = np.cumsum(counts * centres) / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mu[-1] * omega - mu) ** 2 / (omega * (1 - omega))
    return float(edges[1 + np.nanargmax(between[:-1])])
