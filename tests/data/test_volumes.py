"""Volumes as training reads them: every voxel where it was, masks of their own volume, found again by content.

Covers: medgen.data.store.patient_slices, medgen.data.store.spacing.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from data.cohort import make_patient, write_cohort
from nibabel import orientations

from medgen.api.tables import DataSettings, size_text
from medgen.data.grid import Grid
from medgen.data.scans.layouts import mask_names
from medgen.data.store.foreground.detect import detect
from medgen.data.store.lesion_pixels import cover
from medgen.data.store.mask_grid import place
from medgen.data.store.mask_slices import open_masks
from medgen.data.store.preprocess import scale
from medgen.data.store.resample import weights
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store
from medgen.errors import DataError

CHANNELS = ("bravo", "seg")
SHAPE = (16, 20, 12)
SQUARE, TURNED = np.eye(3), np.array([[0.96, 0.28, 0], [-0.28, 0.96, 0], [0, 0, 1]])
"""Axes of a scan: those of the body, and turned by 16 degrees about the long axis."""
COMBINATIONS = [
    (orientation, turn, spacing, layout)
    for (orientation, turn, spacing), layout in zip(
        product(("RAS", "LPS", "PIR"), (SQUARE, TURNED), (1.0, 2.5)),
        ("folders", "modalities", "nnunet") * 4,
        strict=True,
    )
]


def opened(root: Path, cache: Path, **changes) -> SliceStore:
    given = {"root": root, "dimensions": 3, "workers": 1, "val_fraction": 0.0, **changes}
    settings = DataSettings(**given)
    return open_store(settings, CHANNELS, mask_names(settings), None, cache)


def stored(store: SliceStore) -> np.ndarray:
    """Every volume, `[patient, channel, x, y, z]`."""
    return store.read(np.arange(len(store)), CHANNELS)


def written(
    path: Path, data: np.ndarray, orientation: str, turn: np.ndarray, spacing: float
) -> None:
    """Write canonical voxels as they are stored by scanners: other axes first, some of them backwards."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * spacing, (-30, 12, 7)
    image = nib.Nifti1Image(data, affine)
    wanted = orientations.axcodes2ornt(orientation)
    now = orientations.io_orientation(affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image.as_reoriented(orientations.ornt_transform(now, wanted)), path)


def paths(root: Path, layout: str, patient: str) -> dict[str, Path]:
    """Where a layout has a patient's files."""
    names = {
        "folders": {name: f"{patient}/{name}.nii.gz" for name in CHANNELS},
        "modalities": {name: f"{name}/{patient}.nii.gz" for name in CHANNELS},
        "nnunet": {
            "bravo": f"imagesTr/{patient}_0000.nii.gz",
            "seg": f"labelsTr/{patient}.nii.gz",
        },
    }
    return {name: root / path for name, path in names[layout].items()}


def patients(shape: tuple[int, int, int] = SHAPE) -> list[dict[str, np.ndarray]]:
    """Two made-up heads with a lesion each."""
    return [make_patient(np.random.default_rng([7, number]), shape) for number in range(2)]


def expected(patient: dict[str, np.ndarray]) -> np.ndarray:
    """What a patient's voxels are, by the rules for intensities and masks alone."""
    data = patient["bravo"].astype(np.float32)
    bravo = scale(data, detect(data).inside, 0.5, 99.5) + 1
    return np.stack([(bravo - 1).astype(np.float16), patient["seg"].astype(np.float16) * 2 - 1])


@pytest.mark.parametrize(("orientation", "turn", "spacing", "layout"), COMBINATIONS)
def test_voxels_are_what_they_were_where_no_resampling_is_asked(
    orientation, turn, spacing, layout, tmp_path
):
    made = patients()
    for number, patient in enumerate(made):
        for name, path in paths(tmp_path / "scans", layout, f"p{number}").items():
            written(path, patient[name], orientation, turn, spacing)
    if layout == "nnunet":
        about = {"channel_names": {"0": "bravo"}, "labels": {"background": 0, "seg": 1}}
        (tmp_path / "scans/dataset.json").write_text(json.dumps(about))
    store = opened(tmp_path / "scans", tmp_path / "cache", image_size=SHAPE)
    assert store.grid == Grid.of_volumes(SHAPE, spacing)
    assert np.array_equal(stored(store), np.stack([expected(each) for each in made]))


