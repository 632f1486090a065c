"""Who is trained on and who is tested on when pairs are compared with real data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from medgen import seeds
from medgen.data.scans import layouts
from medgen.data.scans.layouts.types import listed
from medgen.data.store.spacing import SAME
from medgen.errors import DataError, Problem
from medgen.evaluation.pair_samples import read_pairs
from medgen.evaluation.samples import EVERY, Samples, read_real
from medgen.evaluation.sources import Source
from medgen.evaluation.unseen import require_persons_unseen, require_unseen

MANIFEST = "manifest.jsonl"
FEWEST_TESTED = 2
"""Persons to test on, below which no interval can be told."""


class Fold(NamedTuple):
    """pool, test: real slices or volumes of disjoint persons. pairs: learned from none of test."""

    pool: Samples
    test: Samples
    pairs: Samples


def read_all(
    source: Source, folder: Path, leave_one_out: bool, test_share: float, seed: int
) -> dict[str, Fold]:
    """Read a fold for each person left out, or the only one, which is named ""."""
    if leave_one_out:
        return read_each_left_out(source, folder)
    return {"": read(source, folder, test_share, seed)}


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

    That person is tested on, all others are trained on. Raises DataError if a folder of pairs is
    named after nobody, if its scans with new lesions show that person, if some pairs are slices and
    others volumes or of other images, or if there are fewer than two folders.
    """
    named = _named_folders(source, folder)
    for name in named:
        require_persons_unseen(source, folder / name, [name])
    pairs = {name: read_pairs(folder / name) for name in named}
    first = pairs[named[0]]
    for name, made in pairs.items():
        _require_alike(folder, named[0], first, name, made)
    persons = _persons(source, first.channels)
    real = list[Samples]()
    return {
        name: _left_out(folder / name, _real(source, made, real), persons.index(name), made)
        for name, made in pairs.items()
    }


def _real(source: Source, pairs: Samples, known: list[Samples]) -> Samples:
    """Read all persons on the grid of some pairs, once for each grid: scans with new lesions are read
    on one that fits their heads.
    """
    for each in known:
        if each.grid.matches(pairs.grid, SAME):
            return each
    known.append(read_real(source, EVERY, like=pairs))
    return known[-1]


def _named_folders(source: Source, folder: Path) -> list[str]:
    """Return the persons that folders in `folder` are named after."""
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        fix = "Give the folder that has a folder of pairs for each person"
        raise DataError(Problem(folder, what, fix))
    if (folder / MANIFEST).exists():
        what = "is one folder of pairs"
        fix = (
            "Give the folder that it lies in, named after who is left out, or drop --leave-one-out"
        )
        raise DataError(Problem(folder, what, fix))
    persons = _persons(source, source.images)
    named = [name for name in persons if (folder / name).is_dir()]
    others = {path.parent.name for path in folder.glob(f"*/{MANIFEST}")}
    if unknown := sorted(others - {*named}):
        what = f"{listed(unknown)}: no person of {source.name} that is read has that name"
        fix = f"Name each folder after the person left out of it: {listed(persons)}"
        raise DataError(Problem(folder, what, fix))
    if len(named) < FEWEST_TESTED:
        what = f"has a folder of pairs for {len(named)} of {len(persons)} persons"
        fix = f"Make pairs without each in turn: {listed(persons)}"
        raise DataError(Problem(folder, what, fix))
    return named


def _persons(source: Source, images: Sequence[str]) -> list[str]:
    """Name all persons, in the order in which a store of these images numbers them."""
    patients = layouts.find(source.data, (*images, *source.masks))
    return sorted({each.person for each in patients})


def _require_alike(folder: Path, one: str, first: Samples, other: str, made: Samples) -> None:
    if (made.noun, made.channels) != (first.noun, first.channels):
        kinds = [f"{each.noun}s of {', '.join(each.channels)}" for each in (first, made)]
        what = f"{other} has {kinds[1]}, {one} {kinds[0]}"
        raise DataError(Problem(folder, what, "Make all of them by the same recipe"))


def _left_out(folder: Path, everyone: Samples, number: int, pairs: Samples) -> Fold:
    """number: of the person left out, as the store counts them."""
    tested = everyone.people == number
    if not tested.any():
        what = "nothing that is read of this person shows a lesion to test on"
        raise DataError(Problem(folder, what, "Remove the folder"))
    return _parted(everyone, tested, pairs)


def _parted(everyone: Samples, tested: np.ndarray, pairs: Samples) -> Fold:
    return Fold(everyone.take(~tested), everyone.take(tested), pairs)
