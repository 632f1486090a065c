"""Signals and a system that refuses end a run from outside: answered in a line, and recorded."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType

from medgen.errors import (
    MedgenError,
    Problem,
    RankError,
    StoppedError,
    StorageError,
    exit_code_of,
    of_system,
)
from medgen.ranks import collectives, process_group
from medgen.run import folder
from medgen.run.run import TrainingRun
from medgen.system import streams
from medgen.system.signals import NAMES, RepeatFilter, answered, exit_code_for
from medgen.training import compiling
from medgen.training.phases import PhasedRun


class Signals:
    """Answers signals: before training by ending, during it by asking for a stop between two steps."""

    def __init__(self, where: Path):
        self.where = where
        self.run: TrainingRun | PhasedRun | None = None
        self._ear = RepeatFilter()
        self._asked: str | None = None

    def attach(self, run: TrainingRun | PhasedRun) -> None:
        """Let the run stop from now on; at once, if a library has swallowed what was raised before."""
        self.run = run
        if self._asked:
            run.stop(self._asked)

    def __call__(self, number: int, _: FrameType | None) -> None:
        if not self._ear.first(number):
            return
        name = NAMES[signal.Signals(number)]
        if self.run is not None:
            self.run.stop(name)
            if not compiling.is_underway():
                return
        self._asked = name
        raise StoppedError(
            Problem(
                self.where, f"stopped by {name} before it trained", "Give the same command again"
            ),
            exit_code=exit_code_for(name),
        )


@contextmanager
def at_work(where: Path) -> Iterator[Signals]:
    """Hold the folder, answer signals, and say in one line that a file could not be written."""
    signals = Signals(where)
    try:
        with answered(signals), folder.lock(where) if collectives.is_rank_zero() else nullcontext():
            streams.only_log()
            yield signals
    except OSError as error:
        if (told := _refused(error, where)) is None:
            raise
        raise told from error


def _refused(error: OSError, where: Path) -> MedgenError | None:
    """Describe what the system refused or others did to the run's folder; None for a mistake."""
    if told := of_system(error, where, "go on"):
        return told
    path = error.filename if isinstance(error.filename, str) else ""
    if not where.is_dir() or (path and Path(path).absolute().is_relative_to(where.absolute())):
        what = f"{path or where}: {error.strerror or error}"
        return StorageError(
            Problem(
                "", what, "See that nobody deletes, moves or changes the files of a run, then go on"
            )
        )
    return None


@contextmanager
def recorded(where: Path) -> Iterator[None]:
    """Write into `metadata.json` how a process ended that failed or was stopped."""
    try:
        yield
    except BaseException as error:
        told = _refused(error, where) if isinstance(error, OSError) else None
        code = (
            RankError.exit_code
            if process_group.is_lost_peer_error(error)
            else exit_code_of(told or error)
        )
        if collectives.is_rank_zero():
            with suppress(
                OSError, StorageError
            ):  # a full or lost disk is told of by the error itself
                folder.write_end(where, error, code)
        raise
