"""The file in which a rank writes its heartbeats, for other ranks to watch."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TICK = 0.25
"""Seconds between heartbeats."""


class Beat(NamedTuple):
    """Hold the last heartbeat of a rank.

    idle: seconds since the last progress. saved: step of `latest.pt`.
    """

    number: int
    pid: int
    step: int
    saved: int
    state: str
    idle: float


class Heartbeat:
    """Rewrite `.rank-N` in the run's folder every `TICK` seconds, and watch other ranks' files.

    A stopped or lost process writes nothing. A rank that is `working`, not `waiting` for others
    nor `busy` with a long operation, must make progress within `timeout` seconds; otherwise
    `silent` is called with the rank's number.
    """

    def __init__(
        self,
        folder: Path,
        timeout: float,
        step: int,
        rank: int,
        others: Iterable[int],
        silent: Callable[[int], None],
    ):
        self.folder, self.timeout, self.step, self.saved = folder, timeout, step, step
        self.state, self._changed, self._count = "busy", time.monotonic(), 0
        self._seen = {other: (-1, time.monotonic()) for other in others}
        self.rank, self._silent, self._ended, self._writing = (
            rank,
            silent,
            threading.Event(),
            threading.Lock(),
        )
        self._file = os.open(_file(folder, rank), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        threading.Thread(target=self._beat, daemon=True).start()

    def mark(self, state: str) -> None:
        """Set what the rank does from now on, and count as progress."""
        self.state, self._changed = state, time.monotonic()

    def stop(self) -> None:
        """Stop writing and watching, after all ranks have finished."""
        self._ended.set()
        with suppress(
            OSError
        ):  # some file systems cannot unlink an open file; the next process sweeps it
            _file(self.folder, self.rank).unlink(missing_ok=True)

    def leave(self, state: str) -> None:
        """Write this rank's final state.

        `failed`: reports the error. `lost`: lost others, may report it. `left`: exits silently.
        """
        self._ended.set()
        self.state = state
        with suppress(OSError):
            self.write()
            os.fsync(self._file)  # other nodes may read the file at once

    def write(self) -> None:
        """Write a heartbeat now."""
        with self._writing:
            self._count += 1
            idle = time.monotonic() - self._changed
            beat = Beat(self._count, os.getpid(), self.step, self.saved, self.state, round(idle, 1))
            os.pwrite(self._file, json.dumps(beat).ljust(100).encode(), 0)

    def heard(self, count: int) -> list[Beat | None]:
        """Return the last heartbeat of each of `count` ranks."""
        return [read_beat(self.folder, number) for number in range(count)]

    def _beat(self) -> None:
        while not self._ended.is_set():
            with suppress(OSError):  # a file system that fails for a moment ends no run
                self.write()
            for other in self._seen:
                self._watch(other)
            self._ended.wait(TICK)

    def _watch(self, other: int) -> None:
        beat, now = read_beat(self.folder, other), time.monotonic()
        number, since = self._seen[other]
        if beat is None and number >= 0:  # the rank has finished, and may wait for others
            return
        if beat and beat.number != number:
            self._seen[other] = beat.number, now
        hangs = beat is not None and beat.state == "working" and beat.idle > self.timeout
        if (hangs or now - since > self.timeout) and not self._ended.is_set():
            self._silent(other)


def sweep(folder: Path) -> None:
    """Remove the files of ranks that were killed earlier."""
    for file in folder.glob(".rank-*"):
        file.unlink(missing_ok=True)


def read_beat(folder: Path, number: int) -> Beat | None:
    """Read the last heartbeat of a rank; None without a readable file."""
    try:
        return Beat(*json.loads(_file(folder, number).read_text()))
    except (OSError, ValueError):
        return None


def _file(folder: Path, number: int) -> Path:
    return folder / f".rank-{number}"
