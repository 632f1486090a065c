"""Masks of a folder come from their own voxels, and what is wrong with them is said in words of generation.

Covers: medgen.data.store.mask_slices.
"""

import shutil

import models
import nibabel as nib
import numpy as np
import pytest
from data.cohort import write_volume

from medgen.errors import DataError
from medgen.generation import folder_masks, pair_writer


@pytest.fixture(scope="module")
def image(trained):
    """An image model of 16 px."""
    return pair_writer.load_model(trained / "bravo/latest.pt")


def lesion(shape=(24, 24, 3), box=(slice(9, 15), slice(8, 16)), label=1, slices=(1,)):
    data = np.zeros(shape, np.uint8)
    for number in slices:
        data[(*box, number)] = label
    return data


def pixels(source, count=4):
    return (source.block(range(count)).values.numpy() > 0).sum((1, 2, 3))


def refused(folder, image):
    with pytest.raises(DataError) as error:
        folder_masks.FolderMasks(folder, image, 0)
    return error.value.lines


@pytest.mark.parametrize(
    "spacing", [(1, 1, 2), (0.5, 0.5, 1), (0.75, 1.25, 3), (2, 1, 1), (1.5, 1.5, 1.5)]
)
@pytest.mark.parametrize("shape", [(24, 24, 3), (32, 24, 3), (18, 25, 3)])
def test_a_lesion_of_a_folder_keeps_its_area_whatever_its_matrix(spacing, shape, image, tmp_path):
    """Issue 10, point 6: it was scaled by the extent of the matrix."""
    middle = [side // 2 for side in shape[:2]]
    data = lesion(shape, tuple(slice(m - 3, m + 4) for m in middle))
    write_volume(tmp_path / "a.nii.gz", data, spacing)
    expected = 49 * spacing[0] * spacing[1]
    made = pixels(folder_masks.FolderMasks(tmp_path, image, 0)) * image.grid.cell
    assert made == pytest.approx([expected] * 4, abs=max(0.05 * expected, image.grid.cell / 2))


def test_a_folder_with_one_slice_gives_it_to_all_pairs(trained, medgen, tmp_path):
    """Issue 10, point 17: it was refused with words on training."""
    write_volume(tmp_path / "masks/a.nii.gz", lesion())
    models = ("--seg-model", tmp_path / "masks", "--image-model", trained / "bravo", "--steps", 2)
    models += (
        "--inside",
        "off",
        "--no-audit",
    )  # after a few steps there is no head that a lesion could lie in
    result = medgen("generate", *models, "--num-images", 3, "--output-dir", tmp_path / "out")
    assert result.code == 0, result.err
    masks = [
        np.asarray(nib.load(path).dataobj) for path in (tmp_path / "out/train").glob("*/seg.nii.gz")
    ]
    assert len(masks) == 3
    assert all(mask.any() and np.array_equal(mask, masks[0]) for mask in masks)


def test_a_folder_of_empty_masks_says_that_there_is_no_lesion(image, tmp_path):
    """Issue 10, point 17."""
    for name in "abc":
        write_volume(tmp_path / f"{name}.nii.gz", np.zeros((24, 24, 3), np.uint8))
    what = "there is no lesion in 3 masks. Give a folder of masks with lesions."
    assert refused(tmp_path, image) == [f"{tmp_path}: {what}"]


@pytest.mark.parametrize("ending", [".NII.GZ", ".Nii.gz", ".NII", ".nii"])
def test_files_are_seen_however_their_names_end(ending, image, tmp_path):
    """Issue 10, point 17."""
    write_volume(tmp_path / "made/a.nii.gz", lesion())
    source = nib.load(tmp_path / "made/a.nii.gz")
    target = tmp_path / f"masks/a{'.nii' if ending.lower() == '.nii' else '.nii.gz'}"
    target.parent.mkdir()
    nib.save(source, target)
    target.rename(target.with_name(f"a{ending}"))
    assert pixels(folder_masks.FolderMasks(tmp_path / "masks", image, 0)).all()


def test_masks_beside_folders_without_scans_are_seen(image, tmp_path):
    """Issue 10, point 17."""
    write_volume(tmp_path / "a.nii.gz", lesion())
    for name in (".hidden", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes/read.me").write_text("")
    assert pixels(folder_masks.FolderMasks(tmp_path, image, 0)).all()


def test_files_beside_patients_are_told_to_be_left_out(image, cohort, tmp_path, capsys):
    """Issue 10, point 17."""
    shutil.copytree(cohort, tmp_path / "scans")
    write_volume(tmp_path / "scans/atlas.nii.gz", lesion())
    assert folder_masks.FolderMasks(tmp_path / "scans", image, 0).slices.files == 4
    assert (
        "1 files that lie beside folders with scans (Mets_000, Mets_001, Mets_002) are left out"
        in (capsys.readouterr().err)
    )


def test_every_file_that_cannot_be_read_is_named(image, tmp_path):
    """Issue 10, point 17: also maps of probability, and what is not a number."""
    write_volume(tmp_path / "good.nii.gz", lesion())
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "good.nii.gz").read_bytes()[:-20])
    (tmp_path / "page.nii.gz").write_text("<html>")
    write_volume(tmp_path / "share.nii.gz", lesion().astype(np.float32) * 0.37)
    write_volume(tmp_path / "nan.nii.gz", np.where(lesion(), np.nan, 0).astype(np.float32))
    problems = refused(tmp_path, image)
    assert [problem.split(": ")[0].rsplit("/", 1)[1] for problem in problems] == [
        "cut.nii.gz", "nan.nii.gz", "page.nii.gz", "share.nii.gz"
    ]  # fmt: skip
    assert "is not a label image, it holds 0.37. Give a mask of whole numbers" in problems[3]
    assert problems[1].endswith("Repair it.")
    assert not any("data." in problem.rsplit(": ", 1)[1] for problem in problems)


