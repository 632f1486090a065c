"""How well a segmentation agrees with the truth: per pixel, and lesion by lesion as the BraTS
challenges score it.

Two rules say which predicted components belong to a lesion. Both count components that touch at a
corner as one, give a missed lesion a Dice of 0, and count each false positive as one more lesion
with a Dice of 0.

- `merged` (BraTS 2023 and 2024, Saluja et al., BraTS-2023-Metrics): lesions whose dilated masks
  touch are one lesion, and every predicted component that touches a dilated lesion is part of the
  lesion's prediction.
- `matched` (BraTS since 2025, by panoptica, Kofler et al. 2023): one component per lesion, by the
  bipartite matching with the largest sum of Dice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import attrs
import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

Array = np.ndarray[Any, Any]
Rule = Literal["merged", "matched"]

OVERLAP = 0.1
"""Dice from which a lesion counts as found, as in BraTS-METS since 2025."""
LEAST = 1e-6
"""Least Dice of a match; panoptica's threshold in the challenge."""


class SizeClass(NamedTuple):
    """Lesions by equivalent diameter, mm: low <= diameter < high."""

    name: str
    low: float
    high: float


SIZES = (
    SizeClass("< 5 mm", 0, 5),
    SizeClass("5 to 10 mm", 5, 10),
    SizeClass(">= 10 mm", 10, np.inf),
)
"""RANO-BM calls 10 mm measurable; below 5 mm a lesion is often a matter of opinion."""


@attrs.frozen
class LesionScores:
    """A row per lesion and a row per false positive.

    sample: `[lesion]`, index of the sample. diameter: `[lesion]`, mm, of the disc (three axes:
    ball) of equal size. dice: `[lesion]`, 0 if missed. false_sample, false_diameter: of false
    positives.
    """

    sample: Array
    diameter: Array
    dice: Array
    false_sample: Array
    false_diameter: Array

    def take(self, samples: Array) -> LesionScores:
        """Return lesions and false positives of samples, each as often as `samples` names it."""
        lesion, false = _rows(self.sample, samples), _rows(self.false_sample, samples)
        mine = (self.sample[lesion], self.diameter[lesion], self.dice[lesion])
        return LesionScores(*mine, self.false_sample[false], self.false_diameter[false])

    def sized(self, size: SizeClass) -> LesionScores:
        """Return lesions of one size class, and false positives that are themselves of that size."""
        lesion, false = _within(self.diameter, size), _within(self.false_diameter, size)
        mine = (self.sample[lesion], self.diameter[lesion], self.dice[lesion])
        return LesionScores(*mine, self.false_sample[false], self.false_diameter[false])

    def mean_dice(self) -> float:
        """Return lesion-wise Dice in [0, 1] or NaN: sum over lesions by lesions and false
        positives.
        """
        count = len(self.dice) + len(self.false_sample)
        return float(self.dice.sum() / count) if count else float("nan")

    def sensitivity(self, overlap: float = OVERLAP) -> float:
        """Share of lesions with a Dice of at least `overlap`; NaN without a lesion."""
        return float(np.mean(self.dice >= overlap)) if len(self.dice) else float("nan")

    def false_per_sample(self, samples: int) -> float:
        """Return the mean number of false positives in a sample."""
        return len(self.false_sample) / samples


def pixel_dice(prediction: Array, truth: Array) -> Array:
    """Compute the Dice of each sample, 1 where both masks are empty: `[sample]` float64.

    prediction, truth: bool `[sample, *space]`.
    """
    axes = tuple(range(1, truth.ndim))
    both = np.logical_and(prediction, truth).sum(axes)
    total = prediction.sum(axes, dtype=np.int64) + truth.sum(axes, dtype=np.int64)
    return np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)


