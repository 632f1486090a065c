"""Files that are written whole or not at all, on whatever file system there is.

Some lack hard links, a sync of folders, locks, memory mapping, or a rename over what is there. What
is done instead promises less, which `weaker` tells once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from medgen.errors import Problem, StorageError
from medgen.system.file_systems import FAILING, UNSUPPORTED, forget, weaker, without_sync

ASIDE = ".old-"
"""Starts the name of a file that is being replaced where no rename goes over another file."""


def probe(folder: Path, *lacking: str) -> None:
    """Find out what a folder's file system lacks, besides what is known, and warn in one line."""
    forget()
    weaker(folder, *_without_links(folder), *without_sync(folder), *lacking)


def temporary(path: Path, prefix: str = ".tmp-") -> Path:
    """Return a name beside `path` that no other process uses, also in another container."""
    return path.with_name(f"{prefix}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


@contextlib.contextmanager
def replacing(path: Path, prefix: str = ".tmp-") -> Iterator[Path]:
    """Give a path to write to, which then replaces `path`; after an error nothing has changed."""
    made = temporary(path, prefix)
    try:
        yield made
        replace(made, path)
    finally:
        with contextlib.suppress(OSError):  # a full or lost disk has been told of already
            made.unlink(missing_ok=True)


def write(path: Path, data: str | bytes) -> None:
    """Write a small file, whole and on disk, or not at all."""
    with replacing(path) as made, made.open("wb") as file:
        file.write(data.encode(errors="surrogateescape") if isinstance(data, str) else data)
        flush(file)


def flush(file: BinaryIO) -> None:
    """Bring what was written to disk, so that a crash after a rename leaves no blocks of zeros."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        weaker(Path(file.name).parent, "sync of files")


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk."""
    weaker(folder, *without_sync(folder))


def replace(source: Path, target: Path) -> None:
    """Rename a file over another; where impossible, put the other aside first, see `recover`."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno in FAILING or not exists(target):
            raise
        aside = target.with_name(f"{ASIDE}{target.name}")
        try:
            aside.unlink(missing_ok=True)
            os.rename(target, aside)
        except OSError:
            raise error from None
        _take_place(source, target, aside)
        weaker(target.parent, "rename over a file")


def _take_place(source: Path, target: Path, aside: Path) -> None:
    try:
        os.rename(source, target)
    except OSError:
        os.rename(aside, target)
        raise
    aside.unlink(missing_ok=True)


def recover(folder: Path) -> None:
    """Give files back that a killed process had put aside and not yet replaced."""
    for aside in folder.glob(f"{ASIDE}*"):
        target = aside.with_name(aside.name.removeprefix(ASIDE))
        if exists(target):
            aside.unlink()
        else:
            os.rename(aside, target)


def current(path: Path) -> Path:
    """Return the file, or where it lies if a process was killed before `recover` gave it back."""
    aside = path.with_name(f"{ASIDE}{path.name}")
    return aside if not exists(path) and exists(aside) else path


def keep(path: Path, previous: Path) -> None:
    """Let `previous` be what `path` is, before that is replaced.

    By a hard link, so that there is always a file at `path`; without hard links by a rename, so
    that there is always one of the two. Whatever the link met with, a disk that fails also fails
    the rename, which raises.
    """
    link = temporary(previous)
    try:
        os.link(path, link)
    except OSError:
        weaker(path.parent, "hard links")
        replace(path, previous)
        return
    try:
        replace(link, previous)
    finally:
        link.unlink(
            missing_ok=True
        )  # also after a rename, which does nothing where both names are the same file


def move_folder(made: Path, folder: Path) -> None:
    """Rename a folder, or if impossible its files one by one. Raises OSError if `folder` exists."""
    try:
        made.rename(folder)
    except OSError as error:
        if error.errno in FAILING - {errno.EXDEV} or exists(folder):
            raise
        folder.mkdir()
        for path in sorted(made.iterdir()):
            shutil.move(path, folder / path.name)
        made.rmdir()
        weaker(folder.parent, "rename of a folder")


def exists(path: Path) -> bool:
    """Return whether a file exists. Raises StorageError where `Path.exists` would hide an error."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    return True


def unreadable(path: Path, error: OSError) -> StorageError:
    """Return the line about a file that may be whole, and cannot be read now."""
    what = f"cannot be read ({error.strerror or error})"
    return StorageError(
        Problem(path, what, "It is left as it is: see to that, then give the same command again")
    )


def free_space(folder: Path) -> int | None:
    """Return bytes, or None where the file system does not say."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.free if usage.total else None


def _without_links(folder: Path) -> Iterator[str]:
    first, second = temporary(folder / "probe"), temporary(folder / "probe")
    first.touch()
    try:
        os.link(first, second)
    except OSError:  # whatever it is: with union mounts and network folders EXDEV, ENOENT or EIO
        yield "hard links"
    finally:
        for each in (first, second):
            each.unlink(missing_ok=True)
