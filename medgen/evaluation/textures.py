"""Radiomics of a region: first order, co-occurrence (GLCM) and size zones of grey levels (GLSZM).

Names and definitions are PyRadiomics' (van Griethuysen et al. 2017; Zwanenburg et al. 2020), in two
or three dimensions, with bins of fixed width. Slices are worked on together; `rois` are their pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from scipy import ndimage

OFFSETS = {
    2: ((0, 1), (1, 1), (1, 0), (1, -1)),
    3: tuple(each for each in product((-1, 0, 1), repeat=3) if each > (0, 0, 0)),
}
"""Neighbours at a distance of one pixel, by the number of axes; each counts in both directions."""
SMALL = 2e-16

Features = Iterator[tuple[str, np.ndarray]]
"""Names and values `[sample]`."""


def binned(images: np.ndarray, rois: np.ndarray, width: float) -> np.ndarray:
    """Return int64 `[sample, *space]`: bins from 1 on, 0 outside of the region.

    Bins are aligned to 0, and the one with the region's lowest value is number 1.
    """
    bins = np.floor(images / width).astype(np.int64)
    space = tuple(range(1, bins.ndim))
    lowest = np.where(rois, bins, np.iinfo(np.int64).max).min(space, keepdims=True)
    return np.where(rois, bins - lowest + 1, 0)


def first_order(images: np.ndarray, rois: np.ndarray, bins: np.ndarray) -> Features:
    """Yield 16 features of the values of each region; NaN where it is empty."""
    flat, inside = images.reshape(len(images), -1).astype(np.float64), rois.reshape(len(rois), -1)
    count = inside.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(inside, flat, 0).sum(1) / count
        centred = np.where(inside, flat - mean[:, None], 0)
        moments = [(centred**power).sum(1) / count for power in (2, 3, 4)]
        yield "Mean", mean
        yield "Variance", moments[0]
        yield "Skewness", _ratio(moments[1], moments[0] ** 1.5)
        yield "Kurtosis", _ratio(moments[2], moments[0] ** 2)
        yield "RootMeanSquared", np.sqrt(np.where(inside, flat**2, 0).sum(1) / count)
        yield "MeanAbsoluteDeviation", np.abs(centred).sum(1) / count
    yield from _percentiles(flat, inside)
    yield from _histogram(bins)


def _percentiles(flat: np.ndarray, inside: np.ndarray) -> Features:
    ordered = np.sort(np.where(inside, flat, np.inf), axis=1)
    count = inside.sum(1)
    at = {share: _quantile(ordered, count, share) for share in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)}
    yield "Minimum", at[0]
    yield "Maximum", at[1]
    yield "Range", at[1] - at[0]
    yield "Median", at[0.5]
    yield "10Percentile", at[0.1]
    yield "90Percentile", at[0.9]
    yield "InterquartileRange", at[0.75] - at[0.25]
    middle = inside & (flat >= at[0.1][:, None]) & (flat <= at[0.9][:, None])
    yield "RobustMeanAbsoluteDeviation", _mean_deviation(flat, middle)


def _quantile(ordered: np.ndarray, count: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile of each row's first `count` values, linearly interpolated; or NaN."""
    place = np.maximum(count - 1, 0) * share
    before = np.floor(place).astype(np.int64)
    after = np.minimum(before + 1, np.maximum(count - 1, 0))
    row = np.arange(len(ordered))
    low, high = (np.where(count > 0, ordered[row, each], np.nan) for each in (before, after))
    return np.asarray(low + (high - low) * (place - before))


def _mean_deviation(flat: np.ndarray, inside: np.ndarray) -> np.ndarray:
    count = np.where(inside.any(1), inside.sum(1), np.nan)
    mean = np.where(inside, flat, 0).sum(1) / count
    return np.asarray(np.where(inside, np.abs(flat - mean[:, None]), 0).sum(1) / count)


