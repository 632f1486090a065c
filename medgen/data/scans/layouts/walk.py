"""What lies below a folder: links are followed, loops survived, and junk is not seen."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from medgen.data.scans.layouts.words import is_junk
from medgen.system.names import composed, key

Identity = tuple[int, int]

FORMATS = {
    ".hdr/.img pairs": r"\.hdr(\.gz)?|\.img(\.gz)?",
    "DICOM files": r"\.dcm|\.dicom|\.ima",
    "MGH files": r"\.mgz|\.mgh",
    "NRRD files": r"\.nrrd|\.nhdr",
    "MetaImage files": r"\.mha|\.mhd",
    "PAR/REC files": r"\.par|\.rec",
    "MINC files": r"\.mnc(\.gz)?",
    "AFNI files": r"\.head|\.brik(\.gz)?",
    "packed NIfTI files": r"\.nii\.(bz2|xz|zst|zip|z)",
    "numpy arrays": r"\.npy|\.npz",
    "unfinished downloads": r"\.(part|partial|filepart|crdownload|opdownload|download|aria2)|\.(nii|gz)\.(te?mp|!\w+)",
    "archives": r"\.zip|\.tar|\.tgz|\.tar\.\w+|\.7z|\.rar",
}
"""Files that may be scans, but are not read, by the end of the name."""
NIFTI = (".nii", ".nii.gz")
MAGIC_AT, MAGIC = 128, b"DICM"
PEEKED = 3
"""Files without a known end that are opened at most, to see whether they are DICOM."""


class Contents(NamedTuple):
    """What lies below a folder. images: by relative path in one form of accents, ordered.

    others: by format. broken: links to nothing. nameless: perhaps DICOM. files: their number.
    """

    images: dict[str, Path]
    others: dict[str, list[Path]]
    broken: list[Path]
    nameless: list[Path]
    files: int

    def foreign(self) -> dict[str, list[Path]]:
        """Return the files that may be scans in a format that is not read, by format; DICOM is
        known without a name too.
        """
        found = dict(self.others)
        if "DICOM files" not in found and any(_is_dicom(path) for path in self.nameless[:PEEKED]):
            found["DICOM files"] = self.nameless
        return found


def look(folder: Path, relative_to: Path | None = None) -> Contents:
    """Return everything at any depth below a folder, each folder once, by the shortest way without
    links if there is one.
    """
    found = Contents({}, {}, [], [], 0)
    files, links = 0, [folder]
    seen = {
        _identity(each) for each in folder.resolve().parents
    }  # a link to a folder above would bring in everyone's files
    while links:
        for path in _walk(links.pop(0), seen, links, found.broken):
            files += 1
            _sort(path, path.relative_to(relative_to or folder).as_posix(), found)
    return found._replace(
        images={name: found.images[name] for name in sorted(found.images, key=key)}, files=files
    )


def folders(place: Path, pattern: str = "*") -> list[Path]:
    """Return the folders that fit a pattern, ordered, without junk."""
    return _sorted(each for each in place.glob(pattern) if not is_junk(each.name) and each.is_dir())


def direct(place: Path) -> list[Path]:
    """Return the files that lie in a folder itself, and links to nothing, ordered, without junk."""
    return _sorted(each for each in place.iterdir() if not is_junk(each.name) and not each.is_dir())


def _sorted(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: [key(part) for part in path.parts])


def is_nifti(name: str) -> bool:
    """Return whether a file's name ends like that of a scan that is read."""
    return name.lower().endswith(NIFTI)


def format_of(name: str) -> str | None:
    """Return the format, of those not read, which a file's name ends like."""
    return next(
        (kind for kind, ends in FORMATS.items() if re.search(f"({ends})$", name, re.IGNORECASE)),
        None,
    )


def _walk(top: Path, seen: set[Identity], links: list[Path], broken: list[Path]) -> Iterator[Path]:
    """Yield the files below a folder; links to folders are put off until all else has been seen."""
    for place, inner, names in os.walk(top, onerror=_refuse if top.is_dir() else None):
        identity = _identity(Path(place))
        if identity in seen:
            inner[:] = []
            continue
        seen.add(identity)
        inner[:] = sorted((name for name in inner if not is_junk(name)), key=key)
        away = [Path(place, name) for name in inner if Path(place, name).is_symlink()]
        links += away
        inner[:] = [name for name in inner if Path(place, name) not in away]
        for path in (Path(place, name) for name in sorted(names, key=key) if not is_junk(name)):
            if not path.suffix and path.is_symlink() and not path.exists():
                broken.append(path)
            else:
                yield path


def _sort(path: Path, name: str, found: Contents) -> None:
    if is_nifti(path.name):
        found.images[name if composed(name) in found.images else composed(name)] = path
    elif kind := format_of(path.name):
        found.others.setdefault(kind, []).append(path)
    elif re.fullmatch(
        r"[\d.]*|.*[^a-zA-Z]\w{0,2}\d+|[^.]*", path.name
    ):  # 1.2.840.113..., IM_0001, I10
        found.nameless.append(path)


def _is_dicom(path: Path) -> bool:
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with path.open("rb") as file:
            file.seek(MAGIC_AT)
            return file.read(len(MAGIC)) == MAGIC
    except OSError:  # it is not a scan that is read, whatever it is
        return False


def _identity(place: Path) -> Identity:
    stat = place.stat()
    return stat.st_dev, stat.st_ino


def _refuse(error: OSError) -> NoReturn:
    """Raise, as `os.walk` would take a folder that it may not read for an empty one."""
    raise error
