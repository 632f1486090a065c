"""Figures of anatomy and intensity without weights: distances of generated from real slices or
volumes.

Every sample is measured by itself; `distributions.Wasserstein` compares the distributions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from medgen.evaluation.distributions import DRAWS, FigureMaker, Measured, together
from medgen.evaluation.figures import Figure
from medgen.evaluation.heads import Boxes, boxed, boxes_of, heads_of
from medgen.evaluation.intensities import (
    SMALL,
    count,
    distance,
    each_of,
    noise,
    quantiles,
    sharpness,
    spectrum,
    within,
)
from medgen.evaluation.samples import Samples

SECTION = "anatomy and intensity"
SYMMETRY, UNEXPLAINED = "mirror symmetry", "unexplained anatomy"
GRID, CELLS = 32, 8
"""Points and cells of a side of the head's box, stretched."""
INNER, RING, BRAIN = 0.35, (0.45, 0.75), 0.75
"""Radii of the middle of the head, where the ventricles are, of the brain around it, and of all of
the brain, of half the box's sides.
"""
COMPONENTS = 8
"""Principal components of real heads: with more the few real patients are learned by heart."""


def figures_of(
    real: Samples, other: Samples, synthetic: Samples, *, draws: int = DRAWS, seed: int = 0
) -> list[Figure]:
    """Return figures of anatomy and intensity. other: real samples of persons not in `real`."""
    maker = FigureMaker(SECTION, draws, seed)
    axis = mirror_axis(real)
    measured = [_measured(samples, axis) for samples in (real, other, synthetic)]
    people = [samples.people for samples in (real, other, synthetic)]
    figures = []
    for name in measured[0]:
        sets = [Measured(values[name], who) for values, who in zip(measured, people, strict=True)]
        if name in UNITS:
            everyone = together(*sets[:2])
            figures.append(maker.level(name, everyone, sets[2], unit=UNITS[name]))
        figures.append(maker.distance(name, *sets))
    return [*figures, _unexplained(maker, real, other, synthetic)]


def _measured(samples: Samples, axis: int) -> dict[str, np.ndarray]:
    """Measure all slices at once; volumes one by one, as their spectra fill the memory."""
    rows = [np.arange(len(samples))] if samples.axes == 2 else np.arange(len(samples))[:, None]
    parts = [dict(measures(samples.take(mine), axis)) for mine in rows]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _unexplained(maker: FigureMaker, real: Samples, other: Samples, synthetic: Samples) -> Figure:
    """Return the share of a brain's variance that no mixture of real brains explains.

    Turk and Pentland (1991, section 2.3), of brains brought to one size and blurred. Mottled
    textures are not in the space of real brains, a smooth but plausible one nearly is.
    """
    space = BrainSpace(_brains(real))
    sets = [
        Measured(space.unexplained(_brains(each))[:, None], each.people)
        for each in (other, synthetic)
    ]
    return maker.level(UNEXPLAINED, *sets, unit="share", better="low")


class BrainSpace:
    """The space that the first principal components of real brains span. brains: `[sample, pixel]`,
    of length 1.
    """

    def __init__(self, brains: np.ndarray):
        self._mean = brains.mean(0)
        self._axes = np.linalg.svd(brains - self._mean, full_matrices=False)[2][:COMPONENTS]

    def unexplained(self, brains: np.ndarray) -> np.ndarray:
        """Return `[sample]`: the squared distance from the space, of brains of length 1."""
        rest = brains - self._mean
        return np.asarray(((rest - (rest @ self._axes.T) @ self._axes) ** 2).sum(1))


def _brains(samples: Samples) -> np.ndarray:
    view = boxed(samples.images, boxes_of(heads_of(samples.images)), GRID)
    return _unit(_brain(view)).reshape(len(samples), -1)


def _brain(view: np.ndarray) -> np.ndarray:
    """Return the brain's pixels, `[sample, channel, pixel]`, blurred by one to leave out noise."""
    axes = view.ndim - 2
    blurred = ndimage.gaussian_filter(view, (0, 0, *(1,) * axes))
    return np.asarray(blurred[..., _radius(axes) < BRAIN])


