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
from medgen.data.store.crop_targets import inside, region
from medgen.generation.insertion.painter import NONE, Crop, Numbers, Painter
from medgen.generation.insertion.parts import sampled
from medgen.generation.insertion.shapes import Patch

Array = np.ndarray[Any, np.dtype[Any]]
Box = tuple[slice, ...]
Painted = tuple[Array, Numbers]
"""How much of each voxel is painted, float32 `[*space]`, and the numbers that it was painted by."""


@attrs.frozen(eq=False)
class Placed:
    """A lesion at its place in a host. centre: int64 `[3]`, the voxel of the patch's middle."""

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

    @property
    def parts(self) -> Array:
        """Which parts each of its voxels is in, bool `[part, n]`."""
        mask, parts = self.patch.mask, self.patch.parts
        return mask[mask][None] if parts is None else parts[:, mask]


class Host(NamedTuple):
    """What crops are taken from. images: `[channel, *space]` in [0, 1]. lesion: float32
    `[*space]`, 0 or 1.
    """

    images: Array
    lesion: Array
    spacing: tuple[float, ...]


def fits(painter: Painter, mask: Array, spacing: Sequence[float]) -> bool:
    """Return True if a centred lesion and what may change around it lie within the painter's crops."""
    if painter.grid is None:
        return True
    reach = np.abs(np.argwhere(mask) - np.array(mask.shape) // 2).max(0) * spacing + painter.margin
    sides = zip(painter.grid.shape, painter.grid.spacing, strict=True)
    room = [(side - 1) // 2 * mm for side, mm in sides]
    return all(reach[axis] <= each for axis, each in zip(_along(painter), room, strict=True))


def paint(
    images: Array,
    head: Array,
    spacing: Sequence[float],
    placed: Placed,
    painter: Painter,
    seed: int,
) -> Painted:
    """Paint a lesion into `images`, `[channel, *space]` in [0, 1] and beyond.

    head: bool `[*space]`, without which nothing changes. The weight is 1 in the lesion and falls to
    0 at the edge of the region. Slices of a lesion have one seed, so that they go together.
    """
    lesion = placed.mask(head.shape)
    box = _box(lesion, [int(np.ceil(painter.margin / mm)) + 1 for mm in spacing])
    weight = np.zeros(head.shape, np.float32)
    weight[box] = _edge(lesion[box], head[box], spacing, painter.margin)
    host = Host(np.clip(images, 0, 1), lesion.astype(np.float32), tuple(spacing))
    every = [
        (piece, _crop(host, placed, painter, piece)) for piece in _pieces(painter, weight, box)
    ]
    some = [(piece, crop) for piece, crop in every if crop.region.any()]  # not of the margin alone
    crops = [crop for _, crop in some]
    numbers = painter.numbers(crops, seed) if crops else NONE
    made = painter.paint(crops, [seed] * len(crops), numbers)
    for (piece, _), painted in zip(some, made, strict=True):
        here = _back(painted, piece, spacing, placed, painter)
        for image, values in zip(images, here, strict=True):
            image[piece] += np.where(weight[piece] > 0, weight[piece] * (values - image[piece]), 0)
    return weight, numbers


def _edge(lesion: Array, head: Array, spacing: Sequence[float], margin: float) -> Array:
    """1 in a lesion, falling to 0 at its margin, and where there is no head."""
    far = ndimage.distance_transform_edt(~lesion, spacing)
    ramp = np.clip(1 - far / (margin + min(spacing)), 0, 1)
    return np.where((far <= margin) & (head | lesion), ramp, 0).astype(np.float32)


def _pieces(painter: Painter, weight: Array, box: Box) -> list[Box]:
    """The parts of a host that are painted one by one: all of the lesion, or its slices."""
    axis = _across(painter)
    if axis is None:
        return [box]
    slices = range(box[axis].start, box[axis].stop)
    pieces = [(*box[:axis], slice(k, k + 1), *box[axis + 1 :]) for k in slices]
    return [piece for piece in pieces if weight[piece].any()]


def _crop(host: Host, placed: Placed, painter: Painter, piece: Box) -> Crop:
    """What the painter is given of a part of a host."""
    at, mm = _grid(piece, host.spacing, placed, painter)
    image = np.stack([_sample(each, at) for each in host.images])
    mask = _sample(host.lesion, at) > 0.5
    head = inside(image, 0)
    inner = at - _shift(placed, at)
    donor = _donor(placed, inner, mask, mm) if placed.patch.images is not None else None
    parts = placed.patch.parts
    return Crop(
        image,
        mask,
        region(mask, head, painter.margin, mm),
        mm,
        head,
        donor,
        None if parts is None else sampled(parts, mask, lambda share: _sample(share, inner)),
    )


def _shift(placed: Placed, at: Array) -> Array:
    """Return the host's voxel that the first of a patch lies at, to take from `at`, `[3, *crop]`."""
    first = placed.centre - np.array(placed.patch.mask.shape) // 2
    return np.asarray(first.reshape(-1, *[1] * (at.ndim - 1)))


def _donor(placed: Placed, inner: Array, mask: Array, mm: tuple[float, ...]) -> Crop:
    """The scan that a lesion was taken from, on the grid of a crop. Its region: what of it is head
    and of no other. inner: the patch's voxels, `[3, *crop]`, that the crop samples.
    """
    patch = placed.patch
    assert patch.images is not None
    assert patch.clear is not None
    images = np.stack([_sample(each, inner, "nearest") for each in patch.images])
    clear = _sample(patch.clear.astype(np.float32), inner) > 0.5
    return Crop(images, mask, clear, mm, clear)


def _grid(
    piece: Box, spacing: Sequence[float], placed: Placed, painter: Painter
) -> tuple[Array, tuple[float, ...]]:
    """Return the host's voxels, `[3, *crop]`, that a crop samples, and its mm along each axis."""
    points = [np.arange(part.start, part.stop, dtype=np.float64) for part in piece]
    if painter.grid is None:
        return np.stack(np.meshgrid(*points, indexing="ij")), tuple(spacing)
    own = zip(_along(painter), painter.grid.shape, painter.grid.spacing, strict=True)
    for axis, side, mm in own:
        points[axis] = placed.centre[axis] + (np.arange(side) - side // 2) * (mm / spacing[axis])
    grid = np.stack(np.meshgrid(*points, indexing="ij"))
    across = _across(painter)
    return grid if across is None else grid.squeeze(1 + across), painter.grid.spacing


def _back(
    crop: Array, piece: Box, spacing: Sequence[float], placed: Placed, painter: Painter
) -> Array:
    """What was painted, on the host's voxels of a part: `[channel, *piece]`."""
    at, own = _grid(piece, spacing, placed, painter)
    steps = [
        (np.arange(piece[axis].start, piece[axis].stop) - at[axis].min()) * spacing[axis] / mm
        for axis, mm in zip(_along(painter), own, strict=True)
    ]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"))
    made = np.stack([_sample(each, grid, "nearest") for each in crop])
    return made.reshape(len(crop), *(part.stop - part.start for part in piece))


def _sample(values: Array, at: Array, mode: str = "constant") -> Array:
    """Interpolate, exactly where a place is a voxel's."""
    return np.asarray(ndimage.map_coordinates(values, np.round(at, 6), order=1, mode=mode))


def _across(painter: Painter) -> int | None:
    """The axis of the host that crops do not have; None where they are volumes."""
    axis = painter.grid.axis if painter.grid else None
    return None if axis is None else AXES.index(axis)


def _along(painter: Painter) -> list[int]:
    """The axes of the host that crops have."""
    return [axis for axis in range(3) if axis != _across(painter)]


def _box(lesion: Array, reach: Sequence[int]) -> Box:
    """The box of a lesion and of so many voxels around it."""
    (found,) = ndimage.find_objects(lesion.astype(np.uint8))
    return tuple(
        slice(max(0, part.start - by), min(side, part.stop + by))
        for part, by, side in zip(found, reach, lesion.shape, strict=True)
    )
