"""Write `metrics.jsonl`: one line per step and per validation, without repeats after a crash."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from medgen.errors import Problem, StorageError, reason
from medgen.system import files

ENOUGH = 1 << 13
"""Bytes to collect before a write."""


class MetricsFile:
    """Append numbers to a file.

    A checkpoint stores the file's length, to which resuming truncates the file.

    Lines that a full disk refuses stay in memory; they must be on disk before a checkpoint.
    """

    def __init__(self, path: Path, length: int = 0):
        self.path, self._waiting = path, bytearray()
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - kept open for the run, closed by `close`
        if self._file.tell() > length:  # truncating a shorter file would fill it with zeros
            self._file.truncate(length)
            self._file.seek(0, os.SEEK_END)

    def write(self, step: int, epoch: int, scalars: Mapping[str, float]) -> None:
        """Append a line; NaN and infinity, which JSON lacks, become null."""
        values = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        self._waiting += json.dumps({"step": step, "epoch": epoch, **values}).encode() + b"\n"
        if len(self._waiting) >= ENOUGH:
            with contextlib.suppress(StorageError):  # `length` raises the error again
                self._write()

    def length(self) -> int:
        """Flush to disk, so that the lines survive a crash as a checkpoint does, and return the
        length in bytes.
        """
        self._write()
        try:
            files.flush(self._file)
        except OSError as error:
            raise self._problem(error) from error
        return self._file.tell()

    def close(self) -> None:
        """Write the remaining lines and close the file."""
        try:
            self._write()
        finally:
            self._file.close()

    def _write(self) -> None:
        try:
            while self._waiting:
                done = self._file.write(self._waiting)
                del self._waiting[:done]
        except OSError as error:
            raise self._problem(error) from error

    def _problem(self, error: OSError) -> StorageError:
        return StorageError(Problem(self.path, reason(error), "Make room for it, then resume"))
