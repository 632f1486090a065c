"""The gate: a volume is proven whole and sane before anything believes it.

The header is judged before anything of the size that it announces is allocated, the bytes are inflated to the end of
the stream with their checksum (which nibabel leaves out), and only then does nibabel say how they lie in the head.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import nibabel as nib
import numpy as np
from isal import isal_zlib
from nibabel.spatialimages import HeaderDataError

from medgen.data.store import nifti_writer
from medgen.errors import DataError

MAX_VOXELS = 512**3
"""The largest volume that is read unless a recipe says otherwise."""
MAX_ABS = 1e6
"""Beyond any scanner's units."""
MIN_SPACING, MAX_SPACING = 0.001, 200.0
"""mm between voxels; beyond them the header's unit is not mm."""
MAX_OBLIQUE = 5.0
"""Degrees between a voxel axis and the nearest axis of the body that pass without a warning."""
MAX_SHEAR = 1.0
"""Degrees by which two voxel axes may miss a right angle."""
MAX_EXTENSIONS = 16 << 20
"""Bytes between header and voxels: more than extensions in use take (DICOM, CIFTI)."""
LABEL_TOLERANCE = 1e-3
"""How far from a whole number a label may be: int32 with a scale factor stores 1 as 0.99999997."""

POINTER_BYTES = 1024
"""A file that only says where its content is takes less than this."""

CHUNK = 1 << 20
ZIPPED_CHUNK = 1 << 16
GZIP_MAGIC = b"\x1f\x8b"
GZIP_MAX_RATIO = 1032
"""Deflate's own limit, so the length of a file bounds what it can hold."""

NIFTI1, NIFTI2 = 348, 540
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
MAX_FORM_CODE = 5
COMPLEX_TYPES = {32, 1792, 2048}
COLOUR_TYPES = {128, 2304}

COPY = "Copy it again"
REWRITE = "Convert it again from its source"
UNITS = "Convert it again, in mm"

NanPolicy = Literal["error", "zero"]


class Volume(NamedTuple):
    """A scan in canonical orientation (RAS): its axes run to the right, to the front and to the top of the head.

    data: float32 `[x, y, z]`, scale factors applied, in Fortran order: an axial slice `data[:, :, k]` is one block.
    spacing: mm between voxels along each axis. affine: float64 `[4, 4]`, from voxel indices to mm. written: medgen
    wrote it, from 0 to `output.WHITE`.
    """

    data: np.ndarray
    spacing: tuple[float, float, float]
    affine: np.ndarray
    written: bool = False


class Grid(NamedTuple):
    """Where a volume's voxels are, along canonical axes."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: np.ndarray


class Fault(NamedTuple):
    """What is wrong with a file, with the values, and what to do about it. patient: the id, where it is one's alone."""

    path: Path
    what: str
    fix: str
    patient: str = ""

    def line(self) -> str:
        """`<path>: <what>. <fix>.`, one line whatever the file is called."""
        return f"{printable(str(self.path))}: {self.what}. {self.fix}."


class Report(NamedTuple):
    """What the gate found. Where there are faults, nothing else but warnings is filled in.

    shape, spacing: along the canonical axes. orientation: as stored, such as `LPS`. content: sha256 of shape and voxels
    in canonical orientation, the same for one image however it was saved. labels: voxels per label, where all voxels
    are whole numbers up to 255 (for a mask, up to 65,535).
    """

    path: Path
    faults: list[Fault]
    warnings: list[Fault]
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    orientation: str = ""
    content: str = ""
    labels: dict[int, int] = {}  # noqa: RUF012  # nobody writes to it


class _Problem(NamedTuple):
    what: str
    fix: str
    fatal: bool = True


class _Refused(Exception):
    """Carries problems, at least one of them fatal, to where the path is known."""

    def __init__(self, problems: Iterable[_Problem]):
        super().__init__()
        self.problems = list(problems)


class _Passed(NamedTuple):
    volume: Volume
    orientation: str
    warnings: list[_Problem]


class _Limits(NamedTuple):
    max_voxels: int
    nan: NanPolicy
    mask: bool


def read(path: Path, max_voxels: int = MAX_VOXELS, *, nan: NanPolicy = "error", mask: bool = False) -> Volume:
    """The volume in a .nii or .nii.gz file, through the gate. Raises `DataError`, a line per fault.

    nan: voxels that are NaN or infinite are a fault, or become 0. mask: it must hold labels, which are whole numbers
    from 0, and it may be constant, as an empty mask is.
    """
    with _telling(path):
        return _pass(path, _Limits(max_voxels, nan, mask)).volume


