"""One scale in millimetres for a cohort, small lesions that stay, and masks that lie where there is no head.

Covers: medgen.data.store.concerns, medgen.data.store.head_finding, medgen.data.store.patient_heads,
medgen.data.store.spacing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.cohort import write_volume
from scipy import ndimage

from medgen.api.tables import DataSettings
from medgen.data.scans.layouts import mask_names
from medgen.data.scans.nifti.gate import Volume
from medgen.data.store.head_finding import locate
from medgen.data.store.preprocess import Channel, cut
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store
from medgen.errors import DataError

WIDTH, HEIGHT, DEPTH = 140.0, 170.0, 40.0
"""Of the made-up head, mm."""
LESION = 24.0
GRIDS = {
    "square": ((96, 96), (2.5, 2.5), (0.0, 0.0)),
    "fine": ((150, 180), (1.25, 1.0), (0.0, 0.0)),
    "padded": ((140, 140), (2.5, 2.5), (0.0, 0.0)),
    "aside": ((110, 96), (2.5, 2.5), (30.0, -20.0)),
    "narrow": ((40, 88), (4.0, 2.0), (0.0, 0.0)),
}
"""Of the same head: voxels, mm, and where the head's middle is from the middle of the matrix, mm."""


def drawn(shape, mm, place=(0.0, 0.0), slices=8, lesion=(20.0, 10.0), radius=12.0):
    """A head and its lesion, at a place of their own, on a grid."""
    x, y, z = np.meshgrid(
        *[
            (np.arange(n) + 0.5 - n / 2) * size
            for n, size in zip((*shape, slices), (*mm, 5.0), strict=True)
        ],
        indexing="ij",
    )
    x, y = x - place[0], y - place[1]
    inside = (2 * x / WIDTH) ** 2 + (2 * y / HEIGHT) ** 2 < 1
    texture = np.random.default_rng(0).normal(0, 20, inside.shape)
    marked = ((x - lesion[0]) ** 2 + (y - lesion[1]) ** 2 < radius**2) & (np.abs(z) < 15)
    image = np.where(inside, 400 + texture + 300 * marked + y, 0)
    return np.maximum(image, inside).astype(np.float32), marked.astype(np.uint8)


def write(root: Path, name: str, image, mask, spacing) -> None:
    for channel, data in (("bravo", image), ("seg", mask)):
        if data is not None:
            write_volume(root / name / f"{channel}.nii.gz", data, spacing)


@pytest.fixture
def several(tmp_path) -> Path:
    """The same head, as different scanners and tools would store it."""
    for name, (shape, mm, place) in GRIDS.items():
        write(tmp_path / "scans", name, *drawn(shape, mm, place, radius=LESION), (*mm, 5.0))
    return tmp_path / "scans"


def opened(root: Path, channels=("bravo", "seg"), **changes) -> SliceStore:
    # one head in all scans, and so in both splits
    usual = {
        "root": root,
        "image_size": 64,
        "workers": 1,
        "val_fraction": 0.2,
        "allow_patient_overlap": True,
    }
    settings = DataSettings(**{**usual, **changes})
    return open_store(settings, channels, mask_names(settings), None, root.parent / "cache")


