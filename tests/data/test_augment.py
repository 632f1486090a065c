"""Slices that are trained on are changed as a function of the position alone, image and mask alike.

Covers: medgen.api.augment, medgen.data.store.augment.
"""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from data.cohort import write_volume
from scipy import ndimage

from medgen.api.augment import AugmentSettings
from medgen.api.tables import DataSettings
from medgen.api.values import Mode
from medgen.data.grid import Grid
from medgen.data.scans.layouts import mask_names
from medgen.data.store.augment import Affine, Augmentation, Change, moved
from medgen.data.store.loader import Loader
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store

SIZE = 32
CHANNELS = ("bravo", "seg")
TWO_STAGE, JOINT = Mode(("bravo",), ("seg",)), Mode(("bravo", "seg"))
FLIPS = AugmentSettings(flip=0.5)
ALWAYS = AugmentSettings(flip=1.0)
AFFINE = AugmentSettings(flip=0.5, rotate=20.0, scale=0.1, shift=3.0)
GRID = Grid.of_slices(SIZE, 1.0, "axial")


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads, each brighter on the patient's right, where its lesion is; stored LAS, so that the file's first
    axis runs to the left.
    """
    root = tmp_path_factory.mktemp("lopsided")
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, count) for count in (20, 24, 22)), indexing="ij")
    head = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.9) ** 2 < 1
    for number in range(2):
        texture = np.random.default_rng(number).integers(0, 40, head.shape)
        bravo = np.where(head, 400 + 200 * (x > 0) + texture, 0).astype(np.int16)
        lesion = (x - 0.4) ** 2 + (y - 0.1 * number) ** 2 + z**2 < 0.06
        bravo[lesion] = 1200
        for name, data in {"bravo": bravo, "seg": lesion.astype(np.uint8)}.items():
            path = write_volume(root / f"Mets_{number}" / f"{name}.nii.gz", data)
            to_left = np.diag([-1.0, 1, 1, 1])
            nib.save(nib.Nifti1Image(np.ascontiguousarray(data[::-1]), to_left), path)
    return root


def opened(root: Path, cache: Path, **changes: object) -> SliceStore:
    common = {"root": root, "image_size": SIZE, "workers": 1, "val_fraction": 0.0}
    settings = DataSettings(**{**common, "min_foreground": 0.05, **changes})
    return open_store(settings, CHANNELS, mask_names(settings), None, cache)


def feed(store: SliceStore, augment: AugmentSettings | None, mode: Mode = TWO_STAGE) -> Loader:
    return Loader(store, mode, "train", 0, None, augment)


def channels(batch) -> np.ndarray:
    """`[sample, (bravo, seg), row, column]`."""
    return torch.cat([batch.image, batch.condition], 1).float().numpy()


# Sides


@pytest.mark.parametrize("axis", ["axial", "coronal"])
@pytest.mark.parametrize("mode", [TWO_STAGE, JOINT], ids=["given a mask", "joint"])
def test_a_flip_brings_a_lesion_and_its_bright_half_to_the_left(axis, mode, lopsided, tmp_path):
    store = opened(lopsided, tmp_path, axis=axis, lesion_only=True)
    as_is, flipped = (channels(feed(store, each, mode).at(0, 8)) for each in (None, ALWAYS))
    half = SIZE // 2
    for bravo, seg in as_is:  # rows run to the patient's right
        assert bravo[half:].mean() > bravo[:half].mean()
        assert not (seg[:half] > 0).any()
    for bravo, seg in flipped:
        assert bravo[:half].mean() > bravo[half:].mean()
        assert not (seg[half:] > 0).any()
    assert (flipped == as_is[:, :, ::-1]).all()


def test_half_of_the_samples_are_flipped_and_each_pass_flips_others(lopsided, tmp_path):
    store = opened(lopsided, tmp_path)
    draws = [Augmentation(FLIPS, 0, store.grid).draw(place).flipped for place in range(1000)]
    assert 450 < sum(draws) < 550
    passes = np.array(draws[: 4 * 40]).reshape(4, 40)
    assert len(np.unique(passes, axis=0)) == 4


@pytest.mark.parametrize(("axis", "along"), [("axial", 0), ("coronal", 0), ("sagittal", None)])
def test_a_grid_knows_along_which_axis_left_and_right_lie(axis, along):
    assert Grid.of_slices(SIZE, 1.0, axis).left_right == along
    assert Grid.of_slices(SIZE, 1.0, axis).as_volume().left_right == 0


def test_an_oblique_grid_has_no_axis_of_left_and_right():
    turned = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 0], [0, 0, 1.0]])
    assert Grid((4, 4), (1.0, 1.0), turned).left_right is None


def test_sagittal_slices_cannot_be_flipped(medgen, tiny):
    result = medgen("train", "bravo_rflow", *tiny, "data.axis=sagittal", "data.augment.flip=0.5")
    told = "data.augment.flip: got 0.5, but sagittal slices (data.axis) have no left and right"
    assert (result.code, told in result.err) == (2, True), result.err
    with pytest.raises(ValueError, match="sagittal"):
        Augmentation(FLIPS, 0, Grid.of_slices(SIZE, 1.0, "sagittal"))


# A function of the position


@pytest.mark.parametrize("mode", [TWO_STAGE, JOINT], ids=["given a mask", "joint"])
def test_changes_are_a_function_of_the_position_however_it_is_reached(mode, lopsided, tmp_path):
    store = opened(lopsided, tmp_path)
    first, other = feed(store, AFFINE, mode), feed(store, AFFINE, mode)
    whole = [channels(first.at(position, 8)) for position in (0, 8, 16)]
    later = channels(other.at(16, 8))  # as a resumed run begins
    part = channels(other.at(12, 2))
    ranks = [channels(other.at(0, 8, np.arange(rank, 8, 2))) for rank in range(2)]
    assert (later == whole[2]).all()
    assert (part == whole[1][4:6]).all()
    for rank, mine in enumerate(ranks):
        assert (mine == whole[0][rank::2]).all()


def test_the_same_slice_is_changed_anew_in_each_pass(lopsided, tmp_path):
    store = opened(lopsided, tmp_path)
    loader = feed(store, AFFINE)
    rows, batch = loader.slices(0, 2 * loader.size), channels(loader.at(0, 2 * loader.size))
    for row in set(rows):
        one, two = (batch[number] for number, each in enumerate(rows) if each == row)
        assert (one != two).any()


def test_another_seed_draws_other_changes():
    one, two = (Augmentation(AFFINE, seed, GRID) for seed in (0, 1))
    assert one.draw(5) == Augmentation(AFFINE, 0, GRID).draw(5) != two.draw(5)


def test_held_out_slices_and_what_callbacks_read_are_never_changed(medgen, tiny, tmp_path):
    from medgen.config.recipe import load
    from medgen.run.assemble import assemble

    options = (*tiny, "data.augment.flip=1", "data.augment.rotate=20", "data.augment.shift=4")
    runs = [assemble(load("bravo_rflow", each), tmp_path) for each in (options, tiny)]
    for name in ("val", "train"):
        changed, plain = (getattr(run, name) for run in runs)
        numbers = np.arange(plain.size)
        for read in ("read", "stored"):
            pair = (channels(getattr(each, read)(numbers)) for each in (changed, plain))
            assert (next(pair) == next(pair)).all()
    changed, plain = (channels(run.train.at(0, 8)) for run in runs)
    assert (changed != plain).any()


def test_without_the_table_nothing_is_changed(lopsided, tmp_path):
    store = opened(lopsided, tmp_path)
    plain, off = (channels(feed(store, each).at(0, 8)) for each in (None, AugmentSettings()))
    assert (plain == off).all()


def test_every_change_is_within_its_limits():
    draws = [Augmentation(AFFINE, 0, GRID).draw(place) for place in range(2000)]
    angles, scales = (np.array([getattr(d, name) for d in draws]) for name in ("angles", "scale"))
    shifts = np.array([each.shift for each in draws])
    assert 0.95 * math.radians(20) < np.abs(angles).max() <= math.radians(20)
    assert (scales >= 1 / 1.1).all()
    assert (scales <= 1.1).all()
    assert (np.unique(shifts) == np.arange(-3, 4)).all()
    assert abs(angles.mean()) < 0.02
    assert abs(shifts.mean()) < 0.1


def test_a_shift_is_in_mm(lopsided, tmp_path):
    coarse = Grid.of_slices(SIZE, 3.0, "axial")
    draws = [Augmentation(AFFINE, 0, coarse).draw(place).shift for place in range(200)]
    assert np.unique(draws).tolist() == [-1, 0, 1]


# What images and masks become


def as_drawn(slices: np.ndarray, change: Change, masks=(False,)) -> np.ndarray:
    """Apply a change that a test chooses."""
    augmentation = Augmentation(AFFINE, 0, GRID)
    augmentation.draw = lambda place: change
    return augmentation.changed(slices.astype(np.float16), masks, 0).astype(np.float32)


def head(rng: np.random.Generator) -> np.ndarray:
    """A smooth texture in a disc; air around it."""
    rows, columns = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    texture = ndimage.gaussian_filter(rng.normal(0, 3, (SIZE, SIZE)), 2).clip(-0.9, 1)
    return np.where(rows**2 + columns**2 < 100, texture, -1).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [
        Change(False, (0.3,)),
        Change(True, (-0.2,), 1.1, (2, -3)),
        Change(False, (0.0,), 0.9, (0, 1)),
    ],
)
def test_images_are_what_scipy_makes_of_them(change):
    image = head(np.random.default_rng(0))
    [angle] = change.angles
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = (
        change.scale * np.array([[cos, -sin], [sin, cos]]) @ np.diag([1 - 2 * change.flipped, 1])
    )
    back, middle = np.linalg.inv(matrix), np.full(2, (SIZE - 1) / 2)
    offset = middle - back @ (middle + change.shift)
    expected = ndimage.affine_transform(
        image + 1, back, offset, order=1, mode="grid-constant", cval=0.0
    )
    assert np.abs(as_drawn(image[None], change)[0] - (expected - 1)).max() < 2e-3


@pytest.mark.parametrize("seed", range(4))
def test_air_stays_air_and_no_edge_appears(seed):
    image = head(np.random.default_rng(seed))
    augmentation = Augmentation(AFFINE, seed, GRID)
    rows, columns = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    far = rows**2 + columns**2 > (1.1 * (10 + 2) + 3 * math.sqrt(2)) ** 2
    for place in range(20):
        made = augmentation.changed(image[None].astype(np.float16), (False,), place)
        assert (made[0][far] == -1).all()
        assert made.min() >= -1
        assert made.max() <= image.max() + 1e-3


def test_a_shift_alone_moves_whole_pixels_and_blurs_nothing():
    image = head(np.random.default_rng(0)).astype(np.float16)
    made = as_drawn(image[None], Change(False, (0.0,), 1.0, (3, -2)))[0]
    expected = np.full_like(image, -1)
    expected[3:, :-2] = image[:-3, 2:]
    assert np.abs(made - expected).max() <= 1e-3


def spots(rng: np.random.Generator, count: int = 6) -> np.ndarray:
    """Lesions of 1 to 25 px that do not touch, bool `[1, SIZE, SIZE]`."""
    mask = np.zeros((SIZE, SIZE), bool)
    for place in rng.permutation(9)[:count].tolist():
        side, row, column = int(rng.integers(1, 6)), 8 + 8 * (place // 3), 8 + 8 * (place % 3)
        mask[row - side // 2 :, column - side // 2 :][:side, :side] = True
    return mask[None]


@pytest.mark.parametrize("angle", [0.05, 0.3, -0.7])
def test_every_lesion_keeps_its_area_when_it_is_turned(angle):
    for seed in range(10):
        mask = spots(np.random.default_rng(seed))
        made = moved(mask, Affine.of(Change(True, (angle,)), 0, (SIZE, SIZE)))
        before, after = (sizes(each[0]) for each in (mask, made))
        assert before == after


def sizes(mask: np.ndarray) -> list[int]:
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    return sorted(np.bincount(parts.ravel(), minlength=count + 1)[1:].tolist())


def test_the_area_grows_as_the_slice_does():
    mask = np.zeros((1, SIZE, SIZE), bool)
    mask[0, 10:20, 12:18] = True
    for scale in (0.8, 1.2):
        made = moved(mask, Affine.of(Change(False, (0.1,), scale), 0, (SIZE, SIZE)))
        assert made.sum() == int(60 * scale**2 + 0.5)


def test_a_lesion_lies_where_its_image_does():
    """The lesion of an image that is bright there alone."""
    for place in range(20):
        mask = spots(np.random.default_rng(place), 3)
        image = np.where(mask[0], 1.0, -1.0)
        both = np.stack([image, image])
        made = Augmentation(AFFINE, 1, GRID).changed(both.astype(np.float16), (False, True), place)
        bright, lesion = made[0] > 0.2, made[1] > 0
        assert set(np.unique(made[1])) <= {-1.0, 1.0}
        assert (bright & ~ndimage.binary_dilation(lesion)).sum() == 0
        assert made[0][lesion].mean() > 0.3


def test_what_leaves_the_slice_takes_no_area_from_what_stays():
    mask = np.zeros((1, SIZE, SIZE), bool)
    mask[0, 0:6, 10:20] = True
    made = moved(mask, Affine.of(Change(False, (0.0,), 1.0, (-4, 0)), 0, (SIZE, SIZE)))
    assert made.sum() == 2 * 10
    assert made[0, :2, 10:20].all()
    gone = moved(mask, Affine.of(Change(False, (0.0,), 1.0, (-8, 0)), 0, (SIZE, SIZE)))
    assert not gone.any()


def test_a_core_stays_inside_of_its_lesion():
    lesion, core = np.zeros((2, SIZE, SIZE), bool)
    lesion[8:18, 9:20], core[11:15, 12:16] = True, True
    for seed in range(10):
        affine = Affine.of(Augmentation(AFFINE, seed, GRID).draw(0), 0, (SIZE, SIZE))
        made = moved(np.stack([lesion, core]), affine)
        assert made[1].any()
        assert not (made[1] & ~made[0]).any()


# Volumes

VOLUME = Grid.of_volumes((16, 20, 18), 1.5)
TURNED = Change(True, (0.2, -0.1, 0.3), 1.1, (2, -1, 0))


def test_a_volume_is_turned_in_three_planes_and_moved_along_three_axes():
    draws = [Augmentation(AFFINE, 0, VOLUME).draw(place) for place in range(500)]
    angles, shifts = (np.array([getattr(d, name) for d in draws]) for name in ("angles", "shift"))
    assert angles.shape == shifts.shape == (500, 3)
    assert (np.abs(angles).max(0) <= math.radians(20)).all()
    assert (np.abs(angles).max(0) > 0.9 * math.radians(20)).all()
    assert [np.unique(each).tolist() for each in shifts.T] == [[-2, -1, 0, 1, 2]] * 3
    assert abs(np.corrcoef(angles.T)[np.triu_indices(3, 1)]).max() < 0.15
    assert 0.4 < np.mean([each.flipped for each in draws]) < 0.6


def test_a_volume_is_what_scipy_makes_of_it():
    """After rotations about z, y and x, as their matrices are written down in any book."""
    rng = np.random.default_rng(0)
    image = np.pad(ndimage.gaussian_filter(rng.normal(1, 3, (10, 14, 12)), 1), 3).clip(0, 2) - 1
    augmentation = Augmentation(AFFINE, 0, VOLUME)
    augmentation.draw = lambda place: TURNED
    made = augmentation.changed(image[None].astype(np.float16), (False,), 0)[0]
    (a, b, c), zero = TURNED.angles, 0.0
    about_z = [[math.cos(a), -math.sin(a), zero], [math.sin(a), math.cos(a), zero], [zero, zero, 1]]
    about_y = [[math.cos(b), zero, -math.sin(b)], [zero, 1, zero], [math.sin(b), zero, math.cos(b)]]
    about_x = [[1, zero, zero], [zero, math.cos(c), -math.sin(c)], [zero, math.sin(c), math.cos(c)]]
    turn = np.array(about_z) @ np.array(about_y) @ np.array(about_x)
    back = np.linalg.inv(1.1 * turn @ np.diag([-1, 1, 1]))
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - back @ (middle + TURNED.shift)
    given = {"order": 1, "mode": "grid-constant", "cval": 0.0}
    expected = ndimage.affine_transform(image.astype(np.float32) + 1.0, back, offset, **given)
    assert np.abs(made - (expected - 1)).max() < 4e-3


def test_lesions_of_a_volume_keep_their_volume_and_lie_where_its_image_does():
    for seed in range(8):
        mask, rng = np.zeros((1, *VOLUME.shape), bool), np.random.default_rng(seed)
        for corner in ((4, 5, 4), (10, 5, 9), (5, 13, 11)):
            side = rng.integers(1, 4, 3)
            mask[(0, *map(slice, corner, corner + side))] = True
        change = TURNED._replace(scale=1.0, flipped=bool(seed % 2))
        affine = Affine.of(change, 0, VOLUME.shape)
        made = moved(mask, affine)[0]
        parts = [ndimage.label(each, np.ones((3, 3, 3)))[0] for each in (mask[0], made)]
        before, after = (np.sort(np.bincount(each.ravel())[1:]) for each in parts)
        assert before.tolist() == after.tolist()
        middles = [np.array(ndimage.center_of_mass(each > 0, each, [1, 2, 3])) for each in parts]
        apart = np.linalg.norm(affine.targets(middles[0])[:, None] - middles[1], axis=-1)
        assert (apart.min(1) < 0.75).all()


def test_the_volume_of_a_lesion_grows_as_the_sample_does():
    mask = np.zeros((1, *VOLUME.shape), bool)
    mask[0, 5:10, 6:12, 5:11] = True
    made = moved(mask, Affine.of(Change(False, (0.0,) * 3, 1.1, (0,) * 3), 0, VOLUME.shape))
    assert made.sum() == int(180 * 1.1**3 + 0.5)


def test_volumes_are_changed_as_a_function_of_the_position(lopsided, tmp_path):
    store = opened(lopsided, tmp_path, dimensions=3, image_size=16)
    first, other = feed(store, AFFINE), feed(store, AFFINE)
    whole = channels(first.at(0, 6))
    assert (channels(other.at(4, 2)) == whole[4:]).all()
    assert (channels(other.at(0, 6, np.array([1, 3]))) == whole[[1, 3]]).all()
    as_is, flipped = (channels(feed(store, each).at(0, 2)) for each in (None, ALWAYS))
    assert (flipped == as_is[:, :, ::-1]).all()  # the first axis runs to the patient's right


# What is refused


def test_latents_which_are_kept_cannot_be_changed(medgen, tiny, autoencoder):
    options = (f"space.latent.checkpoint={autoencoder}", "space.latent.factor=2")
    result = medgen("train", "bravo_rflow_latent", *tiny, *options, "data.augment.flip=0.5")
    told = "data.augment: is on, but latents are made once, before training"
    assert (result.code, told in result.err) == (2, True), result.err


def test_a_loader_of_kept_samples_is_refused_whatever_made_them(lopsided, tmp_path):
    from medgen.errors import RecipeError

    store = opened(lopsided, tmp_path)
    with pytest.raises(RecipeError, match=r"data\.augment: is on, but what the space made"):
        Loader(store, TWO_STAGE, "train", 0, object(), FLIPS)
    Loader(store, TWO_STAGE, "train", 0, object(), AugmentSettings()).close()


def test_crops_are_moved_by_their_own_rule(medgen, tiny):
    result = medgen("train", "insert_rflow", *tiny, "data.augment.rotate=5")
    told = 'data.augment: is on, but changes whole slices, and data.crop = "lesions" moves crops'
    assert (result.code, told in result.err) == (2, True), result.err


def test_a_run_keeps_its_changes(medgen, tiny, tmp_path):
    small = ("callbacks.previews=false", "training.steps=1", "training.validate_every=0")
    folder = tmp_path / "run"
    given = ("train", "bravo_rflow", *tiny, *small, "data.augment.flip=0.5", f"run.dir={folder}")
    assert medgen(*given).code == 0
    result = medgen("train", "--resume", folder, "data.augment.flip=0", "training.steps=2")
    assert (result.code, "data.augment: " in result.err) == (4, True), result.err
    assert "flip = 0.5" in (folder / "recipe.toml").read_text()
