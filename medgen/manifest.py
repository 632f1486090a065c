"""`manifest.jsonl`: how pairs were made and which are there, so that generation continues where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medgen.errors import CheckpointError


def name_of(index: int) -> str:
    """The folder of a pair."""
    return f"syn_{index:05d}"


class Manifest:
    """`manifest.jsonl`: how the pairs were made, then a line for each; sorted once all are there."""

    def __init__(self, path: Path, identity: dict[str, Any], entries: dict[int, dict[str, Any]]):
        self.path, self.identity, self.entries = path, identity, entries
        self._rewrite()

    @classmethod
    def open(cls, out: Path, identity: dict[str, Any]) -> Manifest:
        """A new manifest, or the one that is there, if its pairs were made in the same way."""
        path = out / "manifest.jsonl"
        out.mkdir(parents=True, exist_ok=True)
        lines = list(_lines(path)) if path.exists() else []
        if not lines:
            return cls(path, identity, {})
        changed = [
            f"{key}: {lines[0].get(key)} -> {identity.get(key)}"
            for key in sorted({*lines[0], *identity})
            if lines[0].get(key) != identity.get(key)
        ]
        if changed:
            raise CheckpointError(
                f"{path}: its pairs were made differently ({', '.join(changed)}). Choose another --output-dir."
            )
        return cls(path, identity, {entry["index"]: entry for entry in lines[1:]})

    def missing(self, indices: Iterable[int]) -> set[int]:
        """The indices without a line, or whose files are not what the line says."""
        return {index for index in indices if not self._whole(index)}

    def add(self, entry: dict[str, Any]) -> None:
        """Append a line."""
        self.entries[entry["index"]] = entry
        with open(self.path, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def finish(self) -> None:
        """Sort, so that the file does not tell in which order the pairs were made."""
        self._rewrite()

    def _whole(self, index: int) -> bool:
        entry = self.entries.get(index)
        if entry is None or entry.get("failed"):
            return entry is not None
        folder = self.path.parent / "train" / name_of(index)
        return all(_digest(folder / f"{name}.nii.gz") == digest for name, digest in entry["files"].items())

    def _rewrite(self) -> None:
        rows = [self.identity, *(self.entries[index] for index in sorted(self.entries))]
        temporary = self.path.with_name(f".tmp-{self.path.name}")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
        temporary.replace(self.path)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return  # the torn last line of a killed process


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
