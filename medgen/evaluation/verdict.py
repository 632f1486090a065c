"""In words how good pairs are, by the distance of anatomy features before all others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

from medgen.api.measures import FeaturesSettings
from medgen.evaluation.figures import Figure

WORDS = (
    (1.0, "like real patients", "they cannot be told from other patients"),
    (2.0, "near real", "they are further from real than patients are from each other, by little"),
    (16.0, "far from real", "an eye that knows heads tells them apart"),
)
"""How often the largest distance that real persons have from each other the generated are away, at
most, and words.
"""
WORST = ("bad", "they are very far from real; do not train on them")


@attrs.frozen
class Verdict:
    """word: how good pairs are. text: a sentence. by: whose features. low, high, times: `WORDS`."""

    word: str
    text: str
    by: str
    times: float
    low: float
    high: float


def judge(figures: Sequence[Figure], features: Mapping[str, FeaturesSettings]) -> Verdict:
    """Return the verdict by KID on the first extractor that knows anatomy, or on the first.

    The others only forbid praise: what any of them tells from real is at best near real.

    The measure is the generated's distance over the upper end of the interval of real against real,
    which few patients make wide: with them hardly anything can be told, and the words say so.
    """
    knowing = [name for name, each in features.items() if each.anatomy]
    by = (knowing or list(features))[0]
    kid = next(each for each in figures if (each.section, each.name) == (f"features: {by}", "KID"))
    floor = kid.reference_high
    if not floor > 0 or math.isnan(kid.low):
        nan = float("nan")
        return Verdict(
            "not known", "Too few patients to tell how far real ones are apart.", by, nan, nan, nan
        )
    times, low, high = (each / floor for each in (kid.value, kid.low, kid.high))
    word, why = _words(times, low)
    seen = [name for name in features if name != by and not _as_good(figures, name)]
    if word == WORDS[0][1] and seen:
        word, why = (
            WORDS[1][1],
            f"anatomy is as in other patients, but {' and '.join(seen)} tell them apart",
        )
    blind = (
        "" if knowing else f" {by} does not know heads: add features of anatomy, such as taught."
    )
    text = (
        f"The pairs are {word}: {why}. By KID on {by} they are {times:.2g} times ({max(low, 0):.2g} to {high:.2g}) "
        f"as far from real slices as real patients are from each other at most.{blind}"
    )
    return Verdict(word, text, by, times, low, high)


def _as_good(figures: Sequence[Figure], name: str) -> bool:
    """Return whether KID on an extractor, if it can tell, tells no pairs from real."""
    kid = [each for each in figures if (each.section, each.name) == (f"features: {name}", "KID")]
    return not kid or math.isnan(kid[0].low) or math.isnan(kid[0].reference_high) or kid[0].as_good


def _words(times: float, low: float) -> tuple[str, str]:
    """Return the words for a distance; the best only if the interval reaches real against real."""
    if low <= 1:
        return WORDS[0][1:]
    return next((words for most, *words in WORDS[1:] if times <= most), WORST)  # type: ignore[return-value]
