"""Volumes on the grid and in the orientation of a scan, and back on the grid of the model that made
them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel import orientations

from medgen.api.tables import DataSettings
from medgen.data.grid import Grid
from medgen.data.scans.nifti import gate
from medgen.data.scans.nifti.geometry import best_affine
from medgen.data.scans.nifti.stream import digest
from medgen.data.store.head_finding import locate
from medgen.data.store.mask_grid import place
from medgen.data.store.nifti_writer import encoded, write_volume
from medgen.data.store.plane import Plane
from medgen.data.store.resample import resample, weights
from medgen.errors import DataError, Problem

Array = np.ndarray[Any, np.dtype[Any]]
COMMENT = 6
"""NIfTI's code of an extension that is a comment."""


class Origin(NamedTuple):
    """Where a model's grid lies in a scan. voxel: mm along the scan's canonical axes. middle: where
    the grid's middle lies, voxels from the scan's first faces.
    """

    model: Grid
    voxel: tuple[float, ...]
    middle: tuple[float, ...]

    def note(self) -> bytes:
        """Return all of it as text for a file's header."""
        grid = {"shape": self.model.shape, "spacing": self.model.spacing[0]}
        return json.dumps({"medgen": {**grid, "voxel": self.voxel, "middle": self.middle}}).encode()

    @classmethod
    def of(cls, header: nib.Nifti1Header) -> Origin | None:
        """Read what `note` wrote; None for the file of another."""
        for each in header.extensions:
            if each.get_code() == COMMENT and each.get_content().startswith(b'{"medgen"'):
                said = json.loads(each.get_content().rstrip(b"\0"))["medgen"]
                model = Grid.of_volumes(tuple(said["shape"]), said["spacing"])
                return cls(model, tuple(said["voxel"]), tuple(said["middle"]))
        return None

    def back(self, values: Array, is_mask: bool) -> Array:
        """Bring a file's volume to the model's grid, float32. values: `[x, y, z]`, canonical, 0 in
        air, or above 0 in a mask, which becomes 0 and 1.
        """
        if is_mask:
            placed = place(values[None] > 0, self.voxel, self.model, self.middle)
            return np.asarray(placed.masks[0], np.float32)
        model = self.model
        sides = zip(values.shape, self.voxel, model.extent, model.shape, self.middle, strict=True)
        along = [weights(*each) for each in sides]
        return np.asarray(resample(values[None].astype(np.float32), *along)[0])


class ScanGrid(NamedTuple):
    """The grid of a scan. shape, affine: of its voxels along canonical axes. orientation: nibabel's,
    as they are stored. digest: of the file.
    """

    origin: Origin
    shape: tuple[int, ...]
    affine: Array
    orientation: Array
    digest: str

    @classmethod
    def of(cls, path: Path, model: Grid) -> ScanGrid:
        """Read where a scan's voxels are, and lay a model's grid around its head, as a volume store
        does, so that voxels of one size lie on each other. Raises DataError.
        """
        raw = gate.read_raw(path)
        shape = raw.volume.data.shape
        if 1 in shape:
            what = f"is a single slice ({' x '.join(map(str, shape))} voxels)"
            raise DataError(Problem(path, what, "Give a volume"))
        x, y, z = model.shape
        like = DataSettings(dimensions=3, image_size=(x, y, z), spacing=model.spacing[0])
        sides = Plane.of(raw.volume, like, locate(raw.volume)).sides
        voxel, middle = (tuple(map(float, each)) for each in zip(*sides, strict=True))
        stored = orientations.io_orientation(best_affine(raw.header))
        return cls(Origin(model, voxel, middle), shape, raw.volume.affine, stored, digest(path))

    def write(self, path: Path, values: Array, is_mask: bool) -> None:
        """Write a volume of the model's grid, `[x, y, z]` in [-1, 1], or of a mask whole numbers, as
        labels: 0 where there is none. What lies beyond the scan is cut off.
        """
        made = self._labels(values) if is_mask else encoded(self._image(values))
        back = orientations.ornt_transform(
            orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(self._axes)
        )
        affine = self.affine @ orientations.inv_ornt_aff(back, self.shape)
        stored = orientations.apply_orientation(made, back)
        write_volume(path, stored, affine, self.origin.note())

    @property
    def _axes(self) -> tuple[str, ...]:
        return tuple(orientations.ornt2axcodes(self.orientation))

    def _centres(self) -> list[float]:
        """Return where the scan's middle lies, points of the model's grid from its first faces."""
        model = self.origin.model
        each = zip(
            model.shape, model.spacing, self.shape, *self.origin[1:], strict=True
        )  # points and mm of the model, voxels and mm of the scan, the grid's middle in it
        return [
            points / 2 + (count / 2 - middle) * mm / spacing
            for points, spacing, count, mm, middle in each
        ]

    def _image(self, values: Array) -> Array:
        model, voxel = self.origin.model, self.origin.voxel
        sides = zip(model.shape, model.spacing, self.shape, voxel, self._centres(), strict=True)
        along = [
            weights(points, spacing, count * mm, count, centre)
            for points, spacing, count, mm, centre in sides
        ]
        return np.asarray(resample(values[None].astype(np.float32) + 1, *along)[0] - 1)

    def _labels(self, values: Array) -> Array:
        """Bring labels to the scan's voxels: each lesion keeps its volume, at least a voxel of it."""
        numbers = [int(label) for label in np.unique(values[values > 0])]
        masks = np.stack([values == label for label in numbers] or [values > 0])
        grid = Grid(self.shape, self.origin.voxel, self.affine)
        placed = place(masks, self.origin.model.spacing, grid, self._centres(), least=1).masks
        weighted = [label * each for label, each in zip(numbers, placed, strict=False)]
        return np.asarray(sum(weighted, np.zeros(self.shape, np.uint8)), np.uint8)
