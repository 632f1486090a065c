"""Crops around the lesions of each slice, cut out of whole slices at the scans' own resolution.

A lesion is a connected part of the slice's masks together; touching corners connect. What lies
beyond the slice is background. Crops are kept with a rim of `spare(size)` px, so that where exactly
they are cut may vary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, np.dtype[Any]]
FORMAT = 1
"""Part of a store's key: raise it with any change of what a crop is."""
SPARE = 8
"""The rim is the size divided by this."""


class Place(NamedTuple):
    """A lesion in a stack of slices. number: of the slice. middle: of its box, px. extent: its
    longest side, px.
    """

    number: int
    middle: tuple[int, ...]
    extent: int


def spare(size: int) -> int:
    """Return by how many px a crop of `size` px may be moved to each side."""
    return size // SPARE


def find(masks: Array) -> list[Place]:
    """List every lesion of every slice of a stack, bool `[slice, *size]`, in order."""
    shown = np.flatnonzero(masks.any(tuple(range(1, masks.ndim)))).tolist()
    return [place for number in shown for place in _of(masks, number)]


def _of(masks: Array, number: int) -> Iterator[Place]:
    parts, _ = ndimage.label(masks[number], np.ones((3,) * (masks.ndim - 1)))
    for box in ndimage.find_objects(parts):
        middle = tuple((each.start + each.stop) // 2 for each in box)
        yield Place(number, middle, max(each.stop - each.start for each in box))


def cut(stack: Array, places: list[Place], side: int, background: float) -> Array:
    """Cut `[place, side, ...]` out of a stack `[slice, *size]`, pixel `side // 2` in the middle."""
    out = np.full((len(places), *(side,) * (stack.ndim - 1)), background, stack.dtype)
    for crop, place in zip(out, places, strict=True):
        starts = [middle - side // 2 for middle in place.middle]
        ends = [
            min(start + side, count) for start, count in zip(starts, stack.shape[1:], strict=True)
        ]
        inside = tuple(slice(max(start, 0), end) for start, end in zip(starts, ends, strict=True))
        to = tuple(
            slice(each.start - start, each.stop - start)
            for each, start in zip(inside, starts, strict=True)
        )
        crop[to] = stack[place.number][inside]
    return out


def central(crops: Array, size: int) -> Array:
    """Return the middle `size` px of crops with their rim."""
    rim = spare(size)
    for axis in range(1, crops.ndim):
        crops = crops.take(range(rim, rim + size), axis)
    return crops
