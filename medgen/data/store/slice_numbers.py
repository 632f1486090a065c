"""Measure the numbers that models may be given of each sample; see `medgen.api.numbers`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from medgen.api.numbers import NUMBERS, RING
from medgen.api.tables import AXES
from medgen.data.store.crop_targets import mark
from medgen.data.store.slice_store import SliceStore

MOST = 4096
"""Slices that a checkpoint keeps the numbers of."""
PART = 1 << 22
"""Pixels that are read at a time: 256 slices of 128 px, or two volumes of it."""


def scaled(store: SliceStore, names: Sequence[str]) -> np.ndarray:
    """Return float32 `[row, number]` of a store as models see them, about in [-1, 1]."""
    columns = [
        [NUMBERS[name].scale(value) for value in measured(store, name).tolist()] for name in names
    ]
    scaled = np.array(columns, np.float32).reshape(len(names), len(store))
    return np.ascontiguousarray(scaled.T)


def measured(store: SliceStore, name: str) -> np.ndarray:
    """Return float64 `[row]` in the number's unit; measured once for each store."""
    if name not in store.numbers:
        store.numbers[name] = MEASURES[name](store)
    return store.numbers[name]


def joint(store: SliceStore, names: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the numbers of some rows, float32 `[n]` each, and lesion sizes where there are masks.

    Ordered by size and not by patient; of more than `MOST` rows evenly chosen ones.
    """
    wanted = dict.fromkeys([*(["lesion_size"] if store.masks else []), *names])
    table = {name: measured(store, name)[rows].astype(np.float32) for name in wanted}
    order = np.lexsort([*table.values()][::-1])
    if len(order) > MOST:
        order = order[np.linspace(0, len(order) - 1, MOST).astype(int)]
    return {name: values[order] for name, values in table.items()}


def _position(store: SliceStore) -> np.ndarray:
    """0.5 where a head has a single slice."""
    assert store.grid.axis is not None  # volumes have no position
    axis = AXES.index(store.grid.axis)
    heads = store.find_heads()
    first = np.array([head.low[axis] for head in heads])[store.patient]
    last = np.array([head.high[axis] - 1 for head in heads])[store.patient]
    length = np.where(last > first, last - first, 1)
    place = np.clip((store.position - first) / length, 0, 1)
    return np.where(last > first, place, 0.5)


def _lesion_size(store: SliceStore) -> np.ndarray:
    """Of crops, that of the lesion that they are around."""
    if store.extent is not None:
        counts = [(own > 0).reshape(len(own), -1).sum(1) for _, own in _crops(store)]
        return np.asarray(np.concatenate(counts) * store.grid.cell, np.float64)
    pixels = sum((each.astype(np.int64) for each in store.lesion_area.values()), np.int64(0))
    return np.asarray(pixels * store.grid.cell, np.float64)


def _spacing(store: SliceStore) -> np.ndarray:
    if store.grid.axis is None:
        return np.asarray(np.cbrt(store.voxel.prod(axis=1))[store.patient], np.float64)
    sides = np.delete(store.voxel, AXES.index(store.grid.axis), axis=1)
    return np.asarray(np.sqrt(sides.prod(axis=1))[store.patient])


def _contrast(store: SliceStore) -> np.ndarray:
    if store.extent is not None:
        found = [_contrasts(images[:, 0], own > 0, own == 0) for images, own in _crops(store)]
        return np.concatenate(found)
    return np.concatenate([_of_whole(store, rows) for rows in _parts(store)])


def _of_whole(store: SliceStore, rows: np.ndarray) -> np.ndarray:
    image = store.read(rows, _images(store)[:1])[:, 0]
    lesion = np.asarray((store.read(rows, _masks(store)) > 0).any(1))
    return _contrasts(image, lesion, (image > -1) & ~lesion)


def _contrasts(images: np.ndarray, lesions: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Return the mean in lesions less that around them, `[row]`; all are `[row, *size]`."""
    return np.array(
        [
            each[inside].mean() - each[beside].mean() if inside.any() and beside.any() else 0.0
            for each, inside, beside in zip(images.astype(np.float64), lesions, around, strict=True)
        ]
    )


def _crops(store: SliceStore) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield parts of the images, and of the lesion that each crop is around, `[row, *size]`: 1 in
    it, 0 around it, -1 elsewhere.
    """
    for rows in _parts(store):
        images, masks = store.read(rows, _images(store)), store.read(rows, _masks(store))
        middles = np.broadcast_to(np.array(images.shape[2:]) // 2, (len(rows), images.ndim - 2))
        yield images, mark(masks, images, middles, RING, store.grid.spacing).max(1)


def _parts(store: SliceStore) -> list[np.ndarray]:
    """Return all rows in parts of `PART` pixels."""
    count = max(1, PART // math.prod(store.grid.shape))
    return np.array_split(np.arange(len(store)), -(-len(store) // count))


def _images(store: SliceStore) -> list[str]:
    return [name for name in store.channels if name not in store.masks]


def _masks(store: SliceStore) -> list[str]:
    return [name for name in store.channels if name in store.masks]


MEASURES: dict[str, Callable[[SliceStore], np.ndarray]] = {
    "position": _position,
    "lesion_size": _lesion_size,
    "spacing": _spacing,
    "contrast": _contrast,
}
"""How each is measured."""
