"""What can go wrong, each with the exit code that scripts rely on."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path
from typing import NamedTuple


class Problem(NamedTuple):
    """What is wrong, and what to do about it; `str` gives the line that a user sees, on one line
    whatever it names.

    where: file, key or option, empty if the text names it. what: with the values. fix: an
    imperative. Neither ends in a full stop. patient: id, if the problem is one patient's alone.
    command: what to type, which follows `fix`.
    """

    where: object
    what: str
    fix: str = ""
    patient: str = ""
    command: str = ""

    def __str__(self) -> str:
        fix = f"{self.fix}: {self.command}" if self.command else _stopped(self.fix)
        said = " ".join(each for each in (_stopped(self.what), fix) if each)
        return printable(f"{self.where}: {said}") if str(self.where) else printable(said)

    @property
    def subject(self) -> str:
        """Return the line without its advice and full stop."""
        return f"{self.where}: {self.what}" if str(self.where) else self.what


def _stopped(text: str) -> str:
    return text if not text or text[-1] in ".?" else f"{text}."


def printable(text: str) -> str:
    """Return the text on one line, with control characters and other invisible ones escaped."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


class MedgenError(Exception):
    """A mistake or fault that a user can act on, as one problem or several.

    Each is shown as `<file or key>: <what is wrong, with the values>. <What to do>.`
    """

    exit_code = 1

    def __init__(self, *problems: Problem):
        self.problems = problems
        super().__init__(*problems)

    @property
    def lines(self) -> list[str]:
        """Return the problems as a user sees them."""
        return [str(problem) for problem in self.problems]

    def __str__(self) -> str:
        return "\n".join(self.lines)


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


class PrivacyError(MedgenError):
    """Pairs are copies of training data; they were set aside."""

    exit_code = 11


class IncompleteError(MedgenError):
    """Some pairs could not be made valid; all others were written."""

    exit_code = 12


class StoppedError(MedgenError):
    """A signal or time limit ended the run; all is saved, and the message says how to continue."""

    def __init__(self, *problems: Problem, exit_code: int = 75):
        super().__init__(*problems)
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


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for what Python and torch raise where the host or a device has too little memory."""
    said = ("can't allocate memory", "Storage size calculation overflowed")
    by_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    by_torch = type(error).__name__ == "OutOfMemoryError" or any(
        each in str(error) for each in said
    )
    return isinstance(error, MemoryError) or by_system or by_torch


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a process that ends with this error."""
    if isinstance(error, MedgenError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":  # click's
        return 130
    number = error.errno if isinstance(error, OSError) else None
    if is_out_of_memory(error):
        return OutOfMemoryError.exit_code
    return StorageError.exit_code if number in STORAGE else MedgenError.exit_code


def reason(error: OSError) -> str:
    """Return what the system says of an error, without its number and file."""
    return error.strerror or str(error)


def of_system(error: OSError, where: object, again: str = AGAIN) -> MedgenError | None:
    """Return the line about what the system refused; None for a mistake in a program.

    where: what is named if the error names no file. again: the end of the advice.
    """
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else where
    said = reason(error)
    if error.errno == errno.ENOMEM:
        advice = "Lower data.workers, or use a smaller network, image or batch"
        return OutOfMemoryError(Problem(place, said, f"{advice}, then {again}"))
    advice = STORAGE.get(error.errno or 0, "")
    return StorageError(Problem(place, said, f"{advice}, then {again}")) if advice else None


def is_of_machine(error: BaseException) -> bool:
    """Return whether an error says that memory or storage ran out or failed, in any program."""
    if exit_code_of(error) == OutOfMemoryError.exit_code:
        return True
    return isinstance(error, OSError) and error.errno in STORAGE.keys() - {
        errno.EACCES,
        errno.EPERM,
    }


def continue_command(folder: Path) -> str:
    """Return what to type to go on."""
    return f"medgen train --resume {shlex.quote(str(folder))}"
