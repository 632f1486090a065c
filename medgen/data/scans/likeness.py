"""Tell scans of one head apart from those of another, by what is inside of it.

A scan is reduced to two sketches, cells of averages: one fills the box of the head, so that it
survives padding and lost headers, and one lies on a grid in scanner space, so that it survives
cropping. Only what differs from its surroundings is kept, and only well inside of the head, where
persons differ; the outline and the large shades, which all heads have in common, are not.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

CELLS = 16
"""Along each side of a sketch."""
CELL_MM = 10.0
"""Side of a cell of the grid in space; 16 of them span the middle of any head."""
FULL = 0.999
"""Share of a cell that is head, from which on it counts as inside."""
BLUR = 1.0
"""Standard deviation, in cells, of the surroundings that are taken away."""
FEWEST = 100
"""Cells that two sketches must have in common to be compared."""
THIN = 4
"""Voxels; a head that has fewer along an axis, as a single slice has, is not compared."""
ALIKE = 0.85
"""Correlation from which on two sketches are of one scan. Real heads of two persons have 0.5 at
most, demo patients, which are warped from one template, 0.65; copies that are rescaled, rounded,
noisy, padded or cropped 0.94 or more.
"""
BLOCK = 64
"""Scans that are compared at a time."""
OUTSIDE = -128
REACH = 127

Sketch = np.ndarray
"""`[16, 16, 16]` int8, -128 outside of the head."""


class Likeness(NamedTuple):
    """The sketches of a scan. origin: of the one in space, in cells."""

    box: Sketch
    space: Sketch
    origin: tuple[int, int, int]


PACKED = 12 + 2 * CELLS**3
"""Bytes of a packed likeness."""


def packed(scan: Likeness | None) -> np.ndarray:
    """Return a likeness as so many bytes; zeros for none."""
    if scan is None:
        return np.zeros(PACKED, np.uint8)
    return np.frombuffer(
        np.array(scan.origin, "<i4").tobytes() + scan.box.tobytes() + scan.space.tobytes(), np.uint8
    )


def unpacked(row: np.ndarray) -> Likeness | None:
    """Return the likeness that `packed` made bytes of."""
    if not row.any():
        return None
    x, y, z = np.frombuffer(row[:12].tobytes(), "<i4").tolist()
    box, space = row[12:].view(np.int8).reshape(2, CELLS, CELLS, CELLS)
    return Likeness(box, space, (x, y, z))


def to_text(scan: Likeness | None) -> str:
    """Return a likeness for JSON."""
    return base64.b64encode(packed(scan).tobytes()).decode("ascii") if scan else ""


def from_text(text: str) -> Likeness | None:
    """Return the likeness that `to_text` made text of."""
    return unpacked(np.frombuffer(base64.b64decode(text), np.uint8)) if text else None


def sketch(data: np.ndarray, inside: np.ndarray, affine: np.ndarray) -> Likeness | None:
    """Return what tells a scan from others; None if there is too little head. inside: the head."""
    ends = [_ends(inside, axis) for axis in range(3)]
    if min(high - low for low, high in ends) < THIN:
        return None
    edges = [np.linspace(low, high, CELLS + 1) for low, high in ends]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    start = np.linalg.solve(affine[:3, :3] / spacing, affine[:3, 3]) - spacing / 2
    middle = start + spacing * np.mean(ends, axis=1)
    origin = np.rint(middle / CELL_MM).astype(int) - CELLS // 2
    grid = [
        ((origin[i] + np.arange(CELLS + 1)) * CELL_MM - start[i]) / spacing[i] for i in range(3)
    ]
    box, space = (_detail(*_average(data, inside, each)) for each in (edges, grid))
    if np.count_nonzero(box != OUTSIDE) < FEWEST:
        return None
    return Likeness(box, space, (int(origin[0]), int(origin[1]), int(origin[2])))


def alike(ones: Sequence[Likeness], others: Sequence[Likeness]) -> Iterator[tuple[int, int, float]]:
    """Yield pairs, one of each, that are of one scan, and how far they agree."""
    for start in range(0, len(ones), BLOCK):
        for begin in range(0, len(others), BLOCK):
            some, more = ones[start : start + BLOCK], others[begin : begin + BLOCK]
            agreement = np.maximum(
                *(_correlations(*each) for each in (_boxes(some, more), _spaces(some, more)))
            )
            for i, j in np.argwhere(agreement >= ALIKE).tolist():
                yield start + i, begin + j, float(agreement[i, j])


def _ends(inside: np.ndarray, axis: int) -> tuple[float, float]:
    """Return the head's ends along an axis, in voxels, without the outer 1 %, which may be stray."""
    counts = np.count_nonzero(inside, axis=tuple(i for i in range(3) if i != axis))
    total = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    low, high = np.interp([0.01, 0.99], total, np.arange(len(total)))
    return float(low), float(high)


