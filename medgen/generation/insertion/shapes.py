"""A lesion as it goes into a host: moved, turned, warped, and on the host's grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import attrs
import numpy as np
from scipy import ndimage

from medgen.api.numbers import RING
from medgen.data.store.crop_targets import grown
from medgen.generation.insertion.lesions import Lesion, contrast
from medgen.generation.insertion.parts import sampled

Array = np.ndarray[Any, np.dtype[Any]]

TURN = 8.0
"""Deviation of the angle by which a lesion is turned in each plane, degrees: more, and what lies
beside a ventricle no longer follows it.
"""
WARP = 0.15
"""Deviation of the displacement that warps a lesion, in its radius."""
ALIKE = 2.0
"""Times that voxels are longer along one axis than along another, up to which a lesion is turned in
that plane.
"""
REACH = 5.0
"""mm beyond a lesion's surroundings that are sampled with it."""
BLURRED = 1000
"""Voxels of the largest lesions whose contrast is noticeably lowered by sampling them anew."""
SHARPEST = 1.5
"""Times at most that the contrast of a lesion is raised again, after sampling has lowered it."""
NO_CONTRAST = 0.02
"""Contrast, in the window of a scan, below which a lesion is not to be told from its surroundings."""
FAINT = 0.2
"""Least share of a voxel that is lesion, where the count of voxels is kept."""


@attrs.frozen(eq=False)
class Patch:
    """A lesion on a grid, its centre in the middle of an odd number of voxels along each axis.

    images: float32 `[channel, *size]`, or None where the mask is no real one. mask, clear: bool
    `[*size]`, parts: bool `[part, *size]`, as in `Lesion`; None: one, the mask.
    """

    mask: Array
    images: Array | None = None
    clear: Array | None = None
    parts: Array | None = None


class _Map(NamedTuple):
    """Where a grid's voxels lie in a lesion's crop: `centre + matrix @ (offset + warp(offset))`.

    centre: `[axes]`, voxels of the crop. matrix: from mm of the host to voxels of the crop.
    control: `[axes, *grid]`, displacements in mm on a coarse grid with a step of `step` mm, its
    middle at the centre.
    """

    centre: Array
    matrix: Array
    control: Array
    step: float

    def of(self, half: Array, mm: Array) -> Array:
        """Return voxels of the crop, `[axes, *grid]`, for a grid of `2 * half + 1` voxels of `mm`
        around the centre.
        """
        lines = [np.arange(-side, side + 1) * step for side, step in zip(half, mm, strict=True)]
        offset = np.stack(np.meshgrid(*lines, indexing="ij")) + self._warp(lines)
        turned = np.tensordot(self.matrix, offset, 1)
        return np.asarray(turned + self.centre.reshape(-1, *[1] * len(mm)))

    def _warp(self, lines: Sequence[Array]) -> Array:
        """Return displacements in mm, `[axes, *grid]`, of a grid given by its places along each axis.

        They are a cubic spline, which on such a grid is computed along one axis after the other.
        """
        made = self.control
        for axis, line in enumerate(lines):
            nodes = self.step * (np.arange(made.shape[1 + axis]) - (made.shape[1 + axis] - 1) / 2)
            weights = _cubic((line[:, None] - nodes) / self.step)
            made = np.moveaxis(np.tensordot(weights, made, (1, 1 + axis)), 0, 1 + axis)
        return made


@attrs.frozen(eq=False)
class Moved:
    """A turned and warped lesion. mask: bool, on the host's grid, its centre in the middle.

    Its surroundings take longer to sample: `patch` does it once there is a place for the lesion.
    """

    mask: Array
    lesion: Lesion
    given: _Map
    spacing: tuple[float, ...]

    def patch(self) -> Patch:
        """Sample the images too, as far as they are needed."""
        mm, middle = np.array(self.spacing), np.array(self.mask.shape) // 2
        reach = np.abs(np.argwhere(self.mask) - middle).max(0) + np.ceil(
            (RING + REACH) / mm
        ).astype(np.int64)
        mask = _padded(self.mask, 2 * reach + 1)
        at = self.given.of(reach, mm)
        parts = sampled(
            self.lesion.parts, mask, lambda share: ndimage.map_coordinates(share, at, order=1)
        )
        if self.lesion.images is None or self.lesion.clear is None:
            return Patch(mask, parts=parts)
        clear = ndimage.map_coordinates(self.lesion.clear.astype(np.float32), at, order=1) > 0.5
        images = [
            ndimage.map_coordinates(image, at, order=3, mode="nearest")
            for image in self.lesion.images
        ]
        return Patch(mask, _sharpened(np.stack(images), mask, clear, self), clear, parts)


