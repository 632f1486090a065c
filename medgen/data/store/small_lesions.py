"""Masks on a coarser grid: each lesion keeps its area, and what is too small for the grid is
counted.

A part is a connected part of a mask in a single sample, a slice or the volume, and a lesion one in
the volume; touching corners connect. So the tip of a large lesion, which is a small part of a
slice, is kept, but the lesion does not count as too small.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage, sparse

from medgen.data.store.lesion_pixels import count_pixels, cover, most_covered

STEPS = (8.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.2, 2.0, 1.8, 1.6, 1.4, 1.2, 1.0)
"""Pixels tried, in voxels; of the last size each lies on a voxel, so all lesions are shown."""
PHASES = 4
"""Places of the grid that are tried, along each axis."""

Sides = Sequence[tuple[float, float]]
"""Of each axis of a sample: the voxels' side (mm), and the middle of the grid (voxels from the
first face).
"""


class Loss(NamedTuple):
    """A lesion that covers more than half of no pixel.

    area: of its largest slice, mm2, or its volume, mm3. needs: mm per pixel at which that is shown
    wherever the grid lies.
    """

    area: float
    needs: float


class Shrunk(NamedTuple):
    """A mask on a grid, bool `[sample, *size]`. found: how many lesions it had, outside: how many
    beyond the grid.

    lost: those that cover more than half of no pixel.
    """

    stack: np.ndarray
    found: int
    outside: int
    lost: list[Loss]


class _Part(NamedTuple):
    lesion: int
    position: int
    window: tuple[slice, ...]
    inside: np.ndarray


def shrink(
    inside: np.ndarray, along: Sequence[sparse.csr_array], sides: Sides, pixel: float
) -> Shrunk:
    """Bring a mask, bool `[sample, *voxels]`, to a grid of pixels of `pixel` mm. along: weights.

    Each part becomes the pixels that it covers most, as many as its area amounts to on the grid, at
    least one; the smallest part first, so that none takes a neighbour's only pixel.
    """
    shown = np.flatnonzero(inside.any(axis=tuple(range(1, inside.ndim))))
    out = np.zeros((len(inside), *(each.shape[0] for each in along)), bool)
    if not len(shown):
        return Shrunk(out, 0, 0, [])
    weights = [each.toarray() for each in along]
    within = [_within(*side, each, pixel) for side, each in zip(sides, weights, strict=True)]
    ratio = math.prod(mm for mm, _ in sides) / pixel ** len(sides)
    parts, small, seen = [*_parts(inside, shown)], dict[int, Loss](), set[int]()
    for part in sorted(parts, key=lambda part: np.count_nonzero(part.inside)):
        of_part = [each[:, where] for each, where in zip(weights, part.window, strict=True)]
        own = cover(part.inside, of_part)
        if own is None:
            continue
        on_grid = [each[where] for each, where in zip(within, part.window, strict=True)]
        held = np.count_nonzero(part.inside[np.ix_(*on_grid)])
        place = (shown[part.position], *own.window)
        window = out[place]
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
    """Every part of each sample that is `shown`, by its position among those."""
    connected = np.ones((3,) * inside.ndim, bool)
    within = np.zeros_like(connected)
    within[1] = True
    lesions, _ = ndimage.label(inside[shown[0] : shown[-1] + 1], connected)
    lesions = lesions[shown - shown[0]]
    parts, _ = ndimage.label(lesions > 0, within)
    for number, (where, *window) in enumerate(ndimage.find_objects(parts), start=1):
        place = (where.start, *window)
        own = parts[place] == number
        yield _Part(int(lesions[place][own][0]), where.start, tuple(window), own)


def _loss(part: _Part, sides: Sides) -> Loss:
    spacing = tuple(mm for mm, _ in sides)
    area = math.prod(spacing, start=float(np.count_nonzero(part.inside)))
    return Loss(area, _needs(part.inside.tobytes(), part.inside.shape, spacing))


@lru_cache(maxsize=4096)
def _needs(inside: bytes, shape: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    """The largest pixel (mm) that shows a lesion wherever the grid lies; small lesions are alike,
    so remembered.
    """
    part = np.frombuffer(inside, bool).reshape(shape).astype(np.float32)
    least, axes = min(spacing), len(shape)
    for step in STEPS[:-1]:
        pixel = step * least
        first, *others = (
            _anywhere(count, mm, pixel) for count, mm in zip(shape, spacing, strict=True)
        )
        share = np.einsum(_each_place(axes), first, part, *others, optimize=True)
        if share.max(axis=tuple(range(axes, 2 * axes))).min() > 0.5:
            return pixel
    return STEPS[-1] * least


def _each_place(axes: int) -> str:
    """Return the sums of `_needs` as `einsum` reads them: place, pixel and voxel of each axis."""
    places, pixels, voxels = (
        string.ascii_letters[start : start + axes] for start in range(0, 3 * axes, axes)
    )
    first, *others = map("".join, zip(places, pixels, voxels, strict=True))
    return f"{','.join([first, voxels, *others])}->{places}{pixels}"


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
