"""Read and write `manifest.jsonl`: settings and list of the pairs, from which generation continues.

Several processes may work in a folder. Locks on single bytes of `.lock`, which the system releases
when their process ends, guard what they share: byte 0 while the manifest is read or written, byte 1
+ n while block n is generated, and a last byte, held shared by each process in the folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

from medgen.data.scans.manifest_lines import Entry, Lines, has_pairs, line_of
from medgen.errors import CheckpointError, Problem, RunInUseError
from medgen.system import files
from medgen.system.console import warn
from medgen.system.locks import Locks

IN_USE = 1 << 62
"""The byte that every process in a folder holds as a shared lock."""
STEPS_AUTO = "steps_auto"
"""What `--steps auto` found; see `auto_steps`."""
NOTES = ("audit", STEPS_AUTO)
"""What the first line has besides how the pairs were made: what was found out about them before or
later.
"""


def name_of(index: int) -> str:
    """Return the name of a pair's folder."""
    return f"syn_{index:05d}"


def sha256(path: Path) -> str | None:
    """Hash a file's content; None if there is no file. Raises StorageError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise files.unreadable(path, error) from error
    return digest.hexdigest()


class Begun(NamedTuple):
    """A manifest that is there. header: the first line. has_pairs: whether later pairs must be made
    likewise.
    """

    header: Entry
    has_pairs: bool


def begun(out: Path) -> Begun | None:
    """Read the settings of pairs that were begun in a folder. Raises CheckpointError for a damaged
    manifest.
    """
    with closing(Lines(out / "manifest.jsonl")) as lines:
        return None if lines.header is None else Begun(lines.header, has_pairs(out, lines))


class Manifest:
    """`manifest.jsonl`: a header with the settings, then a line per pair; sorted when all are
    written.

    identity: everything besides the index that decides a pair's bytes; once a pair exists, any
    other is refused. made_with: versions and device, which may change the last bits; differences
    from the header are noted with the pair. notes: more for a new header.
    """

    def __init__(
        self,
        out: Path,
        locks: Locks,
        identity: Mapping[str, Any],
        made_with: Mapping[str, Any],
        notes: Mapping[str, Any],
    ):
        self.out, self.path, self._locks = out, out / "manifest.jsonl", locks
        self.header = {**identity, **made_with, **notes}
        with self.locked():
            for stale in out.glob(".tmp-*"):
                stale.unlink()
            files.probe(out, *(["locks"] if locks.lacking else []))
            self.entries = Lines(self.path)
            self._check(identity, made_with)
            locks.take(IN_USE, shared=True)
            self.sort()
        self._own = {
            key: value for key, value in made_with.items() if self.header.get(key) != value
        }
        if self._own:
            begun = ", ".join(
                f"{key} {self.header.get(key)} (now {value})" for key, value in self._own.items()
            )
            warn(
                f"{self.path}: was begun with {begun}. New pairs may differ in the last bit from what that makes."
            )

    @classmethod
    @contextmanager
    def open(
        cls,
        out: Path,
        identity: Mapping[str, Any],
        made_with: Mapping[str, Any],
        notes: Mapping[str, Any] = MappingProxyType({}),
    ) -> Iterator[Manifest]:
        """Open the manifest, or begin a new one. Raises CheckpointError if it is damaged or of
        other pairs.
        """
        out.mkdir(parents=True, exist_ok=True)
        with closing(Locks(out / ".lock")) as locks:
            manifest = cls(out, locks, identity, made_with, notes)
            try:
                yield manifest
            finally:
                manifest.entries.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the manifest against other processes."""
        self._locks.wait(0)
        try:
            yield
        finally:
            self._locks.release(0)

    @property
    def binds(self) -> bool:
        """True once a pair exists; later ones must use the same settings."""
        return has_pairs(self.out, self.entries)

    @contextmanager
    def block(self, number: int) -> Iterator[None]:
        """Lock a block. Raises RunInUseError if another process generates it."""
        if not self._locks.take(1 + number):
            raise RunInUseError(
                Problem(
                    self.out,
                    f"another process makes block {number}",
                    "Wait, or give each process a --shard of its own",
                )
            )
        try:
            yield
        finally:
            self._locks.release(1 + number)

    def missing(self, indices: Iterable[int]) -> set[int]:
        """Return the indices without a line, or whose files differ from their line."""
        return {index for index in indices if not self._whole(index)}

    def add(self, entry: Entry) -> None:
        """Append a line, before the files are in place, so that every pair has one."""
        with self.locked(), open(self.path, "r+b") as file:
            self._drop_torn(file)
            file.write(line_of(entry | self._own))

    def sort(self) -> None:
        """Read the lines that all processes added, and sort them, so that the file does not depend
        on their order.

        Before that `entries` is the state at `open`.
        """
        lines = Lines(self.path)
        self.header = lines.header or self.header
        with files.replacing(self.path) as made, made.open("wb") as file:
            file.write(line_of(self.header))
            file.writelines(lines.text())
            files.flush(file)
        self.entries.close()
        self.entries = lines

    def _whole(self, index: int) -> bool:
        entry = self.entries.get(index)
        if entry is None or entry.get("failed") or entry.get("set_aside"):
            return entry is not None
        folder = self.out / "train" / name_of(index)
        return all(
            sha256(folder / f"{name}.nii.gz") == digest for name, digest in entry["files"].items()
        )

    def _check(self, identity: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
        there = self.entries.header
        if there is None:
            if has_pairs(self.out, self.entries):
                raise CheckpointError(
                    Problem(
                        self.out, "has pairs but no manifest.jsonl", "Choose another --output-dir"
                    )
                )
            return
        keys = sorted({*there, *identity} - {*made_with, *NOTES})
        changed = [
            f"{key}: {there.get(key)} -> {identity.get(key)}"
            for key in keys
            if there.get(key) != identity.get(key)
        ]
        if changed and not self._begin_anew():
            what = f"its pairs were made differently ({', '.join(changed)})"
            raise CheckpointError(
                Problem(self.path, what, "Give what made them, or choose another --output-dir")
            )

    def _begin_anew(self) -> bool:
        """Discard the header if there is no pair and no process generates any."""
        if self.binds:
            return False
        if not self._locks.take(IN_USE):
            return False
        self.path.unlink()
        return True

    @staticmethod
    def _drop_torn(file: BinaryIO) -> None:
        """Seek to the end of the last whole line, and cut the rest, which a killed process left."""
        size = file.seek(0, os.SEEK_END)
        tail = min(size, 1 << 16)
        file.seek(-tail, os.SEEK_END)
        file.seek(size - tail + file.read().rfind(b"\n") + 1)
        file.truncate()
