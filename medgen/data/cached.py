"""Folders in the cache: made beside their final place, then renamed; made again when they are found damaged."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from isal import isal_zlib

from medgen.console import warn
from medgen.errors import StorageError

ABANDONED = 24 * 3600.0
"""Seconds after which what a killed process left in the cache is removed."""
ATTEMPTS = 8
"""Times that a folder is looked for or made, while other processes find it damaged and make it again."""
CHUNK = 1 << 20

Opened = TypeVar("Opened")


class Damaged(Exception):
    """What is in the cache cannot be used; it is made again."""


def open_or_make(folder: Path, what: str, open_: Callable[[], Opened], make: Callable[[], None]) -> Opened:
    """What `open_` gives once the folder is there and whole. what: the folder, in messages.

    Raises `StorageError` if the cache cannot be written.
    """
    try:
        for _ in range(ATTEMPTS):
            try:
                return open_()
            except (Damaged, OSError) as error:
                if folder.exists():
                    warn(f"{folder}: {what} is damaged ({error}). It is made again.")
                    _discard(folder)
            make()
    except OSError as error:
        problem = f"{what} cannot be written ({error.strerror or error})"
        raise StorageError(f"{folder.parent}: {problem}. Make room, or set MEDGEN_CACHE to another folder.") from None
    raise StorageError(f"{folder}: is damaged whenever it is made. Check the disk, or set MEDGEN_CACHE to another one.")


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """An empty folder that takes its final place at the end; if another process was faster, its folder stays there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    with beside(folder) as temporary:
        made = Path(temporary, "made")
        made.mkdir()
        yield made
        publish(made, folder)


def beside(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder on the same file system."""
    return tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent, ignore_cleanup_errors=True)


def publish(made: Path, folder: Path) -> None:
    """Rename, unless another process was faster."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def require_whole(path: Path, size: int, crc: int) -> None:
    """Raise `Damaged` unless a file has this many bytes and this checksum."""
    if path.stat().st_size != size:
        raise Damaged(f"{path.name} has {path.stat().st_size:,} bytes instead of {size:,}")
    if checksum(path) != crc:
        raise Damaged(f"{path.name} has another checksum than when it was written")


def checksum(path: Path) -> int:
    """The crc32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = isal_zlib.crc32(chunk, crc)
    return crc


def flush(file: BinaryIO) -> None:
    """Without this a crash may leave the renamed folder with blocks of zeros."""
    file.flush()
    os.fsync(file.fileno())


def _sweep(cache: Path) -> None:
    for path in cache.glob(".building-*"):
        with contextlib.suppress(OSError):  # another process may sweep too
            if time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _discard(folder: Path) -> None:
    """Rename first: a process that has the folder open goes on reading it, and no other finds half of it."""
    with beside(folder) as temporary, contextlib.suppress(FileNotFoundError):  # another process was faster
        folder.rename(Path(temporary, "damaged"))
