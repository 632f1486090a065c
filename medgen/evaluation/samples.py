"""Slices or volumes to compare, and real ones, read through the slice store."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from medgen.api.tables import DataSettings, image_size
from medgen.data.grid import Grid
from medgen.data.scans import layouts
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store
from medgen.errors import DataError, Problem
from medgen.evaluation.sources import Source
from medgen.system.console import progress

EVERY = "all"
"""In place of a split: those of training and of validation."""
NOUNS = {2: "slice", 3: "volume"}
"""What a sample is called, by its number of spatial axes."""


@attrs.frozen(eq=False)
class Samples:
    """Slices, or volumes, with their lesions. A person is never on two sides of a comparison.

    images: float32 `[sample, channel, *space]` in [-1, 1], the background -1; space is height and
    width of slices, x, y and z of volumes. masks: bool `[sample, *space]`, the lesion, all masks
    together. people: int64 `[sample]`; each pair is a person of its own. position: float32
    `[sample]`, 0 bottom to 1 top of the head, NaN where it is not known, as of volumes. names: what
    a report calls each, without names of people. channels: of the images. grid: of each sample.
    where: what was read.
    """

    images: np.ndarray
    masks: np.ndarray
    people: np.ndarray
    position: np.ndarray
    names: tuple[str, ...]
    channels: tuple[str, ...]
    grid: Grid
    where: str

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> Samples:
        """Return some of them: row numbers, repeated or not, or a bool for each."""
        rows = np.arange(len(self))[rows]
        arrays = {
            name: getattr(self, name)[rows] for name in ("images", "masks", "people", "position")
        }
        return attrs.evolve(self, names=tuple(self.names[row] for row in rows), **arrays)

    @property
    def axes(self) -> int:
        """Return the number of spatial axes: 2 of slices, 3 of volumes."""
        return self.masks.ndim - 1

    @property
    def noun(self) -> str:
        """Return what a report calls one of them."""
        return NOUNS[self.axes]

    @property
    def persons(self) -> np.ndarray:
        """The numbers of the persons, ascending."""
        return np.unique(self.people)


def by_person(samples: Samples, rng: np.random.Generator, share: float) -> tuple[Samples, Samples]:
    """Split by person: `share` of them, at least one, and the others, in an order that `rng` draws."""
    order = rng.permutation(samples.persons)
    count = min(max(round(share * len(order)), 1), len(order) - 1)
    first = np.isin(samples.people, order[:count])
    return samples.take(first), samples.take(~first)


def read_real(
    source: Source,
    split: str,
    like: Samples | None = None,
    lesions_only: bool = True,
    most: int | None = None,
) -> Samples:
    """Read the slices or volumes of a split (`train`, `val`, or `all` for both) through the store.

    like: pairs whose channels and grid are taken; without it, those of the source. lesions_only:
    those that show a lesion, as all pairs do. most: how many at most, evenly. Raises DataError.
    """
    data = attrs.evolve(source.data, lesion_only=lesions_only, crop="none")
    if like is not None:
        data = _on(data, like.grid)
    images = source.images if like is None else like.channels
    with progress("slice store", unit="patients") as bar:
        masks = layouts.mask_names(data)
        store = open_store(data, (*images, *source.masks), masks, bar.update)
    chosen = [store.select(each) for each in layouts.SPLITS if split in (each, EVERY)]
    rows = np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))
    if not len(rows):
        what = f"no {data.noun[:-1]} with a lesion is for {split}"
        raise DataError(Problem(source.name, what, "Choose another split, or add patients"))
    if most is not None and len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
    where = f"{source.name}, {split}, {data.noun}{' with a lesion' if lesions_only else ''}"
    return of_store(store, rows, images, source.masks, where)


def _on(data: DataSettings, grid: Grid) -> DataSettings:
    """Return what gives slices or volumes on a grid."""
    size, spacing, usual = grid.shape[0], grid.spacing[0], DataSettings()
    if len(grid.shape) == 2:
        axis = grid.axis or data.axis
        return attrs.evolve(data, dimensions=2, image_size=size, spacing=spacing, axis=axis)
    # a volume has less head in it than slices through its middle
    share = data.min_foreground if data.axes == 3 else usual.min_foreground
    return attrs.evolve(
        data,
        dimensions=3,
        image_size=image_size(grid.shape),
        spacing=spacing,
        axis=usual.axis,
        min_foreground=min(share, data.min_foreground),
    )


def of_store(
    store: SliceStore,
    rows: np.ndarray,
    images: Sequence[str],
    masks: Sequence[str],
    where: str,
) -> Samples:
    """Read rows of a store. where: what was read, in words."""
    return Samples(
        images=store.read(rows, images).astype(np.float32),
        masks=np.any(store.read(rows, masks) > 0, axis=1),
        people=store.person[store.patient[rows]],
        position=store.place()[rows],
        names=tuple(_named(store, row) for row in rows),
        channels=tuple(images),
        grid=store.grid,
        where=where,
    )


def _named(store: SliceStore, row: int) -> str:
    volume = len(store.grid.shape) == 3
    place = "" if volume else f", slice {store.position[row]}"
    return f"patient {store.patient[row]}{place}"
