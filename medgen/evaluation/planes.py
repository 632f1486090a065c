"""Volumes as slices of three planes, for what looks at slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import numpy as np
import torch

from medgen.api.interfaces import Extractor
from medgen.api.measures import FeaturesSettings
from medgen.api.tables import AXES
from medgen.data.grid import Grid
from medgen.evaluation.comparison import Comparison
from medgen.evaluation.heads import boxes_of, heads_of
from medgen.evaluation.samples import Samples

SLICES = 8
"""Slices of each plane that stand for a volume, evenly from one end of its head to the other."""


def places(images: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Return int64 `[sample, count]`: where slices across an axis lie evenly in each head.

    images: volumes `[sample, channel, x, y, z]`. axis: of space.
    """
    boxes = boxes_of(heads_of(images))
    low, high = boxes.low[:, axis, None], boxes.high[:, axis, None]
    return np.asarray((low + (high - low) * shares(count)).astype(np.int64))


def shares(count: int) -> np.ndarray:
    """Return the places of slices in a head, 0 to 1, `[count]`."""
    return np.asarray((np.arange(count) + 0.5) / count)


def taken(volumes: np.ndarray, axis: int, places: np.ndarray) -> np.ndarray:
    """Return slices `[sample * count, ...]` of volumes `[sample, ..., x, y, z]`, those of one
    together.

    places: `[sample, count]`, along an axis of space.
    """
    across = axis - 3
    cut = [
        np.moveaxis(each.take(at, across), across, 0)
        for each, at in zip(volumes, places, strict=True)
    ]
    return (
        np.concatenate(cut)
        if cut
        else np.zeros((0, *np.delete(volumes.shape[1:], across)), volumes.dtype)
    )


def cut(samples: Samples, axis: int, count: int = SLICES) -> Samples:
    """Return `count` slices of each volume as samples of the same person."""
    at, grid = places(samples.images, axis, count), samples.grid
    shape, spacing = (np.delete(each, axis).tolist() for each in (grid.shape, grid.spacing))
    rows = zip(np.repeat(samples.names, count).tolist(), at.ravel().tolist(), strict=True)
    return Samples(
        images=taken(samples.images, axis, at),
        masks=taken(samples.masks, axis, at),
        people=np.repeat(samples.people, count),
        position=np.tile(shares(count).astype(np.float32), len(samples)),
        names=tuple(f"{name}, {AXES[axis]} slice {place}" for name, place in rows),
        channels=samples.channels,
        grid=Grid(tuple(shape), tuple(spacing), np.delete(grid.affine, axis, axis=1)),
        where=f"{samples.where}, {AXES[axis]} slices",
    )


def views(comparison: Comparison, count: int = SLICES) -> Iterator[tuple[str, Comparison]]:
    """Yield what is compared as slices, and what to add to the names of figures: slices as they
    are; of volumes each plane.

    Folds keep their volumes, as they say who is on which side.
    """
    if comparison.made.axes == 2:
        yield "", comparison
        return
    for axis, plane in enumerate(AXES):
        made, real = (cut(each, axis, count) for each in (comparison.made, comparison.real))
        yield f", {plane} slices", attrs.evolve(comparison, made=made, real=real)


def extractor(settings: FeaturesSettings, axes: int, device: torch.device) -> Extractor:
    """Build an extractor of slices, or one of each plane for volumes."""
    if axes == 2:
        return settings.build(device)
    return PlanesExtractor(lambda: settings.build(device))


class PlanesExtractor(Extractor):
    """Features of volumes: those of their slices, averaged over each plane, of three planes.

    A plane has an extractor of its own, as a place in the head means something else in each.
    """

    hash = ""

    def __init__(self, build: Callable[[], Extractor]):
        self._extractors = [build() for _ in AXES]
        self._sign()

    def fit(self, images: np.ndarray, people: np.ndarray, position: np.ndarray, seed: int) -> None:
        place = np.tile(shares(SLICES).astype(np.float32), len(images))
        for axis, each in enumerate(self._extractors):
            each.fit(self._slices(images, axis), np.repeat(people, SLICES), place, seed)
        self._sign()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        found = [each(self._slices(images, axis)) for axis, each in enumerate(self._extractors)]
        means = [each.reshape(len(images), SLICES, -1).mean(1) for each in found]
        return np.concatenate(means, 1)

    def _slices(self, images: np.ndarray, axis: int) -> np.ndarray:
        return taken(images, axis, places(images, axis, SLICES))

    def _sign(self) -> None:
        self.hash = "/".join(dict.fromkeys(each.hash for each in self._extractors))
