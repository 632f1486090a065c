"""Room on the disk for checkpoints, found out before training."""

from __future__ import annotations

import os
from pathlib import Path

from medgen.errors import Problem, StorageError
from medgen.system import file_systems, files

_MAKE_ROOM = "Free space or choose another folder, then give the same command again."


def reserve(folder: Path, size: int, copies: int) -> None:
    """Raise StorageError unless `copies` files of `size` bytes fit in the folder and no limit
    forbids one of them.
    """
    free = files.free_space(folder)
    need = f"{size / 1e6:.0f} MB" + f" x {copies} checkpoints" * (copies > 1)
    if free is not None and free < size * copies:
        raise StorageError(
            Problem(folder, f"disk full (needs {need}, {free / 1e6:.0f} MB free)", _MAKE_ROOM)
        )
    trial = files.temporary(folder / "room")
    try:
        with open(trial, "wb") as file:
            _allocate(file.fileno(), max(size, 1))
    except OSError as error:
        raise StorageError(
            Problem(folder, f"{error.strerror} (needs {need})", _MAKE_ROOM)
        ) from error
    finally:
        trial.unlink(missing_ok=True)


def _allocate(handle: int, size: int) -> None:
    try:
        os.posix_fallocate(handle, 0, size)
    except AttributeError:  # neither macOS nor Windows has such a call
        return
    except OSError as error:
        if error.errno not in file_systems.UNSUPPORTED:  # then this file system cannot tell
            raise
