"""Pairs and real slices, or volumes, as a raw dataset of nnU-Net v2, with folds in which no pair
helps on persons it stems from.

The format is that of nnU-Net's `documentation/dataset_format.md`:
`Dataset###_Name/{imagesTr,labelsTr}`, `dataset.json`, a slice as a volume whose third axis has
length 1. `splits_final.json` belongs into nnU-Net's folder of preprocessed data.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from medgen import seeds
from medgen.data.grid import Grid
from medgen.data.scans.layouts import SPLITS, Split
from medgen.data.store.nifti_writer import write_slice
from medgen.errors import Problem, RecipeError
from medgen.evaluation.samples import Samples
from medgen.system import files

Array = np.ndarray[Any, Any]
Saw = Literal["train", "all", "none"]

UNSEEN: Mapping[str, tuple[Split, ...]] = {"train": ("val",), "all": (), "none": SPLITS}
"""Splits whose persons the generator did not see, by what it saw."""
FOLDS = 5
"""As many as nnU-Net makes itself."""


class Case(NamedTuple):
    """A slice or volume to write. person: number of the real person, -1 for a pair.

    seen: the generator was trained on the person.
    """

    name: str
    person: int
    seen: bool


class Fold(NamedTuple):
    """Names of cases. pairs: whether pairs are among those trained on."""

    train: list[str]
    val: list[str]
    pairs: bool


def folds_of(
    real: Sequence[Case], pairs: Sequence[Case], seed: int, count: int = FOLDS
) -> list[Fold]:
    """Split real cases by person; pairs are only ever trained on.

    Persons whom the generator saw and those whom it did not are validated in different folds, and
    pairs are trained on only where the persons validated were not seen: what a generator remembers
    of a person would else help on that person.
    """
    seen = sorted({case.person for case in real if case.seen})
    unseen = sorted({case.person for case in real if not case.seen})
    count = min(count, len(seen) + len(unseen))
    clean = round(count * len(unseen) / max(len(seen) + len(unseen), 1))
    clean = min(max(clean, 1 if unseen else 0), len(unseen), count - 1 if seen else count)
    groups = [*_dealt(unseen, clean, seed, "unseen"), *_dealt(seen, count - clean, seed, "seen")]
    return [
        _fold(real, pairs if number < clean else [], group) for number, group in enumerate(groups)
    ]


def _dealt(persons: Sequence[int], parts: int, seed: int, purpose: str) -> list[set[int]]:
    order = torch.randperm(
        len(persons), generator=seeds.stream(seed, f"nnunet folds {purpose}")
    ).tolist()
    return [{persons[place] for place in order[part::parts]} for part in range(parts)]


def _fold(real: Sequence[Case], pairs: Sequence[Case], validated: set[int]) -> Fold:
    train = [case.name for case in [*real, *pairs] if case.person not in validated]
    return Fold(train, [case.name for case in real if case.person in validated], bool(pairs))


class Dataset(NamedTuple):
    """What is exported. number, name: of nnU-Net's dataset.

    train, val: real slices or volumes, as the pairs are, if any. saw: which of them the generator was trained on.
    """

    number: int
    name: str
    pairs: Samples
    train: Samples | None
    val: Samples | None
    saw: Saw

    @property
    def folder(self) -> str:
        """The name of the dataset's folder."""
        return f"Dataset{self.number:03d}_{self.name}"


def export(
    dataset: Dataset, out: Path, seed: int, advance: Callable[[], None] = lambda: None
) -> list[Fold]:
    """Write the dataset below `out`, all or nothing; returns the folds, none without real ones.

    Raises RecipeError if it is there already, or if real ones have other channels.
    """
    _require_usable(dataset, out)
    made = out / f".tmp-{dataset.folder}"
    shutil.rmtree(made, ignore_errors=True)  # of a command that was killed
    for part in ("imagesTr", "labelsTr"):
        (made / part).mkdir(parents=True, exist_ok=True)
    real: list[Case] = []
    for samples, seen in _real(dataset):
        cases = [Case(_case(name), int(person), seen) for name, person in _named(samples)]
        real += cases
        _write(made, samples, cases, advance)
    pairs = [Case(_case(name), -1, False) for name in dataset.pairs.names]
    _write(made, dataset.pairs, pairs, advance)
    folds = folds_of(real, pairs, seed) if real else []
    _describe(made, dataset, [*real, *pairs], folds)
    files.move_folder(made, out / dataset.folder)
    return folds


