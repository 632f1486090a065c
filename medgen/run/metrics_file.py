"""`metrics.jsonl`: one line a step and one a validation, never twice, also after a crash."""

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
"""Bytes that are written together."""


class MetricsFile:
    """An append-only file of numbers. A checkpoint keeps its length, and resuming cuts it back to that.

    What a full disk does not take is kept, and must be on disk when a checkpoint is to be written.
    """

    def __init__(self, path: Path, length: int = 0):
        self.path, self._waiting = path, bytearray()
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - kept open for the run, closed by `close`
        if self._file.tell() > length:  # a file that is shorter must not be filled up with zeros
            self._file.truncate(length)
            self._file.seek(0, os.SEEK_END)

    def write(self, step: int, epoch: int, scalars: Mapping[str, float]) -> None:
        """One line; NaN and infinity, which JSON lacks, become null."""
        values = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        self._waiting += json.dumps({"step": step, "epoch": epoch, **values}).encode() + b"\n"
        if len(self._waiting) >= ENOUGH:
            with contextlib.suppress(StorageError):  # `length` meets it again
                self._write()

    def length(self) -> int:
        """Bytes on disk, where they survive a crash as the checkpoint does that keeps this number."""
        self._write()
        try:
            files.flush(self._file)
        except OSError as error:
            raise self._problem(error) from error
        return self._file.tell()

    def close(self) -> None:
        """Write what is left, and close."""
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
