"""Audit a folder's pairs: note what each is most like, and move copies to `set_aside/`.

A line is written before its folder is moved, so that a process that is killed in between leaves no
copy unmarked; the next audit moves what is marked. Nothing is deleted, and `generate` does not make
a pair that is set aside anew.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np

from medgen.data.scans.manifest_lines import Entry, line_of, listed
from medgen.errors import DataError, Problem, RunInUseError
from medgen.evaluation import pair_files
from medgen.evaluation.copies import Judge, Verdict
from medgen.evaluation.sample_search import BLOCK
from medgen.evaluation.samples import Samples
from medgen.generation.manifest import IN_USE
from medgen.system import files
from medgen.system.locks import Locks

FOLDER = "set_aside"
"""Where copies are moved, beside `train`."""
COPY = "copy of a"
"""How the reason begins for which a copy is set aside; then `slice`, `volume` or `lesion`."""
OBEDIENCE = "obedience below"
"""How the reason begins for which a pair is set aside whose lesion is not found; what follows is
the least Dice.
"""
NOTE = "obedience"
"""Key of a line for the Dice with which segmenters taught on real slices find the lesion."""
Rows = dict[int, Entry]


@attrs.frozen
class Audited:
    """What a folder's lines say. rows: of pairs compared, by index. copies: those set aside."""

    rows: Rows
    copies: Rows

    @property
    def share(self) -> float:
        """Copies per pair that was compared."""
        return len(self.copies) / len(self.rows) if self.rows else 0.0


def waiting(out: Path, key: str, wanted: Container[int]) -> Rows:
    """Return the pairs not yet compared with these training slices. Raises DataError."""
    with listed(out) as lines:
        rows = {index: lines[index] for index in lines.made() if index in wanted}
    return {
        index: row for index, row in rows.items() if not row.get(FOLDER) and _against(row) != key
    }


