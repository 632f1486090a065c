"""What was found out about files, remembered until they change. No file is named in it: a path can
name a patient.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import platformdirs

from medgen.data.scans import layouts
from medgen.errors import Problem, StorageError
from medgen.system import files
from medgen.system.console import warn

SETTLED = 2.0
"""Seconds since a file was last changed, from which on its times tell a later change."""


def cache_root() -> Path:
    """Return the cache folder: `$MEDGEN_CACHE`, or `medgen` in the user's cache folder.

    Users without a writable home, as in a container, have a temporary folder instead.
    """
    own = os.environ.get("MEDGEN_CACHE")
    return layouts.expand(Path(own)) if own else _of_user() or _temporary()


def _of_user() -> Path | None:
    """Return the user's own, if it can be written."""
    try:
        wanted = platformdirs.user_cache_path("medgen")
    except RuntimeError:  # there is no home
        return None
    there = next((each for each in (wanted, *wanted.parents) if os.path.exists(each)), None)
    writable = (
        wanted.is_absolute()
        and there is not None
        and there.is_dir()
        and os.access(there, os.W_OK | os.X_OK)
    )
    return wanted if writable else None


@functools.cache
def _temporary() -> Path:
    """Return a folder for this user alone, as slices are data of patients. Raises StorageError."""
    folder = Path(tempfile.gettempdir(), f"medgen-{os.getuid()}")
    what = "HOME: is no folder that can be written"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        mine = folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise StorageError(
            Problem("", f"{what}, nor is {folder} ({error.strerror})", "Set MEDGEN_CACHE to one")
        ) from error
    if not mine:
        raise StorageError(
            Problem(
                "",
                f"{what}, and {folder} is another user's",
                "Set MEDGEN_CACHE to a folder of yours",
            )
        )
    warn(
        f"{what}, so slices are kept in {folder} and may be lost. Set MEDGEN_CACHE to a folder that stays."
    )
    return folder


class Memory:
    """A JSON file of what is known about files as they are now."""

    def __init__(self, file: Path):
        self._file = file
        self._known: dict[str, Any] = {}
        with contextlib.suppress(OSError):
            self._known = _read(file)
        self._stamps: dict[Path, str] = {}
        self._new: dict[str, Any] = {}

    def recall(self, path: Path, question: str = "") -> object:
        """Return what was remembered of a file, or None. question: what else the answer depends on."""
        stamp = self._stamps[path] = _stamp(path, question)  # taken before the file is read
        return self._known.get(stamp)

    def remember(self, path: Path, value: object) -> None:
        """Note what reading a file gave, after `recall`. value: plain values."""
        if self._stamps[path] and _settled(path):
            self._new[self._stamps[path]] = value

    def save(self) -> None:
        """Write down what is new; this saves time and nothing else, so a cache that cannot be
        written is no fault.
        """
        if not self._new:
            return
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(self._file, prefix=".building-") as made:
                made.write_text(json.dumps(_read(self._file) | self._new))


def _read(file: Path) -> dict[str, Any]:
    """Read a file. Raises OSError if it exists but cannot be read now, so must not be replaced."""
    try:
        known = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _stamp(path: Path, question: str) -> str:
    """Return what changes whenever a file does."""
    try:
        stat = path.stat()
    except OSError:  # the gate says what is wrong with it
        return ""
    parts = (
        path.absolute(),
        stat.st_size,
        stat.st_mtime_ns,
        stat.st_ctime_ns,
        stat.st_ino,
        question,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _settled(path: Path) -> bool:
    """A file that is changed twice within one tick of its clock shows the same times."""
    try:
        stat = path.stat()
    except OSError:
        return False
    return time.time() - max(stat.st_mtime, stat.st_ctime) > SETTLED
