"""One line per kind of thing that is not read: how many, where, what lies in it, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from medgen.data.scans.layouts.types import Left, listed
from medgen.errors import Problem

CONVERT = {
    "DICOM files": "with dcm2niix",
    "PAR/REC files": "with dcm2niix",
    "MGH files": "with mri_convert",
    "numpy arrays": "with nibabel, with the affine of the scan",
    "packed NIfTI files": "by unpacking, or compress with gzip",
    "archives": "by unpacking",
}
"""How files of a format become NIfTI, where one tool is usual."""
UNFINISHED = "unfinished downloads"
KINDS = {
    "beside": (
        "{count} with scans {lie} beside the folders of the splits and {are} left out",
        "Move {them} into one of these folders, or elsewhere",
    ),
    "loose": (
        "{count} {lie} beside the patients' folders and {are} left out",
        "Give {them} a patient's folder, or move {them} elsewhere",
    ),
    "no subject": (
        "{count} with scans {are} not named sub-* and {are} left out",
        "Rename {them} as BIDS wants, or set data.layout",
    ),
    "empty": ("{count} {are} empty and {are} left out", "Copy the scans again, or remove {them}"),
    "broken": (
        "{count} {lead} nowhere and {are} left out",
        "Copy what {they} should lead to, or remove {them}",
    ),
    "twice": (
        "{count} {lead} to the files of another patient and {are} left out",
        "Remove {them} if that is meant",
    ),
}
NOUNS = {"broken": "link", "twice": "link", "loose": "scan"}


def lines(root: Path, left: Iterable[Left]) -> Iterator[Problem]:
    """Yield one fault per kind, of the dataset's folder."""
    groups: dict[str, list[Left]] = {}
    for each in left:
        groups.setdefault(each.kind, []).append(each)
    for kind, found in groups.items():
        yield _line(root, kind, found)


def _line(root: Path, kind: str, found: list[Left]) -> Problem:
    what, fix = KINDS.get(kind) or _foreign(kind, whole=bool(found[0].holds))
    if kind == "empty" and ((root / ".gitmodules").exists() or (root / ".datalad").exists()):
        fix = "Fetch what lies in {them} with `datalad get`, or `git submodule update --init`"
    first = found[0].path.relative_to(root).as_posix() if found[0].path != root else "."
    shown = (
        ("first " if len(found) > 1 else "")
        + first
        + (f" ({listed([*found[0].holds])})" if found[0].holds else "")
    )
    usual = "folder" if kind in KINDS or found[0].holds else "file"
    words = _words(len(found), NOUNS.get(kind, usual))
    return Problem(root, f"{what.format(**words)}: {shown}", fix.format(**words))


def _foreign(kind: str, whole: bool) -> tuple[str, str]:
    """Describe files in a format that is not read. whole: of folders that hold nothing else."""
    fix = f"Convert {{them}} to .nii.gz {CONVERT.get(kind, '')}".rstrip()
    if kind == UNFINISHED:
        fix = "Download {them} again, or remove {them}"
    if whole:
        return f"{{count}} {{hold}} {kind} and no NIfTI and {{are}} left out", fix
    return f"{{count}} ({kind}) {{are}} left out, as only .nii and .nii.gz are read", fix


def _words(count: int, noun: str) -> dict[str, str]:
    """Return nouns and verbs for one thing, or for several."""
    one = count == 1
    verbs = {
        "lie": "lies",
        "lead": "leads",
        "hold": "holds",
        "are": "is",
        "them": "it",
        "they": "it",
    }
    return {word: each if one else word for word, each in verbs.items()} | {
        "count": f"{count:,} {noun}{'' if one else 's'}"
    }
