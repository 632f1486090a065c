"""How the files of a pair are written: on which grid, and whether masks are one label map."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medgen.api.tables import DataSettings
from medgen.data.grid import Grid
from medgen.data.store.nifti_writer import write_slice
from medgen.data.store.scan_grid import ScanGrid
from medgen.errors import Problem, RecipeError
from medgen.generation.label_map import LabelMap

Array = np.ndarray[Any, np.dtype[Any]]


class PairFormat(NamedTuple):
    """like: the scan whose grid volumes are brought to; None: the model's own. label_map: of masks
    that came from one file; None: a file for each mask.
    """

    like: ScanGrid | None = None
    label_map: LabelMap | None = None

    @classmethod
    def of(
        cls, grid: Grid, data: DataSettings, masks: Sequence[str], like: Path | None
    ) -> PairFormat:
        """Return how pairs are written. grid: the model's. data: what it was trained on. masks: that
        a pair has. like: a scan. Raises RecipeError for slices like a scan.
        """
        label_map = LabelMap.of(data, masks)
        if like is None:
            return cls(None, label_map)
        if len(grid.shape) < 3:
            what = "is given, but the models make slices"
            raise RecipeError(Problem("--like", what, "Leave it out, or give models of volumes"))
        return cls(ScanGrid.of(like, grid), label_map)

    def identity(self) -> dict[str, Any]:
        """Return what decides the bytes of files besides their values."""
        return {
            **({"like": self.like.digest} if self.like else {}),
            **({"label_map": self.label_map.name} if self.label_map else {}),
        }

    def masks(self, names: Sequence[str]) -> list[str]:
        """Return the files, without their ends, that hold masks of these names."""
        return [self.label_map.name] if self.label_map else list(names)

    def files(self, channels: Mapping[str, Array], masks: Container[str]) -> dict[str, Array]:
        """Return what is written, by the name of the file: images in [-1, 1], masks uint8."""
        files: dict[str, Array] = {}
        for name, values in channels.items():
            if name not in masks:
                files[name] = values
            elif self.label_map is None:
                files[name] = (values > 0).astype(np.uint8)
            elif self.label_map.name not in files:
                files[self.label_map.name] = self.label_map.merged(channels)
        return files

    def write(self, folder: Path, files: Mapping[str, Array], grid: Grid) -> None:
        """Write a pair's files into a folder. grid: the model's."""
        for name, values in files.items():
            path, is_mask = folder / f"{name}.nii.gz", values.dtype == np.uint8
            if self.like:
                self.like.write(path, values, is_mask)
            else:
                write_slice(path, values, is_mask, grid)


AS_MADE = PairFormat()
"""On the grid of the model, a file for each mask."""
