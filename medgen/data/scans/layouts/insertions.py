"""Whose head and whose lesions an output of `medgen insert` shows, as its manifest tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from medgen.data.scans.layouts.types import Scans
from medgen.data.scans.manifest_lines import Entry, listed
from medgen.errors import Problem

NEW_LESIONS = "seg_new"
"""Name of the mask of the lesions that were put in; `seg` is of all."""


class _Whose(NamedTuple):
    host: str
    donors: frozenset[str]


def with_hosts(root: Path, everyone: Sequence[Scans]) -> list[Scans]:
    """Give the outputs of `medgen insert` the person of their host, and those who lent lesions.

    root: the dataset's folder, with the manifest in it, or above it if `root` is its `train`. All
    other datasets stay as they are. Raises DataError if the manifest is damaged.
    """
    known = _read(root.parent if root.name == "train" else root)
    return [
        each._replace(person=known[each.id].host, lent=known[each.id].donors)
        if each.id in known
        else each
        for each in everyone
    ]


def shown_persons(out: Path) -> frozenset[str]:
    """Name the persons whose heads or lesions the outputs in a folder show; empty for other pairs."""
    known = _read(out).values()
    return frozenset().union(*({each.host, *each.donors} for each in known))


def none_for_validation(root: Path, kept: Iterable[Scans], fraction: float) -> list[Problem]:
    """Say why a split by medgen leaves outputs of several hosts for training alone."""
    drawn = [each for each in kept if each.split is None and each.lent is not None]
    hosts = len({each.person for each in drawn})
    if fraction <= 0 or hosts < 2:
        return []
    what = "lesions of one person are in the heads of others"
    what += f", so all {len(drawn):,} scans of {hosts:,} heads are to train on"
    fix = "Validate on scans that `medgen insert` did not use, in a folder val beside train"
    return [Problem(root, what, fix)]


def _read(out: Path) -> dict[str, _Whose]:
    """Read the manifest in a folder, by the names of the outputs; empty if there is none of
    `medgen insert`.
    """
    if not _is_of_insertions(out / "manifest.jsonl"):
        return {}
    with listed(out) as lines:
        return {row["id"]: _whose(row) for row in (lines[index] for index in lines.made())}


def _is_of_insertions(path: Path) -> bool:
    """True if the first line of a file is what `medgen insert` writes; others may have files of
    that name.
    """
    try:
        with open(path, "rb") as file:
            header = json.loads(file.readline())
    except (FileNotFoundError, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and header.get("insert") is True


def _whose(row: Entry) -> _Whose:
    donors = (_person(each, "donor") for each in row["inserted"])
    return _Whose(_person(row["host"], "id"), frozenset(filter(None, donors)))


def _person(row: Entry, id: str) -> str:
    """Return the person in a row, empty for a lesion that is a mask alone; manifests of before name
    the patient.
    """
    return str(row.get("person", row[id]))
