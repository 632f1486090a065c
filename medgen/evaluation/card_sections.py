"""What a card consists of, in order: a function per section. To add one, add it to `SECTIONS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import numpy as np
import torch

from medgen.config.registry import Registry
from medgen.evaluation import (
    anatomy,
    diversity,
    lesions,
    neighbours,
    obedience,
    planes,
    radiomics,
    two_sample,
)
from medgen.evaluation.comparison import Comparison
from medgen.evaluation.figures import Figure

Section = Callable[[Comparison], list[Figure]]


def _two_sample(comparison: Comparison) -> list[Figure]:
    return two_sample.figures_of(comparison, torch.device("cpu"))


def _by_plane(figures_of: Section, count: int) -> Section:
    """Return a section of slices; of volumes on `count` slices of each, plane by plane."""

    def section(comparison: Comparison) -> list[Figure]:
        return [
            attrs.evolve(figure, name=figure.name + plane)
            for plane, view in planes.views(comparison, count)
            for figure in figures_of(view)
        ]

    return section


def _apart(figures_of: Callable[..., list[Figure]], name: str) -> Section:
    """Return a section that compares distributions of pairs with each half of the real persons."""

    def section(comparison: Comparison) -> list[Figure]:
        comparison.tell(name)
        made, seed = comparison.made, comparison.number(name)
        return _told(figures_of(*comparison.halves, made, draws=comparison.draws, seed=seed))

    return section


def _told(figures: list[Figure]) -> list[Figure]:
    """Leave out what too few lesions or persons cannot tell: an unknown interval overlaps with
    none, as if far off.
    """
    ends = ([each.low, each.high, each.reference_low, each.reference_high] for each in figures)
    return [each for each, known in zip(figures, ends, strict=True) if not np.isnan(known).any()]


def _obedience(comparison: Comparison) -> list[Figure]:
    settings = Registry.load().get("segmenters", obedience.SEGMENTER).settings_class()
    judges = obedience.fit(settings, comparison.real, seed=comparison.number("obedience"))
    comparison.tell("obedience")
    seed = comparison.number("obedience controls")
    made, bare = comparison.made, comparison.without_mask
    return _told(obedience.figures_of(judges, made, bare, draws=comparison.draws, seed=seed))


SECTIONS: Mapping[str, Section] = {
    "two samples": _by_plane(_two_sample, planes.SLICES),
    "diversity": _by_plane(diversity.figures_of, 1),
    neighbours.SECTION: _apart(neighbours.figures_of, neighbours.SECTION),
    anatomy.SECTION: _apart(anatomy.figures_of, anatomy.SECTION),
    radiomics.SECTION: _apart(radiomics.figures_of, radiomics.SECTION),
    lesions.SECTION: _apart(lesions.figures_of, lesions.SECTION),
    obedience.SECTION: _obedience,
}
"""By the name that a progress bar shows; they follow the figures on feature extractors."""