def lesion_scores(
    prediction: Array, truth: Array, spacing: float, *, rule: Rule = "merged", dilation: int = 1
) -> LesionScores:
    """Score each lesion of each sample. Raises ValueError if the shapes differ.

    prediction, truth: bool `[sample, *space]`, two or three axes of space. spacing: mm per pixel,
    equal along all axes. dilation: pixels, for `merged`; BraTS takes 1 for metastases and
    meningioma, 3 for glioma.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    score = _merged(dilation) if rule == "merged" else _matched
    found = [score(predicted, true) for predicted, true in zip(prediction, truth, strict=True)]
    diameter = _diameter(spacing, truth.ndim - 1)
    return LesionScores(
        np.repeat(np.arange(len(found)), [len(each.dice) for each in found]),
        diameter(_joined([each.sizes for each in found])),
        _joined([each.dice for each in found]),
        np.repeat(np.arange(len(found)), [len(each.false) for each in found]),
        diameter(_joined([each.false for each in found])),
    )


class _Sample(NamedTuple):
    """One sample's lesions. sizes, dice: `[lesion]`; false: `[false positive]`; sizes in pixels."""

    sizes: Array
    dice: Array
    false: Array


def _merged(dilation: int) -> Callable[[Array, Array], _Sample]:
    def score(prediction: Array, truth: Array) -> _Sample:
        predicted, _ = components(prediction)
        groups = components(_dilated(truth, dilation))[0] * truth
        sizes, dice, touched = [], [], {0}
        for lesion in _each(groups):
            parts = np.setdiff1d(predicted[_dilated(lesion, dilation)], [0])
            mine = np.isin(predicted, parts)
            sizes.append(int(lesion.sum()))
            dice.append(2 * np.sum(mine & lesion) / (mine.sum() + sizes[-1]))
            touched.update(parts.tolist())
        areas = np.bincount(predicted.ravel())
        false = [area for part, area in enumerate(areas) if part not in touched]
        return _Sample(np.array(sizes, float), np.array(dice, float), np.array(false, float))

    return score


def _matched(prediction: Array, truth: Array) -> _Sample:
    (predicted, parts), (true, lesions) = components(prediction), components(truth)
    pairs = np.bincount(
        (true * (parts + 1) + predicted).ravel(), minlength=(lesions + 1) * (parts + 1)
    )
    shared = pairs.reshape(lesions + 1, parts + 1)
    sizes, areas = shared.sum(1)[1:], shared.sum(0)[1:]
    table = 2 * shared[1:, 1:] / (sizes[:, None] + areas[None, :])
    rows, columns = linear_sum_assignment(table, maximize=True)
    matched = table[rows, columns] >= LEAST
    dice = np.zeros(lesions)
    dice[rows[matched]] = table[rows, columns][matched]
    return _Sample(sizes.astype(float), dice, np.delete(areas, columns[matched]).astype(float))


def components(mask: Array) -> tuple[Array, int]:
    """Number connected components from 1, corners included: `[*space]` int32, and their count."""
    labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim, bool))
    return labels, int(count)


def _dilated(mask: Array, pixels: int) -> Array:
    """Grow a mask. The neighbourhood is BraTS's: 8 neighbours in a plane, 18 in a volume."""
    if pixels < 1:  # SciPy takes 0 for "until nothing changes"
        return mask
    return np.asarray(
        ndimage.binary_dilation(mask, ndimage.generate_binary_structure(mask.ndim, 2), pixels)
    )


def _each(labels: Array) -> Iterator[Array]:
    """Return the mask of each label above 0."""
    return (labels == number for number in np.unique(labels) if number)


def _diameter(spacing: float, axes: int) -> Callable[[Array], Array]:
    """Return a function from pixels to mm: the diameter of the disc or ball of that size."""
    if axes == 2:
        return lambda pixels: 2 * spacing * np.sqrt(pixels / np.pi)
    return lambda pixels: spacing * np.cbrt(6 * pixels / np.pi)


def _joined(parts: list[Array]) -> Array:
    return np.concatenate(parts) if parts else np.zeros(0)


def _within(diameter: Array, size: SizeClass) -> Array:
    return (diameter >= size.low) & (diameter < size.high)


def _rows(owner: Array, samples: Array) -> Array:
    """Return the rows of samples, in the order of `samples`, repeated as they are there."""
    order = np.argsort(owner, kind="stable")
    first, last = (np.searchsorted(owner[order], samples, side) for side in ("left", "right"))
    parts = [order[a:b] for a, b in zip(first, last, strict=True)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
