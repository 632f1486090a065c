"""Who is trained on and who is tested on when pairs are compared with real data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from medgen import seeds
from medgen.data.scans import layouts
from medgen.data.scans.layouts.types import listed
from medgen.errors import DataError, Problem
from medgen.evaluation.pair_samples import read_pairs
from medgen.evaluation.samples import EVERY, Samples, read_real
from medgen.evaluation.sources import Source
from medgen.evaluation.unseen import require_persons_unseen, require_unseen

FEWEST_TESTED = 2
"""Persons to test on, below which no interval can be told."""


class Fold(NamedTuple):
    """pool, test: real slices or volumes of disjoint persons. pairs: learned from none of test."""

    pool: Samples
    test: Samples
    pairs: Samples


def read(source: Source, folder: Path, test_share: float, seed: int) -> Fold:
    """Read pool, test and pairs, all on the pairs' grid.

    Tested on the persons for validation, whom no generator trained on; with test_share above 0 on
    that share of all persons, which only pairs allow whose generator saw none of them. Raises
    DataError if scans with new lesions show a person to test on.
    """
    require_unseen(source, folder, layouts.SPLITS if test_share else ("val",))
    pairs = read_pairs(folder)
    if not test_share:
        pool, test = (read_real(source, split, like=pairs) for split in ("train", "val"))
        return Fold(pool, test, pairs)
    everyone = read_real(source, EVERY, like=pairs)
    order = torch.randperm(
        len(everyone.persons), generator=seeds.stream(seed, "prove test persons")
    ).numpy()
    chosen = everyone.persons[order[: max(1, round(test_share * len(order)))]]
    return _parted(everyone, np.isin(everyone.people, chosen), pairs)


def read_each_left_out(source: Source, folder: Path) -> dict[str, Fold]:
    """Read a fold for each folder of pairs in `folder`, by the person it is named after.

    That person is tested on, all others are trained on. Raises DataError if a folder is named after
    nobody, if its scans with new lesions show that person, or if there are fewer than two.
    """
    patients = layouts.find(source.data, (*source.images, *source.masks))
    persons = np.unique([each.person for each in patients]).tolist()
    named = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if unknown := sorted({*named} - {*persons}):
        what = f"{listed(unknown)}: no person of {source.name} has that name"
        fix = f"Name each folder after the person left out of it: {listed(persons)}"
        raise DataError(Problem(folder, what, fix))
    if len(named) < FEWEST_TESTED:
        what = f"holds {len(named)} folders of pairs, at least {FEWEST_TESTED} are needed"
        raise DataError(Problem(folder, what, "Make pairs without each person in turn"))
    for name in named:
        require_persons_unseen(source, folder / name, [name])
    return {name: _left_out(source, folder / name, persons.index(name)) for name in named}


def _left_out(source: Source, folder: Path, number: int) -> Fold:
    """number: of the person left out, as the store counts them."""
    pairs = read_pairs(folder)
    everyone = read_real(source, EVERY, like=pairs)
    tested = everyone.people == number
    if not tested.any():
        what = f"{folder.name} shows no lesion, so nothing can be tested on it"
        raise DataError(Problem(folder, what, "Remove the folder"))
    return _parted(everyone, tested, pairs)


def _parted(everyone: Samples, tested: np.ndarray, pairs: Samples) -> Fold:
    return Fold(everyone.take(~tested), everyone.take(tested), pairs)
