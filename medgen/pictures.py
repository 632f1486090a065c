"""Slices as pictures: anterior up, left of the picture is the left of the array, lesions outlined.
Volumes as three of their slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medgen.errors import Problem, StorageError, reason
from medgen.system import files

Array = np.ndarray[Any, np.dtype[Any]]

OUTLINES = ((255, 92, 64), (64, 200, 255), (255, 210, 64), (120, 230, 120))
"""A colour for each mask channel, then again from the first."""
GAP = 4


def tile(image: Array | None, masks: Sequence[Array] = (), side: int = 160) -> Array:
    """uint8 `[side, side, 3]` of a slice `[x, y]` in [-1, 1], with masks `[x, y]` (set where > 0)
    outlined.

    Without an image, the masks are filled.
    """
    if image is None:
        grey = np.max(np.stack([mask > 0 for mask in masks]), axis=0) * 2.0 - 1.0
        return enlarge(colour(grey), side, Image.Resampling.NEAREST)
    picture = enlarge(colour(image), side, Image.Resampling.BICUBIC)
    for index, mask in enumerate(masks):
        large = (
            enlarge(colour(np.where(mask > 0, 1.0, -1.0)), side, Image.Resampling.NEAREST)[..., 0]
            > 127
        )
        picture[edge(large)] = OUTLINES[index % len(OUTLINES)]
    return picture


def tiles(
    image: Array | None, masks: Sequence[Array] = (), shown: Array | None = None
) -> list[Array]:
    """Tiles of a slice `[x, y]`, one, or of a volume `[x, y, z]`, three: axial, coronal, sagittal.

    shown: set where > 0; of a volume, the slices that show most of it, without it of the masks. In
    coronal and sagittal slices the top of the head is up.
    """
    some = [each for each in (image, *masks) if each is not None]
    if some[0].ndim == 2:
        return [tile(image, masks)]
    wanted = [shown] if shown is not None else masks
    set_ = np.any([mask > 0 for mask in wanted], axis=0) if len(wanted) else np.zeros(some[0].shape)
    made = []
    for axis in (2, 1, 0):
        place = _fullest(set_, axis)
        cut = [_square(each.take(place, axis)) for each in some]
        made.append(tile(None, cut) if image is None else tile(cut[0], cut[1:]))
    return made


def _fullest(mask: Array, axis: int) -> int:
    """The place along an axis of a volume at which most of a mask is; the middle without any."""
    counts = np.count_nonzero(mask, axis=tuple(each for each in range(3) if each != axis))
    return int(counts.argmax()) if counts.any() else mask.shape[axis] // 2


def _square(plane: Array) -> Array:
    """A slice in the middle of a square of background."""
    rims = [(max(plane.shape) - side) for side in plane.shape]
    return np.pad(plane, [(rim // 2, rim - rim // 2) for rim in rims], constant_values=-1)


def colour(image: Array) -> Array:
    """uint8 `[y, x, 3]` with anterior up, from `[x, y]` in [-1, 1]."""
    grey = (np.clip(np.rot90(image).astype(np.float32), -1, 1) + 1) * 127.5
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)


def enlarge(picture: Array, side: int, how: Image.Resampling) -> Array:
    """Resize to `[side, side, 3]`."""
    return np.array(Image.fromarray(np.ascontiguousarray(picture)).resize((side, side), how))


def edge(mask: Array) -> Array:
    """The pixels just outside a mask: dilated by one in four directions, less the mask."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return np.asarray(grown & ~mask)


def grid(rows: Sequence[Sequence[Array]]) -> Array:
    """Tiles of one size, `[side, side, 3]` each, as one picture with gaps between them."""
    side = rows[0][0].shape[0]
    step = side + GAP
    picture = np.full((len(rows) * step + GAP, max(map(len, rows)) * step + GAP, 3), 24, np.uint8)
    for y, row in enumerate(rows):
        for x, each in enumerate(row):
            picture[
                GAP + y * step : GAP + y * step + side, GAP + x * step : GAP + x * step + side
            ] = each
    return picture


def save(picture: Array, path: Path) -> Path:
    """Write a PNG, whole or not at all. Raises StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            Image.fromarray(picture).save(temporary, "PNG")
    except OSError as error:
        raise StorageError(
            Problem(path, reason(error), "Free space or choose another folder")
        ) from error
    return path
