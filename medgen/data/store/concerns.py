"""What is odd about a cohort on its grid: sizes of heads, what does not fit, small lesions, masks
in the air.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medgen.data.grid import Grid
from medgen.errors import Problem, printable

ODD_SIZE = 0.25
"""By how much of the median a head is wider or narrower than people's differ: most likely a unit,
or a neck.
"""
AIR_TOLD, AIR_REFUSED = (0.05, 0.01), (0.5, 0.2)
"""Shares of a mask outside the head and far outside; it is told if one, refused if both are larger
than these.
"""
MOST_OF_A_HEAD = 0.5
"""Share of a head beyond which a mask is more likely one of the head or of tissue than one of
lesions.
"""
MOST = 0.9
"""Least share of the lost lesions that the sizes in a message show."""
MULTIPLE = 16
"""Image sizes in messages are multiples of it, as networks halve them a few times."""


class Figures(NamedTuple):
    """What is known of a cohort on its grid.

    lesions: how many there are and how many lie outside the grid, `[patient, mask, 2]`. lost:
    lesions too small, `[lesion, (mask, mm2 or mm3, mm per pixel that shows it)]`. air: of each mask, the
    shares of `Head.air`, `[patient, channel, 2]`. cut_off: mm of each head that do not fit. width:
    of each head, mm, NaN if unknown. covered: the share of the head that each mask covers,
    `[patient, channel]`, 0 for an image.
    """

    grid: Grid
    lesions: np.ndarray
    lost: np.ndarray
    air: np.ndarray
    cut_off: np.ndarray
    width: np.ndarray
    covered: np.ndarray


class Files(NamedTuple):
    """A patient's files, by channel, and the scan that tells where the head is."""

    channels: Sequence[Path]
    scans: Sequence[Path]


def lines(figures: Figures, files: Sequence[Files], masks: Iterable[str]) -> Iterator[str]:
    """What a training says of its data before it begins. masks: their names, in order."""
    for each, shares in zip(files, figures.air, strict=True):
        yield from map(str, airborne(shares, each))
    yield from map(str, odd_sizes(figures.width, [each.scans[:1] for each in files]))
    for what, fix in (
        *covering(figures.covered, files),
        *too_large(figures),
        *too_small(figures, masks),
    ):
        yield f"data: {what}. {fix}."


def faults(shares: Sequence[Sequence[float]] | np.ndarray, files: Files) -> list[Problem]:
    """Masks most of which lie outside the head. shares: of `Head.air`, by channel."""
    return [_air(*each) for each in _in_air(shares, files) if _refused(each[2])]


def airborne(shares: Sequence[Sequence[float]] | np.ndarray, files: Files) -> list[Problem]:
    """Masks a part of which lies outside the head."""
    told = [each for each in _in_air(shares, files) if np.greater(each[2], AIR_TOLD).any()]
    return [_air(*each) for each in told if not _refused(each[2])]


def odd_sizes(
    widths: Sequence[float] | np.ndarray, scans: Sequence[Sequence[Path]]
) -> Iterator[Problem]:
    """Heads whose size in mm no person has beside the others."""
    known = np.asarray(widths, float)
    if np.isnan(known).all():
        return
    median = float(np.nanmedian(known))
    for width, paths in zip(known, scans, strict=True):
        if paths and abs(width - median) > ODD_SIZE * median:
            what = f"shows a head {width:.0f} mm wide, where the median is {median:.0f} mm"
            yield Problem(
                paths[0],
                what,
                "Check its voxels' size and what it shows; all patients get one scale",
            )


def covering(covered: np.ndarray, files: Sequence[Files]) -> Iterator[tuple[str, str]]:
    """Masks of most of the head, as tissue classes are, in one line. covered: as in `Figures`."""
    shares = covered.max(axis=1, initial=0)
    told = np.flatnonzero(shares > MOST_OF_A_HEAD)
    if len(told):
        first = files[told[0]].channels[int(covered[told[0]].argmax())]
        what = (
            f"masks of {len(told)} of {len(shares)} patients cover more than {MOST_OF_A_HEAD:.0%} of the head, up to "
            f"{shares.max():.0%}, such as {printable(str(first))}"
        )
        yield (
            what,
            "If they are not of lesions, choose labels with data.masks, or other files with data.files",
        )


def too_large(figures: Figures) -> Iterator[tuple[str, str]]:
    """What does not fit into the grid."""
    square = f"the {'square' if len(figures.grid.shape) == 2 else 'box'} of {figures.grid}"
    cut = figures.cut_off[figures.cut_off > 0]
    if len(cut):
        least = min(figures.grid.shape)
        room = math.ceil(100 * (figures.grid.spacing[0] + 2 * cut.max() / least)) / 100
        what = f"{square} cuts up to {cut.max():.1f} mm off the heads of {len(cut)} of {len(figures.cut_off)} patients"
        yield what, f"Set data.spacing={room:g}, or 0 to have it chosen"
    outside, count = figures.lesions[..., 1].sum(), figures.lesions[..., 0].sum()
    if outside:
        yield f"{outside:,} of {count:,} lesions lie outside {square}", "Set data.spacing higher"


def too_small(figures: Figures, masks: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Lesions that fewer than half a pixel shows, by mask."""
    for number, name in enumerate(masks):
        lost = figures.lost[figures.lost[:, 0] == number]
        if not len(lost):
            continue
        areas, needs = lost[:, 1], np.sort(lost[:, 2])[::-1]
        spacing = float(needs[math.ceil(MOST * len(needs)) - 1])
        of_slices = len(figures.grid.shape) == 2
        where, unit = ("in their largest slice ", "mm2") if of_slices else ("", "mm3")
        what = (
            f"{len(lost):,} of {figures.lesions[:, number, 0].sum():,} lesions of {name} are too small for "
            f"{figures.grid} ({where}median {np.median(areas):.3g} {unit}, "
            f"largest {areas.max():.3g} {unit}) and are kept as the pixels that they cover most"
        )
        size, shown = _size(figures.grid, spacing), f"{np.mean(needs >= spacing):.0%}"
        advice = f"data.spacing={spacing:.4g} with data.image_size={size} would show {shown}"
        yield what, f"{advice} of them as they are"


def _size(grid: Grid, spacing: float) -> str:
    """Return `data.image_size` at which a grid has so many mm per pixel: a number, or a list."""
    sizes = [math.ceil(extent / spacing / MULTIPLE) * MULTIPLE for extent in grid.extent]
    return str(sizes[0]) if len({*sizes}) == 1 else f"[{','.join(map(str, sizes))}]"


def _in_air(
    shares: Sequence[Sequence[float]] | np.ndarray, files: Files
) -> Iterator[tuple[Path, Path, tuple[float, ...]]]:
    """The worst of the masks that are read from each file."""
    worst: dict[Path, tuple[float, ...]] = {}
    for path, each in zip(files.channels, shares, strict=True):
        worst[path] = max(worst.get(path, (0.0, 0.0)), tuple(map(float, each)))
    yield from ((path, scan, each) for path, each in worst.items() for scan in files.scans[:1])


def _refused(shares: Sequence[float]) -> bool:
    return bool(np.greater(shares, AIR_REFUSED).all())


def _air(path: Path, scan: Path, shares: Sequence[float]) -> Problem:
    beside = scan.name if scan.parent == path.parent else scan
    what = f"marks lesions where {beside} shows no head, {shares[0]:.0%} of their voxels"
    return Problem(
        path,
        what,
        "Check that both are of one patient and not flipped or shifted, or leave the patient out",
    )
