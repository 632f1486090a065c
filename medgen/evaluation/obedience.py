"""Obedience: whether a segmenter taught on real persons finds the lesion where the mask is.

Two scores stand beside it: that of real persons held out, which is the most to expect, and that of
the same images with masks of other pairs, which is what an image that ignores its mask gets.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from medgen import seeds
from medgen.api.measures import SegmenterSettings
from medgen.evaluation.distributions import DRAWS, FigureMaker, Measured, known_mean
from medgen.evaluation.figures import Figure
from medgen.evaluation.lesions import parts_of
from medgen.evaluation.samples import Samples
from medgen.evaluation.segmentation import Fold, fit_folds, held_out, predict

SECTION = "obedience"
SEGMENTER = "small_unet"
"""The plugin that judges a card's pairs."""
FOLDS, STEPS = 2, 150
FEWEST = 8
"""Lesions of a size, on each side, without which their share is not shown: two that are missed are
no finding.
"""
SHARE = (0.0, 1.0)
"""What a Dice coefficient, or a share of lesions, can be."""
SIZES = ("small", "medium", "large")
"""Thirds of the real lesions by area, or volume."""


@attrs.frozen(eq=False)
class Judges:
    """Segmenters cross-fitted on real persons. limits: mm2, or mm3, between small, medium and large."""

    fitted: list[Fold]
    real: Samples
    limits: tuple[float, float]

    def per_pair(self, pairs: Samples) -> np.ndarray:
        """Return float64 `[pair]` in [0, 1]: the segmenters' mean Dice of found and given masks."""
        return np.asarray(
            np.mean([dice(found, pairs.masks) for found in self.found(pairs)], axis=0)
        )

    def found(self, pairs: Samples) -> list[np.ndarray]:
        """Return what each segmenter finds, bool `[pair, *space]`."""
        return [predict(fold.network, pairs.images) for fold in self.fitted]


def fit(
    settings: SegmenterSettings,
    real: Samples,
    *,
    folds: int = FOLDS,
    steps: int = STEPS,
    seed: int = 0,
) -> Judges:
    """Train the segmenters that judge obedience on real samples with lesions of two or more persons."""
    sizes = [len(part) * real.grid.cell for mask in real.masks for part in parts_of(mask)]
    limits = np.quantile(sizes, [1 / 3, 2 / 3])
    return Judges(
        fit_folds(settings, real, folds, steps, seed), real, (float(limits[0]), float(limits[1]))
    )


def per_pair(
    settings: SegmenterSettings,
    real: Samples,
    pairs: Samples,
    *,
    folds: int = FOLDS,
    steps: int = STEPS,
    seed: int = 0,
) -> np.ndarray:
    """Return the obedience of each pair, float64 `[pair]` in [0, 1]. For several sets, `fit` once."""
    return fit(settings, real, folds=folds, steps=steps, seed=seed).per_pair(pairs)


def figures_of(
    judges: Judges,
    synthetic: Samples,
    without_mask: Samples | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Figure]:
    """Return the figures of obedience; the reference of each is that of real persons held out.

    without_mask: images of the same noise as `synthetic` and of no mask, with the masks that they
    were not given.
    """
    maker = FigureMaker(SECTION, draws, seed)
    real, own = judges.real, held_out(judges.fitted, judges.real)
    found = judges.found(synthetic)
    sides = ([own], real), (found, synthetic)
    pairs = [
        maker.level("Dice", *_dices(*sides), better="high", statistic=known_mean, limits=SHARE)
    ]
    controls = [_with_masks(samples, shuffled(samples, seed)) for _, samples in sides]
    control = [_dice_of(seen, samples) for (seen, _), samples in zip(sides, controls, strict=True)]
    name = "Dice with the mask of another (control)"
    pairs.append(maker.level(name, *control, statistic=known_mean, limits=SHARE))
    if without_mask is not None:
        bare = control[0], _dice_of(judges.found(without_mask), without_mask)
        name = "Dice without a mask (control)"
        pairs.append(maker.level(name, *bare, better="low", statistic=known_mean, limits=SHARE))
    return [*pairs, *_sensitivities(maker, judges, *sides)]


def dice(found: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return float64 `[n]`: the Dice coefficient of each sample, 1 where both are empty."""
    space = tuple(range(1, masks.ndim))
    both, total = (found & masks).sum(space), found.sum(space) + masks.sum(space)
    return np.asarray(np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0))


def shuffled(samples: Samples, seed: int) -> np.ndarray:
    """Return int64 `[n]`: for each sample one of another person, in an order that the seed draws.

    A person's own slices show nearly the same lesion, so they are no control.
    """
    generator = np.random.default_rng(seeds.derive(seed, "shuffled masks"))
    persons = generator.permutation(np.unique(samples.people))
    following = dict(zip(persons.tolist(), np.roll(persons, -1).tolist(), strict=True))
    return np.array(
        [_one_of(samples.people, following[who], generator) for who in samples.people.tolist()],
        np.int64,
    )


def _one_of(people: np.ndarray, who: int, generator: np.random.Generator) -> int:
    return int(generator.choice(np.flatnonzero(people == who)))


def _with_masks(samples: Samples, rows: np.ndarray) -> Samples:
    return attrs.evolve(samples, masks=samples.masks[rows])


def _dices(*sides: tuple[Sequence[np.ndarray], Samples]) -> list[Measured]:
    return [_dice_of(*side) for side in sides]


def _dice_of(found: Sequence[np.ndarray], samples: Samples) -> Measured:
    values = np.mean([dice(each, samples.masks) for each in found], axis=0)
    return Measured(values[:, None], samples.people)


def _sensitivities(
    maker: FigureMaker, judges: Judges, *sides: tuple[Sequence[np.ndarray], Samples]
) -> list[Figure]:
    """Return by size the share of lesions in which segmenters find any pixel, as BraTS counts."""
    hits = [_hits(found, samples) for found, samples in sides]
    figures = []
    for number, size in enumerate(SIZES):
        own = [_of_size(each, number, judges.limits) for each in hits]
        if min(len(each.values) for each in own) < FEWEST:
            continue
        figures.append(
            maker.level(
                f"{size} lesions found", *own, better="high", statistic=known_mean, limits=SHARE
            )
        )
    return figures


def _hits(
    found: Sequence[np.ndarray], samples: Samples
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for every lesion: the share of segmenters that find it, its size in mm2 or mm3, the
    person.
    """
    rows = [
        (
            np.mean([each[number][tuple(part.T)].any() for each in found]),
            len(part),
            samples.people[number],
        )
        for number, mask in enumerate(samples.masks)
        for part in parts_of(mask)
    ]
    hit, pixels, people = np.array(rows, np.float64).reshape(-1, 3).T
    return hit, pixels * samples.grid.cell, people.astype(np.int64)


def _of_size(
    hits: tuple[np.ndarray, np.ndarray, np.ndarray], number: int, limits: tuple[float, float]
) -> Measured:
    hit, size, people = hits
    chosen = np.digitize(size, limits, right=True) == number
    return Measured(hit[chosen, None], people[chosen])
