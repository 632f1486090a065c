"""`insertions.png`: hosts before and after, and the new lesions, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from medgen import pictures
from medgen.generation.insertion.inserter import Inserted
from medgen.generation.manifest import name_of

Array = np.ndarray[Any, np.dtype[Any]]

SHOWN = 24
"""Planes that are shown, those of the first outputs."""
ACROSS = 2
"""Outputs in a row."""
FOLDER = "pictures"
SIDE = 256
"""px of a slice."""
RIM = 4
"""px of a scan that are shown around its head."""
BRIGHTEST = 0.999
"""Share of a slice's pixels that are not shown white: windows of scans may leave room for bright lesions."""
AXIAL, PLANES = (2,), (2, 1, 0)
"""Axes perpendicular to the slices that are shown of an output."""


def save_one(made: Inserted, out: Path, index: int, planes: Sequence[int] = AXIAL) -> None:
    """Save an output in `out/pictures`: of each plane the slice with most new lesions, before, after,
    outlined.
    """
    path = out / FOLDER / f"{name_of(index)}.png"
    for stale in path.parent.glob(f".tmp-*-{path.name}"):  # of a killed process: the index is ours
        stale.unlink(missing_ok=True)
    pictures.save(np.concatenate([_strip(made, axis) for axis in planes]), path)


def _strip(made: Inserted, axis: int) -> Array:
    """Return the tiles of a plane side by side, uint8 `[SIDE, 3 * SIDE, 3]`."""
    k = int(made.new.sum(tuple({0, 1, 2} - {axis})).argmax())
    box = _head(np.asarray(made.case.head.any(axis)))
    before, after = (images[0].take(k, axis)[box] for images in (made.case.images, made.images))
    white = np.quantile(after[after > 0], BRIGHTEST) if (after > 0).any() else 1.0
    mask = np.where(made.new.take(k, axis)[box], 1.0, -1.0)
    greys = (np.clip(each / white, 0, 1) * 2 - 1 for each in (before, after))
    shown = [_square(each) for each in (*greys, mask)]
    tiles = [pictures.tile(shown[0], side=SIDE), pictures.tile(shown[1], side=SIDE)]
    tiles.append(pictures.tile(shown[1], [shown[2]], SIDE))
    return np.concatenate(tiles, axis=1)


def save_all(out: Path) -> None:
    """Save `insertions.png` from the pictures that there are."""
    made = _each(out, SHOWN)
    if not made:
        return
    made += [np.zeros_like(made[0])] * (-len(made) % ACROSS)
    rows = [
        np.concatenate(made[start : start + ACROSS], axis=1)
        for start in range(0, len(made), ACROSS)
    ]
    pictures.save(np.concatenate(rows), out / "insertions.png")


def strips(out: Path, count: int) -> list[Array]:
    """Return the planes of the first `count` outputs that are there, uint8
    `[SIDE, 3 * SIDE, 3]`: before, after, outlined.
    """
    return [plane for each in _each(out, count) for plane in np.split(each, len(each) // SIDE)]


def _each(out: Path, count: int) -> list[Array]:
    """Return the pictures of outputs, one each."""
    paths = (out / FOLDER / f"{name_of(index)}.png" for index in range(count))
    return [np.array(Image.open(path)) for path in paths if path.exists()]


def _head(plane: Array) -> tuple[slice, ...]:
    """Return the box of a head, bool `[x, y]`, and RIM px around it."""
    (box,) = ndimage.find_objects(plane.astype(np.uint8))
    return tuple(slice(max(0, each.start - RIM), each.stop + RIM) for each in box)


def _square(plane: Array) -> Array:
    """Return a slice `[x, y]` in the middle of a square of background."""
    side = max(plane.shape)
    ends = [((side - each) // 2, side - each - (side - each) // 2) for each in plane.shape]
    return np.pad(plane, ends, constant_values=-1.0)
