"""Distances of generated from real slices in an extractor's features, beside real from real."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medgen.api.interfaces import Extractor
from medgen.evaluation.bootstrap import intervals
from medgen.evaluation.comparison import Comparison
from medgen.evaluation.distances import Kernels, fid, manifold
from medgen.evaluation.figures import Better, Figure

LINES: tuple[tuple[str, Better], ...] = (
    ("KID", "low"),
    ("FID", "low"),
    ("precision", "high"),
    ("recall", "high"),
    ("density", "high"),
    ("coverage", "high"),
)
LEAST, LARGEST = (-np.inf, 0, 0, 0, 0, 0), (np.inf, np.inf, 1, 1, np.inf, 1)
"""Beyond which no figure of a line can lie, and so no end of its interval."""
MOST = 500
"""Samples of a set in all but KID, whose other figures change with the number."""


class _Side(NamedTuple):
    """A set of slices. use: which of them the figures use that change with the number of samples."""

    features: np.ndarray
    people: np.ndarray
    use: np.ndarray


class _Pair(NamedTuple):
    """Two sets of features, and which rows the figures that change with the number of samples use."""

    real: np.ndarray
    made: np.ndarray
    kernels: Kernels
    use_real: np.ndarray
    use_made: np.ndarray

    def figures(self, real: np.ndarray, made: np.ndarray) -> np.ndarray:
        """Return the six figures of rows that were drawn."""
        weights = (
            np.bincount(real, minlength=len(self.real)),
            np.bincount(made, minlength=len(self.made)),
        )
        a, b = self.real[real[self.use_real[real]]], self.made[made[self.use_made[made]]]
        if min(len(a), len(b)) < 2:
            return np.full(len(LINES), np.nan)
        return np.array([self.kernels.kid(*weights), fid(a, b), *manifold(a, b)])


def figures_of(comparison: Comparison, name: str, extractor: Extractor) -> tuple[list[Figure], str]:
    """Return the figures on one extractor, and its hash.

    Each is the mean over all sets of real persons, with which the pairs are compared; beside it,
    the mean of each set as if it were generated, against the other of its fold. All sets have the
    same number of samples.
    """
    kept, hashes = _kept(comparison, name), []
    against, between = [], []
    for number, fold in enumerate(comparison.folds):
        extractor.fit(
            fold.heads.images,
            fold.heads.people,
            fold.heads.position,
            comparison.number(f"features/{name}", number),
        )
        hashes.append(extractor.hash)
        sets = zip(
            (fold.one, fold.two, comparison.made),
            (*kept[2 * number : 2 * number + 2], kept[-1]),
            strict=True,
        )
        one, two, made = (_Side(extractor(each.images), each.people, use) for each, use in sets)
        against += [_pair(one, made), _pair(two, made)]
        between += [_pair(one, two), _pair(two, one)]
        comparison.tell(name)
    return _lines(comparison, name, against, between), "+".join(dict.fromkeys(hashes))


def _lines(
    comparison: Comparison, name: str, against: list[_Pair], between: list[_Pair]
) -> list[Figure]:
    sides = [each.people for each in comparison.sides]

    def generated(made: np.ndarray, *real: np.ndarray) -> np.ndarray:
        return _mean([pair.figures(rows, made) for pair, rows in zip(against, real, strict=True)])

    def reference(*real: np.ndarray) -> np.ndarray:
        other = [real[number ^ 1] for number in range(len(real))]
        return _mean(
            [pair.figures(*rows) for pair, *rows in zip(between, real, other, strict=True)]
        )

    rng = comparison.rng(f"bootstrap/{name}")
    value = intervals(generated, [comparison.made.people, sides], comparison.draws, rng).clip(
        LEAST, LARGEST
    )
    beside = intervals(reference, [sides], comparison.draws, rng).clip(LEAST, LARGEST)
    return [
        Figure.of(f"features: {name}", line, value[:, number], beside[:, number], better=better)
        for number, (line, better) in enumerate(LINES)
    ]


def _mean(found: list[np.ndarray]) -> np.ndarray:
    """Average over sets, without those of too few persons to tell anything."""
    together = np.array(found)
    told = ~np.isnan(together)
    count = told.sum(axis=0)
    return np.where(
        count > 0, np.where(told, together, 0).sum(axis=0) / np.maximum(count, 1), np.nan
    )


def _pair(real: _Side, made: _Side) -> _Pair:
    return _Pair(real.features, made.features, _kernels(real, made), real.use, made.use)


def _kernels(real: _Side, made: _Side) -> Kernels:
    return Kernels.of(real.features, made.features, real.people, made.people)


def _kept(comparison: Comparison, name: str) -> list[np.ndarray]:
    """Draw bool masks of equally many rows of each set of real slices and, last, of the pairs."""
    rng, sets = comparison.rng(f"kept/{name}"), (*comparison.sides, comparison.made)
    count = min(MOST, *map(len, sets))
    kept = []
    for each in sets:
        use = np.zeros(len(each), bool)
        use[rng.permutation(len(each))[:count]] = True
        kept.append(use)
    return kept
