"""Describe where the points of a volume, a slice or a crop lie: their number, distance and place in
mm.
"""

from __future__ import annotations

import math

import attrs
import numpy as np

from medgen.api.tables import AXES, DataSettings


@attrs.frozen
class Grid:
    """A grid of any number of axes.

    shape: points along each axis. spacing: mm between points along each axis. affine: float64 `[4,
    axes + 1]`, from indices and a final 1 to mm and a final 1, right, anterior and superior (RAS).
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    affine: np.ndarray = attrs.field(eq=attrs.cmp_using(np.array_equal), repr=False)

    @classmethod
    def of_slices(cls, size: int, spacing: float, axis: str) -> Grid:
        """Return the grid of square slices. size: px. spacing: mm per px. axis: perpendicular, a
        name in `AXES`.
        """
        affine = np.diag([spacing] * 3 + [1.0])
        return cls((size, size), (spacing, spacing), np.delete(affine, AXES.index(axis), axis=1))

    @classmethod
    def of_volumes(cls, shape: tuple[int, ...], spacing: float) -> Grid:
        """Return the grid of volumes, whose middle is the origin. spacing: mm per voxel."""
        affine = np.diag([spacing] * 3 + [1.0])
        affine[:3, 3] = [(1 - count) / 2 * spacing for count in shape]
        return cls(shape, (spacing,) * 3, affine)

    @classmethod
    def of(cls, data: DataSettings, spacing: float) -> Grid:
        """Return the grid of a recipe's slices or volumes. spacing: mm per px."""
        if data.axes == 3:
            return cls.of_volumes(data.shape, spacing)
        return cls.of_slices(data.shape[0], spacing, data.axis)

    @property
    def axis(self) -> str | None:
        """Return the axis perpendicular to a slice, a name in `AXES`; None for a volume and an
        oblique slice.
        """
        across = np.flatnonzero(~self.affine[:3, :-1].any(axis=1))
        return AXES[across[0]] if len(across) == 1 else None

    @property
    def left_right(self) -> int | None:
        """Return the axis along which the patient's left and right lie; None if there is none, as
        in sagittal slices, or if others lie along it too.
        """
        across = np.flatnonzero(self.affine[0, :-1])
        alone = len(across) == 1 and np.count_nonzero(self.affine[:3, across[0]]) == 1
        return int(across[0]) if alone else None

    @property
    def extent(self) -> tuple[float, ...]:
        """Return the length of each axis in mm."""
        return tuple(count * mm for count, mm in zip(self.shape, self.spacing, strict=True))

    @property
    def cell(self) -> float:
        """Return the area of a pixel in mm2, the volume of a voxel in mm3."""
        return math.prod(self.spacing)

    def matches(self, other: Grid, tolerance: float) -> bool:
        """Compare shape, axis and spacing; tolerance: of the spacing, relative."""
        same = (self.shape, self.axis) == (other.shape, other.axis)
        return same and np.allclose(self.spacing, other.spacing, rtol=tolerance, atol=0)

    def as_volume(self) -> Grid:
        """Return the grid of a volume. A slice becomes a volume of one slice, as thick as its
        pixels are wide.
        """
        if self.axis is None:
            return self
        across, mm = AXES.index(self.axis), self.spacing[0]
        shape, spacing = (
            np.insert(self.shape, across, 1).tolist(),
            np.insert(self.spacing, across, mm).tolist(),
        )
        return Grid(
            tuple(shape),
            tuple(spacing),
            np.insert(self.affine, across, mm * np.eye(4)[across], axis=1),
        )

    @property
    def described(self) -> str:
        """Return shape, spacing and the axis perpendicular to slices, for messages and reports."""
        return f"{self}, {self.axis}" if len(self.shape) < 3 else f"{self}"

    def __str__(self) -> str:
        shape = self.shape[:1] if len(set(self.shape)) == 1 else self.shape
        spacing = self.spacing[:1] if len(set(self.spacing)) == 1 else self.spacing
        return f"{' x '.join(map(str, shape))} px of {' x '.join(f'{mm:g}' for mm in spacing)} mm"
