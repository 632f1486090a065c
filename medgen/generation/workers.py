"""Generate with several processes; each takes a share of the blocks, none waits for another.

Processes started by `torchrun` or `srun` act like jobs of an array. Processes started by medgen
print nothing: they record progress and outcome in a folder, and their supervisor reports both once.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from medgen.errors import MedgenError, Problem, RankError, StoppedError
from medgen.generation import pair_writer
from medgen.generation.indices import Indices
from medgen.ranks import place, process_group
from medgen.ranks.place import NOTES, Place
from medgen.ranks.supervisor import Supervisor, surroundings
from medgen.system import console
from medgen.system.signals import NAMES, Stop

TOLD = "told"
"""File that marks a reported end, for `Supervisor`; here it holds the exit code and the lines."""


# A process that makes its share


def share(part: int, parts: int) -> tuple[int, int]:
    """Return the part of this process, if several share part 1..`parts`; see `generate.shard`."""
    where = place.place() or Place(0, 1, 0)
    return part + where.rank * parts, parts * where.size


def processes(devices: int, indices: Indices) -> int:
    """Return the processes to start: at most one per block; 1 if a launcher started several."""
    return 1 if place.place() else min(devices, len(indices.blocks))


def notes() -> Path | None:
    """Return the folder for the records of a process that medgen started, or None."""
    return Path(os.environ[NOTES]) if NOTES in os.environ and place.place() else None


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes, if this process is one of several."""
    where, folder = place.place(), notes()
    if where:
        process_group.exit_with_parent()
        if torch.cuda.is_available():
            place.take_device(where)
    if where is None or folder is None:
        yield
        return
    console.out.quiet, console.err.quiet = True, where.rank > 0
    try:
        yield
    except StoppedError as error:
        _tell(folder, error)  # and ends well, so that the others may end their blocks
    except MedgenError as error:
        _tell(folder, error)
        raise RankError() from error
    except Exception:
        console.err.quiet = not _tell(folder)
        raise


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of pairs done."""
    folder = notes()
    if folder:
        yield lambda count: _append(folder / f"made-{os.getpid()}", count)
        return
    with console.progress("pairs", total, "tried") as bar:
        yield bar.advance


def _append(path: Path, count: int) -> None:
    """Extend the file by a byte per pair, as holes that take no space: its size is the count."""
    with open(path, "ab") as file:
        file.truncate(file.tell() + count)


def _plain(error: MedgenError) -> list[list[str]]:
    return [[str(part) for part in problem] for problem in error.problems]


def _tell(folder: Path, error: MedgenError | None = None) -> bool:
    """Record the end of the first process that failed. Returns True if it is this one."""
    text = json.dumps([error.exit_code, *_plain(error)]) if error else ""
    try:
        with open(folder / TOLD, "x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


# The process that starts them


def supervise(arguments: list[str], devices: int, pairs: int, out: Path, command: str) -> int:
    """Run `medgen ARGUMENTS` in a process per device and wait for them. Returns the exit code, or
    raises their error.

    pairs: their total number. command: the command that continues.
    """
    place.check_devices(devices, "--devices")
    with surroundings(devices) as folder:
        return GenerateWorkers(arguments, devices, folder, pairs, out, command).run()


class GenerateWorkers(Supervisor):
    """Shows the workers' joint progress, and raises the error of the first that failed."""

    def __init__(
        self, arguments: list[str], devices: int, notes: Path, pairs: int, out: Path, command: str
    ):
        super().__init__(arguments, devices, notes)
        self.pairs, self.out, self.command = pairs, out, command
        self._shown = ExitStack()
        self._bar: console.Progress | None = None

    def run(self) -> int:
        with self._shown:
            return super().run()

    def _look(self) -> None:
        super()._look()
        self._show()

    def _show(self) -> None:
        made = sum(each.stat().st_size for each in self.notes.glob("made-*"))
        if made and not self._bar:
            self._bar = self._shown.enter_context(console.progress("pairs", self.pairs, "tried"))
        if self._bar:
            self._bar.update(made, self.pairs)

    def _judge(self, failures: list[tuple[int, Any]]) -> int:
        self._show()
        code = super()._judge(failures)
        told = self.notes / TOLD
        if told.exists() and told.stat().st_size:
            number, *problems = json.loads(told.read_text())
            error = MedgenError(*(Problem(*each) for each in problems))
            error.exit_code = number
            raise error
        return code

    def _killed(self, number: int, pid: int, name: str) -> Problem:
        what = f"rank {number} (pid {pid}) was killed by {name}, every pair there is whole"
        return Problem(self.out, what, "Continue", command=self.command)

    def _stopped(self, number: int) -> MedgenError:
        stop = Stop(self.command)
        stop.reason = NAMES[signal.Signals(number)]
        return pair_writer.stopped(self.out, stop)
