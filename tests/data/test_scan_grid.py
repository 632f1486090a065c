"""Volumes on the grid of a scan: where its own voxels are, and back where the model made them."""

from __future__ import annotations

import matplotlib as mpl
import nibabel as nib
import numpy as np
import pytest
from data.test_volumes import (
    COMBINATIONS,
    SHAPE,
    SQUARE,
    TURNED,
    ball,
    centre,
    expected,
    opened,
    patients,
    stored,
    written,
)
from nibabel.viewers import OrthoSlicer3D

from medgen.data.grid import Grid
from medgen.data.scans.nifti import gate
from medgen.data.store.nifti_writer import encoded, write_volume
from medgen.data.store.scan_grid import ScanGrid
from medgen.errors import DataError
from medgen.evaluation import slice_file


def on_scan(path, out, grid, image, mask):
    """Write a volume and its mask like a scan; gives both files."""
    like = ScanGrid.of(path, grid)
    like.write(out / "image.nii.gz", image, False)
    like.write(out / "mask.nii.gz", mask, True)
    return nib.load(out / "image.nii.gz"), nib.load(out / "mask.nii.gz")


@pytest.mark.parametrize(("orientation", "turn", "spacing", "layout"), COMBINATIONS)
def test_what_came_from_a_scan_goes_out_where_its_voxels_are(
    orientation, turn, spacing, layout, tmp_path
):
    """Into the store and out again like the scan itself, voxel by voxel; and back from those files."""
    for number, patient in enumerate(patients()):
        for name in ("bravo", "seg"):
            path = tmp_path / f"scans/p{number}/{name}.nii.gz"
            written(path, patient[name], orientation, turn, spacing)
    size = (18, 20, 14)
    store = opened(tmp_path / "scans", tmp_path / "cache", image_size=size, spacing=spacing)
    values, grid = stored(store)[1].astype(np.float32), Grid.of_volumes(size, spacing)
    scan, truth = (nib.load(tmp_path / f"scans/p1/{name}.nii.gz") for name in ("bravo", "seg"))
    labels = (values[1] > 0).astype(np.uint8)
    image, mask = on_scan(tmp_path / "scans/p1/bravo.nii.gz", tmp_path, grid, values[0], labels)
    for each in (image, mask):
        assert each.shape == scan.shape
        assert nib.aff2axcodes(each.affine) == tuple(orientation)
        assert np.allclose(each.affine, scan.affine, atol=1e-4)
        assert bytes(each.header["descrip"]).rstrip(b"\0") == b"synthetic"
    assert np.array_equal(mask.dataobj, truth.dataobj)
    wanted = encoded(expected(patients()[1])[0].astype(np.float32))
    assert np.array_equal(nib.as_closest_canonical(image).dataobj, wanted)
    for name, part in (("image", encoded(values[0])), ("mask", labels)):
        back = slice_file.read(tmp_path / f"{name}.nii.gz")
        assert back.grid == grid
        assert np.array_equal(back.values, part)
        assert back.is_mask == (name == "mask")
        volume = gate.read(tmp_path / f"{name}.nii.gz", mask=name == "mask")  # as training does
        assert np.array_equal(volume.data, nib.as_closest_canonical(image if name == "image" else mask).dataobj)  # fmt: skip
        assert volume.written == (name == "image")


SCANS = {
    "finer": ((70, 62, 66), (1.0, 1.0, 1.0)),
    "coarser": ((30, 28, 26), (2.5, 2.5, 2.5)),
    "thick": ((64, 64, 22), (1.0, 1.0, 3.0)),
}
"""Voxels of scans and their mm; the model's are of 2 mm."""


@pytest.mark.parametrize(("shape", "spacing"), SCANS.values(), ids=SCANS)
def test_lesions_keep_their_volume_and_place_on_other_voxels(shape, spacing, tmp_path):
    middle = np.multiply(shape, spacing) / 2 + (2, -3, 1)
    head = ball(shape, spacing, middle, 24)
    data = np.where(head, 600 + np.random.default_rng(0).normal(0, 20, shape), 0).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.diag([-spacing[0], -spacing[1], spacing[2], 1])), tmp_path / "s.nii.gz")  # fmt: skip
    grid = Grid.of_volumes((32,) * 3, 2.0)
    one, other = ball((32,) * 3, (2.0,) * 3, (26, 32, 40), 8.0), ball((32,) * 3, (2.0,) * 3, (44, 32, 28), 7.0)  # fmt: skip
    image = np.where(ball((32,) * 3, (2.0,) * 3, (32, 32, 32), 24), 0.2, -1) + 0.8 * one
    labels = (one + 4 * other).astype(np.uint8)
    made, mask = map(nib.as_closest_canonical, on_scan(tmp_path / "s.nii.gz", tmp_path, grid, image, labels))  # fmt: skip
    assert set(np.unique(mask.dataobj)) == {0, 1, 4}
    around = centre(np.asarray(made.dataobj) > 300, spacing)
    for label, lesion in ((1, one), (4, other)):
        found = np.asarray(mask.dataobj) == label
        volume = np.count_nonzero(lesion) * 8.0
        assert np.count_nonzero(found) * np.prod(spacing) == pytest.approx(volume, rel=0.03)
        moved = centre(found, spacing) - around - (centre(lesion, 2.0) - 32)
        assert (np.abs(moved) < np.maximum(spacing, 2.0) / 2).all()
    assert (np.asarray(made.dataobj)[np.asarray(mask.dataobj) == 1] > 700).mean() > 0.8
    back = slice_file.read(tmp_path / "mask.nii.gz").values
    assert np.count_nonzero(back) == pytest.approx(np.count_nonzero(labels), rel=0.03)


