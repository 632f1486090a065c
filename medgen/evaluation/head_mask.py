"""The head in a generated slice, and how much of a lesion lies outside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, np.dtype[Any]]

DARK = 0.08
"""Share of the way from the background to bright tissue at which head begins."""
PART = 0.05
"""Share of the largest part below which another is a speck, not head."""
MARGIN = 1
"""px around the head that count as head: where tissue ends is known no better."""


def head(image: Array) -> Array:
    """The head in a slice `[h, w]` in [-1, 1], bool: bright parts, without specks, ventricles and sulci filled."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), max(0.5, min(image.shape) / 128))
    border = np.concatenate([smooth[0], smooth[-1], smooth[:, 0], smooth[:, -1]])
    dark, bright = float(np.median(border)), float(np.quantile(smooth, 0.97))
    if not bright > dark:
        return np.zeros(image.shape, bool)
    labels, count = ndimage.label(smooth > dark + DARK * (bright - dark))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    parts = (areas >= max(1, PART * areas.max()))[labels]
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(parts, 3), iterations=2))[3:-3, 3:-3] | parts
    return np.asarray(ndimage.binary_dilation(filled, iterations=MARGIN))


def outside(images: Array, mask: Array) -> float:
    """Share of a lesion, bool `[h, w]`, that lies outside the head of slices `[channel, h, w]`; 0 without a lesion."""
    area = np.count_nonzero(mask)
    return float(np.count_nonzero(mask & ~head(images.mean(0)))) / area if area else 0.0
