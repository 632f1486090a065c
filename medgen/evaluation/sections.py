"""What a card consists of, in order: a function per section. To add one, add it to `SECTIONS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from medgen.evaluation import diversity, two_sample
from medgen.evaluation.comparison import Comparison
from medgen.evaluation.figures import Figure

Section = Callable[[Comparison], list[Figure]]


def _two_sample(comparison: Comparison) -> list[Figure]:
    return two_sample.figures_of(comparison, torch.device("cpu"))


SECTIONS: Mapping[str, Section] = {
    "two samples": _two_sample,
    "diversity": diversity.figures_of,
}
"""By the name that a progress bar shows; they follow the figures on feature extractors."""