@pytest.mark.parametrize("size", [(12, 16, 10), (24, 24, 24)], ids=["cropped", "padded"])
def test_a_box_of_another_size_cuts_and_pads_and_moves_no_value(size, tmp_path):
    made = patients()
    for number, patient in enumerate(made):
        for name, path in paths(tmp_path / "scans", "folders", f"p{number}").items():
            written(path, patient[name], "LPS", TURNED, 1.5)
    store = opened(tmp_path / "scans", tmp_path / "cache", image_size=size, spacing=1.5)
    for patient, found in zip(made, stored(store), strict=True):
        whole = expected(patient)
        wide = np.full((2, *(side + 48 for side in SHAPE)), -1, np.float16)
        wide[:, 24:-24, 24:-24, 24:-24] = whole
        first = [int(np.argwhere(each > 0).min(0)[axis]) for axis, each in enumerate([wide[1]] * 3)]
        there = [int(each) for each in np.argwhere(found[1] > 0).min(0)]
        starts = [one - other for one, other in zip(first, there, strict=True)]
        window = tuple(map(slice, starts, np.add(starts, size)))
        assert np.array_equal(found, wide[(slice(None), *window)])


def ball(shape: tuple[int, ...], spacing: tuple[float, ...], middle, radius: float) -> np.ndarray:
    """Voxels within so many mm of a place in mm."""
    along = np.meshgrid(
        *((np.arange(count) + 0.5) * mm for count, mm in zip(shape, spacing, strict=True)),
        indexing="ij",
    )
    return sum((x - c) ** 2 for x, c in zip(along, middle, strict=True)) < radius**2


def centre(mask: np.ndarray, spacing: float | tuple[float, ...]) -> np.ndarray:
    """The middle of a mask in mm."""
    return (np.argwhere(mask).mean(0) + 0.5) * np.asarray(spacing)


BALLS = {
    "coarser": ((60, 60, 60), (1.0, 1.0, 1.0), 1.7),
    "finer": ((24, 24, 24), (2.5, 2.5, 2.5), 1.25),
    "thick": ((60, 60, 20), (1.0, 1.0, 3.0), 2.0),
}
"""Voxels of the scans, their mm, and the mm of the grid."""


@pytest.mark.parametrize(("shape", "spacing", "pixel"), BALLS.values(), ids=BALLS)
def test_a_ball_keeps_its_volume_and_its_middle(shape, spacing, pixel, tmp_path):
    head = ball(shape, spacing, (30, 30, 30), 24)
    lesions = [ball(shape, spacing, (30.3, 24.1, 33.7), 8.0), ball(shape, spacing, (25, 30, 30), 7)]
    texture = np.random.default_rng(0).normal(0, 20, shape)
    for number, lesion in enumerate(lesions):
        bravo = np.where(head, 600 + 400 * lesion + texture, 0).astype(np.int16)
        for name, data in {"bravo": bravo, "seg": lesion.astype(np.uint8)}.items():
            path = tmp_path / f"scans/p{number}/{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, np.diag([*spacing, 1])), path)
    store = opened(tmp_path / "scans", tmp_path / "cache", image_size=48, spacing=pixel)
    grid = Grid.of_volumes((48,) * 3, pixel)
    for lesion, found in zip(lesions, stored(store), strict=True):
        volume = np.count_nonzero(lesion) * np.prod(spacing)
        assert np.count_nonzero(found[1] > 0) * pixel**3 == pytest.approx(volume, rel=0.03)
        to_head = centre(lesion, spacing) - centre(head, spacing)
        there = centre(found[1] > 0, pixel) - centre(found[0] > -0.9, pixel)
        assert np.abs(there - to_head).max() < pixel / 2
        placed = place(lesion[None], spacing, grid)
        assert placed.masks.sum() * pixel**3 == pytest.approx(volume, rel=0.03)
        moved = centre(placed.masks[0], pixel) - np.array(grid.extent) / 2
        wanted = centre(lesion, spacing) - np.multiply(shape, spacing) / 2
        assert np.abs(moved - wanted).max() < pixel / 2


def test_a_lesion_of_a_voxel_stays_one_and_touching_corners_are_one_lesion(tmp_path):
    for number, patient in enumerate(patients()):
        mask = np.zeros(SHAPE, np.uint8)
        mask[4, 4, 4] = mask[5, 5, 5] = mask[9, 9, 6] = 1
        for name, data in {"bravo": patient["bravo"], "seg": mask}.items():
            written(tmp_path / f"scans/p{number}/{name}.nii.gz", data, "RAS", SQUARE, 1.0)
    store = opened(tmp_path / "scans", tmp_path / "cache", image_size=8, spacing=2.5)
    assert store.figures.lesions[:, 0].tolist() == [[2, 0], [2, 0]]
    assert (store.lesion_area["seg"] == 2).all()
    assert set(store.figures.lost[:, 1].tolist()) == {1.0, 2.0}  # mm3


