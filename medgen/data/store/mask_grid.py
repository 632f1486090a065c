"""Masks of one grid on another, centred, in millimetres: as labels, and every lesion with its area."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from medgen.data.grid import Grid
from medgen.data.store.lesion_pixels import Array, Cover, count_pixels, cover, most_covered
from medgen.data.store.resample import weights

SAME = 1e-3
"""How far two voxel sizes may be apart, as a share, that mean to be one."""
MOST = 4.0
"""How many times larger or smaller slices may be: beyond it most likely a unit is wrong."""
Window = tuple[slice, ...]
"""Of each axis of a slice or volume, from where to where."""


class Placed(NamedTuple):
    """Masks on another grid, bool `[mask, *grid.shape]`. outside: a part of a lesion lies beyond
    it.
    """

    masks: Array
    outside: bool


def is_same(shape: Sequence[int], spacing: Sequence[float], grid: Grid) -> bool:
    """Tell whether a slice or volume lies on the grid as it is."""
    return tuple(shape) == grid.shape and bool(
        np.allclose(spacing, grid.spacing, rtol=SAME, atol=0)
    )


def is_absurd(shape: Sequence[int], spacing: Sequence[float], grid: Grid) -> bool:
    """Tell whether neither the pixels nor the sides of a slice or volume are about as large as the
    grid's.
    """
    extent = max(count * mm for count, mm in zip(shape, spacing, strict=True))
    factors = (extent / max(grid.extent), max(spacing) / max(grid.spacing))
    return all(factor > MOST for factor in factors) or all(factor < 1 / MOST for factor in factors)


def place(
    masks: Array,
    spacing: Sequence[float],
    grid: Grid,
    middle: Sequence[float] | None = None,
    least: int = 0,
) -> Placed:
    """Bring masks of a slice or volume, bool `[mask, *size]` with pixels of `spacing` mm, to a grid.

    middle: where the grid's middle lies, pixels from the slice's first edges; the slice's own
    middle if None. Each lesion becomes the pixels that it covers most, as in the slice store, but
    none if it is too small, or as many as `least`. Masks that overlap, exclude or contain one
    another go on doing so: what is placed are the combinations of them, as labels.
    """
    sides = masks.shape[1:]
    middle = [count / 2 for count in sides] if middle is None else middle
    if is_same(sides, spacing, grid) and np.allclose(middle, np.array(grid.shape) / 2):
        return Placed(masks, outside=False)
    along = [
        weights(count, mm, extent, size, centre).toarray()
        for count, mm, extent, size, centre in zip(
            sides, spacing, grid.extent, grid.shape, middle, strict=True
        )
    ]
    ratio = math.prod(spacing) / grid.cell

    def covered(part: Array, window: Window) -> tuple[Cover, int] | None:
        own = cover(part, [each[:, side] for each, side in zip(along, window, strict=True)])
        if own is None:
            return None
        return own, max(least, count_pixels(np.count_nonzero(part), ratio))

    return Placed(
        lay(masks, grid.shape, covered), _beyond(np.asarray(masks.any(0)), spacing, grid, middle)
    )


def lay(
    masks: Array,
    shape: tuple[int, ...],
    covered: Callable[[Array, Window], tuple[Cover, int] | None],
) -> Array:
    """Lay masks, bool `[mask, *size]`, on a grid of another shape: each lesion becomes the pixels
    that it covers most, smaller ones first.

    covered: gives what a lesion, bool in its window, covers, and how many pixels it becomes; None if
    off the grid.
    """
    labels = np.tensordot(1 << np.arange(len(masks)), masks.astype(np.int64), 1)
    laid = np.zeros(shape, np.int64)
    smallest_first = sorted(_lesions(labels), key=lambda lesion: np.count_nonzero(lesion[1]))
    for label, part, window in smallest_first:
        if own := covered(part, window):
            found, count = own
            there = laid[found.window]
            there[most_covered(found.share * (there == 0), count)] = label
    bits = np.arange(len(masks)).reshape(-1, *(1,) * laid.ndim)
    return np.asarray(laid >> bits & 1).astype(bool)


def _lesions(labels: Array) -> Iterator[tuple[int, Array, Window]]:
    """Each connected part of each label: the label, the part in its window, and the window."""
    touching = np.ones((3,) * labels.ndim)
    for label in np.unique(labels[labels > 0]).tolist():
        parts, _ = ndimage.label(labels == label, touching)
        for number, window in enumerate(ndimage.find_objects(parts), 1):
            yield label, parts[window] == number, window


def _beyond(lesion: Array, spacing: Sequence[float], grid: Grid, middle: Sequence[float]) -> bool:
    """Whether the middle of any pixel of a lesion lies outside the grid."""
    away = (
        np.abs(np.arange(count) + 0.5 - centre) * mm
        for count, mm, centre in zip(lesion.shape, spacing, middle, strict=True)
    )
    beyond = [each > extent / 2 for each, extent in zip(away, grid.extent, strict=True)]
    return any(lesion.compress(each, axis).any() for axis, each in enumerate(beyond))
