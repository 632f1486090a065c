"""Where `data.root` is a level too high or too low, the folder to give."""

from __future__ import annotations

import re
from pathlib import Path

from medgen.data.scans.layouts.walk import direct, folders, is_nifti
from medgen.data.scans.layouts.words import split_of
from medgen.errors import Problem

DEPTH = 2
"""How far below `data.root` a dataset is looked for."""


def misplaced(root: Path, layout: str) -> Problem | None:
    """Report a folder that is part of a dataset of a known layout, or that holds such datasets."""
    if layout != "auto":
        return None
    if above := _above(root):
        return Problem(root, f"is a part of the dataset {above}", f"Set data.root to {above}")
    found = [folder for folder in _below(root, DEPTH) if folder != root]
    if not found or any(split_of(each.name) for each in found):
        return None
    names = ", ".join(each.relative_to(root).as_posix() for each in found)
    what = (
        f"holds the dataset {names}"
        if len(found) == 1
        else f"holds {len(found)} datasets ({names})"
    )
    return Problem(
        root, what, f"Set data.root to {'it' if len(found) == 1 else 'one of them'}, {found[0]}"
    )


def no_patients(root: Path, excluded: bool) -> Problem:
    """Say why there is nobody to train on."""
    if excluded:
        return Problem(root, "has no patients but those that data.exclude leaves out", "Shorten it")
    held_out = [each.name for each in folders(root) if split_of(each.name) == "test"]
    what = (
        f"has patients in none but {held_out[0]}, which is never trained on"
        if held_out
        else "has no patients"
    )
    return Problem(root, what, "Make it a folder with a folder of .nii.gz files per patient")


def _above(root: Path) -> Path | None:
    """Return the dataset that the folder is a part of."""
    place = root.resolve()
    if re.fullmatch("(images|labels)(Tr|Ts|Va|Val)", place.name):
        return place.parent
    for each in (place, *list(place.parents)[:DEPTH]):
        if each.name.startswith("sub-") and any(
            is_nifti(path.name) or path.is_dir() for path in each.iterdir()
        ):
            return each.parent
    return None


def _below(place: Path, depth: int) -> list[Path]:
    if (
        (place / "imagesTr").is_dir()
        or folders(place, "sub-*/anat")
        or folders(place, "sub-*/ses-*/anat")
    ):
        return [place]
    if not depth or any(is_nifti(path.name) for path in direct(place)):
        return []
    return [each for folder in folders(place) for each in _below(folder, depth - 1)]
