"""The table `[data]` of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medgen.api.settings import Check, between, did_you_mean, field, ge, gt, one_of, settings

if TYPE_CHECKING:
    from medgen.config.recipe import Recipe

LAYOUTS = ("auto", "folders", "brats", "modalities", "nnunet", "bids", "files")
AXES = ("sagittal", "coronal", "axial")
"""The axes of a canonical (RAS) volume, in order."""

DEFAULT_MASK = "seg"
"""The mask where none are named: every label but 0 of the file of this name."""


def _compiles(regex: str) -> bool:
    try:
        re.compile(regex)
    except re.error:
        return False
    return True


REGEX = Check(_compiles, "a regular expression of Python")


@settings
class MaskSettings:
    """A mask: the voxels of a segmentation that have certain labels."""

    file: str = field("seg", help="the segmentation: a name as in [data.files], or a file pattern")
    labels: list[int] = field([], help="labels that belong to the mask; none given: every label but 0")


@settings
class DataSettings:
    """Where the scans are, and which slices of them are used."""

    root: Path = field(Path("data"), help="folder with a folder per patient, or with train/ and val/ above them")
    layout: str = field(
        "auto", help="how the files are arranged; auto looks at them; files: each is a patient", check=one_of(*LAYOUTS)
    )
    files: dict[str, str] = field({}, help='pattern of a file in the patient\'s folder, by modality: flair = "FLAIR_*"')
    masks: dict[str, MaskSettings] = field({}, help="masks by name; none given: seg, every label but 0 of the file seg")
    person: str = field(
        "", help="regular expression of the person in a patient's id; none: usual names of visits", check=REGEX
    )
    image_size: int = field(128, help="width and height of a slice, px", check=ge(8))
    spacing: float = field(
        0.0, help="mm per pixel of a slice; 0: the least at which every patient's head fits", check=between(0, 50)
    )
    axis: str = field("axial", help="direction that the slices are stacked in", check=one_of(*AXES))
    min_foreground: float = field(0.05, help="least share of a slice that is head, 0 to 1", check=between(0, 1))
    lesion_only: bool = field(False, help="use only slices that show a lesion in any mask")
    min_lesion: int = field(1, help="px of the stored slice that count as a lesion, for lesion_only", check=ge(1))
    val_fraction: float = field(
        0.1, help="share of the patients to validate on; 0: none, and no best.pt", check=between(0, 0.9)
    )
    lower: float = field(0.5, help="percentile of the head's intensities that becomes -1", check=between(0, 49))
    upper: float = field(99.5, help="percentile of the head's intensities that becomes 1", check=between(51, 100))
    workers: int = field(0, help="processes that fill the slice store; 0: as many as pay, up to all cores", check=ge(0))
    nan: Literal["error", "zero"] = field(
        "error", help="voxels that are NaN or infinite: refuse the file, or zero them"
    )
    max_voxels: int = field(512**3, help="voxels beyond which a file is refused", check=gt(0))
    # paths, so that checkpoints name no patient
    exclude: list[Path] = field([], help="patients to leave out: ids, or paths below root of a folder or a file")
    allow_patient_overlap: bool = field(False, help="a patient may be for training and for validation or test at once")
    accept_changes: bool = field(False, help="go on with a run whose data have changed")
    may_change = ("workers", "max_voxels", "exclude", "allow_patient_overlap", "accept_changes")

    def check(self, recipe: Recipe) -> Iterator[str]:
        if self.masks and DEFAULT_MASK not in self.masks and DEFAULT_MASK in recipe.mode.build().names:
            likely = did_you_mean(DEFAULT_MASK, self.masks) or f' Add masks.{DEFAULT_MASK} = {{ file = "..." }}.'
            yield (
                f"data.masks: got {', '.join(self.masks)}, expected {DEFAULT_MASK} among them, which "
                f"mode.{recipe.names['mode']} reads.{likely}"
            )
