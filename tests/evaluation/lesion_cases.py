"""Seeded segmentations with every kind of mistake, for comparisons with other implementations.

`random.Random.random` is the one generator whose numbers Python promises to keep from version to version.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]
SHAPES: dict[str, tuple[int, ...]] = {"2d": (64, 64), "3d": (32, 32, 24)}


def lesion_cases(seed: int, count: int, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Predictions and truths `[case, *shape]` with lesions shifted, grown, split, missed, invented.

    The first case is empty.
    """
    draw = random.Random(seed)
    truth = np.zeros((count, *shape), bool)
    prediction = np.zeros_like(truth)
    for case in range(1, count):
        for _ in range(_whole(draw, 0, 6)):
            lesion = _ball(draw, shape, 7)
            truth[case] |= lesion
            prediction[case] |= _mistaken(draw, lesion)
        for _ in range(_whole(draw, 0, 2)):
            prediction[case] |= _ball(draw, shape, 2.5)
    return prediction, truth


def _whole(draw: random.Random, low: int, high: int) -> int:
    return low + int(draw.random() * (high - low + 1))


def _ball(draw: random.Random, shape: tuple[int, ...], largest: float) -> Array:
    centre = [4 + draw.random() * (side - 8) for side in shape]
    radii = [0.7 + draw.random() * (largest - 0.7) for _ in shape]
    parts = [
        ((axis - c) / r) ** 2 for axis, c, r in zip(np.indices(shape), centre, radii, strict=True)
    ]
    return np.sum(parts, axis=0) <= 1


def _mistaken(draw: random.Random, lesion: Array) -> Array:
    kind = _whole(draw, 0, 4)
    if kind == 0:  # missed
        return np.zeros_like(lesion)
    if kind == 1 and lesion.any():  # in two parts
        parts = lesion.copy()
        parts[int(np.argwhere(lesion)[:, 0].mean())] = False
        return parts
    if kind == 2:
        return np.asarray(ndimage.binary_dilation(lesion, iterations=_whole(draw, 1, 3)))
    moved = [_whole(draw, -3, 3) for _ in lesion.shape]
    return np.roll(lesion, moved, tuple(range(lesion.ndim)))
