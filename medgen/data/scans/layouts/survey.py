"""Find the patients of a dataset, in whichever way it is arranged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from medgen.api.tables import DataSettings
from medgen.data.scans.layouts import faults, left_out
from medgen.data.scans.layouts.absent import absent
from medgen.data.scans.layouts.bids_nnunet import by_case, by_file, by_subject
from medgen.data.scans.layouts.by_folders import by_folder, without_twins
from medgen.data.scans.layouts.exclude import without_excluded
from medgen.data.scans.layouts.insertions import none_for_validation, with_hosts
from medgen.data.scans.layouts.misplaced import misplaced, no_patients
from medgen.data.scans.layouts.patterns import Pattern, found_patterns, in_bids, pattern, possible
from medgen.data.scans.layouts.people import unmatched, with_persons
from medgen.data.scans.layouts.sources import source
from medgen.data.scans.layouts.splits import drawn_for_val, split_faults
from medgen.data.scans.layouts.types import SPLITS, Listing, Patient, Scans, Survey, expand
from medgen.data.scans.layouts.walk import folders
from medgen.errors import DataError, Problem
from medgen.system.names import key

Tell = Callable[[str], None]
_STANDARDS: dict[str, Callable[[Path], Listing]] = {
    "bids": by_subject,
    "nnunet": by_case,
    "files": by_file,
}


def find(
    settings: DataSettings, channels: Sequence[str], tell: Tell | None = None
) -> list[Patient]:
    """All patients but those for test, ordered by id, with a file for every channel.

    Patients are in the split whose folder (`train`, `val`) they lie in; where there is no `val`,
    the hash of a person's id decides. tell: called with a line per kind of thing that is left out.
    Raises `DataError` with a line per problem.
    """
    found = survey(settings, [source(settings, channel) for channel in channels])
    for fault in found.left_out if tell else ():
        tell(str(fault))  # type: ignore[misc]
    if found.faults:
        raise DataError(*found.faults)
    return [patient for patient in found.patients if patient.split in SPLITS]


def survey(settings: DataSettings, required: Iterable[str], optional: Iterable[str] = ()) -> Survey:
    """What there is of the sources that every patient must have, and of those that count if any
    patient has them.

    Raises `DataError` where there is nothing to look at.
    """
    root = expand(settings.root)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(Problem(root, what, "Set data.root to the folder with the scans"))
    try:
        return _survey(settings, root, list(dict.fromkeys(required)), list(dict.fromkeys(optional)))
    except OSError as error:
        place = Path(error.filename or root)
        raise DataError(Problem(place, f"cannot be read ({error.strerror})", "Check it")) from None


def _survey(settings: DataSettings, root: Path, required: list[str], optional: list[str]) -> Survey:
    layout, listing = _list(settings, root, required + optional)
    everyone, twice = without_twins(sorted(listing.scans, key=lambda scans: key(scans.id)))
    left = [*left_out.lines(root, [*listing.left, *twice])]
    persons = with_hosts(root, with_persons(everyone, settings.person))
    kept, wrong = without_excluded(root, persons, settings.exclude)
    cohort = [scans for scans in kept if scans.split != "test"]
    if not cohort:
        excluded = len(everyone) > len(kept)
        raise DataError(*(left if left and not excluded else [no_patients(root, excluded)]))
    patterns = [pattern(settings, layout, root, source) for source in required]
    patterns = in_bids(patterns) if layout == "bids" else patterns
    patterns += found_patterns(
        settings, layout, root, kept, [each for each in optional if each not in required]
    )
    wrong += [
        *faults.id_faults(root, kept),
        *split_faults(root, kept, settings.allow_patient_overlap),
    ]
    wrong += faults.file_faults(root, cohort, patterns)
    patients = _patients(kept, cohort, patterns, settings.val_fraction)
    gone, lost = absent(root, patients)
    left += [*faults.tissue(root, kept, patterns), *_unmatched(root, kept, settings.person)]
    if all(patient.split != "val" for patient in patients):
        left += none_for_validation(root, kept, settings.val_fraction)
    sources = [pattern.source for pattern in patterns]
    named = possible(settings, layout, root, settings.files)
    return Survey(
        root, patients, wrong + lost, sources, [*faults.unread(kept, patterns, named)], left, gone
    )


def _list(settings: DataSettings, root: Path, sources: Sequence[str]) -> tuple[str, Listing]:
    """The layout, and what it finds."""
    layout = settings.layout
    if layout == "auto":
        layout = _detect(root)
        if line := misplaced(root, layout):
            raise DataError(line)
    if layout in _STANDARDS:
        return layout, _STANDARDS[layout](root)
    chosen = [layout]

    def patterns(_: str, units: Sequence[Scans]) -> list[Pattern]:
        if layout == "auto":
            chosen[0] = "brats" if _looks_like_brats(units, sources) else "folders"
        return possible(settings, chosen[0], root, sources)

    found, listing = by_folder(root, patterns)
    return found if found == "modalities" else chosen[0], listing


def _patients(
    kept: Sequence[Scans], cohort: Sequence[Scans], patterns: Sequence[Pattern], fraction: float
) -> list[Patient]:
    val = drawn_for_val(cohort, fraction)
    return [
        Patient(
            each.id,
            each.split or ("val" if each.person in val else "train"),
            _files(each, patterns),
            each.person,
        )
        for each in kept
    ]


def _files(scans: Scans, patterns: Iterable[Pattern]) -> dict[str, Path]:
    matches = {pattern.source: pattern.matches(scans) for pattern in patterns}
    return {source: scans.names[names[0]] for source, names in matches.items() if names}


def _unmatched(root: Path, kept: Sequence[Scans], regex: str) -> list[Problem]:
    found = unmatched([each for each in kept if each.lent is None], regex)
    if not found:
        return []
    what = f"has {len(found):,} ids in which data.person finds nothing, such as {found[0].id}; each counts as a person"
    return [Problem(root, what, "Correct data.person")]


def _detect(root: Path) -> str:
    if (root / "imagesTr").is_dir():
        return "nnunet"
    return "bids" if folders(root, "sub-*/anat") + folders(root, "sub-*/ses-*/anat") else "auto"


def _looks_like_brats(units: Iterable[Scans], sources: Iterable[str]) -> bool:
    names = [name.rsplit("/", 1)[-1].lower() for scans in units for name in scans.names]
    if any(name in (f"{source}.nii.gz", f"{source}.nii") for name in names for source in sources):
        return False
    return any(
        re.fullmatch(r".*[-_. ](t1n|t1c|t1ce|t2f|flair|seg)\.nii(\.gz)?", name) for name in names
    )
