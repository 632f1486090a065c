"""What is to be painted of a crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from medgen.data.store.crop_targets import inside, mark, nearest, region

HEAD = np.ones((12, 12), bool)


def masks(*places: tuple[int, ...], size: tuple[int, ...] = (12, 12)) -> np.ndarray:
    """One crop with one mask, float16, as a store gives them."""
    out = np.full((1, 1, *size), -1, np.float16)
    for place in places:
        out[(0, 0, *place)] = 1
    return out


def marks(given: np.ndarray, middle: Sequence[int], margin: float) -> np.ndarray:
    """The marks of masks of crops that are head all over, of pixels of 1 mm."""
    images = np.zeros((len(given), 1, *given.shape[2:]), np.float16)
    return mark(given, images, np.array([middle]), margin, (1.0,) * len(middle))


def test_a_lesion_is_1_its_margin_0_and_all_else_what_is_given():
    marked = marks(masks((6, 6)), (6, 6), 2.0)[0, 0]
    assert marked[6, 6] == 1
    away = np.hypot(*(np.indices((12, 12)) - 6))
    assert (marked[(away > 0) & (away <= 2)] == 0).all()
    assert (marked[away > 2] == -1).all()


def test_the_margin_is_in_mm_along_each_axis():
    assert np.argwhere(region(masks((6, 6))[0, 0] > 0, HEAD, 2.0, (2.0, 1.0))).tolist() == [
        [5, 6], [6, 4], [6, 5], [6, 6], [6, 7], [6, 8], [7, 6],
    ]  # fmt: skip


def test_other_lesions_of_a_crop_belong_to_the_scan():
    marked = marks(masks((6, 6), (6, 9), (7, 10)), (6, 6), 3.0)[0, 0]
    assert np.argwhere(marked > 0).tolist() == [[6, 6]]
    assert (marked[5:8, 8:11] == -1).all()
    assert marked[6, 3] == 0


def test_the_lesion_is_the_one_nearest_to_the_middle():
    crop = masks((2, 2), (3, 3), (9, 9))[0, 0] > 0
    for middle, wanted in (((0, 4), [[2, 2], [3, 3]]), ((8, 8), [[9, 9]])):
        own, others = nearest(crop, middle)
        assert np.argwhere(own).tolist() == wanted
        assert not (own & others).any()


def test_several_masks_make_one_lesion_and_keep_their_own_pixels():
    both = np.full((1, 2, 12, 12), -1, np.float16)
    both[0, 0, 5:8, 5:8], both[0, 1, 6, 6] = 1, 1
    outer, inner = marks(both, (6, 6), 1.0)[0]
    assert (outer > 0).sum() == 9
    assert (inner > 0).sum() == 1
    assert ((outer > -1) == (inner > -1)).all()


def test_volumes_are_marked_as_slices_are():
    marked = marks(masks((3, 4, 5), size=(8, 8, 8)), (3, 4, 5), 1.0)
    assert (marked == 1).sum() == 1
    assert (marked == 0).sum() == 6


@pytest.mark.parametrize("size", [(12, 12), (6, 6, 6)])
def test_a_crop_without_a_lesion_is_given_as_a_whole(size):
    assert (marks(masks(size=size), [3] * len(size), 2.0) == -1).all()


def test_the_margin_of_a_lesion_at_the_rim_ends_with_the_head():
    images = np.full((1, 2, 12, 12), -1, np.float16)
    images[:, 1, :8] = -0.5  # dark in one channel, background in the other
    marked = mark(masks((6, 6)), images, np.array([[6, 6]]), 3.0, (1.0, 1.0))[0, 0]
    assert marked[7, 6] == marked[3, 6] == 0
    assert (marked[8:] == -1).all()


def test_what_is_as_dark_as_background_within_the_head_belongs_to_it():
    image = np.full((1, 8, 8), -1, np.float32)
    image[0, :6] = 0.2
    image[0, 2:4, 2:4] = -1
    assert inside(image, -1)[:6].all()
    assert not inside(image, -1)[6:].any()


def test_a_lesion_that_is_as_dark_as_background_is_painted_nevertheless():
    given = masks((6, 6), (6, 7))
    images = np.full((1, 1, 12, 12), -1, np.float16)
    marked = mark(given, images, np.array([[6, 6]]), 3.0, (1.0, 1.0))[0, 0]
    assert np.argwhere(marked > -1).tolist() == [[6, 6], [6, 7]]
