"""What file systems lack, and what is then promised no longer."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from medgen.system.console import warn

UNSUPPORTED = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
        errno.EINVAL,
        errno.EBADF,
        errno.EISDIR,
        errno.ENOTTY,
        errno.ENODEV,
    }
)
"""What file systems answer to what they lack."""
FAILING = frozenset(
    {
        errno.EIO,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ESTALE,
        errno.EXDEV,
        errno.EFBIG,
    }
)
"""What they answer to what they have, and cannot do now."""
NOT_NOW = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ESTALE,
        errno.EAGAIN,
        errno.EINTR,
        errno.ETIMEDOUT,
    }
)
"""Why a file that is whole may not be read."""
WEAKER = {
    "hard links": "a kill within a save may leave prev.pt alone",
    "sync of folders": "a power failure may undo the last save",
    "sync of files": "a power failure may damage the last save",
    "locks": "two processes in one folder are noticed only if they run on one machine",
    "rename over a file": "a kill within a save may leave the file before under another name",
    "rename of a folder": "a kill may leave a folder in part, which is then made again",
    "memory mapping": "slices are read into memory, once for each process",
}
"""What a file system may lack, and what follows."""
_told: set[str] = set()


def forget() -> None:
    """Let each weakness be told again."""
    _told.clear()


def weaker(place: Path, *lacking: str) -> None:
    """Warn, once for each thing that is lacking, of what is promised no longer."""
    new = [each for each in lacking if each not in _told]
    _told.update(new)
    if new:
        what = f"no {', no '.join(new)}: {'; '.join(WEAKER[each] for each in new)}"
        warn(f"{place}: this file system has {what}. Choose another folder if that matters.")


def without_sync(folder: Path) -> Iterator[str]:
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        yield "sync of folders"
