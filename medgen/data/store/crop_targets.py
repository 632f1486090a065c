"""What is to be painted of a crop: its own lesion and a margin around it; all other lesions belong
to the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, np.dtype[Any]]


def mark(masks: Array, middles: Array, margin: float, spacing: Sequence[float]) -> Array:
    """Set masks of crops to 1 in the lesion, 0 in the margin around it, and -1 elsewhere; float16.

    masks: `[crop, mask, *size]`, set where > 0. middles: `[crop, axis]`, px; the lesion is the
    connected part of the masks together that is nearest, touching corners connected. margin,
    spacing: mm.
    """
    out: Array = np.full(masks.shape, -1, np.float16)
    for marked, each, middle in zip(out, masks > 0, middles, strict=True):
        own, others = nearest(each.any(0), middle)
        marked[:, region(own, margin, spacing) & ~others] = 0
        marked[each & own] = 1
    return out


def nearest(mask: Array, middle: Sequence[int] | Array) -> tuple[Array, Array]:
    """Split a mask `[*size]` into the lesion nearest to a place, px, and the others with the pixels
    that touch them.
    """
    parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    if count < 2:
        return mask, np.zeros_like(mask)
    where = np.argwhere(mask)
    closest = where[np.argmin(np.square(where - np.asarray(middle)).sum(1))]
    own = parts == parts[tuple(closest)]
    return own, ndimage.binary_dilation(mask & ~own, np.ones((3,) * mask.ndim)) & ~own


def region(mask: Array, margin: float, spacing: Sequence[float]) -> Array:
    """Return where a mask, bool `[*size]`, or a pixel at most `margin` mm away from it lies;
    spacing: mm per axis.
    """
    if not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing) <= margin)
