"""Pairs as samples, from the folder that `medgen generate` or `medgen insert` wrote."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import attrs
import numpy as np

from medgen.api.tables import DataSettings, MaskSettings
from medgen.data.scans import layouts
from medgen.data.scans.manifest_lines import Entry, listed
from medgen.data.store.nifti_writer import WHITE
from medgen.data.store.spacing import SAME
from medgen.data.store.store import open_store
from medgen.errors import DataError, Problem
from medgen.evaluation import slice_file
from medgen.evaluation.samples import Samples, of_store
from medgen.evaluation.slice_file import ADVICE, SliceFile
from medgen.system.console import progress


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
    return attrs.evolve(of_store(store, rows, images, ("seg",), where), names=names)


def _lines(folder: Path, limit: int | None) -> list[Entry]:
    """The lines of the first pairs that are there, by index."""
    with listed(folder) as lines:
        rows = (lines[index] for index in lines.made())
        return list(islice((row for row in rows if not row.get("set_aside")), limit))


def _read(path: Path) -> SliceFile:
    """Read a file of a pair, scaled to [-1, 1]. Raises DataError if it is missing or neither slice
    nor volume.
    """
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
            expected = f"the first pair {grid.described}"
            what = f"{id}/{name} is {each.grid.described}, {expected}"
            raise DataError(Problem(folder, what, ADVICE))
