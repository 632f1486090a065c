"""What a table of scores says: which arm is better, and how many real persons the pairs are worth.

Intervals come from a bootstrap over test persons and over seeds (Efron 1979), both paired across
the arms: a draw takes the same persons and seeds of every arm. The deviations of the two are
widened for their small numbers (see `bootstrap.widening`) and added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import attrs
import numpy as np

from medgen import seeds
from medgen.evaluation.bootstrap import widening
from medgen.evaluation.learning_curve import fit

Array = np.ndarray[Any, Any]
Word = Literal["helps", "no evidence", "hurts"]

DRAWS, LEVEL = 4000, 0.95
MOST = 4
"""Times the largest measured number of persons up to which a curve is trusted."""


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@attrs.frozen(eq=False)
class Scores:
    """Scores of every arm on the same test persons. by_arm: `[seed, person]` in [0, 1], or NaN."""

    by_arm: Mapping[str, Array]

    def draws(self, arms: Sequence[str], seed: int, count: int = DRAWS) -> tuple[Array, Array]:
        """Return the mean scores of some arms, `[arm]`, and bootstrap draws of them, `[draw, arm]`."""
        table = np.stack([self.by_arm[arm] for arm in arms])
        table = table[:, :, ~np.isnan(table).all(1).any(0)]  # persons with a score in every arm
        value = np.nanmean(table, (1, 2))
        by_person, by_seed = np.nanmean(table, 1), _mean_of_seeds(table, value)
        rng = np.random.default_rng(seeds.derive(seed, "prove bootstrap"))
        moved = _deviations(by_person, rng, count) + _deviations(by_seed, rng, count)
        return value, value + moved


def joined(parts: Sequence[Scores]) -> Scores:
    """Join the scores of the same arms on different test persons."""
    arms = parts[0].by_arm
    return Scores({arm: np.concatenate([each.by_arm[arm] for each in parts], 1) for arm in arms})


def _mean_of_seeds(table: Array, value: Array) -> Array:
    """Average over persons: `[arm, seed]`; a seed without any score gets the mean."""
    known = ~np.isnan(table)
    total = np.where(known, table, 0.0).sum(2)
    return np.where(known.any(2), total / np.maximum(known.sum(2), 1), value[:, None])


def _deviations(values: Array, rng: np.random.Generator, count: int) -> Array:
    """Return deviations of resampled columns' means, `[draw, arm]`. values: `[arm, column]`."""
    size = values.shape[1]
    if size < 2:
        return np.zeros((count, len(values)))
    drawn = values[:, rng.integers(size, size=(count, size))].mean(2).T
    return np.asarray(widening(size, LEVEL) * (drawn - values.mean(1)))


def difference(scores: Scores, arm: str, other: str, seed: int) -> Interval:
    """Return the paired difference of two arms' mean scores."""
    value, draws = scores.draws([arm, other], seed)
    return Interval(float(value[0] - value[1]), *_ends(draws[:, 0] - draws[:, 1]))


def mean(scores: Scores, arm: str, seed: int) -> Interval:
    """Return the mean score of an arm."""
    value, draws = scores.draws([arm], seed)
    return Interval(float(value[0]), *_ends(draws[:, 0]))


class Worth(NamedTuple):
    """How many more real persons the pairs are worth. most: where the curve ends, so that high may
    be at least it.
    """

    persons: Interval
    most: float
    rises: bool
    fitted: Array


def worth(scores: Scores, curve: Mapping[int, str], mixed: str, base: int, seed: int) -> Worth:
    """Invert the learning curve at the score of the arm with pairs.

    curve: arm by number of real persons. base: real persons that the pairs were added to. The value
    is from -base (worse than none) to `most` - base; `rises` is False where the interval of the
    curve's rise from the fewest to the most persons holds 0, so that no number means anything.
    """
    numbers = np.array(sorted(curve))
    arms = [curve[number] for number in numbers.tolist()]
    value, draws = scores.draws([*arms, mixed], seed)
    most = float(MOST * numbers[-1])
    both = np.concatenate([value[None], draws])
    fitted = fit(numbers, both[:, :-1])
    gained = fitted.persons(both[:, -1], most) - base
    rise = _ends(draws[:, len(arms) - 1] - draws[:, 0])
    ends = _ends(gained[1:])
    low, high = min(ends[0], float(gained[0])), max(ends[1], float(gained[0]))
    shown = np.array([float(fitted.score(float(number))[0]) for number in numbers])
    return Worth(Interval(float(gained[0]), low, high), most - base, rise[0] > 0, shown)


class Verdict(NamedTuple):
    """word: by the interval of `gain`, the difference to `against`; "hurts" by `to_real`."""

    word: Word
    against: str
    gain: Interval
    to_real: Interval


def verdict(
    scores: Scores, mixed: str, real: Sequence[str], control: str | None, seed: int
) -> Verdict:
    """Judge real plus pairs against the best of real data alone and real plus copy-paste.

    helps: better than the best control, the whole interval above 0. hurts: worse than real data
    alone, the whole interval below 0. Else no evidence.
    """
    best_real = max(real, key=lambda arm: mean(scores, arm, seed).value)
    controls = [best_real, *([control] if control else [])]
    against = max(controls, key=lambda arm: mean(scores, arm, seed).value)
    gain, to_real = (difference(scores, mixed, other, seed) for other in (against, best_real))
    word: Word = "helps" if gain.low > 0 else "hurts" if to_real.high < 0 else "no evidence"
    return Verdict(word, against, gain, to_real)


def _ends(draws: Array) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
