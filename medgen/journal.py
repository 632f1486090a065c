"""`metrics.jsonl`: one line a step and one a validation, never twice, also after a crash."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path


class Journal:
    """An append-only file of numbers. A checkpoint keeps its length, and resuming cuts it back to that."""

    def __init__(self, path: Path, length: int = 0):
        self._file = open(path, "ab")  # noqa: SIM115 - kept open for the run, closed by `close`
        self._file.truncate(length)

    def write(self, step: int, epoch: int, scalars: Mapping[str, float]) -> None:
        """One line; NaN and infinity, which JSON lacks, become null."""
        values = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        self._file.write(json.dumps({"step": step, "epoch": epoch, **values}).encode() + b"\n")

    def length(self) -> int:
        """Bytes on disk after flushing."""
        self._file.flush()
        return self._file.tell()

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
