"""A score as a function of the number of persons trained on, and how many persons a score is worth.

The curve is the inverse power law with a ceiling, score(n) = a - b n^-c with b >= 0, which learning
curves of classifiers and segmenters follow (Cortes et al. 1993; Figueroa et al. 2012, eq. 1). It is
monotone and can be inverted: n(score) = ((a - score) / b)^(-1/c).
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

Array = np.ndarray[Any, Any]

EXPONENTS = np.geomspace(0.1, 2.0, 40)
"""The values of c that are tried; those of Figueroa et al. lie inside."""
FLAT = 1e-9
"""Rise over the measured range below which a curve says nothing of numbers of persons."""


@attrs.frozen(eq=False)
class Curve:
    """score(n) = a - b n^-c, one curve per draw: each field `[draw]`."""

    a: Array
    b: Array
    c: Array

    def score(self, persons: Array | float) -> Array:
        """Return the score after training on n persons, `[draw]`; for an array `[n]`, `[draw, n]`."""
        count = np.asarray(persons, float)
        a, b, c = (each[..., None] if count.ndim else each for each in (self.a, self.b, self.c))
        return np.asarray(a - b * count**-c)

    def persons(self, score: Array, most: float) -> Array:
        """Return how many persons give a score, 0 to `most`: `[draw]`; `most` at the ceiling a.

        A flat curve gives 0 below its level, `most` from it on: any number explains the score.
        """
        gap = self.a - score
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            count = np.where(gap > 0, (gap / self.b) ** (-1 / self.c), most)
        return np.clip(np.where((self.b <= FLAT) & (gap > 0), 0.0, count), 0.0, most)


def fit(persons: Array, scores: Array) -> Curve:
    """Fit a curve to each draw by least squares. persons: `[n]`, ascending; scores: `[draw, n]`.

    For each exponent a and b have a closed form; the best exponent is taken. b below 0 becomes 0.
    """
    best = np.full(len(scores), np.inf)
    a, b, c = (np.zeros(len(scores)) for _ in range(3))
    mean = scores.mean(1)
    for exponent in EXPONENTS:
        x = -(np.asarray(persons, float) ** -exponent)
        x_mean, spread = x.mean(), ((x - x.mean()) ** 2).sum()
        slope = np.maximum((scores - mean[:, None]) @ (x - x_mean) / spread, 0.0)
        level = mean - slope * x_mean
        error = ((level[:, None] + slope[:, None] * x - scores) ** 2).sum(1)
        better = error < best - 1e-15
        for kept, new in ((a, level), (b, slope), (best, error)):
            kept[better] = new[better]
        c[better] = exponent
    return Curve(a, b, c)
