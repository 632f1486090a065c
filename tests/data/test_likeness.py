"""Scans of one head are told from those of another, and one that is in two splits is refused, however it was saved.

Covers: medgen.data.scans.consistency.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medgen.api.tables import DataSettings
from medgen.data.scans.check import check
from medgen.data.scans.consistency import across_thick
from medgen.data.scans.layouts import mask_names
from medgen.data.scans.likeness import Likeness, alike, from_text, packed, sketch, to_text, unpacked
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store
from medgen.errors import DataError

SHAPE = (36, 44, 20)
AFFINE = np.array([[4.0, 0, 0, -70], [0, 4, 0, -85], [0, 0, 6, -60], [0, 0, 0, 1]])
Scan = tuple[np.ndarray, np.ndarray]


def head(seed: int) -> Scan:
    """An ellipsoid that all share, with a texture of its own."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, count) for count in SHAPE), indexing="ij")
    inside = sum((x / 0.8) ** 2 for x in axes) < 1
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5)
    return np.where(inside, 400 + 60 * texture / texture.std(), 0).astype(np.float32), AFFINE


def moved(affine: np.ndarray, *voxels: int) -> np.ndarray:
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :3] @ voxels
    return affine


def noisy(data: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(9).normal(0, 0.03 * data.max(), data.shape)
    return np.where(data > 0, data + noise, 0).astype(np.float32)


COPIES: dict[str, Callable[[np.ndarray, np.ndarray], Scan]] = {
    "scaled": lambda data, affine: (np.float32(1.7) * data, affine),
    "int16": lambda data, affine: (np.rint(data / 4).astype(np.int16), affine),
    "noisy": lambda data, affine: (noisy(data), affine),
    "padded": lambda data, affine: (
        np.pad(data, [(5, 3), (2, 6), (1, 4)]),
        moved(affine, -5, -2, -1),
    ),
    "padded, header lost": lambda data, affine: (np.pad(data, [(5, 3), (2, 6), (1, 4)]), affine),
    "cropped": lambda data, affine: (data[4:-5, 3:-6, 1:-2], moved(affine, 4, 3, 1)),
    "neck cut off": lambda data, affine: (data[..., 5:], moved(affine, 0, 0, 5)),
    "shaded": lambda data, affine: (
        data * np.linspace(0.8, 1.2, len(data), dtype=np.float32)[:, None, None],
        affine,
    ),
    "gamma": lambda data, affine: (np.sqrt(data), affine),
}


def likeness(scan: Scan) -> Likeness:
    found = sketch(scan[0].astype(np.float32), scan[0] != 0, scan[1])
    assert found
    return found


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_known_and_no_other_head_is(name):
    """Point 11."""
    people = [likeness(head(seed)) for seed in range(8)]
    copy = likeness(COPIES[name](*head(3)))
    assert [(i, j) for i, j, _ in alike(people, [copy])] == [(3, 0)]
    assert not [*alike(people[:4], people[4:])]


def test_a_slice_and_a_flat_scan_are_compared_with_nothing():
    """Point 11."""
    data, affine = head(0)
    assert sketch(data[..., 9:10], data[..., 9:10] != 0, affine) is None
    assert sketch((data != 0).astype(np.float32), data != 0, affine) is None


def test_a_likeness_survives_being_stored():
    """Point 11."""
    scan = likeness(head(0))
    for again in (unpacked(packed(scan)), from_text(to_text(scan))):
        assert again
        assert again.origin == scan.origin
        np.testing.assert_array_equal(again.box, scan.box)
        np.testing.assert_array_equal(again.space, scan.space)
    assert unpacked(packed(None)) is None
    assert from_text(to_text(None)) is None


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)


def cohort(root: Path, copy: str | None) -> Path:
    """Three patients to train on and one to validate on; a copy of one of the three, if there is one."""
    for seed in range(3):
        save(root / "train" / f"P{seed}" / "bravo.nii.gz", *head(seed))
    save(root / "val" / "P9" / "bravo.nii.gz", *(COPIES[copy](*head(1)) if copy else head(9)))
    return root


def filled(root: Path, **settings: object) -> SliceStore:
    chosen = DataSettings(root=root, image_size=16, min_foreground=0, **settings)
    return open_store(chosen, ("bravo",), mask_names(chosen), cache=root.with_name("cache"))


@pytest.mark.parametrize("copy", ["scaled", "cropped"])
def test_a_nearly_equal_scan_in_two_splits_is_refused_unless_that_is_allowed(tmp_path, copy):
    """Point 11."""
    root = cohort(tmp_path, copy)
    with pytest.raises(
        DataError, match=r"P9/bravo\.nii\.gz: has nearly the voxels .* of .*train/P1/bravo\.nii\.gz"
    ):
        filled(root)
    assert filled(root, allow_patient_overlap=True)
    report = check(DataSettings(root=root), ("bravo",), cache=tmp_path / "checked")
    (fault,) = report.faults
    assert fault.what.startswith("has nearly the voxels")
    assert fault.patient == "P9"


def test_different_heads_in_two_splits_are_no_fault(tmp_path):
    """Point 11."""
    root = cohort(tmp_path, None)
    assert filled(root)
    assert not check(DataSettings(root=root), ("bravo",), cache=tmp_path / "checked").faults


@pytest.mark.parametrize(
    ("spacing", "axis", "told"),
    [
        ((6, 1, 1), "axial", "sagittal"),
        ((1, 6, 1), "axial", "coronal"),
        ((1, 1, 6), "sagittal", "axial"),
        ((1, 1, 6), "axial", None),
        ((6, 1, 1), "sagittal", None),
        ((2, 1, 1), "axial", None),
        ((4, 4, 4), "axial", None),
    ],
)
def test_thick_slices_that_are_cut_across_are_told_of_with_the_axis_to_set(spacing, axis, told):
    """Point 19."""
    found = across_thick([spacing], axis)
    assert (found and found[1]) == (told and f'Set data.axis = "{told}"')


def test_thick_slices_that_are_cut_across_are_told_of_at_training_too(tmp_path, monkeypatch):
    """Point 19."""
    told: list[str] = []
    monkeypatch.setattr("medgen.data.store.store.warn", told.append)
    for seed in range(3):
        save(
            tmp_path / "scans" / f"P{seed}" / "bravo.nii.gz",
            head(seed)[0].transpose(2, 1, 0),
            np.diag([6.0, 1, 1, 1]),
        )
    filled(tmp_path / "scans")
    (line,) = [line for line in told if "thick" in line]
    assert line.endswith('cut across by axial ones. Set data.axis = "sagittal".')
    told.clear()
    filled(tmp_path / "scans", axis="sagittal")
    assert not told
