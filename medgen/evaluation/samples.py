"""Slices to compare: real ones through the slice store, pairs from their folder, both on the pairs'
grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import attrs
import numpy as np

from medgen.api.tables import DataSettings, MaskSettings
from medgen.data.grid import Grid
from medgen.data.scans import layouts
from medgen.data.scans.manifest_lines import Entry, listed
from medgen.data.store.nifti_writer import WHITE
from medgen.data.store.spacing import SAME
from medgen.data.store.store import SliceStore, open_store
from medgen.errors import DataError, Problem
from medgen.evaluation import slice_file
from medgen.evaluation.slice_file import ADVICE, SliceFile
from medgen.evaluation.sources import Source
from medgen.system.console import progress

EVERY = "all"
"""In place of a split: those of training and of validation."""


@attrs.frozen(eq=False)
class Samples:
    """Slices with their lesions. A person is never on two sides of a comparison.

    images: float32 `[sample, channel, height, width]` in [-1, 1], the background -1. masks: bool
    `[sample, height, width]`, the lesion, all masks together. people: int64 `[sample]`; each pair
    is a person of its own. position: float32 `[sample]`, 0 bottom to 1 top of the head, NaN where
    it is not known. names: what a report calls each, without names of people. channels: of the
    images. grid: of the slices. where: what was read.
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
    source: Source, split: str, like: Samples | None = None, lesions_only: bool = True
) -> Samples:
    """Read the slices of a split (`train`, `val`, or `all` for both) through the slice store.

    like: pairs whose channels and grid are taken; without it, those of the source. lesions_only:
    those that show a lesion, as all pairs do. Raises DataError.
    """
    data = attrs.evolve(source.data, lesion_only=lesions_only, crop="none")
    if like is not None:
        grid = like.grid
        data = attrs.evolve(
            data, image_size=grid.shape[0], spacing=grid.spacing[0], axis=grid.axis or data.axis
        )
    images = source.images if like is None else like.channels
    with progress("slice store", unit="patients") as bar:
        masks = layouts.mask_names(data)
        store = open_store(data, (*images, *source.masks), masks, bar.update)
    chosen = [store.select(each) for each in layouts.SPLITS if split in (each, EVERY)]
    rows = np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))
    if not len(rows):
        raise DataError(
            Problem(
                source.name,
                f"no slice with a lesion is for {split}",
                "Choose another split, or add patients",
            )
        )
    where = f"{source.name}, {split}, slices{' with a lesion' if lesions_only else ''}"
    return _slices(store, rows, images, source.masks, where)


def _slices(
    store: SliceStore,
    rows: np.ndarray,
    images: Sequence[str],
    masks: Sequence[str],
    where: str,
) -> Samples:
    return Samples(
        images=store.read(rows, images).astype(np.float32),
        masks=np.any(store.read(rows, masks) > 0, axis=1),
        people=store.person[store.patient[rows]],
        position=store.place()[rows],
        names=tuple(f"patient {store.patient[row]}, slice {store.position[row]}" for row in rows),
        channels=tuple(images),
        grid=store.grid,
        where=where,
    )


# Pairs


def _read_rows(folder: Path, rows: list[Entry]) -> list[dict[str, SliceFile]]:
    pairs = []
    with progress("pairs", len(rows), unit="read") as bar:
        for row in rows:
            place = folder / "train" / row["id"]
            pairs.append({name: _read(place / f"{name}.nii.gz") for name in row["files"]})
            bar.advance()
    return pairs


def read_pairs(folder: Path, limit: int | None = None) -> Samples:
    """Read the pairs that `manifest.jsonl` lists, or the first `limit` of them. Raises DataError.

    Of scans with new lesions: each slice that shows one, with all lesions in it; slices of one head
    are of one person, and as many scans as show it.
    """
    if images := _inserted(folder):
        return _read_inserted(folder, images, limit)
    rows = _lines(folder, limit)
    if not rows:
        raise DataError(Problem(folder / "manifest.jsonl", "lists no pair", ADVICE))
    pairs = _read_rows(folder, rows)
    first = pairs[0]
    channels = tuple(name for name, each in first.items() if not each.is_mask)
    masks = [name for name, each in first.items() if each.is_mask]
    if not channels or not masks:
        what = f"a pair is {', '.join(first) or 'empty'}, expected images and a mask"
        raise DataError(Problem(folder, what, ADVICE))
    for row, pair in zip(rows, pairs, strict=True):
        _require_alike(folder, row["id"], first, pair)
    return Samples(
        images=np.stack([np.stack([pair[name].values for name in channels]) for pair in pairs]),
        masks=np.stack(
            [np.any([pair[name].values > 0 for name in masks], axis=0) for pair in pairs]
        ),
        people=np.arange(len(pairs)),
        position=np.full(len(pairs), np.nan, np.float32),
        names=tuple(row["id"] for row in rows),
        channels=channels,
        grid=first[channels[0]].grid,
        where=f"{folder.name}, {len(pairs)} pairs",
    )


def _inserted(folder: Path) -> tuple[str, ...]:
    """The images of what `medgen insert` wrote; none if it is something else."""
    with listed(folder) as lines:
        header = lines.header or {}
        return (
            tuple(map(str, header["images"]))
            if header.get("insert") and any(True for _ in lines.made())
            else ()
        )


def _read_inserted(folder: Path, images: tuple[str, ...], limit: int | None) -> Samples:
    masks = {"seg": MaskSettings(file="seg"), "new": MaskSettings(file=layouts.NEW_LESIONS)}
    data = DataSettings(
        root=folder, layout="folders", masks=masks, lesion_only=True, val_fraction=0.0
    )
    with progress("slice store", unit="scans") as bar:
        store = open_store(data, (*images, *masks), frozenset(masks), bar.update)
    rows = store.select("train")
    rows = rows[
        [bool(store.read(rows[at : at + 1], ["new"]).max() > 0) for at in range(len(rows))]
    ][:limit]
    if not len(rows):
        raise DataError(Problem(folder, "no slice shows a new lesion", "Make more outputs"))
    where = f"{folder.name}, {len(rows)} slices with a new lesion"
    ids = [patient.id for patient in layouts.find(data, (*images, *masks))]
    names = tuple(f"{ids[store.patient[row]]}, slice {store.position[row]}" for row in rows)
    return attrs.evolve(_slices(store, rows, images, ("seg",), where), names=names)


def _lines(folder: Path, limit: int | None) -> list[Entry]:
    """The lines of the first pairs that are there, by index."""
    with listed(folder) as lines:
        rows = (lines[index] for index in lines.made())
        return list(islice((row for row in rows if not row.get("set_aside")), limit))


def _read(path: Path) -> SliceFile:
    """Read a file of a pair, scaled to [-1, 1]. Raises DataError if it is missing or no slice."""
    file = slice_file.read(path)
    values = file.values * 2 - 1 if file.is_mask else file.values * 2 / WHITE - 1
    return file._replace(values=values)


def _require_alike(
    folder: Path, id: str, first: dict[str, SliceFile], pair: dict[str, SliceFile]
) -> None:
    """Raise DataError unless a pair has the channels and the grid of the first one."""
    grid = next(iter(first.values())).grid
    if pair.keys() != first.keys():
        raise DataError(
            Problem(folder, f"{id} is {', '.join(pair)}, the first pair {', '.join(first)}", ADVICE)
        )
    for name, each in pair.items():
        if not each.grid.matches(grid, SAME):
            expected = f"the first pair {grid}, {grid.axis}"
            what = f"{id}/{name} is {each.grid}, {each.grid.axis}, {expected}"
            raise DataError(Problem(folder, what, ADVICE))
