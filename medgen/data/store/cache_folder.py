"""Folders in the cache: made beside their place, then renamed, and made again when damaged."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from isal import isal_zlib

from medgen.errors import OutOfMemoryError, Problem, StorageError
from medgen.system import file_systems, files
from medgen.system.console import warn

ABANDONED = 24 * 3600.0
"""Seconds after which what a killed process left in the cache is removed."""
ATTEMPTS = 8
"""Times that a folder is looked for or made, while other processes find it damaged and make it
again.
"""
CHUNK = 1 << 20

Opened = TypeVar("Opened")
Array = np.ndarray[Any, np.dtype[Any]]


_built: list[float] = []
"""When this process made what."""


def has_built(since: float) -> bool:
    """Return whether this process has cached something since then (as of `time.time()`)."""
    return any(when >= since for when in _built)


class Damaged(Exception):
    """What is in the cache cannot be used; it is made again."""


def open_or_make(
    folder: Path, what: str, open_: Callable[[], Opened], make: Callable[[], None]
) -> Opened:
    """Return what `open_` gives once the folder is there and whole. what: the folder, in messages.

    Raises `StorageError` if the cache cannot be written.
    """
    for _ in range(ATTEMPTS):
        damage: Exception | None = None
        try:
            return open_()
        except Damaged as error:
            damage = error
        except OSError as error:
            damage = _damage(folder, what, error)
        try:
            if damage and files.exists(folder):
                warn(f"{folder}: {what} is damaged ({damage}). It is made again.")
                _discard(folder)
            make()
            _built.append(time.time())
        except OSError as error:
            raise _unwritable(folder, what, error) from None
    raise StorageError(
        Problem(
            folder,
            "is damaged whenever it is made",
            "Check the disk, or set MEDGEN_CACHE to another one",
        )
    )


def _damage(folder: Path, what: str, error: OSError) -> OSError:
    """Return the error, if it shows that a file is not as it was written; others leave a store
    alone that may be whole.
    """
    if error.errno == errno.ENOMEM:
        problem = f"{what} needs more memory than there is ({error.strerror})"
        raise OutOfMemoryError(
            Problem(folder, problem, "Give the job more, or use a smaller data.image_size")
        ) from error
    if error.errno in file_systems.NOT_NOW:
        raise files.unreadable(folder, error) from error
    return error


def _unwritable(folder: Path, what: str, error: OSError) -> StorageError:
    problem = f"{what} cannot be written ({error.strerror or error})"
    return StorageError(
        Problem(folder.parent, problem, "Make room, or set MEDGEN_CACHE to another folder")
    )


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Make an empty folder that is then put in its place, unless another process was faster."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    with beside(folder) as temporary:
        made = Path(temporary, "made")
        made.mkdir()
        yield made
        publish(made, folder)


def beside(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder on the same file system."""
    return tempfile.TemporaryDirectory(
        prefix=".building-", dir=folder.parent, ignore_cleanup_errors=True
    )


def publish(made: Path, folder: Path) -> None:
    """Rename, unless another process was faster."""
    try:
        files.move_folder(made, folder)
    except OSError:
        if not files.exists(folder):
            raise


def require_whole(path: Path, size: int, crc: int) -> None:
    """Raise `Damaged` unless a file has this many bytes and this checksum."""
    if path.stat().st_size != size:
        raise Damaged(f"{path.name} has {path.stat().st_size:,} bytes instead of {size:,}")
    if checksum(path) != crc:
        raise Damaged(f"{path.name} has another checksum than when it was written")


def checksum(path: Path) -> int:
    """Return the crc32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = isal_zlib.crc32(chunk, crc)
    return crc


def mapped(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> Array:
    """Map an array in a file read-only; read it into memory where the file system maps none."""
    try:
        return np.memmap(path, kind, "r", shape=shape).view(np.ndarray)
    except OSError as error:
        if error.errno not in file_systems.UNSUPPORTED - {errno.EACCES, errno.EPERM}:
            raise
        file_systems.weaker(path.parent.parent, "memory mapping")
        return np.fromfile(path, kind).reshape(shape)


def _sweep(cache: Path) -> None:
    for path in cache.glob(".building-*"):
        with contextlib.suppress(OSError):  # another process may sweep too
            if time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _discard(folder: Path) -> None:
    """Rename first: processes that have the folder open go on reading, and none finds half of it."""
    with (
        beside(folder) as temporary,
        contextlib.suppress(FileNotFoundError),
    ):  # another process was faster
        try:
            folder.rename(Path(temporary, "damaged"))
        except OSError as error:
            if error.errno in file_systems.FAILING:
                raise
            shutil.rmtree(folder)  # where no folder is renamed