def middle(store: SliceStore, channel: str, patient: int) -> np.ndarray:
    rows = np.flatnonzero(store.patient == patient)
    return store.read(rows[[len(rows) // 2]], (channel,))[0, 0]


def box(inside: np.ndarray) -> np.ndarray:
    """First and last row and column."""
    found = np.argwhere(inside)
    return np.array([found.min(axis=0), found.max(axis=0) + 1])


def test_the_same_head_has_the_same_size_whatever_the_matrix_the_voxels_and_the_padding(several):
    """Issue 10, point 8: within a pixel, areas within 5 %, and a pixel has the mm that the header says within 3 %."""
    store = opened(several)
    heads = [box(middle(store, "bravo", patient) > -1) for patient in range(len(GRIDS))]
    for head in heads:
        assert (
            np.abs((head[1] - head[0]) * store.grid.spacing[0] - (WIDTH, HEIGHT)).max()
            < 2 * store.grid.spacing[0]
        )
        assert np.abs(head - heads[0]).max() <= 1
    areas = [
        np.count_nonzero(middle(store, "seg", each) > 0) * store.grid.cell
        for each in range(len(GRIDS))
    ]
    assert areas == pytest.approx([np.pi * LESION**2] * len(GRIDS), rel=0.05)


def test_the_scale_is_chosen_from_the_heads_and_rounded_up(several, capsys):
    store = opened(several)
    assert HEIGHT / 62 < store.grid.spacing[0] < 1.1 * HEIGHT / 62
    assert float(f"{store.grid.spacing[0]:.3g}") == store.grid.spacing[0]
    assert "cuts" not in capsys.readouterr().err


def test_masks_alone_get_the_scale_and_the_places_of_the_images_beside_them(several):
    """A generator of masks and one of images agree, though the one never reads a scan to train on."""
    both, masks = opened(several), opened(several, ("seg",))
    assert both.grid.spacing[0] == masks.grid.spacing[0]
    for patient in range(len(GRIDS)):
        assert (middle(both, "seg", patient) == middle(masks, "seg", patient)).all()


def test_masks_without_any_scan_are_scaled_by_their_matrix(several):
    for path in several.glob("*/bravo.nii.gz"):
        path.unlink()
    store = opened(several, ("seg",), image_size=140)
    assert store.grid.spacing[0] == pytest.approx(2.5 * 1.02 * 140 / 138, rel=0.01)


def test_slices_that_are_the_grid_already_stay_as_they_are(tmp_path):
    """As pairs that a model wrote; a setting of the same size changes nothing."""
    image, mask = drawn((64, 64), (3.0, 3.0), (12.0, 0.0))
    for name, factor in (("a", 1), ("b", 2)):
        write(tmp_path / "pairs", name, image * factor, mask, (3.0, 3.0, 3.0))
    for changes in ({}, {"spacing": 3.0}):
        store = opened(tmp_path / "pairs", **changes)
        assert store.grid.spacing[0] == 3
        assert ((middle(store, "bravo", 0) > -1) == (image[:, :, 4] > 0)).mean() > 0.99
        assert ((middle(store, "seg", 0) > 0) == mask[:, :, 4]).all()


def test_what_does_not_fit_is_told_with_mm_and_patients(several, capsys):
    store = opened(several, spacing=2.0)
    assert store.grid.spacing[0] == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "cuts" in line]
    assert "64 px of 2 mm cuts up to 2" in line
    assert "off the heads of 5 of 5 patients. Set data.spacing=2.65," in line


def test_a_head_whose_size_no_person_has_is_named(several, capsys):
    """A unit error, for one; other voxels and other matrices are no reason to warn."""
    opened(several)
    assert "wide" not in capsys.readouterr().err
    image, mask = drawn(*GRIDS["square"])
    write(several, "inches", image * 2, mask, (2.5 * 2.54, 2.5 * 2.54, 5.0))
    opened(several)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "wide" in line]
    assert f"{several / 'inches' / 'bravo.nii.gz'}: shows a head 4" in line
    assert "where the median is 168 mm" in line


def test_a_store_of_another_spacing_is_another_store(several):
    assert len({opened(several, spacing=mm).fingerprint for mm in (0.0, 2.9, 3.0)}) == 3
    assert opened(several).fingerprint == opened(several).fingerprint


# Small lesions


def dotted(diameter: float, count: int, mm: float = 1.0, voxels: int = 240) -> np.ndarray:
    rng, data = np.random.default_rng(0), np.zeros((voxels, voxels, count), np.uint8)
    x, y = np.ogrid[:voxels, :voxels]
    for number in range(count):
        a, b = rng.uniform(0.25 * voxels, 0.75 * voxels, 2)
        data[:, :, number] = (x - a) ** 2 + (y - b) ** 2 <= (diameter / 2 / mm) ** 2
        data[round(a), round(b), number] = 1
    return data


@pytest.mark.parametrize(
    ("diameter", "size"), [(1, 128), (2, 128), (3, 128), (2, 64), (3, 64), (4, 64)]
)
def test_no_lesion_vanishes_from_the_mask_however_small(tmp_path, diameter, size):
    """Issue 10, point 9: what a pixel of the grid cannot show is kept as the pixels that it covers most."""
    data = dotted(diameter, 20)
    slices = cut(
        [Channel(write_volume(tmp_path / "seg.nii", data), ())], DataSettings(image_size=size)
    )
    areas = slices.area[:, 0] * (240 / size) ** 2
    assert (slices.area > 0).all()
    assert np.abs(areas - data.sum(axis=(0, 1))).max() <= 1.3 * max(
        (240 / size) ** 2, 0.5 * data.sum() / 20
    )


def test_a_lesion_that_the_grid_shows_is_cut_by_half_cover_as_ever(tmp_path):
    data = dotted(12, 6)
    slices = cut(
        [Channel(write_volume(tmp_path / "seg.nii", data), ())], DataSettings(image_size=120)
    )
    cover = data.reshape(120, 2, 120, 2, 6).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert len(slices.lost) == 0
    assert (slices.stacks[0][cover == 1] == 1).all()
    assert (slices.stacks[0][cover == 0] == 0).all()


def test_how_many_lesions_are_too_small_is_told_with_a_size_that_shows_them(tmp_path, capsys):
    image, mask = drawn((96, 96), (2.0, 2.0), slices=8)
    mask[48, 20, 3] = mask[30, 48, 4] = 1
    write(tmp_path / "scans", "a", image, mask, (2.0, 2.0, 5.0))
    store = opened(tmp_path / "scans", image_size=32, val_fraction=0.0)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "lesions" in line]
    assert f"2 of 3 lesions of seg are too small for 32 px of {store.grid.spacing[0]:g} mm" in line
    assert "(in their largest slice median 4 mm2, largest 4 mm2)" in line
    assert "data.spacing=2 with data.image_size=96 would show 100% of them" in line
    opened(tmp_path / "scans", image_size=96, spacing=2.0, val_fraction=0.0)
    assert "lesions" not in capsys.readouterr().err