def audit(
    out: Path,
    locks: Locks,
    judge: Judge,
    rows: Rows,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Compare pairs, note what they are most like in their lines, and move the copies."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, row in rows.items():
        groups.setdefault(tuple(row["files"]), []).append(index)
    notes: Rows = {}
    for names, indices in groups.items():
        folders = [out / "train" / rows[index]["id"] for index in indices]
        for index, verdict in zip(indices, judge.judge_pairs(folders, names, advance), strict=True):
            notes[index] = _note(verdict, judge)
    amend(out, locks, notes)
    move(out)


class Obedience(Protocol):
    """Segmenters taught on real slices, such as `medgen.evaluation.obedience.fit` gives."""

    def per_pair(self, pairs: Samples) -> np.ndarray:
        """Give the Dice of what they find and each pair's mask, `[pair]`, 0 to 1."""


def obey(
    out: Path, locks: Locks, taught: Callable[[], Obedience], least: float, wanted: Container[int]
) -> None:
    """Note the obedience of pairs that have none yet in their lines, and move those below `least`.

    taught: gives the segmenters; called only if there is a pair to judge.
    """
    with listed(out) as lines:
        rows = {
            index: row
            for index in lines.made()
            if index in wanted and not (row := lines[index]).get(FOLDER)
        }
    values = {index: float(row[NOTE]) for index, row in rows.items() if NOTE in row}
    if indices := [index for index in rows if index not in values]:
        values |= zip(
            indices, _obedience(out, taught(), [rows[index] for index in indices]), strict=True
        )
    notes = {index: {NOTE: value} for index, value in values.items() if NOTE not in rows[index]}
    below = {
        index: {FOLDER: f"{OBEDIENCE} {least:g}"}
        for index, value in values.items()
        if value < least
    }
    amend(
        out,
        locks,
        {index: notes.get(index, {}) | below.get(index, {}) for index in {*notes, *below}},
    )
    move(out)


def _obedience(out: Path, judges: Obedience, rows: Sequence[Entry]) -> Iterator[float]:
    """Yield the obedience of pairs, a block at a time."""
    size = BLOCK[3 if pair_files.are_volumes(out) else 2]
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        block = pair_files.read([place(out, row) for row in some], some[0]["files"])
        found = judges.per_pair(block.samples(*(str(row["id"]) for row in some)))
        yield from (round(value, 4) for value in found.tolist())


def disobedient(out: Path, wanted: Container[int]) -> int:
    """Count the pairs that are set aside for their obedience."""
    with listed(out) as lines:
        return sum(
            str(lines[index].get(FOLDER, "")).startswith(OBEDIENCE)
            for index in lines.made()
            if index in wanted
        )


def move(out: Path) -> None:
    """Move what is marked as set aside and still lies among the pairs."""
    with listed(out) as lines:
        for index in lines.made():
            row = lines[index]
            source, target = out / "train" / row["id"], out / FOLDER / row["id"]
            if row.get(FOLDER) and files.exists(source) and not files.exists(target):
                target.parent.mkdir(exist_ok=True)
                files.move_folder(source, target)


def audited(out: Path, key: str) -> Audited:
    """What was found by comparing with these training slices."""
    with listed(out) as lines:
        rows = {index: row for index in lines.made() if _against(row := lines[index]) == key}
    return Audited(
        rows,
        {index: row for index, row in rows.items() if str(row.get(FOLDER, "")).startswith(COPY)},
    )


def first_pair(out: Path) -> Samples:
    """Return the first pair, for size, channels and mm per pixel. Raises DataError for none."""
    with listed(out) as lines:
        row = next(
            (row for index in lines.made() if files.exists(place(out, row := lines[index]))), None
        )
    if row is None:
        raise DataError(
            Problem(
                out / "manifest.jsonl",
                "lists no pair",
                "Give the folder that `medgen generate` wrote",
            )
        )
    return pair_files.read([place(out, row)], row["files"]).samples(str(row["id"]))


def place(out: Path, row: Entry) -> Path:
    """The folder of a pair, wherever it is."""
    return out / (FOLDER if row.get(FOLDER) else "train") / str(row["id"])


def amend(
    out: Path, locks: Locks, notes: Mapping[int, Entry], first: Mapping[str, Any] | None = None
) -> None:
    """Add to lines of the manifest, and to its first line, whoever else writes to it."""
    path = out / "manifest.jsonl"
    with (
        unchanging(locks),
        listed(out) as lines,
        files.replacing(path) as made,
        made.open("wb") as file,
    ):
        file.write(line_of({**(lines.header or {}), **(first or {})}))
        for index, text in zip(lines, lines.text(), strict=True):
            file.write(line_of(lines[index] | notes[index]) if index in notes else text)
        files.flush(file)


@contextmanager
def unchanging(locks: Locks) -> Iterator[None]:
    """Hold the manifest, against processes that work in the same folder."""
    locks.wait(0)
    try:
        yield
    finally:
        locks.release(0)


@contextmanager
def held(out: Path, alone: bool) -> Iterator[Locks]:
    """Work in a folder of pairs, beside others or alone. Raises RunInUseError if pairs are being
    made in it.

    A process has one set of locks: closing another handle of the file would end them all.
    """
    with listed(out):
        pass
    with closing(Locks(out / ".lock")) as locks:
        if not locks.take(IN_USE, shared=not alone):
            raise RunInUseError(
                Problem(out, "another process makes pairs here", "Wait until it has ended")
            )
        yield locks


def _note(verdict: Verdict, judge: Judge) -> Entry:
    names = judge.training.names
    nearest = {
        "against": judge.key,
        "to": names[verdict.row],
        "distance": round(verdict.distance, 4),
        "limit": round(1 - verdict.limit, 4),
        "excess": round(verdict.excess, 4),
    }
    if verdict.lesion_row >= 0:
        nearest["lesion"] = {
            "to": names[verdict.lesion_row],
            "distance": round(1 - verdict.lesion_alike, 4),
            "limit": round(1 - verdict.lesion_limit, 4),
        }
    return {"nearest": nearest, **({FOLDER: f"{COPY} {verdict.why}"} if verdict.why else {})}


def _against(row: Entry) -> str:
    nearest = row.get("nearest")
    return str(nearest.get("against")) if isinstance(nearest, dict) else ""
