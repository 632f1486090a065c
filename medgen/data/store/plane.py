"""Slices on a grid of one size in millimetres: where the grid lies, and how voxels and masks come
to lie on it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from medgen.api.tables import AXES, DataSettings
from medgen.data.scans.nifti.gate import Volume
from medgen.data.store.head import Head
from medgen.data.store.resample import resample, weights
from medgen.data.store.small_lesions import Shrunk, Sides, shrink
from medgen.data.store.spacing import SAME, on_grid


class Plane(NamedTuple):
    """The square that a volume's slices are resampled to. pixel: its pixels' side, mm.

    rows, columns: the weights of each axis. sides: per axis, the voxels' side (mm) and the square's
    centre (voxels from the volume's first face). cut_off: mm of the head beyond the square, on the
    side where most is.
    """

    axis: int
    size: int
    pixel: float
    sides: Sides
    rows: Any
    columns: Any
    cut_off: float

    @classmethod
    def of(cls, volume: Volume, settings: DataSettings, head: Head | None = None) -> Plane:
        """The square around the head; without `data.spacing`, and for crops, around the whole
        slice.
        """
        if settings.crop != "none":
            return cls._whole(volume, settings)
        axis, size = AXES.index(settings.axis), settings.image_size
        flat = [i for i in range(3) if i != axis]
        counts, spacing = [volume.data.shape[i] for i in flat], [volume.spacing[i] for i in flat]
        whole = max(count * mm for count, mm in zip(counts, spacing, strict=True))
        pixel = settings.spacing or whole / size
        centres = [count / 2 for count in counts]
        cut_off = 0.0
        if settings.spacing and on_grid(counts, spacing, size, pixel):
            spacing = [pixel, pixel]
        elif settings.spacing:
            box = [
                (head.low[i], head.high[i]) if head else (0.0, float(volume.data.shape[i]))
                for i in flat
            ]
            centres = [
                _aligned(sum(ends) / 2, mm, pixel, size)
                for ends, mm in zip(box, spacing, strict=True)
            ]
            beyond = [
                _beyond(*each, pixel * size) for each in zip(box, centres, spacing, strict=True)
            ]
            cut_off = max(beyond) if head and head.filled else 0.0
        return cls._along(axis, size, pixel, counts, spacing, centres, cut_off)

    @classmethod
    def _whole(cls, volume: Volume, settings: DataSettings) -> Plane:
        """The least square of pixels of `data.spacing` mm that holds the whole slice."""
        axis, pixel = AXES.index(settings.axis), settings.spacing
        flat = [i for i in range(3) if i != axis]
        counts, spacing = [volume.data.shape[i] for i in flat], [volume.spacing[i] for i in flat]
        spacing = [pixel if math.isclose(mm, pixel, rel_tol=SAME) else mm for mm in spacing]
        size = (
            math.ceil(
                max(count * mm / pixel for count, mm in zip(counts, spacing, strict=True)) - SAME
            )
            + 1
        )
        centres = [
            _aligned(count / 2, mm, pixel, size) for count, mm in zip(counts, spacing, strict=True)
        ]
        return cls._along(axis, size, pixel, counts, spacing, centres, 0.0)

    @classmethod
    def _along(
        cls,
        axis: int,
        size: int,
        pixel: float,
        counts: list[int],
        spacing: list[float],
        centres: list[float],
        cut_off: float,
    ) -> Plane:
        sides = [*zip(spacing, centres, strict=True)]
        along = [
            weights(count, mm, pixel * size, size, centre)
            for count, (mm, centre) in zip(counts, sides, strict=True)
        ]
        return cls(axis, size, pixel, (sides[0], sides[1]), along[0], along[1], cut_off)

    def resample(self, data: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """Some slices of a volume, `[slice, size, size]`."""
        return resample(np.moveaxis(data, self.axis, 0)[shown], self.rows, self.columns)

    def shrink(self, inside: np.ndarray) -> Shrunk:
        """Every slice of a mask."""
        return shrink(
            np.moveaxis(inside, self.axis, 0), self.rows, self.columns, self.sides, self.pixel
        )

    def share(self, inside: np.ndarray) -> np.ndarray:
        """The share of the square that is inside, `[slice]`."""
        area = self.sides[0][0] * self.sides[1][0]
        counts = np.count_nonzero(inside, axis=tuple(i for i in range(3) if i != self.axis))
        return np.asarray(counts * area / (self.pixel * self.size) ** 2, np.float32)


def _aligned(centre: float, spacing: float, pixel: float, size: int) -> float:
    """The nearest centre that puts a pixel's middle on a voxel's, so that equal sizes need no
    interpolation.
    """
    first = centre + (0.5 - size / 2) * pixel / spacing - 0.5
    return float(centre - first + np.round(first))


def _beyond(ends: tuple[float, float], centre: float, spacing: float, extent: float) -> float:
    low, high = ends
    return max(0.0, (centre - low) * spacing - extent / 2, (high - centre) * spacing - extent / 2)
