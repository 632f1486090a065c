"""`pairs.png`: the first pairs of a folder, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from medgen import pictures
from medgen.data.store.nifti_writer import WHITE
from medgen.evaluation import slice_file
from medgen.generation.manifest import Manifest, name_of

Array = np.ndarray[Any, np.dtype[Any]]


def picture(
    images: Sequence[str], masks: Sequence[str], manifest: Manifest, count: int = 32
) -> None:
    """Save the first pairs that are there: every image, then the last again with the masks
    outlined.
    """
    folders = (manifest.out / "train" / name_of(index) for index in manifest.entries.made())
    groups = [
        _tiles(folder, images, masks) for folder in islice(filter(Path.exists, folders), count)
    ]
    if groups:
        across = max(1, 12 // max(len(group) for group in groups))
        rows = [
            [*chain(*groups[start : start + across])] for start in range(0, len(groups), across)
        ]
        pictures.save(pictures.grid(rows), manifest.out / "pairs.png")


def _tiles(folder: Path, images: Sequence[str], masks: Sequence[str]) -> list[Array]:
    shown = [slice_file.read(folder / f"{name}.nii.gz").values * 2 / WHITE - 1 for name in images]
    marks = [slice_file.read(folder / f"{name}.nii.gz").values * 2 - 1 for name in masks]
    lesion = np.max(marks, axis=0) if marks else None
    tiles = [tile for image in shown for tile in pictures.tiles(image, shown=lesion)]
    return tiles + (pictures.tiles(shown[-1] if shown else None, marks) if marks else [])
