"""What begins where the constants around a scan end: another constant, air, or the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medgen.data.store.foreground.fills import SAMPLE, is_fill

DEPTH = 3
"""Voxels beneath a rim that are free of what interpolation does to it."""
APART, LEAST_FAR = 12, 0.45
"""Times its spread that air is darker than the head where the border tells nothing, as tissues lie
within 8, and the least share of the picture that such air has.
"""
SPECKS = 0.25
"""Share of all steps into the picture that end after a voxel or two, from which on they are noise."""
FLAT, TEXTURED = 0.8, 0.2
"""Share of voxels with one value: at least in a second fill, and at most in a scan, which a drawing
exceeds.
"""


class Levels(NamedTuple):
    """How bright the air and the head are. spread: of the air's darker half."""

    air: float
    spread: float
    head: float


class Rim(NamedTuple):
    """A sample of the picture inside fills. beneath: voxels close to fills. specks: share of steps
    that end at once.
    """

    inside: np.ndarray
    beneath: np.ndarray
    specks: float


def look_beneath(data: np.ndarray, fills: Sequence[float]) -> Rim:
    """Look along some lines of each axis, both ways, for steps from a fill into the picture."""
    inside, beneath, steps, ended = [], [], 0, 0
    for axis in range(3):
        lines = _lines(data, axis)
        inside.append(lines[~is_fill(lines, fills)])
        for line in (lines, lines[::-1]):
            values, enters, ends = _steps(line, fills)
            beneath.append(values)
            steps += enters
            ended += ends
    return Rim(np.concatenate(inside), np.concatenate(beneath), ended / steps if steps else 0.0)


def _lines(data: np.ndarray, axis: int) -> np.ndarray:
    """Return lines along an axis, `[along, line]`, spread over the volume."""
    stride = max(1, int(np.sqrt(data.size / SAMPLE)))
    moved = np.moveaxis(data, axis, 0)
    step = [stride if side >= 8 * stride else 1 for side in moved.shape[1:]]
    return np.asarray(
        moved[:, step[0] // 2 :: step[0], step[1] // 2 :: step[1]].reshape(len(moved), -1)
    )


def _steps(line: np.ndarray, fills: Sequence[float]) -> tuple[np.ndarray, int, int]:
    """Return values `DEPTH` voxels from a fill, and counts of steps into the picture, all and
    short.
    """
    count = len(line) - DEPTH
    if count < 1:
        return line[:0].ravel(), 0, 0
    fill = is_fill(line, fills)
    value, outside = zip(
        *((line[k : count + k], fill[k : count + k]) for k in range(DEPTH + 1)), strict=True
    )
    enters = outside[0] & ~outside[1]
    returns = [outside[k] & (value[k] == value[0]) for k in range(2, DEPTH + 1)]
    deep = enters & ~np.any(outside[2:], axis=0)
    ends = enters & np.any(returns, axis=0)
    return value[DEPTH][deep], int(np.count_nonzero(enters)), int(np.count_nonzero(ends))


def find_next_fill(rim: Rim) -> float | None:
    """Return the constant beneath the fills, unless it holds a drawing of constants itself."""
    if rim.specks > SPECKS or not rim.beneath.size:
        return None
    value, share = _most_frequent(rim.beneath)
    within = rim.inside[rim.inside != value]
    if share < FLAT or not within.size or _most_frequent(within)[1] > TEXTURED:
        return None
    return value


def _most_frequent(values: np.ndarray) -> tuple[float, float]:
    distinct, counts = np.unique(values, return_counts=True)
    return float(distinct[counts.argmax()]), float(counts.max() / values.size)


def find_air(rim: Rim, fills: Sequence[float]) -> float | None:
    """Return the brightness of air within the fills; None if the head begins there.

    Air is even, is the darkest of all that is there, is much of it, and differs from the head by
    some times its noise, and by more than from its border.
    """
    if rim.specks > SPECKS:
        return float(fills[0])
    levels = find_levels(rim)
    if levels is None or _is_darker(rim.inside, levels):
        return None
    share = np.mean(rim.inside < (levels.air + levels.head) / 2)
    least = _least_air(levels, _reference(rim.inside, fills[0]))
    if least > 1 and is_apart(rim, levels):
        least = LEAST_FAR
    return levels.air if share >= least else None


def find_levels(rim: Rim, lower: float = 10) -> Levels | None:
    """Return the brightness where fills end, and what is clearly brighter; None without both."""
    if not rim.beneath.size or not rim.inside.size:
        return None
    low, air = (float(value) for value in np.percentile(rim.beneath, [lower, 50]))
    spread = air - low + 1e-6 * float(np.ptp(rim.inside))
    is_bright = rim.inside > air + 4 * spread
    bright, others = rim.inside[is_bright], rim.inside[~is_bright]
    if (
        bright.size < 0.05 * rim.inside.size
        or not others.size
        or abs(np.median(others) - air) > spread
    ):
        return None
    return Levels(air, spread, float(np.median(bright)))


def _reference(values: np.ndarray, fill: float) -> float:
    """Return what no signal at all has: the fill, or 0 where it is negative and the picture is not,
    as in sums of squares.
    """
    return 0.0 if fill < 0 <= values.min() else fill


def is_apart(rim: Rim, levels: Levels) -> bool:
    """Return True if what is beneath the fills is far too even for tissue, on both sides, beside
    its distance to the head.
    """
    even = np.percentile(rim.beneath, 75) - levels.air < 3 * levels.spread
    return bool(even and levels.head - levels.air > APART * levels.spread)


def _is_darker(values: np.ndarray, levels: Levels) -> bool:
    """Return True if voxels are darker than air; a few may be slightly, where splines overshoot."""
    little = levels.air - 3 * levels.spread
    much = min(little - levels.spread, levels.air - 0.3 * (levels.head - levels.air))
    return bool(np.mean(values < little) > 0.02 or np.mean(values < much) > 0.001)


def _least_air(levels: Levels, fill: float) -> float:
    """Return the least share of air in the picture, by how likely its brightness is air's."""
    air, spread, head_level = levels
    level = (air - fill) / (head_level - fill) if head_level != fill else 1.0
    if 0.4 < level <= 1:
        return 1.1  # tissue
    if -0.5 <= level <= 0.25 or (level <= 0.4 and air - fill < 8 * spread):
        return 0.25
    return 0.45 if head_level - air > 8 * spread else 1.1