def _histogram(bins: np.ndarray) -> Features:
    counts = _counts(bins.reshape(len(bins), -1))[:, 1:]
    shares = counts / _or_nan(counts.sum(1))[:, None]
    yield "Entropy", entropy(shares, 1)
    yield "Uniformity", (shares**2).sum(1)


def _counts(values: np.ndarray) -> np.ndarray:
    """Return how often each whole number is in each row, `[row, number]`."""
    levels = int(values.max(initial=0)) + 1
    keys = values + levels * np.arange(len(values))[:, None]
    return np.bincount(keys.ravel(), minlength=levels * len(values)).reshape(len(values), levels)


def co_occurrence(bins: np.ndarray) -> Features:
    """Yield 18 features of the GLCM, means over the directions that have a pair of pixels.

    NaN without any pair. A region of one bin has a correlation of 1, as in PyRadiomics.
    """
    each = [_pairs(bins, offset) for offset in OFFSETS[bins.ndim - 1]]
    matrices = np.stack(each, 1).astype(np.float64)
    total = matrices.sum((2, 3))
    shares = matrices / _or_nan(total)[:, :, None, None]
    for name, values in _of_matrix(shares):
        known = ~np.isnan(values)
        yield name, np.where(known, values, 0).sum(1) / _or_nan(known.sum(1))


def _pairs(bins: np.ndarray, offset: Sequence[int]) -> np.ndarray:
    """Return the symmetric matrix of neighbours at one offset, `[sample, bin, bin]`."""
    levels = max(int(bins.max(initial=0)), 1)
    steps = [*zip(bins.shape[1:], offset, strict=True)]
    low = [slice(max(0, -step), side - max(0, step)) for side, step in steps]
    high = [slice(max(0, step), side - max(0, -step)) for side, step in steps]
    here, there = (bins[where] for where in ((slice(None), *low), (slice(None), *high)))
    rows = np.arange(len(bins)).reshape(-1, *(1,) * len(offset))
    sample = np.broadcast_to(rows, here.shape)
    both = (here > 0) & (there > 0)
    keys = (sample[both] * levels + here[both] - 1) * levels + there[both] - 1
    counts = np.bincount(keys, minlength=len(bins) * levels**2).reshape(len(bins), levels, levels)
    return np.asarray(counts + counts.transpose(0, 2, 1))


def _of_matrix(p: np.ndarray) -> Features:
    """Yield features of symmetric matrices p `[..., i, j]` that sum to 1; i and j count from 1."""
    level = np.arange(1, p.shape[-1] + 1, dtype=np.float64)
    i, j = level[:, None], level[None]
    marginal = p.sum(-1)
    mean = (marginal * level).sum(-1)
    variance = (marginal * (level - mean[..., None]) ** 2).sum(-1)
    total, gap = _diagonals(p, i + j - 2), _diagonals(p, np.abs(i - j))
    about = i + j - 2 * mean[..., None, None]
    yield "Autocorrelation", _sum(p * i * j)
    yield "JointAverage", mean
    yield "SumSquares", variance
    for name, power in (("ClusterTendency", 2), ("ClusterShade", 3), ("ClusterProminence", 4)):
        yield name, _sum(p * about**power)
    product = _sum(p * i * j) - mean**2
    flat = variance <= 1e-12  # also False where p is NaN
    yield "Correlation", np.where(flat, 1.0, product / np.where(flat, 1.0, variance))
    yield "Contrast", _sum(p * (i - j) ** 2)
    yield from _of_differences(gap)
    yield "JointEnergy", _sum(p**2)
    yield "JointEntropy", entropy(p, (-2, -1))
    yield "SumEntropy", entropy(total, -1)
    yield "MaximumProbability", p.max((-2, -1))
    yield "Id", _sum(p / (1 + np.abs(i - j)))
    yield "Idm", _sum(p / (1 + (i - j) ** 2))
    yield "InverseVariance", _sum(p * np.where(i == j, 0, 1 / np.maximum((i - j) ** 2, 1)))


