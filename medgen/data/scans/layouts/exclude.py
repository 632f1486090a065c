"""Patients and files that the recipe leaves out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from medgen.data.scans.layouts.types import Scans
from medgen.errors import Problem, printable
from medgen.system.names import composed


def without_excluded(
    root: Path, everyone: Sequence[Scans], exclude: Iterable[Path]
) -> tuple[list[Scans], list[Problem]]:
    """Return those whose id, folder or file no entry names, and the entries that name nothing."""
    entries = {composed(each.as_posix()) for each in exclude} - {
        "."
    }  # so they read in a checkpoint, which names no patient
    if not entries:
        return list(everyone), []
    names = [_names(root, scans) for scans in everyone]
    kept = [scans for scans, mine in zip(everyone, names, strict=True) if not mine & entries]
    return kept, [_unknown(root, entry, names) for entry in sorted(entries.difference(*names))]


def _names(root: Path, scans: Scans) -> set[str]:
    """Return all that a patient goes by: the id, the person, the folders and the files."""
    places = [
        composed(path.relative_to(root).as_posix())
        for path in (scans.folder, *scans.names.values())
    ]
    above = [
        parent.as_posix()
        for place in (places[0], scans.id)
        for parent in PurePosixPath(place).parents
    ]
    names = {scans.id, scans.person, *places, *above} - {"."}
    return names | {printable(name) for name in names}  # a recipe cannot hold what is not UTF-8


def _unknown(root: Path, entry: str, names: Iterable[set[str]]) -> Problem:
    near = difflib.get_close_matches(entry, sorted(set().union(*names)), n=1)
    fix = "Correct it in data.exclude" + (f", perhaps to {near[0]}" if near else "")
    return Problem(root, f"has no patient or file {entry} to leave out", fix)
