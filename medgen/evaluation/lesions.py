"""Lesions one by one: number, size, place in the head, shape, and how they stand out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import attrs
import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

from medgen.evaluation.distributions import DRAWS, FigureMaker, Measured, known_mean, together
from medgen.evaluation.figures import Figure
from medgen.evaluation.heads import boxes_of, heads_of
from medgen.evaluation.lesion_outside_head import OUTSIDE, beyond
from medgen.evaluation.samples import Samples

SECTION = "lesions"
RING = 2
"""Pixels around a lesion that are its surroundings."""


@attrs.frozen(eq=False)
class Lesions:
    """One row per lesion, NaN where it cannot be told.

    sample: int64 `[lesion]`, the slice or volume. size: mm2, or mm3. centre: `[lesion, axis]`, 0 to
    1 within the head's box. depth: distance of the centre from the head's edge, in the largest that
    any pixel has; below 0 outside. outside: share of the size beyond the head as it is without
    lesions. elongation: longest by shortest axis of the ellipse, or ellipsoid, with equal moments.
    solidity: size by that of the convex hull. contrast: `[lesion, channel]`, mean within less that
    of the surroundings, in deviations of the head's values. count: `[sample]`, lesions of each.
    """

    sample: np.ndarray
    size: np.ndarray
    centre: np.ndarray
    depth: np.ndarray
    outside: np.ndarray
    elongation: np.ndarray
    solidity: np.ndarray
    contrast: np.ndarray
    count: np.ndarray


def lesions_of(samples: Samples) -> Lesions:
    """Measure every lesion, a connected part of a mask."""
    heads = heads_of(samples.images)
    depths = _depths(heads)
    boxes = boxes_of(heads)
    rows = [
        (number, *_measure(part, mask, samples.images[number], heads[number], depths[number], away))
        for number, mask in enumerate(samples.masks)
        for away in [beyond(samples.images[number], mask)]
        for part in parts_of(mask)
    ]
    sample = np.array([row[0] for row in rows], np.int64)
    pixels, where, depth, outside, elongation, solidity, contrast = _columns(
        rows, samples.axes, samples.images.shape[1]
    )
    low, high = boxes.low[sample], boxes.high[sample]
    return Lesions(
        sample=sample,
        size=pixels * samples.grid.cell,
        centre=(where + 0.5 - low) / (high - low),
        depth=depth,
        outside=outside,
        elongation=elongation,
        solidity=solidity,
        contrast=contrast,
        count=np.bincount(sample, minlength=len(samples)),
    )


def parts_of(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the pixels of each lesion of one slice or volume, int64 `[pixel, axis]`; those that
    touch with a corner are of one lesion.
    """
    parts, count = ndimage.label(mask, _corners(mask.ndim))
    places = np.argwhere(parts)
    number = parts[tuple(places.T)]
    for lesion in range(1, count + 1):
        yield places[number == lesion]


def figures_of(
    real: Samples, other: Samples, synthetic: Samples, *, draws: int = DRAWS, seed: int = 0
) -> list[Figure]:
    """Return the figures of lesions. other: real samples of persons who are not in `real`."""
    maker = FigureMaker(SECTION, draws, seed)
    sets = (real, other, synthetic)
    found = [lesions_of(each) for each in sets]

    def measured(name: str) -> list[Measured]:
        return [_measured(each, samples, name) for each, samples in zip(found, sets, strict=True)]

    def levels(name: str) -> tuple[Measured, Measured]:
        *persons, generated = measured(name)
        return together(*persons), generated

    number = f"lesions per {real.noun}"
    figures = [maker.level(number, *levels("count"), statistic=known_mean)]
    figures.append(maker.distance(number, *measured("count")))
    for name, unit in (
        ("size", f"mm{real.axes}"),
        ("elongation", ""),
        ("solidity", ""),
        ("contrast", "SD of the head"),
    ):
        figures.append(maker.level(f"lesion {name}", *levels(name), unit=unit))
        figures.append(maker.distance(f"lesion {name}", *measured(name)))
    for name in ("depth", "centre"):
        figures.append(maker.distance(f"lesion {name} in the head", *measured(name)))
    share = [
        each._replace(values=(each.values > OUTSIDE).astype(np.float64))
        for each in levels("outside")
    ]
    return [
        *figures,
        maker.level(
            "lesions outside of the head", *share, better="low", statistic=known_mean, limits=(0, 1)
        ),
    ]


