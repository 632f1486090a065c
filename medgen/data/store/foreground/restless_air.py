"""The head in noise of the scan's full range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from medgen.data.store.foreground.fills import SAMPLE, edges, is_fill
from medgen.data.store.foreground.head_in_noise import RAGGED, large_parts, without_rim

LOUD, LEAST_QUIET = 0.03, 0.02
"""Variance of noise of the full range, as a share of the range squared (1/12 if all values are
equally likely), and the least share of the picture that is quieter than half of it.
"""
RIM_QUIET = 0.75
"""Part of the noise's variance that a voxel at the head's rim has at most; beside a plane a third
of it is noise, and two thirds of the next one's.
"""


def head_in_restless_air(data: np.ndarray, fills: Sequence[float]) -> np.ndarray | None:
    """Return the head where air has every value of heads, as in ratios of images; else None.

    The uniform image of MP2RAGE is one (Marques et al. 2010, equation 3). Tissue is what varies
    least around a voxel.
    """
    box = (
        ndimage.find_objects((~is_fill(data, fills)).view(np.uint8))[0]
        if fills
        else (slice(None),) * 3
    )
    picture = data[box]
    low, high = np.percentile(picture.ravel(order="K")[:: max(1, picture.size // SAMPLE)], [1, 99])
    if not low < high or _step_variance(picture) < LOUD * (high - low) ** 2:
        return None
    scaled = (picture - low) / np.float32(high - low)
    variance = _around(scaled * scaled) - _around(scaled) ** 2
    loud = np.median(np.concatenate([*edges(variance)]))
    quiet = variance < loud / 2
    quiet &= _around(quiet.astype(np.float32)) > 0.4  # without specks of the noise
    if np.mean(quiet) < LEAST_QUIET:
        return None
    inside = np.zeros(data.shape, bool)
    inside[box] = large_parts(quiet)
    inside[box] |= ndimage.binary_dilation(inside[box]) & (variance < RIM_QUIET * loud)
    solid = np.count_nonzero(without_rim(inside)) >= RAGGED * np.count_nonzero(inside)
    return inside if solid and not inside.all() else None


def _step_variance(picture: np.ndarray) -> float:
    """Return the variance of noise at a volume's edges, by the median step between neighbours."""
    steps = np.concatenate([np.abs(np.diff(line)) for line in edges(picture)])
    return float(np.median(steps) ** 2) if steps.size else 0.0


def _around(data: np.ndarray) -> np.ndarray:
    """Return the mean over a voxel and those that touch it; in a slab over those in its slice."""
    return np.asarray(
        ndimage.uniform_filter(
            data, [3 if 4 * side >= max(data.shape) else 1 for side in data.shape]
        )
    )
