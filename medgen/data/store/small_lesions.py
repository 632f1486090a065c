"""Masks on a coarser grid: each lesion keeps its area, and what is too small for the grid is
counted.

A part is a connected part of a mask in a single slice, and a lesion one in the volume; touching
corners connect. So the tip of a large lesion, which is a small part, is kept, but the lesion does
not count as too small.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage, sparse

from medgen.data.store.lesion_pixels import count_pixels, cover, most_covered

TOUCHING = np.zeros((3, 3, 3), bool)
TOUCHING[1] = True
"""Neighbours within a slice, `[slice, row, column]`."""
CONNECTED = np.ones((3, 3, 3), bool)
"""Neighbours in the volume."""
STEPS = (8.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.2, 2.0, 1.8, 1.6, 1.4, 1.2, 1.0)
"""Pixels tried, in voxels; of the last size each lies on a voxel, so all lesions are shown."""
PHASES = 4
"""Places of the grid that are tried, along each axis."""

Sides = tuple[tuple[float, float], tuple[float, float]]
"""Of rows and of columns: the voxels' side (mm), and the middle of the grid (voxels from the first
face).
"""


class Loss(NamedTuple):
    """A lesion that covers more than half of no pixel.

    area: of its largest slice, mm2. needs: mm per pixel at which that is shown wherever the grid
    lies.
    """

    area: float
    needs: float


class Shrunk(NamedTuple):
    """A mask on a grid, bool `[slice, size, size]`. found: how many lesions it had, outside: how
    many beyond the grid.

    lost: those that cover more than half of no pixel.
    """

    stack: np.ndarray
    found: int
    outside: int
    lost: list[Loss]


class _Part(NamedTuple):
    lesion: int
    position: int
    rows: slice
    columns: slice
    inside: np.ndarray


def shrink(
    inside: np.ndarray, rows: sparse.csr_array, columns: sparse.csr_array, sides: Sides, pixel: float,
) -> Shrunk:  # fmt: skip
    """Bring a mask, bool `[slice, row, column]`, to a grid of pixels of `pixel` mm.

    Each part becomes the pixels that it covers most, as many as its area amounts to on the grid, at
    least one; the smallest part first, so that none takes a neighbour's only pixel.
    """
    shown = np.flatnonzero(inside.any(axis=(1, 2)))
    out = np.zeros((len(inside), rows.shape[0], columns.shape[0]), bool)
    if not len(shown):
        return Shrunk(out, 0, 0, [])
    across, along = rows.toarray(), columns.toarray()
    each_side = zip(sides, (across, along), strict=True)
    within = [_within(*side, weights, pixel) for side, weights in each_side]
    ratio = sides[0][0] * sides[1][0] / pixel**2
    parts, small, seen = [*_parts(inside, shown)], dict[int, Loss](), set[int]()
    for part in sorted(parts, key=lambda part: np.count_nonzero(part.inside)):
        own = cover(part.inside, across[:, part.rows], along[:, part.columns])
        if own is None:
            continue
        held = np.count_nonzero(part.inside[within[0][part.rows]][:, within[1][part.columns]])
        window = out[shown[part.position], own.rows, own.columns]
        window |= most_covered(own.share * ~window, max(1, count_pixels(held, ratio)))
        if own.share.max() > 0.5:
            seen.add(part.lesion)
        else:
            loss = _loss(part, sides)
            small[part.lesion] = max(small.get(part.lesion, loss), loss)
    every, lost = {part.lesion for part in parts}, sorted(small.keys() - seen)
    return Shrunk(out, len(every), len(every - seen - small.keys()), [small[n] for n in lost])


def _within(spacing: float, centre: float, weights: np.ndarray, pixel: float) -> np.ndarray:
    """Tell which voxels along an axis have their middle on the grid."""
    pixels, voxels = weights.shape
    return np.asarray(np.abs(np.arange(voxels) + 0.5 - centre) * spacing <= pixels * pixel / 2)


def _parts(inside: np.ndarray, shown: np.ndarray) -> Iterator[_Part]:
    """Every part of each slice that is `shown`, by its position among those."""
    lesions, _ = ndimage.label(inside[shown[0] : shown[-1] + 1], CONNECTED)
    lesions = lesions[shown - shown[0]]
    parts, _ = ndimage.label(lesions > 0, TOUCHING)
    for number, (where, rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
        own = parts[where.start, rows, columns] == number
        yield _Part(
            int(lesions[where.start, rows, columns][own][0]), where.start, rows, columns, own
        )


def _loss(part: _Part, sides: Sides) -> Loss:
    (row, _), (column, _) = sides
    area = float(np.count_nonzero(part.inside)) * row * column
    return Loss(area, _needs(part.inside.tobytes(), part.inside.shape, row, column))


@lru_cache(maxsize=4096)
def _needs(inside: bytes, shape: tuple[int, int], row: float, column: float) -> float:
    """The largest pixel (mm) that shows a lesion wherever the grid lies; small lesions are alike,
    so remembered.
    """
    part = np.frombuffer(inside, bool).reshape(shape).astype(np.float32)
    least = min(row, column)
    for step in STEPS[:-1]:
        pixel = step * least
        left, right = _anywhere(shape[0], row, pixel), _anywhere(shape[1], column, pixel)
        share = np.einsum("apr,rc,bqc->abpq", left, part, right, optimize=True)
        if share.max(axis=(2, 3)).min() > 0.5:
            return pixel
    return STEPS[-1] * least


def _anywhere(count: int, spacing: float, pixel: float) -> np.ndarray:
    """Weights as of `resample.weights`, of grids that lie at several places, `[place, pixel,
    voxel]`.
    """
    reach = max(pixel, spacing)
    beyond = int(np.ceil(2 * reach / spacing)) + 1
    voxels = (np.arange(-beyond, count + beyond) + 0.5) * spacing
    pixels = np.arange(-1, int(np.ceil(count * spacing / pixel)) + 1)
    centres = (pixels + 0.5 + np.arange(PHASES)[:, None] / PHASES) * pixel
    kernel = np.clip(1 - np.abs(centres[..., None] - voxels) / reach, 0, None)
    kernel /= kernel.sum(axis=-1, keepdims=True)
    return np.asarray(kernel[..., beyond : beyond + count], np.float32)
