"""The constants that a scan's edges consist of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np

SAMPLE = 300_000
"""Voxels to look at along each axis; few enough to take no time beside reading a scan."""
MAX_FILLS = 6
RARE, COMMON = 0.02, 0.1
"""Least share of the volume's edges that have a fill value: the first, and any other."""
SOLID = 0.8
"""Share of a fill's neighbours that have its value; noise of whole numbers is mixed."""


def edges(data: np.ndarray) -> Iterator[np.ndarray]:
    """Return a volume's twelve edges; its faces may be picture, as in a slab or a slice."""
    for axes in combinations(range(3), 2):
        for ends in product((0, -1), repeat=2):
            yield np.moveaxis(data, axes, (0, 1))[ends]


def find_fills(data: np.ndarray) -> list[float]:
    """Return the constants that a volume's edges consist of, the most frequent first."""
    values, counts = np.unique(np.concatenate([*edges(data)]), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MAX_FILLS]
    total = counts.sum()
    found: list[float] = []
    for value, count in zip(values[order], counts[order], strict=True):
        enough = count >= max(2, (COMMON if found else RARE) * total)
        if enough and _solidity(data, value) >= SOLID:
            found.append(float(value))
    return found


def _solidity(data: np.ndarray, value: float) -> float:
    """Return the share of the value's neighbours on the faces that have it too."""
    same = both = 0
    for axis in range(3):
        for end in (0, -1):
            hit = np.moveaxis(data, axis, 0)[end] == value
            for pair in ((hit[1:], hit[:-1]), (hit[:, 1:], hit[:, :-1])):
                both += np.count_nonzero(pair[0] & pair[1])
                same += np.count_nonzero(pair[0] | pair[1])
    return 2 * both / (both + same) if same else 0.0


def is_fill(data: np.ndarray, fills: Sequence[float]) -> np.ndarray:
    found = data == data.dtype.type(fills[0])
    for fill in fills[1:]:
        found |= data == data.dtype.type(fill)
    return np.asarray(found)