def _average(
    data: np.ndarray, inside: np.ndarray, edges: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the head in each cell, and the share of each cell that is head."""
    head = inside.astype(np.float32)
    total, share = np.where(inside, data, np.float32(0)), head
    for axis, each in enumerate(edges):
        weights = _overlap(data.shape[axis], each)
        total, share = (
            np.moveaxis(np.tensordot(weights, part, (1, axis)), 0, axis) for part in (total, share)
        )
    volume = float(np.prod([each[1] - each[0] for each in edges]))
    return total / np.maximum(share, 1e-6), share / volume


def _overlap(count: int, edges: np.ndarray) -> np.ndarray:
    """Return how much of each voxel lies in each cell, `[cell, voxel]`."""
    voxels = np.arange(count)
    low, high = np.maximum(edges[:-1, None], voxels), np.minimum(edges[1:, None], voxels + 1)
    return np.asarray(np.clip(high - low, 0, None), np.float32)


def _detail(mean: np.ndarray, share: np.ndarray) -> Sketch:
    """Return how far each cell inside of the head differs from those around it."""
    from scipy import ndimage  # it takes long to import, and what is remembered does without it

    inside = share > FULL
    weight = inside.astype(np.float32)
    around = ndimage.gaussian_filter(mean * weight, BLUR) / np.maximum(
        ndimage.gaussian_filter(weight, BLUR), 1e-6
    )
    detail = np.where(inside, mean - around, 0)
    spread = detail[inside].std() if inside.any() else 0.0
    if not spread:
        return np.full(mean.shape, OUTSIDE, np.int8)
    scaled = np.clip(np.rint(detail / spread * (REACH / 5)), -REACH, REACH)
    return np.asarray(np.where(inside, scaled, OUTSIDE), np.int8)


Sketches = np.ndarray
"""`[scan, cell]` int8."""


def _boxes(ones: Sequence[Likeness], others: Sequence[Likeness]) -> tuple[Sketches, Sketches]:
    one, other = (np.stack([each.box.ravel() for each in some]) for some in (ones, others))
    return one, other


def _spaces(ones: Sequence[Likeness], others: Sequence[Likeness]) -> tuple[Sketches, Sketches]:
    """Return sketches on a common grid, twice as wide, where cells of one place have one number."""
    centre = np.median([each.origin for each in (*ones, *others)], axis=0).astype(int)
    one, other = (
        np.stack([_placed(each, centre).ravel() for each in some]) for some in (ones, others)
    )
    return one, other


def _placed(scan: Likeness, centre: np.ndarray) -> Sketch:
    canvas = np.full((2 * CELLS,) * 3, OUTSIDE, np.int8)
    shift = np.array(scan.origin) - centre + CELLS // 2
    there = tuple(slice(max(0, s), max(0, min(2 * CELLS, s + CELLS))) for s in shift.tolist())
    here = tuple(slice(max(0, -s), max(0, min(CELLS, 2 * CELLS - s))) for s in shift.tolist())
    canvas[there] = scan.space[here]
    return canvas


def _correlations(ones: Sketches, others: Sketches) -> np.ndarray:
    """Return `[one, other]`, each over the cells that both have; 0 where these are too few."""
    (a, in_a), (b, in_b) = (_values(each) for each in (ones, others))
    count = in_a @ in_b.T
    safe = np.maximum(count, 1)
    sum_a, sum_b = a @ in_b.T, in_a @ b.T
    product = a @ b.T - sum_a * sum_b / safe
    square = (a**2 @ in_b.T - sum_a**2 / safe) * (in_a @ (b**2).T - sum_b**2 / safe)
    known = (count >= FEWEST) & (square > 0)
    return np.asarray(np.where(known, product / np.sqrt(np.where(known, square, 1)), 0))


def _values(sketches: Sketches) -> tuple[np.ndarray, np.ndarray]:
    """Return the values, 0 outside, and where they are."""
    inside = sketches != OUTSIDE
    return np.where(inside, sketches, 0).astype(np.float64), inside.astype(np.float64)
