"""How neighbouring slices of a volume follow each other, in each of three planes.

Slices that were generated apart and stacked look right in their own plane and are torn in the two
others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medgen.api.tables import AXES
from medgen.evaluation.distributions import DRAWS, FigureMaker, Measured, known_mean, together
from medgen.evaluation.figures import Figure
from medgen.evaluation.heads import heads_of
from medgen.evaluation.samples import Samples

SECTION = "neighbouring slices"
FEWEST = 16
"""Pixels that the heads of two slices must have in common."""
WITHIN = 0.02
"""Relative difference from real that is none, as real cohorts differ by it."""


def figures_of(
    real: Samples, other: Samples, synthetic: Samples, *, draws: int = DRAWS, seed: int = 0
) -> list[Figure]:
    """Return the mean correlation of neighbouring slices in each plane; none of slices."""
    if synthetic.axes == 2:
        return []
    maker = FigureMaker(SECTION, draws, seed)
    figures = []
    for axis, plane in enumerate(AXES):
        *persons, generated = [
            Measured(correlations(each.images, axis), each.people)
            for each in (real, other, synthetic)
        ]
        figures.append(
            maker.level(
                f"correlation of {plane} slices",
                together(*persons),
                generated,
                statistic=known_mean,
                limits=(-1, 1),
            )
        )
    return figures


def correlations(images: np.ndarray, axis: int) -> np.ndarray:
    """Return `[sample, channel]`: the mean correlation of neighbouring slices across an axis of
    space, within the head; NaN where none have enough of it.

    images: volumes `[sample, channel, x, y, z]`.
    """
    return np.stack(
        [_of_one(image, head, axis) for image, head in zip(images, heads_of(images), strict=True)]
    )


def _of_one(image: np.ndarray, head: np.ndarray, axis: int) -> np.ndarray:
    values = np.moveaxis(image, axis + 1, 1).astype(np.float64)
    inside = np.moveaxis(head, axis, 0)
    both = (inside[1:] & inside[:-1]).reshape(len(inside) - 1, -1)
    kept = both.sum(1) >= FEWEST
    flat = values.reshape(*values.shape[:2], -1)
    found = _correlation(flat[:, :-1][:, kept], flat[:, 1:][:, kept], both[kept])
    known = ~np.isnan(found)
    count = np.where(known.any(1), known.sum(1), np.nan)
    return np.asarray(np.where(known, found, 0).sum(1) / count)


def _correlation(one: np.ndarray, two: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of slices `[channel, slice, pixel]` where `inside`, `[slice,
    pixel]`; NaN where one is flat.
    """
    count = inside.sum(1)
    one, two = (
        (each - ((each * inside).sum(2) / count)[..., None]) * inside for each in (one, two)
    )
    norm = np.sqrt((one**2).sum(2) * (two**2).sum(2))
    return np.asarray((one * two).sum(2) / np.where(norm > 0, norm, np.nan))


def torn(figures: Sequence[Figure]) -> list[Figure]:
    """Return the figures of planes in which slices follow each other otherwise than in real heads: by
    more than `WITHIN`, and by more than persons differ.
    """
    mine = (each for each in figures if each.section == SECTION)
    return [
        each
        for each in mine
        if abs(each.value - each.reference) > WITHIN * abs(each.reference) and not each.overlaps
    ]
