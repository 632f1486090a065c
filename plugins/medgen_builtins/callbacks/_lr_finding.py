"""Find a learning rate in a curve of scores over rates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

SMOOTHING = 0.6
"""Weight of the past in the smoothed score; small, as the fixed probe leaves little noise."""


DIVERGED = 3.0
"""Ratio of the smoothed score to the best at which the sweep ends."""


FEWEST = 10
"""Fewest points that a suggestion needs."""


RISE = 0.1
"""Share of the whole fall by which the smoothed score must rise to count as having turned."""


LEVEL = 0.02
"""Share of the score, or of its fall, below which a difference does not count."""


MARGIN = 0.5
"""Suggested share of the highest rate at which the score still falls."""


EDGE = 4
"""First points among which a steepest fall means that the sweep began too high; smoothing moves it
by 1 or 2.
"""


class Finding(NamedTuple):
    """What a sweep found. rates, scores, smoothed: one per rate measured; without a suggestion,
    `verdict` says why.

    steepest: where the score falls fastest. bound: its end. suggestion: half of it, or `steepest`.
    """

    rates: list[float]
    scores: list[float]
    smoothed: list[float]
    verdict: str = ""
    steepest: float | None = None
    bound: float | None = None
    suggestion: float | None = None


def smooth(scores: Sequence[float]) -> list[float]:
    """Average exponentially, corrected for the start as in Kingma and Ba 2015, section 3."""
    average, smoothed = 0.0, list[float]()
    for count, score in enumerate(scores, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * score
        smoothed.append(average / (1 - SMOOTHING**count))
    return smoothed


def diverged(smoothed: Sequence[float]) -> bool:
    """Return True if the last score is more than DIVERGED times the best."""
    return smoothed[-1] > DIVERGED * min(smoothed)


def judge(rates: Sequence[float], scores: Sequence[float]) -> Finding:
    """Find where the smoothed score falls fastest per decade, and the rate where that fall ends.

    The suggestion is half of the latter, or the former if more, which alone would not do: an
    autoencoder's fastest fall is its brightness's, at a tenth of the rates that train the rest.
    """
    finite = list(itertools.takewhile(math.isfinite, scores))
    smoothed = smooth(finite)
    found = Finding(list(rates[: len(scores)]), list(scores), smoothed)
    if len(finite) < FEWEST:
        few = f"rates before the loss was lost: {len(finite)}, expected {FEWEST} or more"
        return found._replace(verdict=f"{few}. Lower min_lr, or give more steps.")
    best = lowest(smoothed)
    steepest = max(range(1, best + 1), key=lambda index: fall(smoothed, index), default=0)
    verdict = _doubt(rates, smoothed, best, steepest)
    if verdict:
        return found._replace(verdict=verdict)
    bound = next(
        index
        for index in range(steepest, best + 1)
        if index == best or smoothed[index + 1] >= smoothed[index]
    )
    suggestion = max(rates[steepest], MARGIN * rates[bound])
    return found._replace(
        steepest=rates[steepest], bound=rates[bound], suggestion=suggestion, verdict="conclusive"
    )


def lowest(smoothed: Sequence[float]) -> int:
    """Find the score's minimum before its first rise; values after a rise are chance."""
    start = smoothed[0]
    rise, least = RISE * (start - min(smoothed)), start
    for score in smoothed:
        if score > least + rise:
            break
        least = min(least, score)
    return next(
        index for index, score in enumerate(smoothed) if score <= least + LEVEL * (start - least)
    )


def fall(smoothed: Sequence[float], index: int) -> float:
    """Return the score's fall between each rate's neighbours; log rates are evenly spaced."""
    return smoothed[index - 1] - smoothed[min(index + 1, len(smoothed) - 1)]


def _doubt(rates: Sequence[float], smoothed: Sequence[float], best: int, steepest: int) -> str:
    """Explain why there is no suggestion; empty if there is one."""
    if smoothed[0] - smoothed[best] < LEVEL * abs(smoothed[0]):
        return f"the loss stayed at {smoothed[0]:.3g}. Widen min_lr to max_lr, or give more steps."
    if best == len(rates) - 1:
        return f"the loss was still falling at {rates[-1]:.2g}. Raise max_lr."
    if steepest < EDGE:
        return f"the loss fell fastest at {rates[0]:.2g}, the first. Lower min_lr."
    return ""


def override(finding: Finding) -> str:
    """Return the override to add, as `training.learning_rate=1.2e-3`, or an empty string."""
    return f"training.learning_rate={number(finding.suggestion)}" if finding.suggestion else ""


def number(rate: float) -> str:
    """`1.2e-3`"""
    mantissa, exponent = f"{rate:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"
