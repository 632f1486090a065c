"""Where the head is in a volume, and what lies around it: constants, noise, or noise inside a border of constants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from scipy import ndimage

CONSTANT, CONSTANTS = "constant", "several constants"
NOISE, BORDERED, NONE = "noise", "noise inside a border", "none"
RESTLESS = "noise of the full range"

NOT_NOISE = 0.01
"""The least share of all bright voxels that a connected part of a head has."""
RAGGED = 0.5
"""Least share of a head that touches nothing outside; a tenth of it is its rim, in noise it is two thirds."""
LARGE = 1 << 15
"""Voxels of a head below which much of any head is rim."""
DIM = 0.75
"""Part of Otsu's threshold that counts as bright, as tissue varies more than air; good down to a signal of 4 noises."""

LOUD, LEAST_QUIET = 0.03, 0.02
"""Variance of noise of the full range, as a share of the range squared (1/12 if all values are equally likely), and the
least share of the picture that is quieter than half of it."""
RIM_QUIET = 0.75
"""Part of the noise's variance that a voxel at the head's rim has at most; beside a plane a third of it is noise, and
two thirds of the next one's."""

SAMPLE = 300_000
"""Voxels to look at along each axis; few enough to take no time beside reading a scan."""
DEPTH = 3
"""Voxels beneath a rim that are free of what interpolation does to it."""
CLEAR = 10
"""Times the air's deviation that a head is brighter where one voxel tells whether it is more head or air."""
APART, LEAST_FAR = 12, 0.45
"""Times its spread that air is darker than the head where the border tells nothing, as tissues lie within 8, and the
least share of the picture that such air has."""
MAX_FILLS = 6
RARE, COMMON = 0.02, 0.1
"""Least share of the volume's edges that have a fill value: the first, and any other."""
SOLID = 0.8
"""Share of a fill's neighbours that have its value; noise of whole numbers is mixed."""
SPECKS = 0.25
"""Share of all steps into the picture that end after a voxel or two, from which on they are noise."""
FLAT, TEXTURED = 0.8, 0.2
"""Share of voxels with one value: at least in a second fill, and at most in a scan, which a drawing exceeds."""


class Foreground(NamedTuple):
    """inside: the head, bool. background: what lies around it, one of the words above."""

    inside: np.ndarray
    background: str


class _Levels(NamedTuple):
    """How bright the air and the head are. spread: of the air's darker half."""

    air: float
    spread: float
    head: float


class _Rim(NamedTuple):
    """A sample of the picture inside fills. beneath: voxels close to fills. specks: share of steps that end at once."""

    inside: np.ndarray
    beneath: np.ndarray
    specks: float


def foreground(data: np.ndarray) -> np.ndarray:
    """Where the head is."""
    return detect(data).inside


def detect(data: np.ndarray) -> Foreground:
    """Find the head: what differs from constant fills, or else what stands out from the noise inside of them."""
    fills = _fills(data)
    restless = _restless(data, fills)
    if restless is not None:
        return Foreground(restless, RESTLESS)
    while 0 < len(fills) < MAX_FILLS:
        rim = _rim(data, fills)
        fill = _next_fill(rim)
        if fill is None:
            air = _air(rim, fills)
            if air is None and _may_blend(rim, fills):
                return _blended(data, fills, rim)
            return _constant(data, fills) if air is None else _bordered(data, fills, air, rim)
        fills.append(fill)
    return _constant(data, fills) if fills else _noise(head(data))


def _noise(inside: np.ndarray) -> Foreground:
    """The head in noise, unless it is most of all rim, as where the noise is as bright as the head."""
    count = np.count_nonzero(inside)
    ragged = count >= LARGE and np.count_nonzero(without_rim(inside)) < RAGGED * count
    return _named(inside, NONE if ragged else NOISE)


def _named(inside: np.ndarray, background: str) -> Foreground:
    return Foreground(inside, NONE if inside.all() else background)


def _constant(data: np.ndarray, fills: Sequence[float]) -> Foreground:
    """All that differs from the fills, but for what interpolation made of the edge between two of them."""
    inside = ~_is_fill(data, fills)
    for one, other in combinations(fills, 2):
        near = [ndimage.binary_dilation(data == fill, iterations=DEPTH - 1) for fill in (one, other)]
        inside &= ~(near[0] & near[1])
    if not inside.any():  # drawn with constants alone
        return _named(data != data.dtype.type(fills[0]), CONSTANT)
    return _named(inside, CONSTANTS if len(fills) > 1 else CONSTANT)


