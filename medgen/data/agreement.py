"""What the files of one patient must have in common, and those of two patients must not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medgen.data.nifti import Fault

SAME_PLACE = 1e-3
"""How far the corners of a patient's volumes may be apart, as a share of the volume's diagonal."""
SAME_VOXEL = 0.5
"""The same, as a share of the shortest side of a voxel."""


class Place(NamedTuple):
    """Where in space a file's voxels are."""

    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray

    def corners(self) -> np.ndarray:
        """`[8, 3]`, mm."""
        ends = itertools.product(*((0, count - 1) for count in self.shape))
        return np.array([self.affine[:3, :3] @ end + self.affine[:3, 3] for end in ends])

    def tolerance(self) -> float:
        """The distance that rounding in headers explains, mm."""
        corners, voxel = self.corners(), np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(min(SAME_PLACE * np.linalg.norm(corners[-1] - corners[0]), SAME_VOXEL * voxel.min()))


def mismatches(first: Place, other: Place) -> Iterator[Fault]:
    """What keeps two files from being channels of one image."""
    if other.shape != first.shape:
        sizes = [" x ".join(map(str, place.shape)) for place in (other, first)]
        what = f"has {sizes[0]} voxels, but {first.path} has {sizes[1]}"
        yield Fault(other.path, what, "Resample one to the other")
        return
    here, there = other.corners(), first.corners()
    if np.linalg.norm(here - there, axis=1).max() > first.tolerance():
        what = f"spans {_span(here)} mm, but {first.path} spans {_span(there)} mm"
        yield Fault(other.path, what, "Find out which header is right, or resample one to the other")


def _span(corners: np.ndarray) -> str:
    return " to ".join("(" + ", ".join(f"{x:.5g}" for x in corner) + ")" for corner in (corners[0], corners[-1]))


class Scan(NamedTuple):
    """Whose a file's voxels are. content: their sha256; empty for a constant volume, which tells nothing."""

    patient: str
    split: str
    path: Path
    content: str


def twins(scans: Iterable[Scan]) -> Iterator[tuple[Scan, Scan]]:
    """Each file whose voxels are those of one before it, after that one."""
    seen: dict[str, Scan] = {}
    for scan in scans:
        first = seen.setdefault(scan.content, scan)
        if scan.content and first.path != scan.path:
            yield first, scan


def overlaps(scans: Iterable[Scan]) -> Iterator[Fault]:
    """The same voxels in two splits: one patient under two names."""
    for first, scan in twins(scans):
        if first.split != scan.split:
            what = f"has the voxels of {first.path}, but is for {scan.split} and that for {first.split}"
            fix = "Keep a patient in one split, or set data.allow_patient_overlap = true"
            yield Fault(scan.path, what, fix, scan.patient)
