"""How far two sets of measurements are apart, column by column, and the figures made of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import attrs
import numpy as np

from medgen import seeds
from medgen.evaluation.bootstrap import interval
from medgen.evaluation.figures import Figure

DRAWS = 200
"""Bootstrap draws of an interval: its ends are good to a tenth of its length."""


class Measured(NamedTuple):
    """values: float `[row, column]`, NaN where there is nothing to measure. people: int64 `[row]`,
    who it is of.
    """

    values: np.ndarray
    people: np.ndarray


def together(*parts: Measured) -> Measured:
    """Return the measurements of several sets of persons as those of one."""
    return Measured(*(np.concatenate(each) for each in zip(*parts, strict=True)))


class Wasserstein:
    """The 1-Wasserstein distance of each column between rows of two sets, in standard deviations of
    the second set.

    W1 is the area between the two cumulative distributions (Ramdas et al. 2017, equation 5). All
    values are sorted once, so that a bootstrap draw only counts its rows. A column that does not
    vary in the second set is not scaled.
    """

    def __init__(self, first: np.ndarray, second: np.ndarray):
        values = np.concatenate([first, second]).astype(np.float64)
        self._known = ~np.isnan(values)
        self._counts = len(first), len(second)
        self._order = np.argsort(np.where(self._known, values, np.inf), axis=0, kind="stable")
        ordered = np.take_along_axis(values, self._order, 0)
        self._steps = np.nan_to_num(np.diff(ordered, axis=0), nan=0.0) / _spread(second)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return `[column]`, NaN for a set without values. first, second: rows, also repeated."""
        lost, gained = self._shares(first, 0), self._shares(second, 1)
        difference = np.take_along_axis(np.concatenate([lost, -gained]), self._order, 0)
        distances = (np.abs(np.cumsum(difference, axis=0)[:-1]) * self._steps).sum(0)
        return np.asarray(distances)

    def mean(self, first: np.ndarray, second: np.ndarray) -> float:
        """Return the mean over the columns that both sets have values of."""
        distances = self(first, second)
        known = distances[~np.isnan(distances)]
        return float(known.mean()) if known.size else float("nan")

    def _shares(self, rows: np.ndarray, which: int) -> np.ndarray:
        """Return each row's share of its set's known values, `[row, column]`; NaN without any."""
        counts = np.bincount(rows, minlength=self._counts[which]).astype(np.float64)
        known = self._known[: self._counts[0]] if which == 0 else self._known[self._counts[0] :]
        weights = counts[:, None] * known
        total = weights.sum(0)
        return np.asarray(weights / np.where(total > 0, total, np.nan))


def _spread(values: np.ndarray) -> np.ndarray:
    """Return `[column]`: the standard deviation of the known values, 1 where they do not vary."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, values, 0).sum(0, dtype=np.float64) / count
    variance = np.where(known, (values - mean) ** 2, 0).sum(0, dtype=np.float64) / count
    spread = np.sqrt(variance)
    return np.asarray(np.where(spread > 1e-9 * (1 + np.abs(mean)), spread, 1.0))


@attrs.frozen
class FigureMaker:
    """The figures of one section: generated against real, beside other real persons against the
    same real ones.

    draws: of the bootstrap over persons. seed: of the draws; every figure has draws of its own.
    """

    section: str
    draws: int = DRAWS
    seed: int = 0

    def distance(self, name: str, real: Measured, other: Measured, synthetic: Measured) -> Figure:
        """Return the mean over the columns of their scaled Wasserstein distances."""
        value = self._between(name, "value", synthetic, real)
        reference = self._between(name, "reference", other, real)
        return Figure.of(
            self.section, f"{name}, distance", np.array(value), np.array(reference), "SD", "low"
        )

    def level(
        self,
        name: str,
        real: Measured,
        synthetic: Measured,
        *,
        unit: str = "",
        better: Literal["low", "high", "near"] = "near",
        statistic: Callable[[np.ndarray], float] | None = None,
        limits: tuple[float, float] = (-np.inf, np.inf),
    ) -> Figure:
        """Return a statistic of the first column of each set; the median if no other is given.

        real: as many persons as nothing was fitted to. limits: of what the statistic can be, at
        which intervals end.
        """
        of = statistic or known_median
        value, reference = (
            np.clip(self._alone(name, which, measured, of), *limits)
            for which, measured in (("value", synthetic), ("reference", real))
        )
        return Figure.of(self.section, name, value, reference, unit, better)

    def _between(
        self, name: str, which: str, first: Measured, second: Measured
    ) -> tuple[float, float, float]:
        distance = Wasserstein(first.values, second.values)
        everyone = np.arange(len(first.values)), np.arange(len(second.values))
        people = [first.people, second.people]
        if not len(first.values) or not len(second.values):
            return (float("nan"),) * 3
        low, high = interval(distance.mean, people, self.draws, self._rng(name, which))
        return distance.mean(*everyone), low if np.isnan(low) else max(low, 0.0), high

    def _alone(
        self, name: str, which: str, measured: Measured, of: Callable[[np.ndarray], float]
    ) -> tuple[float, float, float]:
        if not len(measured.values):
            return (float("nan"),) * 3
        column = measured.values[:, 0]
        value = of(column)
        return value, *interval(
            lambda rows: of(column[rows]), measured.people, self.draws, self._rng(name, which)
        )

    def _rng(self, name: str, which: str) -> np.random.Generator:
        return np.random.default_rng(
            seeds.derive(self.seed, f"interval/{self.section}/{name}/{which}")
        )


def known_median(values: np.ndarray) -> float:
    """Return the median of the known values, NaN without any."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def known_mean(values: np.ndarray) -> float:
    """Return the mean of the known values, NaN without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