def test_a_lesion_of_one_voxel_keeps_one_where_voxels_are_larger(tmp_path):
    for patient in patients()[:1]:
        written(tmp_path / "s.nii.gz", patient["bravo"], "LPS", SQUARE, 3.0)
    labels = np.zeros((24,) * 3, np.uint8)
    labels[12, 12, 12] = 1
    grid = Grid.of_volumes((24,) * 3, 1.5)
    _, mask = on_scan(tmp_path / "s.nii.gz", tmp_path, grid, np.zeros((24,) * 3), labels)
    assert np.count_nonzero(mask.dataobj) == 1


def test_what_lies_beyond_the_scan_is_cut_off_from_image_and_mask_alike(tmp_path):
    written(tmp_path / "s.nii.gz", patients()[0]["bravo"], "RAS", SQUARE, 1.0)
    grid, wide = Grid.of_volumes((40,) * 3, 1.0), np.ones((40,) * 3)
    image, mask = on_scan(tmp_path / "s.nii.gz", tmp_path, grid, wide, wide.astype(np.uint8))
    assert image.shape == mask.shape == SHAPE
    assert (np.asarray(image.dataobj) == 1000).all()
    assert np.asarray(mask.dataobj).all()


def test_a_slice_is_no_scan_to_write_volumes_like(tmp_path):
    nib.save(nib.Nifti1Image(np.eye(16, dtype=np.uint8)[..., None], np.eye(4)), tmp_path / "s.nii")
    with pytest.raises(DataError, match=r"s\.nii: is a single slice \(16 x 16 x 1 voxels\)"):
        ScanGrid.of(tmp_path / "s.nii", Grid.of_volumes((16,) * 3, 1.0))


def test_a_file_whose_note_is_damaged_is_one_line(tmp_path):
    for text in (b'{"medgen": {"shape": [16]}}', b'{"medgen"'):
        write_volume(tmp_path / "m.nii.gz", np.ones((8,) * 3, np.uint8), np.eye(4), text)
        with pytest.raises(DataError, match=r"m\.nii\.gz: cannot be read"):
            slice_file.read(tmp_path / "m.nii.gz")


def test_a_viewer_shows_the_same_places_of_both(tmp_path):
    """nibabel's, without a screen, at the middle of the lesion in mm: the same in all three planes."""
    mpl.use("Agg")
    patient = patients()[1]
    for name in ("bravo", "seg"):
        written(tmp_path / f"scans/p0/{name}.nii.gz", patient[name], "PIR", TURNED, 2.5)
        written(tmp_path / f"scans/p1/{name}.nii.gz", patient[name], "PIR", TURNED, 2.5)
    store = opened(tmp_path / "scans", tmp_path / "cache", image_size=24, spacing=2.5)
    values = stored(store)[0].astype(np.float32)
    path, labels = tmp_path / "scans/p0/bravo.nii.gz", (values[1] > 0).astype(np.uint8)
    image, mask = on_scan(path, tmp_path, Grid.of_volumes((24,) * 3, 2.5), values[0], labels)
    source, truth = nib.load(path), nib.load(tmp_path / "scans/p0/seg.nii.gz")
    place = truth.affine @ [*np.argwhere(np.asarray(truth.dataobj) > 0).mean(0), 1]
    shown = []
    for each in (source, truth, image, mask):
        viewer = OrthoSlicer3D(np.asarray(each.dataobj), each.affine)
        viewer.set_position(*place[:3])
        shown.append([axes.images[0].get_array().filled() for axes in viewer.figs[0].axes[:3]])
        viewer.close()
    for before, outline, made, outlined in zip(*shown, strict=True):
        assert np.array_equal(outline, outlined)
        assert outline.any()
        inside = (made > 0) & (made < 1000)  # neither air nor cut off
        assert np.corrcoef(before[inside], made[inside])[0, 1] > 0.999
