"""A classifier two-sample test on persons that the network never met (Lopez-Paz 2017)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from medgen.evaluation import network
from medgen.evaluation.bootstrap import intervals
from medgen.evaluation.comparison import Comparison
from medgen.evaluation.figures import Figure
from medgen.evaluation.samples import Samples
from medgen.evaluation.threads import threads

STEPS, BATCH, RATE = 200, 32, 2e-3
FOLDS = 2


def auc(first: np.ndarray, second: np.ndarray) -> float:
    """Return the chance that a score of the second set exceeds one of the first; ties count half."""
    ranks = stats.rankdata(np.concatenate([first, second]))[len(first) :]
    more = ranks.sum() - len(second) * (len(second) + 1) / 2
    return float(more / (len(first) * len(second)))


def figures_of(comparison: Comparison, device: torch.device) -> list[Figure]:
    """Return the AUC of telling the pairs from real slices, beside that of telling one set of
    persons from another.

    0.5: alike; 1: always told apart. Each slice is scored by a network not taught on its person.
    """
    one, two = comparison.halves
    rng = comparison.rng("bootstrap/two_sample")
    found = []
    for number, (real, other) in enumerate([(one, comparison.made), (one, two)]):
        scores = cross_fit(real, other, STEPS, comparison.number("two_sample", number), device)

        def statistic(
            a: np.ndarray, b: np.ndarray, scores: tuple[np.ndarray, np.ndarray] = scores
        ) -> np.ndarray:
            return np.array([auc(scores[0][a], scores[1][b])])

        found.append(
            intervals(statistic, [real.people, other.people], comparison.draws, rng)[:, 0].clip(
                0, 1
            )
        )
        comparison.tell("two samples")
    return [Figure.of("two samples", "AUC of a classifier", found[0], found[1], better="low")]


def cross_fit(
    first: Samples, second: Samples, steps: int, seed: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Score each slice of both sets, standardised within folds; large: of the second set."""
    rng = np.random.default_rng(seed)
    folds = [_deal(each, rng) for each in (first, second)]
    scores = [np.zeros(len(first)), np.zeros(len(second))]

    def fold_of(number: int) -> list[np.ndarray]:
        sides = [
            (each.images, fold == number) for each, fold in zip((first, second), folds, strict=True)
        ]
        taught = _teach([images[~held] for images, held in sides], steps, seed + number, device)
        return [_scores(taught, images[held], device) for images, held in sides]

    with threads() as work:
        for number, found in enumerate(work(fold_of, range(FOLDS))):
            together = np.concatenate(found)
            for score, fold, mine in zip(scores, folds, found, strict=True):
                score[fold == number] = (mine - together.mean()) / (together.std() + 1e-12)
    return scores[0], scores[1]


def _deal(samples: Samples, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of each slice, by person."""
    order = rng.permutation(samples.persons)
    place = np.argsort(order)[np.searchsorted(np.sort(order), samples.people)]
    return np.asarray(place % FOLDS)


def _teach(sets: list[np.ndarray], steps: int, seed: int, device: torch.device) -> network.Halvings:
    """Return a network taught on as many slices of each set, mirrored or not."""
    taught, generator = (
        network.made(sets[0].shape[1], 1, seed, device),
        torch.Generator().manual_seed(seed),
    )
    tensors = [torch.from_numpy(np.ascontiguousarray(images)) for images in sets]
    half = BATCH // 2
    truth = torch.arange(2).repeat_interleave(half).float().to(device)

    def loss() -> torch.Tensor:
        rows = [torch.randint(len(images), (half,), generator=generator) for images in tensors]
        x = torch.cat([images[row] for images, row in zip(tensors, rows, strict=True)])
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(-2), x).to(device)
        return cross_entropy(taught(x)[:, 0], truth)

    network.teach(taught, loss, steps, RATE)
    return taught


def _scores(taught: network.Halvings, images: np.ndarray, device: torch.device) -> np.ndarray:
    with torch.no_grad():
        found = [taught(part)[:, 0].cpu().numpy() for part in network.parts(images, device)]
    return np.concatenate(found)