def _measured(lesions: Lesions, samples: Samples, name: str) -> Measured:
    """Return a property as columns, with the person of each row."""
    values = np.asarray(getattr(lesions, name), np.float64)
    people = samples.people if name == "count" else samples.people[lesions.sample]
    return Measured(values if values.ndim == 2 else values[:, None], people)


def _columns(
    rows: Sequence[tuple[object, ...]], axes: int, channels: int
) -> tuple[np.ndarray, ...]:
    """Return the columns behind the first of some rows, as arrays also where there is no row."""
    if rows:
        return tuple(np.array(column, np.float64) for column in list(zip(*rows, strict=True))[1:])
    shapes = ((0,), (0, axes), (0,), (0,), (0,), (0,), (0, channels))
    return tuple(np.zeros(shape) for shape in shapes)


def _measure(
    part: np.ndarray,
    mask: np.ndarray,
    image: np.ndarray,
    head: np.ndarray,
    depth: np.ndarray,
    away: np.ndarray,
) -> tuple[float, np.ndarray, float, float, float, float, np.ndarray]:
    """Return pixels, centre, depth, share outside, elongation, solidity and contrast of one lesion."""
    inside = tuple(part.T)
    centre = part.mean(0)
    nearest = tuple(np.rint(centre).astype(np.int64))
    return (
        float(len(part)),
        centre,
        float(depth[nearest]),
        float(np.mean(away[inside])),
        elongation(part),
        solidity(part),
        _contrast(image, inside, _ring(part, mask, head), head),
    )


def elongation(part: np.ndarray) -> float:
    """Return the longest by the shortest axis of the ellipse, or ellipsoid, with a lesion's second
    moments, of pixels as squares.
    """
    moments = (
        np.cov(part.T, bias=True) + np.eye(part.shape[1]) / 12
    )  # 1/12: the second moment of a pixel itself
    short, *_, long = np.linalg.eigvalsh(moments)
    return float(np.sqrt(long / short))


def solidity(part: np.ndarray) -> float:
    """Return a lesion's size by that of its convex hull, both of pixels as squares: 1 is convex."""
    axes = part.shape[1]
    corners = (part[:, None] + np.array([*product((0, 1), repeat=axes)])).reshape(-1, axes)
    return float(len(part) / ConvexHull(np.unique(corners, axis=0)).volume)


def _ring(part: np.ndarray, mask: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the head's pixels within `RING` of a lesion that are of no lesion."""
    own = np.zeros_like(mask)
    own[tuple(part.T)] = True
    around = ndimage.binary_dilation(own, _corners(mask.ndim), RING)
    return np.nonzero(around & ~mask & head)


def _corners(axes: int) -> np.ndarray:
    return np.ones((3,) * axes, bool)


def _contrast(
    image: np.ndarray,
    inside: tuple[np.ndarray, ...],
    ring: tuple[np.ndarray, ...],
    head: np.ndarray,
) -> np.ndarray:
    """Return `[channel]`; NaN without surroundings, or in a head of one value."""
    if not len(ring[0]):
        return np.full(len(image), np.nan)
    deviation = image[:, head].std(1)
    places: list[tuple[Any, ...]] = [(slice(None), *where) for where in (inside, ring)]
    within, beside = (image[where].mean(1) for where in places)
    difference = within - beside
    return np.asarray(difference / np.where(deviation > 0, deviation, np.nan))


def _depths(heads: np.ndarray) -> np.ndarray:
    """Return distances from the head's edge, positive inside, over the largest; NaN without a head."""
    depths = np.full(heads.shape, np.nan)
    for depth, head in zip(depths, heads, strict=True):
        if head.any():
            middle = (slice(1, -1),) * head.ndim
            within = ndimage.distance_transform_edt(np.pad(head, 1))[middle]
            depth[:] = (within - ndimage.distance_transform_edt(~head)) / within.max()
    return depths
