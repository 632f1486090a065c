"""Who is compared with whom: real persons in disjoint sets, and what is taught on the spot never
meets its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import attrs
import numpy as np

from medgen import seeds
from medgen.errors import DataError, Problem
from medgen.evaluation.samples import Samples

FEWEST = 4
"""Persons without whom there is no real against real."""


@attrs.frozen(eq=False)
class Fold:
    """Two sets of real persons, and the heads of others to teach on.

    one, two: real slices; the generated are compared with each, and each with the other. heads:
    every slice of other persons, at all heights, with a lesion or not.
    """

    one: Samples
    two: Samples
    heads: Samples


@attrs.frozen(eq=False)
class Comparison:
    """All that the sections of a card are made from.

    made: the pairs. real: the slices that they are compared with. folds: one or two, in which every
    real person is compared once. seed: of all randomness. draws: of each bootstrap. tell: called
    with a word for each thing done. without_mask: images of the noise of some pairs and of no mask,
    with the masks that they were not given. control: in words, how many these are, or why there are
    none.
    """

    made: Samples
    real: Samples
    folds: tuple[Fold, ...]
    seed: int = 0
    draws: int = 200
    tell: Callable[[str], None] = lambda what: None
    without_mask: Samples | None = None
    control: str = ""

    @property
    def sides(self) -> tuple[Samples, ...]:
        """Return the sets of real slices, two of each fold."""
        return tuple(side for fold in self.folds for side in (fold.one, fold.two))

    @property
    def halves(self) -> tuple[Samples, Samples]:
        """Return all real slices in two sets of disjoint persons, for what is not taught."""
        ones = np.concatenate([fold.one.persons for fold in self.folds])
        first = np.isin(self.real.people, ones)
        return self.real.take(first), self.real.take(~first)

    def rng(self, purpose: str, *index: int) -> np.random.Generator:
        """Return a generator of its own for one purpose."""
        return np.random.default_rng(seeds.derive(self.seed, f"evaluation/{purpose}", *index))

    def number(self, purpose: str, *index: int) -> int:
        """Return a seed of its own for one purpose."""
        return seeds.derive(self.seed, f"evaluation/{purpose}", *index)


def arrange(
    made: Samples, real: Samples, heads: Samples, seed: int = 0, draws: int = 200
) -> Comparison:
    """Deal the real persons out, as the seed says.

    Persons with no slice in `real` teach. Where these are fewer than half of the others, persons of
    one fold teach for the other. Raises DataError for fewer than four persons in `real`.
    """
    persons = real.persons
    if len(persons) < FEWEST:
        what = f"{len(persons)} persons have slices to compare with, expected at least {FEWEST}"
        raise DataError(Problem(real.where, what, "Add patients, or widen data.min_foreground"))
    others = np.setdiff1d(heads.persons, persons)
    count = 1 if len(others) * 2 >= len(persons) or len(persons) < 2 * FEWEST else 2
    order = np.random.default_rng(seeds.derive(seed, "evaluation/persons")).permutation(persons)
    folds = []
    for number in range(count):
        mine = order[number::count]
        one, two = (np.isin(real.people, mine[side::2]) for side in (0, 1))
        rest = ~np.isin(heads.people, mine)
        if not rest.any():
            raise DataError(
                Problem(real.where, "no other person is left to teach features on", "Add patients")
            )
        folds.append(Fold(real.take(one), real.take(two), heads.take(rest)))
    return Comparison(made, real, tuple(folds), seed, draws)


def thinned(samples: Samples, limit: int, seed: int, number: int) -> Samples:
    """Return at most `limit` of the samples of side `number`, drawn at random, in their order."""
    if len(samples) <= limit:
        return samples
    rng = np.random.default_rng(seeds.derive(seed, "evaluation/limit", number))
    return samples.take(np.sort(rng.permutation(len(samples))[:limit]))


def fingerprint(samples: Samples) -> str:
    """Return the sha256 of the slices, their lesions and whose they are, the first 16 digits."""
    found = hashlib.sha256(
        repr((samples.channels, round(samples.grid.spacing[0], 6), samples.images.shape)).encode()
    )
    for each in (samples.images, samples.masks, samples.people):
        found.update(np.ascontiguousarray(each).tobytes())
    return found.hexdigest()[:16]