def moved(
    lesion: Lesion,
    spacing: Sequence[float],
    rng: np.random.Generator,
    mirrored: bool,
    scale: float = 1.0,
) -> Moved:
    """Turn and warp a lesion a little, mirror it or not, and sample it on a host's grid.

    Its volume stays as it was, to a voxel, but for the scale of its diameter. spacing: of the host,
    mm along each axis.
    """
    mm = np.array(spacing, np.float64)
    voxels = np.argwhere(lesion.mask)
    where = voxels - voxels.mean(0)
    size = lesion.size * scale ** len(mm)
    radius = size ** (1 / len(mm)) / 2
    longest, slack = np.linalg.norm(where * lesion.spacing, axis=1).max(), 3 * WARP * radius
    far = scale * longest + slack + RING + REACH
    given = _map(lesion, voxels.mean(0), far, radius, mm, rng, mirrored, scale)
    reach = np.abs(where @ np.linalg.inv(given.matrix).T).max(0) + slack
    at = given.of(np.ceil(reach / mm).astype(np.int64), mm)
    share = ndimage.map_coordinates(lesion.mask.astype(np.float32), at, order=1)
    return Moved(
        _largest(share, max(1, round(size / float(np.prod(mm))))),
        lesion,
        given,
        tuple(spacing),
    )


def _map(
    lesion: Lesion,
    centre: Array,
    far: float,
    radius: float,
    mm: Array,
    rng: np.random.Generator,
    mirrored: bool,
    scale: float,
) -> _Map:
    """Draw how a lesion is turned and warped. far: mm from its centre to where it is sampled."""
    axes = len(mm)
    matrix = np.eye(axes)
    longest = np.maximum(mm, lesion.spacing)
    for one, two in combinations(range(axes), 2):
        angle = np.radians(TURN) * rng.standard_normal()
        if max(longest[one], longest[two]) <= ALIKE * min(longest[one], longest[two]):
            turn = np.eye(axes)
            turn[one, one] = turn[two, two] = np.cos(angle)
            turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
            matrix = matrix @ turn
    if mirrored:
        matrix = np.diag([-1.0] + [1.0] * (axes - 1)) @ matrix
    step = max(radius, float(mm.max()))
    shape = [2 * int(np.ceil(far / step)) + 3] * axes
    control = WARP * radius * rng.standard_normal((axes, *shape))
    return _Map(centre, matrix / (scale * np.array(lesion.spacing)[:, None]), control, step)


def _sharpened(images: Array, mask: Array, clear: Array, of: Moved) -> Array:
    """Give a lesion, `[channel, *size]`, the contrast to its surroundings that it had before it was
    sampled anew, which blurs small ones; larger ones than BLURRED stay as they are.

    Its differences from the level of the surroundings are multiplied, by at most SHARPEST.
    """
    if np.count_nonzero(mask) > BLURRED:
        return images
    around = clear & grown(mask, of.spacing, RING) & ~mask
    now = contrast(images, mask, around)
    for image, own, left in zip(images, of.lesion.contrast, now, strict=True):
        if abs(left) > NO_CONTRAST and own * left > 0:
            level = image[around].mean()
            gain = np.clip(own / left, 1, SHARPEST)
            image[mask] = level + gain * (image[mask] - level)
    return images


def _cubic(at: Array) -> Array:
    """Return the cubic B-spline, which is 0 from 2 on to both sides."""
    far = np.abs(at)
    near = 2 / 3 - far**2 + far**3 / 2
    return np.asarray(np.where(far < 1, near, np.clip(2 - far, 0, None) ** 3 / 6))


def _largest(share: Array, count: int) -> Array:
    """Return so many voxels, those that are most lesion, at least one; none that hardly are."""
    order = np.argsort(-share, axis=None, kind="stable")[:count]
    mask = np.zeros(share.size, bool)
    mask[order] = share.ravel()[order] >= FAINT
    mask[order[0]] = True
    return np.asarray(mask.reshape(share.shape))


def _padded(mask: Array, shape: Array) -> Array:
    """The same in the middle of an array of another odd size, which holds all of it."""
    made = np.zeros(tuple(shape), bool)
    shift = np.array(shape) // 2 - np.array(mask.shape) // 2
    made[tuple((np.argwhere(mask) + shift).T)] = True
    return made
