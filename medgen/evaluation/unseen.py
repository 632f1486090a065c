"""Real scans with new lesions show persons, who must not be among those that are tested on."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from medgen.data.scans import layouts
from medgen.data.scans.layouts.types import Split, listed
from medgen.errors import DataError, Problem
from medgen.evaluation.sources import Source


def require_unseen(source: Source, folder: Path, splits: Collection[Split]) -> None:
    """Raise DataError if a person of these splits is host or donor of an insertion in `folder`.

    Persons are told by their names, so that two datasets may name different ones alike:
    `data.allow_patient_overlap` lets them pass.
    """
    if source.data.allow_patient_overlap or not layouts.shown_persons(folder):
        return
    patients = layouts.find(source.data, (*source.images, *source.masks))
    require_persons_unseen(source, folder, [p.person for p in patients if p.split in splits])


def require_persons_unseen(source: Source, folder: Path, tested: Collection[str]) -> None:
    """Raise DataError if one of the persons to test on is host or donor of an insertion in `folder`."""
    if source.data.allow_patient_overlap:
        return
    if both := sorted({*tested} & layouts.shown_persons(folder)):
        what = f"{len(both)} persons to test on are hosts or donors of its scans: {listed(both)}"
        fix = "Insert without them, or set data.allow_patient_overlap=true if these are others"
        raise DataError(Problem(folder, what, fix))
