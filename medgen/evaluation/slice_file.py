"""One file of a pair: a slice or a volume as `medgen generate` stored it."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from medgen.data.grid import Grid
from medgen.data.store.scan_grid import Origin
from medgen.errors import DataError, Problem

ADVICE = "Give the folder that `medgen generate` wrote"
EQUAL = 1e-3
"""Of the spacing, by which the sides of a voxel may differ: what a header rounds."""


class SliceFile(NamedTuple):
    """A stored slice `[h, w]` or volume `[x, y, z]`. values: float32, 0 to WHITE, or 0 and 1 of a
    mask, or its labels. A volume on the grid of a scan is brought back to that of the model.
    """

    values: np.ndarray[Any, np.dtype[Any]]
    is_mask: bool
    grid: Grid


def read(path: Path) -> SliceFile:
    """Read a file of a pair. Raises DataError if it is missing, damaged or neither slice nor
    volume, or a volume of unequal spacings, which no model makes.
    """
    try:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
        data, origin = np.asarray(image.dataobj), Origin.of(image.header)
    except FileNotFoundError:
        raise DataError(
            Problem(path, "is not there", "Run the same `medgen generate` again, which makes it")
        ) from None
    except (OSError, EOFError, zlib.error, ValueError, ImageFileError, LookupError) as error:
        raise DataError(
            Problem(path, f"cannot be read ({str(error).splitlines()[0]})", "Make it again")
        ) from None
    if origin is not None:
        values = origin.back(
            np.asarray(nib.as_closest_canonical(image).dataobj), data.dtype == np.uint8
        )
        return SliceFile(values, data.dtype == np.uint8, origin.model)
    flat = [number for number, count in enumerate(data.shape) if count == 1]
    if data.ndim != 3 or len(flat) > 1:
        raise DataError(
            Problem(path, f"has shape {data.shape}, expected a slice or a volume", ADVICE)
        )
    values = data.squeeze(tuple(flat)).astype(np.float32)
    spacing = np.delete(image.header.get_zooms()[:3], flat).astype(float).tolist()
    grid = Grid(values.shape, tuple(spacing), np.delete(image.affine, flat, axis=1))
    if values.ndim == 3 and not np.allclose(spacing, spacing[0], rtol=EQUAL):
        what = f"has voxels of {' x '.join(f'{mm:g}' for mm in spacing)} mm"
        raise DataError(Problem(path, f"{what}, expected equal sides", ADVICE))
    return SliceFile(values, data.dtype == np.uint8, grid)
