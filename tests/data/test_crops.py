"""Crops around lesions: what is in them, and which are used.

Covers: medgen.data.store.patient_slices.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from data.cohort import make_patient, write_cohort, write_volume
from scipy import ndimage

from medgen.api.tables import DataSettings
from medgen.api.values import Mode
from medgen.data.scans.layouts import mask_names
from medgen.data.store import crops
from medgen.data.store import store as store_module
from medgen.data.store.loader import Loader
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store
from medgen.errors import DataError, RecipeError

CHANNELS = ("bravo", "seg")
SIZE = 16
INSERT = Mode(("bravo",), ("seg",), margin=2.0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


def opened(root: Path, cache: Path, channels=CHANNELS, **changes) -> SliceStore:
    settings = DataSettings(
        **{"root": root, "image_size": SIZE, "workers": 1, "crop": "lesions", **changes}
    )
    return open_store(settings, channels, mask_names(settings), None, cache)


def voxels(root: Path, patient: int, channel: str) -> np.ndarray:
    """A scan's voxels `[slice, x, y]`."""
    (path,) = (root / f"Mets_{patient:03d}").glob(f"{channel}.nii.gz")
    return np.moveaxis(np.asarray(nib.load(path).dataobj), 2, 0)


def expected(mask: np.ndarray, size: int) -> list[np.ndarray]:
    """The voxels around every lesion of every slice, or volume."""
    found = []
    for each in mask:
        parts, _ = ndimage.label(each, np.ones((3,) * each.ndim))
        for box in ndimage.find_objects(parts):
            low = [(axis.start + axis.stop) // 2 - size // 2 + size for axis in box]
            found.append(np.pad(each, size)[tuple(slice(start, start + size) for start in low)])
    return found


def test_crops_are_the_voxels_around_each_lesion_of_each_slice_at_the_scans_own_resolution(
    cohort, tmp_path
):
    store = opened(cohort, tmp_path)
    assert store.grid.spacing == (1.0, 1.0)
    for patient in range(4):
        rows = np.flatnonzero(store.patient == patient)
        wanted = expected(voxels(cohort, patient, "seg"), SIZE)
        assert (store.read(rows, ("seg",))[:, 0] > 0).tolist() == (np.stack(wanted) > 0).tolist()


def test_the_index_knows_patient_slice_and_place(cohort, tmp_path):
    store = opened(cohort, tmp_path)
    for row in range(len(store)):
        mask = voxels(cohort, store.patient[row], "seg")[store.position[row]]
        (middle,) = [sum(axis.nonzero()[0][[0, -1]] + [0, 1]) // 2 for axis in (mask.any(0),)]
        assert store.corner[row, 1] == middle  # the longer axis begins where the least square does


def test_an_image_is_cut_where_its_mask_is(tmp_path):
    volumes = make_patient(np.random.default_rng(0), (20, 24, 10))
    for number in range(2):
        write_volume(tmp_path / "scans" / f"p{number}" / "seg.nii.gz", volumes["seg"])
        write_volume(tmp_path / "scans" / f"p{number}" / "bravo.nii.gz", volumes["bravo"] + number)
    store = opened(tmp_path / "scans", tmp_path / "cache", val_fraction=0.0, min_foreground=0.0)
    bravo, seg = store.read(np.arange(len(store)), CHANNELS).swapaxes(0, 1)
    head, lesion = (bravo > -1) & (seg < 0), seg > 0
    assert bravo[lesion].min() > bravo[head].mean() + 0.5


def test_lesions_keep_their_area_on_other_pixels(cohort, tmp_path):
    own = opened(cohort, tmp_path)
    fine = opened(cohort, tmp_path, spacing=0.5, image_size=32)
    assert fine.lesion_area["seg"].tolist() == (4 * own.lesion_area["seg"]).tolist()


def test_what_lies_beyond_the_slice_is_background(tmp_path):
    seg, bravo = np.zeros((2, 20, 20, 4), np.int16)
    bravo[2:18, 2:18] = np.random.default_rng(0).integers(400, 900, (16, 16, 4), np.int16)
    seg[2:4, 2:4], seg[16:18, 10:12] = 1, 1
    for number in range(2):
        write_volume(
            tmp_path / "scans" / f"p{number}" / "bravo.nii.gz",
            (bravo + number * (bravo > 0)).astype(np.int16),
        )
        write_volume(tmp_path / "scans" / f"p{number}" / "seg.nii.gz", seg)
    store = opened(tmp_path / "scans", tmp_path / "cache", val_fraction=0.0, min_foreground=0.0)
    images, masks = store.read(np.arange(len(store)), CHANNELS).swapaxes(0, 1)
    assert len(store) == 2 * 4 * 2
    assert (images[0, :7] == -1).all()
    assert (images[0, :, :7] == -1).all()
    assert np.argwhere(masks[0] > 0).tolist() == [[7, 7], [7, 8], [8, 7], [8, 8]]


def test_no_patient_is_trained_on_and_held_out(cohort, tmp_path):
    store = opened(cohort, tmp_path, val_fraction=0.25)
    train, val = (set(store.patient[store.select(split)]) for split in ("train", "val"))
    assert (len(train), len(val)) == (3, 1)
    assert not train & val


def test_pixels_are_as_large_as_the_voxels_of_most_scans(tmp_path):
    root = write_cohort(tmp_path / "scans", patients=2, spacing=(0.8, 0.8, 2.0))
    write_cohort(tmp_path / "more", patients=3, seed=1, spacing=(2.0, 2.0, 2.0))
    (tmp_path / "more" / "Mets_002").rename(root / "Mets_002")
    assert opened(root, tmp_path / "cache").grid.spacing[0] == 0.8
    assert opened(root, tmp_path / "cache", spacing=1.5).grid.spacing[0] == 1.5


def test_lesions_larger_than_a_crop_are_left_out_and_told(cohort, tmp_path, capsys):
    store = opened(cohort, tmp_path, image_size=8, spacing=0.7)
    used = np.concatenate([store.select("train"), store.select("val")])
    assert 0 < len(used) < len(store)
    assert store.extent[used].max() <= 8
    left, said = int((store.extent > 8).sum()), capsys.readouterr().err.replace("\n", " ")
    assert (
        f"data: {left} of {len(store)} lesions in slices are larger than crops of 8 px of 0.7 mm"
        in said
    )
    assert f"Set data.image_size={store.extent.max()} for all of them." in said


def test_patients_without_any_lesion_cannot_be_cropped(tmp_path):
    root = write_cohort(tmp_path / "scans", patients=3)
    for number in range(3):
        write_volume(
            root / f"Mets_{number:03d}" / "seg.nii.gz",
            np.zeros((20, 24, 10), np.uint8),
            (1.0, 1.0, 2.0),
        )
    with pytest.raises(
        DataError, match=r"^data.crop: none of 3 patients has a lesion to cut crops around"
    ):
        opened(root, tmp_path / "cache")


def test_crops_without_a_mask_are_a_mistake_of_the_recipe(cohort, tmp_path):
    with pytest.raises(
        RecipeError, match=r'^data.crop: is "lesions", but no mask is among the channels \(bravo\)'
    ):
        opened(cohort, tmp_path, ("bravo",))


def test_a_mask_of_other_slices_than_its_image_is_a_fault_of_the_files(tmp_path):
    root = write_cohort(tmp_path / "scans", patients=3)
    write_volume(root / "Mets_001" / "seg.nii.gz", np.ones((20, 24, 9), np.uint8), (1.0, 1.0, 2.0))
    with pytest.raises(DataError) as error:
        opened(root, tmp_path / "cache")
    assert "Mets_001" in error.value.lines[0]


# Stores


def test_stores_of_whole_slices_are_found_as_before(tmp_path):
    key = "147690f2d12741a01cce0d14d5f34298"
    settings = DataSettings(image_size=64)
    assert store_module._key(settings, CHANNELS, [], [], tmp_path) == key


def test_another_headroom_is_another_store(tmp_path):
    keys = {
        store_module._key(DataSettings(headroom=room), CHANNELS, [], [], tmp_path)
        for room in (0.0, 0.5, 1.0)
    }
    assert len(keys) == 3


def test_crops_have_a_store_of_their_own(cohort, tmp_path):
    whole, cut = (opened(cohort, tmp_path, crop=crop) for crop in ("none", "lesions"))
    assert whole.fingerprint != cut.fingerprint
    assert whole.extent is None
    assert sorted(len(np.load(path).files) for path in tmp_path.glob("slices-*/index.npz")) == [
        16,
        18,
    ]


# Reading


def test_training_moves_crops_as_a_function_of_the_position_alone(cohort, tmp_path):
    store = opened(cohort, tmp_path)
    one, other = Loader(store, INSERT, "train"), Loader(store, INSERT, "train")
    first = [one.at(position, 4) for position in (0, 4, 8)]
    again = [other.at(position, 4) for position in (8, 4, 0)][::-1]
    halves = other.at(2, 2)
    for batch, same in zip(first, again, strict=True):
        assert (batch.image == same.image).all()
        assert (batch.condition == same.condition).all()
    assert (first[0].image[2:] == halves.image).all()
    chosen = other.at(0, 4, np.array([1, 3]))
    assert (chosen.condition == first[0].condition[[1, 3]]).all()


def test_moves_differ_between_epochs_and_reach_the_rim(cohort, tmp_path):
    loader = Loader(opened(cohort, tmp_path), INSERT, "train")
    moved = loader._moved(np.arange(1000) % loader.size, np.arange(1000))
    assert np.unique(moved).tolist() == [-2, -1, 0, 1, 2]
    assert (moved[: loader.size] != moved[loader.size : 2 * loader.size]).any()


def test_a_moved_crop_is_cut_elsewhere_out_of_the_same_slice(cohort, tmp_path):
    store = opened(cohort, tmp_path)
    rows = np.arange(len(store))
    still, moved = (
        store.read(rows, CHANNELS),
        store.read(rows, CHANNELS, np.tile([2, -1], (len(rows), 1))),
    )
    assert (moved[..., :-2, 1:] == still[..., 2:, :-1]).all()


def test_held_out_crops_are_never_moved(cohort, tmp_path):
    store = opened(cohort, tmp_path, val_fraction=0.25)
    loader = Loader(store, INSERT, "val")
    numbers = np.arange(loader.size)
    assert (
        loader.stored(numbers).image.numpy() == store.read(store.select("val"), ("bravo",))
    ).all()


def test_the_rim_allows_for_moves_and_no_more():
    stack = np.arange(400, dtype=np.float16).reshape(1, 20, 20)
    (crop,) = crops.cut(stack, [crops.Place(0, (10, 10), 3)], crops.with_rim((8, 8)), -1)
    assert crop.tolist() == stack[0, 5:15, 5:15].tolist()
    assert crops.central(crop[None], (8, 8)).tolist() == stack[:, 6:14, 6:14].tolist()


# Volumes


@pytest.fixture(scope="module")
def cubes(tmp_path_factory) -> Path:
    """Volumes of 1 mm."""
    root = tmp_path_factory.mktemp("cubes")
    return write_cohort(root, 3, (20, 24, 16), spacing=(1.0, 1.0, 1.0))


def test_crops_of_volumes_are_the_voxels_around_each_lesion(cubes, tmp_path):
    store = opened(cubes, tmp_path, dimensions=3, val_fraction=0.0)
    assert (store.grid.shape, store.grid.spacing) == ((SIZE,) * 3, (1.0,) * 3)
    for patient in range(3):
        rows = np.flatnonzero(store.patient == patient)
        volume = np.moveaxis(voxels(cubes, patient, "seg"), 0, 2)
        wanted = np.stack(expected(volume[None], SIZE))
        assert (store.read(rows, ("seg",))[:, 0] > 0).tolist() == (wanted > 0).tolist()
        assert store.extent[rows].tolist() == [
            max(np.ptp(axis) + 1 for axis in np.nonzero(crop)) for crop in wanted
        ]
    bravo, seg = store.read(np.arange(len(store)), CHANNELS).swapaxes(0, 1)
    assert bravo[seg > 0].min() > bravo[(bravo > -1) & (seg < 0)].mean() + 0.5


def test_sides_of_a_crop_of_volumes_may_differ(cubes, tmp_path):
    whole = opened(cubes, tmp_path, dimensions=3, val_fraction=0.0)
    flat = opened(cubes, tmp_path, dimensions=3, val_fraction=0.0, image_size=[16, 8, 12])
    rows = np.arange(len(whole))
    assert flat.read(rows, CHANNELS).shape[2:] == (16, 8, 12)
    assert flat.spare == 1
    assert (flat.read(rows, CHANNELS) == whole.read(rows, CHANNELS)[..., 4:12, 2:14]).all()
    assert set(flat.select("train")) == set(np.flatnonzero(whole.extent <= 8))


def test_a_volume_keeps_each_lesion_as_a_crop_of_its_own(tmp_path):
    seg, bravo = np.zeros((2, 24, 24, 24), np.int16)
    bravo[2:22, 2:22, 2:22] = np.random.default_rng(0).integers(400, 900, (20, 20, 20), np.int16)
    seg[6:8, 6:9, 6:8], seg[12:16, 9:12, 10:14], seg[16, 12, 14] = 1, 1, 1  # the last two touch
    for number in range(2):
        image = (bravo + number * (bravo > 0)).astype(np.int16)
        write_volume(tmp_path / "scans" / f"p{number}" / "bravo.nii.gz", image)
        write_volume(tmp_path / "scans" / f"p{number}" / "seg.nii.gz", seg)
    store = opened(tmp_path / "scans", tmp_path / "cache", dimensions=3, val_fraction=0.0)
    assert (len(store), store.corner.shape) == (4, (4, 3))
    assert store.extent.tolist() == [3, 5, 3, 5]
    loader = Loader(store, INSERT, "train")
    seen = set()
    for place in range(0, 24, 4):
        batch, rows = loader.at(place, 4), loader.slices(place, 4)
        for row, mask in zip(rows, batch.condition, strict=True):
            assert set(mask.unique().tolist()) == {-1.0, 0.0, 1.0}
            assert int((mask == 1).sum()) == (12, 49)[row % 2]  # its own, the other is the scan's
            seen.add(tuple(int(each.min()) for each in (mask[0] == 1).nonzero(as_tuple=True)))
    loader.close()
    assert len(seen) > 8  # moved along each axis
