"""Generated slices and volumes as NIfTI files with headers of their own: nothing of a source scan is
copied.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medgen.data.grid import Grid

WHITE = 1000
"""Images are written as int16 from 0 (-1 inside medgen) to this (+1)."""
MARK = b"synthetic"
"""The description in the header of what medgen has written."""


def write_slice(path: Path, values: np.ndarray[Any, Any], is_mask: bool, grid: Grid) -> None:
    """Write a volume `[x, y, z]` in [-1, 1], or a slice `[x, y]` as a volume of one slice, RAS;
    masks as 0/1, or as the labels that uint8 values are. Same values, same bytes.
    """
    labels = values if values.dtype == np.uint8 else (values > 0).astype(np.uint8)
    data = labels if is_mask else encoded(values)
    volume = grid.as_volume()
    write_volume(path, data.reshape(volume.shape), volume.affine)


def write_volume(
    path: Path, data: np.ndarray[Any, Any], affine: np.ndarray[Any, Any], note: bytes = b""
) -> None:
    """Write a volume as it is, int16 of `encoded` or uint8 of a mask. note: a comment, kept as an
    extension of the header.
    """
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = MARK
    if note:
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", note))
    path.write_bytes(packed(image.to_bytes()))


def encoded(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return int16 from 0 to `WHITE` of an image in [-1, 1]."""
    return np.asarray(np.rint((values + 1) * WHITE / 2).astype(np.int16))


def as_written(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what `read_slice` gives of an image that `write_slice` wrote, float32 in [-1, 1]."""
    return np.asarray(encoded(values).astype(np.float32) * 2 / WHITE - 1)


def is_written(header: nib.Nifti1Header, stored: np.ndarray[Any, Any]) -> bool:
    """True for an image that `write_slice` wrote, whose values need no scaling but its own."""
    mine = bytes(header["descrip"]).rstrip(b"\0") == MARK and stored.dtype == np.int16
    return mine and int(stored.min()) >= 0 and int(stored.max()) <= WHITE


def packed(data: bytes, level: int = 9) -> bytes:
    """gzip (RFC 1952) without a time and a name; written out here, as Python's own header differs
    between versions.

    level: of compression, 1 is the quickest.
    """
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    header = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x02\xff"
    return (
        header
        + deflate.compress(data)
        + deflate.flush()
        + struct.pack("<II", zlib.crc32(data), len(data))
    )


def read_slice(path: Path, is_mask: bool = False) -> np.ndarray[Any, Any]:
    """A slice or volume that `write_slice` wrote: `[x, y]` or `[x, y, z]` in [-1, 1]."""
    data = np.asarray(
        nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes())).dataobj, np.float32
    )
    plane = data.reshape([side for side in data.shape if side > 1])
    return plane * 2 - 1 if is_mask else plane * 2 / WHITE - 1