def test_masks_of_other_labels_than_in_training_say_so(trained, tmp_path, capsys):
    """Issue 10, point 17."""
    labels = ("[data.masks]\n", '[data.masks]\nseg = { file = "seg", labels = [1, 2] }\n')
    image = pair_writer.load_model(
        models.altered(trained / "bravo", tmp_path / "bravo.pt", recipe=labels)
    )
    write_volume(tmp_path / "masks/a.nii.gz", lesion(label=255))
    hint = "masks hold label 255, and the image model was trained on 1, 2"
    assert f"there is no lesion in 1 masks ({hint})" in refused(tmp_path / "masks", image)[0]
    write_volume(tmp_path / "masks/b.nii.gz", lesion(label=2))
    assert pixels(folder_masks.FolderMasks(tmp_path / "masks", image, 0)).all()
    assert hint in capsys.readouterr().err


def test_single_slices_along_another_axis_are_refused(image, tmp_path):
    """Issue 10, point 6."""
    write_volume(tmp_path / "a.nii.gz", np.moveaxis(lesion((24, 24, 1), slices=(0,)), 2, 0))
    [problem] = refused(tmp_path, image)
    assert "is a single sagittal slice, and the image model makes axial ones" in problem


@pytest.mark.parametrize("factor", [0.1, 10])
def test_masks_of_another_unit_are_refused(factor, image, tmp_path):
    """Issue 10, point 6."""
    write_volume(tmp_path / "a.nii.gz", lesion(), (factor,) * 3)
    [problem] = refused(tmp_path, image)
    assert "more than 4 times apart. Check the unit of its voxels." in problem


def test_lesions_outside_the_images_are_left_out_and_told(image, tmp_path, capsys):
    """Issue 10, point 6."""
    far = (slice(0, 4), slice(0, 4))
    write_volume(tmp_path / "far.nii.gz", lesion((40, 40, 3), far))
    [problem] = refused(tmp_path, image)
    assert f"1 of 1 slices have a lesion outside the image model's slices, {image.grid}" in problem
    write_volume(tmp_path / "near.nii.gz", lesion((40, 40, 3), (slice(18, 22),) * 2))
    assert len(folder_masks.FolderMasks(tmp_path, image, 0).rows) == 1
    assert "1 of 2 slices have a lesion outside" in capsys.readouterr().err


def test_another_start_reads_no_mask_again(image, tmp_path, monkeypatch):
    write_volume(tmp_path / "a.nii.gz", lesion(slices=(0, 2)))
    first = folder_masks.FolderMasks(tmp_path, image, 0)
    monkeypatch.setattr("medgen.data.store.mask_slices.gate.read", None)
    again = folder_masks.FolderMasks(tmp_path, image, 0)
    assert np.array_equal(first.block(range(5)).values, again.block(range(5)).values)
    assert first.identity() == again.identity()
    write_volume(tmp_path / "a.nii.gz", lesion(slices=(0, 1)))
    monkeypatch.undo()
    assert folder_masks.FolderMasks(tmp_path, image, 0).identity() != first.identity()


def test_lesions_too_small_for_a_pixel_are_no_mask(image, tmp_path, capsys):
    """Issue 10, point 6."""
    write_volume(tmp_path / "a.nii.gz", lesion(box=(slice(12, 13),) * 2))
    assert (
        f"all lesions are too small for the image model's slices, {image.grid}"
        in refused(tmp_path, image)[0]
    )
    write_volume(tmp_path / "b.nii.gz", lesion())
    capsys.readouterr()
    assert len(folder_masks.FolderMasks(tmp_path, image, 0).rows) == 1
    assert "warning" not in capsys.readouterr().err


def test_masks_are_centred_on_the_head_as_slices_to_train_on_are(image, tmp_path):
    """A head at the side of its matrix has its lesions where the image model draws the head."""
    across = np.meshgrid(np.arange(40), np.arange(48), indexing="ij")
    head = (across[0] - 12) ** 2 / 8**2 + (across[1] - 30) ** 2 / 10**2 < 1
    scan = np.where(head[..., None], 300, 0).repeat(5, axis=2).astype(np.int16)
    seg = np.zeros_like(scan, np.uint8)
    seg[11:14, 29:32, 2] = 1
    write_volume(tmp_path / "Mets_000/bravo.nii.gz", scan)
    write_volume(tmp_path / "Mets_000/seg.nii.gz", seg)
    mask = folder_masks.FolderMasks(tmp_path, image, 0).block([0]).values[0, 0].numpy() > 0
    assert np.abs(np.argwhere(mask).mean(axis=0) - 7.5).max() <= 1


def test_a_folder_of_wrong_files_is_one_line_per_kind_with_the_count(image, tmp_path):
    """Issue 10, point 17: scans instead of masks, masks of another unit; what a few have is said of each."""
    for number in range(6):
        values = np.where(lesion(), 0.3 + number / 10, 0).astype(np.float32)
        write_volume(tmp_path / f"scan{number}.nii.gz", values)
        write_volume(tmp_path / f"unit{number}.nii.gz", lesion(), (10.0 + number,) * 3)
    for number in range(2):
        (tmp_path / f"page{number}.nii.gz").write_text("<html>")
    problems = refused(tmp_path, image)
    assert [problem.split(": ")[0].rsplit("/", 1)[1] for problem in problems] == [
        "page0.nii.gz", "page1.nii.gz", "scan0.nii.gz", "unit0.nii.gz"
    ]  # fmt: skip
    assert "it holds 0.3, and 5 other files likewise. Give" in problems[2]
    assert "4 times apart, and 5 other files likewise. Check the unit of its voxels." in problems[3]
