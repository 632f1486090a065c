"""The lines of a `manifest.jsonl`: 17 bytes of memory per pair, the rest read on demand."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from medgen.errors import CheckpointError, DataError, Problem
from medgen.system import files

Entry = dict[str, Any]
MOST = 1 << 61
"""Upper bound of indices, so that each block has a byte to lock."""


def is_file_name(name: object) -> bool:
    """Return True if a channel can name a file: one that stays in its folder and is not hidden."""
    if not isinstance(name, str) or not name.isprintable():
        return False
    return (
        0 < len(name) <= 100 and not name.startswith(".") and "/" not in name and "\\" not in name
    )


class Lines(Mapping[int, Entry]):
    """A manifest's lines at opening, by index; of two with one index the later counts.

    header: the first line. The file may be replaced meanwhile; the open one stays readable until
    `close`. Raises CheckpointError for a line that medgen did not write.
    """

    def __init__(self, path: Path):
        self.header: Entry | None = None
        self._file = _opened(path)
        indices, starts, failed = array("q"), array("q"), array("b")
        for number, (start, line) in enumerate(self._whole_lines(), 1):
            row = _row(path, number, line)
            if number == 1:
                self.header = row
                continue
            indices.append(row["index"])
            starts.append(start)
            failed.append(row.get("failed") is True)
        order = np.argsort(np.array(indices, np.int64), kind="stable")
        ordered = np.array(indices, np.int64)[order]
        order = order[np.append(ordered[1:] != ordered[:-1], True)] if len(order) else order
        self._indices, self._starts = (
            np.array(indices, np.int64)[order],
            np.array(starts, np.int64)[order],
        )
        self._failed = np.array(failed, bool)[order]

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[int]:
        """Yield the indices, ascending."""
        return map(int, self._indices)

    def __getitem__(self, index: int) -> Entry:
        place = int(np.searchsorted(self._indices, index))
        if place == len(self) or self._indices[place] != index:
            raise KeyError(index)
        row: Entry = json.loads(self._line(int(self._starts[place])))
        return row

    def text(self) -> Iterator[bytes]:
        """Yield the lines unchanged, ordered by index, without the header."""
        return (self._line(int(start)) for start in self._starts)

    def made(self) -> Iterator[int]:
        """Yield the indices of written pairs, ascending."""
        return map(int, self._indices[~self._failed])

    def failed(self) -> Iterator[int]:
        """Yield the indices of pairs that were left out, ascending."""
        return map(int, self._indices[self._failed])

    def _whole_lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the offset and text of each whole line; the rest was left by a killed process."""
        start = 0
        for line in self._file or ():
            if line.endswith(b"\n"):
                yield start, line
            start += len(line)

    def _line(self, start: int) -> bytes:
        assert self._file is not None
        self._file.seek(start)
        return self._file.readline()


def _opened(path: Path) -> BinaryIO | None:
    try:
        return open(path, "rb")  # closed by `close`
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.unreadable(path, error) from error


@contextmanager
def listed(out: Path) -> Iterator[Lines]:
    """Open the lines of a folder of pairs. Raises DataError if there are none or not medgen's."""
    try:
        lines = Lines(out / "manifest.jsonl")
    except CheckpointError as error:
        raise DataError(
            *(each._replace(fix="Restore the file") for each in error.problems)
        ) from error
    if lines.header is None:
        raise DataError(
            Problem(out, "holds no manifest.jsonl", "Give the folder that `medgen generate` wrote")
        )
    with closing(lines):
        yield lines


def line_of(row: Entry) -> bytes:
    """Write an entry as a line."""
    return json.dumps(row).encode() + b"\n"


def has_pairs(out: Path, lines: Lines) -> bool:
    """Return True if a folder holds a pair or a line of one."""
    return any(True for _ in lines.made()) or any(True for _ in names(out, "syn_"))


def names(out: Path, prefix: str) -> Iterator[str]:
    """Yield the names in `out/train` with a prefix; a glob would hold all names in memory."""
    try:
        entries = os.scandir(out / "train")
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        yield from (entry.name for entry in entries if entry.name.startswith(prefix))


def _row(path: Path, number: int, line: bytes) -> Entry:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or (number > 1 and not _is_entry(row)):
        raise CheckpointError(
            Problem(
                f"{path}:{number}",
                "is no line that medgen wrote",
                "Restore the file, or choose another --output-dir",
            )
        )
    return row


def _is_entry(row: Entry) -> bool:
    index, files = row.get("index"), row.get("files")
    if type(index) is not int or not 0 <= index < MOST:
        return False
    if row.get("failed") is True:
        return _is_count(row.get("rejected", {}))
    return (
        isinstance(files, dict) and bool(files) and all(map(is_file_name, [row.get("id"), *files]))
    )


def _is_count(value: object) -> bool:
    return isinstance(value, dict) and all(type(each) is int for each in value.values())
