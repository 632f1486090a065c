"""Intervals by the bootstrap over persons, whose slices come and go together (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

Rows = np.ndarray
People = np.ndarray | Sequence[np.ndarray]
"""Who each sample of a set is of, int64 `[sample]`, or the same of each part of it."""


def interval(
    statistic: Callable[..., float],
    people: np.ndarray | Sequence[People],
    draws: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of a statistic when other persons of the same kind had been met.

    people: int64 `[sample]`, who each is of; or one such array for each of several sets, which are
    drawn apart, or a list of them for a set in parts, over which the statistic is a mean. statistic:
    gets for each set or part the rows that were drawn, int64, with repetitions, and gives a number
    or NaN.

    Percentiles of the draws, as far from their median as they are, times `widening`, but around the
    value: resampling biases a distance upwards, as having few samples did once already. NaN with
    fewer than two persons in a set, or where most draws give NaN.
    """
    sets: list[People] = [people] if isinstance(people, np.ndarray) else list(people)
    found = intervals(lambda *rows: np.array([statistic(*rows)]), sets, draws, rng, level)
    return float(found[1, 0]), float(found[2, 0])


def intervals(
    statistics: Callable[..., np.ndarray],
    people: Sequence[People],
    draws: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> np.ndarray:
    """Return `[3, k]`: value, low and high of k statistics of the same draws; see `interval`."""
    sets = [[_Persons(part) for part in _parts(each)] for each in people]
    persons = [part for parts in sets for part in parts]
    value = np.asarray(statistics(*(np.arange(each.size) for each in persons)), float)
    unknown = np.full_like(value, np.nan)
    if min(each.count for each in persons) < 2:
        return np.stack([value, unknown, unknown])
    drawn = np.array(
        [statistics(*(each.draw(rng) for each in persons)) for _ in range(draws)], float
    )
    told = (np.count_nonzero(~np.isnan(drawn), axis=0) * 2 >= draws) & ~np.isnan(value)
    low, middle, high = np.nanquantile(
        np.where(told, drawn, 0), [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0
    )
    wider = max(widening([part.count for part in parts], level) for parts in sets)
    low, high = value + wider * (low - middle), value + wider * (high - middle)
    return np.stack([value, np.where(told, low, np.nan), np.where(told, high, np.nan)])


def widening(persons: int | Sequence[int], level: float) -> float:
    """Return by how much a percentile interval of few persons is too narrow: sqrt(n / (n - 1)) t /
    z, t of n - 1.

    Hesterberg (2015, section 4.3): the percentile interval uses the variance with 1 / n, and z in
    the place of t. persons: n, or n of each part of a set. A mean over parts knows their spread as
    well as all together tell: t of the sum of n - 1.
    """
    counts = np.atleast_1d(persons)
    share = (1 + level) / 2
    ratio = stats.t.ppf(share, (counts - 1).sum()) / stats.norm.ppf(share)
    return float(ratio * np.sqrt(counts.min() / (counts.min() - 1)))


def _parts(people: People) -> Sequence[np.ndarray]:
    return [people] if isinstance(people, np.ndarray) else people


class _Persons:
    """The rows of each person of one set."""

    def __init__(self, people: np.ndarray):
        number = np.unique(people, return_inverse=True)[1]
        self._order = np.argsort(number, kind="stable")
        self._ends = np.cumsum(np.bincount(number)) if len(people) else np.zeros(0, np.int64)
        self.count, self.size = len(self._ends), len(people)

    def draw(self, rng: np.random.Generator) -> Rows:
        """Return the rows of as many persons as there are, drawn with replacement."""
        chosen = rng.integers(self.count, size=self.count)
        if self.count == len(self._order):
            return self._order[chosen]
        starts = np.concatenate([[0], self._ends[:-1]])
        return np.concatenate([self._order[starts[each] : self._ends[each]] for each in chosen])
