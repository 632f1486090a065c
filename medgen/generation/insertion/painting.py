"""Paint a lesion into a host: crops on the painter's grid, what it makes of them, and a soft edge
on the host's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import attrs
import numpy as np
from scipy import ndimage

from medgen.api.tables import AXES
from medgen.generation.insertion.painter import Crop, Painter, grown
from medgen.generation.insertion.shapes import Patch

Array = np.ndarray[Any, np.dtype[Any]]
Box = tuple[slice, ...]


@attrs.frozen(eq=False)
class Placed:
    """A lesion at its place in a host. centre: int64 `[3]`, the voxel where the middle of the patch
    lies.
    """

    patch: Patch
    centre: Array

    @property
    def voxels(self) -> Array:
        """The lesion's voxels in the host, int64 `[n, 3]`."""
        return np.asarray(
            np.argwhere(self.patch.mask) - np.array(self.patch.mask.shape) // 2 + self.centre
        )

    def mask(self, shape: Sequence[int]) -> Array:
        """The lesion, bool, in a volume of this shape."""
        made = np.zeros(tuple(shape), bool)
        made[tuple(self.voxels.T)] = True
        return made


class Host(NamedTuple):
    """What crops are taken from. images: `[channel, *space]` in [0, 1]. head, lesion: float32
    `[*space]`, 0 or 1.
    """

    images: Array
    head: Array
    lesion: Array
    spacing: tuple[float, ...]


def axes_of(painter: Painter) -> int:
    """How many axes the painter's crops have."""
    return len(painter.size or painter.spacing or (1, 1, 1))