def test_without_a_spacing_the_largest_head_fits_along_every_axis(tmp_path):
    write_cohort(tmp_path / "scans", patients=2, size=(40, 30, 20), spacing=(1.0, 1.0, 1.0))
    where = (tmp_path / "scans", tmp_path / "cache")
    wide = opened(*where, image_size=(16, 64, 64), min_foreground=0.0)
    flat = opened(*where, image_size=(64, 64, 16), min_foreground=0.0)
    assert wide.grid.spacing[0] == pytest.approx(36 * 1.02 / 14, rel=0.03)  # 36 of the 40 are head
    assert flat.grid.spacing[0] == pytest.approx(18 * 1.02 / 14, rel=0.06)
    assert (wide.figures.cut_off == 0).all()
    assert opened(*where, image_size=16).grid.shape == (16,) * 3


def test_a_store_of_volumes_is_found_again_and_is_none_of_slices(tmp_path):
    write_cohort(tmp_path / "scans", patients=2)
    store = opened(tmp_path / "scans", tmp_path / "cache", image_size=16)
    again = opened(tmp_path / "scans", tmp_path / "cache", image_size=(16, 16, 16))
    assert store.fingerprint == again.fingerprint
    opened(tmp_path / "scans", tmp_path / "cache", image_size=16, dimensions=2)
    kinds = sorted(path.name[:7] for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert kinds == ["slices-", "volumes"]
    assert len(store) == 2
    assert np.isnan(store.place()).all()


@pytest.mark.slow
def test_several_processes_fill_it_with_the_same_bytes(tmp_path):
    write_cohort(tmp_path / "scans", patients=4)
    one = opened(tmp_path / "scans", tmp_path / "one", image_size=16)
    four = opened(tmp_path / "scans", tmp_path / "four", image_size=16, workers=4)
    assert one.fingerprint == four.fingerprint
    assert np.array_equal(stored(one), stored(four))


def test_masks_of_a_folder_lie_on_the_grid_as_training_masks_do(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_CACHE", str(tmp_path / "cache"))
    write_cohort(tmp_path / "scans", patients=2, spacing=(1.5, 1.0, 2.0))
    store = opened(tmp_path / "scans", tmp_path / "cache", image_size=16, spacing=1.9)
    given = DataSettings(
        root=tmp_path / "scans", dimensions=3, image_size=16, workers=1, val_fraction=0.0
    )
    found = open_masks(given, ("seg",), store.grid)
    assert np.array_equal(found.read(np.arange(2))[:, 0], stored(store)[:, 1].astype(np.float32))
    assert not found.outside.any()


def test_a_mask_that_is_a_slice_is_no_mask_of_volumes(tmp_path):
    flat = np.zeros((16, 16, 1), np.uint8)
    flat[4:6, 4:6] = 1
    written(tmp_path / "m.nii.gz", flat, "RAS", SQUARE, 1.0)
    given = DataSettings(
        root=tmp_path, layout="files", files={"seg": "*"}, dimensions=3, workers=1, val_fraction=0.0
    )
    with pytest.raises(DataError) as told:
        open_masks(given, ("seg",), Grid.of_volumes((16,) * 3, 1.0))
    assert "is a single axial slice, and the image model makes volumes" in told.value.lines[0]


def test_the_cover_of_a_box_is_the_product_of_its_axes():
    part = np.ones((2, 3, 4), bool)
    sides = [weights(count, 1.0, 8.0, 4).toarray() for count in part.shape]
    found = cover(part, sides)
    assert found is not None
    each = [side.sum(1)[window] for side, window in zip(sides, found.window, strict=True)]
    assert found.share == pytest.approx(np.einsum("a,b,c->abc", *each), abs=1e-3)


def test_the_middle_of_a_grid_of_volumes_is_its_origin():
    grid = Grid.of(DataSettings(dimensions=3, image_size=(8, 9, 10)), 2.0)
    assert (grid.shape, grid.spacing, grid.axis) == ((8, 9, 10), (2.0, 2.0, 2.0), None)
    assert (grid.affine @ [3.5, 4, 4.5, 1]).tolist() == [0, 0, 0, 1]
    assert Grid.of(DataSettings(image_size=8, axis="coronal"), 2.0) == Grid.of_slices(
        8, 2.0, "coronal"
    )


def test_the_size_of_a_sample_is_one_number_or_three():
    assert DataSettings(dimensions=3, image_size=8).shape == (8, 8, 8)
    assert DataSettings(dimensions=3, image_size=(8, 9, 10)).shape == (8, 9, 10)
    assert DataSettings(image_size=8).shape == (8, 8)
    assert (size_text(8), size_text((8, 9, 10))) == ("8", "8x9x10")
