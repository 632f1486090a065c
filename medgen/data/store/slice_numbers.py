"""Measure the numbers that models may be given of each sample; see `medgen.api.numbers`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from medgen.api.numbers import NUMBERS
from medgen.api.tables import AXES
from medgen.data.store.store import SliceStore

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
    pixels = sum((each.astype(np.int64) for each in store.lesion_area.values()), np.int64(0))
    return np.asarray(pixels * store.grid.cell, np.float64)


def _spacing(store: SliceStore) -> np.ndarray:
    if store.grid.axis is None:
        return np.asarray(np.cbrt(store.voxel.prod(axis=1))[store.patient], np.float64)
    sides = np.delete(store.voxel, AXES.index(store.grid.axis), axis=1)
    return np.asarray(np.sqrt(sides.prod(axis=1))[store.patient])


def _contrast(store: SliceStore) -> np.ndarray:
    image = next(name for name in store.channels if name not in store.masks)
    masks = [name for name in store.channels if name in store.masks]
    count = max(1, PART // math.prod(store.grid.shape))
    parts = np.array_split(np.arange(len(store)), -(-len(store) // count))
    found = [
        _contrasts(store.read(rows, [image])[:, 0].astype(np.float64), store.read(rows, masks) > 0)
        for rows in parts
    ]
    return np.concatenate(found)


def _contrasts(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    lesion, head = np.asarray(masks.any(1)), np.asarray(images > -1)
    return np.array(
        [
            each[inside].mean() - each[shown & ~inside].mean()
            if inside.any() and (shown & ~inside).any()
            else 0.0
            for each, inside, shown in zip(images, lesion, head, strict=True)
        ]
    )


MEASURES: dict[str, Callable[[SliceStore], np.ndarray]] = {
    "position": _position,
    "lesion_size": _lesion_size,
    "spacing": _spacing,
    "contrast": _contrast,
}
"""How each is measured."""
