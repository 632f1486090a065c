"""One file of a pair: a slice as `medgen generate` stored it."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from medgen.data.grid import Grid
from medgen.errors import DataError, Problem

ADVICE = "Give the folder that `medgen generate` wrote"


class SliceFile(NamedTuple):
    """A stored slice. values: float32 `[h, w]`, 0 to WHITE, or 0 and 1 of a mask."""

    values: np.ndarray[Any, np.dtype[Any]]
    is_mask: bool
    grid: Grid


def read(path: Path) -> SliceFile:
    """Read a file of a pair. Raises DataError if it is missing, damaged or no slice."""
    try:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
        data = np.asarray(image.dataobj)
    except FileNotFoundError:
        raise DataError(
            Problem(path, "is not there", "Run the same `medgen generate` again, which makes it")
        ) from None
    except (OSError, EOFError, zlib.error, ValueError, ImageFileError) as error:
        raise DataError(
            Problem(path, f"cannot be read ({str(error).splitlines()[0]})", "Make it again")
        ) from None
    flat = [number for number, count in enumerate(data.shape) if count == 1]
    if data.ndim == 3 and not flat:
        what = f"is a volume of {' x '.join(map(str, data.shape))} voxels, and pairs are judged as slices"
        raise DataError(Problem(path, what, "Give pairs of a model with data.dimensions = 2"))
    if data.ndim != 3 or len(flat) != 1:
        raise DataError(
            Problem(path, f"has shape {data.shape}, expected a volume of one slice", ADVICE)
        )
    plane = data.squeeze(flat[0]).astype(np.float32)
    spacing = np.delete(image.header.get_zooms()[:3], flat[0]).astype(float).tolist()
    grid = Grid(plane.shape, tuple(spacing), np.delete(image.affine, flat[0], axis=1))
    return SliceFile(plane, data.dtype == np.uint8, grid)
