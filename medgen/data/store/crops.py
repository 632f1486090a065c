"""Crops around the lesions of each slice or volume, cut out of whole ones at the scans' own
resolution.

A lesion is a connected part of the masks of a slice or volume together; touching corners connect.
What lies beyond is background. Crops are kept with a rim of `spare(shape)` px, so that where exactly
they are cut may vary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, np.dtype[Any]]
FORMAT = 1
"""Part of a store's key: raise it with any change of what a crop is."""
SPARE = 8
"""The rim is the least side divided by this."""


class Place(NamedTuple):
    """A lesion in a stack of slices or volumes. number: of these. middle: of its box, px. extent: its
    longest side, px.
    """

    number: int
    middle: tuple[int, ...]
    extent: int


def spare(shape: Sequence[int]) -> int:
    """Return by how many px a crop may be moved to each side."""
    return min(shape) // SPARE


def with_rim(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the px along each axis that are kept of a crop."""
    return tuple(size + 2 * spare(shape) for size in shape)


def find(masks: Array) -> list[Place]:
    """List every lesion of every sample of a stack, bool `[sample, *size]`, in order."""
    shown = np.flatnonzero(masks.any(tuple(range(1, masks.ndim)))).tolist()
    return [place for number in shown for place in _of(masks, number)]


def _of(masks: Array, number: int) -> Iterator[Place]:
    parts, _ = ndimage.label(masks[number], np.ones((3,) * (masks.ndim - 1)))
    for box in ndimage.find_objects(parts):
        middle = tuple((each.start + each.stop) // 2 for each in box)
        yield Place(number, middle, max(each.stop - each.start for each in box))


def cut(stack: Array, places: list[Place], shape: Sequence[int], background: float) -> Array:
    """Cut `[place, *shape]` out of a stack `[sample, *size]`, the middles at half of each side."""
    out = np.full((len(places), *shape), background, stack.dtype)
    for crop, place in zip(out, places, strict=True):
        starts = [middle - side // 2 for middle, side in zip(place.middle, shape, strict=True)]
        ends = [
            min(start + side, count)
            for start, side, count in zip(starts, shape, stack.shape[1:], strict=True)
        ]
        inside = tuple(slice(max(start, 0), end) for start, end in zip(starts, ends, strict=True))
        to = tuple(
            slice(each.start - start, each.stop - start)
            for each, start in zip(inside, starts, strict=True)
        )
        crop[to] = stack[place.number][inside]
    return out


def central(crops: Array, shape: Sequence[int]) -> Array:
    """Return crops, `[crop, *shape]`, without their rim."""
    rim = spare(shape)
    inner = (slice(None), *(slice(rim, rim + size) for size in shape))
    return crops[inner]
