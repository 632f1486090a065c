"""What the parts of this package hand to one another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple

from medgen.errors import Problem

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val")
"""The splits that training reads."""
SHOWN = 6
"""File names that a message lists at most."""


class Patient(NamedTuple):
    """A patient's scans. id: the folder's name (BIDS: with the session's). files: by modality or
    segmentation. person: the same for all visits of one person.
    """

    id: str
    split: Split
    files: dict[str, Path]
    person: str


class Survey(NamedTuple):
    """Everything that lies in a dataset. files: by source. faults: of the arrangement, not of what
    is in the files.

    patients: also those in `test`, with the files that there are. sources: what `files` may hold.
    unread: imaging files that are none of them. left_out: a line per kind of thing that is not
    read. absent: files that are listed, but whose content is elsewhere; there is a fault for them.
    """

    root: Path
    patients: list[Patient]
    faults: list[Problem]
    sources: list[str]
    unread: list[Problem]
    left_out: list[Problem]
    absent: frozenset[Path]


class Scans(NamedTuple):
    """Every imaging file of a patient, by its path relative to `folder`.

    split: None where medgen decides. person: the same for all visits of one person. lent: persons
    whose lesions `medgen insert` put into the scans; None if they are not its outputs. others: the
    files in formats that are not read. tissue: names of files that hold tissue classes. place: the
    folder of the split, for messages.
    """

    id: str
    split: Split | None
    folder: Path
    names: dict[str, Path]
    place: Path
    person: str = ""
    lent: frozenset[str] | None = None
    others: tuple[Path, ...] = ()
    tissue: frozenset[str] = frozenset()


class Left(NamedTuple):
    """Something that is not read. kind: a key of `left_out.KINDS`. holds: names of what lies in it."""

    kind: str
    path: Path
    holds: tuple[str, ...] = ()


class Listing(NamedTuple):
    """What a layout finds."""

    scans: list[Scans]
    left: list[Left]


def expand(path: Path) -> Path:
    """`~` and `$VARS` replaced."""
    return Path(os.path.expandvars(os.path.expanduser(path)))


def listed(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (
        f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    )
