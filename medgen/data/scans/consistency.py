"""What the files of one patient must have in common, and those of two patients must not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medgen.api.tables import AXES
from medgen.data.scans.likeness import Likeness, alike
from medgen.errors import Problem

SAME_PLACE = 1e-3
"""How far the corners of a patient's volumes may be apart, as a share of the volume's diagonal."""
THICK = 3.0
"""How many times coarser a slice may be in one direction than in the other."""
SAME_VOXEL = 0.5
"""The same, as a share of the shortest side of a voxel."""


class Place(NamedTuple):
    """Where in space a file's voxels are."""

    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray

    def corners(self) -> np.ndarray:
        """Return `[8, 3]`, mm."""
        ends = itertools.product(*((0, count - 1) for count in self.shape))
        return np.array([self.affine[:3, :3] @ end + self.affine[:3, 3] for end in ends])

    def tolerance(self) -> float:
        """Return the distance that rounding in headers explains, mm."""
        corners, voxel = self.corners(), np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(
            min(SAME_PLACE * np.linalg.norm(corners[-1] - corners[0]), SAME_VOXEL * voxel.min())
        )


def mismatches(first: Place, other: Place) -> Iterator[Problem]:
    """Yield what keeps two files from being channels of one image."""
    if other.shape != first.shape:
        sizes = [" x ".join(map(str, place.shape)) for place in (other, first)]
        what = f"has {sizes[0]} voxels, but {first.path} has {sizes[1]}"
        yield Problem(other.path, what, "Resample one to the other")
        return
    here, there = other.corners(), first.corners()
    if np.linalg.norm(here - there, axis=1).max() > first.tolerance():
        what = f"spans {_span(here)} mm, but {first.path} spans {_span(there)} mm"
        yield Problem(
            other.path, what, "Find out which header is right, or resample one to the other"
        )


def _span(corners: np.ndarray) -> str:
    return " to ".join(
        "(" + ", ".join(f"{x:.5g}" for x in corner) + ")" for corner in (corners[0], corners[-1])
    )


class Scan(NamedTuple):
    """Whose a file's voxels are. content: sha256 of the voxels; empty for a constant volume.

    likeness: what nearly equal scans have in common, where it is known.
    """

    patient: str
    split: str
    path: Path
    content: str
    likeness: Likeness | None = None


def twins(scans: Iterable[Scan]) -> Iterator[tuple[Scan, Scan]]:
    """Yield each file whose voxels are those of one before it, after that one."""
    seen: dict[str, Scan] = {}
    for scan in scans:
        first = seen.setdefault(scan.content, scan)
        if scan.content and first.path != scan.path:
            yield first, scan


def overlaps(scans: Iterable[Scan]) -> Iterator[Problem]:
    """Yield the same scan in two splits, voxel for voxel or nearly: one patient under two names."""
    scans = list(scans)
    told = set()
    for first, scan in twins(scans):
        if first.split != scan.split:
            told.add((first.patient, scan.patient))
            yield _overlap(first, scan, "has the voxels of")
    for first, scan, agreement in _near(scans):
        if not {(first.patient, scan.patient), (scan.patient, first.patient)} & told:
            told.add((first.patient, scan.patient))
            yield _overlap(first, scan, f"has nearly the voxels (correlation {agreement:.2f}) of")


def _overlap(first: Scan, scan: Scan, what: str) -> Problem:
    what = f"{what} {first.path}, but is for {scan.split} and that for {first.split}"
    return Problem(
        scan.path,
        what,
        "Keep a patient in one split, or set data.allow_patient_overlap = true",
        scan.patient,
    )


def _near(scans: Iterable[Scan]) -> Iterator[tuple[Scan, Scan, float]]:
    """Yield scans of two splits that are nearly equal, the one to train on first."""
    splits: dict[str, list[tuple[Scan, Likeness]]] = {}
    for scan in scans:
        if scan.likeness:
            splits.setdefault(scan.split, []).append((scan, scan.likeness))
    for one, other in itertools.combinations(
        [split for split in ("train", "val", "test") if split in splits], 2
    ):
        pairs = alike([each for _, each in splits[one]], [each for _, each in splits[other]])
        for i, j, agreement in pairs:
            yield splits[one][i][0], splits[other][j][0], agreement


def across_thick(spacings: Sequence[Sequence[float]], axis: str) -> tuple[str, str] | None:
    """Return what is wrong with slices that cut across the scans' thick slices, and what to do."""
    cut: dict[str, list[Sequence[float]]] = {}
    for spacing in spacings:
        sides = [size for name, size in zip(AXES, spacing, strict=True) if name != axis]
        thick = AXES[int(np.argmax(spacing))]
        if thick != axis and max(sides) >= THICK * min(sides):
            cut.setdefault(thick, []).append(spacing)
    if not cut:
        return None
    thick, found = max(cut.items(), key=lambda each: len(each[1]))
    count = sum(map(len, cut.values()))
    size = " x ".join(f"{each:.3g}" for each in found[0])
    what = f"{count:,} of {len(spacings):,} patients have thick slices (voxels of {size} mm), cut across by {axis} ones"
    return what, f'Set data.axis = "{thick}"'