def _radius(axes: int) -> np.ndarray:
    """Return each pixel's distance from the middle of the stretched box, 1 at mid-side."""
    return distance([(np.arange(GRID) + 0.5) / GRID * 2 - 1] * axes)


def _unit(brain: np.ndarray) -> np.ndarray:
    """Return each channel with a mean of 0, and all channels together with a length of 1."""
    centred = brain - brain.mean(2, keepdims=True)
    return np.asarray(centred / np.maximum(np.sqrt((centred**2).sum((1, 2), keepdims=True)), SMALL))


UNITS = {
    "head area": "cm2",
    "head volume": "cm3",
    SYMMETRY: "",
    "sharpness": "",
    "noise": "",
}
"""What is also shown as a median, for it says which way the generated ones differ."""


def measures(samples: Samples, axis: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the values, `[sample, column]`, of each property. axis: of mirror
    symmetry.
    """
    images = samples.images
    heads = heads_of(images)
    boxes = boxes_of(heads)
    view = _standardised(boxed(images, boxes, GRID), heads, images)
    size, in_cm = ("head area", 100) if samples.axes == 2 else ("head volume", 1000)
    yield size, count(heads)[:, None] * samples.grid.cell / in_cm
    yield "head shape", _shape(heads, boxes)
    yield SYMMETRY, _symmetry(view, axis)
    yield "middle of the head", _middle(view)
    yield "layout of the head", _cells(view)
    yield "intensities", quantiles(images, heads)
    yield "spectrum", spectrum(images)
    yield "sharpness", sharpness(images, heads)
    yield "noise", noise(images, heads)


def mirror_axis(real: Samples) -> int:
    """Return the axis whose flip real slices or volumes resemble most."""
    heads = heads_of(real.images)
    view = boxed(real.images, boxes_of(heads), GRID)
    return int(np.argmax([np.median(_symmetry(view, axis)) for axis in range(real.axes)]))


def _standardised(view: np.ndarray, heads: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Standardise stretched heads to mean 0 and deviation 1, so that only anatomy is left."""
    mean = each_of(within(images, heads), images)
    deviation = each_of(np.sqrt(within((images - mean) ** 2, heads)), images)
    return np.asarray((view - mean) / np.maximum(deviation, 1e-2))


def _shape(heads: np.ndarray, boxes: Boxes) -> np.ndarray:
    """Return the box's ratios of sides, as logarithms, and the share of the box that is head."""
    sides = (boxes.high - boxes.low).astype(np.float64)
    ratios = [np.log(sides[:, 0] / other) for other in sides.T[1:]]
    return np.stack([*ratios, count(heads) / sides.prod(1)], 1)


def _symmetry(view: np.ndarray, axis: int) -> np.ndarray:
    """Correlate the brain with its mirror image, `[sample, channel]`; 0 for a flat brain."""
    one, two = (
        each - each.mean(2, keepdims=True)
        for each in (_brain(view), _brain(np.flip(view, 2 + axis)))
    )
    own = (one**2).sum(2) * (two**2).sum(2)
    return np.asarray((one * two).sum(2) / np.sqrt(np.maximum(own, SMALL**2)))


def _middle(view: np.ndarray) -> np.ndarray:
    """Measure the head's middle: mean against the ring around it, deviation, darkest tenth."""
    radius = _radius(view.ndim - 2)
    inner, ring = view[..., radius < INNER], view[..., (radius > RING[0]) & (radius < RING[1])]
    return np.concatenate(
        [inner.mean(-1) - ring.mean(-1), inner.std(-1), np.quantile(inner, 0.1, axis=-1)], 1
    )


def _cells(view: np.ndarray) -> np.ndarray:
    """Return the mean of each cell, `[sample, channel * cell]`."""
    axes = view.ndim - 2
    parts = view.reshape(*view.shape[:2], *(CELLS, GRID // CELLS) * axes)
    cells = parts.mean(tuple(range(3, parts.ndim, 2)))
    return np.asarray(cells.reshape(len(view), -1))
