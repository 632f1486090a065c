"""Made-up volumes as they should not be: files that are damaged, lie or are odd, each with what the gate must say."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

TINY = (6, 7, 8)


class Case(NamedTuple):
    """A file, and words that the fault (or the warning) must contain."""

    path: Path
    words: str
    mask: bool = False
    bomb: bool = False
    """It announces or inflates to far more than it should cost to refuse it."""


def made_voxels(dtype: str = "f4", shape: tuple[int, ...] = TINY) -> np.ndarray:
    """Values 1 to 99, no two slices alike."""
    return np.random.default_rng(0).integers(1, 100, shape).astype(dtype)


def nifti(
    data: np.ndarray | None = None,
    affine: np.ndarray | None = None,
    version: int = 1,
    order: str = "<",
    **fields: Any,
) -> bytes:
    """A volume as the bytes of a .nii, fields of its header set to anything (`pixdim=[...]` sets the first few)."""
    data = made_voxels() if data is None else data
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    header = kind.header_class(endianness=order)
    header.set_data_dtype(data.dtype)
    image = kind(data, np.eye(4) if affine is None else affine, header)
    if "qform" in fields:
        image.set_qform(fields.pop("qform"), code=1)
    raw = bytearray(image.to_bytes())
    header = np.ndarray((), kind.header_class.template_dtype.newbyteorder(order), raw)
    for name, value in fields.items():
        if header[name].ndim:
            header[name][: len(value)] = value
        else:
            header[name] = value
    return bytes(raw)


def zipped(raw: bytes) -> bytes:
    return gzip.compress(raw, 6, mtime=0)


def flipped(raw: bytes, bit: int) -> bytes:
    """`raw` with one bit changed; bits below 0 count from the end."""
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def turned(degrees: float, shear: float = 0.0) -> np.ndarray:
    """An affine turned about z, or sheared in x."""
    angle = np.radians(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle) + shear], [np.sin(angle), np.cos(angle)]]
    return affine


def changed(index: tuple[int, int, int], value: float, dtype: str = "f4") -> np.ndarray:
    """The voxels with one of them set."""
    data = made_voxels(dtype)
    data[index] = value
    return data


def faulty(folder: Path) -> list[Case]:
    """Files that must be refused."""
    cases = []
    for make in (damaged, lying, valued, misplaced, unusual):
        for name, content, words in make():
            cases.append(_write(folder / name, content, words))
    for name, content, words in unlabelled():
        cases.append(_write(folder / name, content, words)._replace(mask=True))
    cases += [
        _write(folder / name, content, words)._replace(bomb=True)
        for name, content, words in bombs()
    ]
    return cases + list(_not_files(folder))


def odd(folder: Path) -> list[Case]:
    """Files that must be read, with a warning."""
    return [_write(folder / name, content, words) for name, content, words in warned()]


def _write(path: Path, content: bytes, words: str) -> Case:
    path.write_bytes(content)
    return Case(path, words)


Rows = Iterator[tuple[str, bytes, str]]


def damaged() -> Rows:
    raw = nifti()
    gz = zipped(raw)
    yield "empty.nii.gz", b"", "is empty"
    yield "empty.nii", b"", "is empty"
    yield "html.nii.gz", b"<!DOCTYPE html><html><body>Please log in</body></html>", "is a web page"
    yield "html.nii", b"\n<html><body>403</body></html>", "is a web page"
    yield (
        "lfs.nii.gz",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        "is a git-lfs pointer",
    )
    yield (
        "lfs.nii",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        "is a git-lfs pointer",
    )
    yield "zeros.nii.gz", bytes(5000), "starts with zeros only"
    yield "zeros.nii", bytes(5000), "starts with zeros only"
    yield "zip.nii.gz", b"PK\x03\x04" + bytes(50), "is not gzip (starts with bytes 50 4b 03 04)"
    yield "text.nii", b"0 0 0 0 0", "is not NIfTI (starts with bytes 30 20 30 20)"
    yield "short.nii", b"\x5c\x01", "is cut off in its header, after 2 of 348 bytes"
    yield "raw.nii.gz", raw, "is not gzip, but named .gz"
    yield "zipped.nii", gz, "is gzip, but named .nii"
    yield "twice.nii.gz", zipped(gz), "is not NIfTI (starts with bytes 1f 8b"
    yield "scan.mgz", gz, "is not named .nii or .nii.gz"
    yield "crc.nii.gz", flipped(gz, -64), "gzip checksum mismatch (file damaged)"
    yield "length.nii.gz", flipped(gz, -1), "gzip checksum mismatch (file damaged)"
    yield "block.nii.gz", gz[:10] + b"\x07" + gz[11:], "gzip stream cannot be inflated"
    yield "method.nii.gz", gz[:2] + b"\x07" + gz[3:], "gzip stream cannot be inflated"
    yield "cut1.nii.gz", gz[:-1], "is cut off, its gzip stream does not end"
    yield "cut8.nii.gz", gz[:-8], "is cut off, its gzip stream does not end"
    yield "cut_half.nii.gz", gz[: len(gz) // 2], "is cut off, its gzip stream does not end"
    yield "cut_magic.nii.gz", gz[:5], "is cut off, its gzip stream does not end"
    yield "cut.nii", raw[:-1], "is cut off"
    yield "cut_header.nii", raw[:200], "is cut off in its header, after 200 of 348 bytes"
    yield "cut_header.nii.gz", zipped(raw[:200]), "is cut off in its header"
    yield "cut_inside.nii.gz", zipped(raw[:-1]), "is cut off after 1,695 of the 1,696 bytes"
    yield "more_inside.nii.gz", zipped(raw + b"\0"), "goes on after the 1,696 bytes"
    yield "more.nii", raw + b"\0", "goes on after the 1,696 bytes"
    yield "tail.nii.gz", gz + b"garbage", "has other bytes after the end of its gzip stream"
    yield "tail_zeros.nii.gz", gz + bytes(512), "has other bytes after the end of its gzip stream"
    yield "tail_member.nii.gz", gz + gz, "goes on after the 1,696 bytes"
    yield "tail_member_cut.nii.gz", gz + gz[:12], "is cut off, its gzip stream does not end"


def lying() -> Rows:
    yield "ndim_0.nii.gz", zipped(nifti(dim=[0])), "has 0 dimensions"
    yield "ndim_9.nii.gz", zipped(nifti(dim=[9])), "has 9 dimensions"
    yield "ndim_negative.nii.gz", zipped(nifti(dim=[-3])), "has -3 dimensions"
    yield "dim_negative.nii.gz", zipped(nifti(dim=[3, -6])), "has an impossible shape, -6 x 7 x 8"
    yield "dim_zero.nii.gz", zipped(nifti(dim=[3, 6, 7, 0])), "has an impossible shape, 6 x 7 x 0"
    yield (
        "dim_more.nii.gz",
        zipped(nifti(dim=[3, 6, 7, 9])),
        "is cut off after 1,696 of the 1,864 bytes",
    )
    yield "dim_less.nii.gz", zipped(nifti(dim=[3, 6, 7, 7])), "goes on after the 1,528 bytes"
    yield "datatype_0.nii.gz", zipped(nifti(datatype=0)), "has datatype 0"
    yield "datatype_bit.nii.gz", zipped(nifti(datatype=1, bitpix=1)), "has datatype 1"
    yield "datatype_long.nii.gz", zipped(nifti(datatype=1536, bitpix=128)), "has datatype 1536"
    yield (
        "bitpix.nii.gz",
        zipped(nifti(bitpix=16)),
        "has 16 bits per voxel by its header, but datatype 16",
    )
    yield "offset_nan.nii.gz", zipped(nifti(vox_offset=np.nan)), "has its voxels at byte nan"
    yield "offset_inf.nii.gz", zipped(nifti(vox_offset=np.inf)), "has its voxels at byte inf"
    yield "offset_inside.nii.gz", zipped(nifti(vox_offset=100)), "has its voxels at byte 100"
    yield "offset_negative.nii.gz", zipped(nifti(vox_offset=-352)), "has its voxels at byte -352"
    yield "offset_half.nii.gz", zipped(nifti(vox_offset=352.5)), "has its voxels at byte 352.5"
    yield (
        "offset_later.nii.gz",
        zipped(nifti(vox_offset=368)),
        "is cut off after 1,696 of the 1,712 bytes",
    )
    yield "sizeof_hdr.nii.gz", zipped(nifti(sizeof_hdr=349)), "is not NIfTI"
    yield "magic.nii.gz", zipped(nifti(magic=b"n+9")), "is not NIfTI (magic b'n+9"
    yield "analyze.nii.gz", zipped(nifti(magic=b"")), "is not NIfTI (magic b''"
    yield "pair.nii.gz", zipped(nifti(magic=b"ni1")), "is one half of a .hdr/.img pair"
    yield (
        "slope_inf.nii.gz",
        zipped(nifti(scl_slope=np.inf)),
        "has a scale factor that is not finite (scl_slope inf",
    )
    yield (
        "inter_nan.nii.gz",
        zipped(nifti(scl_slope=2, scl_inter=np.nan)),
        "not finite (scl_slope 2, scl_inter nan)",
    )
    yield (
        "inter_inf.nii.gz",
        zipped(nifti(scl_slope=2, scl_inter=np.inf)),
        "not finite (scl_slope 2, scl_inter inf)",
    )


def bombs() -> Rows:
    huge, big = 32767, [3, 512, 512, 512]
    noise = np.random.default_rng(0).bytes(1 << 20)
    yield "dims.nii.gz", zipped(nifti(dim=[3, huge, huge, huge])), "has 35,181,150,961,663 voxels"
    yield "dims.nii", nifti(dim=[3, huge, huge, huge]), "has 35,181,150,961,663 voxels"
    yield "dims_7.nii.gz", zipped(nifti(dim=[7, *[huge] * 7])), "is 7-D"
    yield (
        "dims_limit.nii.gz",
        zipped(nifti(dim=[3, 513, 512, 512])),
        "has 134,479,872 voxels (513 x 512 x 512)",
    )
    yield (
        "dims_swapped.nii.gz",
        zipped(nifti(order=">", dim=[3, huge, huge, huge])),
        "has 35,181,150,961,663 voxels",
    )
    yield (
        "dims_v2.nii.gz",
        zipped(nifti(version=2, dim=[3, 2**62, 2**62, 2**62])),
        "voxels (4611686018427387904 x",
    )
    yield (
        "offset_v2.nii.gz",
        zipped(nifti(version=2, vox_offset=2**60)),
        "has its voxels at byte 1.152921505e+18",
    )
    yield "offset_1e9.nii.gz", zipped(nifti(vox_offset=1e9)), "has its voxels at byte 1000000000"
    yield "inside_limit.nii.gz", zipped(nifti(dim=big)), "is cut off, it can hold"
    yield (
        "inside_limit.nii",
        nifti(dim=big),
        "is cut off, it can hold 1,696 bytes and its header announces 536,871,264",
    )
    yield (
        "inside_ratio.nii.gz",
        zipped(nifti(dim=big) + noise),
        "is cut off after 1,050,272 of the 536,871,264 bytes",
    )
    yield "tail_inside.nii.gz", zipped(nifti() + bytes(64 << 20)), "goes on after the 1,696 bytes"
    yield "tail_outside.nii.gz", zipped(nifti()) + bytes(64 << 20), "has other bytes after the end"
    yield "tail.nii", nifti() + bytes(64 << 20), "goes on after the 1,696 bytes"


def valued() -> Rows:
    yield (
        "nan.nii.gz",
        zipped(nifti(changed((4, 5, 6), np.nan))),
        "has 1 voxels that are NaN or infinite, the first at [4, 5, 6]",
    )
    yield (
        "all_nan.nii.gz",
        zipped(nifti(made_voxels() * np.nan)),
        "has 336 voxels that are NaN or infinite",
    )
    yield (
        "inf.nii.gz",
        zipped(nifti(changed((0, 0, 7), -np.inf))),
        "has 1 voxels that are NaN or infinite, the first at [0, 0, 7]",
    )
    yield "constant.nii.gz", zipped(nifti(np.full(TINY, 7, "i2"))), "is constant, every voxel is 7"
    yield "black.nii.gz", zipped(nifti(np.zeros(TINY, "f4"))), "is constant, every voxel is 0"
    yield (
        "large.nii.gz",
        zipped(nifti(changed((0, 0, 0), 2e6))),
        "has values from 1 to 2e+06, beyond 1,000,000",
    )
    yield (
        "large_negative.nii.gz",
        zipped(nifti(changed((0, 0, 0), -3e7))),
        "has values from -3e+07 to 99",
    )
    yield (
        "large_scaled.nii.gz",
        zipped(nifti(made_voxels("i2"), scl_slope=1e6)),
        "has values from 1e+06 to 9.9e+07",
    )
    yield (
        "overflow.nii.gz",
        zipped(nifti(changed((0, 0, 0), 1e300, "f8"))),
        "has values beyond 3.4e+38",
    )
    yield "overflow_scaled.nii.gz", zipped(nifti(scl_slope=3e38)), "has values beyond 3.4e+38"
    yield "complex.nii.gz", zipped(nifti(made_voxels("c8"))), "has complex voxels (datatype 32)"
    yield "complex_wide.nii", nifti(made_voxels("c16")), "has complex voxels (datatype 1792)"
    yield "rgb.nii.gz", zipped(nifti(datatype=128, bitpix=24)), "has RGB voxels (datatype 128)"
    yield "rgba.nii.gz", zipped(nifti(datatype=2304, bitpix=32)), "has RGB voxels (datatype 2304)"


def misplaced() -> Rows:
    two_alike = np.eye(4)
    two_alike[:3, 1] = two_alike[:3, 0]
    yield "sform_code.nii.gz", zipped(nifti(sform_code=-2)), "has sform_code -2"
    yield "qform_code.nii.gz", zipped(nifti(qform_code=99)), "has qform_code 99"
    yield "sform_nan.nii.gz", zipped(nifti(srow_x=[np.nan])), "has a sform that is not finite"
    yield (
        "sform_inf.nii.gz",
        zipped(nifti(srow_z=[0, 0, 1, np.inf])),
        "has a sform that is not finite",
    )
    yield (
        "sform_zero.nii.gz",
        zipped(nifti(srow_x=[0] * 4, srow_y=[0] * 4, srow_z=[0] * 4)),
        "has a singular sform",
    )
    yield (
        "sform_flat.nii.gz",
        zipped(nifti(srow_z=[0, 0, 0, 0])),
        "has a singular sform (axes of 1 x 1 x 0 mm)",
    )
    yield (
        "sform_parallel.nii.gz",
        zipped(nifti(srow_x=[1, 1, 0], srow_y=[0, 0, 0])),
        "has a singular sform",
    )
    yield (
        "qform_long.nii.gz",
        zipped(nifti(qform_code=1, quatern_b=0.9, quatern_c=0.9)),
        "has a qform that is no rotation",
    )
    yield "qform_nan.nii.gz", zipped(nifti(qform_code=1, quatern_b=np.nan)), "qform"
    yield (
        "qform_offset.nii.gz",
        zipped(nifti(qform_code=1, qoffset_x=np.inf)),
        "has a qform that is not finite",
    )
    yield (
        "flip.nii.gz",
        zipped(nifti(qform=np.diag([-1, 1, 1, 1]))),
        "is RAS by its sform and LAS by its qform",
    )
    yield "shear.nii.gz", zipped(nifti(affine=turned(0, 0.1))), "degrees off square (shear)"
    yield (
        "pixdim_zero.nii.gz",
        zipped(nifti(pixdim=[1, 0])),
        "has an impossible voxel size, pixdim 0 x 1 x 1",
    )
    yield (
        "pixdim_nan.nii.gz",
        zipped(nifti(pixdim=[1, 1, np.nan])),
        "has an impossible voxel size, pixdim 1 x nan x 1",
    )
    yield (
        "pixdim_inf.nii.gz",
        zipped(nifti(pixdim=[1, np.inf])),
        "has an impossible voxel size, pixdim inf x 1 x 1",
    )
    yield (
        "pixdim_negative.nii.gz",
        zipped(nifti(pixdim=[1, 1, 1, -2])),
        "has an impossible voxel size, pixdim 1 x 1 x -2",
    )
    yield (
        "metres.nii.gz",
        zipped(nifti(pixdim=[1, 1e-4])),
        "has an impossible voxel size, pixdim 0.0001 x 1 x 1",
    )
    yield (
        "microns.nii.gz",
        zipped(nifti(srow_x=[1000])),
        "has an impossible sform (axes of 1000 x 1 x 1 mm)",
    )
    yield (
        "tiny_v2.nii.gz",
        zipped(nifti(version=2, pixdim=[1, 1e-200], sform_code=0)),
        "has an impossible voxel size",
    )


def unusual() -> Rows:
    yield (
        "4d.nii.gz",
        zipped(nifti(made_voxels(shape=(*TINY, 3)))),
        "is 4-D (6 x 7 x 8 x 3), 3 volumes",
    )
    yield (
        "5d.nii.gz",
        zipped(nifti(made_voxels(shape=(*TINY, 1, 3)))),
        "is 5-D (6 x 7 x 8 x 1 x 3), 3 volumes",
    )
    yield "2d.nii.gz", zipped(nifti(made_voxels(shape=(6, 7)))), "is 2-D (6 x 7)"
    yield "1d.nii.gz", zipped(nifti(dim=[1, 336])), "is 1-D (336)"


def unlabelled() -> Rows:
    half, negative = made_voxels("f4") > 50, made_voxels("i2") > 50
    yield "half.nii.gz", zipped(nifti(half * np.float32(0.5))), "is not a label image, it holds 0.5"
    yield (
        "smooth.nii.gz",
        zipped(nifti(half * np.float32(0.99))),
        "is not a label image, it holds 0.99",
    )
    yield (
        "negative.nii.gz",
        zipped(nifti(-negative.astype("i2"))),
        "is not a label image, it holds -1",
    )
    yield (
        "mask_nan.nii.gz",
        zipped(nifti(changed((1, 2, 3), np.nan))),
        "has 1 voxels that are NaN or infinite",
    )


def warned() -> Rows:
    moved = np.eye(4)
    moved[2, 3] = 5
    yield "oblique.nii.gz", zipped(nifti(affine=turned(20))), "is oblique by 20.0 degrees"
    yield (
        "nowhere.nii.gz",
        zipped(nifti(sform_code=0)),
        "has neither sform nor qform and is taken to be LAS",
    )
    yield "apart.nii.gz", zipped(nifti(qform=moved)), "qform up to 5.0 mm apart"
    yield (
        "pixdim.nii.gz",
        zipped(nifti(pixdim=[1, 1, 1, 3])),
        "by its sform, which is used, and 1 x 1 x 3 by pixdim",
    )
    yield (
        "thick.nii.gz",
        zipped(nifti(affine=np.diag([1, 1, 25, 1]))),
        "has voxels of 1 x 1 x 25 mm",
    )
    yield (
        "slope_nan.nii.gz",
        zipped(nifti(scl_slope=np.nan)),
        "has scl_slope nan and is read as not scaled",
    )


def _not_files(folder: Path) -> Iterator[Case]:
    makers: dict[str, tuple[Callable[[Path], Any], str]] = {
        "folder.nii.gz": (Path.mkdir, "is not a file"),
        "pipe.nii.gz": (os.mkfifo, "is not a file"),
        "loop.nii.gz": (
            lambda path: path.symlink_to(path),
            "cannot be read (Too many levels of symbolic links)",
        ),
        "dangling.nii.gz": (
            lambda path: path.symlink_to("gone"),
            "cannot be read (No such file or directory)",
        ),
    }
    for name, (make, words) in makers.items():
        make(folder / name)
        yield Case(folder / name, words)
