"""Read a NIfTI file, or say everything that is wrong with it."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from medgen.data.grid import Grid
from medgen.data.scans.nifti.geometry import axis_names, best_affine, geometry_problems
from medgen.data.scans.nifti.header import (
    layout_problems,
    parse_header,
    shape_of,
    shape_problems,
    slope_and_inter,
    type_problems,
)
from medgen.data.scans.nifti.problems import (
    Defect,
    Limits,
    NanPolicy,
    Refused,
    as_faults,
    naming,
    refuse_fatal,
)
from medgen.data.scans.nifti.stream import (
    GZIP_MAX_RATIO,
    NIFTI2,
    inflated_pieces,
    is_zipped,
    open_scan,
)
from medgen.data.scans.nifti.voxels import (
    content,
    label_counts,
    read_stored,
    scale_values,
    voxel_problems,
)
from medgen.data.store import nifti_writer
from medgen.errors import Problem

MAX_VOXELS = 512**3
"""The largest volume that is read unless a recipe says otherwise."""


class Volume(NamedTuple):
    """A scan in canonical orientation (RAS): its axes run to the right, to the front and to the top
    of the head.

    data: float32 `[x, y, z]`, scale factors applied, in Fortran order: an axial slice `data[:, :,
    k]` is one block. spacing: mm between voxels along each axis. affine: float64 `[4, 4]`, from
    voxel indices to mm. written: medgen wrote it, from 0 to `output.WHITE`.
    """

    data: np.ndarray
    spacing: tuple[float, float, float]
    affine: np.ndarray
    written: bool = False


class Raw(NamedTuple):
    """A file, to write another with its header and type. voxels: `[x, y, z]` as stored, writable."""

    header: nib.Nifti1Header
    voxels: np.ndarray
    volume: Volume


class Report(NamedTuple):
    """What the gate found. Where there are faults, nothing else but warnings is filled in.

    shape, spacing: along the canonical axes. orientation: as stored, such as `LPS`. content: sha256
    of shape and voxels in canonical orientation, the same for one image however it was saved.
    labels: voxels per label, where all are whole numbers up to 255 (for a mask, up to 65,535).
    """

    path: Path
    faults: list[Problem]
    warnings: list[Problem]
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    orientation: str = ""
    content: str = ""
    labels: dict[int, int] = {}  # noqa: RUF012  # nobody writes to it


class Passed(NamedTuple):
    volume: Volume
    orientation: str
    warnings: list[Defect]


def read(
    path: Path, max_voxels: int = MAX_VOXELS, *, nan: NanPolicy = "error", mask: bool = False
) -> Volume:
    """Read a .nii or .nii.gz file through the gate. Raises DataError, with a line per fault.

    nan: voxels that are NaN or infinite are a fault, or become 0. mask: it must hold labels, which
    are whole numbers from 0, and it may be constant, as an empty mask is.
    """
    with naming(path):
        return _pass(path, Limits(max_voxels, nan, mask)).volume


def read_raw(path: Path, max_voxels: int = MAX_VOXELS, *, nan: NanPolicy = "error") -> Raw:
    """Read a scan as `read` does, and keep what its file says."""
    with naming(path):
        limits = Limits(max_voxels, nan, mask=False)
        header, stored, problems = _stored(path, limits)
        return Raw(header, stored, canonical_order(stored, header, limits, problems).volume)


def inspect(
    path: Path, max_voxels: int = MAX_VOXELS, nan: NanPolicy = "error", *, mask: bool = False
) -> Report:
    """All that the gate finds in a file, faults or not; the arguments are those of `read`."""
    return examine(path, max_voxels, nan, mask=mask)[0]


def examine(
    path: Path, max_voxels: int = MAX_VOXELS, nan: NanPolicy = "error", *, mask: bool = False
) -> tuple[Report, Volume | None]:
    """Return a report, and, where there are no faults, the volume."""
    try:
        volume, orientation, problems = _pass(path, Limits(max_voxels, nan, mask))
    except Refused as refused:
        return Report(
            path, as_faults(path, refused.problems), as_faults(path, refused.problems, fatal=False)
        ), None
    data, warnings = volume.data, as_faults(path, problems, fatal=False)
    counts = label_counts(data, 2**16 - 1 if mask else 255)
    return Report(
        path, [], warnings, data.shape, volume.spacing, orientation, content(data), counts
    ), volume


def place(path: Path) -> Grid:
    """Read from a header where voxels lie, along canonical axes. Raises DataError."""
    with naming(path), open_scan(path) as file:
        start = file.read(NIFTI2)
        file.seek(0)
        header = parse_header(next(inflated_pieces(file, is_zipped(path.name.lower(), start))))
        refuse_fatal(
            [
                *shape_problems(header, sys.maxsize),
                *type_problems(header),
                *geometry_problems(header),
            ]
        )
    affine, stored = best_affine(header), shape_of(header)
    orientation = nib.orientations.io_orientation(affine)
    affine = affine @ nib.orientations.inv_ornt_aff(orientation, stored)
    x, y, z = (float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    a, b, c = (stored[int(axis)] for axis in np.argsort(orientation[:, 0]))
    return Grid((a, b, c), (x, y, z), affine)


def _pass(path: Path, limits: Limits) -> Passed:
    header, stored, problems = _stored(path, limits)
    return canonical_order(stored, header, limits, problems)


def _stored(path: Path, limits: Limits) -> tuple[nib.Nifti1Header, np.ndarray, list[Defect]]:
    """Return the header and the voxels as they are stored, and what is odd about the header."""
    with open_scan(path) as file:
        start = file.read(NIFTI2)
        file.seek(0)
        zipped = is_zipped(path.name.lower(), start)
        pieces = inflated_pieces(file, zipped)
        header = parse_header(first := next(pieces))
        most = os.fstat(file.fileno()).st_size * (GZIP_MAX_RATIO if zipped else 1)
        problems = [*layout_problems(header, limits.max_voxels, most), *geometry_problems(header)]
        refuse_fatal(problems)
        return header, read_stored(header, itertools.chain([first], pieces)), problems


def canonical_order(
    stored: np.ndarray, header: nib.Nifti1Header, limits: Limits, problems: list[Defect]
) -> Passed:
    affine = best_affine(header)
    orientation = nib.orientations.io_orientation(affine)
    data = scale_values(
        nib.orientations.apply_orientation(stored, orientation), *slope_and_inter(header)
    )
    problems += voxel_problems(data, orientation, limits)
    refuse_fatal(problems)
    canonical = affine @ nib.orientations.inv_ornt_aff(orientation, stored.shape)
    x, y, z = (float(size) for size in np.linalg.norm(canonical[:3, :3], axis=0))
    volume = Volume(data, (x, y, z), canonical, nifti_writer.is_written(header, stored))
    return Passed(volume, axis_names(affine), problems)
