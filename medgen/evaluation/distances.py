"""Distances between sets of feature vectors, and within a set. Arrays only, float64.

Features are `[n, d]`. A weight per row says how often the row was drawn, so that a bootstrap needs
the products of rows only once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg

NEIGHBOURS = 5
"""k of precision, recall, density and coverage, as Naeem et al. (2020, section 4) use it."""


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return `[n, m]` of the kernel (x y / d + 1)^3 (Binkowski et al. 2018, eq. 3)."""
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


class Kernels(NamedTuple):
    """Kernel values within and between two sets, `[n, n]`, `[m, m]`, `[n, m]`, and which rows are
    of two persons.

    The slices of one person are alike; were they pairs, a set of few persons would be far from any
    other of its kind.
    """

    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray
    apart_x: np.ndarray
    apart_y: np.ndarray

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        people_x: np.ndarray | None = None,
        people_y: np.ndarray | None = None,
    ) -> Kernels:
        """People: int64 `[n]` and `[m]`; without them, each row is of a person of its own."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        apart = [_apart(len(x), people_x), _apart(len(y), people_y)]
        return cls(
            polynomial(x, x) * apart[0], polynomial(y, y) * apart[1], polynomial(x, y), *apart
        )

    def kid(self, wx: np.ndarray | None = None, wy: np.ndarray | None = None) -> float:
        """Return the unbiased squared MMD (Gretton et al. 2012, eq. 3; KID: Binkowski et al. 2018).

        wx `[n]`, wy `[m]`: times that each row was drawn, by default once. NaN with fewer than two
        persons in a set.
        """
        wx = np.ones(len(self.xx)) if wx is None else np.asarray(wx, np.float64)
        wy = np.ones(len(self.yy)) if wy is None else np.asarray(wy, np.float64)
        between = wx @ self.xy @ wy / (wx.sum() * wy.sum())
        return (
            _within(self.xx, self.apart_x, wx)
            + _within(self.yy, self.apart_y, wy)
            - 2 * float(between)
        )


def _apart(count: int, people: np.ndarray | None) -> np.ndarray:
    people = np.arange(count) if people is None else people
    return np.asarray(people[:, None] != people[None], np.float64)


def _within(kernel: np.ndarray, apart: np.ndarray, weights: np.ndarray) -> float:
    """Return the mean over pairs of rows of two persons. kernel: 0 for the others."""
    pairs = weights @ apart @ weights
    return float(weights @ kernel @ weights / pairs) if pairs > 0 else float("nan")


def kid(
    x: np.ndarray,
    y: np.ndarray,
    people_x: np.ndarray | None = None,
    people_y: np.ndarray | None = None,
) -> float:
    """Return the kernel inception distance of two sets of features, not multiplied by 1000."""
    return Kernels.of(x, y, people_x, people_y).kid()


def fid(x: np.ndarray, y: np.ndarray) -> float:
    """Return |mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)) (Heusel et al. 2017, eq. 6).

    With S_x = A_x' A_x, the trace of the root is the sum of the singular values of A_x A_y', where
    A may be any root of S: the centred samples, or, where there are more of them than features, the
    triangle of their QR. It is biased upwards, more for fewer samples.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    shift = x.mean(axis=0) - y.mean(axis=0)
    a, b = _root(x), _root(y)
    cross = linalg.svdvals(a @ b.T).sum()
    return float(shift @ shift + (a**2).sum() + (b**2).sum() - 2 * cross)


def _root(x: np.ndarray) -> np.ndarray:
    """Return a matrix A with A' A the covariance of x, of as few rows as can be."""
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    return (
        centred
        if len(x) <= x.shape[1]
        else np.asarray(linalg.qr(centred, mode="r")[0][: x.shape[1]])
    )


class Manifold(NamedTuple):
    """How well each set covers the other, 0 to 1; density may be larger."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: np.ndarray, made: np.ndarray, neighbours: int = NEIGHBOURS) -> Manifold:
    """Return precision and recall (Kynkaanniemi et al. 2019, eq. 1 and 2), density and coverage
    (Naeem 2020, eq. 3, 4).

    A sample counts if it lies within the ball around one of the other set that reaches to that
    one's k-th neighbour.
    """
    real, made = np.asarray(real, np.float64), np.asarray(made, np.float64)
    k = min(neighbours, len(real) - 1, len(made) - 1)
    if k < 1:
        return Manifold(*[float("nan")] * 4)
    between = distances(real, made)
    around_real, around_made = _radius(real, k), _radius(made, k)
    inside = between <= around_real[:, None]
    return Manifold(
        precision=float(inside.any(axis=0).mean()),
        recall=float((between <= around_made[None]).any(axis=1).mean()),
        density=float(inside.sum(axis=0).mean() / k),
        coverage=float(inside.any(axis=1).mean()),
    )


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return `[n, m]` Euclidean distances."""
    square = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None] - 2 * x @ y.T
    return np.asarray(np.sqrt(np.maximum(square, 0)))


def _radius(x: np.ndarray, k: int) -> np.ndarray:
    """Return the distance from each to its k-th neighbour, itself not counted."""
    return np.partition(distances(x, x), k, axis=1)[:, k]
