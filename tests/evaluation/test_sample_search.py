"""Copies of training volumes are found whatever was done to them, and volumes of new persons are not called copies."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation.made_up import volumes
from scipy import ndimage

from medgen.evaluation import copies_picture
from medgen.evaluation.copies import Judge
from medgen.evaluation.lesion_patches import most_alike, patches
from medgen.evaluation.pair_files import Block

SIZE = 32
NONE = np.zeros((1, SIZE, SIZE, SIZE), bool)


@pytest.fixture(scope="module")
def training():
    return volumes(6, SIZE)


@pytest.fixture(scope="module")
def judge(training):
    return Judge(training)


def turned(image):
    middle = (SIZE - 1) / 2
    cos, sin = np.cos(0.12), np.sin(0.12)
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    offset = middle - matrix @ np.full(3, middle)
    return ndimage.affine_transform(image, matrix, offset, order=1, cval=-1)


PLANTED = {
    "exact": lambda image: image,
    "flipped left to right": lambda image: image[::-1],
    "flipped front to back": lambda image: image[:, ::-1],
    "flipped top to bottom": lambda image: image[:, :, ::-1],
    "shifted along all axes": lambda image: np.roll(image, (2, -1, 1), (0, 1, 2)),
    "turned by 7 degrees": turned,
    "gamma 0.8": lambda image: ((image + 1) / 2) ** 0.8 * 2 - 1,
    "noise 2 %": lambda image: image + np.random.default_rng(0).normal(0, 0.04, image.shape),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_copy_of_a_volume_is_found_with_the_volume_it_is_of(name, training, judge):
    made = np.clip(PLANTED[name](training.images[2, 0]), -1, 1).astype(np.float32)
    (verdict,) = judge.judge(made[None, None], NONE)
    assert (verdict.why, verdict.row) == ("volume", 2)


def test_volumes_of_other_persons_are_no_copies(judge):
    others = volumes(4, SIZE, seed=5)
    assert {each.why for each in judge.judge(others.images, np.zeros_like(others.masks))} == {""}
    share, low, high = judge.false_alarms(np.random.default_rng(0))
    assert (share, low, high) == (0, 0, 0)


def test_a_lesion_is_found_again_however_a_cube_of_it_is_turned(training):
    known = patches(training.images, training.masks)
    assert known.values.shape == (len(known.area), 16**3)
    images = training.images.transpose(0, 1, 4, 2, 3)[..., ::-1]
    moved = patches(images, training.masks.transpose(0, 3, 1, 2)[..., ::-1])
    assert len(moved.area) == len(known.area) > 2
    number, score = most_alike(moved, known)
    assert score.min() > 0.98
    assert [int(known.row[each]) for each in number] == moved.row.tolist()


def test_a_lesion_copied_into_another_head_is_found(training, judge):
    host = volumes(1, SIZE, seed=6)
    lesion, source = np.roll(training.masks[3], 2, 1), np.roll(training.images[3, 0], 2, 1)
    image = np.where(lesion, source, host.images[0, 0])
    (verdict,) = judge.judge(image[None, None], lesion[None])
    assert verdict.lesion_row == 3
    assert verdict.lesion_alike > 0.99


def test_the_picture_shows_three_slices_of_each(training, judge, tmp_path):
    block = Block(training.images[:1], training.masks[:1], ("bravo",), training.grid)
    picture = copies_picture._row(judge, block)
    assert len(picture) == 6
    assert np.array_equal(picture[0], picture[3])
    assert copies_picture.save(judge, [block], tmp_path / "audit.png").is_file()