def test_the_tip_of_a_lesion_that_is_shown_is_kept_and_not_told(tmp_path):
    """A slice of it that is too small for a pixel is no lesion by itself."""
    data = np.zeros((40, 40, 5), np.uint8)
    data[10:20, 10:20, 1:3] = data[14, 14, 3] = 1
    slices = cut(
        [Channel(write_volume(tmp_path / "seg.nii", data), ())], DataSettings(image_size=10)
    )
    assert slices.lesions.tolist() == [[1, 0]]
    assert len(slices.lost) == 0
    assert slices.stacks[0][3].sum() == 1


# Masks in the air


def test_a_mask_in_the_air_is_refused_and_one_partly_there_is_told(tmp_path, capsys):
    """Issue 10, point 10: with both files and the share; a lesion in a dark cavity at the rim is in the head."""
    image, mask = drawn((96, 96), (2.5, 2.5))
    hollow = np.where((mask > 0) | (np.roll(mask, 4, 0) > 0), 0, image)
    write(tmp_path / "scans", "cavity", hollow, mask, (2.5, 2.5, 5.0))
    write(tmp_path / "scans", "right", image * 2, mask, (2.5, 2.5, 5.0))
    opened(tmp_path / "scans")
    assert "no head" not in capsys.readouterr().err
    write(
        tmp_path / "scans",
        "partly",
        image * 3,
        np.maximum(mask, np.roll(mask, (30, 0), (0, 1))),
        (2.5, 2.5, 5.0),
    )
    for channels in (("bravo", "seg"), ("seg",)):
        opened(tmp_path / "scans", channels)
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "no head" in line]
        assert str(tmp_path / "scans/partly/seg.nii.gz") in line
        assert "where bravo.nii.gz shows no head, 50% of" in line
    write(tmp_path / "scans", "flipped", image * 4, np.roll(mask, (36, 0), (0, 1)), (2.5, 2.5, 5.0))
    for channels in (("bravo", "seg"), ("seg",)):
        with pytest.raises(DataError) as caught:
            opened(tmp_path / "scans", channels)
        (line,) = caught.value.lines
        told = "flipped/seg.nii.gz: marks lesions where bravo.nii.gz shows no head, 100% of their voxels. Check"
        assert told in line


@pytest.mark.parametrize("shift", [0, 1])
def test_the_shares_in_the_air_are_those_of_every_voxel(shift):
    """Though a head is looked for in an eighth of them: of rims, of thin shells around it, and of what lies across."""
    shape = (60, 72, 50)
    axes = np.meshgrid(*[np.linspace(-1, 1, side) for side in shape], indexing="ij")
    inside = np.roll(sum((axis / 0.75) ** 2 for axis in axes) < 1, shift, (0, 1, 2))
    data = np.where(inside, np.random.default_rng(0).normal(500, 30, shape), 0).astype(np.float32)
    head = locate(Volume(data, (1.0, 1.0, 1.0), np.eye(4)))
    assert head.air(inside & ~ndimage.binary_erosion(inside)) == (0, 0)
    across = np.zeros(shape, bool)
    across[2:20, 30:40, 20:30] = True
    assert head.air(across)[0] == pytest.approx(np.mean(~inside[across]), abs=0.01)
    shell = ndimage.binary_dilation(inside) & ~inside
    assert head.air(shell) == (1, 0)
    assert head.voxels() == pytest.approx(inside.sum(), rel=0.01)
    far = ~ndimage.binary_dilation(inside, iterations=8)
    assert head.air(far) == pytest.approx((1, 1), abs=0.1)
