"""Flips and small affine changes of slices and volumes, each a function of its sample's place in the
run alone.

Images are interpolated linearly, and beyond their edges is air. Of masks each lesion keeps its area,
in a volume its volume, as in `mask_grid`, but for what a change of scale makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import grid_sample

from medgen import seeds
from medgen.api.augment import AugmentSettings
from medgen.data.grid import Grid
from medgen.data.store.lesion_pixels import DIGITS, Cover, count_pixels
from medgen.data.store.mask_grid import Window, lay

Array = np.ndarray[Any, np.dtype[Any]]
AIR = -1.0
"""The background of an image, and where a mask is not set."""


class Change(NamedTuple):
    """What is done to a sample: flipped, then turned by `angles`, scaled and moved, about its middle.

    angles: radians in each plane of two axes, from the first of these to the second; of a slice one.
    scale: of a side. shift: px of each axis.
    """

    flipped: bool
    angles: tuple[float, ...] = (0.0,)
    scale: float = 1.0
    shift: tuple[int, ...] = (0, 0)


class Augmentation:
    """Changes samples `[channel, *grid.shape]` in [-1, 1]. Draws nothing but from streams of its own.

    Raises ValueError for flips of slices that do not show both sides.
    """

    def __init__(self, settings: AugmentSettings, seed: int, grid: Grid):
        self.settings, self.seed, self.grid = settings, seed, grid
        self.side = grid.left_right
        if settings.flip and self.side is None:
            raise ValueError("sagittal slices have no left and right")

    def draw(self, place: int) -> Change:
        """Draw the change of the sample at a place in the run, from 0."""
        stream, wanted = seeds.stream(self.seed, "augment", place), self.settings
        axes = len(self.grid.shape)
        planes = len(_planes(axes))
        count = 1 + planes + 1 + axes
        chance, *rest = torch.rand(count, generator=stream, dtype=torch.float64).tolist()
        *angles, scale = (2 * each - 1 for each in rest[: planes + 1])
        shift = (2 * each - 1 for each in rest[planes + 1 :])
        moved = (
            round(each * wanted.shift / mm)  # whole px, so that a shift alone blurs nothing
            for each, mm in zip(shift, self.grid.spacing, strict=True)
        )
        return Change(
            chance < wanted.flip,
            tuple(each * math.radians(wanted.rotate) for each in angles),
            (1 + wanted.scale) ** scale,
            tuple(moved),
        )

    def changed(self, slices: Array, masks: Sequence[bool], place: int) -> Array:
        """Return the channels of the sample at a place as they are trained on. masks: which of them
        are masks.
        """
        change = self.draw(place)
        if not self.settings.affine:
            return np.flip(slices, 1 + (self.side or 0)) if change.flipped else slices
        affine = Affine.of(change, self.side, self.grid.shape)
        out, is_mask = np.empty_like(slices), np.asarray(masks, bool)
        images = torch.from_numpy(slices[~is_mask].astype(np.float32)) - AIR
        everywhere = tuple(slice(0, count) for count in self.grid.shape)
        out[~is_mask] = (_at(images, affine.sources(everywhere)) + AIR).numpy()
        out[is_mask] = np.where(moved(slices[is_mask] > 0, affine), 1.0, AIR)
        return out


class Affine(NamedTuple):
    """Maps px of a sample to px of the changed sample, and back; 0 is the middle of the first px.

    matrix: float64 `[axis, axis]`, about the middle. shift: px, afterwards. shape: of the sample.
    ratio: by which areas, or volumes, grow.
    """

    matrix: Array
    shift: Array
    shape: tuple[int, ...]
    ratio: float

    @classmethod
    def of(cls, change: Change, side: int | None, shape: tuple[int, ...]) -> Affine:
        """Return the map of a change. side: axis that a flip is along."""
        axes = len(shape)
        matrix = np.eye(axes)
        for plane, angle in zip(_planes(axes), change.angles, strict=True):
            cos, sin, turn = math.cos(angle), math.sin(angle), np.eye(axes)
            turn[np.ix_(plane, plane)] = [[cos, -sin], [sin, cos]]
            matrix = matrix @ turn
        matrix *= change.scale
        if change.flipped:
            matrix[:, side] *= -1
        return cls(matrix, np.array(change.shift, np.float64), shape, change.scale**axes)

    @property
    def middle(self) -> Array:
        """Return the middle of a sample, px."""
        return (np.array(self.shape) - 1) / 2

    def targets(self, at: Array) -> Array:
        """Tell where points `[point, axis]` of a sample come to lie."""
        return np.asarray((at - self.middle) @ self.matrix.T + self.middle + self.shift)

    def sources(self, window: Window) -> list[Array]:
        """Tell where the px of a window come from, per axis `[*window]`."""
        back, middle = np.linalg.inv(self.matrix), self.middle.tolist()
        offsets = [
            each - centre - by
            for each, centre, by in zip(np.ogrid[window], middle, self.shift.tolist(), strict=True)
        ]
        return [
            sum(weight * each for weight, each in zip(row, offsets, strict=True)) + centre
            for row, centre in zip(back.tolist(), middle, strict=True)
        ]


def moved(masks: Array, affine: Affine) -> Array:
    """Move masks, bool `[mask, *shape]`, each lesion with its area times `affine.ratio`.

    A lesion of which a part leaves the sample keeps the area of the rest.
    """
    return lay(masks, affine.shape, partial(_cover, affine))


def _cover(affine: Affine, part: Array, window: Window) -> tuple[Cover, int] | None:
    """Return what a lesion, bool in its window, covers when it is moved, and how many px it becomes."""
    starts, shape, axes = [each.start for each in window], affine.shape, len(window)
    targets = affine.targets(np.argwhere(part) + starts)
    inside = np.all((targets > -0.5) & (targets < np.array(shape) - 0.5), axis=1)
    if not inside.any():
        return None
    # of linear interpolation, along a diagonal
    reach = math.sqrt(axes * affine.ratio ** (2 / axes))
    ends = zip(targets.min(0) - reach, targets.max(0) + reach, shape, strict=True)
    reached = tuple(
        slice(max(0, math.floor(low)), min(count, math.ceil(high) + 1)) for low, high, count in ends
    )
    points = zip(affine.sources(reached), starts, strict=True)
    values = torch.from_numpy(part.astype(np.float32))[None]
    share = _at(values, [each - start for each, start in points])[0].numpy()
    count = count_pixels(np.count_nonzero(inside), affine.ratio)
    return Cover(reached, np.round(share, DIGITS)), count


def _planes(axes: int) -> list[tuple[int, int]]:
    """List the planes in which a sample may be turned, as pairs of axes."""
    return [*combinations(range(axes), 2)]


def _at(values: torch.Tensor, points: Sequence[Array]) -> torch.Tensor:
    """Interpolate `[channel, *size]` linearly at points, px per axis `[*out]`; 0 beyond the edges."""
    ends = [  # torch's places are -1 and 1 at the outer edges, the last axis first
        (2 * each + 1) / count - 1 for each, count in zip(points, values.shape[1:], strict=True)
    ]
    grid = torch.from_numpy(np.stack(ends[::-1], axis=-1).astype(np.float32))
    return grid_sample(values[None], grid[None], padding_mode="zeros", align_corners=False)[0]
