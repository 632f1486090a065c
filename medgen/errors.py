"""What can go wrong, each with the exit code that scripts rely on."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterable
from pathlib import Path


class MedgenError(Exception):
    """A mistake or fault that a user can act on: one line, or several where several were found.

    Each line reads `<file or key>: <what is wrong, with the values>. <What to do>.`
    """

    exit_code = 1

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class RecipeError(MedgenError):
    """The recipe or the command line is wrong."""

    exit_code = 2


class DataError(MedgenError):
    """The scans cannot be used as they are."""

    exit_code = 3


class CheckpointError(MedgenError):
    """A checkpoint is missing, damaged, or does not fit."""

    exit_code = 4


class PluginError(MedgenError):
    """A plugin that is needed is missing, broken or ambiguous."""

    exit_code = 5


class NotFiniteError(MedgenError):
    """Training diverged."""

    exit_code = 6


class OutOfMemoryError(MedgenError):
    """The device or the host has too little memory."""

    exit_code = 7


class StorageError(MedgenError):
    """A file could not be written."""

    exit_code = 8


class RankError(MedgenError):
    """One of several processes that train together died, hangs, or lost the others."""

    exit_code = 9


class RunInUseError(MedgenError):
    """Another process works in the run's folder."""

    exit_code = 10


class IncompleteError(MedgenError):
    """Some pairs could not be made valid; all others were written."""

    exit_code = 12


class StoppedError(MedgenError):
    """A signal or a time limit ended the run; everything is saved and the command in the message continues it."""

    def __init__(self, problems: str | Iterable[str], exit_code: int = 75):
        super().__init__(problems)
        self.exit_code = exit_code


_DEVICE = "See that the disk or the network file system works"
_RIGHTS = "Get the right to read and write it"
STORAGE = {
    errno.ENOSPC: "Make room on that file system",
    errno.EDQUOT: "Make room within your quota, or have it raised",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "Mount it for writing, or choose a folder that can be written",
    errno.EIO: _DEVICE,
    errno.ESTALE: _DEVICE,
    errno.ENOLCK: _DEVICE,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EMFILE: "Raise the limit of open files (ulimit -n), or lower data.workers",
    errno.ENFILE: "All programs of this machine have too many files open: end some, or lower data.workers",
}
"""What the system says of storage, and not of a mistake in a program; with what to do."""
AGAIN = "give the same command again"


def exit_code_of(error: BaseException) -> int:
    """The exit code of a process that ends with this error."""
    if isinstance(error, MedgenError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":  # click's
        return 130
    number = error.errno if isinstance(error, OSError) else None
    torch_says = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or torch_says:
        return OutOfMemoryError.exit_code
    return StorageError.exit_code if number in STORAGE else MedgenError.exit_code


def of_system(error: OSError, where: object, again: str = AGAIN) -> MedgenError | None:
    """The line about what the system refused, or None if it is a mistake in a program.

    where: what is named if the error names no file. again: the end of the advice.
    """
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else where
    said = f"{place}: {error.strerror or error}"
    if error.errno == errno.ENOMEM:
        return OutOfMemoryError(f"{said}. Lower data.workers, or use a smaller network, image or batch, then {again}.")
    advice = STORAGE.get(error.errno or 0)
    return StorageError(f"{said}. {advice}, then {again}.") if advice else None


def is_of_machine(error: BaseException) -> bool:
    """Whether an error is about memory or storage running out or failing, whatever program meets with it."""
    if exit_code_of(error) == OutOfMemoryError.exit_code:
        return True
    return isinstance(error, OSError) and error.errno in STORAGE.keys() - {errno.EACCES, errno.EPERM}


def continue_command(folder: Path) -> str:
    """What to type to go on."""
    return f"medgen train --resume {shlex.quote(str(folder))}"
