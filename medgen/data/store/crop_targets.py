"""What is to be painted of a crop: its own lesion and a margin around it within the head; all
other lesions belong to the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, np.dtype[Any]]


def mark(
    masks: Array, images: Array, middles: Array, margin: float, spacing: Sequence[float]
) -> Array:
    """Set masks of crops to 1 in the lesion, 0 in the margin around it, and -1 elsewhere; float16.

    masks: `[crop, mask, *size]`, set where > 0. images: `[crop, channel, *size]`, -1 around the
    head. middles: `[crop, axis]`, px; the lesion is the connected part of the masks together that
    is nearest, touching corners connected. margin, spacing: mm.
    """
    out: Array = np.full(masks.shape, -1, np.float16)
    for marked, each, image, middle in zip(out, masks > 0, images, middles, strict=True):
        own, others = nearest(each.any(0), middle)
        marked[:, region(own, inside(image, -1), margin, spacing) & ~others] = 0
        marked[each & own] = 1
    return out


def inside(image: Array, background: float) -> Array:
    """Return the head in a crop, bool `[*size]`: all that no way leads to from its edge over pixels
    of the background, in each channel of `[channel, *size]`.
    """
    return np.asarray(ndimage.binary_fill_holes((image > background).any(0)))


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


def region(mask: Array, head: Array, margin: float, spacing: Sequence[float]) -> Array:
    """Return a mask, bool `[*size]`, dilated by `margin` mm within the head; spacing: mm per axis."""
    return np.asarray(mask | (grown(mask, spacing, margin) & head))


def grown(mask: Array, spacing: Sequence[float], margin: float) -> Array:
    """Dilate a mask, bool `[*size]`, by all voxels whose centres are at most `margin` mm from one
    of it.
    """
    made = np.zeros_like(mask)
    for box in ndimage.find_objects(mask.astype(np.uint8)):
        wide = tuple(
            slice(max(0, part.start - int(margin / mm) - 1), part.stop + int(margin / mm) + 1)
            for part, mm in zip(box, spacing, strict=True)
        )
        made[wide] = ndimage.distance_transform_edt(~mask[wide], spacing) <= margin
    return made
