"""Likeness within a set by MS-SSIM, high where a generator repeats itself (Odena 2017)."""

from __future__ import annotations

import numpy as np
import torch
from monai.metrics import MultiScaleSSIMMetric

from medgen.evaluation.bootstrap import intervals
from medgen.evaluation.comparison import Comparison
from medgen.evaluation.figures import Figure
from medgen.evaluation.samples import Samples

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, finest first (Wang et al. 2003, section 3.2)."""
WINDOW = 11
"""px of the Gaussian window; the coarsest scale must hold one, 176 px for all five."""
PAIRS = 400


def weights(size: int) -> tuple[float, ...]:
    """Return the weights of the scales that images of `size` px hold, the finest ones, brought to a
    sum of 1.
    """
    scales = [weight for level, weight in enumerate(WEIGHTS) if size >> level >= WINDOW] or [
        WEIGHTS[0]
    ]
    return tuple(weight / sum(scales) for weight in scales)


def ms_ssim(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return `[n]` of images `[n, channel, height, width]` in [-1, 1]; 1 if both are equal."""
    size = min(one.shape[-2:])
    window = min(WINDOW, size - 1 + size % 2)
    chosen = MultiScaleSSIMMetric(2, data_range=2.0, kernel_size=window, weights=weights(size))
    found: torch.Tensor = chosen(torch.from_numpy(one), torch.from_numpy(two))
    return np.asarray(found.flatten(1).mean(1).numpy(), np.float64)


def figures_of(comparison: Comparison) -> list[Figure]:
    """Return MS-SSIM among the pairs, beside that among real slices of different persons."""
    rng, found = comparison.rng("diversity"), []
    for samples in (comparison.made, comparison.real):
        pairs = _pairs(samples, rng)
        likeness = ms_ssim(samples.images[pairs[0]], samples.images[pairs[1]])

        def statistic(
            rows: np.ndarray, pairs: np.ndarray = pairs, likeness: np.ndarray = likeness
        ) -> np.ndarray:
            drawn = np.bincount(rows, minlength=int(pairs.max()) + 1)
            weight = (drawn[pairs[0]] * drawn[pairs[1]]).astype(float)
            return (
                np.array([weight @ likeness / weight.sum()]) if weight.any() else np.array([np.nan])
            )

        found.append(
            intervals(statistic, [samples.people], comparison.draws, rng)[:, 0].clip(-1, 1)
        )
        comparison.tell("diversity")
    return [Figure.of("diversity", "MS-SSIM among samples", found[0], found[1])]


def _pairs(samples: Samples, rng: np.random.Generator) -> np.ndarray:
    """Return `[2, pair]`: rows of two different persons, as many as `PAIRS` or as there are."""
    count = len(samples)
    every = (
        np.stack(np.triu_indices(count, 1))
        if count < 200
        else rng.integers(count, size=(2, 4 * PAIRS))
    )
    every = every[:, samples.people[every[0]] != samples.people[every[1]]]
    return np.asarray(every[:, np.sort(rng.permutation(every.shape[1])[:PAIRS])])
