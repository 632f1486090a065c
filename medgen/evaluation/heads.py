"""Where the head is in slices or volumes that lie in [-1, 1] with a background of -1, real or
generated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

DARK = -0.9
"""Values below are background: a twentieth of the range, above what a generator leaves in the air."""


def heads_of(images: np.ndarray) -> np.ndarray:
    """Return bool `[sample, *space]`: the largest bright part of each slice or volume, holes filled.

    images: `[sample, channel, *space]`; a pixel is bright if any channel is, also after a
    blur of 0.7 px, which removes single pixels of noise. Empty where nothing is bright.
    """
    brightest = images.max(1)
    bright = (brightest > DARK) & (
        ndimage.gaussian_filter(brightest, (0, *(0.7,) * (brightest.ndim - 1)), mode="nearest")
        > DARK
    )
    for each in bright:
        each[:] = _largest(each)
    return np.asarray(bright)


def _largest(bright: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(bright)
    if not count:
        return bright
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(parts == sizes.argmax()))


class Boxes(NamedTuple):
    """The bounding boxes of heads, pixels: low and high, each int64 `[sample, axis]`, high
    excluded.
    """

    low: np.ndarray
    high: np.ndarray


def boxes_of(heads: np.ndarray) -> Boxes:
    """Return the box of each head; the whole slice or volume where there is none."""
    axes = heads.ndim - 1
    low = np.zeros((len(heads), axes), np.int64)
    high = np.tile(np.array(heads.shape[1:], np.int64), (len(heads), 1))
    for axis in range(axes):
        along: np.ndarray = np.any(heads, axis=tuple(1 + n for n in range(axes) if n != axis))
        found = along.any(1)
        low[found, axis] = along.argmax(1)[found]
        high[found, axis] = along.shape[1] - along[:, ::-1].argmax(1)[found]
    return Boxes(low, high)


def boxed(images: np.ndarray, boxes: Boxes, size: int) -> np.ndarray:
    """Return float32 `[sample, channel, size, ...]`: each head's box, stretched linearly along each
    axis.
    """
    steps = (np.arange(size) + 0.5) / size
    places = boxes.low[:, :, None] + (boxes.high - boxes.low)[:, :, None] * steps - 0.5
    limits = np.array(images.shape[2:])[None, :, None] - 1
    places = np.clip(places, 0, limits)
    before = np.minimum(places.astype(np.int64), limits - 1)
    rest = (places - before).astype(np.float32)
    each = zip(images, before, rest, strict=True)
    made = [_stretched(*one) for one in each]
    return np.stack(made) if made else np.zeros((0, images.shape[1], *(size,) * rest.shape[1]))


def _stretched(image: np.ndarray, before: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Interpolate `[channel, *space]` at places along each axis. before: `[axis, place]`, the points
    below. rest: their distance from the places.
    """
    for axis in range(len(before), 0, -1):
        share = rest[axis - 1].reshape(-1, *(1,) * (len(before) - axis))
        low, high = (image.take(before[axis - 1] + step, axis) for step in (0, 1))
        image = low * (1 - share) + high * share
    return image