def _may_blend(rim: _Rim, fills: Sequence[float]) -> bool:
    """True if most of what is beneath looks like air: interpolation with a darker border may have made the rest."""
    levels = _levels(rim, 25)
    return bool(levels and fills[0] < levels.air - levels.spread and _is_apart(rim, levels))


def _blended(data: np.ndarray, fills: Sequence[float], rim: _Rim) -> Foreground:
    """Look again without the voxels near fills."""
    border = _is_fill(data, fills)
    deep = ~border
    for axis in range(3):  # more of the border may lie beyond
        np.moveaxis(deep, axis, 0)[[0, -1]] = False
    for _ in range(DEPTH - 1):
        deep = without_rim(deep)
    inside, beneath = (data.T[each.T] for each in (deep, deep & ~without_rim(deep)))
    inside, beneath = (values[:: max(1, values.size // SAMPLE)] for values in (inside, beneath))
    air = _air(rim._replace(inside=inside, beneath=beneath), fills)
    if air is None:
        return _constant(data, fills)
    blend = ~deep & ~border & (data < air)
    return _bordered(np.where(blend, data.dtype.type(air), data), fills, air, rim)


def _bordered(data: np.ndarray, fills: Sequence[float], air: float, rim: _Rim) -> Foreground:
    """The head in noise, once the border is as dark as the noise."""
    border = _is_fill(data, fills)
    darkened = np.where(border, data.dtype.type(air), data)
    found = head(darkened)
    if _is_clear(darkened, found, air):
        box = ndimage.find_objects(found.view(np.uint8))[0]
        found[box] &= ~_mostly_air(darkened[box], found[box], air)
    if not found.any():  # all that is bright is fill
        return _constant(data, fills)
    solid = rim.specks <= SPECKS or any(line.size >= 8 and np.isin(line, fills).all() for line in _edges(data))
    return _named(found, BORDERED if solid else NOISE)


def _is_clear(data: np.ndarray, inside: np.ndarray, air: float) -> bool:
    """True where the noise of one voxel does not hide whether it is more head or air; looks at some of them."""
    some = tuple(slice(None, None, 3 if side > 48 else 1) for side in data.shape)
    values, within = data[some], inside[some]
    if within.all() or not within.any():
        return False
    return bool(np.median(values[within]) - air >= CLEAR * np.std(values[~within]))


def _mostly_air(data: np.ndarray, inside: np.ndarray, air: float) -> np.ndarray:
    """Voxels at the head's rim that interpolation made less than half as bright as the head beside them."""
    brightest, enclosed = data.copy(), inside.copy()
    for axis in range(3):
        values, bright, within, deep = (np.moveaxis(array, axis, 0) for array in (data, brightest, inside, enclosed))
        for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            np.maximum(bright[here], values[there], out=bright[here])
            deep[here] &= within[there]
    return np.asarray(inside & ~enclosed & (data - air < (brightest - air) / 2))


def without_rim(inside: np.ndarray) -> np.ndarray:
    """The voxels that touch none outside, not even with a corner; where the volume ends is no rim."""
    for axis in range(3):
        inner = inside.copy(order="K")
        within, kept = np.moveaxis(inside, axis, 0), np.moveaxis(inner, axis, 0)
        kept[1:] &= within[:-1]
        kept[:-1] &= within[1:]
        inside = inner
    return inside


# Noise of the full range


def _restless(data: np.ndarray, fills: Sequence[float]) -> np.ndarray | None:
    """The head where the air has every value that the head has, as in ratios of images; None where it has not.

    The uniform image of MP2RAGE is one (Marques et al. 2010, equation 3). Tissue is what varies least around a voxel.
    """
    box = ndimage.find_objects((~_is_fill(data, fills)).view(np.uint8))[0] if fills else (slice(None),) * 3
    picture = data[box]
    low, high = np.percentile(picture.ravel(order="K")[:: max(1, picture.size // SAMPLE)], [1, 99])
    if not low < high or _step_variance(picture) < LOUD * (high - low) ** 2:
        return None
    scaled = (picture - low) / np.float32(high - low)
    variance = _around(scaled * scaled) - _around(scaled) ** 2
    loud = np.median(np.concatenate([*_edges(variance)]))
    quiet = variance < loud / 2
    quiet &= _around(quiet.astype(np.float32)) > 0.4  # without specks of the noise
    if np.mean(quiet) < LEAST_QUIET:
        return None
    inside = np.zeros(data.shape, bool)
    inside[box] = _large_parts(quiet)
    inside[box] |= ndimage.binary_dilation(inside[box]) & (variance < RIM_QUIET * loud)
    solid = np.count_nonzero(without_rim(inside)) >= RAGGED * np.count_nonzero(inside)
    return inside if solid and not inside.all() else None


def _step_variance(picture: np.ndarray) -> float:
    """The variance of noise at a volume's edges, by the median step between neighbours, which few edges change."""
    steps = np.concatenate([np.abs(np.diff(line)) for line in _edges(picture)])
    return float(np.median(steps) ** 2) if steps.size else 0.0


def _around(data: np.ndarray) -> np.ndarray:
    """The mean over a voxel and those that touch it; in a slab over those in its slice."""
    return np.asarray(ndimage.uniform_filter(data, [3 if 4 * side >= max(data.shape) else 1 for side in data.shape]))


# Fills


def _edges(data: np.ndarray) -> Iterator[np.ndarray]:
    """The twelve edges of a volume. Its faces do not serve, as those of a slab or a slice are the picture itself."""
    for axes in combinations(range(3), 2):
        for ends in product((0, -1), repeat=2):
            yield np.moveaxis(data, axes, (0, 1))[ends]


def _fills(data: np.ndarray) -> list[float]:
    """The constants that a volume's edges consist of, the most frequent first."""
    values, counts = np.unique(np.concatenate([*_edges(data)]), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MAX_FILLS]
    total = counts.sum()
    found: list[float] = []
    for value, count in zip(values[order], counts[order], strict=True):
        enough = count >= max(2, (COMMON if found else RARE) * total)
        if enough and _solidity(data, value) >= SOLID:
            found.append(float(value))
    return found


def _solidity(data: np.ndarray, value: float) -> float:
    """The share of the value's neighbours on the faces that have it too."""
    same = both = 0
    for axis in range(3):
        for end in (0, -1):
            hit = np.moveaxis(data, axis, 0)[end] == value
            for pair in ((hit[1:], hit[:-1]), (hit[:, 1:], hit[:, :-1])):
                both += np.count_nonzero(pair[0] & pair[1])
                same += np.count_nonzero(pair[0] | pair[1])
    return 2 * both / (both + same) if same else 0.0


def _is_fill(data: np.ndarray, fills: Sequence[float]) -> np.ndarray:
    found = data == data.dtype.type(fills[0])
    for fill in fills[1:]:
        found |= data == data.dtype.type(fill)
    return np.asarray(found)


# What lies beneath


def _rim(data: np.ndarray, fills: Sequence[float]) -> _Rim:
    """Look along some lines of each axis, in both directions, for steps from a fill into the picture."""
    inside, beneath, steps, ended = [], [], 0, 0
    for axis in range(3):
        lines = _lines(data, axis)
        inside.append(lines[~_is_fill(lines, fills)])
        for line in (lines, lines[::-1]):
            values, enters, ends = _steps(line, fills)
            beneath.append(values)
            steps += enters
            ended += ends
    return _Rim(np.concatenate(inside), np.concatenate(beneath), ended / steps if steps else 0.0)


def _lines(data: np.ndarray, axis: int) -> np.ndarray:
    """Lines along an axis, `[along, line]`, spread over the volume."""
    stride = max(1, int(np.sqrt(data.size / SAMPLE)))
    moved = np.moveaxis(data, axis, 0)
    step = [stride if side >= 8 * stride else 1 for side in moved.shape[1:]]
    return np.asarray(moved[:, step[0] // 2 :: step[0], step[1] // 2 :: step[1]].reshape(len(moved), -1))


def _steps(line: np.ndarray, fills: Sequence[float]) -> tuple[np.ndarray, int, int]:
    """Values at `DEPTH` voxels from a fill, the number of steps into the picture, and of those that end in between."""
    count = len(line) - DEPTH
    if count < 1:
        return line[:0].ravel(), 0, 0
    fill = _is_fill(line, fills)
    value, outside = zip(*((line[k : count + k], fill[k : count + k]) for k in range(DEPTH + 1)), strict=True)
    enters = outside[0] & ~outside[1]
    returns = [outside[k] & (value[k] == value[0]) for k in range(2, DEPTH + 1)]
    deep = enters & ~np.any(outside[2:], axis=0)
    ends = enters & np.any(returns, axis=0)
    return value[DEPTH][deep], int(np.count_nonzero(enters)), int(np.count_nonzero(ends))


def _next_fill(rim: _Rim) -> float | None:
    """The constant that lies beneath the fills, if what lies in it is no drawing of constants itself."""
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


def _air(rim: _Rim, fills: Sequence[float]) -> float | None:
    """How bright the air within the fills is; None if the head begins there.

    Air is even, is the darkest of all that is there, is much of it, and differs from the head by some times its noise,
    and by more than from its border.
    """
    if rim.specks > SPECKS:
        return float(fills[0])
    levels = _levels(rim)
    if levels is None or _is_darker(rim.inside, levels):
        return None
    share = np.mean(rim.inside < (levels.air + levels.head) / 2)
    least = _least_air(levels, _reference(rim.inside, fills[0]))
    if least > 1 and _is_apart(rim, levels):
        least = LEAST_FAR
    return levels.air if share >= least else None


def _levels(rim: _Rim, lower: float = 10) -> _Levels | None:
    """How bright what begins at the fills is, and what is clearly brighter; None if no such two make up the picture."""
    if not rim.beneath.size or not rim.inside.size:
        return None
    low, air = (float(value) for value in np.percentile(rim.beneath, [lower, 50]))
    spread = air - low + 1e-6 * float(np.ptp(rim.inside))
    is_bright = rim.inside > air + 4 * spread
    bright, others = rim.inside[is_bright], rim.inside[~is_bright]
    if bright.size < 0.05 * rim.inside.size or not others.size or abs(np.median(others) - air) > spread:
        return None
    return _Levels(air, spread, float(np.median(bright)))


def _reference(values: np.ndarray, fill: float) -> float:
    """What no signal at all has: the fill, or 0 where it is negative and the picture is not, as in sums of squares."""
    return 0.0 if fill < 0 <= values.min() else fill


def _is_apart(rim: _Rim, levels: _Levels) -> bool:
    """True if what is beneath the fills is far too even for tissue, on both sides, beside its distance to the head."""
    even = np.percentile(rim.beneath, 75) - levels.air < 3 * levels.spread
    return bool(even and levels.head - levels.air > APART * levels.spread)


def _is_darker(values: np.ndarray, levels: _Levels) -> bool:
    """True if some voxels are darker than air; a few may be by a little, as splines swing beyond edges."""
    little = levels.air - 3 * levels.spread
    much = min(little - levels.spread, levels.air - 0.3 * (levels.head - levels.air))
    return bool(np.mean(values < little) > 0.02 or np.mean(values < much) > 0.001)


def _least_air(levels: _Levels, fill: float) -> float:
    """The share of the picture that air has at least, by how likely its brightness is that of air."""
    air, spread, head_level = levels
    level = (air - fill) / (head_level - fill) if head_level != fill else 1.0
    if 0.4 < level <= 1:
        return 1.1  # tissue
    if -0.5 <= level <= 0.25 or (level <= 0.4 and air - fill < 8 * spread):
        return 0.25
    return 0.45 if head_level - air > 8 * spread else 1.1


# The head in noise


def head(data: np.ndarray) -> np.ndarray:
    """The large bright parts, with all that they enclose."""
    dark = float(data.min())
    return _large_parts(data > dark + DIM * (otsu(data) - dark))


def _large_parts(bright: np.ndarray) -> np.ndarray:
    """Parts that are large enough for a head, with all that they enclose."""
    parts, count = ndimage.label(bright)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    solid = (sizes >= min(NOT_NOISE * sizes.sum(), sizes.max()))[parts]
    solid &= bright
    gaps, count = ndimage.label(~solid)
    outside = np.zeros(count + 1, bool)
    outside[_corners(gaps)] = True
    return np.asarray(~outside[gaps] | solid)


def _corners(gaps: np.ndarray) -> np.ndarray:
    """The gaps at the corners of a volume, or else at its edges: others that meet its faces are cut through by them."""
    corners = np.array([gaps[place] for place in product((0, -1), repeat=3)])
    return corners if corners.any() else np.concatenate([*_edges(gaps)])


def otsu(data: np.ndarray) -> float:
    """The threshold that best separates two classes (Otsu 1979, equation 18), of a histogram of 256 bins."""
    low, high = float(data.min()), float(np.percentile(data, 99.9))
    counts, edges = np.histogram(data, 256, (low, high))
    if np.count_nonzero(counts) < 2:  # all that is bright is beyond
        counts, edges = np.histogram(data, 256, (low, float(data.max())))
    centres = (edges[1:] + edges[:-1]) / 2
    omega = np.cumsum(counts) / counts.sum()
    mu = np.cumsum(counts * centres) / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mu[-1] * omega - mu) ** 2 / (omega * (1 - omega))
    return float(edges[1 + np.nanargmax(between[:-1])])
