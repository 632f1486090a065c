"""What is asked of a file, and what it holds, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medgen.api.tables import DataSettings


class Finding(NamedTuple):
    """What a file holds, as plain values. faults, warnings: what, and what to do.

    affine: of the canonical volume. orientation: as stored. content: as in `consistency.Scan`.
    labels: label and voxels. lesions: for each mask, size in voxels and how many parts of the mask
    have it; parts touch at corners at least. likeness: of a scan, as text. background: what lies
    around a scan's head, a word of `foreground.detect`.
    """

    faults: list[tuple[str, str]]
    warnings: list[tuple[str, str]]
    shape: Sequence[int] = ()
    spacing: Sequence[float] = ()
    orientation: str = ""
    affine: Sequence[Sequence[float]] = ()
    content: str = ""
    labels: Sequence[tuple[int, int]] = ()
    lesions: dict[str, Sequence[tuple[int, int]]] = {}  # noqa: RUF012  # nobody writes to it
    likeness: str = ""
    background: str = ""


class Job(NamedTuple):
    """A file, for a worker process. masks: the labels of each mask in it; none for a scan."""

    path: Path
    masks: dict[str, tuple[int, ...]]
    settings: DataSettings
