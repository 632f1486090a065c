"""The files of pairs, read a block at a time, so that any number of them takes the memory of one
block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medgen.data.grid import Grid
from medgen.data.scans.manifest_lines import listed
from medgen.data.store.nifti_writer import WHITE
from medgen.errors import DataError, Problem
from medgen.evaluation import slice_file
from medgen.evaluation.samples import Samples

Array = np.ndarray[Any, np.dtype[Any]]


class Block(NamedTuple):
    """Some pairs. images: float32 `[n, channel, h, w]` in [-1, 1]. masks: bool `[n, h, w]`, empty
    where there is none.

    channels: of the images. grid: of the slices.
    """

    images: Array
    masks: Array
    channels: tuple[str, ...]
    grid: Grid

    def samples(self, *names: str) -> Samples:
        """The same as samples, each a person of its own."""
        count = len(self.images)
        unknown = np.full(count, np.nan, np.float32)
        about = names, self.channels, self.grid, ", ".join(names[:1])
        return Samples(self.images, self.masks, np.arange(count), unknown, *about)


def are_volumes(out: Path) -> bool:
    """Tell whether the pairs in a folder are volumes. Raises DataError if it holds no pairs."""
    with listed(out) as lines:
        return (lines.header or {}).get("dimensions") == 3


def read(folders: Sequence[Path], names: Iterable[str]) -> Block:
    """Read pairs that hold the same files. Raises DataError for one that cannot be read or is of
    another size.
    """
    names = list(names)
    pairs = [
        {name: slice_file.read(folder / f"{name}.nii.gz") for name in names} for folder in folders
    ]
    first = pairs[0]
    channels = tuple(name for name in names if not first[name].is_mask)
    if not channels:
        raise DataError(
            Problem(folders[0], f"holds no image ({', '.join(names)})", "Give pairs with images")
        )
    shape = first[channels[0]].values.shape
    for folder, pair in zip(folders, pairs, strict=True):
        if odd := [name for name in names if pair[name].values.shape != shape]:
            what = f"is {pair[odd[0]].values.shape}, others are {shape}"
            raise DataError(
                Problem(f"{folder / odd[0]}.nii.gz", what, "Give the pairs of one model")
            )
    masks = [np.any([pair[name].values > 0 for name in names if pair[name].is_mask] or [np.zeros(shape, bool)], axis=0)
             for pair in pairs]  # fmt: skip
    images = np.stack([np.stack([pair[name].values for name in channels]) for pair in pairs])
    grid = first[channels[0]].grid
    return Block(images * np.float32(2 / WHITE) - 1, np.stack(masks), channels, grid)
