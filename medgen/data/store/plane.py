"""Slices and volumes on a grid of one size in millimetres: where the grid lies, and how voxels and
masks come to lie on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medgen.api.tables import DataSettings
from medgen.data.scans.nifti.gate import Volume
from medgen.data.store.head import Head
from medgen.data.store.resample import resample, weights
from medgen.data.store.small_lesions import Shrunk, Sides, shrink
from medgen.data.store.spacing import SAME, on_grid


class Plane(NamedTuple):
    """What a volume's samples are resampled to: the square of its slices, or a box of itself.
    pixel: the side of its pixels, mm.

    within: the axes of the volume that a sample has. shape: px along each. along: the weights of
    each. sides: per axis, the voxels' side (mm) and the grid's centre (voxels from the volume's
    first face). cut_off: mm of the head beyond the grid, on the side where most is.
    """

    within: tuple[int, ...]
    shape: tuple[int, ...]
    pixel: float
    sides: Sides
    along: Sequence[Any]
    cut_off: float

    @classmethod
    def of(cls, volume: Volume, settings: DataSettings, head: Head | None = None) -> Plane:
        """The grid around the head; without `data.spacing`, and for crops, around the whole scan."""
        if settings.crop != "none":
            return cls._whole(volume, settings)
        within, shape = settings.within, settings.shape
        counts, spacing = (
            [volume.data.shape[i] for i in within],
            [volume.spacing[i] for i in within],
        )
        pixel = settings.spacing or max(
            count * mm / size for count, mm, size in zip(counts, spacing, shape, strict=True)
        )
        if len(within) == 3:  # of slices too, this would change bytes of stores that are there
            spacing = _snapped(spacing, pixel)
        centres = [count / 2 for count in counts]
        cut_off = 0.0
        if settings.spacing and on_grid(counts, spacing, shape, pixel):
            spacing = [pixel] * len(shape)
        elif settings.spacing:
            box = [
                (head.low[i], head.high[i]) if head else (0.0, float(volume.data.shape[i]))
                for i in within
            ]
            centres = [
                _aligned(sum(ends) / 2, mm, pixel, size)
                for ends, mm, size in zip(box, spacing, shape, strict=True)
            ]
            beyond = [
                _beyond(ends, centre, mm, pixel * size)
                for ends, centre, mm, size in zip(box, centres, spacing, shape, strict=True)
            ]
            cut_off = max(beyond) if head and head.filled else 0.0
        return cls._along(within, shape, pixel, counts, spacing, centres, cut_off)

    @classmethod
    def _whole(cls, volume: Volume, settings: DataSettings) -> Plane:
        """The least square of pixels of `data.spacing` mm that holds the whole slice, or the least box
        of them that holds the volume.
        """
        within, pixel = settings.within, settings.spacing
        counts, spacing = (
            [volume.data.shape[i] for i in within],
            [volume.spacing[i] for i in within],
        )
        spacing = _snapped(spacing, pixel)
        shape = tuple(
            math.ceil(count * mm / pixel - SAME) + 1
            for count, mm in zip(counts, spacing, strict=True)
        )
        if len(within) == 2:
            shape = (max(shape),) * 2
        centres = [
            _aligned(count / 2, mm, pixel, size)
            for count, mm, size in zip(counts, spacing, shape, strict=True)
        ]
        return cls._along(within, shape, pixel, counts, spacing, centres, 0.0)

    @classmethod
    def _along(
        cls,
        within: tuple[int, ...],
        shape: tuple[int, ...],
        pixel: float,
        counts: list[int],
        spacing: list[float],
        centres: list[float],
        cut_off: float,
    ) -> Plane:
        sides = [*zip(spacing, centres, strict=True)]
        along = [
            weights(count, mm, pixel * size, size, centre)
            for count, size, (mm, centre) in zip(counts, shape, sides, strict=True)
        ]
        return cls(within, shape, pixel, sides, along, cut_off)

    def samples(self, data: np.ndarray) -> np.ndarray:
        """All slices of a volume, or the volume as the only sample, `[sample, *voxels]`."""
        across = [axis for axis in range(data.ndim) if axis not in self.within]
        return np.moveaxis(data, across[0], 0) if across else data[None]

    def resample(self, data: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """Some samples of a volume, `[sample, *shape]`."""
        return resample(self.samples(data)[shown], *self.along)

    def shrink(self, inside: np.ndarray) -> Shrunk:
        """Every sample of a mask."""
        return shrink(self.samples(inside), self.along, self.sides, self.pixel)

    def share(self, inside: np.ndarray) -> np.ndarray:
        """The share of the grid that is inside, `[sample]`."""
        area = math.prod(mm for mm, _ in self.sides)
        whole = math.prod(self.pixel * size for size in self.shape)
        counts = np.count_nonzero(inside, axis=self.within)
        return np.atleast_1d(np.asarray(counts * area / whole, np.float32))


def _snapped(spacing: Sequence[float], pixel: float) -> list[float]:
    """Return sizes of voxels, those that mean to be a pixel's as that."""
    return [pixel if math.isclose(mm, pixel, rel_tol=SAME) else mm for mm in spacing]


def _aligned(centre: float, spacing: float, pixel: float, size: int) -> float:
    """The nearest centre that puts a pixel's middle on a voxel's, so that equal sizes need no
    interpolation.
    """
    first = centre + (0.5 - size / 2) * pixel / spacing - 0.5
    return float(centre - first + np.round(first))


def _beyond(ends: tuple[float, float], centre: float, spacing: float, extent: float) -> float:
    low, high = ends
    return max(0.0, (centre - low) * spacing - extent / 2, (high - centre) * spacing - extent / 2)
