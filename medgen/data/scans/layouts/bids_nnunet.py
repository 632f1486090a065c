"""The patients of BIDS, of nnU-Net, and of masks side by side, where names say all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from medgen.data.scans.layouts.by_folders import leave
from medgen.data.scans.layouts.types import Left, Listing, Scans, Split
from medgen.data.scans.layouts.walk import Contents, folders, look
from medgen.data.scans.layouts.words import stem
from medgen.data.scans.nifti.gate import inspect
from medgen.errors import DataError, Problem
from medgen.system.names import composed, key

TISSUE = re.compile(
    r"f?mri_?prep|s?mriprep|fmriprep|freesurfer|fastsurfer|synthseg|fsl\w*|spm\w*|cat12|ants\w*|atropos|mriqc|qsiprep|"
    r"aslprep|xcp_?d\w*|nibabies|infant\w*|micapipe|dldirect|hippunfold|braincharts|petprep\w*",
    re.IGNORECASE,
)
"""Pipelines whose segmentations are of tissue classes and regions, as their folders below
`derivatives` begin.
"""
PARTS = ("Tr", "Va", "Val", "Ts")
NOT_PATIENTS = (
    "derivatives",
    "sourcedata",
    "code",
    "stimuli",
    "phenotype",
    "rawdata",
    "work",
    "logs",
)
"""Folders beside the subjects of BIDS."""


def by_subject(root: Path) -> Listing:
    """List BIDS: a session's files lie in its own folder, and in its namesake in `derivatives`."""
    pipelines = [root, *_pipelines(root / "derivatives")]
    scans: list[Scans] = []
    left: list[Left] = []
    for subject in folders(root, "sub-*"):
        for folder in folders(subject, "ses-*") or [subject]:
            id = composed(folder.relative_to(root).as_posix())
            places = {
                pipeline: _below(pipeline, folder.relative_to(root)) for pipeline in pipelines
            }
            found = {
                pipeline: look(place, pipeline)
                for pipeline, place in places.items()
                if place.is_dir()
            }
            if any(contents.images for contents in found.values()):
                scans.append(_subject(root, id, folder, found))
            if not found[root].images:
                left += leave(folder, found[root])
    for folder in folders(root):
        if (
            not folder.name.startswith("sub-")
            and folder.name not in NOT_PATIENTS
            and (images := look(folder).images)
        ):
            left.append(Left("no subject", folder, tuple(images)))
    return Listing(scans, left)


def by_case(root: Path) -> Listing:
    """List nnU-Net: `imagesTr/CASE_0000.nii.gz` and on, `labelsTr/CASE.nii.gz`; `Ts` is for test."""
    by_hand = any((root / f"images{part}").is_dir() for part in PARTS[1:3])
    cases: dict[tuple[str, str], dict[str, Path]] = {}
    left: list[Left] = []
    for part in PARTS:
        names = {folder: look(root / folder, root) for folder in (f"images{part}", f"labels{part}")}
        labels, images = (
            {stem(name) for name in names[f"{kind}{part}"].images} for kind in ("labels", "images")
        )
        if part == "Tr":
            _refuse_4d(root, names[f"images{part}"], images & labels)
        for folder, contents in names.items():
            left += leave(root / folder, contents) if contents.others else []
            for name, path in contents.images.items():
                case = stem(name)
                if folder.startswith("images") and case not in labels:
                    case = re.sub(r"_\d{4}$", "", case)
                cases.setdefault((part, case), {})[name] = path
    splits: dict[str, Split | None] = {
        "Tr": "train" if by_hand else None,
        "Ts": "test",
        "Va": "val",
        "Val": "val",
    }
    return Listing(
        [
            Scans(case, splits[part], root, names, root / f"images{part}")
            for (part, case), names in cases.items()
        ],
        left,
    )


def by_file(root: Path) -> Listing:
    """Each file is a patient: masks alone, side by side."""
    found = look(root)
    scans = [
        Scans(
            re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE), None, root, {name: path}, root
        )
        for name, path in found.images.items()
    ]
    return Listing(
        scans, [Left(kind, path) for kind, paths in found.others.items() for path in paths]
    )


def _below(pipeline: Path, inner: Path) -> Path:
    """Return a subject's folder in a pipeline, in whichever form its name has accents."""
    place = pipeline
    for part in () if (pipeline / inner).is_dir() else inner.parts:
        place = next((each for each in folders(place) if key(each.name) == key(part)), place / part)
    return pipeline / inner if place == pipeline else place


def _pipelines(derivatives: Path) -> Iterator[Path]:
    """Yield the folders of pipelines; without them the folder itself."""
    inner = folders(derivatives)
    if any(each.name.startswith("sub-") for each in inner):
        yield derivatives
    yield from (each for each in inner if not each.name.startswith("sub-"))


def _subject(root: Path, id: str, folder: Path, found: dict[Path, Contents]) -> Scans:
    names: dict[str, Path] = {}
    tissue = set()
    for pipeline, contents in found.items():
        for name, path in contents.images.items():
            unique = path.relative_to(root).as_posix() if name in names else name
            names[unique] = path
            if _is_tissue(root, pipeline, name, contents):
                tissue.add(unique)
    others = tuple(
        path for contents in found.values() for paths in contents.others.values() for path in paths
    )
    return Scans(id, None, folder, names, root, others=others, tissue=frozenset(tissue))


def _is_tissue(root: Path, pipeline: Path, name: str, contents: Contents) -> bool:
    """Return whether a `dseg` is of tissue classes: by its pipeline, or by maps of them beside it."""
    if not re.search(r"_dseg\.nii", name) or re.search("lesion|tumou?r", name, re.IGNORECASE):
        return False
    if pipeline != root and (TISSUE.match(pipeline.name) or TISSUE.search(_generated_by(pipeline))):
        return True
    beside = name.rpartition("/")[0]
    maps = re.compile(
        re.escape(beside)
        + r"/[^/]*(label-(GM|WM|CSF)|desc-(aseg|aparcaseg))_(probseg|dseg|mask)\..*"
    )
    return any(maps.fullmatch(other) for other in contents.images)


def _generated_by(pipeline: Path) -> str:
    path = pipeline / "dataset_description.json"
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:  # then the names of folders and files have to do
        return ""


def _refuse_4d(root: Path, contents: Contents, cases: set[str]) -> None:
    """Raise DataError for files of several channels, as of the Medical Segmentation Decathlon."""
    first = next((path for name, path in contents.images.items() if stem(name) in cases), None)
    if first and "4-D" in (told := " ".join(fault.what for fault in inspect(first).faults)):
        what = f"holds {len(cases)} scans whose channels are their fourth dimension ({first.name} {told})"
        fix = "Write each channel to a file of its own, CASE_0000.nii.gz and on, as nnUNetv2_convert_MSD_dataset does"
        raise DataError(Problem(root / "imagesTr", what, fix))
