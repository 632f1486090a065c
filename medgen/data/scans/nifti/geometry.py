"""Where voxels are in space: sform, qform, canonical orientation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from medgen.data.scans.nifti.header import shape_of
from medgen.data.scans.nifti.problems import REWRITE, UNITS, Defect

MIN_SPACING, MAX_SPACING = 0.001, 200.0
"""mm between voxels; beyond them the header's unit is not mm."""


MAX_OBLIQUE = 5.0
"""Degrees between a voxel axis and the nearest axis of the body that pass without a warning."""


MAX_SHEAR = 1.0
"""Degrees by which two voxel axes may miss a right angle."""


MAX_FORM_CODE = 5


def geometry_problems(header: nib.Nifti1Header) -> list[Defect]:
    with np.errstate(all="ignore"):  # what is not finite is told of below
        return [*_field_problems(header)] or [*_form_problems(header)] or [*_axes_problems(header)]


def _field_problems(header: nib.Nifti1Header) -> Iterator[Defect]:
    pixdim = np.asarray(header["pixdim"][1:4], np.float64)
    if not _possible(pixdim):
        yield Defect(f"has an impossible voxel size, pixdim {_times(pixdim)}", UNITS)
    for name in ("sform_code", "qform_code"):
        if not 0 <= header[name] <= MAX_FORM_CODE:
            yield Defect(f"has {name} {int(header[name])}", REWRITE)


def _form_problems(header: nib.Nifti1Header) -> Iterator[Defect]:
    """Yield what is wrong with the sform and with the qform, each by itself."""
    if header["sform_code"] > 0:
        yield from _matrix_problems("sform", np.asarray(header.get_sform(), np.float64))
    if header["qform_code"] > 0:
        try:
            yield from _matrix_problems("qform", _qform(header))
        except (ValueError, HeaderDataError):
            yield Defect("has a qform that is no rotation", REWRITE)


def _matrix_problems(name: str, affine: np.ndarray) -> Iterator[Defect]:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite([*sizes, *affine.flat]).all():
        yield Defect(f"has a {name} that is not finite", REWRITE)
    elif not sizes.all() or abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-3:
        yield Defect(f"has a singular {name} (axes of {_times(sizes)} mm)", REWRITE)
    elif not _possible(sizes):
        yield Defect(f"has an impossible {name} (axes of {_times(sizes)} mm)", UNITS)


def _axes_problems(header: nib.Nifti1Header) -> Iterator[Defect]:
    """Yield what is wrong or odd about the affine in use, and about others that disagree with it."""
    affine = best_affine(header)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / sizes
    shear = math.degrees(math.asin(min(1.0, np.abs(np.triu(cosines.T @ cosines, 1)).max())))
    oblique = math.degrees(math.acos(min(1.0, np.abs(cosines).max(axis=0).min())))
    if shear > MAX_SHEAR:
        yield Defect(
            f"has axes {shear:.1f} degrees off square (shear)", "Resample it to a regular grid"
        )
    if oblique > MAX_OBLIQUE:
        yield Defect(
            f"is oblique by {oblique:.1f} degrees", "Resample it if others are not", fatal=False
        )
    if sizes.min() < 0.1 or sizes.max() > 20:
        yield Defect(f"has voxels of {_times(sizes)} mm", "Check its unit and slices", fatal=False)
    yield from _agreement_problems(header, affine, sizes)


def _agreement_problems(
    header: nib.Nifti1Header, affine: np.ndarray, sizes: np.ndarray
) -> Iterator[Defect]:
    has_sform, has_qform = header["sform_code"] > 0, header["qform_code"] > 0
    pixdim = np.asarray(header["pixdim"][1:4], np.float64)
    if not has_sform and not has_qform:
        what = f"has neither sform nor qform and is taken to be {axis_names(affine)}"
        yield Defect(what, "Check left and right", fatal=False)
    if has_sform and has_qform:
        yield from _form_agreement_problems(affine, _qform(header), shape_of(header))
    elif has_sform and not np.allclose(pixdim, sizes, rtol=0.01):
        what = f"has voxels of {_times(sizes)} mm by its sform, which is used, and {_times(pixdim)} by pixdim"
        yield Defect(what, "Check which is right", fatal=False)


def _form_agreement_problems(
    sform: np.ndarray, qform: np.ndarray, shape: tuple[int, ...]
) -> Iterator[Defect]:
    corners = np.array([*itertools.product(*((0, size - 1) for size in shape), (1,))], np.float64).T
    apart = float(np.linalg.norm((sform - qform) @ corners, axis=0).max())
    if axis_names(sform) != axis_names(qform):
        what = f"is {axis_names(sform)} by its sform and {axis_names(qform)} by its qform"
        yield Defect(what, "Find out which is right and write both alike")
    elif apart > 1:
        what = f"has sform, which is used, and qform up to {apart:.1f} mm apart"
        yield Defect(what, "Check which is right", fatal=False)


def best_affine(header: nib.Nifti1Header) -> np.ndarray:
    return np.asarray(header.get_best_affine(), np.float64)


def _qform(header: nib.Nifti1Header) -> np.ndarray:
    return np.asarray(header.get_qform(), np.float64)


def _possible(sizes: np.ndarray) -> bool:
    return bool(((sizes >= MIN_SPACING) & (sizes <= MAX_SPACING)).all())


def axis_names(affine: np.ndarray) -> str:
    return "".join(nib.aff2axcodes(affine))


def _times(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
