"""What a segmenter is trained on in each arm of a comparison, and how its finds are scored."""

from __future__ import annotations

import itertools
from typing import Any, Literal, NamedTuple

import attrs
import numpy as np
import torch

from medgen import seeds
from medgen.api.measures import SegmenterSettings
from medgen.evaluation import segmentation
from medgen.evaluation.copy_paste import copy_paste
from medgen.evaluation.lesion_scores import SIZES, LesionScores, lesion_scores, pixel_dice
from medgen.evaluation.samples import Samples

Array = np.ndarray[Any, Any]
Added = Literal["", "pairs", "pasted"]

FEWEST = 2
"""Real persons of the shortest arm: with one there is nobody to take a pasted lesion from."""
PRIMARY = "lesion Dice"
"""What arms are judged by."""


@attrs.frozen
class Arm:
    """One training set. persons: real ones, 0 for none. added: what comes to them.

    shorter: as many steps as see each real slice as often as the mixed arm does.
    """

    name: str
    persons: int
    added: Added = ""
    shorter: bool = False


SYNTHETIC, MIXED, PASTED = "synthetic", "real + pairs", "real + copy-paste"


def real_arm(persons: int) -> str:
    """Return the name of the arm with so many real persons and nothing else."""
    return f"real, {persons} patients"


FEWER = "real, fewer steps"


def numbers_of(pool: int, base: int) -> list[int]:
    """Return the numbers of real persons on the learning curve: doubling from 2, `base`, and all."""
    doubling = itertools.takewhile(
        lambda number: number < pool, (FEWEST * 2**power for power in range(40))
    )
    return sorted({*doubling, base, pool})


def arms_of(pool: int, base: int) -> list[Arm]:
    """Return every arm, those first that the verdict needs."""
    compared = [Arm(MIXED, base, "pairs"), Arm(PASTED, base, "pasted"), Arm(real_arm(base), base)]
    others = [Arm(FEWER, base, shorter=True), Arm(SYNTHETIC, 0, "pairs")]
    return (
        compared
        + others
        + [Arm(real_arm(count), count) for count in numbers_of(pool, base) if count != base]
    )


class Comparison(NamedTuple):
    """What arms have in common. pool, test: real slices of disjoint persons.

    base: real persons that pairs are added to. times: most pairs per real slice. steps: optimizer
    steps of each arm. seed: all randomness comes from it.
    """

    settings: SegmenterSettings
    pool: Samples
    test: Samples
    pairs: Samples
    base: int
    times: float
    steps: int
    seed: int


class TrainingSet(NamedTuple):
    """real, added: how many slices of each."""

    samples: Samples
    real: int
    added: int
    steps: int


def training_set(given: Comparison, arm: Arm, repeat: int) -> TrainingSet:
    """Return an arm's slices at one repeat, of nested persons in an order that the repeat draws."""
    real = _persons(given, arm.persons or given.base, repeat)
    count = min(len(given.pairs), round(given.times * len(real)))
    if arm.added == "pairs":
        rows = torch.randperm(
            len(given.pairs), generator=seeds.stream(given.seed, "prove pairs", repeat)
        ).numpy()
        pairs = given.pairs.take(np.sort(rows[:count]))
        samples = _joined(real, pairs) if arm.persons else pairs
    elif arm.added == "pasted":
        samples = _joined(
            real, copy_paste(real, count, seeds.derive(given.seed, "prove copy-paste", repeat))
        )
    else:
        samples = real
    kept = len(real) if arm.persons else 0
    # as often as the mixed arm sees a real slice, this one sees it, and stops
    steps = (
        max(1, round(given.steps * len(real) / (len(real) + count))) if arm.shorter else given.steps
    )
    return TrainingSet(samples, kept, len(samples) - kept, steps)


def run(given: Comparison, arm: Arm, repeat: int) -> dict[str, Any]:
    """Train and score one arm at one repeat: plain values, the same for the same arguments.

    One thread: sums that several threads share differ with their number in the last bit.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        chosen = training_set(given, arm, repeat)
        own = seeds.derive(given.seed, "prove segmenter", repeat)
        network = segmentation.train(given.settings, chosen.samples, steps=chosen.steps, seed=own)
        found = segmentation.predict(network, given.test.images)
    finally:
        torch.set_num_threads(threads)
    about = {"arm": arm.name, "repeat": repeat, "persons": arm.persons, "steps": chosen.steps}
    return {
        **about,
        "real": chosen.real,
        "added": chosen.added,
        "scores": scores_of(found, given.test),
    }


def scores_of(found: Array, test: Samples) -> dict[str, list[float | None]]:
    """Return scores of each test person, ascending, by name; None where nothing can be scored."""
    lesions = lesion_scores(found, test.masks, test.grid.spacing[0])
    rows = [np.flatnonzero(test.people == person) for person in test.persons]
    names = names_of_scores(test.noun)
    each = [
        dict(zip(names, _scores(lesions.take(mine), found[mine], test.masks[mine]), strict=True))
        for mine in rows
    ]
    return {name: [_plain(one[name]) for one in each] for name in each[0]}


def names_of_scores(noun: str) -> list[str]:
    """Return every score, the primary one first. noun: of a sample."""
    sized = [f"{score}, {size.name}" for size in SIZES for score in (PRIMARY, "sensitivity")]
    return [PRIMARY, "pixel Dice", "sensitivity", f"false positives per {noun}", *sized]


def _scores(lesions: LesionScores, found: Array, truth: Array) -> list[float]:
    """Return the scores of one person, in the order of their names."""
    sized = [
        each
        for size in SIZES
        for each in (lesions.sized(size).mean_dice(), lesions.sized(size).sensitivity())
    ]
    whole = pixel_dice(found[None], truth[None])[0]  # all samples of a person together
    return [
        lesions.mean_dice(),
        float(whole),
        lesions.sensitivity(),
        lesions.false_per_sample(len(truth)),
        *sized,
    ]


def _persons(given: Comparison, count: int, repeat: int) -> Samples:
    order = torch.randperm(
        len(given.pool.persons), generator=seeds.stream(given.seed, "prove persons", repeat)
    )
    chosen = given.pool.persons[order.numpy()[:count]]
    return given.pool.take(np.isin(given.pool.people, chosen))


def _joined(first: Samples, second: Samples) -> Samples:
    """Join both for training, where persons do not matter any more."""
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("images", "masks", "people", "position")
    }
    return attrs.evolve(first, names=first.names + second.names, **arrays)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