def _require_usable(dataset: Dataset, out: Path) -> None:
    if not re.fullmatch(r"[A-Za-z0-9]+", dataset.name):
        raise RecipeError(
            Problem("--name", f"is {dataset.name!r}, expected letters and digits", "Choose another")
        )
    if files.exists(out / dataset.folder):
        raise RecipeError(
            Problem(out / dataset.folder, "is there already", "Remove it, or choose another --id")
        )
    for samples, _ in _real(dataset):
        if samples.channels != dataset.pairs.channels:
            given, wanted = (", ".join(each.channels) for each in (samples, dataset.pairs))
            what = f"real {samples.noun}s are {given}, pairs {wanted}"
            raise RecipeError(Problem("--real", what, "Give the recipe of the image model"))


def _real(dataset: Dataset) -> Iterator[tuple[Samples, bool]]:
    """Real samples, and whether the generator saw them."""
    if dataset.train is not None:
        yield dataset.train, dataset.saw != "none"
    if dataset.val is not None:
        yield dataset.val, dataset.saw == "all"


def _named(samples: Samples) -> Iterator[tuple[str, int]]:
    return zip(samples.names, samples.people.tolist(), strict=True)


def _case(name: str) -> str:
    """`patient 7, slice 81` becomes `patient_007_slice_081`: nnU-Net splits names at the last `_`."""
    numbered = re.sub(r"\d+", lambda match: match[0].zfill(3), name)
    return re.sub(r"[^A-Za-z0-9]+", "_", numbered)


def _write(
    made: Path, samples: Samples, cases: Sequence[Case], advance: Callable[[], None]
) -> None:
    """Write images and labels; slices with a third axis of 1, which nnU-Net wants, whatever axis it
    was.
    """
    grid = samples.grid
    if samples.axes == 2:
        grid = Grid.of_slices(samples.images.shape[-1], grid.spacing[0], "axial")
    for case, image, mask in zip(cases, samples.images, samples.masks, strict=True):
        for number, channel in enumerate(image):
            path = made / "imagesTr" / f"{case.name}_{number:04d}.nii.gz"
            write_slice(path, channel, False, grid)
        label = np.where(mask, 1.0, -1.0)
        write_slice(made / "labelsTr" / f"{case.name}.nii.gz", label, True, grid)
        advance()


def _describe(made: Path, dataset: Dataset, cases: Sequence[Case], folds: Sequence[Fold]) -> None:
    """`dataset.json`, `splits_final.json`, and `cases.json`: which person a case is of."""
    about = {
        "channel_names": {str(number): name for number, name in enumerate(dataset.pairs.channels)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
        "name": dataset.name,
        "description": "synthetic pairs"
        + (f" and real {dataset.pairs.noun}s" if folds else "")
        + ", written by medgen",
    }
    files.write(made / "dataset.json", json.dumps(about, indent=1) + "\n")
    persons = {
        case.name: {"person": case.person, "generator_saw": case.seen}
        for case in cases
        if case.person >= 0
    }
    synthetic = [case.name for case in cases if case.person < 0]
    files.write(
        made / "cases.json", json.dumps({"real": persons, "synthetic": synthetic}, indent=1) + "\n"
    )
    if folds:
        splits = [{"train": fold.train, "val": fold.val} for fold in folds]
        files.write(made / "splits_final.json", json.dumps(splits, indent=1) + "\n")