def inspect(path: Path, max_voxels: int = MAX_VOXELS, nan: NanPolicy = "error", *, mask: bool = False) -> Report:
    """All that the gate finds in a file, faults or not; the arguments are those of `read`."""
    return examine(path, max_voxels, nan, mask=mask)[0]


def examine(
    path: Path, max_voxels: int = MAX_VOXELS, nan: NanPolicy = "error", *, mask: bool = False
) -> tuple[Report, Volume | None]:
    """What `inspect` gives, and the volume, where there are no faults."""
    try:
        volume, orientation, problems = _pass(path, _Limits(max_voxels, nan, mask))
    except _Refused as refused:
        return Report(path, _faults(path, refused.problems), _faults(path, refused.problems, fatal=False)), None
    data, warnings = volume.data, _faults(path, problems, fatal=False)
    counts = _label_counts(data, 2**16 - 1 if mask else 255)
    return Report(path, [], warnings, data.shape, volume.spacing, orientation, content(data), counts), volume


def place(path: Path) -> Grid:
    """Where a file's voxels are, by its header alone. Raises `DataError` if the header is at fault."""
    with _telling(path), _opened(path) as file:
        start = file.read(NIFTI2)
        file.seek(0)
        header = _header(next(_pieces(file, _is_zipped(path.name.lower(), start))))
        _refuse_fatal([*_shape_problems(header, sys.maxsize), *_type_problems(header), *_geometry_problems(header)])
    affine, stored = _affine(header), _shape(header)
    orientation = nib.orientations.io_orientation(affine)
    affine = affine @ nib.orientations.inv_ornt_aff(orientation, stored)
    x, y, z = (float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    a, b, c = (stored[int(axis)] for axis in np.argsort(orientation[:, 0]))
    return Grid((a, b, c), (x, y, z), affine)


def digest(path: Path) -> str:
    """sha256 of the file's bytes. Raises `DataError` if it cannot be read."""
    sha = hashlib.sha256()
    with _telling(path), _opened(path) as file:
        while chunk := file.read(CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def content(data: np.ndarray) -> str:
    """sha256 of shape and float32 values, whatever their order in memory."""
    sha = hashlib.sha256(repr(data.shape).encode())
    sha.update(np.ascontiguousarray(data.T, np.float32).data)
    return sha.hexdigest()


def labels(data: np.ndarray, path: Path | str = "mask") -> np.ndarray:
    """The nearest whole numbers, int32. Raises `DataError` for `path` if one is negative or farther away than 1e-3."""
    faults = _faults(Path(path), _label_problems(data))
    if faults:
        raise DataError(fault.line() for fault in faults)
    whole: np.ndarray = np.rint(data)
    return whole.astype(np.int32)


def stand_in(start: bytes) -> tuple[str, str] | None:
    """What a file, by its first bytes, or a link, by where it leads, is instead of a scan, and how to get that."""
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the scan", "Fetch it with `git lfs pull`"
    if start.startswith(b"/annex/objects/"):
        return "a git-annex pointer, not the scan", "Fetch it with `git annex get`"
    if b"\0" not in start and b"annex/objects/" in start[:POINTER_BYTES].replace(b"\\", b"/"):
        return "a git-annex link without its content", "Fetch it with `git annex get`"
    return None


def printable(text: str) -> str:
    """`text` with line breaks, terminal codes and undecodable bytes escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except _Refused as refused:
        raise DataError(fault.line() for fault in _faults(path, refused.problems)) from None


def _faults(path: Path, problems: Iterable[_Problem], *, fatal: bool = True) -> list[Fault]:
    return [Fault(path, problem.what, problem.fix) for problem in problems if problem.fatal is fatal]


def _refusal(what: str, fix: str) -> _Refused:
    return _Refused([_Problem(what, fix)])


def _refuse_fatal(problems: list[_Problem]) -> None:
    if any(problem.fatal for problem in problems):
        raise _Refused(problems)


def _pass(path: Path, limits: _Limits) -> _Passed:
    with _opened(path) as file:
        start = file.read(NIFTI2)
        file.seek(0)
        zipped = _is_zipped(path.name.lower(), start)
        pieces = _pieces(file, zipped)
        header = _header(first := next(pieces))
        most = os.fstat(file.fileno()).st_size * (GZIP_MAX_RATIO if zipped else 1)
        problems = [*_layout_problems(header, limits.max_voxels, most), *_geometry_problems(header)]
        _refuse_fatal(problems)
        stored = _voxels(header, itertools.chain([first], pieces))
        return _canonical(stored, header, limits, problems)


def _canonical(stored: np.ndarray, header: nib.Nifti1Header, limits: _Limits, problems: list[_Problem]) -> _Passed:
    affine = _affine(header)
    orientation = nib.orientations.io_orientation(affine)
    data = _scaled(nib.orientations.apply_orientation(stored, orientation), *_slope_inter(header))
    problems += _voxel_problems(data, orientation, limits)
    _refuse_fatal(problems)
    canonical = affine @ nib.orientations.inv_ornt_aff(orientation, stored.shape)
    x, y, z = (float(size) for size in np.linalg.norm(canonical[:3, :3], axis=0))
    volume = Volume(data, (x, y, z), canonical, nifti_writer.is_written(header, stored))
    return _Passed(volume, _axis_names(affine), problems)


# Bytes


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file; what the system says against it, then or while it is read, is a problem."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise _refusal("is not a file", "Give a .nii or .nii.gz file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        found = stand_in(os.fsencode(os.readlink(path))) if path.is_symlink() else None
        if isinstance(error, FileNotFoundError) and found:
            raise _refusal(f"is {found[0]}", found[1]) from None
        raise _refusal(f"cannot be read ({error.strerror})", "Check its path, its permissions and the disk") from None
    except MemoryError:
        raise _refusal("needs more memory than there is", "Crop it, or give the job more memory") from None


def _is_zipped(name: str, start: bytes) -> bool:
    """Whether the file is gzip, which its name and its first bytes must both say."""
    if not name.endswith((".nii", ".nii.gz")):
        raise _refusal("is not named .nii or .nii.gz", "Convert it to NIfTI")
    zipped = start.startswith(GZIP_MAGIC)
    if name.endswith(".gz") == zipped:
        return zipped
    if zipped:
        raise _refusal("is gzip, but named .nii", "Rename it to .nii.gz")
    if _size_and_order(start):
        raise _refusal("is not gzip, but named .gz", "Rename it to .nii")
    raise _foreign("gzip", start)


def _foreign(wanted: str, start: bytes) -> _Refused:
    """Says what a file that is not what it should be most likely is."""
    if not start:
        return _refusal("is empty", COPY)
    if not start.strip(b"\0"):
        return _refusal("starts with zeros only (written in part)", COPY)
    if found := stand_in(start):
        return _refusal(f"is {found[0]}", found[1])
    if start.lstrip().startswith(b"<"):
        return _refusal("is a web page, not a scan", "Download it again, logged in")
    return _refusal(f"is not {wanted} (starts with bytes {start[:4].hex(' ')})", COPY)


def _pieces(file: BinaryIO, zipped: bool) -> Iterator[bytes]:
    """The file's bytes, inflated, a chunk at a time, the whole header within the first."""
    pieces = _inflated(file) if zipped else iter(lambda: file.read(CHUNK), b"")
    first = b""
    while len(first) < NIFTI2 and (piece := next(pieces, None)) is not None:
        first += piece
    yield first
    yield from pieces


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """The members of a gzip file, each checked against its checksum and length, and nothing else after them."""
    member, data = isal_zlib.decompressobj(wbits=31), file.read(ZIPPED_CHUNK)
    while True:
        piece = _inflate(member, data)
        yield piece
        if member.eof:
            data = member.unused_data + file.read(ZIPPED_CHUNK)
            if not data:
                return
            if not data.startswith(GZIP_MAGIC):
                raise _refusal("has other bytes after the end of its gzip stream", COPY)
            member = isal_zlib.decompressobj(wbits=31)
        else:
            data = member.unconsumed_tail or file.read(ZIPPED_CHUNK)
            if not data and not piece:
                raise _refusal("is cut off, its gzip stream does not end", COPY)


def _inflate(member: Any, data: bytes) -> bytes:
    try:
        return bytes(member.decompress(data, CHUNK))
    except isal_zlib.IsalError as error:  # type: ignore[misc]  # its stub declares an instance
        what = "checksum mismatch" if "checksum" in str(error) else "stream cannot be inflated"
        raise _refusal(f"gzip {what} (file damaged)", COPY) from None


def _voxels(header: nib.Nifti1Header, pieces: Iterable[bytes]) -> np.ndarray:
    """The voxels as stored, `[x, y, z]`, once the bytes have ended exactly where the header says."""
    total, end = _total(header), 0
    buffer = np.empty(total, np.uint8)
    for piece in pieces:
        start, end = end, end + len(piece)
        if end > total:
            raise _refusal(f"goes on after the {total:,} bytes that its header announces", COPY)
        buffer[start:end] = np.frombuffer(piece, np.uint8)
    if end < total:
        raise _refusal(f"is cut off after {end:,} of the {total:,} bytes that its header announces", COPY)
    return buffer[_offset(header) :].view(_dtype(header)).reshape(_shape(header), order="F")


# Header


def _size_and_order(start: bytes) -> tuple[int, str] | None:
    """The header's length by its own first four bytes, and the byte order in which they say so."""
    for order in "<>":
        size = int(np.frombuffer(start[:4].ljust(4, b"\0"), f"{order}i4")[0])
        if size in (NIFTI1, NIFTI2):
            return size, order
    return None


def _header(start: bytes) -> nib.Nifti1Header:
    found = _size_and_order(start)
    if not found:
        raise _foreign("NIfTI", start[:NIFTI2])
    size, order = found
    if len(start) < size:
        raise _refusal(f"is cut off in its header, after {len(start)} of {size} bytes", COPY)
    header = (nib.Nifti1Header if size == NIFTI1 else nib.Nifti2Header)(start[:size], order, check=False)
    magic = header["magic"].item()
    if magic.startswith((b"ni1", b"ni2")):
        raise _refusal("is one half of a .hdr/.img pair", "Convert it to a single .nii.gz")
    if not magic.startswith(b"n+1" if size == NIFTI1 else b"n+2"):
        raise _refusal(f"is not NIfTI (magic {magic[:4]!r})", REWRITE)
    if header["pixdim"][0] == 0:  # the standard reads 0 as 1, nibabel refuses it
        header["pixdim"][0] = 1
    return header


def _layout_problems(header: nib.Nifti1Header, max_voxels: int, most: int) -> list[_Problem]:
    """Whether shape, type, place and scale of the voxels make sense, in a file that holds `most` bytes at most."""
    unsized = [*_shape_problems(header, max_voxels), *_type_problems(header)]
    return [*(unsized or _length_problems(header, most)), *_scale_problems(header)]


def _shape_problems(header: nib.Nifti1Header, max_voxels: int) -> Iterator[_Problem]:
    ndim = int(header["dim"][0])
    dims = [int(size) for size in header["dim"][1 : ndim + 1]]
    shown, voxels = " x ".join(map(str, dims)), math.prod(dims)
    if not 1 <= ndim <= 7:
        yield _Problem(f"has {ndim} dimensions by its header", REWRITE)
    elif min(dims) < 1:
        yield _Problem(f"has an impossible shape, {shown}", REWRITE)
    elif max(dims[3:], default=1) > 1:
        yield _Problem(f"is {ndim}-D ({shown}), {math.prod(dims[3:]):,} volumes", "Keep one 3-D volume per file")
    elif ndim < 3:
        yield _Problem(f"is {ndim}-D ({shown})", "Stack its slices into a 3-D volume")
    elif voxels > max_voxels:
        what = f"has {voxels:,} voxels ({shown}), more than {max_voxels:,}"
        yield _Problem(what, "Crop it, or raise data.max_voxels")


def _type_problems(header: nib.Nifti1Header) -> Iterator[_Problem]:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code in COMPLEX_TYPES:
        yield _Problem(f"has complex voxels (datatype {code})", "Save their magnitude")
    elif code in COLOUR_TYPES:
        yield _Problem(f"has RGB voxels (datatype {code})", "Use the scan that was coloured")
    elif code not in TYPES:
        yield _Problem(f"has datatype {code}, which is not read", "Convert it to float32")
    elif bits != 8 * int(TYPES[code][1]):
        yield _Problem(f"has {bits} bits per voxel by its header, but datatype {code}", REWRITE)


def _length_problems(header: nib.Nifti1Header, most: int) -> Iterator[_Problem]:
    first, offset = int(header.single_vox_offset), float(header["vox_offset"])
    if not (offset == 0 or (first <= offset <= first + MAX_EXTENSIONS and offset.is_integer())):
        yield _Problem(f"has its voxels at byte {offset:.10g} by its header", REWRITE)
    elif (total := _total(header)) > most:
        yield _Problem(f"is cut off, it can hold {most:,} bytes and its header announces {total:,}", COPY)


def _scale_problems(header: nib.Nifti1Header) -> Iterator[_Problem]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isnan(slope):
        yield _Problem("has scl_slope nan and is read as not scaled", "Check its intensities", fatal=False)
    elif slope and not np.isfinite([slope, inter]).all():
        yield _Problem(f"has a scale factor that is not finite (scl_slope {slope:g}, scl_inter {inter:g})", REWRITE)


def _shape(header: nib.Nifti1Header) -> tuple[int, int, int]:
    x, y, z = (int(size) for size in header["dim"][1:4])
    return x, y, z


def _dtype(header: nib.Nifti1Header) -> np.dtype[Any]:
    return np.dtype(f"{header.endianness}{TYPES[int(header['datatype'])]}")


def _offset(header: nib.Nifti1Header) -> int:
    return int(header["vox_offset"]) or int(header.single_vox_offset)


def _total(header: nib.Nifti1Header) -> int:
    """Bytes of the whole file, inflated."""
    return _offset(header) + math.prod(_shape(header)) * _dtype(header).itemsize


def _slope_inter(header: nib.Nifti1Header) -> tuple[float, float]:
    """The standard's rule: slope 0 means that nothing is scaled (some tools write NaN for it)."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    return (1.0, 0.0) if slope == 0 or np.isnan(slope) else (slope, inter)


# Geometry


def _geometry_problems(header: nib.Nifti1Header) -> list[_Problem]:
    with np.errstate(all="ignore"):  # what is not finite is told of below
        return [*_field_problems(header)] or [*_form_problems(header)] or [*_axes_problems(header)]


def _field_problems(header: nib.Nifti1Header) -> Iterator[_Problem]:
    pixdim = np.asarray(header["pixdim"][1:4], np.float64)
    if not _possible(pixdim):
        yield _Problem(f"has an impossible voxel size, pixdim {_times(pixdim)}", UNITS)
    for name in ("sform_code", "qform_code"):
        if not 0 <= header[name] <= MAX_FORM_CODE:
            yield _Problem(f"has {name} {int(header[name])}", REWRITE)


def _form_problems(header: nib.Nifti1Header) -> Iterator[_Problem]:
    """What is wrong with the sform and with the qform, each by itself."""
    if header["sform_code"] > 0:
        yield from _matrix_problems("sform", np.asarray(header.get_sform(), np.float64))
    if header["qform_code"] > 0:
        try:
            yield from _matrix_problems("qform", _qform(header))
        except (ValueError, HeaderDataError):
            yield _Problem("has a qform that is no rotation", REWRITE)


def _matrix_problems(name: str, affine: np.ndarray) -> Iterator[_Problem]:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite([*sizes, *affine.flat]).all():
        yield _Problem(f"has a {name} that is not finite", REWRITE)
    elif not sizes.all() or abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-3:
        yield _Problem(f"has a singular {name} (axes of {_times(sizes)} mm)", REWRITE)
    elif not _possible(sizes):
        yield _Problem(f"has an impossible {name} (axes of {_times(sizes)} mm)", UNITS)


def _axes_problems(header: nib.Nifti1Header) -> Iterator[_Problem]:
    """What is wrong or odd about the affine in use, and about others that disagree with it."""
    affine = _affine(header)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / sizes
    shear = math.degrees(math.asin(min(1.0, np.abs(np.triu(cosines.T @ cosines, 1)).max())))
    oblique = math.degrees(math.acos(min(1.0, np.abs(cosines).max(axis=0).min())))
    if shear > MAX_SHEAR:
        yield _Problem(f"has axes {shear:.1f} degrees off square (shear)", "Resample it to a regular grid")
    if oblique > MAX_OBLIQUE:
        yield _Problem(f"is oblique by {oblique:.1f} degrees", "Resample it if others are not", fatal=False)
    if sizes.min() < 0.1 or sizes.max() > 20:
        yield _Problem(f"has voxels of {_times(sizes)} mm", "Check its unit and slices", fatal=False)
    yield from _agreement_problems(header, affine, sizes)


def _agreement_problems(header: nib.Nifti1Header, affine: np.ndarray, sizes: np.ndarray) -> Iterator[_Problem]:
    has_sform, has_qform = header["sform_code"] > 0, header["qform_code"] > 0
    pixdim = np.asarray(header["pixdim"][1:4], np.float64)
    if not has_sform and not has_qform:
        what = f"has neither sform nor qform and is taken to be {_axis_names(affine)}"
        yield _Problem(what, "Check left and right", fatal=False)
    if has_sform and has_qform:
        yield from _form_agreement_problems(affine, _qform(header), _shape(header))
    elif has_sform and not np.allclose(pixdim, sizes, rtol=0.01):
        what = f"has voxels of {_times(sizes)} mm by its sform, which is used, and {_times(pixdim)} by pixdim"
        yield _Problem(what, "Check which is right", fatal=False)


def _form_agreement_problems(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, ...]) -> Iterator[_Problem]:
    corners = np.array([*itertools.product(*((0, size - 1) for size in shape), (1,))], np.float64).T
    apart = float(np.linalg.norm((sform - qform) @ corners, axis=0).max())
    if _axis_names(sform) != _axis_names(qform):
        what = f"is {_axis_names(sform)} by its sform and {_axis_names(qform)} by its qform"
        yield _Problem(what, "Find out which is right and write both alike")
    elif apart > 1:
        what = f"has sform, which is used, and qform up to {apart:.1f} mm apart"
        yield _Problem(what, "Check which is right", fatal=False)


def _affine(header: nib.Nifti1Header) -> np.ndarray:
    return np.asarray(header.get_best_affine(), np.float64)


def _qform(header: nib.Nifti1Header) -> np.ndarray:
    return np.asarray(header.get_qform(), np.float64)


def _possible(sizes: np.ndarray) -> bool:
    return bool(((sizes >= MIN_SPACING) & (sizes <= MAX_SPACING)).all())


def _axis_names(affine: np.ndarray) -> str:
    return "".join(nib.aff2axcodes(affine))


def _times(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


# Voxels


def _scaled(stored: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """`slope * stored + inter` as float32, computed in float64 a slice at a time."""
    data = np.empty(stored.shape, np.float32, order="F")
    try:
        with np.errstate(over="raise", invalid="ignore"):
            if (slope, inter) == (1, 0):
                np.copyto(data, stored, casting="unsafe")
            else:
                for k in range(stored.shape[2]):
                    data[..., k] = stored[..., k].astype(np.float64) * slope + inter
    except FloatingPointError:
        raise _refusal("has values beyond 3.4e+38, the largest float32", "Rescale it") from None
    return data


def _voxel_problems(data: np.ndarray, orientation: np.ndarray, limits: _Limits) -> Iterator[_Problem]:
    """What is wrong with the values; under the policy `zero`, sets those that are not finite to 0."""
    if not np.isfinite([data.min(), data.max()]).all():
        bad = ~np.isfinite(data)
        fatal = limits.nan == "error"
        what = f"has {int(bad.sum()):,} voxels that are NaN or infinite, the first at [{_first(bad, orientation)}]"
        yield _Problem(what, 'Repair it, or set data.nan = "zero"' if fatal else "They were set to 0", fatal)
        if fatal:
            return
        data[bad] = 0
    low, high = float(data.min()), float(data.max())
    if max(-low, high) > MAX_ABS:
        yield _Problem(f"has values from {low:.4g} to {high:.4g}, beyond {MAX_ABS:,.0f}", "Rescale it")
    if limits.mask:
        yield from _label_problems(data)
    elif low == high:
        yield _Problem(f"is constant, every voxel is {low:.4g}", "Leave this patient out")


def _first(bad: np.ndarray, orientation: np.ndarray) -> str:
    """The indices of the first bad voxel as the file counts them."""
    axes, directions = orientation.T.astype(int)
    stored = bad.transpose(axes)[tuple(slice(None, None, direction) for direction in directions)]
    return ", ".join(str(int(index)) for index in np.unravel_index(int(stored.argmax()), stored.shape))


def _label_problems(data: np.ndarray) -> Iterator[_Problem]:
    distance = np.rint(data)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        np.subtract(data, distance, out=distance)
    np.abs(distance, out=distance)
    worst = np.unravel_index(int(distance.argmax()), data.shape)
    if not distance[worst] <= LABEL_TOLERANCE:  # NaN too
        yield _Problem(f"is not a label image, it holds {data[worst]:.6g}", "Give a mask of whole numbers from 0")
    elif (low := float(data.min())) < -LABEL_TOLERANCE:
        yield _Problem(f"is not a label image, it holds {low:.6g}", "Give a mask of whole numbers from 0")


def _label_counts(data: np.ndarray, most: int) -> dict[int, int]:
    if data.min() < -LABEL_TOLERANCE or data.max() > most + LABEL_TOLERANCE or any(_label_problems(data)):
        return {}
    counts = np.bincount(np.rint(data).astype(np.uint16).ravel("K"))
    return {label: int(counts[label]) for label in np.flatnonzero(counts).tolist()}