def _of_differences(gap: np.ndarray) -> Features:
    k = np.arange(gap.shape[-1])
    mean = (gap * k).sum(-1)
    yield "DifferenceAverage", mean
    yield "DifferenceEntropy", entropy(gap, -1)
    yield "DifferenceVariance", (gap * (k - mean[..., None]) ** 2).sum(-1)


def _diagonals(p: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return the sums of p over the places of equal `which`, `[..., number]`."""
    numbers = which.astype(np.int64).ravel()
    member = np.zeros((numbers.size, numbers.max() + 1))
    member[np.arange(numbers.size), numbers] = 1
    return np.asarray(p.reshape(*p.shape[:-2], -1) @ member)


def size_zones(bins: np.ndarray) -> Features:
    """Yield 12 features of the GLSZM, whose zones connect also by corners; NaN without any."""
    sample, level, size = _zones(bins)
    zones = _or_nan(np.bincount(sample, minlength=len(bins)))

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(sample, values, len(bins)) / zones)

    yield "SmallAreaEmphasis", mean(1 / size**2)
    yield "LargeAreaEmphasis", mean(size**2)
    yield "ZonePercentage", zones / _or_nan((bins > 0).sum(tuple(range(1, bins.ndim))))
    yield "LowGrayLevelZoneEmphasis", mean(1 / level**2)
    yield "HighGrayLevelZoneEmphasis", mean(level**2)
    yield "SmallAreaLowGrayLevelEmphasis", mean(1 / (level**2 * size**2))
    yield "SmallAreaHighGrayLevelEmphasis", mean(level**2 / size**2)
    yield "GrayLevelVariance", mean((level - mean(level)[sample]) ** 2)
    yield "ZoneSizeVariance", mean((size - mean(size)[sample]) ** 2)
    for name, members in (
        ("GrayLevelNonUniformityNormalized", (level,)),
        ("ZoneSizeNonUniformityNormalized", (size,)),
    ):
        owner, counts = _equal(sample, *members)
        yield name, np.bincount(owner, (counts / zones[owner]) ** 2, len(bins)) + 0 * zones
    owner, counts = _equal(sample, level, size)
    shares = counts / zones[owner]
    yield (
        "ZoneEntropy",
        -np.bincount(owner, shares * np.log2(shares + SMALL), len(bins)) + 0 * zones,
    )


def _zones(bins: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sample, the bin and the number of pixels of each zone; bins and pixels as floats."""
    found = []
    touching = np.zeros((3,) * bins.ndim, bool)
    touching[1] = True  # all neighbours within a sample, none across samples
    for level in range(1, int(bins.max(initial=0)) + 1):
        parts, count = ndimage.label(bins == level, touching)
        pixel = np.flatnonzero(parts)
        number = parts.ravel()[pixel] - 1
        owner = np.zeros(count, np.int64)
        owner[number] = pixel // math.prod(bins.shape[1:])
        sizes = np.bincount(number, minlength=count).astype(np.float64)
        found.append((owner, np.full(count, float(level)), sizes))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
    sample, levels, pixels = (np.concatenate(each) for each in zip(*found, strict=True))
    return sample, levels, pixels


def _equal(*members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count equal rows: the first member of each kind of row, int64, and how many there are of it."""
    whole = [each.astype(np.int64) for each in members]
    counted = [int(each.max(initial=0)) + 1 for each in whole]
    kinds, counts = np.unique(np.ravel_multi_index(whole, counted), return_counts=True)
    return np.unravel_index(kinds, counted)[0], counts


def entropy(shares: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Return the entropy in bits; shares of 0 add nothing."""
    return np.asarray(-(shares * np.log2(shares + SMALL)).sum(axis))


def _sum(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.sum((-2, -1)))


def _or_nan(counts: np.ndarray) -> np.ndarray:
    return np.where(counts > 0, counts.astype(np.float64), np.nan)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return the quotient; NaN where all values are equal."""
    return np.asarray(above / np.where(below > 0, below, np.nan))
