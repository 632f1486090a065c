"""`metrics.jsonl`: one line a step and one a validation, never twice, also after a crash."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path


class Journal:
    """An append-only file of numbers. A checkpoint keeps its length, and resuming cuts it back to that."""

    def __init__(self, path: Path, length: int = 0):
        self._file = open(path, "ab")  # noqa: SIM115 - kept open for the run, closed by `close`
        if self._file.tell() > length:  # a file that is shorter must not be filled up with zeros
            self._file.truncate(length)
            self._file.seek(0, os.SEEK_END)

    def write(self, step: int, epoch: int, scalars: Mapping[str, float]) -> None:
        """One line; NaN and infinity, which JSON lacks, become null."""
        values = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        self._file.write(json.dumps({"step": step, "epoch": epoch, **values}).encode() + b"\n")

    def length(self) -> int:
        """Bytes on disk, where they survive a crash as the checkpoint does that keeps this number."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
