"""Files that are listed while their content is elsewhere: git-annex, DataLad, git-lfs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from medgen.data import nifti
from medgen.data.nifti import Fault


def absent(root: Path, files: Iterable[Path]) -> tuple[frozenset[Path], list[Fault]]:
    """Those whose content is not here, and a line for each way to get it."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in dict.fromkeys(files):
        if found := _stand_in(path):
            groups.setdefault(found, []).append(path)
    gone = frozenset(path for paths in groups.values() for path in paths)
    return gone, [*_lines(root, groups)]


def _lines(root: Path, groups: dict[tuple[str, str], list[Path]]) -> Iterator[Fault]:
    for (what, fix), paths in groups.items():
        if len(paths) == 1:
            yield Fault(paths[0], f"is {what}", fix)
        else:
            first = paths[0].relative_to(root).as_posix()
            yield Fault(root, f"{len(paths):,} of its files are each {what}, first {first}", fix)


def _stand_in(path: Path) -> tuple[str, str] | None:
    try:
        if path.is_symlink() and not path.exists():
            return nifti.stand_in(os.readlink(path).encode("utf-8", "surrogateescape"))
        if path.is_file() and path.stat().st_size <= nifti.POINTER_BYTES:
            return nifti.stand_in(path.read_bytes())
    except OSError:  # the gate says what is wrong with it
        pass
    return None
