"""In words how good pairs are, by the distance of anatomy before all others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import attrs

from medgen.api.measures import FeaturesSettings
from medgen.evaluation.anatomy import SYMMETRY, UNEXPLAINED
from medgen.evaluation.figures import Figure
from medgen.evaluation.neighbours import torn

WORDS = (
    (0.0, "like real patients", "they cannot be told from other patients"),
    (
        0.8,
        "near real",
        "they are further from real than most patients are from each other, by little",
    ),
    (1.25, "far from real", "an eye that knows heads tells them apart"),
)
"""How often the largest distance that real persons have from each other the generated are away, at
most, and words; the first for pairs that no figure tells for certain.
"""
LEVELS = (SYMMETRY, UNEXPLAINED)
"""Figures of anatomy that mottle of the right spectrum fails, and few pairs suffice to tell."""
PERFECT = {SYMMETRY: 1.0}
"""What no head reaches: half of the way there is as far as real persons are from each other, since
a cohort's heads can happen to be more alike on both sides than another's.
"""
WORST = (
    "bad",
    "they are further from real than patients are from each other; do not train on them",
)


@attrs.frozen
class Verdict:
    """word: how good pairs are. text: a sentence. by: which figures. low, high, times: `WORDS`."""

    word: str
    text: str
    by: str
    times: float
    low: float
    high: float


class Times(NamedTuple):
    """How often as far from real as real persons are from each other, with its interval."""

    value: float
    low: float
    high: float


def judge(figures: Sequence[Figure], features: Mapping[str, FeaturesSettings]) -> Verdict:
    """Return the verdict by KID on the first extractor that knows anatomy, or on the first, and by
    the figures of anatomy.

    Each gives a distance, over the largest that real persons have from each other by chance, which
    few patients make wide: with them hardly anything can be told, and the words say so. Praise needs
    that none of them is certain to be further; all other words go by their mean, as no single one is
    sure to see what is wrong, and cohorts that are odd in one way do exist.

    The other extractors only forbid praise: what any of them tells from real is at best near real.
    Volumes whose slices do not follow each other are far from it at best.
    """
    knowing = [name for name, each in features.items() if each.anatomy]
    by = (knowing or list(features))[0]
    found = {f"KID on {by}": _of_distance(_kid_on(figures, by)[0])}
    found |= {each.name: _of_level(each) for each in figures if each.name in LEVELS}
    known = {name: each for name, each in found.items() if not math.isnan(each.low)}
    names = _listed(list(known))
    if f"KID on {by}" not in known:
        nan = float("nan")
        why = "Too few patients to tell how far real ones are apart."
        return Verdict("not known", why, by, nan, nan, nan)
    times = Times(*(_mean(each) for each in zip(*known.values(), strict=True)))
    certain = any(each.low > 1 for each in known.values())
    word, why = _words(times.value) if certain else WORDS[0][1:]
    seen = [name for name in features if name != by and not _as_good(figures, name)]
    if word == WORDS[0][1] and seen:
        word = WORDS[1][1]
        tell = "tells" if len(seen) == 1 else "tell"
        why = f"anatomy is as in other patients, but {' and '.join(seen)} {tell} them apart"
    word, why = _in_one_piece(figures, word, why)
    blind = f" {by} does not know heads: add features of anatomy, such as taught."
    text = f"The pairs are {word}: {why}. {_said(names, times)}{'' if knowing else blind}"
    return Verdict(word, text, names, *times)


def _said(by: str, times: Times) -> str:
    return (
        f"By {by} they are {times.value:.2g} times ({times.low:.2g} to {times.high:.2g}) "
        "as far from real slices as real patients are from each other at most."
    )


def _listed(names: Sequence[str]) -> str:
    *others, last = names or [""]
    return f"{', '.join(others)} and {last}" if others else last


def _mean(times: Sequence[float]) -> float:
    return sum(times) / len(times)


def _of_distance(kid: Figure) -> Times:
    """Return times by KID, a squared distance, which is 0 between equals; NaN if it is not known."""
    floor = kid.reference_high
    if not floor > 0:
        return Times(math.nan, math.nan, math.nan)
    return Times(*(math.sqrt(max(each / floor, 0.0)) for each in (kid.value, kid.low, kid.high)))


def _of_level(level: Figure) -> Times:
    """Return times by a median beside that of real slices."""
    ends = [_beyond(level, each) for each in (level.low, level.high)]
    reached = level.low <= level.reference <= level.high
    return Times(_beyond(level, level.value), 0.0 if reached else min(ends), max(ends))


def _beyond(level: Figure, value: float) -> float:
    """Return how far a value is from the reference, in widths of its interval on that side."""
    away = value - level.reference
    if level.better == "low" and away < 0:
        return 0.0
    end = level.reference_high if away > 0 else level.reference_low
    width = abs(end - level.reference)
    if away > 0 and level.name in PERFECT:
        width = max(width, (PERFECT[level.name] - level.reference) / 2)
    return abs(away) / width if width > 0 else math.nan


def _kid_on(figures: Sequence[Figure], name: str) -> list[Figure]:
    section = f"features: {name}"
    return [each for each in figures if (each.section, each.name) == (section, "KID")]


def _as_good(figures: Sequence[Figure], name: str) -> bool:
    """Return whether KID on an extractor, if it can tell, tells no pairs from real."""
    kid = _kid_on(figures, name)
    return not kid or math.isnan(kid[0].low) or math.isnan(kid[0].reference_high) or kid[0].as_good


def _in_one_piece(figures: Sequence[Figure], word: str, why: str) -> tuple[str, str]:
    """Return the words for volumes: those given, unless slices are torn apart."""
    apart = [f"{each.name} {each.value:.2f} beside {each.reference:.2f}" for each in torn(figures)]
    if not apart:
        return word, why
    least = WORDS[2][1] if word in (WORDS[0][1], WORDS[1][1]) else word
    return (
        least,
        f"neighbouring slices do not follow each other as in real heads ({', '.join(apart)})",
    )


def _words(times: float) -> tuple[str, str]:
    """Return the words for a distance that is more than chance."""
    return next((words for most, *words in WORDS[1:] if times <= most), WORST)  # type: ignore[return-value]
