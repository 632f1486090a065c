"""Files of a host with new lesions: its own voxels, type, scale and place, bit for bit, but where a
lesion was put.
"""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

from medgen.data.scans.nifti.gate import Raw
from medgen.data.scans.nifti.geometry import best_affine
from medgen.data.scans.nifti.header import slope_and_inter
from medgen.data.store.nifti_writer import MARK, is_written, packed

Array = np.ndarray[Any, np.dtype[Any]]

LEVEL = 4
"""Of compression: half the time of the best, and a fiftieth more bytes."""
TEXTS = ("descrip", "aux_file", "db_name", "data_type", "intent_name")
"""Fields of a header that are free text, and may name a patient."""


def image_bytes(raw: Raw, values: Array, changed: Array) -> bytes:
    """Give the bytes of a host's file (.nii.gz) with other values in some voxels.

    values: float32 `[x, y, z]`, canonical, in the units of the scan. changed: bool, where they
    count. All other voxels keep the bits that are stored; the header keeps type, scale, size and
    place, and loses its free text and extensions.
    """
    stored = raw.voxels.copy(order="F")
    canonical(stored, raw.header)[changed] = _stored(values[changed], raw.header, stored.dtype)
    header = _plain(raw.header)
    if is_written(raw.header, raw.voxels):
        header["descrip"] = MARK
    return _packed(header, stored)


def mask_bytes(raw: Raw, mask: Array) -> bytes:
    """Return the bytes of a mask (.nii.gz), `[x, y, z]`, canonical, on a host's grid: uint8 of bool, and
    of whole numbers up to 255; of larger ones uint16.
    """
    dtype = np.uint8 if mask.max(initial=0) <= np.iinfo(np.uint8).max else np.uint16
    stored = np.zeros(raw.voxels.shape, dtype, order="F")
    canonical(stored, raw.header)[...] = mask
    header = _plain(raw.header)
    header.set_data_dtype(dtype)
    for name in ("scl_slope", "scl_inter", "cal_min", "cal_max"):
        header[name] = 0
    return _packed(header, stored)


def canonical(stored: Array, header: nib.Nifti1Header) -> Array:
    """Return a view of stored voxels in canonical orientation."""
    return np.asarray(
        nib.orientations.apply_orientation(
            stored, nib.orientations.io_orientation(best_affine(header))
        )
    )


def _stored(values: Array, header: nib.Nifti1Header, dtype: np.dtype[Any]) -> Array:
    """Return the nearest values that a file of this type and scale can hold."""
    slope, inter = slope_and_inter(header)
    unscaled = (values.astype(np.float64) - inter) / slope
    if dtype.kind == "f":
        return unscaled.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(unscaled), limits.min, limits.max).astype(dtype)


def _plain(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """Return a copy without free text."""
    made = header.copy()
    for name in TEXTS:
        if name in made.keys():  # noqa: SIM118  # a header is no dict, and `in` asks something else of it
            made[name] = b""
    made["vox_offset"] = made.single_vox_offset
    return made


def _packed(header: nib.Nifti1Header, stored: Array) -> bytes:
    no_extensions = bytes(4)
    return packed(header.binaryblock + no_extensions + stored.tobytes(order="F"), LEVEL)
