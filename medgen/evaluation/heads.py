"""Where the head is in slices that lie in [-1, 1] with a background of -1, real or generated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

DARK = -0.9
"""Values below are background: a twentieth of the range, above what a generator leaves in the air."""


def heads_of(images: np.ndarray) -> np.ndarray:
    """Return bool `[sample, height, width]`: each slice's largest bright part, holes filled.

    images: `[sample, channel, height, width]`; a pixel is bright if any channel is, also after a
    blur of 0.7 px, which removes single pixels of noise. Empty where nothing is bright.
    """
    brightest = images.max(1)
    bright = (brightest > DARK) & (
        ndimage.gaussian_filter(brightest, (0, 0.7, 0.7), mode="nearest") > DARK
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
    """The bounding boxes of heads, pixels: low and high, each int64 `[sample, 2]`, high excluded."""

    low: np.ndarray
    high: np.ndarray


def boxes_of(heads: np.ndarray) -> Boxes:
    """Return the box of each head; the whole slice where there is none."""
    low = np.zeros((len(heads), 2), np.int64)
    high = np.tile(np.array(heads.shape[1:], np.int64), (len(heads), 1))
    for axis in (0, 1):
        along: np.ndarray = np.any(heads, axis=2 - axis)
        found = along.any(1)
        low[found, axis] = along.argmax(1)[found]
        high[found, axis] = along.shape[1] - along[:, ::-1].argmax(1)[found]
    return Boxes(low, high)


def boxed(images: np.ndarray, boxes: Boxes, size: int) -> np.ndarray:
    """Return float32 `[sample, channel, size, size]`: each head's box, stretched bilinearly."""
    steps = (np.arange(size) + 0.5) / size
    places = boxes.low[:, :, None] + (boxes.high - boxes.low)[:, :, None] * steps - 0.5
    limits = np.array(images.shape[2:])[None, :, None] - 1
    places = np.clip(places, 0, limits)
    before = np.minimum(places.astype(np.int64), limits - 1)
    rest = (places - before).astype(np.float32)
    row = np.arange(len(images))[:, None, None]
    (top, left), (down, right) = (
        (part[:, 0, :, None], part[:, 1, None, :]) for part in (before, rest)
    )
    upper, lower = (
        images[row, :, top + step, left] * (1 - right[..., None])
        + images[row, :, top + step, left + 1] * right[..., None]
        for step in (0, 1)
    )
    return np.moveaxis(upper * (1 - down[..., None]) + lower * down[..., None], -1, 1)