def fits(painter: Painter, mask: Array, spacing: Sequence[float]) -> bool:
    """Whether a lesion, its centre in the middle, and what may change around it lie within the
    painter's crops.
    """
    if painter.size is None:
        return True
    across = _across(painter)
    reach = np.abs(np.argwhere(mask) - np.array(mask.shape) // 2).max(0) * spacing + painter.margin
    mine = painter.spacing or [spacing[axis] for axis in across]
    room = [(side - 1) // 2 * mm for side, mm in zip(painter.size, mine, strict=True)]
    return all(reach[axis] <= each for axis, each in zip(across, room, strict=True))


def paint(
    images: Array,
    head: Array,
    spacing: Sequence[float],
    placed: Placed,
    painter: Painter,
    seed: int,
) -> Array:
    """Paint a lesion into `images`, `[channel, *space]` in [0, 1] and beyond, and give how much of
    each voxel it is.

    head: bool `[*space]`, without which nothing changes. The weight, float32 `[*space]`, is 1 in
    the lesion and falls to 0 at the edge of the region. Slices of a lesion have one seed, so that
    they go together.
    """
    lesion = placed.mask(head.shape)
    box = _box(lesion, [int(np.ceil(painter.margin / mm)) + 1 for mm in spacing])
    weight = np.zeros(head.shape, np.float32)
    weight[box] = _edge(lesion[box], head[box], spacing, painter.margin)
    pieces = _pieces(painter, weight, box)
    host = Host(
        np.clip(images, 0, 1), head.astype(np.float32), lesion.astype(np.float32), tuple(spacing)
    )
    made = painter.paint(
        [_crop(host, placed, painter, piece) for piece in pieces], [seed] * len(pieces)
    )
    for piece, crop in zip(pieces, made, strict=True):
        here = _back(crop, piece, spacing, placed, painter)
        for image, values in zip(images, here, strict=True):
            image[piece] += np.where(weight[piece] > 0, weight[piece] * (values - image[piece]), 0)
    return weight


def _edge(lesion: Array, head: Array, spacing: Sequence[float], margin: float) -> Array:
    """1 in a lesion, falling to 0 at its margin, and where there is no head."""
    far = ndimage.distance_transform_edt(~lesion, spacing)
    ramp = np.clip(1 - far / (margin + min(spacing)), 0, 1)
    return np.where((far <= margin) & (head | lesion), ramp, 0).astype(np.float32)


def _pieces(painter: Painter, weight: Array, box: Box) -> list[Box]:
    """The parts of a host that are painted one by one: all of the lesion, or its slices."""
    if axes_of(painter) == weight.ndim:
        return [box]
    axis = AXES.index(painter.axis)
    ends = box[axis]
    wanted = [
        k
        for k in range(ends.start, ends.stop)
        if np.take(weight, k, axis)[_without(box, axis)].any()
    ]
    return [
        tuple(slice(k, k + 1) if each == axis else part for each, part in enumerate(box))
        for k in wanted
    ]


def _crop(host: Host, placed: Placed, painter: Painter, piece: Box) -> Crop:
    """What the painter is given of a part of a host."""
    at, mm = _grid(piece, host.spacing, placed, painter)
    image = np.stack([_sample(each, at) for each in host.images])
    mask = _sample(host.lesion, at) > 0.5
    region = grown(mask, mm, painter.margin) & (_sample(host.head, at) > 0.5)
    donor = _donor(placed, at, mask, mm) if placed.patch.images is not None else None
    return Crop(image, mask, region | mask, mm, donor)


def _donor(placed: Placed, at: Array, mask: Array, mm: tuple[float, ...]) -> Crop:
    """The scan that a lesion was taken from, on the grid of a crop. Its region: what of it is head
    and of no other.
    """
    patch = placed.patch
    assert patch.images is not None
    assert patch.clear is not None
    shift = (placed.centre - np.array(patch.mask.shape) // 2).reshape(-1, *[1] * (at.ndim - 1))
    images = np.stack([_sample(each, at - shift, "nearest") for each in patch.images])
    return Crop(images, mask, _sample(patch.clear.astype(np.float32), at - shift) > 0.5, mm)


def _grid(
    piece: Box, spacing: Sequence[float], placed: Placed, painter: Painter
) -> tuple[Array, tuple[float, ...]]:
    """Voxels of the host, `[3, *crop]`, at which a crop is sampled, and the crop's mm along each
    axis.
    """
    across = _across(painter)
    mm = tuple(painter.spacing or [spacing[axis] for axis in across])
    along = [np.arange(part.start, part.stop, dtype=np.float64) for part in piece]
    for place, axis in enumerate(across):
        if painter.size is not None:
            steps = np.arange(painter.size[place]) - painter.size[place] // 2
            along[axis] = placed.centre[axis] + steps * (mm[place] / spacing[axis])
        elif painter.spacing is not None:
            reach = (
                int(np.ceil((piece[axis].stop - piece[axis].start) * spacing[axis] / mm[place] / 2))
                + 1
            )
            along[axis] = placed.centre[axis] + np.arange(-reach, reach + 1) * (
                mm[place] / spacing[axis]
            )
    grid = np.stack(np.meshgrid(*along, indexing="ij"))
    return _flat(grid, painter), mm


def _back(
    crop: Array, piece: Box, spacing: Sequence[float], placed: Placed, painter: Painter
) -> Array:
    """What was painted, on the host's voxels of a part: `[channel, *piece]`."""
    across = _across(painter)
    at, mm = _grid(piece, spacing, placed, painter)
    first = [at[axis].min() for axis in across]
    steps = [
        (np.arange(piece[axis].start, piece[axis].stop) - low) * spacing[axis] / each
        for axis, low, each in zip(across, first, mm, strict=True)
    ]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"))
    made = np.stack([_sample(each, grid, "nearest") for each in crop])
    return made.reshape(len(crop), *(part.stop - part.start for part in piece))


def _sample(values: Array, at: Array, mode: str = "constant") -> Array:
    """Interpolate, exactly where a place is a voxel's."""
    return np.asarray(ndimage.map_coordinates(values, np.round(at, 6), order=1, mode=mode))


def _across(painter: Painter) -> list[int]:
    """The axes of the host that a crop has."""
    return [axis for axis in range(3) if axes_of(painter) == 3 or axis != AXES.index(painter.axis)]


def _flat(grid: Array, painter: Painter) -> Array:
    """Places without the axis that a crop does not have, `[3, *crop]`."""
    return grid if axes_of(painter) == 3 else np.squeeze(grid, 1 + AXES.index(painter.axis))


def _without(box: Box, axis: int) -> Box:
    return tuple(part for each, part in enumerate(box) if each != axis)


def _box(lesion: Array, reach: Sequence[int]) -> Box:
    """The box of a lesion and of so many voxels around it."""
    (found,) = ndimage.find_objects(lesion.astype(np.uint8))
    return tuple(
        slice(max(0, part.start - by), min(side, part.stop + by))
        for part, by, side in zip(found, reach, lesion.shape, strict=True)
    )
