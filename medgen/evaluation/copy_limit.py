"""When a likeness is beyond chance: limits from how alike different persons are, for each size of
what is compared.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from medgen.evaluation.bootstrap import widening

Array = np.ndarray[Any, np.dtype[Any]]

DEVIATIONS = 4.0
"""Standard deviations above the mean between persons at which a likeness becomes a copy."""
STEPS = np.linspace(np.log(4.0), np.log(65536.0), 40)
"""Logarithms of sizes (px) at which a limit is known; between them it is interpolated."""
WIDTH = 0.5
"""Standard deviation of the weights around a size, of its logarithm: sizes within a factor of 1.6
count alike.
"""
ENOUGH = 12.0
"""Weight that a size's own held-out likenesses need to stand alone; below it those of all sizes are
mixed in.
"""
FEWEST, LEVEL = 3, 0.95
"""Persons below which nothing is known of how they differ; level of the interval that says by how much
few of them are too few.
"""


class Held(NamedTuple):
    """Likeness, -1 to 1, of real things to the most alike of other persons; size (px) and person."""

    score: Array
    size: Array
    people: Array


class Limit(NamedTuple):
    """At which likeness something of a size is a copy.

    levels: limits at `STEPS`. alarms: expected share of false alarms of each person, by the limits
    of the others; empty with fewer than `FEWEST` persons, where the limit is the ceiling.
    """

    levels: Array
    alarms: Array
    people: Array

    @property
    def calibrated(self) -> bool:
        """Return whether the limits come from held-out persons."""
        return bool(len(self.alarms))

    def at(self, size: Array) -> Array:
        """Return the limits for some sizes, px."""
        return np.interp(np.log(np.maximum(size, 1)), STEPS, self.levels)


def limit(held: Held, ceiling: float) -> Limit:
    """Return the limits by held-out persons, at most `ceiling`, beyond which anything is a copy."""
    people = np.unique(held.people)
    if len(people) < FEWEST:
        return Limit(np.full(len(STEPS), ceiling), np.zeros(0), np.zeros(0))
    weights = np.exp(-0.5 * ((np.log(np.maximum(held.size, 1))[:, None] - STEPS) / WIDTH) ** 2)
    z = fisher(held.score)[:, None]
    moments = np.stack(
        [
            np.stack([weights, weights * z, weights * z * z])[:, held.people == each].sum(1)
            for each in people
        ]
    )
    alarms = np.zeros(len(held.score))
    for number, each in enumerate(people):
        mine = held.people == each
        levels = _levels(np.delete(moments, number, 0), ceiling)
        others = Limit(levels, np.zeros(0), np.zeros(0))
        alarms[mine] = held.score[mine] > others.at(held.size[mine])
    return Limit(_levels(moments, ceiling), alarms, held.people)


def fisher(score: Array) -> Array:
    """Apply Fisher's transform to correlations, whose spread then does not shrink towards 1."""
    return np.asarray(np.arctanh(np.clip(score, 0.0, 0.99999)))


def _levels(moments: Array, ceiling: float) -> Array:
    """Return the mean plus `DEVIATIONS` from weighted moments `[person, 3, step]`.

    A person with little weight at a step lends it from the others. Few persons know little of how
    much persons differ: that part of the variance is widened as an interval over them would be.
    """
    everything = moments.sum(2, keepdims=True)
    lent = np.clip(ENOUGH / len(moments) - moments[:, :1], 0.0, None)
    moments = moments + lent * everything / np.maximum(everything[:, :1], 1e-9)
    of_person = moments[:, 1] / np.maximum(moments[:, 0], 1e-9)
    count, first, second = moments.sum(0)
    mean = first / np.maximum(count, 1e-9)
    variance = np.maximum(second / np.maximum(count, 1e-9) - mean**2, 0.0)
    unknown = (widening(len(moments), LEVEL) ** 2 - 1) * of_person.var(0)
    levels: Array = np.minimum(np.tanh(mean + DEVIATIONS * np.sqrt(variance + unknown)), ceiling)
    return levels
