"""Numbers of slices: what is measured of each, and on which scale models see it.

Covers: medgen.api.numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data.cohort import make_patient, write_volume

from medgen.api.numbers import NUMBERS
from medgen.api.tables import AXES, DataSettings
from medgen.api.values import Mode
from medgen.data.scans.layouts import mask_names
from medgen.data.store import slice_numbers
from medgen.data.store.crop_targets import inside, nearest, region
from medgen.data.store.loader import Loader
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store

ALL = Mode(("bravo",), ("seg",), numbers=tuple(NUMBERS))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Two heads of ten slices, the first of them in the upper part of a volume three times as high."""
    root = tmp_path_factory.mktemp("cohort")
    for number, (below, spacing) in enumerate([(18, (1.0, 1.0, 2.0)), (0, (1.0, 1.44, 2.0))]):
        volumes = make_patient(np.random.default_rng([0, number]), (20, 24, 10))
        for name in ("bravo", "seg"):
            data = np.pad(volumes[name], ((0, 0), (0, 0), (below, 2 if below else 0)))
            write_volume(root / f"Mets_{number:03d}" / f"{name}.nii.gz", data, spacing)
    return root


def opened(root: Path, channels=ALL.names, **changes) -> SliceStore:
    common = {"root": root, "image_size": 24, "workers": 1, "val_fraction": 0.0}
    settings = DataSettings(**{**common, "min_foreground": 0.0, **changes})
    return open_store(settings, channels, mask_names(settings))


@pytest.mark.parametrize("axis", AXES)
def test_position_runs_from_the_first_to_the_last_slice_of_the_head(cohort, axis):
    store = opened(cohort, axis=axis)
    place = slice_numbers.measured(store, "position")
    for patient in range(2):
        mine = place[store.patient == patient]
        assert mine.tolist() == pytest.approx(np.linspace(0, 1, len(mine)).tolist())


def test_a_store_of_masks_alone_has_the_positions_of_the_one_of_images(cohort):
    images, masks = opened(cohort), opened(cohort, channels=("seg",))
    assert len(masks) > len(images)  # every slice of the volume, as masks do not tell the head
    here, there = (
        {
            (int(patient), int(number)): place
            for patient, number, place in zip(
                store.patient,
                store.position,
                slice_numbers.measured(store, "position").tolist(),
                strict=True,
            )
        }
        for store in (images, masks)
    )
    assert {key: there[key] for key in here} == here


def test_size_spacing_and_contrast_are_those_of_the_slices(cohort):
    store = opened(cohort)
    rows = np.arange(len(store))
    image, mask = store.read(rows, ["bravo"])[:, 0], store.read(rows, ["seg"])[:, 0] > 0
    size = slice_numbers.measured(store, "lesion_size")
    assert size == pytest.approx(mask.sum((1, 2)) * store.grid.cell)
    spacing = slice_numbers.measured(store, "spacing")
    assert spacing.tolist() == pytest.approx(np.where(store.patient == 0, 1.0, 1.2).tolist())
    contrast = slice_numbers.measured(store, "contrast")
    assert (contrast[size == 0] == 0).all()
    row = int(size.argmax())
    head = (image[row] > -1) & ~mask[row]
    wanted = np.float64(image[row][mask[row]]).mean() - np.float64(image[row][head]).mean()
    assert contrast[row] == pytest.approx(wanted)
    assert contrast[row] > 0.3


def test_volumes_have_all_numbers_but_a_position(cohort, monkeypatch):
    monkeypatch.setattr(slice_numbers, "PART", 1)  # a volume at a time
    store = opened(cohort, dimensions=3, image_size=16)
    images, masks = (store.read(np.arange(2), [name])[:, 0] for name in ("bravo", "seg"))
    size = slice_numbers.measured(store, "lesion_size")
    assert size == pytest.approx((masks > 0).sum((1, 2, 3)) * store.grid.spacing[0] ** 3)
    spacing = slice_numbers.measured(store, "spacing")
    assert spacing.tolist() == pytest.approx([2 ** (1 / 3), 2.88 ** (1 / 3)])
    for image, mask, contrast in zip(
        images.astype(float), masks > 0, slice_numbers.measured(store, "contrast"), strict=True
    ):
        head = (image > -1) & ~mask
        assert contrast == pytest.approx(image[mask].mean() - image[head].mean())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("position", {0: -1, 0.5: 0, 1: 1}),
        ("lesion_size", {0: -1, 10_000: 1}),
        ("spacing", {0.25: -1, 1: 0, 4: 1}),
        ("contrast", {-2: -1, 0: 0, 2: 1}),
    ],
)
def test_scales_are_fixed_and_reach_from_minus_one_to_one(name, values):
    assert [NUMBERS[name].scale(each) for each in values] == pytest.approx([*values.values()])


def test_every_number_is_measured():
    assert list(slice_numbers.MEASURES) == list(NUMBERS)


def test_a_sample_has_the_numbers_of_its_slice_wherever_it_is_read(cohort):
    store = opened(cohort)
    loader, scaled = Loader(store, ALL, "train"), slice_numbers.scaled(store, ALL.numbers)
    assert scaled.shape == (len(store), 4)
    assert np.abs(scaled).max() <= 1
    batch = loader.at(5, 7)
    assert batch.numbers.dtype == torch.float32
    assert torch.equal(batch.numbers, torch.from_numpy(scaled[loader.slices(5, 7)]))
    assert torch.equal(loader.read(np.arange(3)).numbers, torch.from_numpy(scaled[loader.rows[:3]]))
    loader.close()


def test_a_mode_without_numbers_has_none_in_its_batches(cohort):
    loader = Loader(opened(cohort), ALL._replace(numbers=()), "train")
    assert loader.read(np.arange(2)).numbers == ()
    assert loader.store.numbers == {}


def test_what_a_checkpoint_keeps_is_in_the_order_of_sizes_and_bounded(cohort, monkeypatch):
    store = opened(cohort)
    rows = store.select("train")
    kept = slice_numbers.joint(store, ["position"], rows)
    assert list(kept) == ["lesion_size", "position"]
    assert (np.diff(kept["lesion_size"]) >= 0).all()
    measured = [slice_numbers.measured(store, name)[rows] for name in kept]
    assert sorted(zip(*kept.values(), strict=True)) == sorted(
        zip(*(each.astype(np.float32) for each in measured), strict=True)
    )
    monkeypatch.setattr(slice_numbers, "MOST", 5)
    few = slice_numbers.joint(store, ["position"], rows)["lesion_size"]
    assert len(few) == 5
    assert few[[0, -1]].tolist() == kept["lesion_size"][[0, -1]].tolist()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_crops_around_lesions_have_the_contrast_and_size_of_their_own_lesion(cohort, dimensions):
    store = opened(cohort, crop="lesions", image_size=12, dimensions=dimensions, spacing=2.0)
    contrast, size = (slice_numbers.measured(store, name) for name in ("contrast", "lesion_size"))
    assert len(np.unique(contrast)) > 1
    for row in range(len(store)):
        image, mask = store.read(np.array([row]), ["bravo", "seg"])[0].astype(np.float64)
        own, others = nearest(mask > 0, np.array(mask.shape) // 2)
        ring = region(own, inside(image[None], -1), 4.0, store.grid.spacing) & ~own & ~others
        assert contrast[row] == pytest.approx(image[own].mean() - image[ring].mean())
        assert size[row] == pytest.approx(own.sum() * store.grid.cell)
