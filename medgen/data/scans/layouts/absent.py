"""Files that are listed while their content is elsewhere: git-annex, DataLad, git-lfs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from medgen.data.scans.layouts.types import Patient
from medgen.data.scans.nifti import stream
from medgen.errors import Problem

FEW = 2
"""Files that are told one by one at most."""


def absent(root: Path, patients: Iterable[Patient]) -> tuple[frozenset[Path], list[Problem]]:
    """Return the files whose content is not here, and a line for each way to get it."""
    groups: dict[tuple[str, str], dict[Path, str]] = {}
    for patient in patients:
        for path in patient.files.values():
            if found := _stand_in(path):
                groups.setdefault(found, {})[path] = patient.id
    gone = frozenset(path for paths in groups.values() for path in paths)
    return gone, [*_lines(root, groups)]


def _lines(root: Path, groups: dict[tuple[str, str], dict[Path, str]]) -> Iterator[Problem]:
    for (what, fix), paths in groups.items():
        if len(paths) <= FEW:
            yield from (
                Problem(path, f"is {what}", fix, patient) for path, patient in paths.items()
            )
        else:
            first = next(iter(paths)).relative_to(root).as_posix()
            yield Problem(root, f"{len(paths):,} of its files are each {what}, first {first}", fix)


def _stand_in(path: Path) -> tuple[str, str] | None:
    try:
        if path.is_symlink() and not path.exists():
            return stream.stand_in(os.readlink(path).encode("utf-8", "surrogateescape"))
        if path.is_file() and path.stat().st_size <= stream.POINTER_BYTES:
            return stream.stand_in(path.read_bytes())
    except OSError:  # the gate says what is wrong with it
        pass
    return None
