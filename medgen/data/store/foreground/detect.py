"""Where the head is in a volume, and what lies around it: constants, noise, or noise inside a
border of constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from medgen.data.store.foreground.air import (
    DEPTH,
    SPECKS,
    Rim,
    find_air,
    find_levels,
    find_next_fill,
    is_apart,
    look_beneath,
)
from medgen.data.store.foreground.fills import MAX_FILLS, SAMPLE, edges, find_fills, is_fill
from medgen.data.store.foreground.head_in_noise import RAGGED, head, without_rim
from medgen.data.store.foreground.restless_air import head_in_restless_air

CONSTANT, CONSTANTS = "constant", "several constants"
NOISE, BORDERED, NONE = "noise", "noise inside a border", "none"
RESTLESS = "noise of the full range"
LARGE = 1 << 15
"""Voxels of a head below which much of any head is rim."""
CLEAR = 10
"""Times the air's deviation that a head is brighter where one voxel tells whether it is more head
or air.
"""


class Foreground(NamedTuple):
    """inside: the head, bool. background: what lies around it, one of the words above."""

    inside: np.ndarray
    background: str


def foreground(data: np.ndarray) -> np.ndarray:
    """Return where the head is."""
    return detect(data).inside


def detect(data: np.ndarray) -> Foreground:
    """Find the head: what differs from constant fills, or else what stands out from the noise
    inside of them.
    """
    fills = find_fills(data)
    restless = head_in_restless_air(data, fills)
    if restless is not None:
        return Foreground(restless, RESTLESS)
    while 0 < len(fills) < MAX_FILLS:
        rim = look_beneath(data, fills)
        fill = find_next_fill(rim)
        if fill is None:
            air = find_air(rim, fills)
            if air is None and _may_blend(rim, fills):
                return _blended(data, fills, rim)
            return _constant(data, fills) if air is None else _bordered(data, fills, air, rim)
        fills.append(fill)
    return _constant(data, fills) if fills else _noise(head(data))


def _noise(inside: np.ndarray) -> Foreground:
    """Return the head in noise, unless it is mostly rim, as where noise is as bright as the head."""
    count = np.count_nonzero(inside)
    ragged = count >= LARGE and np.count_nonzero(without_rim(inside)) < RAGGED * count
    return _named(inside, NONE if ragged else NOISE)


def _named(inside: np.ndarray, background: str) -> Foreground:
    return Foreground(inside, NONE if inside.all() else background)


def _constant(data: np.ndarray, fills: Sequence[float]) -> Foreground:
    """Find what differs from the fills, without what interpolation made between two of them."""
    inside = ~is_fill(data, fills)
    for one, other in combinations(fills, 2):
        near = [
            ndimage.binary_dilation(data == fill, iterations=DEPTH - 1) for fill in (one, other)
        ]
        inside &= ~(near[0] & near[1])
    if not inside.any():  # drawn with constants alone
        return _named(data != data.dtype.type(fills[0]), CONSTANT)
    return _named(inside, CONSTANTS if len(fills) > 1 else CONSTANT)


def _may_blend(rim: Rim, fills: Sequence[float]) -> bool:
    """Return True if most of what is beneath looks like air: interpolation with a darker border may
    have made the rest.
    """
    levels = find_levels(rim, 25)
    return bool(levels and fills[0] < levels.air - levels.spread and is_apart(rim, levels))


def _blended(data: np.ndarray, fills: Sequence[float], rim: Rim) -> Foreground:
    """Look again without the voxels near fills."""
    border = is_fill(data, fills)
    deep = ~border
    for axis in range(3):  # more of the border may lie beyond
        np.moveaxis(deep, axis, 0)[[0, -1]] = False
    for _ in range(DEPTH - 1):
        deep = without_rim(deep)
    inside, beneath = (data.T[each.T] for each in (deep, deep & ~without_rim(deep)))
    inside, beneath = (values[:: max(1, values.size // SAMPLE)] for values in (inside, beneath))
    air = find_air(rim._replace(inside=inside, beneath=beneath), fills)
    if air is None:
        return _constant(data, fills)
    blend = ~deep & ~border & (data < air)
    return _bordered(np.where(blend, data.dtype.type(air), data), fills, air, rim)


def _bordered(data: np.ndarray, fills: Sequence[float], air: float, rim: Rim) -> Foreground:
    """Return the head in noise, once the border is as dark as the noise."""
    border = is_fill(data, fills)
    darkened = np.where(border, data.dtype.type(air), data)
    found = head(darkened)
    if _is_clear(darkened, found, air):
        box = ndimage.find_objects(found.view(np.uint8))[0]
        found[box] &= ~_mostly_air(darkened[box], found[box], air)
    if not found.any():  # all that is bright is fill
        return _constant(data, fills)
    solid = rim.specks <= SPECKS or any(
        line.size >= 8 and np.isin(line, fills).all() for line in edges(data)
    )
    return _named(found, BORDERED if solid else NOISE)


def _is_clear(data: np.ndarray, inside: np.ndarray, air: float) -> bool:
    """Return True if noise of a voxel does not hide whether it is head or air; samples some voxels."""
    some = tuple(slice(None, None, 3 if side > 48 else 1) for side in data.shape)
    values, within = data[some], inside[some]
    if within.all() or not within.any():
        return False
    return bool(np.median(values[within]) - air >= CLEAR * np.std(values[~within]))


def _mostly_air(data: np.ndarray, inside: np.ndarray, air: float) -> np.ndarray:
    """Find voxels at the head's rim that interpolation made less than half as bright as the head."""
    brightest, enclosed = data.copy(), inside.copy()
    for axis in range(3):
        values, bright, within, deep = (
            np.moveaxis(array, axis, 0) for array in (data, brightest, inside, enclosed)
        )
        for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            np.maximum(bright[here], values[there], out=bright[here])
            deep[here] &= within[there]
    return np.asarray(inside & ~enclosed & (data - air < (brightest - air) / 2))
