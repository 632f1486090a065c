"""Read masks from a folder of mask files or of patients."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from medgen import seeds
from medgen.api.tables import DataSettings
from medgen.data.scans.layouts import mask, source
from medgen.data.store.mask_slices import MaskSlices, open_masks
from medgen.errors import DataError, Problem
from medgen.generation.combination import require_image_model
from medgen.generation.masks import Masks
from medgen.generation.model import Model
from medgen.generation.numbers import Table
from medgen.system import console
from medgen.system.console import warn

ADVICE = "Give a folder of mask files, or of patients whose files are named as in training"
SCANS = (".nii", ".nii.gz")
LABELS = 6
"""Maximum number of labels to list."""


class FolderMasks:
    """Slices or volumes with lesions from a folder of patients or of mask files, in an order that
    depends on the seed.

    They are read with the data settings of the image model, on the grid of its images.
    """

    numbers: Table | None = None

    def __init__(self, folder: Path, model: Model, seed: int):
        require_image_model(model, with_masks=True)
        self.names, self.seed, self.grid = model.masks_given, seed, model.grid
        try:
            with console.progress("masks", unit="patients") as bar:
                settings = settings_for(folder, model.recipe.data, self.names)
                self.slices = open_masks(settings, self.names, model.grid, bar.update)
        except DataError as error:
            raise DataError(*map(_advise, error.problems)) from error
        self.rows = _usable(folder, self.slices, model)

    def block(self, indices: Sequence[int]) -> Masks:
        """Return masks of a block: mask n is `permutation(n // size)[n % size]`, so that all are
        used equally often.
        """
        size = len(self.rows)
        chosen = [
            int(seeds.permutation(self.seed, index // size, size)[index % size])
            for index in indices
        ]
        return Masks(torch.from_numpy(self.slices.read(self.rows[chosen])), [[""] for _ in indices])

    def again(self, index: int, attempt: int) -> Masks:
        """The same mask: it is the user's, and only the image is drawn again."""
        return self.block([index])

    def identity(self) -> Mapping[str, Any]:
        """Return a hash of the masks' content."""
        return {"seg_folder": self.slices.key}


def settings_for(folder: Path, given: DataSettings, names: Sequence[str]) -> DataSettings:
    """Return settings to read a folder of masks: as given, but with every patient, or each file as
    a patient.
    """
    trained = attrs.evolve(given, exclude=[], allow_patient_overlap=True)
    data = attrs.evolve(trained, root=folder, val_fraction=0.0)
    files = {source(data, name) for name in names}
    beside = [path for path in folder.iterdir() if _is_scan(path.name)]
    below = [path.name for path in folder.iterdir() if path.is_dir() and _holds_scans(path)]
    if beside and not below and len(files) == 1:
        return attrs.evolve(data, layout="files", files=dict.fromkeys(files, "*"))
    if beside and below:
        what = f"{len(beside)} files that lie beside folders with scans ({', '.join(sorted(below)[:3])}) are left out"
        warn(f"{folder}: {what}. Give a folder of nothing but mask files to use them.")
    return data


def _is_scan(name: str) -> bool:
    return name.lower().endswith(SCANS) and not name.startswith(".")


def _holds_scans(folder: Path) -> bool:
    return not folder.name.startswith(".") and any(
        any(map(_is_scan, names)) for _, _, names in os.walk(folder)
    )


def _advise(problem: Problem) -> Problem:
    """Rephrase advice that is written for training."""
    fix = re.sub(r"Set data\..*$", ADVICE, problem.fix)
    return problem._replace(fix=re.sub(r",? or (set|raise|narrow) data\..*$", "", fix))


def _usable(folder: Path, slices: MaskSlices, model: Model) -> np.ndarray:
    """Return the rows with a lesion that the image model can show. Raises `DataError` if there is
    none.

    Slices without a lesion, and tips of lesions smaller than a pixel, are left out silently.
    """
    large = slices.area.max(axis=1, initial=0) >= max(1, model.recipe.data.min_lesion)
    rows, count = np.flatnonzero(~slices.outside & large), len(large)
    labels, outside = _labels(slices, model), int(np.count_nonzero(slices.outside))
    noun = model.recipe.data.noun
    beyond = (
        f"{outside} of {count} {noun} have a lesion outside the image model's {noun}, {model.grid}"
    )
    if not len(rows):
        small = f"all lesions are too small for the image model's {noun}, {model.grid}"
        what = (
            beyond if outside else small if count else f"there is no lesion in {slices.files} masks"
        )
        raise DataError(
            Problem(
                folder,
                f"{what}{f' ({labels})' if labels else ''}",
                "Give a folder of masks with lesions",
            )
        )
    if outside:
        warn(f"{folder}: {beyond}, and are left out. Give masks of smaller {noun} to use them.")
    if labels:
        warn(f"{folder}: {labels}. Give masks with those labels to use them.")
    return rows


def _labels(slices: MaskSlices, model: Model) -> str:
    """Describe labels in the files that no mask uses, if any."""
    if not slices.others:
        return ""
    data = model.recipe.data
    wanted = sorted({label for name in model.masks_given for label in mask(data, name).labels})
    held = [str(label) for label in sorted(slices.others)]
    shown = ", ".join(held[:LABELS]) + (", ..." if len(held) > LABELS else "")
    return f"masks hold label {shown}, and the image model was trained on {', '.join(map(str, wanted))}"
