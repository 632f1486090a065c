"""The 348 or 540 bytes that come first: shape, type, place and scale of the voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np

from medgen.data.scans.nifti.problems import COPY, REWRITE, Defect, refusal
from medgen.data.scans.nifti.stream import NIFTI1, NIFTI2, foreign_format, size_and_byte_order

MAX_EXTENSIONS = 16 << 20
"""Bytes between header and voxels: more than extensions in use take (DICOM, CIFTI)."""


TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}


COMPLEX_TYPES = {32, 1792, 2048}


COLOUR_TYPES = {128, 2304}


def parse_header(start: bytes) -> nib.Nifti1Header:
    found = size_and_byte_order(start)
    if not found:
        raise foreign_format("NIfTI", start[:NIFTI2])
    size, order = found
    if len(start) < size:
        raise refusal(f"is cut off in its header, after {len(start)} of {size} bytes", COPY)
    header = (nib.Nifti1Header if size == NIFTI1 else nib.Nifti2Header)(
        start[:size], order, check=False
    )
    magic = header["magic"].item()
    if magic.startswith((b"ni1", b"ni2")):
        raise refusal("is one half of a .hdr/.img pair", "Convert it to a single .nii.gz")
    if not magic.startswith(b"n+1" if size == NIFTI1 else b"n+2"):
        raise refusal(f"is not NIfTI (magic {magic[:4]!r})", REWRITE)
    if header["pixdim"][0] == 0:  # the standard reads 0 as 1, nibabel refuses it
        header["pixdim"][0] = 1
    return header


def layout_problems(header: nib.Nifti1Header, max_voxels: int, most: int) -> list[Defect]:
    """Return whether shape, type, place and scale of the voxels make sense, in a file that holds
    `most` bytes at most.
    """
    unsized = [*shape_problems(header, max_voxels), *type_problems(header)]
    return [*(unsized or _length_problems(header, most)), *_scale_problems(header)]


def shape_problems(header: nib.Nifti1Header, max_voxels: int) -> Iterator[Defect]:
    ndim = int(header["dim"][0])
    dims = [int(size) for size in header["dim"][1 : ndim + 1]]
    shown, voxels = " x ".join(map(str, dims)), math.prod(dims)
    if not 1 <= ndim <= 7:
        yield Defect(f"has {ndim} dimensions by its header", REWRITE)
    elif min(dims) < 1:
        yield Defect(f"has an impossible shape, {shown}", REWRITE)
    elif max(dims[3:], default=1) > 1:
        yield Defect(
            f"is {ndim}-D ({shown}), {math.prod(dims[3:]):,} volumes",
            "Keep one 3-D volume per file",
        )
    elif ndim < 3:
        yield Defect(f"is {ndim}-D ({shown})", "Stack its slices into a 3-D volume")
    elif voxels > max_voxels:
        what = f"has {voxels:,} voxels ({shown}), more than {max_voxels:,}"
        yield Defect(what, "Crop it, or raise data.max_voxels")


def type_problems(header: nib.Nifti1Header) -> Iterator[Defect]:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code in COMPLEX_TYPES:
        yield Defect(f"has complex voxels (datatype {code})", "Save their magnitude")
    elif code in COLOUR_TYPES:
        yield Defect(f"has RGB voxels (datatype {code})", "Use the scan that was coloured")
    elif code not in TYPES:
        yield Defect(f"has datatype {code}, which is not read", "Convert it to float32")
    elif bits != 8 * int(TYPES[code][1]):
        yield Defect(f"has {bits} bits per voxel by its header, but datatype {code}", REWRITE)


def _length_problems(header: nib.Nifti1Header, most: int) -> Iterator[Defect]:
    first, offset = int(header.single_vox_offset), float(header["vox_offset"])
    if not (offset == 0 or (first <= offset <= first + MAX_EXTENSIONS and offset.is_integer())):
        yield Defect(f"has its voxels at byte {offset:.10g} by its header", REWRITE)
    elif (total := total_bytes(header)) > most:
        yield Defect(
            f"is cut off, it can hold {most:,} bytes and its header announces {total:,}", COPY
        )


def _scale_problems(header: nib.Nifti1Header) -> Iterator[Defect]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isnan(slope):
        yield Defect(
            "has scl_slope nan and is read as not scaled", "Check its intensities", fatal=False
        )
    elif slope and not np.isfinite([slope, inter]).all():
        yield Defect(
            f"has a scale factor that is not finite (scl_slope {slope:g}, scl_inter {inter:g})",
            REWRITE,
        )


def shape_of(header: nib.Nifti1Header) -> tuple[int, int, int]:
    x, y, z = (int(size) for size in header["dim"][1:4])
    return x, y, z


def dtype_of(header: nib.Nifti1Header) -> np.dtype[Any]:
    return np.dtype(f"{header.endianness}{TYPES[int(header['datatype'])]}")


def data_offset(header: nib.Nifti1Header) -> int:
    return int(header["vox_offset"]) or int(header.single_vox_offset)


def total_bytes(header: nib.Nifti1Header) -> int:
    """Return bytes of the whole file, inflated."""
    return data_offset(header) + math.prod(shape_of(header)) * dtype_of(header).itemsize


def slope_and_inter(header: nib.Nifti1Header) -> tuple[float, float]:
    """Apply the standard's rule: slope 0 means no scaling (some tools write NaN for it)."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    return (1.0, 0.0) if slope == 0 or np.isnan(slope) else (slope, inter)
